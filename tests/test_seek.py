"""A replay goes to any of its moments, forward and back."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path
from typing import Any

import pytest
from guest import boot, run_case
from replays import record_commands, report_of

from pandalite import Panda

WORK = [
    "i=0; while [ $i -lt 9000 ]; do i=$((i+1)); done; ls -l /bin | md5sum",
    "dd if=$DISK bs=64k count=30 2>/dev/null | md5sum; sleep 0.1; cat /proc/interrupts",
]


def state_of(panda: Any) -> list[Any]:
    """A digest of RAM's first part, the pc and the count."""
    digest = hashlib.md5(panda.physical_memory_read(panda_ram(panda), 32 << 20)).hexdigest()
    return [digest, panda.arch.get_pc(panda.cpu), panda.rr_get_guest_instr_count()]


def panda_ram(panda: Any) -> int:
    """Where RAM begins."""
    return {"aarch64": 1 << 30, "riscv64": 1 << 31}.get(panda.arch_name, 0)


def case_seek(arch: str, path: str, budget: str) -> dict[str, Any]:
    panda = boot(arch)
    rng = random.Random(arch)
    found: dict[str, Any] = {"wrong": []}
    with panda.replay(path, checkpoints=budget) as replay:
        found["begin"] = replay.instructions
        found["total"] = replay.total
        places = sorted(rng.sample(range(replay.total), 10))
        straight = {}
        for place in places:
            assert replay.run_to(place) == place
            straight[place] = state_of(panda)
        found["end"] = replay.run()
        # The CPU may be halted there, and nothing wakes it.
        found["beyond"] = [replay.step(), replay.run_until(4).reason, replay.run()]
        found["first"] = report_of(panda)
        for _ in range(15):
            place = rng.choice(places)
            assert replay.seek(place) == place
            if state_of(panda) != straight[place]:
                found["wrong"].append(place)
        assert replay.step(3) == place + 3
        assert replay.reverse_step(3) == place
        found["stepped"] = state_of(panda) == straight[place]
        assert replay.seek(replay.total + 5) == replay.total
        found["again"] = report_of(panda)
        try:
            replay.run_to(1)
        except ValueError as error:
            found["behind"] = str(error)
    panda.run_replay(path)
    found["after"] = report_of(panda)
    return found


@pytest.mark.parametrize(
    ("arch", "budget"),
    (("x86_64", "2G"), ("x86_64", "120M"), ("i386", "2G")),
)
def test_seek(arch: str, budget: str, tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    recorded = run_case(record_commands, arch, path, WORK)
    found = run_case(case_seek, arch, path, budget)
    assert found["wrong"] == []
    assert found["stepped"]
    assert found["begin"] == 0
    assert found["total"] == found["end"] == recorded["instructions"]
    assert found["beyond"] == [found["end"], "ended", found["end"]]
    assert found["first"] == found["again"] == found["after"] == recorded
    assert "seek() goes back" in found["behind"]


def case_last_write(path: str) -> dict[str, Any]:
    panda = boot()
    everything: list[tuple[int, int, int, bytes]] = []
    with panda.replay(path) as replay:
        replay.seek(replay.total // 2)
        stack = panda.arch.get_reg(panda.cpu, "RSP") & ~0xFFF
        end = replay.total * 3 // 4
        page = panda.virt_to_phys(panda.cpu, stack)

        def note(cpu: Any, pc: int, address: int, size: int, data: Any) -> None:
            everything.append((panda.rr_get_guest_instr_count(), pc, address, bytes(data[:size])))

        panda.cb_phys_mem_after_write(addr=(page, page + 0x1000), name="all")(note)
        replay.run_to(end)
        panda.delete_callback("all")
        # Which slot of the stack is written depends on where half of it is:
        # one in the middle of what was, so that others are written later.
        physical = everything[len(everything) // 2][2]
        writes = [
            (count, pc, data)
            for count, pc, address, data in everything
            if address <= physical < address + len(data)
        ]
        found = replay.find_last_write(physical, physical=True)
        before = panda.rr_get_guest_instr_count()
        none = None
        replay.seek(0)
        none = replay.find_last_write(physical, physical=True)
        reached = replay.run_until(writes[-1][1])
        return {
            "expected": [writes[-1][0], writes[-1][1], writes[-1][2].hex()],
            "found": [found.instructions, found.pc, found.data.hex()],
            "stays": before == end,
            "none": none is None,
            "until": [reached.reason, reached.pc],
        }


def test_find_last_write(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    run_case(record_commands, "x86_64", path, WORK[:1])
    found = run_case(case_last_write, path)
    assert found["found"] == found["expected"]
    assert found["stays"]
    assert found["none"]
    assert found["until"] == ["address", found["expected"][1]]


def case_cut(path: str) -> dict[str, Any]:
    panda = boot()
    found: dict[str, Any] = {}
    with panda.replay(path) as replay:
        total = replay.total
        begin, end = total // 3, total // 2
        first, last = replay.cut(begin, end, path + "-part")
        found["around"] = first <= begin < end <= last < total
        found["near"] = begin - first < 1 << 24 and last - end < 1 << 24
        found["here"] = replay.instructions == first
        middle = first + (last - first) // 2
        replay.seek(middle)
        found["middle"] = state_of(panda)[:2]
        replay.seek(last)
        found["last"] = state_of(panda)[:2]
        found["length"] = last - first
        found["at"] = middle - first
        try:
            replay.cut(5, 5, path + "-none")
        except ValueError as error:
            found["none"] = str(error)
    return found


def case_replay_cut(path: str, middle: int) -> dict[str, Any]:
    from pandalite.recordings import verify

    verify(path)
    panda = boot()
    found: dict[str, Any] = {}
    with panda.replay(path) as replay:
        found["length"] = replay.total
        replay.run_to(middle)
        found["middle"] = state_of(panda)[:2]
        replay.run()
        found["last"] = state_of(panda)[:2]
        replay.seek(middle)
        found["back"] = state_of(panda)[:2]
        # A part of a part.
        replay.cut(middle, replay.total, path + "-part")
    panda.run_replay(path + "-part")
    found["part"] = panda.record_report().instructions
    return found


def test_cut(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    run_case(record_commands, "x86_64", path, WORK)
    whole = run_case(case_cut, path)
    assert whole["around"]
    assert whole["near"]
    assert whole["here"]
    assert "nothing in between" in whole["none"]
    part = run_case(case_replay_cut, path + "-part", whole["at"])
    assert part["length"] == whole["length"]
    assert part["middle"] == part["back"] == whole["middle"]
    assert part["last"] == whole["last"]
    assert part["part"] >= whole["length"] - whole["at"]


def case_callbacks_after_seek(path: str) -> list[int]:
    panda = boot()
    counts: list[int] = []
    found = []

    def executed(cpu: Any, pc: int) -> int:
        counts.append(panda.rr_get_guest_instr_count())
        return 0

    with panda.replay(path) as replay:
        panda.cb_insn_translate(name="translated")(lambda cpu, pc: True)
        panda.cb_insn_exec(name="executed")(executed)
        place = replay.total // 8
        for _ in range(2):
            replay.seek(place)
            counts.clear()
            replay.run_to(place + 20_000)
            found.append(len(counts))
    return found


def test_callbacks_see_instructions_that_a_seek_translated(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    run_case(record_commands, "x86_64", path, WORK[:1])
    assert run_case(case_callbacks_after_seek, path) == [20_000, 20_000]


def case_record_nothing(path: str) -> dict[str, Any]:
    """Record a guest that waits; most such recordings have no instruction."""
    panda = boot()
    found: dict[str, Any] = {}

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        panda.serial_console.sendline(b"sleep 100")
        time.sleep(2)
        for _ in range(100):
            panda.record(path)
            panda.end_record()
            found.update(report_of(panda))
            if not found["instructions"]:
                break
        panda.end_analysis()

    panda.run()
    return found


def case_replay_nothing(path: str) -> dict[str, Any]:
    panda = Panda.from_recording(path)
    with panda.replay(path) as replay:
        found: dict[str, Any] = {"total": replay.total}
        found["moves"] = [
            replay.run_to(0),
            replay.seek(0),
            replay.run(),
            replay.step(),
            replay.run(),
        ]
        # It is the end, and that is said; nothing is waited for.
        panda.run()
        panda.run()
        found["until"] = replay.run_until(4).reason
        found["replayed"] = report_of(panda)
    panda.run_replay(path)
    return {**found, "again": report_of(panda)}


def test_recording_without_instructions(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    recorded = run_case(case_record_nothing, path)
    assert recorded["instructions"] == 0
    found = run_case(case_replay_nothing, path)
    assert found["total"] == 0
    assert found["moves"] == [0] * 5
    assert found["until"] == "ended"
    assert found["replayed"] == found["again"] == recorded
