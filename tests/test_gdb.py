"""Debian's gdb debugs replays, forward and back."""

from __future__ import annotations

import bisect
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from guest import ROOT, boot, built, run_case
from replays import record_commands

from pandalite.gdbpackets import Disconnected, Packets, escape

GDB = shutil.which("gdb-multiarch")

needs_gdb = pytest.mark.skipif(GDB is None, reason="no gdb: apt-get install gdb-multiarch")

ARCHES = ("x86_64", "aarch64")

#: What a recording's guest does.
WORK = ["i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; ls -l /bin | md5sum"]

#: Instructions that are looked at one by one.
WINDOW = 60_000


@pytest.fixture(scope="module", params=ARCHES)
def recording(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """An architecture and the path of a recording of it."""
    arch = built(str(request.param))
    path = str(tmp_path_factory.mktemp("gdb") / arch)
    run_case(record_commands, arch, path, WORK)
    return arch, path


class Window:
    """All that is executed and written in a part of a replay, without filters."""

    def __init__(self, panda: Any, replay: Any, begin: int) -> None:
        #: Counts of an address's executions.
        self.counts: dict[int, list[int]] = defaultdict(list)
        self.pcs: list[int] = []
        #: (count, pc, value) of writes, by address and size.
        self.writes: dict[tuple[int, int], list[tuple[int, int, bytes]]] = defaultdict(list)

        def executed(cpu: Any, pc: int) -> int:
            self.counts[pc].append(panda.rr_get_guest_instr_count())
            self.pcs.append(pc)
            return 0

        def written(cpu: Any, pc: int, address: int, size: int, data: Any) -> None:
            what = (panda.rr_get_guest_instr_count(), pc, bytes(data[:size]))
            self.writes[address, size].append(what)

        replay.seek(begin)
        panda.cb_insn_translate(name="translated")(lambda cpu, pc: True)
        panda.cb_insn_exec(name="executed")(executed)
        panda.cb_virt_mem_after_write(name="written")(written)
        replay.run_to(begin + WINDOW)
        for name in ("translated", "executed", "written"):
            panda.delete_callback(name)

    def often(self) -> int:
        """An address that is executed a few times, not at the beginning."""
        begin = min(counts[0] for counts in self.counts.values())
        return next(
            pc
            for pc in self.pcs
            if 3 <= len(self.counts[pc]) <= 100 and self.counts[pc][0] > begin + 10
        )

    def changed(self) -> tuple[int, int]:
        """An address where a write of 8 bytes changes something, and that write's count."""
        for (address, size), writes in self.writes.items():
            if size == 8 and address % 8 == 0 and len(writes) > 2:
                for one, other in zip(writes, writes[1:]):
                    if one[2] != other[2]:
                        return address, other[0]
        raise AssertionError("nothing is changed")


def serve(replay: Any, script: str, directory: str) -> dict[str, Any]:
    """Serve gdb with a script; what it printed."""
    path = Path(directory) / "script.gdb"
    path.write_text(script)
    done: list[subprocess.CompletedProcess[str]] = []
    clients: list[threading.Thread] = []

    def start(address: str) -> None:
        command = [str(GDB), "-nx", "-batch", "-ex", f"target remote {address}", "-x", str(path)]

        def client() -> None:
            done.append(
                subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
                )
            )

        clients.append(threading.Thread(target=client))
        clients[0].start()

    replay.serve_gdb(on_listening=start)
    clients[0].join()
    out, err = done[0].stdout, done[0].stderr
    return {
        "out": out,
        "err": err,
        "pcs": [int(n, 16) for n in re.findall(r"^pc 0x(\w+)$", out, re.M)],
        # What `monitor when` says is not in gdb's own output.
        "when": [int(n) for n in re.findall(r"^(\d+)$", err, re.M)],
    }


WHERE = 'printf "pc %#lx\\n", $pc\nmonitor when\n'


def case_breakpoints(arch: str, path: str, directory: str) -> dict[str, Any]:
    panda = boot(arch)
    with panda.replay(path) as replay:
        begin = replay.total // 2
        window = Window(panda, replay, begin)
        often = window.often()
        replay.seek(begin)
        script = (
            f"info registers\n{WHERE}stepi\n{WHERE}reverse-stepi\n{WHERE}"
            f"break *{often:#x}\ncontinue\n{WHERE}continue\n{WHERE}continue\n{WHERE}"
            f"reverse-continue\n{WHERE}delete\n"
            f"monitor rrbreakpoint {begin + WINDOW}\ncontinue\n{WHERE}"
            f"monitor rrdelete {begin + WINDOW}\ncontinue\n{WHERE}"
            f"monitor rrbreakpoint:{begin + 77}:{begin + 76}\nreverse-continue\n{WHERE}detach\n"
        )
        found = serve(replay, script, directory)
        hits = window.counts[often]
        counts = [begin, begin + 1, begin, *hits[:3], hits[1], begin + WINDOW]
        counts += [replay.total, begin + 77]
        pcs = []
        for count in counts:
            replay.seek(count)
            pcs.append(replay.pc)
        registers = dict(re.findall(r"^(\w+) +0x(\w+)", found["out"], re.M))
        replay.seek(begin)
        name = {"x86_64": "rbx", "aarch64": "x19"}[arch]
        return {
            **found,
            "counts": counts,
            "expected": pcs,
            "stays": replay.instructions,
            "register": [int(registers[name], 16), panda.arch.get_reg(panda.cpu, name)],
        }


@needs_gdb
def test_breakpoints(recording: tuple[str, str], tmp_path: Path) -> None:
    found = run_case(case_breakpoints, *recording, str(tmp_path))
    assert found["when"] == found["counts"], found["out"] + found["err"]
    assert found["pcs"] == found["expected"]
    assert found["register"][0] == found["register"][1]
    assert "Breakpoint 1, 0x" in found["out"]
    assert "No more reverse-execution history" in found["out"]
    assert "detached" in found["out"]


def case_watch(arch: str, path: str, directory: str) -> dict[str, Any]:
    panda = boot(arch)
    with panda.replay(path) as replay:
        begin = replay.total // 2
        address, count = Window(panda, replay, begin).changed()
        replay.seek(count + 3)
        write = replay.find_last_write(address, 8)
        value = panda.virtual_memory_read(panda.cpu, address, 8, fmt="int")
        script = (
            f"watch *(unsigned long*){address:#x}\nreverse-continue\n{WHERE}"
            f"continue\n{WHERE}delete\nrwatch *(unsigned long*){address:#x}\ndelete\n"
            f"reverse-continue\n{WHERE}continue\n{WHERE}p $pc = 0\n"
        )
        found = serve(replay, script, directory)
        replay.seek(write.instructions + 1)
        return {
            **found,
            "write": [write.instructions, write.pc],
            "after": replay.pc,
            "value": value,
            "total": replay.total,
        }


@needs_gdb
def test_watchpoint(recording: tuple[str, str], tmp_path: Path) -> None:
    found = run_case(case_watch, *recording, str(tmp_path))
    count, pc = found["write"]
    assert found["when"] == [count, count + 1, 0, found["total"]], found["out"] + found["err"]
    assert found["pcs"][:2] == [pc, found["after"]]
    assert "Hardware watchpoint 1" in found["out"]
    assert f"Old value = {found['value']}\n" in found["out"]
    assert f"New value = {found['value']}\n" in found["out"]
    assert "a replay is read-only" in found["err"]


def case_travel(arch: str, path: str) -> list[str]:
    """Hits that are found from anywhere, against a list of all."""
    from pandalite.travel import Traveller, Watch

    panda = boot(arch)
    rng = random.Random(arch)
    wrong = []
    with panda.replay(path) as replay:
        window = Window(panda, replay, replay.total // 2)
        # Something that is often executed, and where exceptions enter the kernel.
        entries = {b for a, b in zip(window.pcs, window.pcs[1:]) if b >> 47 and not a >> 47}
        pcs = {window.often(), *sorted(entries)[:3]}
        address, _ = window.changed()
        hits: list[tuple[int, int]] = []
        writes: list[int] = []
        replay.seek(0)
        panda.cb_insn_translate(name="t", pc=sorted(pcs))(lambda cpu, pc: True)
        panda.cb_insn_exec(name="x", pc=sorted(pcs))(
            lambda cpu, pc: hits.append((panda.rr_get_guest_instr_count(), pc)) or 0
        )

        @panda.cb_virt_mem_after_write(name="w")
        def written(cpu: Any, pc: int, at: int, size: int, data: Any) -> None:
            if at < address + 8 and at + size > address:
                writes.append(panda.rr_get_guest_instr_count())

        replay.run()
        for name in "txw":
            panda.delete_callback(name)
        traveller = Traveller(replay)
        counts = [count for count, _ in hits]
        for _ in range(8):
            place = rng.randrange(replay.total)
            traveller.breakpoints, traveller.watches = set(pcs), set()
            replay.seek(place)
            traveller.back()
            at = bisect.bisect_left(counts, place) - 1
            expected = hits[at] if at >= 0 else (0, replay.pc)
            if (replay.instructions, replay.pc) != expected:
                wrong.append(f"back from {place}: {replay.instructions}, {expected}")
            replay.seek(place)
            traveller.forward()
            at = bisect.bisect_right(counts, place)
            ends = [counts[at], hits[at][1]] if at < len(hits) else [replay.total, replay.pc]
            if [replay.instructions, replay.pc] != ends:
                wrong.append(f"forward from {place}: {replay.instructions}, {ends}")
            traveller.breakpoints = set()
            traveller.watches = {Watch("watch", address, 8)}
            replay.seek(place)
            traveller.back()
            at = bisect.bisect_left(writes, place) - 1
            if replay.instructions != (writes[at] if at >= 0 else 0):
                wrong.append(f"writes before {place}: {replay.instructions}")
            replay.seek(place)
            traveller.forward()
            at = bisect.bisect_left(writes, place)
            if replay.instructions != (writes[at] + 1 if at < len(writes) else replay.total):
                wrong.append(f"writes after {place}: {replay.instructions}")
    return [*wrong, *(["too few"] if len(hits) < 20 or len(writes) < 3 else [])]


def test_hits_from_anywhere(recording: tuple[str, str]) -> None:
    assert run_case(case_travel, *recording) == []


def case_protocol(path: str, directory: str) -> dict[str, str]:
    """Packets that gdb's scripts do not send, or not at a certain moment."""
    panda = boot("x86_64")
    answers: dict[str, str] = {}

    def client(address: str) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        packets = Packets(connection)

        def ask(text: str, after: bytes = b"") -> str:
            packets.send(text)
            if after:
                connection.sendall(after)
            return packets.receive().decode()

        with connection:
            for text in ("?", "qSupported:swbreak+", "qC", "vCont?", "G00", "P0=00", "M0,1:00"):
                answers[text] = ask(text)
            for text in ("m1,4", "m", "qRcmd,7a", "when", "bs", "vSomething", "qfThreadInfo"):
                answers[text] = ask(text)
            # A range that is left at once, and one that is not.
            answers["stepped"] = ask("vCont;r0,1:1;c")
            pcs = [ask("p10")]
            for _ in range(60):
                ask("s")
                pcs.append(ask("p10"))
            ask("bs")
            target = bytes.fromhex(next(pc for pc in pcs[20:] if pc not in pcs[:20]))[::-1].hex()
            for _ in range(59):
                ask("bs")
            ask("qSupported:hwbreak+")
            ask(f"Z1,{target},1")
            answers["ranged"] = ask("vCont;r0,ffffffffffffffff:1;c")
            answers["range"] = bytes.fromhex(ask("when")).decode()
            ask(f"z1,{target},1")
            answers["interrupted"] = ask("c", after=b"\x03")
            answers["place"] = bytes.fromhex(ask("when")).decode()
            answers["g"] = ask("g")
            packets.send("k")

    threads: list[threading.Thread] = []

    def start(address: str) -> None:
        threads.append(threading.Thread(target=client, args=(address,)))
        threads[0].start()

    with panda.replay(path) as replay:
        replay.serve_gdb(str(Path(directory) / "gdb"), on_listening=start)
        threads[0].join()
        answers["total"] = str(replay.total)
    assert not (Path(directory) / "gdb").exists()
    return answers


def test_protocol(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    run_case(record_commands, "x86_64", path, WORK)
    answers = run_case(case_protocol, path, str(tmp_path))
    assert answers["?"] == "T05thread:1;"
    assert "ReverseStep+;ReverseContinue+;qXfer:features:read+" in answers["qSupported:swbreak+"]
    assert answers["vCont?"] == "vCont;c;C;s;S;r"
    assert answers["stepped"] == "T05thread:1;"
    # All instructions are in this range, but the breakpoint's is met first.
    assert answers["ranged"] == "T05hwbreak:;thread:1;"
    assert int(answers["range"]) > 1
    for text in ("G00", "P0=00", "M0,1:00"):
        assert answers[text] == "E.a replay is read-only"
    assert answers["m1,4"] == "E0e"
    assert answers["m"] == "E16"
    assert "rrbreakpoint N" in bytes.fromhex(answers["qRcmd,7a"]).decode()
    assert bytes.fromhex(answers["when"]).decode() == "0\n"
    assert answers["bs"] == "T05replaylog:begin;thread:1;"
    assert answers["vSomething"] == ""
    assert answers["interrupted"] == "T02thread:1;"
    assert int(answers["place"]) < int(answers["total"]) // 2
    # 16 general ones and the pc, eflags and segments, x87, two bases.
    assert len(answers["g"]) == 2 * (17 * 8 + 7 * 4 + 8 * 10 + 8 * 4 + 2 * 8)


def test_command(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    run_case(record_commands, "x86_64", path, ["echo"])
    words = [sys.executable, "-m", "pandalite", "replay", path, "--gdb", str(tmp_path / "gdb")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as command:
        assert command.stdout is not None
        said = command.stdout.readline()
        assert said == f"in gdb: target remote {tmp_path / 'gdb'}\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "gdb"))
            packets = Packets(connection)
            packets.send("?")
            assert packets.receive() == b"T05thread:1;"
            packets.send("D")
            assert packets.receive() == b"OK"
    assert command.returncode == 0


def case_refused(arch: str) -> str:
    from pandalite.errors import UnsupportedFeatureError
    from pandalite.gdbtargets import target_of

    try:
        target_of(arch)
    except UnsupportedFeatureError as error:
        return str(error)
    return ""


def test_architectures_without_a_description() -> None:
    assert "replays of mips yet; it can those of x86_64" in case_refused("mips")


@pytest.fixture
def pair() -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(10)
        yield Packets(ours), theirs


def test_packets(pair: tuple[Packets, socket.socket]) -> None:
    packets, theirs = pair
    theirs.sendall(b"+$abc#00$abc#26\x03")
    assert packets.receive() == b"abc"
    assert theirs.recv(10) == b"-+"
    assert packets.interrupted()
    assert not packets.interrupted()
    packets.send("OK")
    assert theirs.recv(10) == b"$OK#9a"
    packets.acknowledged = False
    theirs.sendall(b"$a#61\x03$")
    assert packets.receive() == b"a"
    assert packets.receive() == b"\x03"
    theirs.close()
    with pytest.raises(Disconnected):
        packets.receive()


def test_binary_content_is_escaped() -> None:
    assert escape(b"a#$}*") == b"a}\x03}\x04}]}\n"
