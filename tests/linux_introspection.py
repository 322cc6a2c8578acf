"""Processes, maps, files and symbols of all Linux guests, against their own /proc.

Most of these kernels have no type information: their layout is worked out from
memory. Not collected by default, because it needs all guests and their cores:
``make test-guests``. Guests whose core library is not built are skipped.
"""

from __future__ import annotations

import ctypes
import json
import re
from collections import Counter
from typing import Any

import pytest
from guest import ROOT, boot, in_guest, run_case
from linux_guests import GUESTS, MACHINES
from test_os_sockets_guest import case_sockets, check_sockets

LIBRARIES = ROOT / "pandalite" / "_lib"

#: Guests that run on another one's core.
CORES = {"ppc64el": "ppc64"}

#: CPU time to find the kernel in 256 MB, in seconds. Measured: 0.1 to 0.3.
LONGEST_ATTACH = 0.5

#: Commands that make something to see: threads of several users, open files.
SCENE = (
    """
mkdir -p /tmp/scene; cd /tmp/scene; printf 'text text text' > file
sleep 1001 > out 2> /dev/null < file &
su user -c 'exec sleep 1002' < /dev/null > /dev/null 2>&1 &
tail -f file | cat > pipe-out &
mkfifo fifo; cat fifo > /dev/null 2>&1 &
mkdir mnt; mount -t tmpfs none mnt; sleep 1003 > mnt/inner &
sleep 1004 > gone &
sleep 1; rm gone; cd /
sleep 1
""".strip()
    .replace("\n", "; ")
    .replace("&;", "&")
)

#: What the guest says of each process, in one go. A process that is this shell's
#: own child for the listing is not there later.
LISTING = (
    'for p in /proc/[0-9]*; do echo "@ $p"; cat $p/stat; '
    "echo '@uid'; grep -E '^(Uid|Gid)' $p/status; echo '@maps'; cat $p/maps; "
    "echo '@fd'; for f in $p/fd/*; do [ -e $f -o -L $f ] && "
    "echo ${f##*/} $(readlink $f) $(head -1 ${p}/fdinfo/${f##*/}); done; "
    "echo '@cmdline'; od -An -v -tx1 $p/cmdline | tr -d ' \\n'; echo; done 2>/dev/null"
)


@pytest.fixture(params=MACHINES, scope="module")
def arch(request: Any) -> str:
    name = str(request.param)
    library = LIBRARIES / f"libpanda-{CORES.get(name, name)}.so"
    if not library.exists() or not (GUESTS / name).exists():
        pytest.skip(f"the core library or the guest of {name} is not built")
    return name


def _found(panda: Any) -> dict[str, Any]:
    """All that the core library tells of the guest, in one moment."""
    from pandalite._bindings.structs import (
        PandaMapping,
        PandaModule,
        PandaOpenFile,
        PandaProcessMemory,
        PandaTask,
    )

    lib = panda.libpanda
    status = lib.panda_os_attach()
    assert status == 0, lib.panda_last_error()
    text = ctypes.create_string_buffer(4096)

    def path(file: int) -> str:
        length = lib.panda_os_file_path(file, text, len(text))
        return text.value.decode() if length >= 0 else f"error {length}"

    tasks = (PandaTask * 1000)()
    processes = {}
    for task in tasks[: lib.panda_os_processes(tasks, len(tasks))]:
        one: dict[str, Any] = {
            "name": task.name.decode(errors="replace"),
            "ppid": task.ppid,
            "ids": [task.uid, task.euid, task.gid, task.egid],
            "kernel": bool(task.kernel_thread),
        }
        if task.mm:
            maps = (PandaMapping * 500)()
            one["maps"] = [
                [m.start, m.end, m.flags & 15, m.offset, path(m.file) if m.file else ""]
                for m in maps[: lib.panda_os_mappings(task.task, maps, len(maps))]
            ]
            files = (PandaOpenFile * 500)()
            one["files"] = [
                [f.fd, path(f.file), f.pos, f.flags]
                for f in files[: lib.panda_os_files(task.task, files, len(files))]
            ]
            exe = lib.panda_os_exe(task.task, text, len(text))
            one["exe"] = text.value.decode() if exe >= 0 else str(exe)
            memory = PandaProcessMemory()
            lib.panda_os_memory(task.task, ctypes.byref(memory))
            buf = (ctypes.c_uint8 * max(1, memory.arg_end - memory.arg_start))()
            size = lib.panda_os_read(task.task, memory.arg_start, buf, len(buf))
            one["cmdline"] = bytes(buf[: max(size, 0)]).hex()
        processes[task.pid] = one
    modules = (PandaModule * 200)()
    count = lib.panda_os_modules(modules, len(modules))
    report = lib.panda_os_report().decode()
    seconds = re.search(r"found in: ([0-9.]+) s", report)
    assert seconds, report
    return {
        "processes": processes,
        "modules": [[m.name.decode(), m.base, m.size] for m in modules[: max(count, 0)]],
        "seconds": float(seconds[1]),
        "report": report,
    }


def case_compare(arch: str) -> dict[str, Any]:
    """What is found and what the guest says."""
    panda = boot(arch)

    def work() -> dict[str, Any]:
        panda.run_serial_cmd(SCENE, timeout=120)
        truth = panda.run_serial_cmd(LISTING, timeout=170)
        modules = panda.run_serial_cmd("cat /proc/modules", timeout=60)
        found: dict[str, Any] = {}

        @panda.cb_before_block_exec(name="once")
        def once(cpu: Any, block: Any) -> None:
            panda.disable_callback("once")
            found.update(_found(panda))

        panda.run_serial_cmd("echo", timeout=60)
        found["truth"] = truth
        found["true modules"] = modules
        return found

    return dict(in_guest(panda, work))


def case_symbols(arch: str) -> dict[str, Any]:
    """The kernel's symbols, and what differs from /proc/kallsyms."""
    panda = boot(arch)

    def work() -> dict[str, Any]:
        # Without modules' symbols, which have the module's name behind a tab.
        text = panda.run_serial_cmd(
            "echo 0 > /proc/sys/kernel/kptr_restrict; "
            "grep -v '\\[' /proc/kallsyms | cut -d' ' -f1,3 | gzip -9 | base64 -w0",
            timeout=400,
        )
        import base64
        import gzip

        truth: Counter[tuple[str, int]] = Counter()
        for line in gzip.decompress(base64.b64decode(text)).decode().splitlines():
            address, name = line.split()[:2]
            truth[name, int(address, 16)] += 1
        found: dict[str, Any] = {}

        @panda.cb_before_block_exec(name="once")
        def once(cpu: Any, block: Any) -> None:
            panda.disable_callback("once")
            lib = panda.libpanda
            assert lib.panda_os_attach() == 0, lib.panda_last_error()
            value = type(lib.panda_os_symbol.argtypes[1]._type_())()
            offset = ctypes.c_uint64()
            wrong = []
            names: dict[str, set[int]] = {}
            for name, address in truth:
                names.setdefault(name, set()).add(address)
            for name, addresses in names.items():
                status = lib.panda_os_symbol(name.encode(), ctypes.byref(value))
                if status or value.value not in addresses:
                    wrong.append([name, sorted(addresses), value.value])
            places: dict[int, set[str]] = {}
            for name, address in truth:
                places.setdefault(address, set()).add(name)
            for address, known in places.items():
                got = lib.panda_os_symbol_at(address, ctypes.byref(offset))
                if got is None or got.decode() not in known or offset.value:
                    wrong.append([hex(address), sorted(known), str(got), offset.value])
            found["wrong"] = wrong[:20]
            found["n_wrong"] = len(wrong)
            count = re.search(r"kallsyms: (\d+) symbols", lib.panda_os_report().decode())
            found["count"] = int(count[1]) if count else 0

        panda.run_serial_cmd("echo", timeout=60)
        found["truth"] = sum(truth.values())
        return found

    return dict(in_guest(panda, work))


def case_current(arch: str) -> list[list[Any]]:
    """Which thread runs, many times: [what is done, in the kernel, name] and how often."""
    from pandalite._bindings.structs import PandaTask

    panda = boot(arch)

    def work() -> list[list[Any]]:
        doing = ""
        seen: Counter[tuple[str, bool, str]] = Counter()
        task = PandaTask()
        lib = panda.libpanda

        @panda.cb_before_block_exec(every=997)
        def tick(cpu: Any, block: Any) -> None:
            if doing:
                status = lib.panda_os_current(ctypes.byref(task))
                name = "?" if status else task.name.decode(errors="replace")
                seen[doing, panda.in_kernel(cpu), name] += 1

        panda.run_serial_cmd(
            "printf '#!/bin/sh\\ni=0; while [ $i -lt 8000 ]; do i=$((i + 1)); done\\n'"
            " > /tmp/spinner; chmod +x /tmp/spinner"
        )
        for what, command in (
            ("spin", "/tmp/spinner"),
            ("dd", "busybox dd if=/dev/zero of=/dev/null bs=64k count=3000"),
            ("idle", "sleep 2"),
        ):
            doing = what
            panda.run_serial_cmd(command, timeout=200)
            doing = ""
        return [[*key, n] for key, n in seen.items()]

    return list(in_guest(panda, work))


def _truth(text: str) -> dict[int, dict[str, Any]]:
    processes: dict[int, dict[str, Any]] = {}
    section = ""
    one: dict[str, Any] = {}
    for line in text.splitlines():
        line = line.rstrip("\r")
        if line.startswith("@ /proc/"):
            one = {"maps": [], "files": [], "ids": {}, "cmdline": ""}
            processes[int(line[8:])] = one
            section = "stat"
        elif line.startswith("@"):
            section = line[1:]
        elif section == "stat":
            match = re.fullmatch(r"\d+ \((.*)\) (.*)", line)
            assert match, line
            one["name"], one["ppid"] = match[1], int(match[2].split()[1])
        elif section == "uid":
            one["ids"][line[:3]] = [int(n) for n in line.split()[1:3]]
        elif section == "maps":
            match = re.fullmatch(
                r"([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) \S+ (\d+) *(.*)", line
            )
            assert match, line
            if match[6] in ("[vectors]", "[vsyscall]"):
                continue  # the same page for all: no mapping of the process
            rights = sum(bit for c, bit in zip(match[3], (1, 2, 4, 8)) if c in "rwxs")
            has_file = match[6].startswith("/")
            one["maps"].append(
                [
                    int(match[1], 16),
                    int(match[2], 16),
                    rights,
                    int(match[4], 16) if has_file else 0,
                    match[6] if has_file else "",
                ]
            )
        elif section == "fd" and line:
            match = re.fullmatch(r"(\d+) (.*) pos: *(\d+)", line)
            assert match, line
            one["files"].append([int(match[1]), match[2], int(match[3])])
        elif section == "cmdline" and line:
            one["cmdline"] = line
    return processes


@pytest.fixture(scope="module")
def compared(arch: str) -> tuple[str, dict[str, Any], dict[int, dict[str, Any]]]:
    found = run_case(case_compare, arch, timeout=500)
    found["processes"] = {int(pid): p for pid, p in found["processes"].items()}
    return arch, found, _truth(found["truth"])


def _both(compared: Any) -> list[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Processes that are in both; those that come and go with the listing are not."""
    _, found, truth = compared
    return [
        (pid, found["processes"][pid], one)
        for pid, one in truth.items()
        if pid in found["processes"]
    ]


def test_processes(compared: Any) -> None:
    _, found, truth = compared
    processes = found["processes"]
    stray = {p["name"] for pid, p in processes.items() if pid and pid not in truth}
    missing = {p["name"] for pid, p in truth.items() if pid not in processes}
    # Only what the listing itself ran, and workers of the kernel.
    assert all(name.startswith("kworker") for name in stray), stray
    assert all(name.startswith("kworker") or name in ("bash", "sh") for name in missing), missing
    assert processes[0]["name"].startswith("swapper")
    both = _both(compared)
    assert len(both) > 15
    for pid, one, true in both:
        if one["kernel"]:
            # The guest shows more of a worker's name than there is room for.
            assert true["name"][: len(one["name"])] == one["name"], pid
        else:
            assert true["name"][:15] == one["name"], pid
        assert true["ppid"] == one["ppid"], pid
        assert true["ids"]["Uid"] + true["ids"]["Gid"] == one["ids"], pid
    assert any(one["ids"] == [1000] * 4 for _, one, _ in both)


def test_maps(compared: Any) -> None:
    some = 0
    for pid, one, true in _both(compared):
        if true["maps"]:
            some += 1
            assert one["maps"] == true["maps"], (pid, true["name"])
        else:
            assert "maps" not in one, pid
    assert some >= 7


def test_files(compared: Any) -> None:
    shown: set[str] = set()
    for pid, one, true in _both(compared):
        if not true["maps"] or not true["files"]:
            continue
        got = [f[:2] for f in one["files"]]
        if true["name"] not in ("bash", "sh"):
            assert got == [f[:2] for f in true["files"]], (pid, true["name"])
            for f, t in zip(one["files"], true["files"]):
                if not t[1].startswith("/dev/"):
                    assert f[2] == t[2], (pid, f, t)
        shown.update(f[1] for f in one["files"])
    assert "/tmp/scene/file" in shown and "/tmp/scene/mnt/inner" in shown
    assert "/tmp/scene/gone (deleted)" in shown and "/dev/null" in shown
    assert any(re.fullmatch(r"pipe:\[\d+\]", name) for name in shown), shown


def test_command_lines(compared: Any) -> None:
    seen = set()
    for pid, one, true in _both(compared):
        if true["maps"]:
            # init writes over its own.
            assert one["cmdline"].rstrip("0") == true["cmdline"].rstrip("0"), pid
            seen.add(bytes.fromhex(true["cmdline"]))
    assert b"sleep\x001001\x00" in seen and b"sleep\x001002\x00" in seen


def test_modules(compared: Any) -> None:
    _, found, _ = compared
    if not found["modules"]:
        pytest.skip("the kernel has no modules, or no symbols of data (KALLSYMS_ALL)")
    true = [line.split() for line in found["true modules"].splitlines()]
    assert [m[0] for m in found["modules"]] == [t[0] for t in true]
    assert len(true) > 5
    for (_, base, size), t in zip(found["modules"], true):
        assert (base, size) == (int(t[5], 16), int(t[1]))


def test_sockets(arch: str) -> None:
    out = run_case(case_sockets, arch, timeout=400)
    print(f"{arch}: sockets: {check_sockets(out)}")


def test_attach(compared: Any) -> None:
    arch, found, _ = compared
    print(f"{arch}: found in {found['seconds']:.2f} s of CPU time")
    assert found["seconds"] < LONGEST_ATTACH, found["report"]
    assert "kallsyms: 0 symbols" not in found["report"]


def test_symbols(arch: str) -> None:
    found = run_case(case_symbols, arch, timeout=600)
    assert found["n_wrong"] == 0, found["wrong"]
    assert found["count"] == found["truth"] > 10000


def test_current(arch: str) -> None:
    seen = run_case(case_current, arch, timeout=600)
    print(json.dumps(seen))
    user = Counter({name: n for what, kernel, name, n in seen if what == "spin" and not kernel})
    assert user.total() > 300
    assert user["spinner"] >= 0.99 * (user.total() - user["bash"] - user["sh"])
    assert user["?"] == 0
    kernel = Counter({name: n for what, kernel, name, n in seen if what == "dd" and kernel})
    # Kernel mode until the shell has started it, and on interrupts: not only dd.
    assert kernel["busybox"] + kernel["dd"] > 0.7 * kernel.total()
    assert kernel["?"] <= 0.01 * kernel.total()
    idle = Counter({name: n for what, _, name, n in seen if what == "idle"})
    assert any(name.startswith("swapper") for name in idle)
