"""Events of the guest's system, against what its shell did and its /proc says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from guest import boot, in_guest, run_case
from test_os_guest import at_rest

from pandalite.errors import IntrospectionError, PluginError
from pandalite.os_events import KINDS

#: Kernels with type information and without, that pass arguments in different registers.
#: The others: tests/linux_os_events.py.
ARCHES = ("x86_64", "i386")


def listen(panda: Any, *kinds: str, **filters: Any) -> list[Any]:
    """Events of some kinds as they come."""
    seen: list[Any] = []
    for kind in kinds:
        panda.os.on(kind, name=kind, **filters)(seen.append)
    return seen


def deaf(panda: Any, *kinds: str) -> None:
    for kind in kinds:
        panda.os.off(kind)


# ---- programs, processes and their ends ----


def see_processes(panda: Any) -> dict[str, Any]:
    kinds = ("start", "exec", "fork", "exit", "switch")
    shell = int(panda.run_serial_cmd("echo $$"))
    seen = listen(panda, *kinds)
    said = panda.run_serial_cmd(
        "X=1 cat /etc/hostname 'a b' 2>/dev/null; sh -c 'exit 7'; echo $?; "
        "sh -c 'kill -9 $$' 2>/dev/null; echo $?; true & echo pid $!; wait",
        timeout=60,
    )
    deaf(panda, *kinds)
    before = len(seen)
    panda.run_serial_cmd("true")
    return {
        "shell": shell,
        "said": said,
        "after": len(seen) - before,
        "forks": [
            [e.process.pid, e.child.pid, e.child.ppid, e.is_thread]
            for e in seen
            if e.kind == "fork"
        ],
        "execs": [[e.process.pid, e.process.name, e.exe] for e in seen if e.kind == "exec"],
        "starts": {
            e.process.name: [e.argv, e.envp, e.auxv, e.exe] for e in seen if e.kind == "start"
        },
        "exits": {
            e.process.pid: [e.process.name, e.code, e.signal, e.is_last]
            for e in seen
            if e.kind == "exit"
        },
        "switches": sorted({e.process.name for e in seen if e.kind == "switch"}),
    }


def case_processes(arch: str) -> dict[str, Any]:
    panda = boot(arch)
    return dict(in_guest(panda, lambda: see_processes(panda)))


def check_processes(out: dict[str, Any]) -> None:
    assert re.search(r"^7\s(?:Killed\s+)?137$", out["said"], re.MULTILINE), out["said"]
    background = int(re.search(r"pid (\d+)", out["said"])[1])  # type: ignore[index]
    forks = out["forks"]
    assert all(not is_thread and ppid == parent for parent, _, ppid, is_thread in forks)
    children = [child for parent, child, _, _ in forks if parent == out["shell"]]
    # cat, two of sh, true.
    assert len(children) == 4 and children[-1] == background and len(set(children)) == 4
    assert [e[:2] for e in out["execs"]][:3] == [
        [children[0], "cat"],
        [children[1], "sh"],
        [children[2], "sh"],
    ]
    assert re.search("/(cat|busybox-shared)$", out["execs"][0][2])
    exits = {int(pid): value for pid, value in out["exits"].items()}
    assert exits[children[0]] == ["cat", 1, None, True]
    assert exits[children[1]] == ["sh", 7, None, True]
    assert exits[children[2]] == ["sh", None, 9, True]
    assert exits[children[3]][1:] == [0, None, True]
    argv, envp, auxv, exe = out["starts"]["cat"]
    assert argv == ["cat", "/etc/hostname", "a b"]
    assert "X=1" in envp and any(word.startswith("PATH=") for word in envp)
    assert auxv["pagesz"] in (4096, 16384, 65536) and auxv["entry"] and auxv["uid"] == 0
    assert exe == out["execs"][0][2]
    # Which others come to run under their names is a matter of time.
    assert {"bash", "sh"} & set(out["switches"]) and len(out["switches"]) > 1
    assert out["after"] == 0


@pytest.mark.parametrize("arch", ARCHES)
def test_processes(arch: str) -> None:
    check_processes(run_case(case_processes, arch))


# ---- memory and files ----


def see_memory_and_files(panda: Any) -> dict[str, Any]:
    panda.run_serial_cmd("cat /etc/hostname > /tmp/in; cat /bin/true > /dev/null")
    seen = listen(panda, "mmap", "open", "close")
    panda.run_serial_cmd("sleep 1000 < /tmp/in > /tmp/out & sleep 1")
    maps = panda.run_serial_cmd("cat /proc/$!/maps")
    files = panda.run_serial_cmd("cat /tmp/in /etc/passwd /nothing > /dev/null 2>&1; echo $!")
    panda.run_serial_cmd("kill %1; wait")
    sleeper = int(files)
    return {
        "maps": maps,
        "shows changes": _has(panda, "perf_event_mmap"),
        "mmaps": [
            [m.start, m.end, m.rights, m.offset, m.path]
            for e in seen
            if e.kind == "mmap" and e.process.pid == sleeper
            for m in [e.mapping]
        ],
        "changed": [
            e.mapping.path for e in seen if e.kind == "mmap" and e.changed and e.mapping.path
        ],
        "redirected": [
            [e.kind, e.fd, e.path] for e in seen if e.process.pid == sleeper and e.kind != "mmap"
        ],
        "cat": [
            [e.kind, e.fd, e.path]
            for e in seen
            if e.kind != "mmap" and e.process.name == "cat" and e.path.startswith(("/tmp", "/e"))
        ],
    }


def case_memory_and_files(arch: str) -> dict[str, Any]:
    panda = boot(arch)
    return dict(in_guest(panda, lambda: see_memory_and_files(panda)))


def _has(panda: Any, symbol: str) -> bool:
    try:
        return bool(panda.os.symbol(symbol))
    except IntrospectionError:
        return False


def check_memory_and_files(out: dict[str, Any]) -> None:
    truth = []
    for line in out["maps"].splitlines():
        match = re.fullmatch(r"(\w+)-(\w+) (\S+) (\w+) \S+ (\d+) *(.*)", line)
        assert match, line
        if match[6].startswith("/"):
            truth.append(
                [int(match[1], 16), int(match[2], 16), match[3], int(match[4], 16), match[6]]
            )
    made = out["mmaps"]
    # What is mapped is replaced in part; code is not, but what is behind it may be.
    code = [row for row in truth if row[2] == "r-xp"]
    assert len(code) >= 3
    for start, end, *rest in code:
        assert any(m[0] == start and m[1] >= end and m[2:] == rest for m in made), (code, made)
    assert {row[4] for row in truth} <= {row[4] for row in made}
    assert bool(out["changed"]) == out["shows changes"]
    redirected = out["redirected"]
    for wanted in (["open", 0, "/tmp/in"], ["open", 1, "/tmp/out"]):
        assert wanted in redirected, redirected
    assert any(kind == "close" and fd == -1 for kind, fd, _ in redirected)
    opened = [row for row in out["cat"] if row[0] == "open"]
    closed = [row for row in out["cat"] if row[0] == "close" and row[1] > 2]
    names = [row[2] for row in opened if not row[2].startswith("/etc/ld")]
    assert names == ["/tmp/in", "/etc/passwd"]
    assert [row[1:] for row in opened] == [row[1:] for row in closed]


@pytest.mark.parametrize("arch", ARCHES)
def test_memory_and_files(arch: str) -> None:
    check_memory_and_files(run_case(case_memory_and_files, arch))


# ---- signals ----

#: A process that says what it gets; the shell waits until it is ready.
TRAP = (
    'sh -c \'trap "echo got usr1" USR1; trap "echo got term; exit 3" TERM; '
    "echo ready > /tmp/ready; while true; do sleep 0.1; done' & "
    "while [ ! -s /tmp/ready ]; do sleep 0.1; done; rm /tmp/ready"
)


def numbers_of(arch: str) -> dict[str, int]:
    """Signals by name."""
    if arch.startswith("mips"):
        return {"KILL": 9, "USR1": 16, "TERM": 15, "CHLD": 18, "WINCH": 20}
    return {"KILL": 9, "USR1": 10, "TERM": 15, "CHLD": 17, "WINCH": 28}


def see_signals(panda: Any) -> dict[str, Any]:
    numbers = numbers_of(panda.arch_name)
    seen: list[Any] = []
    suppressed: list[int] = []

    panda.run_serial_cmd(TRAP, timeout=60)
    target = int(panda.run_serial_cmd("echo $!"))

    @panda.os.on("signal", pid=target)
    def signal(event: Any) -> None:
        sender = event.sender
        who = [sender.pid, sender.name] if sender else [0, ""]
        seen.append([event.number, event.process.pid, *who])
        if event.number in suppressed:
            event.suppress()

    delivered = listen(panda, "deliver", pid=target)
    first = panda.run_serial_cmd("kill -USR1 $!; sleep 0.5")
    suppressed.extend([numbers["USR1"], numbers["KILL"]])
    second = panda.run_serial_cmd("kill -USR1 $!; kill -KILL $!; sleep 0.5; kill -0 $!; echo $?")
    suppressed.clear()
    third = panda.run_serial_cmd("kill -TERM $!; wait $!; echo $?")
    panda.os.off(signal)
    shell = int(panda.run_serial_cmd("echo $$"))
    return {
        "said": [first, second, third],
        "seen": seen,
        "pids": [target, shell],
        "numbers": numbers,
        "delivered": [event.number for event in delivered],
    }


def case_signals(arch: str) -> dict[str, Any]:
    panda = boot(arch)
    return dict(in_guest(panda, lambda: see_signals(panda)))


def check_signals(out: dict[str, Any]) -> None:
    target, shell = out["pids"]
    first, second, third = out["said"]
    assert "got usr1" in first
    assert "got usr1" not in second and second.split()[-1] == "0", second
    assert "got term" in third and re.search("^3$", third, re.MULTILINE), third
    known = out["numbers"]
    sent = [row for row in out["seen"] if row[0] not in (known["CHLD"], known["WINCH"])]
    assert [row[0] for row in sent] == [known[n] for n in ("USR1", "USR1", "KILL", "TERM")]
    # The one that was let through; KILL and what does nothing have no function. What
    # sh does itself about the end of its children is not of the test.
    handled = [n for n in out["delivered"] if n != known["CHLD"]]
    assert handled == [known["USR1"], known["TERM"]]
    assert all(row[1] == target for row in out["seen"])
    assert all(row[2] == shell and row[3] in ("bash", "sh") for row in sent)


@pytest.mark.parametrize("arch", ARCHES)
def test_signals(arch: str) -> None:
    check_signals(run_case(case_signals, arch))


# ---- filters, streams, errors ----


def case_filters() -> dict[str, Any]:
    panda = boot()
    out: dict[str, Any] = {}

    def work() -> dict[str, Any]:
        shell = int(panda.run_serial_cmd("echo $$"))
        by_name = listen(panda, "open", "exec", procname="cat")
        by_pid: list[Any] = []
        panda.os.on("fork", pid=shell, name="of the shell")(by_pid.append)
        panda.run_serial_cmd("cat /etc/passwd | head -1; (ls /; :) > /dev/null")
        out["names"] = sorted({e.process.name for e in by_name})
        out["kinds"] = sorted({e.kind for e in by_name})
        out["parents"] = sorted({e.process.pid for e in by_pid})
        out["forks"] = len(by_pid)
        out["shell"] = shell
        before = len(by_pid)
        panda.os.off("of the shell")
        panda.run_serial_cmd("/bin/true")
        out["after"] = len(by_pid) - before
        for call in (
            lambda: panda.os.on("nonsense"),
            lambda: panda.os.off("nobody"),
            lambda: panda.os.on("exec")("no function"),
            lambda: panda.stream("os", events=("nonsense",)),
            lambda: panda.stream("block", events=("exec",)),
        ):
            try:
                call()
            except Exception as error:
                out.setdefault("errors", []).append(f"{type(error).__name__}: {error}")
        return out

    return in_guest(panda, work)


def test_filters() -> None:
    out = run_case(case_filters)
    assert out["names"] == ["cat"] and out["kinds"] == ["exec", "open"]
    assert out["parents"] == [out["shell"]] and out["forks"] == 3
    assert out["after"] == 0
    wanted = [
        "ValueError: ",
        "KeyError: ",
        "CallbackSignatureError: ",
        "ValueError: ",
        "ValueError",
    ]
    assert len(out["errors"]) == len(wanted)
    for error, start in zip(out["errors"], wanted):
        assert error.startswith(start), error


def case_raises() -> list[str]:
    panda = boot()
    seen: list[str] = []

    @panda.os.on("exec", procname="cat")
    def exec(event: Any) -> None:
        seen.append(event.exe)
        raise LookupError(f"{event.process.name} begins")

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        panda.run_serial_cmd("cat /etc/hostname; cat /etc/hostname")

    try:
        panda.run()
    except LookupError as error:
        seen.append(str(error))
    return seen


def test_exceptions_end_the_run() -> None:
    seen = run_case(case_raises)
    assert len(seen) == 2 and seen[0].endswith("/cat") and seen[1] == "cat begins"


def case_missing() -> dict[str, Any]:
    """The guest's kernel has lost its table of symbols."""
    panda = boot()
    out: dict[str, Any] = {}

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        address, size = panda.run_serial_cmd("cat /sys/kernel/vmcoreinfo").split()
        places: list[str] = []

        @panda.cb_before_block_exec(name="once", kernel=True)
        def once(cpu: Any, block: Any) -> None:
            panda.disable_callback("once")
            text = bytes(panda.physical_memory_read(int(address, 16), int(size, 16)))
            places.extend(re.findall(r"SYMBOL\(kallsyms_(?:token_table|names)\)=(\w+)", str(text)))
            for place in places:
                panda.virtual_memory_write(cpu, int(place, 16), bytes(4096))

        panda.run_serial_cmd("true")
        assert len(places) == 2
        panda.os.on("fork")(lambda event: None)
        out["said"] = panda.run_serial_cmd("sleep 5; cat /etc/hostname", timeout=60)

    try:
        panda.run()
    except IntrospectionError as error:
        out["run"] = str(error)
    try:
        panda.os.on("open")(lambda event: None)
    except IntrospectionError as error:
        out["then"] = str(error)
    return out


def test_events_that_cannot_be_had() -> None:
    out = run_case(case_missing)
    assert not out.get("said")
    for key, kind, function in (
        ("run", "fork", "wake_up_new_task"),
        ("then", "open", "fd_install"),
    ):
        assert f"'{kind}'" in out[key] and function in out[key], out
        assert "table of symbols was not" in out[key]


#: At the end of each kernel stack.
_MAGIC = 0x57AC6E9D


def hide_stacks(panda: Any, cpu: Any) -> list[tuple[int, bytes]]:
    """Make the kernel's stacks look like anything else; what was there before."""
    report = panda.os.report()
    match = re.search(r"^task_struct\.stack: (\d+) \(inferred", report, re.MULTILINE)
    assert match, report
    magic = _MAGIC.to_bytes(4, "little")
    saved = []
    for task in panda.os.threads():
        stack = int.from_bytes(
            panda.virtual_memory_read(cpu, task.task + int(match[1]), 4), "little"
        )
        at = stack + bytes(panda.virtual_memory_read(cpu, stack, 1024)).index(magic)
        saved.append((at, magic))
        panda.virtual_memory_write(cpu, at, bytes(4))
    return saved


def case_unknown_thread() -> dict[str, Any]:
    """A kernel without type information whose stacks cannot be made out: who runs?"""
    panda = boot("i386")
    out: dict[str, Any] = {}

    def refused(kind: str) -> str:
        try:
            panda.os.on(kind, name=kind)(lambda event: None)
        except IntrospectionError as error:
            return str(error)
        panda.os.off(kind)
        return "accepted"

    def refusals() -> dict[str, str]:
        return {kind: refused(kind) for kind in KINDS}

    def look(cpu: Any) -> None:
        out["before"] = refusals()
        saved = hide_stacks(panda, cpu)
        # It is found anew, and less of it.
        panda.os.use_profile(None)
        out["unknown"] = [panda.os.current is None, panda.get_process_name(cpu) is None]
        out["known"] = len(panda.os.processes())
        out["during"] = refusals()
        try:
            panda.load_plugin("loaded")
        except PluginError as error:
            out["plugin"] = str(error)
        try:
            panda.stream("os", events=("signal", "fork"))
        except IntrospectionError as error:
            out["stream"] = str(error)
        panda.stream("os", events=("signal",)).close()
        out["names"] = []
        for ask in (
            lambda: panda.cb_before_block_exec(procname="cat")(lambda cpu, tb: None),
            lambda: panda.counter("block", procname="cat"),
            lambda: panda.stream("block", ("pc",), procname="cat"),
        ):
            try:
                ask()
            except IntrospectionError as error:
                out["names"].append(str(error))
        for address, what in saved:
            panda.virtual_memory_write(cpu, address, what)
        panda.os.use_profile(None)
        out["name"] = panda.get_process_name(cpu)
        out["after"] = refusals()

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        panda.run_serial_cmd("true")
        at_rest(panda, look)

        def again(cpu: Any) -> None:
            hide_stacks(panda, cpu)
            panda.os.use_profile(None)
            # The kernel is not found at this moment: what it shows is not known.
            panda.os.on("exec", name="waits")(lambda event: None)
            panda.exit_cpu_loop()

        at_rest(panda, again)
        out["said"] = panda.run_serial_cmd("sleep 5; cat /etc/hostname", timeout=60)

    try:
        panda.run()
    except IntrospectionError as error:
        out["run"] = str(error)
    return out


def test_the_thread_cannot_be_known() -> None:
    out = run_case(case_unknown_thread)
    accepted = dict.fromkeys(KINDS, "accepted")
    assert out["before"] == accepted and out["after"] == accepted
    assert out["unknown"] == [True, True] and out["known"] > 20 and out["name"]
    during = out["during"]
    # Of a signal it is known who gets it.
    assert during.pop("signal") == "accepted"
    assert len(during) == 9
    for kind, text in during.items():
        assert f"'{kind}'" in text and "kernel stack" in text and "use_profile" in text, text
    assert len(out["names"]) == 3
    assert all("procname=cat" in text and "kernel stack" in text for text in out["names"])
    assert "'fork'" in out["stream"] and "kernel stack" in out["stream"]
    assert "plugin loaded: " in out["plugin"] and "kernel stack" in out["plugin"]
    assert not out.get("said")
    assert "'exec'" in out["run"] and "kernel stack" in out["run"]


def case_stream(arch: str, folder: str) -> dict[str, Any]:
    """The events of some commands, in the recording and in its replay."""
    panda = boot(arch)
    path = f"{folder}/r"
    out: dict[str, Any] = {}
    fields = ("event", "count", "pid", "tid", "value", "other", "addr", "size", "asid")

    def stream(rows: list[Any]) -> Any:
        return panda.stream("os", (*fields, "name0", "name1"), on_batch=rows.extend)

    live: list[Any] = []
    calls: list[Any] = []

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        panda.run_serial_cmd("cat /etc/hostname")
        panda.record(path)
        panda.os.on("exec")(lambda event: calls.append([event.count, event.exe]))
        with stream(live):
            panda.run_serial_cmd("cat /etc/passwd | head -1; sh -c 'kill -USR1 $$'", timeout=60)
        panda.os.off("<lambda>")
        panda.end_record()
        panda.end_analysis()

    panda.run()
    replayed: list[Any] = []
    again: list[Any] = []
    panda.os.on("exec")(lambda event: again.append([event.count, event.exe]))
    made = stream(replayed)
    panda.run_replay(path)
    made.close()
    out["live"], out["replayed"] = live, replayed
    out["calls"], out["again"] = calls, again
    return out


@pytest.mark.parametrize("arch", ARCHES)
def test_streams_and_replays(arch: str, tmp_path: Path) -> None:
    from pandalite.os_events import name_of

    out = run_case(case_stream, arch, str(tmp_path), timeout=300)
    live, replayed = out["live"], out["replayed"]
    first = live[0][1]
    last = live[-1][1]
    assert first > 0
    # The stream was opened after the recording had begun, and closed before its end.
    assert [row for row in replayed if first <= row[1] <= last] == live
    assert out["calls"] == out["again"] and len(out["calls"]) == 3
    # The kernel may make a worker meanwhile.
    kinds = Counter(KINDS[row[0]] for row in live if not name_of(*row[-2:]).startswith("k"))
    assert kinds["exec"] == 3 and kinds["fork"] == 3 and kinds["exit"] == 3
    assert kinds["mmap"] > 20 and kinds["open"] > 5 and kinds["close"] > 5 and kinds["switch"] > 3
    assert "start" not in kinds
    names = {name_of(*row[-2:]) for row in live if KINDS[row[0]] == "exec"}
    assert names == {"cat", "head", "sh"}
    sent = [row for row in live if KINDS[row[0]] == "signal" and row[4] == 10]
    assert len(sent) == 1 and sent[0][2] == sent[0][5] and name_of(*sent[0][-2:]) == "sh"
    ended = [row for row in live if KINDS[row[0]] == "exit" and row[2] == sent[0][2]]
    assert [row[4] for row in ended] == [10]
