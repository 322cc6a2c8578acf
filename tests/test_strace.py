"""The decoder against the guest's own strace, call by call."""

from __future__ import annotations

import difflib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from guest import ROOT, boot, in_guest, run_case

sys.path.insert(0, str(ROOT / "tools"))

from debian import Archive
from guestkit.deb import Package
from project import cache_dir

#: strace and its libraries, as the x86_64 guest's Debian has them.
PACKAGES = ["strace", "libc6", "liblzma5", "libunwind8"]
FILES = re.compile(
    r"usr/bin/strace$|usr/lib/x86_64-linux-gnu/"
    r"(?:ld-linux-x86-64\.so\.2|libc\.so\.6|liblzma\.so\.5|libunwind\.so\.8"
    r"|libunwind-(?:ptrace|x86_64)\.so\.[0-9])$"
)

COMMANDS = [
    "cat /etc/hostname /nothing",
    "ls -l /etc",
    "ls -la /dev",
    "mkdir -p a/b/c",
    "touch x y",
    "ln -s x z",
    "chmod 600 /etc/hostname",
    "cp /etc/passwd p",
    "mv /tmp/w /tmp/v",
    "rm -rf /tmp/w",
    "stat /etc/passwd",
    "find /etc -name host*",
    "grep root /etc/passwd",
    "sed s/a/b/ /etc/passwd",
    "sort /etc/passwd",
    "tar cf t.tar /etc/init.d",
    "df",
    "mount",
    "uname -a",
    "sleep 0.1",
    "id user",
    "wc /etc/passwd",
    "head -3 /etc/passwd",
    "seq 300",
    "dd if=/dev/zero of=f bs=1k count=3",
    "wget -q -O - http://10.0.2.2:1/",
    "nc -w 1 10.0.2.2 1",
    "readlink /proc/self/exe",
    "sh -c 'echo hi > f; cat f | wc; test -d /etc && ls /; sleep 0.1 & wait'",
    "bash -c 'trap \"echo t\" USR1; kill -USR1 $$; echo *; exit 3'",
    "dash -c 'cat /etc/passwd | sort | head -2; ( cd /; pwd )'",
    "timeout 1 sleep 5",
    "xargs -n 1 echo < /etc/hosts",
]

#: What has a process number for a result, or among its arguments.
_PIDS = re.compile(
    r"((?:set_tid_address|getpid|gettid|getppid|getpgrp|getpgid|setpgid|clone|fork|vfork|wait4|kill"
    r"|getsid|setsid|tgkill|rt_sigreturn)\(.*\)) = \d+"
)


@pytest.fixture(scope="module")
def strace(tmp_path_factory: Any) -> Path:
    """A directory with strace and what it needs."""
    folder: Path = tmp_path_factory.mktemp("strace") / "st"
    folder.mkdir()
    for deb in Archive("bookworm", "amd64", cache_dir()).binaries(PACKAGES).values():
        with Package(deb) as package:
            for path in package.paths():
                if FILES.search(path):
                    target = folder / Path(path).name
                    target.write_bytes(package.read(path))
                    target.chmod(0o755)
    assert len(list(folder.iterdir())) >= 7
    return folder


def case_compare(folder: str) -> list[list[Any]]:
    """The lines of both, by process, for each command."""
    from pandalite.syscalls.strace import Strace

    panda = boot()
    found: list[list[Any]] = []
    tool = f"{folder}/ld-linux-x86-64.so.2".replace(folder, "/root/st")
    tool += " --library-path /root/st /root/st/strace -ff -o /tmp/out/t"
    show = "cd /tmp/out; for f in $(ls | sort -t . -k 2 -n); do echo @@@; cat $f; done"

    def work() -> None:
        panda.copy_to_guest(folder)
        panda.run_serial_cmd("mkdir /tmp/w /tmp/out; cd /tmp/w; cat /root/st/* > /dev/null; sync")
        panda.snap_sync("copied")
        for command in COMMANDS:
            panda.run_serial_cmd(f"{tool} {command} > /dev/console 2>&1", timeout=100)
            real = panda.run_serial_cmd(show, timeout=100).split("@@@")[1:]
            panda.revert_sync("copied")
            lines: list[str] = []
            program = command.split()[0]
            with Strace(panda, program, lines.append):
                panda.run_serial_cmd(f"{command} > /dev/console 2>&1", timeout=100)
            panda.revert_sync("copied")
            found.append([command, [r.splitlines() for r in real], _by_process(lines)])

    in_guest(panda, work)
    return found


def _by_process(lines: list[str]) -> list[list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        match = re.match(r"\[(0x\w+)\] (.*)", line)
        number, text = (match[1], match[2]) if match else ("1", line)
        found.setdefault(number, []).append(text)
    return list(found.values())


def normal(line: str) -> str:
    """A line without what differs between two runs."""
    line = re.sub(r"\) += ", ") = ", line)
    line = re.sub(r"0x[0-9a-f]{5,}", "ADDRESS", line)
    line = re.sub(r'^getrandom\("[^"]*"', "getrandom(RANDOM", line)
    line = _PIDS.sub(r"\1 = PID", line)
    line = re.sub(r"^(kill|setpgid)\(\d+, (?:\d+|(\w+))\)", r"\1(PID, \2)", line)
    line = re.sub(r"(TIOC[GS]PGRP, )\[\d+\]", r"\1[PID]", line)
    line = re.sub(r"^(clock_gettime|gettimeofday)\((.*)\{.*\}", r"\1(\2NOW", line)
    # Memory that is free, time that has passed.
    line = re.sub(r"^sysinfo\(.*\)", "sysinfo(NOW)", line)
    line = re.sub(r"(f_bfree|f_bavail|f_blocks|f_ffree|f_files)=\d+", r"\1=N", line)
    return line


def _ratio(a: list[str], b: list[str]) -> float:
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def test_as_strace_prints_it(strace: Path) -> None:
    total = same = 0
    report = []
    for command, real, ours in run_case(case_compare, str(strace), timeout=900):
        assert len(real) == len(ours), (command, real, ours)
        left = [[normal(x) for x in process] for process in ours]
        for process in real:
            # Signals and the end of a process are no calls.
            a = [normal(x) for x in process if x.strip() and x[:3] not in ("---", "+++")]
            # Which process is which is told by what it does.
            b = max(left, key=lambda lines: _ratio(a, lines))
            left.remove(b)
            matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
            equal = sum(block.size for block in matcher.get_matching_blocks())
            total += max(len(a), len(b))
            same += equal
            if equal < max(len(a), len(b)):
                report.append(f"{command}: {equal} of {len(a)}")
                report += [d for d in difflib.ndiff(a, b) if d[0] in "-+"]
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "strace-diff.txt").write_text("\n".join(report) + "\n")
    (ROOT / "build" / "strace.json").write_text(json.dumps({"calls": total, "equal": same}))
    assert total > 3000
    assert same / total >= 0.99, "\n".join(report[:200])
