"""The measurements; each runs in a process of its own and returns numbers."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

#: Guest commands that only compute.
COMMANDS = {
    "shell loop": "i=0; while [ $i -lt {n} ]; do i=$((i+1)); done",
    "sha256sum": "head -c {n} /dev/zero | sha256sum > /dev/null",
}


def cpu_seconds() -> float:
    """CPU time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _with_guest(work: Callable[[Any], Any], arch: str = "x86_64") -> Any:
    """Run work(panda) beside a guest that was reverted to its root snapshot."""
    from pandalite import Panda

    panda = Panda(generic=arch)
    results = []

    @panda.queue_blocking
    def body() -> None:
        panda.revert_sync("root")
        panda.run_serial_cmd("true")
        results.append(work(panda))
        panda.end_analysis()

    panda.run()
    return results[0]


def plain(command: str, size: int, rounds: int, arch: str = "x86_64") -> list[float]:
    """CPU seconds of a guest command, nothing registered."""

    def work(panda: Any) -> list[float]:
        line = COMMANDS[command].format(n=size)
        panda.run_serial_cmd(line)
        return [_cost(panda, line) for _ in range(rounds)]

    return _with_guest(work, arch)


def _cost(panda: Any, line: str) -> float:
    start = cpu_seconds()
    panda.run_serial_cmd(line, timeout=600)
    return cpu_seconds() - start


def stock(command: str, size: int, rounds: int, emulator: str, arch: str = "x86_64") -> list[float]:
    """CPU seconds of the same command in stock QEMU, from the same snapshot."""
    from pathlib import Path

    from pandalite.arguments import machine_arguments, split_extra_args
    from pandalite.expect import Expect
    from pandalite.lifecycle import firmware_directories
    from pandalite.qcows import Qcows, cache

    image = Qcows.get_qcow_info(arch)
    disk = cache.private_copy(Path(Qcows.get_qcow(arch)))
    ours, theirs = socket.socketpair()
    words = machine_arguments(
        library=emulator,
        firmware=firmware_directories(None),
        disk=[str(disk)],
        extra=[*split_extra_args(image.extra_args), "-loadvm", "root"],
        mem=image.default_mem,
        serial_fd=theirs.fileno(),
    )
    process = subprocess.Popen(words, pass_fds=[theirs.fileno()])
    theirs.close()
    try:
        console = Expect("stock", ours, expectation=image.prompt, unansi=True)
        console.command("true", timeout=60)
        disk.unlink()
        line = COMMANDS[command].format(n=size)
        console.command(line, timeout=600)
        costs = []
        for _ in range(rounds):
            start = _process_cpu(process.pid)
            console.command(line, timeout=600)
            costs.append(_process_cpu(process.pid) - start)
        console.close()
        return costs
    finally:
        process.kill()
        process.wait()


def _process_cpu(pid: int) -> float:
    """CPU time of another process, all threads, in nanosecond resolution."""
    total = 0
    from pathlib import Path

    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def event_cost(kind: str, size: int, rounds: int) -> dict[str, float]:
    """Nanoseconds of CPU time an event of a kind costs with a counting function."""

    def work(panda: Any) -> dict[str, float]:
        count = 0

        if kind == "before_block_exec":

            def counter(cpu: Any, tb: Any) -> None:
                nonlocal count
                count += 1
        else:

            def counter(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
                nonlocal count
                count += 1

        line = COMMANDS["shell loop"].format(n=size)
        getattr(panda, f"cb_{kind}")(counter, name="counter")
        panda.run_serial_cmd(line, timeout=600)
        costs: list[float] = []
        for _ in range(rounds):
            # In turn, so that a machine that changes its speed spoils nothing.
            panda.disable_callback("counter")
            panda.run_serial_cmd("true")
            bare = _cost(panda, line)
            panda.enable_callback("counter")
            count = 0
            cost = _cost(panda, line)
            costs.append((cost - bare) / count * 1e9)
        return {"ns": min(costs), "median": sorted(costs)[rounds // 2], "events": count}

    return _with_guest(work)


def disabled_cost(size: int, rounds: int) -> list[float]:
    """CPU time with a callback registered but disabled, over that with none."""

    def work(panda: Any) -> list[float]:
        line = COMMANDS["shell loop"].format(n=size)
        panda.run_serial_cmd(line)
        ratios = []
        for _ in range(rounds):
            bare = _cost(panda, line)

            @panda.cb_before_block_exec(name="idle", enabled=False)
            def idle(cpu: Any, tb: Any) -> None:
                pass

            @panda.cb_virt_mem_after_read(name="idle_read", enabled=False)
            def idle_read(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
                pass

            panda.run_serial_cmd("true")
            ratios.append(_cost(panda, line) / bare)
            panda.delete_callback("idle")
            panda.delete_callback("idle_read")
            panda.run_serial_cmd("true")
        return ratios

    return _with_guest(work)


def hooks_cost(load: str, where: str, rounds: int) -> dict[str, Any]:
    """CPU time with 10,000 hooks that never act, over that with none, in turn.

    They are on pages with code that runs, between its instructions: those of the
    kernel, or of the shell.
    """
    lines = {
        "shell loop": COMMANDS["shell loop"].format(n=30000),
        "200 programs": "i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done",
    }

    def work(panda: Any) -> dict[str, Any]:
        line = lines[load]
        starts: set[int] = set()
        insns: set[int] = set()

        @panda.cb_insn_translate(name="see")
        def see(cpu: Any, pc: int) -> bool:
            insns.add(pc)
            if panda.in_kernel(cpu) == (where == "kernel"):
                starts.add(pc)
            return False

        panda.run_serial_cmd(line, timeout=600)
        panda.delete_callback("see")
        taken = sorted(starts)
        free = [pc + 1 for pc in taken if pc + 1 not in insns]
        chosen = free[:: max(1, len(free) // 10000)][:10000]
        panda.run_serial_cmd(line, timeout=600)
        ratios, adding = [], []
        for _ in range(rounds):
            bare = _cost(panda, line)
            begin = cpu_seconds()
            made = [panda.add_hook(pc, lambda *_: None) for pc in chosen]
            adding.append(cpu_seconds() - begin)
            panda.run_serial_cmd(line, timeout=600)
            ratios.append(_cost(panda, line) / bare)
            for hook in made:
                hook.disable()
            panda.hook_list.clear()
            panda.flush_tb()
            panda.run_serial_cmd(line, timeout=600)
        return {"ratios": ratios, "hooks": len(chosen), "adding": min(adding)}

    return _with_guest(work)


def calls(rounds: int) -> dict[str, float]:
    """Nanoseconds of calls made inside a before_block_exec callback."""
    import timeit

    def work(panda: Any) -> dict[str, float]:
        found: dict[str, float] = {}

        @panda.cb_before_block_exec
        def measure(cpu: Any, tb: Any) -> None:
            if found or panda.in_kernel(cpu):
                return
            sp = panda.current_sp(cpu) & ~0xFFF
            four = ("RAX", "RBX", "RCX", "PC")
            calls: dict[str, Callable[[], Any]] = {
                "nothing": lambda: None,
                "current_pc": lambda: panda.current_pc(cpu),
                "arch.get_pc": lambda: panda.arch.get_pc(cpu),
                "get_reg": lambda: panda.arch.get_reg(cpu, "RAX"),
                "tb.pc": lambda: tb.pc,
                "virtual_memory_read 16": lambda: panda.virtual_memory_read(cpu, sp, 16),
                "virtual_memory_read 4096": lambda: panda.virtual_memory_read(cpu, sp, 4096),
                "get_args, 6": lambda: panda.arch.get_args(cpu, 6),
                "six times get_arg": lambda: [panda.arch.get_arg(cpu, n) for n in range(6)],
                "get_regs, 4": lambda: panda.arch.get_regs(cpu, four),
                "context": lambda: panda.context(cpu),
                "context, 6 arguments": lambda: panda.context(cpu, 6),
                "context, 6 arguments, text": lambda: panda.context(cpu, 6, text=0),
                "read_str, 16 bytes": lambda: panda.read_str(cpu, sp),
                "read_pointers, 8": lambda: panda.read_pointers(cpu, sp, 8),
                "virtual_memory_read ptrlist, 8": lambda: panda.virtual_memory_read(
                    cpu, sp, 64, "ptrlist"
                ),
            }
            # In the page of the stack, which the shell is done with.
            panda.virtual_memory_write(cpu, sp, b"sixteen letters!\0")
            panda.arch.set_arg(cpu, 0, sp)
            number = 2000
            for name, call in calls.items():
                best = min(timeit.repeat(call, repeat=rounds, number=number))
                found[name] = best / number * 1e9

        panda.run_serial_cmd("cat /proc/self/stat", timeout=120)
        panda.disable_callback("measure")
        nothing = found.pop("nothing")
        return {name: ns - nothing for name, ns in found.items()}

    return _with_guest(work)


def start_up(rounds: int) -> dict[str, float]:
    """Milliseconds of import, construction and revert_sync."""
    code = (
        "import time; a = time.perf_counter(); import pandalite; b = time.perf_counter();"
        "from pandalite import Panda; c = time.perf_counter();"
        "p = Panda(generic='x86_64'); d = time.perf_counter();"
        "print(b - a, c - a, d - c)"
    )
    times = []
    for _ in range(rounds):
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        times.append([float(word) for word in out.split()])
    best = [min(column) * 1000 for column in zip(*times)]

    def work(panda: Any) -> float:
        reverts = []
        for _ in range(rounds):
            start = time.perf_counter()
            panda.revert_sync("root")
            reverts.append(time.perf_counter() - start)
        return sorted(reverts)[len(reverts) // 2] * 1000

    return {
        "import pandalite": best[0],
        "import Panda": best[1],
        "construct": best[2],
        "revert_sync (median)": _with_guest(work),
    }


def second_start(name: str, rounds: int) -> list[float]:
    """Wall seconds of a process that starts a guest from its snapshot and asks it something."""
    code = (
        f"from pandalite import Panda; p = Panda(generic={name!r})\n"
        "@p.queue_blocking\n"
        "def work():\n"
        "    p.revert_sync('root'); assert p.run_serial_cmd('echo $((6*7))') == '42'\n"
        "    p.end_analysis()\n"
        "p.run()"
    )
    times = []
    for _ in range(rounds + 1):
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)
        times.append(time.monotonic() - start)
    # The first may have made the snapshot.
    return times[1:]


#: Filters that let nothing pass, or next to nothing.
FILTERS: dict[str, dict[str, Any]] = {
    "pc elsewhere": {"pc": (0x1000, 0x2000)},
    "asid of no process": {"asid": 0x1234000},
    "every=10**9": {"every": 10**9},
    "once_per_block": {"once_per_block": True},
    "first=10, used up": {"first": 10},
    "flag cleared": {"when": None},
    "addr elsewhere": {"addr": (0x1000, 0x2000)},
}


def filtered_cost(kind: str, which: str, size: int, rounds: int) -> list[float]:
    """CPU time with a callback whose filter lets nothing pass, over that with none."""

    def work(panda: Any) -> list[float]:
        line = COMMANDS["shell loop"].format(n=size)
        spec = dict(FILTERS[which])
        if "when" in spec:
            spec["when"] = panda.flag(False)
        panda.run_serial_cmd(line)
        ratios = []
        for _ in range(rounds):
            bare = _cost(panda, line)
            if kind == "before_block_exec":

                @panda.cb_before_block_exec(name="filtered", **spec)
                def block(cpu: Any, tb: Any) -> None:
                    pass
            else:

                @getattr(panda, f"cb_{kind}")(name="filtered", **spec)
                def memory(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
                    pass

            # Translated anew, and the first events are over.
            panda.run_serial_cmd(line)
            ratios.append(_cost(panda, line) / bare)
            panda.delete_callback("filtered")
            panda.run_serial_cmd(line)
        return ratios

    return _with_guest(work)


#: Streams, counters and coverage to measure: name -> what opens it.
LISTENERS: dict[str, Callable[[Any, Callable[[Any], None]], Any]] = {
    "block stream (pc)": lambda p, f: p.stream("block", ("pc",), on_batch=f),
    "block stream (pc, asid, size, icount)": lambda p, f: p.stream(
        "block", ("pc", "asid", "size", "icount"), on_batch=f
    ),
    "edge stream (source, pc)": lambda p, f: p.stream("edge", ("source", "pc"), on_batch=f),
    "insn stream (pc)": lambda p, f: p.stream("insn", ("pc",), on_batch=f),
    "mem stream (pc, addr, size, value)": lambda p, f: p.stream(
        "mem", ("pc", "addr", "size", "value"), on_batch=f
    ),
    "call stream (pc, target, depth)": lambda p, f: p.stream(
        "call", ("pc", "target", "depth"), on_batch=f
    ),
    "block counter": lambda p, f: p.counter("block"),
    "insn counter": lambda p, f: p.counter("insn"),
    "coverage, hits of blocks": lambda p, f: p.coverage(),
    "coverage, map of edges": lambda p, f: p.coverage(blocks=False, edge_map=True),
    "coverage, exact edges": lambda p, f: p.coverage(blocks=False, edges=True),
}


def listener_cost(which: str, size: int, rounds: int) -> dict[str, float]:
    """A stream with a reader that sums a column with NumPy, a counter, or coverage."""

    def work(panda: Any) -> dict[str, float]:
        line = COMMANDS["shell loop"].format(n=size)
        panda.run_serial_cmd(line)
        total = [0]
        events = [0]

        def consume(batch: Any) -> None:
            total[0] += int(batch.numpy()[batch.fields[0]].sum())
            events[0] += len(batch)

        ratios, each = [], []
        for _ in range(rounds):
            bare = _cost(panda, line)
            listener = LISTENERS[which](panda, consume)
            # Translated anew.
            panda.run_serial_cmd(line)
            events[0] = 0
            cost = _cost(panda, line)
            ratios.append(cost / bare)
            if events[0]:
                each.append((cost - bare) / events[0] * 1e9)
            listener.close()
            panda.run_serial_cmd(line)
        result = {"ratio": sorted(ratios)[rounds // 2], "least": min(ratios), "most": max(ratios)}
        if each:
            result.update(ns=sorted(each)[rounds // 2], least_ns=min(each))
        return result

    return _with_guest(work)


#: Who watches the system calls of dd.
WATCHERS = ("a callback of a call it does not make", "a callback of each read", "the stream of all")


def _watched_over_bare(
    panda: Any, line: str, rounds: int, watch: Callable[[], Callable[[], Any]]
) -> list[float]:
    """CPU time of a command that is watched over not watched, in turn.

    watch() begins it and returns what ends it.
    """
    panda.run_serial_cmd(line, timeout=300)
    ratios = []
    for _ in range(rounds):
        bare = _cost(panda, line)
        end = watch()
        panda.run_serial_cmd(line, timeout=300)
        ratios.append(_cost(panda, line) / bare)
        end()
        panda.run_serial_cmd(line, timeout=300)
    return ratios


def syscall_cost(which: str, size: int, rounds: int) -> list[float]:
    """CPU time of a guest that makes very many system calls, watched over not watched."""

    def work(panda: Any) -> list[float]:
        count = [0]

        def opened(cpu: Any, pc: int, pathname: int, mode: int) -> None:
            count[0] += 1

        def read(cpu: Any, pc: int, fd: int, buf: int, size: int) -> None:
            count[0] += 1

        def consume(batch: Any) -> None:
            count[0] += len(batch)

        def watch() -> Callable[[], Any]:
            if which == WATCHERS[2]:
                return panda.stream("syscall", on_batch=consume).close
            if which == WATCHERS[0]:
                panda.ppp("syscalls2", "on_sys_chmod_enter", "watch")(opened)
            else:
                panda.ppp("syscalls2", "on_sys_read_enter", "watch")(read)
            return lambda: panda.disable_ppp("watch")

        line = f"dd if=/dev/zero of=/dev/null bs=1 count={size}"
        ratios = _watched_over_bare(panda, line, rounds, watch)
        assert count[0] or which == WATCHERS[0]
        return ratios

    return _with_guest(work)


#: Who listens to the events of a shell that starts programs.
OS_LISTENERS = ("a function for exec", "functions for all events but switch", "the stream of all")


def os_event_cost(which: str, size: int, rounds: int) -> list[float]:
    """CPU time of a guest that starts very many programs, listened to over not."""

    def work(panda: Any) -> list[float]:
        kinds = ("exec", "fork", "exit", "mmap", "open", "close", "signal", "deliver")
        count = [0]

        def happened(event: Any) -> None:
            count[0] += 1

        def consume(batch: Any) -> None:
            count[0] += len(batch)

        def watch() -> Callable[[], Any]:
            if which == OS_LISTENERS[2]:
                return panda.stream("os", on_batch=consume).close
            for kind in kinds[: 1 if which == OS_LISTENERS[0] else None]:
                panda.os.on(kind)(happened)
            return lambda: panda.os.off(happened)

        line = f"i=0; while [ $i -lt {size} ]; do /bin/true; i=$((i+1)); done"
        ratios = _watched_over_bare(panda, line, rounds, watch)
        assert count[0]
        return ratios

    return _with_guest(work)


def os_cost(arch: str, calls: int) -> dict[str, float]:
    """Seconds: to find the kernel, for a list of all processes, for who runs now."""

    def work(panda: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        done = threading.Event()
        panda.run_serial_cmd("sleep 1000 & sleep 1000 & sleep 1000 &")

        def clocked(function: Callable[[], object], times: int) -> float:
            began = time.thread_time()
            for _ in range(times):
                function()
            return (time.thread_time() - began) / times

        @panda.cb_before_block_exec(name="look")
        def look(cpu: Any, tb: Any) -> None:
            if done.is_set():
                return
            found["attach"] = clocked(panda.os.attach, 1)
            found["processes"] = len(panda.os.processes())
            found["list"] = clocked(panda.os.processes, 20)
            found["PyPANDA's list"] = clocked(lambda: panda.get_processes(cpu), 20)
            found["process"] = clocked(lambda: panda.get_current_process(cpu), calls)
            found["name"] = clocked(lambda: panda.get_process_name(cpu), calls)
            done.set()

        panda.run_serial_cmd("true")
        assert done.is_set()
        return found

    return _with_guest(work, arch)


def procname_cost(size: int, rounds: int) -> list[float]:
    """CPU time with a callback of each block of a process that is not there, over without."""

    def work(panda: Any) -> list[float]:
        line = f"i=0; while [ $i -lt {size} ]; do i=$((i+1)); done"
        panda.run_serial_cmd(line)
        ratios = []
        for _ in range(rounds):
            bare = _cost(panda, line)

            @panda.cb_before_block_exec(procname="nobody", name="watch")
            def watch(cpu: Any, tb: Any) -> None:
                pass

            panda.run_serial_cmd(line)
            ratios.append(_cost(panda, line) / bare)
            panda.delete_callback("watch")
            panda.run_serial_cmd(line)
        return ratios

    return _with_guest(work)


def seeking(loop: int, folder: str) -> dict[str, Any]:
    """Seconds to go to random places of a long replay."""
    import random
    import time

    from pandalite import Panda

    panda = Panda(generic="x86_64")
    line = COMMANDS["shell loop"].format(n=loop)

    @panda.queue_blocking
    def body() -> None:
        panda.revert_sync("root")
        panda.record(f"{folder}/long")
        panda.run_serial_cmd(line, timeout=600)
        panda.end_record()
        panda.end_analysis()

    panda.run()
    with panda.replay(f"{folder}/long", checkpoints="2G") as replay:
        began = time.monotonic()
        total = replay.run()
        first = time.monotonic() - began
        times = []
        for place in random.Random(1).sample(range(total), 15):
            began = time.monotonic()
            replay.seek(place)
            times.append(time.monotonic() - began)
    return {"instructions": total, "first": first, "times": times}
