"""Streams, counters and coverage say what callbacks say, event by event."""

from __future__ import annotations

import ctypes
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from guest import run_case
from test_baremetal import build_baremetal, symbols_of

from pandalite import Panda
from pandalite._bindings.arches import ARCHITECTURES
from pandalite._bindings.enums import PandaStatus, PandaStreamField, PandaStreamKind
from pandalite._bindings.structs import PandaStreamSpec
from pandalite.streams import KINDS


def case_same(arch: str, elf_path: str) -> dict[str, Any]:
    """The user mode part of the self-test guest, seen in all ways at once."""
    elf = Path(elf_path)
    symbols = symbols_of(elf)
    called: dict[str, list[Any]] = {"block": [], "insn": [], "mem": [], "user": []}
    streamed: dict[str, list[Any]] = {name: [] for name in (*KINDS, "user")}
    stopped: list[bool] = []
    found: dict[str, Any] = {}

    words = [*build_baremetal.machine_words(arch, elf), "-serial", "null"]
    panda = Panda(arch=arch, mem="64M", extra_args=words)
    objects: dict[str, Any] = {}

    @panda.cb_before_block_exec(enabled=False)
    def block(cpu: Any, tb: Any) -> None:
        if not stopped:
            kernel = panda.in_kernel(cpu)
            called["block"].append((tb.pc, tb.size, tb.icount, int(kernel)))
            if not kernel:
                called["user"].append(tb.pc)

    @panda.cb_insn_translate(enabled=False)
    def select(cpu: Any, pc: int) -> bool:
        return True

    @panda.cb_insn_exec(enabled=False)
    def insn(cpu: Any, pc: int) -> None:
        if not stopped:
            called["insn"].append(pc)

    def access(cpu: Any, pc: int, addr: int, size: int, buf: Any, write: int) -> None:
        if not stopped:
            # Memory callbacks have the value in the host's order.
            value = int.from_bytes(bytes(buf[0:size]), "little")
            called["mem"].append((pc, addr, size, value, write))

    @panda.cb_virt_mem_after_read(enabled=False)
    def read(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        access(cpu, pc, addr, size, buf, 0)

    @panda.cb_virt_mem_after_write(enabled=False)
    def write(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        access(cpu, pc, addr, size, buf, 1)

    fields = {
        "block": ("pc", "size", "icount", "kernel"),
        "edge": ("source", "pc"),
        "insn": ("pc",),
        "mem": ("pc", "addr", "size", "value", "write"),
    }
    for kind in KINDS:
        objects[kind] = panda.stream(
            kind, fields.get(kind), batch=100, on_batch=streamed[kind].extend, enabled=False
        )
    objects["user"] = panda.stream(
        "block", ("pc",), batch=7, on_batch=streamed["user"].extend, enabled=False, kernel=False
    )
    objects["blocks"] = panda.counter("block", enabled=False)
    objects["user blocks"] = panda.counter("block", enabled=False, kernel=False)
    objects["covered"] = panda.coverage(edges=True, edge_map=True, enabled=False)
    objects["covered user"] = panda.coverage(enabled=False, kernel=False)

    @panda.cb_before_block_translate
    def start(cpu: Any, pc: int) -> None:
        # After the timer's test: from here on the guest goes the same way each time.
        if pc == symbols["self_test_user"]:
            panda.enable_all_callbacks()
            for thing in objects.values():
                thing.enabled = True
            panda.disable_callback("start")

    @panda.cb_before_block_exec(name="stop", enabled=False, pc=symbols["power_off"])
    def stop(cpu: Any, tb: Any) -> None:
        stopped.append(True)
        for thing in objects.values():
            thing.enabled = False
        panda.end_analysis()

    panda.run()
    for name in KINDS:
        found[f"{name} stats"] = [objects[name].delivered, objects[name].dropped]
    for name in ("blocks", "user blocks"):
        found[name] = objects[name].value
    covered = objects["covered"]
    found["covered"] = sorted(covered.blocks)
    found["edges"] = covered.edges
    found["map"] = sum(covered.map)
    found["covered user"] = sorted(objects["covered user"].blocks)
    return {"called": called, "streamed": streamed, "found": found}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_same_events(arch: str) -> None:
    result = run_case(case_same, arch, str(build_baremetal.build(arch)))
    called, streamed, found = result["called"], result["streamed"], result["found"]
    # The callback of the last block switches off what comes after it.
    blocks = called["block"][:-1]
    assert len(blocks) > 500
    assert streamed["block"] == blocks
    for kind in ("insn", "mem"):
        assert len(streamed[kind]) > 100
        assert streamed[kind] == [[event] if kind == "insn" else event for event in called[kind]], (
            kind
        )
    assert [[pc] for pc in called["user"]] == streamed["user"]

    pcs = [pc for pc, *_ in blocks]
    edges = [[a, b] for a, b in zip(pcs, pcs[1:])]
    assert streamed["edge"][1:] == edges
    for name in KINDS:
        assert found[f"{name} stats"] == [len(streamed[name]), 0]

    assert found["blocks"] == len(blocks)
    assert found["user blocks"] == len(called["user"])
    hits = Counter(pc for pc, *_ in blocks)
    assert {pc: n for pc, _, _, n in found["covered"]} == dict(hits)
    sizes = {pc: (size, icount) for pc, size, icount, _ in blocks}
    for pc, size, icount, _ in found["covered"]:
        assert size >= sizes[pc][0] and icount >= sizes[pc][1]
    assert [b[0] for b in found["covered user"]] == sorted(set(called["user"]))
    # The first has the block before all this as its source.
    counted = Counter((a, b) for a, b in streamed["edge"])
    assert {(a, b): n for a, b, n in found["edges"]} == dict(counted)
    assert found["map"] > 100

    exceptions = [number for _, number, interrupt, *_ in streamed["exception"] if not interrupt]
    assert len(exceptions) >= build_baremetal.CALLS


def case_icount(arch: str, elf_path: str) -> list[int]:
    """Count all instructions from the power-on to the end, with -icount."""
    elf = Path(elf_path)
    end = symbols_of(elf)["power_off"]
    words = [*build_baremetal.machine_words(arch, elf), "-serial", "null"]
    words += ["-icount", "shift=1,sleep=off"]
    panda = Panda(arch=arch, mem="64M", extra_args=words)
    whole = panda.counter("insn")
    kernel = panda.counter("insn", kernel=True)
    user = panda.counter("insn", kernel=False)

    @panda.cb_before_block_exec(pc=end)
    def stop(cpu: Any, tb: Any) -> None:
        panda.end_analysis()

    panda.run()
    return [panda.icount(), whole.value, kernel.value, user.value]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_instruction_counter_is_icount(arch: str) -> None:
    icount, whole, kernel, user = run_case(case_icount, arch, str(build_baremetal.build(arch)))
    assert whole == icount > 10000
    assert kernel + user == whole and user > 1000


#: Rounds of the guests' test of branches.
ROUNDS = 1000


def case_calls(arch: str, elf_path: str) -> dict[str, Any]:
    """The calls of the self-test guest, from its start to its end; and its blocks."""
    elf = Path(elf_path)
    symbols = symbols_of(elf)
    words = [*build_baremetal.machine_words(arch, elf), "-serial", "null"]
    panda = Panda(arch=arch, mem="64M", extra_args=words)
    calls: list[Any] = []
    filtered: dict[str, list[Any]] = {"user": [], "pc": [], "every": []}
    stacks: dict[str, int] = {}
    stream = panda.stream("call", on_batch=calls.extend, enabled=False, batch=333)
    where = (symbols["self_test_branches"], symbols["self_test_branches"] + 128)
    for name, filters in (
        ("user", {"kernel": False}),
        ("pc", {"pc": where}),
        ("every", {"every": 10}),
    ):
        panda.stream("call", on_batch=filtered[name].extend, enabled=True, **filters)

    @panda.cb_before_block_translate
    def start(cpu: Any, pc: int) -> None:
        if pc == symbols["_start"]:
            stream.enabled = True

    names = ("self_test_memory", "self_test_branches", "self_test_timer", "self_test_user")

    @panda.cb_before_block_exec(pc=[symbols[name] for name in names])
    def stack(cpu: Any, tb: Any) -> None:
        stacks[hex(tb.pc)] = panda.current_sp(cpu)

    @panda.cb_before_block_exec(pc=symbols["power_off"])
    def stop(cpu: Any, tb: Any) -> None:
        panda.end_analysis()

    panda.run()
    return {"calls": calls, "stacks": stacks, **filtered}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_calls(arch: str) -> None:
    elf = build_baremetal.build(arch)
    symbols = symbols_of(elf)
    found = run_case(case_calls, arch, str(elf))
    calls = found["calls"]
    counts = Counter(target for _, target, _, _, returns, *_ in calls if not returns)
    # A thousand rounds, each of which calls one of four functions.
    functions = [symbols[f"function_{n}"] for n in range(4)]
    assert [counts[f] for f in functions] == [ROUNDS // 4] * 4
    assert 0 < counts[symbols["mix"]] < ROUNDS
    tests = ("self_test_memory", "self_test_branches", "self_test_timer", "self_test_user")
    assert [counts[symbols[name]] for name in tests] == [1] * 4

    # Each return leads behind the call it belongs to, from as deep, with the stack as it was.
    begun: list[Any] = []
    for pc, target, sp, depth, returns, _, kernel in calls:
        if not kernel or (returns and not depth):
            continue
        if not returns:
            del begun[depth - 1 :]
            assert len(begun) == depth - 1, hex(pc)
            begun.append((pc, sp))
            if hex(target) in found["stacks"]:
                assert sp == found["stacks"][hex(target)]
        else:
            assert depth == len(begun)
            source, before = begun.pop()
            assert 2 <= target - source <= 8
            assert before <= sp <= before + 8
    returns = [record for record in calls if record[4]]
    of_functions = [r for r in returns if r[3] == 2]
    # From _start to the test, from the test to the function.
    assert len(of_functions) >= ROUNDS + counts[symbols["mix"]]
    unmatched = [record for record in returns if not record[3]]
    assert len(unmatched) <= 1, unmatched

    low, high = symbols["self_test_branches"], symbols["self_test_branches"] + 128
    assert found["pc"] == [r for r in calls if low <= r[0] < high]
    assert found["user"] == [r for r in calls if not r[6]]


def case_fields() -> dict[str, list[str]]:
    """Which fields the core has for each kind, whatever Python's table says."""
    panda = Panda("x86_64", extra_args=["-S"])
    found: dict[str, list[str]] = {}
    for kind in KINDS:
        found[kind] = []
        for field in PandaStreamField:
            number: Any = (ctypes.c_uint32 * 1)(field)
            spec = PandaStreamSpec(PandaStreamKind[kind.upper()], 1, number, 16, 2, 0, 3)
            handle = panda.libpanda.panda_stream_open(spec, None)
            if handle:
                found[kind].append(field.name.partition("_")[2].lower())
                panda.libpanda.panda_stream_close(handle, False)
            else:
                assert panda.libpanda.panda_last_status() == PandaStatus.ERR_ARGUMENT
    return found


def test_fields_are_those_of_the_core() -> None:
    assert {kind: sorted(names) for kind, names in run_case(case_fields).items()} == {
        kind: sorted(names) for kind, names in KINDS.items()
    }
