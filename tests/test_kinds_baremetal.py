"""Hypercalls, devices, address spaces and exceptions, on every architecture.

In the self-test guests (docs/baremetal.md), one run of which has it all: a snippet
of code in place of the guest's branch test (tests/snippets.py), then the guest's own
timer and user program.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from typing import Any

import pytest
import snippets
from ctools import ROOT
from guest import run_case
from snippets import TARGETS, Guest

from pandalite._bindings.arches import ARCHITECTURES
from pandalite.errors import StateError

sys.path.insert(0, str(ROOT / "tools"))

from build_baremetal import CALLS

EVERY = list(ARCHITECTURES)
ARM = ("arm", "aarch64")
X86 = ("i386", "x86_64")
#: Where a load from device memory need not be aligned.
UNALIGNED = (*X86, "ppc", "ppc64", "riscv64")

#: Hypercalls: one that is handled, one that is not, one that goes elsewhere.
HANDLED, IGNORED = 0x1234, 0x4321
#: What the guest writes into the device, and what callbacks turn.
WRITTEN, TURNED_WRITE, TURNED_READ = 0x12345678, 0x00000041, 0x00000018
#: What is read where nothing is, by size.
NOTHING = {1: 0xA5, 2: 0x9E8F, 4: 0x91827364, 8: 0x8796A5B4C3D2E1F0}
WRITE_NOTHING = 0xB1C2D3E4


#: Results of full width: of set_asid, and of the load of 64 bits.
WIDE = (8, 9, 10, 12)


def bits(arch: str) -> int:
    return ARCHITECTURES[arch].bits


def snippet(arch: str) -> str:
    """What the guest does instead of its branch test."""
    target = TARGETS[arch]
    lines = [
        *(f"hypercall {HANDLED:#x}, 0x55", "save 0"),
        *(f"hypercall {IGNORED:#x}, 0x66", "save 1"),
        *(f"poke {target.device.virtual:#x}, {WRITTEN:#x}", f"peek {target.device.virtual:#x}"),
        *("save 2", "map_low"),
        *(f"peek8 {target.nothing.virtual:#x}", "save 3"),
        *(f"peek {target.nothing.virtual + 4:#x}", "save 4"),
        *(f"poke {target.nothing.virtual + 8:#x}, {WRITE_NOTHING:#x}", "const 1", "save 5"),
        *(f"peek {target.beside.virtual:#x}", "save 6"),
        *(f"peek16 {target.nothing.virtual + 24:#x}", "save 11"),
        *([f"peek64 {target.nothing.virtual + 32:#x}", "save64 12"] if bits(arch) == 64 else []),
        *([f"peek {target.nothing.virtual + 42:#x}", "save 16"] if arch in UNALIGNED else []),
        *("const 0x77", f"peek {target.nothing.virtual + 16:#x}", "save 7"),
        "unmap_low",
        *(f"set_asid {target.asids[0]}", "save_asid 8"),
        *(f"set_asid {target.asids[1]}", "save_asid 9"),
        *(f"set_asid {target.asids[2]}", "save_asid 10"),
    ]
    if target.source is not snippets.MIPS:
        # There the guest has mapped all that is needed.
        lines = [line for line in lines if "map_low" not in line]
    else:
        lines += [
            # In the delay slots of a jump, of a branch that is taken, of one that is not.
            *(f"li $v0, {HANDLED:#x}", "li $a0, 0", "b 1f", "movn $zero, $zero, $zero"),
            *("li $a0, -1", "1: save 13"),
            *(f"li $v0, {HANDLED:#x}", "bnez $v0, 1f", "movz $zero, $t0, $t1"),
            *("li $a0, -1", "1: save 14"),
            *(f"li $v0, {HANDLED:#x}", "beqz $v0, 1f", "mfc0 $zero, $12"),
            *("xori $a0, $a0, 1", "1: save 15"),
        ]
    return "\n".join([*lines, "back"])


def case_everything(arch: str) -> dict[str, Any]:
    guest = Guest(arch, snippet(arch))
    panda, target, symbols = guest.panda, guest.target, guest.symbols
    seen: dict[str, list[Any]] = {}
    count: Counter[str] = Counter()
    bad: list[str] = []
    in_snippet = range(guest.begin, guest.begin + len(guest.code))
    user = range(symbols["user_begin"], symbols["user_end"])
    number, argument, result = target.call

    def note(kind: str, *values: Any) -> None:
        seen.setdefault(kind, []).append(values)

    def place(cpu: Any) -> int:
        pc = panda.current_pc(cpu)
        if pc not in in_snippet or pc != panda.arch.get_pc(cpu):
            bad.append(f"pc {pc:#x} in {sys._getframe(1).f_code.co_name}")
        return pc - guest.begin

    @panda.cb_guest_hypercall(enabled=False)
    def hypercall(cpu: Any) -> bool:
        magic, value = (panda.arch.get_reg(cpu, r) for r in (target.magic, target.value))
        note("hypercall", place(cpu), magic, value)
        if magic == HANDLED:
            panda.arch.set_reg(cpu, target.value, 0xCAFE)
            # Of x86 the snippet stores EAX.
            panda.arch.set_reg(cpu, target.magic, 0xCAFE)
        return magic == HANDLED

    @panda.cb_guest_hypercall(enabled=False)
    def another_hypercall(cpu: Any) -> None:
        note("another", panda.arch.get_reg(cpu, target.value))

    @panda.cb_mmio_before_write(enabled=False)
    def mmio_write(cpu: Any, paddr: int, vaddr: int, size: int, value: Any) -> None:
        if panda.current_pc(cpu) in in_snippet:
            note("mmio write", place(cpu), paddr, vaddr, size, value[0])
            if paddr == target.device.physical:
                value[0] ^= TURNED_WRITE

    @panda.cb_mmio_after_read(enabled=False)
    def mmio_read(cpu: Any, paddr: int, vaddr: int, size: int, value: Any) -> None:
        if panda.current_pc(cpu) in in_snippet:
            note("mmio read", place(cpu), paddr, vaddr, size, value[0])
            if paddr == target.device.physical:
                value[0] ^= TURNED_READ

    @panda.cb_unassigned_io_read(enabled=False)
    def read_nothing(cpu: Any, pc: int, addr: int, size: int, value: Any) -> bool:
        if pc != panda.current_pc(cpu):
            bad.append(f"argument pc {pc:#x}")
        note("read", place(cpu), addr, size)
        value[0] = NOTHING[size]
        return addr != target.nothing.physical + 16

    @panda.cb_unassigned_io_write(enabled=False)
    def write_nothing(cpu: Any, pc: int, addr: int, size: int, value: int) -> bool:
        note("write", place(cpu), addr, size, value)
        return True

    @panda.cb_asid_changed(enabled=False)
    def asid(cpu: Any, old: int, new: int) -> bool:
        note("asid", old, new, panda.current_asid(cpu))
        if len(seen["asid"]) <= 3:
            place(cpu)
        # Of these three the second.
        return len(seen["asid"]) == 2

    @panda.cb_before_handle_exception(enabled=False)
    def exception(cpu: Any, index: int) -> int:
        pc = panda.current_pc(cpu)
        if cpu.exception_index != index or pc != panda.arch.get_pc(cpu):
            bad.append(f"exception {index}")
        if pc in in_snippet:
            # An undefined hypercall, and the load where nothing is.
            note("fault", pc - guest.begin, index)
            panda.arch.set_pc(cpu, pc + 4)
            return -1
        if pc == symbols["power_off"] + 8 or pc == symbols["power_off"] + 4:
            # By a call of the firmware (arm).
            return index
        if pc not in user:
            bad.append(f"exception {index} at {pc:#x}")
            return index
        count[f"call {index}"] += 1
        count["calls"] += 1
        if panda.arch.get_reg(cpu, number) == 1 and count["calls"] % 2:
            # Do what the guest's kernel does for it.
            guest.set_word("user_calls", guest.word(symbols["user_calls"]) + 1)
            total = guest.word(symbols["user_sum"]) + panda.arch.get_reg(cpu, argument)
            guest.set_word("user_sum", total)
            panda.arch.set_reg(cpu, result, total)
            panda.arch.set_pc(cpu, pc + target.call_size)
            count["emulated"] += 1
            return -1
        return index

    @panda.cb_before_block_exec(enabled=False)
    def block(cpu: Any, tb: Any) -> None:
        count["trap"] += tb.pc == symbols["trap_entry"]
        if tb.pc == symbols["self_test_timer"]:
            report["results"] = [
                guest.word(guest.results + 8 * n, bits(arch) // 8 if n in WIDE else 4)
                for n in range(snippets.RESULTS)
            ]

    inside: list[bool] = []

    @panda.cb_after_cpu_exec_enter(enabled=False)
    def enter(cpu: Any) -> None:
        count["enter"] += 1
        if inside:
            bad.append("entered twice")
        inside.append(True)

    @panda.cb_before_cpu_exec_exit(enabled=False)
    def leave(cpu: Any, ran_block: bool) -> None:
        count["leave"] += 1
        count["ran"] += ran_block is True
        count["did not run"] += ran_block is False
        if not inside and count["leave"] > 1:
            bad.append("left twice")
        inside.clear()

    if arch in X86:

        @panda.cb_before_handle_interrupt(enabled=False)
        def interrupt(cpu: Any, vector: int) -> int:
            count[f"interrupt {vector:#x}"] += 1
            return vector

    report: dict[str, Any] = {}
    guest.enabled = [n for n in panda.registered_callbacks if not n.startswith("_")]
    end, text = guest.run()
    report |= {"ticks": guest.word(symbols["counter"]), "end": end, "text": text}
    return {**report, "seen": seen, "count": dict(count), "bad": bad[:10]}


@functools.cache
def everything(arch: str) -> dict[str, Any]:
    found = run_case(case_everything, arch, timeout=60)
    assert isinstance(found, dict)
    print(found)
    return found


def offsets(arch: str) -> dict[str, int]:
    """Where in the snippet its hypercalls and its last load are."""
    code = snippets.assemble(arch, snippet(arch))
    size, target = 2 if arch in X86 else 4, TARGETS[arch]
    little = ARCHITECTURES[arch].little_endian and arch not in X86
    word = target.hypercall.to_bytes(size, "little" if little else "big")
    first = code.index(word)
    return {"first": first, "second": code.index(word, first + 1)}


@pytest.mark.parametrize("arch", EVERY)
def test_the_guest_is_unharmed(arch: str) -> None:
    found = everything(arch)
    assert found["text"].splitlines() == [
        f"pandalite self-test {arch}",
        "memory ok",
        f"timer {found['ticks']} ok",
        "user ok",
        "done",
    ]
    assert found["bad"] == []


@pytest.mark.parametrize("arch", EVERY)
def test_hypercall(arch: str) -> None:
    found = everything(arch)
    calls, where, results = found["seen"]["hypercall"], offsets(arch), found["results"]
    if arch in X86:
        # A hypercall's second argument there; the first one is not stored.
        assert calls[0] == [where["first"], HANDLED, 0x55]
    assert calls[:2] == [
        [where["first"], HANDLED, 0x55],
        [where["second"], IGNORED, 0x66],
    ]
    # All callbacks are asked, and registers are as the one before has left them.
    assert found["seen"]["another"][:2] == [[0xCAFE], [0x66]]
    assert results[0] == 0xCAFE
    if arch in X86:
        # The CPU has answered.
        assert results[1] not in (0xCAFE, IGNORED)
    else:
        assert results[1] == 0x66
    faults = [pc for pc, _ in found["seen"].get("fault", [])]
    assert (where["second"] in faults) == (arch in ARM)
    assert where["first"] not in faults
    if arch.startswith("mips"):
        assert len(calls) == 5
        assert results[13:16] == [0xCAFE, 0xCAFE, 0xCAFF]
    else:
        assert len(calls) == 2


@pytest.mark.parametrize("arch", EVERY)
def test_mmio(arch: str) -> None:
    found, target = everything(arch), TARGETS[arch]
    written = WRITTEN ^ TURNED_WRITE
    kept = written & target.device_bits
    [write] = [w[1:] for w in found["seen"]["mmio write"] if w[1] == target.device.physical]
    [read] = [r[1:] for r in found["seen"]["mmio read"] if r[1] == target.device.physical]
    physical, virtual = target.device.physical, target.device.virtual
    assert write == [physical, virtual, 4, WRITTEN]
    assert read == [physical, virtual, 4, kept]
    assert found["results"][2] == kept ^ TURNED_READ


@pytest.mark.parametrize("arch", EVERY)
def test_unassigned_io(arch: str) -> None:
    found, target = everything(arch), TARGETS[arch]
    nothing, results = target.nothing.physical, found["results"]
    assert [r[1:] for r in found["seen"]["read"]] == [
        [nothing, 1],
        [nothing + 4, 4],
        [target.beside.physical, 4],
        [nothing + 24, 2],
        *([[nothing + 32, 8]] if bits(arch) == 64 else []),
        *([[nothing + 42, 2], [nothing + 44, 2]] if arch in UNALIGNED else []),
        [nothing + 16, 4],
    ]
    assert [w[1:] for w in found["seen"]["write"]] == [[nothing + 8, 4, WRITE_NOTHING]]
    assert results[3:7] == [NOTHING[1], NOTHING[4], 1, NOTHING[4]]
    assert results[11] == NOTHING[2]
    if bits(arch) == 64:
        assert results[12] == NOTHING[8]
    if arch in UNALIGNED:
        assert results[16] == NOTHING[2] << 16 | NOTHING[2]
    # What nobody wants to answer is a fault, or a zero where the CPU has none.
    assert results[7] == (0x77 if target.faults else 0)
    last = found["seen"]["read"][-1][0]
    faults = [pc for pc, _ in found["seen"].get("fault", [])]
    assert (last in faults) == target.faults
    assert len(faults) == target.faults + (arch in ARM)
    # It is an access to device memory, too: seen there with the value it got.
    reads = {r[1]: r[4] for r in found["seen"]["mmio read"]}
    assert reads[nothing + 4] == NOTHING[4]


@pytest.mark.parametrize("arch", EVERY)
def test_asid(arch: str) -> None:
    found, mask = everything(arch), TARGETS[arch].asid_mask
    # The guest of mips writes it too, for its user program.
    changes, results = found["seen"]["asid"][:3], found["results"]
    first, vetoed, last = results[8:11]
    # As the register has it; the second write was dropped.
    assert first == vetoed != last
    assert [new for _, new, _ in changes][::2] == [first & mask, last & mask]
    assert changes[1][1] not in (first & mask, last & mask)
    assert [old for old, _, _ in changes] == [last & mask, first & mask, first & mask]
    assert all(old == current for old, _, current in changes)


@pytest.mark.parametrize("arch", EVERY)
def test_exceptions(arch: str) -> None:
    """Half of the system calls are made by the callback, the guest's kernel makes the others."""
    count = everything(arch)["count"]
    assert count["calls"] == CALLS + 1
    assert count["emulated"] == CALLS // 2
    kinds = [n for name, n in count.items() if name.startswith("call ")]
    assert kinds == [CALLS + 1]
    interrupts = everything(arch)["ticks"]
    assert count["trap"] == interrupts + CALLS // 2 + 1


@pytest.mark.parametrize("arch", EVERY)
def test_execution_loop(arch: str) -> None:
    count = everything(arch)["count"]
    assert abs(count["enter"] - count["leave"]) <= 1
    # The squashed exceptions leave it, and the guest sleeps between the ticks.
    assert count["leave"] >= CALLS // 2
    assert count["ran"] >= CALLS // 2


@pytest.mark.parametrize("arch", X86)
def test_interrupts(arch: str) -> None:
    found = everything(arch)
    interrupts = {n: c for n, c in found["count"].items() if n.startswith("interrupt")}
    assert interrupts == {"interrupt 0x20": found["ticks"]}


# ---- what a result changes, and the guest finds wrong ----


def case_rewritten(arch: str) -> tuple[str, list[int]]:
    """The tenth system call becomes another exception; the first that differs decides."""
    guest = Guest(arch)
    panda = guest.panda
    seen: list[int] = []
    # Undefined instruction; of aarch64, whose guest looks at another register to
    # tell such traps apart: an interrupt.
    other = {"i386": 6, "x86_64": 6, "arm": 1, "aarch64": 5, "riscv64": 2}.get(arch, 0)
    if arch.startswith("mips"):
        other = 20
    if arch.startswith("ppc"):
        other = 7

    @panda.cb_before_handle_exception(name="first", enabled=False)
    def first(cpu: Any, index: int) -> int | None:
        if panda.in_kernel(cpu):
            return index
        seen.append(index)
        return other if len(seen) == 10 else None

    @panda.cb_before_handle_exception(name="second", enabled=False)
    def second(cpu: Any, index: int) -> int:
        return -1 if len(seen) == 10 and index == seen[-1] else index

    guest.enabled = ["first", "second"]
    return guest.run()[1], seen


@pytest.mark.parametrize("arch", EVERY)
def test_rewritten_exception(arch: str) -> None:
    text, seen = run_case(case_rewritten, arch, timeout=60)
    assert text.splitlines()[-1] == "FAIL trap"
    assert len(set(seen[:10])) == 1
    # x86 lets no program raise that one: a fault of its own follows.
    assert seen[10:] == ([13] if arch in X86 else [])


def case_interrupt(arch: str, vector: int) -> dict[str, Any]:
    guest = Guest(arch)
    panda = guest.panda
    seen: list[int] = []

    @panda.cb_before_handle_interrupt(enabled=False)
    def interrupt(cpu: Any, number: int) -> int:
        seen.append(number)
        threading.Timer(0.2, panda.end_analysis).start()
        return vector

    @panda.cb_before_handle_interrupt(enabled=False)
    def second(cpu: Any, number: int) -> int:
        return 0x22

    guest.enabled = ["interrupt", "second"]
    text = guest.run()[1]
    return {"text": text, "seen": seen, "counter": guest.word(guest.symbols["counter"])}


@pytest.mark.parametrize("arch", X86)
def test_rewritten_interrupt(arch: str) -> None:
    found = run_case(case_interrupt, arch, 0x21, timeout=60)
    assert found["text"].splitlines()[-1] == "FAIL trap"
    assert found["seen"] == [0x20]
    # Dropped: the guest does not see it, and the controller waits for its end.
    found = run_case(case_interrupt, arch, -1, timeout=60)
    assert found["text"].splitlines()[-1] == "branches ok"
    assert found["seen"] == [0x20]
    assert found["counter"] == 0


def case_set_pc(arch: str) -> dict[str, Any]:
    """A hypercall's callback that goes elsewhere, and one that leaves the block."""
    text = f"hypercall {HANDLED}, 1\nconst 2\nsave 0\nhypercall {IGNORED}, 3\nsave 1\nback"
    guest = Guest(arch, text)
    panda = guest.panda
    found: dict[str, Any] = {"calls": []}

    @panda.cb_guest_hypercall(enabled=False)
    def hypercall(cpu: Any) -> bool:
        magic = panda.arch.get_reg(cpu, guest.target.magic)
        found["calls"].append(magic)
        if magic == HANDLED:
            try:
                panda.arch.set_pc(cpu, guest.symbols["self_test_timer"])
            except StateError as error:
                found["error"] = str(error)
                panda.end_analysis()
        return magic == HANDLED

    guest.enabled = ["hypercall"]
    guest.run()
    found["results"] = [guest.word(guest.results + 8 * n) for n in range(2)]
    return found


@pytest.mark.parametrize("arch", EVERY)
def test_hypercall_that_goes_elsewhere(arch: str) -> None:
    found = run_case(case_set_pc, arch, timeout=60)
    assert found["calls"][:1] == [HANDLED]
    assert found["results"][0] == (2 if arch in X86 else 0)
    if arch in X86:
        assert "in the middle of an instruction" in found["error"]


def case_requests(arch: str) -> dict[str, Any]:
    """Hypercalls whose callbacks want the block to be left: each comes once."""
    text = f"hypercall {HANDLED}, 1\nsave 0\nhypercall {IGNORED}, 3\nsave 1\nback"
    guest = Guest(arch, text)
    panda = guest.panda
    found: dict[str, Any] = {"calls": [], "instructions": 0}

    @panda.cb_guest_hypercall(enabled=False)
    def hypercall(cpu: Any) -> bool:
        magic = panda.arch.get_reg(cpu, guest.target.magic)
        found["calls"].append([magic, panda.arch.get_reg(cpu, guest.target.value)])
        if magic == HANDLED:
            panda.exit_cpu_loop()
        else:
            panda.break_exec()
        # It takes effect nevertheless, and other callbacks may come and go.
        panda.flush_tb()
        # An undefined instruction would end the guest.
        return magic == HANDLED or arch in ARM

    @panda.cb_insn_translate(enabled=False)
    def select(cpu: Any, pc: int) -> bool:
        return pc in range(guest.begin, guest.begin + len(guest.code))

    @panda.cb_insn_exec(enabled=False)
    def instruction(cpu: Any, pc: int) -> None:
        found["instructions"] += 1

    guest.enabled = ["hypercall", "select", "instruction"]
    found["text"] = guest.run()[1]
    return found


@pytest.mark.parametrize("arch", EVERY)
def test_hypercall_that_leaves_the_block(arch: str) -> None:
    found = run_case(case_requests, arch, timeout=60)
    assert found["calls"] == [[HANDLED, 1], [IGNORED, 3]]
    assert found["text"].splitlines()[-1] == "done"
    assert 9 <= found["instructions"] <= 20


# ---- hypercalls in odd places ----

#: Code, and the magic numbers and offsets of the hypercalls that are to be seen.
ODD_PLACES: dict[str, tuple[str, list[list[int]]]] = {
    # T32 code: one that runs, one whose condition does not hold, one that is a
    # hypercall's second half.
    "arm": (
        f"""
            add     r1, pc, #1
            bx      r1
            .thumb
            movw    r7, #{HANDLED}
            movs    r0, #1
            .inst.w 0xee000710
            cmp     r0, r0
            itt     ne
            movne   r0, #0
            .inst.w 0xee000710
            movw    r1, #0x0710
            ldr     r1, =RESULTS
            str     r0, [r1]
            bx      lr
            .ltorg
            .arm
        """,
        [[HANDLED, 14]],
    ),
    # Two bytes on a page and two on the next.
    "riscv64": (
        f"""
            li      a7, {HANDLED}
            li      a0, 1
            li      t0, RESULTS - 0x2000 + 4094
            jr      t0
            .org    4094
            slti    x0, x0, 0
            save    0
            back
        """,
        [[HANDLED, 4094]],
    ),
    # In the delay slot of the return.
    "mips": (
        f"""
            place_in $t0, RESULTS
            li      $t1, 0xcafe
            sw      $t1, ($t0)
            li      $v0, {HANDLED}
            jr      $ra
            movz    $zero, $t0, $t1
            sw      $zero, ($t0)
        """,
        [[HANDLED, 24]],
    ),
}


def case_odd_places(arch: str) -> dict[str, Any]:
    guest = Guest(arch, ODD_PLACES[arch][0])
    panda = guest.panda
    calls: list[list[int]] = []

    @panda.cb_guest_hypercall(enabled=False)
    def hypercall(cpu: Any) -> bool:
        magic = panda.arch.get_reg(cpu, guest.target.magic)
        calls.append([magic, panda.current_pc(cpu) - guest.begin])
        panda.arch.set_reg(cpu, guest.target.value, 0xCAFE)
        return True

    guest.enabled = ["hypercall"]
    text = guest.run()[1]
    return {"calls": calls, "text": text, "result": guest.word(guest.results)}


@pytest.mark.parametrize("arch", ODD_PLACES)
def test_hypercalls_in_odd_places(arch: str) -> None:
    found = run_case(case_odd_places, arch, timeout=60)
    assert found["calls"] == ODD_PLACES[arch][1]
    assert found["result"] == 0xCAFE
    assert found["text"].splitlines()[-1] == "done"


# ---- an exception in a delay slot that is a block of its own ----


def case_delay_slot(arch: str) -> list[int]:
    text = """
            place_in $t0, RESULTS - 0x2000 + 4092
            jr      $t0
            nop
            .org    4092
            b       1f
            break
        1:  back
    """
    guest = Guest(arch, text)
    panda = guest.panda
    found: list[int] = []

    @panda.cb_before_block_exec(enabled=False)
    def block(cpu: Any, tb: Any) -> None:
        if tb.pc == guest.symbols["trap_entry"]:
            cause = panda.arch.get_reg(cpu, "CP0_CAUSE")
            found[:] = [panda.arch.get_reg(cpu, "CP0_EPC") - guest.begin, cause >> 31]

    guest.enabled = ["block"]
    assert guest.run()[1].splitlines()[-1] == "FAIL trap"
    return found


@pytest.mark.parametrize("arch", [arch for arch in EVERY if arch.startswith("mips")])
def test_exception_in_a_delay_slot(arch: str) -> None:
    """The branch is on one page, its slot on the next: the handler is told of the branch."""
    assert run_case(case_delay_slot, arch, timeout=60) == [4092, 1]
