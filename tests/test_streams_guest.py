"""Streams, counters and coverage of a Linux guest: misuse, slow readers, ends, files."""

from __future__ import annotations

import csv
import errno
import os
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from guest import boot, in_guest, run_case
from test_signals import interrupted_run

from pandalite import Panda
from pandalite.errors import StateError

#: A command that executes some million blocks.
WORK = "cat /proc/version | sha256sum; ls -lR /bin | wc -l"


def on_cpu(panda: Any, function: Callable[[], object]) -> None:
    """Call a function on the CPU thread, between two blocks: what it does is at once."""
    done = threading.Event()

    @panda.cb_top_loop(name="on cpu")
    def top_loop(cpu: Any) -> None:
        if not done.is_set():
            function()
            done.set()

    if not done.wait(0.2):
        # It is idle, and may be so for long.
        panda.flush_tb()
        assert done.wait(60)
    panda.delete_callback("on cpu")


def wait_for(condition: Callable[[], Any], timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


# ---- wrong arguments ----


def case_wrong(folder: str) -> dict[str, str]:
    panda = Panda(arch="x86_64", extra_args=["-S"])
    said: dict[str, str] = {}

    def attempt(name: str, function: Callable[[], Any]) -> None:
        try:
            function()
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"

    def ignore(batch: Any) -> None:
        pass

    stream, file = panda.stream, Path(folder) / "file"
    attempt("kind", lambda: stream("blocks"))
    attempt("field", lambda: stream("block", ("pc", "addr")))
    attempt("twice", lambda: stream("block", ("pc", "pc")))
    attempt("no fields", lambda: stream("block", ()))
    attempt("fields", lambda: stream("block", 5))
    attempt("batch", lambda: stream("block", batch=0))
    attempt("batch type", lambda: stream("block", batch="many"))
    attempt("batch size", lambda: stream("block", batch=1 << 25))
    attempt("batches", lambda: stream("block", batches=1))
    attempt("full", lambda: stream("block", when_full="stop"))
    attempt("access", lambda: stream("mem", access="x"))
    attempt("access of blocks", lambda: stream("block", access="w"))
    attempt("function", lambda: stream("block", on_batch=5))
    attempt("both", lambda: stream("block", on_batch=ignore, to_file=file))
    attempt("folder", lambda: stream("block", to_file=Path(folder) / "none" / "file"))
    attempt("directory", lambda: stream("block", to_file=folder))
    attempt("filter", lambda: stream("block", process=1))
    attempt("addr", lambda: stream("block", addr=5, to_file=file))
    attempt("procname", lambda: stream("block", procname=""))
    attempt("counter", lambda: panda.counter("mem"))
    attempt("counter every", lambda: panda.counter(every=3))
    attempt("counter addr", lambda: panda.counter(addr=3))
    attempt("coverage", lambda: panda.coverage(blocks=False))
    attempt("coverage first", lambda: panda.coverage(first=3))
    attempt("map", lambda: panda.coverage(edge_map=True, map_bits=40))
    attempt("no map", lambda: panda.coverage().map)
    said["left"] = str(sorted(os.listdir(folder)))

    one = stream("block", ("pc",))
    one.close()
    one.close()
    one.stop()
    assert one.read() is None and list(one) == [] and one.delivered == 0
    attempt("flush", one.flush)
    attempt("enable", lambda: setattr(one, "enabled", True))
    counter = panda.counter()
    counter.close()
    counter.close()
    attempt("count", lambda: setattr(counter, "enabled", True))
    attempt("value", lambda: setattr(counter, "value", 1))
    covered = panda.coverage()
    covered.close()
    covered.close()
    attempt("reset", covered.reset)
    attempt("module", lambda: covered.write_drcov(file, [("a", 5, 5)]))
    attempt("overlap", lambda: covered.write_drcov(file, [("a", 0, 5), ("b", 4, 9)]))
    attempt("csv", lambda: covered.write_csv(file, "hits"))
    attempt("csv file", lambda: covered.write_csv(Path(folder) / "none" / "file"))
    made = []
    attempt("many", lambda: [made.append(stream("asid")) for _ in range(100)])
    said["made"] = str(len(made))
    made[0].close()
    stream("asid")

    # Short times are times too.
    waiting = made[1]
    for timeout in (0.0002, 0.2003, 0):
        begin = time.monotonic()
        assert waiting.read(timeout) is None
        assert time.monotonic() - begin < timeout + 1
    return said


def test_wrong_arguments(tmp_path: Path) -> None:
    said = run_case(case_wrong, str(tmp_path), timeout=60)
    for name, kind, text in [
        ("kind", "ValueError", "there is no stream of 'blocks'; there are: block, edge"),
        ("field", "ValueError", "streams of 'block' have no field 'addr'; they have: pc, asid"),
        ("twice", "ValueError", "give each field once"),
        ("no fields", "ValueError", "at least one"),
        ("fields", "TypeError", "fields=5"),
        ("batch", "ValueError", "batch=0: it must be a number of 1 or more"),
        ("batch type", "ValueError", "batch='many'"),
        ("batch size", "ValueError", "a batch has 1 to 16777216 records"),
        ("batches", "ValueError", "there are 2 to 65536 batches"),
        ("full", "ValueError", "when_full='stop': it is 'wait' or 'drop'"),
        ("access", "ValueError", "access='x': it is 'r', 'w' or 'rw'"),
        ("access of blocks", "ValueError", "access= is for streams of 'mem'"),
        ("function", "TypeError", "on_batch=5 is not a function"),
        ("both", "ValueError", "not both"),
        ("folder", "FileNotFoundError", "none/file"),
        ("directory", "IsADirectoryError", str(tmp_path)),
        ("filter", "TypeError", "there is no filter 'process'; there are: pc"),
        ("addr", "ValueError", "addr is a filter of memory events only"),
        ("procname", "TypeError", "not the name of a process"),
        ("counter", "ValueError", "there is no counter of 'mem'; there are: block, insn"),
        ("counter every", "ValueError", "filters pc, asid, kernel and when only"),
        ("counter addr", "ValueError", "filters pc, asid, kernel and when only"),
        ("coverage", "ValueError", "blocks=, edges= or edge_map="),
        ("coverage first", "ValueError", "filters pc, asid, kernel and when only"),
        ("map", "ValueError", "map_bits=40: a map of edges has 8 to 24 bits"),
        ("no map", "StateError", "ask for it with edge_map=True"),
        ("flush", "StateError", "this stream is closed"),
        ("enable", "StateError", "this stream is closed"),
        ("count", "StateError", "this counter is closed"),
        ("value", "StateError", "this counter is closed"),
        ("reset", "StateError", "this coverage is closed"),
        ("module", "ValueError", "module 'a' is empty"),
        ("overlap", "ValueError", "module 'b' overlaps the one before it"),
        ("csv", "ValueError", "what='hits': it is 'blocks' or 'edges'"),
        ("csv file", "FileNotFoundError", "none/file"),
        ("many", "StateError", "there are 55 filters, streams and counters already"),
    ]:
        assert said.get(name, "nothing").startswith(f"{kind}: "), (name, said.get(name))
        assert text in said[name], name
    # One coverage is open.
    assert said["made"] == "54"
    assert said["left"] == "[]"


# ---- readers ----


class ReaderError(Exception):
    pass


def case_reader_raises() -> list[Any]:
    """Two runs that a reader ends, and one that goes well."""
    panda = boot()
    out: list[Any] = []

    def fail(batch: Any) -> None:
        raise ReaderError(f"at {len(batch)}")

    for kind in ("block", "mem"):
        panda.stream(kind, batch=500, batches=2, on_batch=fail)

        @panda.queue_blocking
        def body() -> None:
            panda.revert_sync("root")
            panda.run_serial_cmd(WORK)

        begin = time.monotonic()
        try:
            panda.run()
            out.append("nothing was raised")
        except ReaderError as error:
            out.append([str(error), time.monotonic() - begin])

    def work() -> int:
        with panda.stream("block", ("pc",)) as stream:
            panda.run_serial_cmd("echo")
            stream.flush()
            return len(stream.read(30) or ())

    out.append(in_guest(panda, work))
    return out


def test_a_reader_that_raises() -> None:
    first, second, records = run_case(case_reader_raises)
    for text, seconds in (first, second):
        assert text == "at 500" and seconds < 60
    assert records > 0


def case_slow() -> dict[str, Any]:
    """A reader that is slow now and then: the guest waits, and nothing is lost."""
    panda = boot()
    flag = panda.flag(False)
    total = [0, 0]
    nap = [0.0]

    def slow(batch: Any) -> None:
        if batch.column("kernel").tolist().count(1):
            total[1] += 1
        total[0] += len(batch)
        time.sleep(nap[0] or 0.0005)
        nap[0] = 0.0

    def uptime() -> float:
        return float(panda.run_serial_cmd("cat /proc/uptime", timeout=120).split()[0])

    def work() -> dict[str, Any]:
        counter = panda.counter("block", kernel=False, when=flag)
        stream = panda.stream(
            "block", ("pc", "kernel"), batch=1000, batches=2, on_batch=slow, kernel=False, when=flag
        )
        on_cpu(panda, flag.set)
        output = panda.run_serial_cmd(WORK, timeout=120)
        guest, host = uptime(), time.monotonic()
        nap[0] = 3.0
        panda.run_serial_cmd("sha256sum /bin/busybox", timeout=120)
        guest, host = uptime() - guest, time.monotonic() - host
        on_cpu(panda, flag.clear)
        stream.close()
        return {
            "output": output,
            "count": counter.value,
            "delivered": stream.delivered,
            "dropped": stream.dropped,
            "waits": stream.waits,
            "clock": [guest, host],
        }

    return {**in_guest(panda, work), "total": total}


def test_a_slow_reader_makes_the_guest_wait() -> None:
    found = run_case(case_slow)
    count = found["count"]
    assert count > 20_000 and found["total"] == [count, 0]
    assert (found["delivered"], found["dropped"]) == (count, 0)
    assert found["waits"] > 3
    assert "  -" in found["output"]
    guest, host = found["clock"]
    # The nap is longer than what an event's time is taken out for.
    assert host > 3 and 0 < guest < host - 2.5


def case_drop() -> dict[str, int]:
    panda = boot()
    flag = panda.flag(False)

    def work() -> dict[str, int]:
        counter = panda.counter("block", kernel=False, when=flag)
        stream = panda.stream(
            "block", ("pc",), batch=1000, batches=4, when_full="drop", kernel=False, when=flag
        )
        on_cpu(panda, flag.set)
        panda.run_serial_cmd("ls -lR /bin | wc -l")
        first = stream.read(1)
        assert first is not None and len(first) == 1000
        second = stream.read(1)
        assert second is not None
        panda.run_serial_cmd("ls -lR /bin | wc -l")
        on_cpu(panda, flag.clear)
        stream.stop()
        rest = sum(len(batch) for batch in stream)
        return {
            "rest": rest,
            "delivered": stream.delivered,
            "dropped": stream.dropped,
            "waits": stream.waits,
            "count": counter.value,
        }

    found: dict[str, int] = in_guest(panda, work)
    return found


def test_what_is_dropped_is_counted() -> None:
    found = run_case(case_drop)
    assert found["delivered"] == found["rest"] + 2000
    assert found["dropped"] > 1000 and found["waits"] == 0
    assert found["delivered"] + found["dropped"] == found["count"]


def case_never_read() -> dict[str, Any]:
    """The guest waits for a reader that does not come, in one run after the other."""
    panda = boot()
    out: dict[str, Any] = {}
    streams: list[Any] = []

    def never_read(kind: str, batch: int = 1000) -> Any:
        stream = panda.stream(kind, batch=batch, batches=2)
        streams.append(stream)
        return stream

    def body() -> None:
        panda.revert_sync("root")
        panda.run_serial_cmd_async(WORK)
        stream = never_read("block")
        wait_for(lambda: stream.waits)
        # It stands still: neither its clock's ticks nor anything else lets it go on.
        counter = panda.counter("block")
        time.sleep(0.5)
        count, rss = counter.value, resident()
        time.sleep(3)
        out["went on"] = [counter.value - count, resident() - rss]
        out["begin"] = time.monotonic()
        panda.end_analysis()

    panda.queue_async(body)
    panda.run()
    out["end_analysis"] = time.monotonic() - out.pop("begin")
    out["left"] = [sum(map(len, streams[0])), streams[0].delivered, streams[0].dropped]

    for kind in ("edge", "mem", "insn", "exception", "io", "call"):
        waiting = threading.Event()

        @panda.queue_blocking
        def blocked(kind: str = kind, waiting: threading.Event = waiting) -> None:
            panda.revert_sync("root")
            stream = never_read(kind, 20)
            panda.run_serial_cmd_async(WORK)
            wait_for(lambda: stream.waits)
            waiting.set()
            time.sleep(30)

        out[f"Ctrl-C {kind}"] = interrupted_run(panda, when=waiting)

    def revert() -> list[Any]:
        stream = never_read("block")
        panda.run_serial_cmd_async("ls -lR /bin")
        wait_for(lambda: stream.waits)
        begin = time.monotonic()
        panda.revert_sync("root")
        seconds = time.monotonic() - begin
        stream.close()
        return [seconds, panda.run_serial_cmd("echo and on", timeout=60)]

    out["revert"] = in_guest(panda, revert)

    def close() -> list[Any]:
        stream = never_read("block")
        panda.run_serial_cmd_async("echo")
        wait_for(lambda: stream.waits)
        begin = time.monotonic()
        stream.close()
        seconds = time.monotonic() - begin
        return [seconds, panda.run_serial_cmd("", timeout=60) is not None]

    out["close"] = in_guest(panda, close)
    for stream in streams:
        stream.close()
    return out


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_stream_nobody_reads() -> None:
    found = run_case(case_never_read)
    blocks, memory = found["went on"]
    assert blocks < 1000 and memory < 4 << 20
    assert found["end_analysis"] < 1.0
    total, delivered, dropped = found["left"]
    assert 2000 < total < 5000 and (delivered, dropped) == (total, 0)
    for kind in ("edge", "mem", "insn", "exception", "io", "call"):
        assert found[f"Ctrl-C {kind}"] < 1.0, kind
    assert found["revert"][0] < 10 and "and on" in found["revert"][1]
    assert found["close"][0] < 5 and found["close"][1]


def case_interrupted_reader() -> list[Any]:
    """Ctrl-C while a reader of pandalite's own takes its time."""
    panda = boot()
    busy = threading.Event()

    def slow(batch: Any) -> None:
        busy.set()
        time.sleep(10)

    panda.stream("block", batch=1000, batches=2, on_batch=slow)
    seconds = interrupted_run(panda, when=busy)

    def again() -> str:
        return str(panda.run_serial_cmd("echo well"))

    return [seconds, in_guest(panda, again)]


def test_ctrl_c_does_not_wait_for_a_reader() -> None:
    seconds, output = run_case(case_interrupted_reader)
    assert seconds < 1.5 and "well" in output


def case_readers(count: int) -> dict[str, Any]:
    """Streams that are closed by one thread while another reads, and two readers."""
    panda = boot()
    out: dict[str, Any] = {"errors": []}

    def read(stream: Any, got: list[int]) -> None:
        try:
            for batch in stream:
                got.append(len(batch.tolist()))
        except BaseException as error:
            out["errors"].append(repr(error))

    def work() -> None:
        busy = panda.stream("block", ("pc",), batch=1 << 20, when=panda.flag(False))
        reader = threading.Thread(target=read, args=(busy, []))
        reader.start()
        time.sleep(0.3)
        try:
            busy.read(1)
            out["two"] = "read"
        except StateError as error:
            out["two"] = str(error)
        busy.close()
        reader.join(10)
        out["ended"] = not reader.is_alive()

        total = 0
        panda.run_serial_cmd_async("while :; do ls /bin > /dev/null; done")
        for turn in range(count):
            got: list[int] = []
            stream = panda.stream("block" if turn % 2 else "mem", batch=50 + turn, batches=3)
            reader = threading.Thread(target=read, args=(stream, got))
            closers = [threading.Thread(target=stream.close) for _ in range(3)]
            reader.start()
            time.sleep(turn % 7 / 500)
            if turn % 3 == 0:
                stream.flush()
            for closer in closers:
                closer.start()
            for thread in (*closers, reader):
                thread.join(30)
                assert not thread.is_alive()
            assert sum(got) <= stream.delivered
            total += sum(got)
        out["total"] = total
        panda.revert_sync("root")
        out["echo"] = panda.run_serial_cmd("echo well", timeout=60)

        # On the CPU thread itself, with a reader waiting elsewhere.
        waiting = panda.stream("block", ("pc",), when=panda.flag(False))
        reader = threading.Thread(target=read, args=(waiting, []))
        reader.start()
        on_cpu(panda, waiting.close)
        reader.join(10)
        out["closed on the CPU"] = not reader.is_alive()

        # By its own reader.
        done = threading.Event()

        def once(batch: Any) -> None:
            own.close()
            done.set()

        own = panda.stream("block", batch=10, on_batch=once, enabled=False)
        own.enabled = True
        assert done.wait(30)
        out["closed by its reader"] = own.delivered

    in_guest(panda, work)
    return out


def test_closing_while_it_is_read() -> None:
    found = run_case(case_readers, 60)
    assert found["errors"] == []
    assert found["two"].endswith("one reader at a time")
    assert found["ended"] and found["closed on the CPU"]
    assert found["total"] > 100 and "well" in found["echo"]
    assert found["closed by its reader"] == 10


def case_kept() -> dict[str, Any]:
    """Arrays and views that outlive their stream."""
    import gc

    import numpy

    panda = boot()
    out: dict[str, Any] = {}

    def work() -> None:
        kept = []
        for _ in range(8):
            with panda.stream("block", batch=5000, when_full="drop") as stream:
                panda.run_serial_cmd("ls /")
                stream.flush()
                batch = stream.read(30)
                assert batch is not None
                things = [batch.numpy(), batch.view, batch.column("pc")]
                before = [batch.tobytes(), batch.column("pc").tobytes()]
                kept.append((*things, *before))
            del batch, things
        # New streams, and other memory, while the old is looked at.
        panda.run_serial_cmd_async("while :; do ls /bin > /dev/null; done")
        with panda.stream("block", batch=5000) as stream:
            for _ in range(20):
                stream.read(30)
        same = [
            array.tobytes() == view.tobytes() == whole and column.tobytes() == pcs
            for array, view, column, whole, pcs in kept
        ]
        out["same"] = same
        out["sums"] = all(int(k[0]["pc"].sum(dtype=numpy.uint64)) for k in kept)
        kept.clear()
        gc.collect()

        # What nobody looks at any more goes.
        def turn() -> None:
            stream = panda.stream("block", ("pc",), batch=100_000, batches=8)
            for batch, _ in zip(stream, range(12)):
                array = batch.numpy()
            stream.close()
            assert int(array["pc"][0])

        for _ in range(5):
            turn()
        rss = resident()
        for _ in range(20):
            turn()
        out["grown"] = resident() - rss
        panda.revert_sync("root")
        out["echo"] = panda.run_serial_cmd("echo well", timeout=60)

    in_guest(panda, work)
    return out


def test_batches_that_outlive_their_stream() -> None:
    found = run_case(case_kept)
    assert found["same"] == [True] * 8 and found["sums"]
    # All that the twenty streams had is 128 MB.
    assert found["grown"] < 40 << 20
    assert "well" in found["echo"]


# ---- the machine's life ----


def case_snapshots() -> dict[str, Any]:
    panda = boot()
    out: dict[str, Any] = {}
    flag = panda.flag(False)
    total: Counter[str] = Counter()

    def work() -> None:
        streams = {}
        for kind in ("block", "mem", "exception"):

            def count(batch: Any, kind: str = kind) -> None:
                total[kind] += len(batch)

            streams[kind] = panda.stream(kind, batch=3000, batches=3, on_batch=count, when=flag)
        blocks = panda.counter("block", when=flag)
        covered = panda.coverage(edges=True, when=flag)
        on_cpu(panda, flag.set)
        for turn in range(3):
            panda.run_serial_cmd("echo kept > /tmp/file")
            panda.snap_sync(f"s{turn}")
            panda.run_serial_cmd("rm /tmp/file")
            panda.vm_stop()
            wait_for(lambda: "paused" in panda.run_monitor_cmd("info status"))
            count = blocks.value
            time.sleep(0.2)
            assert blocks.value == count
            panda.cont()
            panda.revert_sync(f"s{turn}")
            out[f"file {turn}"] = panda.run_serial_cmd("cat /tmp/file")
            panda.delvm_sync(f"s{turn}")
        on_cpu(panda, flag.clear)
        for stream in streams.values():
            stream.close()
        out["blocks"] = [blocks.value, streams["block"].delivered, total["block"]]
        out["hits"] = [sum(b.hits for b in covered.blocks), sum(e.hits for e in covered.edges)]
        out["delivered"] = {k: [s.delivered, total[k], s.dropped] for k, s in streams.items()}

    in_guest(panda, work)
    return out


def test_snapshots_while_streams_run() -> None:
    found = run_case(case_snapshots)
    assert [found[f"file {turn}"].strip() for turn in range(3)] == ["kept"] * 3
    count, delivered, total = found["blocks"]
    assert count == delivered == total > 10_000
    assert found["hits"] == [count, count]
    for delivered, total, dropped in found["delivered"].values():
        assert delivered == total > 100 and not dropped


def case_second_run() -> dict[str, Any]:
    """Streams end with their run; their numbers stay, and new ones work."""
    panda = boot()
    out: dict[str, Any] = {"runs": []}
    old: list[Any] = []
    counter = panda.counter("block")
    covered = panda.coverage(edges=True, edge_map=True)

    def work() -> None:
        stream = panda.stream("block", ("pc",), batch=2000, batches=100, when_full="drop")
        read = []
        panda.stream("mem", ("addr",), batch=2000, on_batch=lambda batch: read.append(len(batch)))
        old.append((stream, read))
        panda.run_serial_cmd("ls /")

    for _ in range(3):
        before = counter.value
        in_guest(panda, work)
        out["runs"].append(counter.value - before)
    out["left"] = [sum(map(len, stream)) for stream, _ in old]
    out["numbers"] = [[s.delivered, s.dropped] for s, _ in old]
    out["read"] = [sum(read) for _, read in old]
    for stream, _ in old:
        stream.enabled = False
        stream.flush()
        stream.stop()
        assert stream.read() is None
    # Whatever the first ones had is freed; here it must not be touched again.
    for stream, _ in old[:2]:
        stream.close()
        assert stream.delivered == out["numbers"][old.index((stream, _))][0]
    in_guest(panda, work)
    out["hits"] = sum(b.hits for b in covered.blocks), sum(e.hits for e in covered.edges)
    out["count"] = counter.value
    return out


def test_a_second_run() -> None:
    found = run_case(case_second_run)
    assert all(n > 1000 for n in found["runs"])
    for left, (delivered, dropped) in zip(found["left"], found["numbers"]):
        assert left == delivered > 1000 and dropped >= 0
    assert all(n > 1000 for n in found["read"])
    assert found["hits"] == [found["count"]] * 2


def case_churn() -> dict[str, Any]:
    """Callbacks and filters come and go while everything is counted."""
    panda = boot()
    out: dict[str, Any] = {}
    flag = panda.flag(False)
    calls: Counter[str] = Counter()

    def work() -> None:
        got: Counter[str] = Counter()

        def count(name: str) -> Callable[[Any], None]:
            def on_batch(batch: Any) -> None:
                got[name] += len(batch)

            return on_batch

        streams = {
            "block": panda.stream("block", ("pc",), on_batch=count("block"), when=flag),
            "user": panda.stream(
                "edge", ("pc",), on_batch=count("user"), when=flag, kernel=False, batch=900
            ),
            "insn": panda.stream("insn", ("pc",), on_batch=count("insn"), when=flag),
        }
        counters = {
            "block": panda.counter("block", when=flag),
            "user": panda.counter("block", when=flag, kernel=False),
            "insn": panda.counter("insn", when=flag),
        }
        covered = panda.coverage(edges=True, when=flag)

        @panda.cb_before_block_exec(name="plain", when=flag)
        def plain(cpu: Any, tb: Any) -> None:
            calls["plain"] += 1

        on_cpu(panda, flag.set)
        ended = threading.Event()

        def churn() -> None:
            turn = 0
            while not ended.is_set():
                turn += 1
                name = f"churn {turn}"
                kind = ("before_block_exec", "insn_translate", "virt_mem_before_write")[turn % 3]

                def function(*args: Any) -> None:
                    calls["churn"] += 1

                filters: dict[str, Any] = (
                    {"first": 5, "every": 1 + turn % 4} if kind != "insn_translate" else {}
                )
                panda.register_callback(
                    getattr(panda.callback, kind),
                    eval(
                        f"lambda {', '.join('abcde'[: (2, 2, 5)[turn % 3]])}: fn()",
                        {"fn": function},
                    ),
                    name,
                    **filters,
                )
                stream = panda.stream("mem", batch=100, when_full="drop")
                panda.disable_callback(name)
                panda.enable_callback(name)
                time.sleep(0.3)
                panda.delete_callback(name)
                stream.close()
            out["turns"] = turn

        thread = threading.Thread(target=churn)
        thread.start()
        for _ in range(3):
            panda.run_serial_cmd("ls -l /bin | wc -l; cat /proc/version", timeout=120)
        ended.set()
        thread.join(60)
        on_cpu(panda, flag.clear)
        for stream in streams.values():
            stream.close()
        out["streams"] = dict(got)
        out["counters"] = {name: c.value for name, c in counters.items()}
        out["hits"] = [sum(b.hits for b in covered.blocks), sum(e.hits for e in covered.edges)]
        out["insns"] = sum(b.hits * b.icount for b in covered.blocks)

    in_guest(panda, work)
    return {**out, "calls": calls}


def test_callbacks_come_and_go_while_streams_run() -> None:
    found = run_case(case_churn)
    assert found["turns"] > 10 and found["calls"]["churn"] > 10
    counters = found["counters"]
    assert counters["block"] > 10_000
    assert found["streams"]["block"] == counters["block"] == found["calls"]["plain"]
    assert found["streams"]["user"] == counters["user"]
    assert found["hits"] == [counters["block"]] * 2
    # An instruction that faults has begun, and is not counted; its block is left.
    assert counters["insn"] <= found["streams"]["insn"] < counters["insn"] * 1.02


# ---- kinds ----


def case_kinds() -> dict[str, Any]:
    """All kinds at once, and the filters that no code is generated for."""
    panda = boot()
    found: dict[str, list[Any]] = {}
    asids: list[Any] = []

    def work() -> None:
        def keep(name: str) -> Callable[[Any], None]:
            found[name] = []
            return lambda batch: found[name].extend(batch.tolist())

        @panda.cb_asid_changed
        def changed(cpu: Any, old: int, new: int) -> None:
            asids.append([panda.current_pc(cpu), old, new])

        streams = [panda.stream(kind, on_batch=keep(kind)) for kind in ("asid", "exception", "io")]
        for kind in ("exception", "io"):
            for kernel in (True, False):
                streams.append(panda.stream(kind, on_batch=keep(f"{kind} {kernel}"), kernel=kernel))
        top = (1 << 63, 1 << 64)
        streams.append(panda.stream("io", on_batch=keep("io pc"), pc=top))
        streams.append(panda.stream("io", on_batch=keep("io low"), pc=(0, 1 << 63)))
        streams.append(panda.stream("asid", on_batch=keep("asid low"), pc=(0, 1 << 63)))
        streams.append(panda.stream("exception", on_batch=keep("every"), every=10))
        panda.run_serial_cmd("ls / | cat; sleep 0.1")
        on_cpu(panda, lambda: [setattr(stream, "enabled", False) for stream in streams])
        panda.delete_callback("changed")
        for stream in streams:
            stream.close()

    in_guest(panda, work)
    return {**found, "asids": asids}


def test_kinds_without_code() -> None:
    found = run_case(case_kinds)
    asids = found["asid"]
    assert len(asids) > 5 and len({new for _, _, new in asids}) > 2
    assert all(pc >> 63 for pc, _, _ in asids)
    # The callback came first and went last.
    text = str(found["asids"])
    assert all(str(record) in text for record in asids)
    assert found["asid low"] == []

    exceptions = found["exception"]
    faults = [e for e in exceptions if e[1] == 14 and not e[2]]
    assert any(e[4] == 0 for e in faults) and any(e[2] for e in exceptions)
    for pc, _, interrupt, _, kernel in exceptions:
        assert bool(pc >> 63) == bool(kernel) or interrupt or pc < 1 << 16
    for kernel in (0, 1):
        name = f"exception {bool(kernel)}"
        assert found[name] and {e[4] for e in found[name]} == {kernel}, name
    assert len(found["every"]) == pytest.approx(len(exceptions) / 10, abs=20)
    assert len(found["exception True"]) + len(found["exception False"]) == pytest.approx(
        len(exceptions), abs=20
    )

    ios = found["io"]
    serial = [value for _, addr, size, value, write, port, *_ in ios if port and addr == 0x3F8]
    assert serial and all(value < 256 for value in serial)
    assert any(not port and 0xFEE00000 <= addr < 0xFEE01000 for _, addr, _, _, _, port, *_ in ios)
    assert found["io False"] == found["io low"] == []
    assert found["io True"] and found["io pc"]


def case_calls() -> dict[str, Any]:
    """Calls of a shell and its children, and of their kernel."""
    panda = boot()
    records: list[Any] = []

    def work() -> None:
        fields = ("pc", "target", "depth", "returns", "kernel")
        with panda.stream("call", fields, on_batch=records.extend):
            panda.run_serial_cmd("ls -l / | sort | sha256sum", timeout=100)

    in_guest(panda, work)
    out: dict[str, Any] = {}
    for kernel in (0, 1):
        of_mode = [r for r in records if r[4] == kernel]
        returns = [r for r in of_mode if r[3]]
        out[str(kernel)] = [
            len(of_mode) - len(returns),
            len(returns),
            len([r for r in returns if not r[2]]),
            max(r[2] for r in of_mode),
            all(bool(r[0] >> 63) == bool(kernel) for r in of_mode),
        ]
    return out


def test_calls_of_processes() -> None:
    found = run_case(case_calls)
    for kernel in ("0", "1"):
        calls, returns, unmatched, depth, right = found[kernel]
        assert calls > 5000 and returns == pytest.approx(calls, rel=0.02)
        assert unmatched < returns / 100, kernel
        assert 10 < depth < 100, kernel
        assert right


# ---- files ----


def case_file(folder: str) -> dict[str, Any]:
    panda = boot()
    flag = panda.flag(False)
    path = Path(folder) / "records"
    rows: list[Any] = []

    def work() -> dict[str, Any]:
        stream = panda.stream(
            "mem", ("pc", "addr", "value"), to_file=path, batch=777, when=flag, access="w"
        )
        beside = panda.stream(
            "mem", ("pc", "addr", "value"), on_batch=rows.extend, batch=500, when=flag, access="w"
        )
        on_cpu(panda, flag.set)
        panda.run_serial_cmd("ls /")
        on_cpu(panda, flag.clear)
        early = path.exists()
        stream.close()
        beside.close()
        return {"early": early, "delivered": stream.delivered, "beside": beside.delivered}

    found: dict[str, Any] = in_guest(panda, work)
    words = memoryview(path.read_bytes()).cast("Q")
    found["same"] = words.tolist() == [word for row in rows for word in row]
    found["size"] = len(words) // 3
    found["files"] = sorted(os.listdir(folder))

    # One that lasts until the end of its run, and has its name then.
    at_end = Path(folder) / "at end"

    def until_the_end() -> Any:
        stream = panda.stream("block", ("pc",), to_file=at_end)
        panda.run_serial_cmd("ls /")
        return stream

    stream = in_guest(panda, until_the_end)
    found["at end"] = [at_end.stat().st_size, stream.delivered * 8]

    # A disk that is full. SIGXFSZ is ignored by Python.
    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        panda.stream("block", to_file=Path(folder) / "too much", batch=10)
        panda.run_serial_cmd(WORK)

    begin = time.monotonic()
    try:
        in_guest(panda, full)
        found["full"] = "nothing was raised"
    except OSError as error:
        found["full"] = error.errno
    except Exception as error:
        found["full"] = repr(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    found["seconds"] = time.monotonic() - begin
    found["files then"] = sorted(os.listdir(folder))
    found["again"] = in_guest(panda, lambda: panda.run_serial_cmd("echo well"))
    return found


def test_files(tmp_path: Path) -> None:
    found = run_case(case_file, str(tmp_path))
    assert found["early"] is False
    assert found["delivered"] == found["beside"] == found["size"] > 1000
    assert found["same"] and found["files"] == ["records"]
    size, expected = found["at end"]
    assert size == expected > 1000
    assert found["full"] == errno.EFBIG
    assert found["seconds"] < 60
    assert found["files then"] == ["at end", "records"]
    assert "well" in found["again"]


def read_drcov(path: Path) -> tuple[list[tuple[int, int, str]], list[tuple[int, int]]]:
    """The modules (base, end, name) and blocks (pc, size) of a drcov file, version 2."""
    data = path.read_bytes()
    head, _, rest = data.partition(b"BB Table: ")
    lines = head.decode().splitlines()
    assert lines[:2] == ["DRCOV VERSION: 2", "DRCOV FLAVOR: drcov"]
    assert lines[2].startswith("Module Table: version 2, count ")
    columns = lines[3].removeprefix("Columns: ").split(", ")
    modules = []
    for number, line in enumerate(lines[4:]):
        values = dict(zip(columns, (v.strip() for v in line.split(",", len(columns) - 1))))
        assert int(values["id"]) == number
        modules.append((int(values["base"], 16), int(values["end"], 16), values["path"]))
    assert len(modules) == int(lines[2].rsplit(" ", 1)[1])
    count, _, table = rest.partition(b" bbs\n")
    assert len(table) == int(count) * 8
    blocks = []
    for at in range(0, len(table), 8):
        offset = int.from_bytes(table[at : at + 4], "little")
        size = int.from_bytes(table[at + 4 : at + 6], "little")
        base, end, _ = modules[int.from_bytes(table[at + 6 : at + 8], "little")]
        assert base + offset + size <= end
        blocks.append((base + offset, size))
    return modules, blocks


def case_coverage(folder: str) -> dict[str, Any]:
    panda = boot()
    flag = panda.flag(False)
    out: dict[str, Any] = {}
    pcs: Counter[int] = Counter()
    edges: Counter[tuple[int, int]] = Counter()

    def work() -> None:
        covered = panda.coverage(edges=True, edge_map=True, map_bits=12, when=flag)
        user = panda.coverage(when=flag, kernel=False)
        blocks = panda.stream(
            "block", ("pc",), on_batch=lambda b: pcs.update(b.column("pc")), when=flag
        )
        follow = panda.stream("edge", ("source", "pc"), on_batch=edges.update, when=flag)
        on_cpu(panda, flag.set)
        panda.run_serial_cmd("ls /")
        on_cpu(panda, flag.clear)
        for thing in (blocks, follow, user):
            thing.close()
        view = covered.map
        out["map"] = [len(view), sum(1 for byte in view if byte)]
        out["blocks"] = {b.pc: b.hits for b in covered.blocks} == dict(pcs)
        out["edges"] = {(e.source, e.target): e.hits for e in covered.edges} == dict(edges)
        user_low = min(b.pc for b in user.blocks)
        modules = [("low", user_low & ~0xFFF, (user_low & ~0xFFF) + 0x1000)]
        path = Path(folder)
        before = sorted((b.pc, b.size) for b in covered.blocks)
        written = covered.write_drcov(path / "all.drcov", modules)
        user.write_drcov(path / "user.drcov")
        found, listed = read_drcov(path / "all.drcov")
        wanted = sorted((b.pc, b.size) for b in covered.blocks)
        # The guest runs on, and a block that is translated anew may get another size.
        out["drcov"] = [written == len(listed), sorted(listed) in (before, wanted)]
        out["modules"] = [found[0] == (modules[0][1], modules[0][2], "low"), len(found)]
        _, listed = read_drcov(path / "user.drcov")
        out["user"] = sorted(listed) == sorted((b.pc, b.size) for b in user.blocks)
        out["user only"] = not any(pc >> 63 for pc, _ in listed)
        blocks_then = [list(b) for b in covered.blocks]
        covered.write_csv(path / "blocks.csv")
        covered.write_csv(path / "edges.csv", "edges")
        with (path / "blocks.csv").open(newline="") as file:
            rows = [[int(v, 0) for v in row.values()] for row in csv.DictReader(file)]
        out["csv"] = rows in (blocks_then, [list(b) for b in covered.blocks])
        with (path / "edges.csv").open(newline="") as file:
            rows = [[int(v, 0) for v in row.values()] for row in csv.DictReader(file)]
        out["csv edges"] = rows == [list(e) for e in covered.edges]
        out["files"] = sorted(os.listdir(folder))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            covered.write_csv(path / "too much.csv")
        except OSError as error:
            out["full"] = error.errno
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        out["files then"] = sorted(os.listdir(folder))
        # Closing keeps what is looked at, and what was recorded.
        kept = bytes(view)
        n = len(covered.blocks)
        covered.close()
        panda.run_serial_cmd("ls /")
        out["kept"] = [bytes(view) == kept == bytes(covered.map), len(covered.blocks) == n]
        for _ in range(20):
            # What is asked for just before the end.
            other = panda.coverage(edges=True, edge_map=True)
            other.reset()
            other.close()
        out["echo"] = panda.run_serial_cmd("echo well")

    in_guest(panda, work)
    return out


def test_coverage_files(tmp_path: Path) -> None:
    found = run_case(case_coverage, str(tmp_path))
    assert found["map"][0] == 4096 and found["map"][1] > 500
    assert found["blocks"] and found["edges"]
    assert found["drcov"] == [True, True]
    assert found["modules"][0] and found["modules"][1] > 2
    assert found["user"] and found["user only"]
    assert found["csv"] and found["csv edges"]
    assert found["files"] == ["all.drcov", "blocks.csv", "edges.csv", "user.drcov"]
    assert found["full"] == errno.EFBIG and found["files then"] == found["files"]
    assert found["kept"] == [True, True]
    assert "well" in found["echo"]


def test_signals_of_python_are_as_the_tests_assume() -> None:
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
