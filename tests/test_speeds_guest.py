"""The same stretch of a Linux guest's life at three speeds: callbacks, filters, streams.

With ``-icount`` a guest goes the same way from a snapshot each time, as long as nothing
comes from outside. So its network card is taken away, a shell is given work that begins
with a loop, the snapshot is made in that loop, and each speed gets the guest from there to
a block that is known by its number. Whole traces are compared, event by event.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from guest import boot, in_guest, run_case

#: Blocks in the stretch.
BLOCKS = 60_000

#: A loop to be caught in, then forks, pipes, files and system calls; nothing random.
WORK = (
    "i=0; while [ $i -lt 60 ]; do i=$((i+1)); (echo $i | read x; : > /tmp/f$i); done;"
    " while :; do :; done"
)

#: The host's threads answer a virtio network card, each time at another moment.
QUIET = (
    "stty -echo; cd /sys/bus/virtio/drivers/virtio_net;"
    " for d in virtio*; do echo $d > unbind; done; cd /; sleep 3; ls /sys/class/net"
)

#: Time comes from the count of instructions, that of the clock chip too.
WORDS = ["-icount", "shift=3,sleep=off", "-rtc", "base=2024-01-01,clock=vm"]

LINE = struct.Struct("<QQQQQ")


class Trace:
    """A digest of a list of events, and how many there were."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.count = 0

    def add(self, *values: int) -> None:
        self.digest.update(LINE.pack(*values, *(0,) * (5 - len(values))))
        self.count += 1

    def result(self) -> list[Any]:
        return [self.count, self.digest.hexdigest()]


def watch_calls(panda: Any, flag: Any) -> Callable[[], dict[str, Any]]:
    """First speed: a Python function for each event. Knows what filters should let pass."""
    traces = {name: Trace() for name in ("block", "insn", "read", "write")}
    user, tenth, mine, once = Trace(), Trace(), Trace(), Trace()
    hits: Counter[int] = Counter()
    seen: set[int] = set()
    here = [0]

    @panda.cb_before_block_exec(name="block", when=flag)
    def block(cpu: Any, tb: Any) -> None:
        if not flag:
            return
        pc = tb.pc
        here[0] = pc
        kernel = panda.in_kernel(cpu)
        traces["block"].add(pc, tb.size, tb.icount, kernel)
        hits[pc] += 1
        if not kernel:
            user.add(pc)
        if traces["block"].count % 10 == 0:
            tenth.add(pc)

    @panda.cb_insn_translate(name="select")
    def select(cpu: Any, pc: int) -> bool:
        return True

    @panda.cb_insn_exec(name="insn", when=flag)
    def insn(cpu: Any, pc: int) -> None:
        traces["insn"].add(pc)

    @panda.cb_virt_mem_after_read(name="read", when=flag)
    def read(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        traces["read"].add(pc, addr, size, int.from_bytes(bytes(buf[0:size]), "little"))

    @panda.cb_virt_mem_after_write(name="write", when=flag)
    def write(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        traces["write"].add(pc, addr, size, int.from_bytes(bytes(buf[0:size]), "little"))
        if addr < 1 << (panda.bits - 1):
            mine.add(pc, addr)
        if here[0] not in seen:
            seen.add(here[0])
            once.add(pc, addr)

    def finish() -> dict[str, Any]:
        for name in ("block", "select", "insn", "read", "write"):
            panda.delete_callback(name)
        filtered = {"user": user, "tenth": tenth, "mine": mine, "once": once}
        return {
            **{name: trace.result() for name, trace in traces.items()},
            "filtered": {name: trace.result() for name, trace in filtered.items()},
            "hits": [len(hits), sum(pc * n for pc, n in hits.items())],
        }

    return finish


def watch_filters(panda: Any, flag: Any) -> Callable[[], dict[str, Any]]:
    """Second speed: filters, decided in C and generated code."""
    traces = {name: Trace() for name in ("user", "tenth", "mine", "once")}

    @panda.cb_before_block_exec(name="user", when=flag, kernel=False)
    def user(cpu: Any, tb: Any) -> None:
        if flag:
            traces["user"].add(tb.pc)

    @panda.cb_before_block_exec(name="tenth", when=flag, every=10)
    def tenth(cpu: Any, tb: Any) -> None:
        if flag:
            traces["tenth"].add(tb.pc)

    @panda.cb_virt_mem_after_write(name="mine", when=flag, addr=(0, 1 << (panda.bits - 1)))
    def mine(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        traces["mine"].add(pc, addr)

    @panda.cb_virt_mem_after_write(name="once", when=flag, once_per_block=True)
    def once(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        traces["once"].add(pc, addr)

    def finish() -> dict[str, Any]:
        for name in traces:
            panda.delete_callback(name)
        return {"filtered": {name: trace.result() for name, trace in traces.items()}}

    return finish


def watch_streams(panda: Any, flag: Any) -> Callable[[], dict[str, Any]]:
    """Third speed: records in batches."""
    fields = {
        "block": ("pc", "size", "icount", "kernel"),
        "insn": ("pc",),
        "read": ("pc", "addr", "size", "value"),
        "write": ("pc", "addr", "size", "value"),
    }
    traces = {name: Trace() for name in fields}

    def open_stream(name: str) -> Any:
        def take(batch: Any) -> None:
            for record in batch:
                traces[name].add(*record)

        words: dict[str, Any] = {"access": name[0]} if name in ("read", "write") else {}
        kind = "mem" if words else name
        return panda.stream(kind, fields[name], on_batch=take, when=flag, **words)

    streams = [open_stream(name) for name in fields]

    def finish() -> dict[str, Any]:
        for stream in streams:
            stream.close()
        return {name: trace.result() for name, trace in traces.items()}

    return finish


def watch_counters(panda: Any, flag: Any) -> Callable[[], dict[str, Any]]:
    """And what needs no events at all."""
    things = [
        panda.counter("block", when=flag),
        panda.counter("insn", when=flag),
        panda.coverage(edges=True, when=flag),
    ]

    def finish() -> dict[str, Any]:
        blocks, insns, covered = things
        found = {
            "blocks": blocks.value,
            "insns": insns.value,
            "hits": [len(covered.blocks), sum(b.pc * b.hits for b in covered.blocks)],
            "edges": sum(e.hits for e in covered.edges),
        }
        for thing in things:
            thing.close()
        return found

    return finish


SPEEDS = {
    "calls": watch_calls,
    "filters": watch_filters,
    "streams": watch_streams,
    "counters": watch_counters,
}


def case_speeds(arch: str) -> dict[str, Any]:
    panda = boot(arch, extra_args=WORDS)
    out: dict[str, Any] = {}
    flag = panda.flag(False)
    loaded, ended = [False], threading.Event()

    @panda.cb_after_loadvm
    def after_loadvm(cpu: Any) -> None:
        # The guest stands still: what is set now holds from its first block on.
        if loaded[0]:
            flag.set()

    def stretch(start: Callable[[Any, Any], Callable[[], dict[str, Any]]]) -> dict[str, Any]:
        """From the snapshot to before the block whose number is BLOCKS."""
        ended.clear()

        @panda.cb_before_block_exec(name="stop", when=flag, every=BLOCKS)
        def stop(cpu: Any, tb: Any) -> None:
            flag.clear()
            ended.set()

        finish = start(panda, flag)
        # All of it is translated with what has been registered.
        time.sleep(0.5)
        loaded[0] = True
        panda.revert_sync("here")
        loaded[0] = False
        assert ended.wait(120), "the stretch has no end"
        panda.delete_callback("stop")
        return finish()

    def work() -> None:
        out["interfaces"] = panda.run_serial_cmd(QUIET)
        panda.run_serial_cmd_async(f"i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; {WORK}")
        time.sleep(1)
        panda.snap_sync("here")
        for name, start in SPEEDS.items():
            out[name] = stretch(start)
        out["again"] = stretch(watch_streams)
        out["calls again"] = stretch(watch_calls)

    in_guest(panda, work)
    return out


@pytest.mark.parametrize("arch", ["x86_64", "arm"])
def test_three_speeds(arch: str) -> None:
    found = run_case(case_speeds, arch, timeout=300)
    calls, filters, streams = found["calls"], found["filters"], found["streams"]
    assert found["interfaces"].split() == ["lo"]
    for name in ("block", "insn", "read", "write"):
        assert streams[name] == calls[name] == found["again"][name], name
        assert calls[name][0] > 10_000, name
    for name, trace in calls["filtered"].items():
        assert filters["filtered"][name] == trace, name
        # How many depends on where in the work the snapshot was made.
        assert 100 < trace[0] < BLOCKS, name
    assert found["calls again"] == calls

    counters = found["counters"]
    assert counters["blocks"] == calls["block"][0] == counters["edges"] == BLOCKS - 1
    assert counters["hits"] == calls["hits"]
    # An instruction that faults has begun, and is not counted; its block is left.
    assert calls["insn"][0] * 0.99 < counters["insns"] <= calls["insn"][0]
