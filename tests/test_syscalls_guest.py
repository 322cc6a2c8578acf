"""System calls of Linux guests: expected calls of known commands, on each architecture."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from guest import ROOT, boot, in_guest, run_case

sys.path.insert(0, str(ROOT / "tools"))

GUESTS = ROOT / "pandalite" / "_lib" / "guests"

#: The tiny guests that are built; the two small ones always are.
ARCHES = [
    pytest.param(
        name,
        marks=[] if (GUESTS / name).exists() else pytest.mark.skip(reason=f"no guest {name}"),
    )
    for name in (
        *("x86_64", "i386", "arm", "aarch64", "mips", "mipsel", "mips64", "mips64el"),
        *("ppc", "ppc64", "ppc64el", "riscv64"),
    )
]

AT = r"(?:AT_FDCWD, )?"

#: Command -> its program, and lines that are to be found in this order.
COMMANDS = {
    "cat /etc/hostname": (
        "cat",
        [
            # Its environment may not be in memory before the kernel looks at it.
            r'execve\("[^"]*cat", \["cat", "/etc/hostname"\], 0x\w+(?: /\*.*\*/)?\) = 0',
            r"brk\(NULL\) = 0x\w+",
            rf'open(?:at)?\({AT}"/etc/hostname", O_RDONLY(?:\|O_LARGEFILE)?\) = 3',
            r'read\(3, "debian-NAME\\n", \d+\) = LENGTH'
            r"|sendfile(?:64)?\(1, 3, NULL, \d+\) = LENGTH",
            r"exit_group\(0\) = \?",
        ],
    ),
    # Some of the small guests' shells are busybox, and do themselves what it can.
    "busybox mkdir /tmp/made": (
        "busybox",
        [rf'mkdir(?:at)?\({AT}"/tmp/made", 0777\) = 0', r"exit_group\(0\) = \?"],
    ),
    "busybox mkdir -m 700 /tmp/made": (
        "busybox",
        [
            rf'mkdir(?:at)?\({AT}"/tmp/made", 0[0-7]+\) = -1 EEXIST \(File exists\)',
            r"write\(2, .*\) = \d+",
            r"exit_group\(1\) = \?",
        ],
    ),
    "busybox sleep 0.1": (
        "busybox",
        [
            r"(?:clock_)?nanosleep(?:_time64)?\((?:CLOCK_\w+, 0, )?"
            r"\{tv_sec=0, tv_nsec=10000000[01]\}, .*\) = 0",
            r"exit_group\(0\) = \?",
        ],
    ),
    "busybox sh -c 'exit 3'": ("busybox", [r"exit_group\(3\) = \?"]),
    # An offset of 64 bits: in one register, in two, in two of an even number.
    "busybox dd if=/dev/zero of=/tmp/far bs=1 count=1 seek=5000000000": (
        "busybox",
        [
            r"ftruncate(?:64)?\(1, 5000000000\) = 0|_?ll?seek\(.*\) = .*|ftruncate.*E.*",
            r'write\(1, "\\0", 1\) = 1',
        ],
    ),
    "busybox cat /nothing": (
        "busybox",
        [
            rf'open(?:at)?\({AT}"/nothing", O_RDONLY(?:\|O_LARGEFILE)?\) = -1 ENOENT '
            r"\(No such file or directory\)",
            r"exit_group\(1\) = \?",
        ],
    ),
    "busybox sh -c '(exit 0); busybox true; kill -0 $$'": (
        "busybox",
        [
            r"(?:clone|fork|vfork)\(.*\) = [1-9]\d*",
            r"(?:clone|fork|vfork)\(.*\) = [1-9]\d*",
            r"exit_group\(0\) = \?",
        ],
    ),
}


def case_commands(name: str) -> dict[str, list[str]]:
    """What is printed for each command."""
    from pandalite.syscalls.strace import Strace

    panda = boot(name)
    found = {}

    def work() -> None:
        for command, (program, _) in COMMANDS.items():
            lines: list[str] = []
            with Strace(panda, program, lines.append):
                panda.run_serial_cmd(command, timeout=100)
            found[command] = lines

    in_guest(panda, work)
    return found


@pytest.mark.parametrize("name", ARCHES)
def test_known_commands(name: str) -> None:
    for command, lines in run_case(case_commands, name, timeout=300).items():
        left = [re.sub(r"^\[0x\w+\] ", "", line) for line in lines]
        for pattern in COMMANDS[command][1]:
            hostname = f"debian-{name}"
            wanted = pattern.replace("NAME", name).replace("LENGTH", str(len(hostname) + 1))
            places = [i for i, line in enumerate(left) if re.fullmatch(wanted, line)]
            assert places, f"{command}: no {wanted} in\n" + "\n".join(lines)
            left = left[places[0] + 1 :]


def case_pairs(name: str) -> dict[str, Any]:
    """How calls and returns go together, with processes, signals and interrupted calls."""
    panda = boot(name)
    rows: list[Any] = []
    fields = ("number", "phase", "thread", "pc", "result", "abi")

    def work() -> None:
        panda.run_serial_cmd("true")
        with panda.stream("syscall", fields, batch=64, on_batch=rows.extend) as stream:
            panda.run_serial_cmd("for i in 1 2 3 4 5; do cat /etc/hostname | cat; done")
            panda.run_serial_cmd("sh -c 'trap : USR1; kill -USR1 $$; kill -USR1 $$; echo'")
            panda.run_serial_cmd("sh -c 'trap : ALRM; (sleep 0.2; kill -ALRM $$) & wait; wait'")
            stream.flush()

    in_guest(panda, work)
    return {"rows": rows, "arch": panda.arch_name}


@pytest.mark.parametrize("name", ARCHES)
def test_calls_and_returns_go_together(name: str) -> None:
    from pandalite.syscalls.numbers import ARCH_ABIS, calls, prototypes

    found = run_case(case_pairs, name)
    abis = ARCH_ABIS[found["arch"]]
    entered = returned = in_children = forked = execs = 0
    unknown = 0
    for number, phase, _thread, _pc, result, abi in found["rows"]:
        call = calls(abis[abi]).get(number)
        unknown += call is None
        signed = result - (1 << 64) if result >> 63 else result
        if phase == 0:
            entered += call is None or not prototypes()[call].noreturn
        elif phase == 1:
            returned += 1
            forks = call in ("fork", "vfork", "clone", "clone3")
            forked += forks and signed > 0
            execs += call == "execve" and signed == 0
        else:
            in_children += 1
        assert signed >= -4095 or signed < -(1 << 40), (call, signed)
    assert unknown == 0
    assert execs >= 12
    # A child may be about to begin, and the shell reads from its terminal.
    assert forked >= 12 and 0 <= forked - in_children <= 1
    assert entered > 500 and 0 <= entered - returned <= 4, (entered, returned)


def case_tables(arch: str) -> list[list[Any]]:
    """The core's table of calls."""
    panda = boot(arch)

    def work() -> list[list[Any]]:
        panda.load_plugin("syscalls2", {"load-info": True})
        plugin = panda.plugins["syscalls2"]
        highest = plugin.get_syscall_meta().contents.max
        found = []
        for number in range(highest + 1) if highest < 10000 else range(500):
            info = plugin.get_syscall_info(number)
            if info:
                call = info.contents
                args = [
                    [call.argn[i].decode(), call.argtn[i].decode(), call.argsz[i], call.argt[i]]
                    for i in range(call.nargs)
                ]
                found.append([call.no, call.name.decode(), args, call.noreturn])
        return found

    rows: list[list[Any]] = in_guest(panda, work)
    return rows


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_tables_agree(arch: str) -> None:
    from pandalite.syscalls.numbers import calls, prototypes

    rows = run_case(case_tables, arch)
    known = calls(arch)
    assert [row[0] for row in rows] == sorted(known)
    for number, name, args, noreturn in rows:
        prototype = prototypes()[known[number]]
        assert name == f"sys_{prototype.name}" and noreturn == prototype.noreturn
        assert [a[:2] for a in args] == [[a.name, a.type] for a in prototype.args]
        sizes = {"i": 4, "u": 4, "q": 8}
        word = 8 if arch == "x86_64" else 4
        assert [a[2] for a in args] == [sizes.get(a.kind, word) for a in prototype.args]


def case_typed() -> list[Any]:
    """Callbacks of single calls; what they read, change and leave out."""
    panda = boot()
    seen: list[Any] = []

    def work() -> None:
        @panda.ppp("syscalls2", "on_sys_openat_enter")
        def opened(cpu: Any, pc: int, dfd: int, filename: int, flags: int, mode: int) -> None:
            seen.append(["enter", dfd, panda.read_str(cpu, filename), flags])

        @panda.ppp("syscalls2", "on_sys_openat_return")
        def returned(cpu: Any, pc: int, dfd: int, filename: int, flags: int, mode: int) -> None:
            result = panda.plugins["syscalls2"].get_syscall_retval(cpu)
            assert panda.arch.get_retval(cpu, "syscall") == result
            seen.append(["return", dfd, panda.read_str(cpu, filename), result])
            if panda.read_str(cpu, filename) == "/etc/passwd":
                panda.arch.set_retval(cpu, -13, "syscall")

        @panda.ppp("syscalls2", "on_sys_newuname_return")
        def uname(cpu: Any, pc: int, name: int) -> None:
            panda.virtual_memory_write(cpu, name, b"Changed\0")

        @panda.ppp("syscalls2", "on_sys_mkdir_enter")
        def made(cpu: Any, pc: int, pathname: int, mode: int) -> None:
            panda.virtual_memory_write(cpu, pathname, b"/tmp/other\0")

        @panda.ppp("syscalls2", "on_sys_rmdir_enter")
        def removed(cpu: Any, pc: int, pathname: int) -> None:
            # The call is left out, and says so.
            panda.arch.set_reg(cpu, "RAX", 0)
            panda.arch.set_pc(cpu, pc + 2)

        run = panda.run_serial_cmd
        seen.append(["uname", run("uname")])
        seen.append(["cat", run("cat /etc/hostname /etc/passwd")])
        seen.append(["mkdir", run("mkdir /tmp/exactly; ls -d /tmp/other /tmp/exactly")])
        seen.append(["rmdir", run("busybox rmdir /tmp/other && ls -d /tmp/other")])
        for name in list(panda.ppp_registered_cbs):
            panda.disable_ppp(name)
        seen.append(["after", run("uname")])

    in_guest(panda, work)
    return seen


def test_typed_callbacks() -> None:
    seen = run_case(case_typed)
    said = {row[0]: row[1] for row in seen if len(row) == 2}
    assert said["uname"] == "Changed" and said["after"] == "Linux"
    assert "debian-x86_64" in said["cat"] and "Permission denied" in said["cat"]
    assert "/tmp/other" in said["mkdir"] and "'/tmp/exactly'" in said["mkdir"]
    assert said["rmdir"] == "/tmp/other"
    calls = [row for row in seen if len(row) == 4]
    place = calls.index(["enter", -100, "/etc/hostname", 0])
    assert calls[place + 1] == ["return", -100, "/etc/hostname", 3]
    assert [row[0] for row in calls] == ["enter", "return"] * (len(calls) // 2)


def case_unknown() -> list[Any]:
    """Numbers that no call has."""
    panda = boot()
    seen: list[Any] = []

    def work() -> None:
        @panda.ppp("syscalls2", "on_sys_getppid_enter")
        def change(cpu: Any, pc: int) -> None:
            panda.arch.set_reg(cpu, "RAX", 4000)

        @panda.ppp("syscalls2", "on_sys_getppid_return")
        def returned(cpu: Any, pc: int) -> None:
            seen.append(panda.plugins["syscalls2"].get_syscall_retval(cpu))

        panda.run_serial_cmd("sh -c 'echo $PPID'")

    in_guest(panda, work)
    return seen


def test_number_is_changed() -> None:
    """The event is that of the call that was made; what it returns is what the kernel says."""
    seen = run_case(case_unknown)
    assert seen and set(seen) == {-38}


def case_record(name: str, folder: str) -> list[list[Any]]:
    """The calls of a command, live and in the replay of its recording."""
    panda = boot(name)
    found: list[list[Any]] = []

    @panda.queue_blocking
    def body() -> None:
        panda.revert_sync("root")
        panda.run_serial_cmd("true")
        rows: list[Any] = []
        panda.record(f"{folder}/r")
        with panda.stream("syscall", batch=64, on_batch=rows.extend) as stream:
            panda.run_serial_cmd("cat /etc/hostname | cat; sh -c 'exit 3'", timeout=100)
            stream.flush()
            panda.end_record()
        found.append(rows)
        panda.end_analysis()

    panda.run()
    rows: list[Any] = []
    panda.stream("syscall", batch=64, on_batch=rows.extend)
    panda.run_replay(f"{folder}/r")
    found.append(rows)
    return found


@pytest.mark.parametrize("name", ARCHES)
def test_the_same_in_a_replay(name: str, tmp_path: Path) -> None:
    live, replayed = run_case(case_record, name, str(tmp_path), timeout=300)
    assert len(live) > 200
    # The stream was opened some blocks after the recording had begun.
    while replayed and replayed[0] != live[0]:
        replayed.pop(0)
    assert replayed[: len(live)] == live


def case_compat(folder: str) -> list[str]:
    """A 32-bit program on the 64-bit kernel."""
    from pandalite.syscalls.strace import Strace

    panda = boot()
    lines: list[str] = []

    def work() -> None:
        panda.copy_to_guest(folder)
        panda.run_serial_cmd(
            f"cp /root/{Path(folder).name}/busybox /tmp/busybox-32; chmod +x /tmp/busybox-32"
        )
        with Strace(panda, "busybox-32", lines.append):
            output = panda.run_serial_cmd(
                "/tmp/busybox-32 sh -c '/tmp/busybox-32 cat /etc/hostname; exit 3'"
            )
        assert output == "debian-x86_64"

    in_guest(panda, work)
    return lines


def test_32_bit_program(tmp_path: Path) -> None:
    from debian import Archive
    from guestkit.deb import Package
    from project import cache_dir

    folder = tmp_path / "box"
    folder.mkdir()
    with Package(Archive("bookworm", "i386", cache_dir()).binary("busybox-static")) as package:
        (folder / "busybox").write_bytes(package.read("usr/bin/busybox"))
    lines = run_case(case_compat, str(folder))
    text = "\n".join(lines)
    assert re.search(r'execve\("/tmp/busybox-32", \["/tmp/busybox-32", "sh", .*\) = 0', text)
    assert re.search(r"set_thread_area\(0xff\w+\) = 0\n", text), text
    assert re.search(r"sendfile64\(1, 3, NULL, \d+\) = 14\n", text), text
    assert re.search(r'open(?:at)?\((?:AT_FDCWD, )?"/etc/hostname", O_RDONLY\|O_LARGEFILE', text)
    assert "exit_group(3) = ?" in text
    assert "syscall_" not in text
