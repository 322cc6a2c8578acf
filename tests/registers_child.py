"""Guests of test_registers_guest.py: each runs in a process of its own.

A bare machine has no firmware and no operating system: its CPU is put into flat
32-bit mode by writing its registers, and runs machine code the test has put into
its memory.

    registers_child.py SCENARIO ARCH
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections import Counter
from ctypes import c_uint8
from typing import Any, Callable

from pandalite import Panda
from pandalite._bindings.structs import PandaSegment
from pandalite.errors import StateError

CODE = 0x1000
DATA = 0x8000
STACK = 0x9000

CF, PF, AF, ZF, SF, DF, OF = 1, 4, 0x10, 0x40, 0x80, 0x400, 0x800
ARITHMETIC = CF | PF | AF | ZF | SF | OF
LAZY = ARITHMETIC | DF
FULL = 0xFFFFFFFF

EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)
#: The registers test code works on: all but the stack pointer.
WORK = (EAX, ECX, EDX, EBX, EBP, ESI, EDI)


def write_segment(panda: Panda, name: str, segment: PandaSegment) -> None:
    """Load a segment register with everything it has."""
    lib = panda.lib
    number = lib.panda_register_id(name.encode())
    data = (c_uint8 * 24).from_buffer_copy(segment)
    status = lib.panda_register_write(panda.cpu, number, data, 24)
    assert status == 0, lib.panda_last_error()


def bare_machine(arch: str, code: bytes) -> Panda:
    """A machine that executes ``code`` in flat 32-bit mode, then nothing."""
    panda = Panda(arch=arch, mem="16M", extra_args="-nodefaults -display none")

    @panda.cb_after_machine_init
    def prepare(cpu: Any) -> None:
        panda.physical_memory_write(CODE, code + b"\xf4\xeb\xfd")  # hlt; jmp .-1
        panda.arch.set_reg(cpu, "CR0", panda.arch.get_reg(cpu, "CR0") | 1)
        write_segment(panda, "CS", PandaSegment(8, FULL, 0, 0xCF9B00))
        for name in ("SS", "DS", "ES", "FS", "GS"):
            write_segment(panda, name, PandaSegment(16, FULL, 0, 0xCF9300))
        panda.arch.set_pc(cpu, CODE)
        assert panda.arch.get_pc(cpu) == CODE

    return panda


def pause(panda: Panda) -> None:
    """Stop the guest and wait until it has stopped."""
    panda.vm_stop()
    # The monitor answers in the main loop, after the stop has been served.
    assert "paused" in panda.run_monitor_cmd("info status")


def run_to(panda: Panda, end: int, at_end: Callable[[Any], None] | None = None) -> Counter[int]:
    """Run until the instruction at ``end``; returns how often each insn_exec came."""
    seen: Counter[int] = Counter()

    @panda.cb_insn_translate
    def every(cpu: Any, pc: int) -> bool:
        return CODE <= pc < CODE + 0x1000

    @panda.cb_insn_exec
    def count(cpu: Any, pc: int) -> None:
        seen[pc] += 1
        if pc == end:
            if at_end:
                at_end(cpu)
            panda.end_analysis()

    panda.run()
    assert seen.pop(end) >= 1
    return seen


# ---- a model of some instructions, written from the manual ----


def parity(value: int) -> int:
    return PF if bin(value & 0xFF).count("1") % 2 == 0 else 0


class Model:
    """The registers and flags test code should have."""

    def __init__(self) -> None:
        self.regs = [0] * 8
        self.flags = 0
        #: Flags the manual leaves undefined.
        self.unknown = 0
        self.memory = 0

    def result(self, value: int, flags: int, unknown: int = 0, keep: int = 0) -> int:
        value &= FULL
        flags |= parity(value) | (0 if value else ZF) | (SF if value >> 31 else 0)
        keep |= DF
        self.flags = self.flags & keep | flags & ~keep
        self.unknown = self.unknown & keep | unknown
        return value

    def add(self, a: int, b: int, carry: int = 0, keep: int = 0) -> int:
        total = a + b + carry
        flags = CF if total > FULL else 0
        flags |= AF if (a & 15) + (b & 15) + carry > 15 else 0
        flags |= OF if ~(a ^ b) & (a ^ total) & 1 << 31 else 0
        return self.result(total, flags, keep=keep)

    def sub(self, a: int, b: int, carry: int = 0, keep: int = 0) -> int:
        total = a - b - carry
        flags = CF if total < 0 else 0
        flags |= AF if (a & 15) - (b & 15) - carry < 0 else 0
        flags |= OF if (a ^ b) & (a ^ total) & 1 << 31 else 0
        return self.result(total, flags, keep=keep)

    def shift(self, kind: int, a: int, count: int) -> int:
        if kind == 4:
            total, last = a << count, a >> (32 - count) & 1
        else:
            signed = a - (1 << 32) if kind == 7 and a >> 31 else a
            total, last = signed >> count, signed >> (count - 1) & 1
        return self.result(total, CF if last else 0, unknown=AF | OF)


def register_op(op: int, dst: int, src: int) -> tuple[bytes, Callable[[Model], None]]:
    """``op dst, src`` by the opcode's /r form."""

    def run(m: Model) -> None:
        a, b, carry = m.regs[dst], m.regs[src], m.flags & CF
        if op == 0x01:
            m.regs[dst] = m.add(a, b)
        elif op == 0x11:
            m.regs[dst] = m.add(a, b, carry)
        elif op == 0x19:
            m.regs[dst] = m.sub(a, b, carry)
        elif op == 0x29:
            m.regs[dst] = m.sub(a, b)
        elif op == 0x39:
            m.sub(a, b)
        elif op == 0x09:
            m.regs[dst] = m.result(a | b, 0, unknown=AF)
        elif op == 0x21:
            m.regs[dst] = m.result(a & b, 0, unknown=AF)
        elif op == 0x31:
            m.regs[dst] = m.result(a ^ b, 0, unknown=AF)
        else:
            assert op == 0x85
            m.result(a & b, 0, unknown=AF)

    return bytes([op, 0xC0 | src << 3 | dst]), run


def single_op(kind: str, dst: int) -> tuple[bytes, Callable[[Model], None]]:
    """Instructions with one register operand."""

    def run(m: Model) -> None:
        a = m.regs[dst]
        if kind == "inc":
            m.regs[dst] = m.add(a, 1, keep=CF)
        elif kind == "dec":
            m.regs[dst] = m.sub(a, 1, keep=CF)
        else:
            m.regs[dst] = m.sub(0, a)

    code = {"inc": [0x40 + dst], "dec": [0x48 + dst], "neg": [0xF7, 0xD8 + dst]}
    return bytes(code[kind]), run


def shift_op(kind: int, dst: int, count: int) -> tuple[bytes, Callable[[Model], None]]:
    def run(m: Model) -> None:
        m.regs[dst] = m.shift(kind, m.regs[dst], count)

    return bytes([0xC1, 0xC0 | kind << 3 | dst, count]), run


def flag_op(code: int) -> tuple[bytes, Callable[[Model], None]]:
    def run(m: Model) -> None:
        if code == 0xF5:
            m.flags ^= CF
        elif code in (0xF8, 0xF9):
            m.flags = m.flags & ~CF | code & 1
        else:
            m.flags = m.flags & ~DF | (DF if code == 0xFD else 0)

    return bytes([code]), run


def memory_op(op: int, reg: int) -> tuple[bytes, Callable[[Model], None]]:
    """``mov`` to and from, and ``add`` to, the word at DATA."""

    def run(m: Model) -> None:
        if op == 0x89:
            m.memory = m.regs[reg]
        elif op == 0x8B:
            m.regs[reg] = m.memory
        else:
            m.memory = m.add(m.memory, m.regs[reg])

    return bytes([op, reg << 3 | 5]) + DATA.to_bytes(4, "little"), run


def random_instruction(chance: random.Random) -> tuple[bytes, Callable[[Model], None]]:
    dst, src = chance.choice(WORK), chance.choice(WORK)
    kind = chance.randrange(10)
    if kind < 4:
        ops = (0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39, 0x85)
        return register_op(chance.choice(ops), dst, src)
    if kind < 6:
        return single_op(chance.choice(("inc", "dec", "neg")), dst)
    if kind < 7:
        return shift_op(chance.choice((4, 5, 7)), dst, chance.randrange(1, 32))
    if kind < 8:
        return flag_op(chance.choice((0xF5, 0xF8, 0xF9, 0xFC, 0xFD)))
    return memory_op(chance.choice((0x01, 0x89, 0x8B)), dst)


# ---- scenarios ----


def flags_and_registers(arch: str) -> None:
    """Every instruction of random code: registers and flags read, and sometimes written."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    program = [random_instruction(chance) for _ in range(450)]
    places: dict[int, int] = {}
    code = b""
    for number, (text, _run) in enumerate(program):
        places[CODE + len(code)] = number
        code += text
    end = CODE + len(code)
    panda = bare_machine(arch, code)
    names = ("EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI")
    model = Model()
    before = Model()
    checks: Counter[str] = Counter()
    written: Counter[str] = Counter()

    def check(cpu: Any, wanted: Model, where: str) -> None:
        checks[where] += 1
        flags = panda.arch.get_reg(cpu, "EFLAGS")
        known = LAZY & ~wanted.unknown
        assert flags & known == wanted.flags & known, (
            f"{where}: {flags:#x} instead of {wanted.flags:#x}"
        )

    def copy(to: Model) -> None:
        to.flags, to.unknown = model.flags, model.unknown

    @panda.cb_insn_translate
    def every(cpu: Any, pc: int) -> bool:
        return pc in places or pc == end

    @panda.cb_after_insn_translate
    def every_after(cpu: Any, pc: int) -> bool:
        return CODE < pc <= end

    @panda.cb_insn_exec
    def step(cpu: Any, pc: int) -> None:
        assert pc == panda.arch.get_pc(cpu) == panda.current_pc(cpu) == cpu.env_ptr.eip
        assert pc == panda.arch.get_reg(cpu, "EIP")
        if pc == CODE:
            for number in WORK:
                model.regs[number] = chance.getrandbits(32)
                panda.arch.set_reg(cpu, names[number], model.regs[number])
            flags = panda.arch.get_reg(cpu, "EFLAGS")
            model.flags, model.unknown = flags & LAZY, 0
        check(cpu, model, f"insn_exec of {pc:#x}")
        assert [panda.arch.get_reg(cpu, n) for n in names] == [
            FULL & value if number in WORK else cpu.env_ptr.regs[ESP]
            for number, value in enumerate(model.regs)
        ]
        if pc == end:
            panda.end_analysis()
            return
        if chance.random() < 0.25:
            number = chance.choice(WORK)
            model.regs[number] = chance.getrandbits(32)
            panda.arch.set_reg(cpu, number, model.regs[number])
            written["general"] += 1
        if chance.random() < 0.25:
            model.flags, model.unknown = chance.getrandbits(12) & LAZY, 0
            panda.arch.set_reg(cpu, "EFLAGS", model.flags)
            check(cpu, model, "what was just written")
            written["flags"] += 1
        copy(before)
        program[places[pc]][1](model)

    @panda.cb_after_insn_exec
    def stepped(cpu: Any, pc: int) -> None:
        check(cpu, model, "after_insn_exec")

    def access(cpu: Any, pc: int, addr: int, size: int) -> None:
        if addr == DATA:
            assert panda.arch.get_pc(cpu) == pc
            check(cpu, before, "before an access")

    def accessed(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        if addr == DATA:
            check(cpu, before, "after an access")

    panda.cb_virt_mem_before_read(name="r1")(access)
    panda.cb_virt_mem_after_read(name="r2")(accessed)
    panda.cb_virt_mem_before_write(name="w1")(accessed)
    panda.cb_virt_mem_after_write(name="w2")(accessed)
    panda.enable_memcb()

    panda.run()
    exact = [checks[f"insn_exec of {pc:#x}"] for pc in places]
    assert exact == [1] * len(exact), "every instruction is met exactly once"
    assert checks["after_insn_exec"] > 0.5 * len(program)
    assert checks["before an access"] > 20 and checks["after an access"] > 20
    assert written["general"] > 50 and written["flags"] > 50
    assert panda.physical_memory_read(DATA, 4, fmt="int") == model.memory


def block_events(arch: str) -> None:
    """Flags read and written where blocks begin and end."""
    # cmp eax,eax; jnz +5; mov ebx,1; jc +5; mov ecx,1; jmp .+0; nop
    code = bytes.fromhex("39c0 7505 bb01000000 7205 b901000000 eb00 90")
    panda = bare_machine(arch, code)
    log: list[tuple[str, int, int]] = []

    @panda.cb_before_block_exec
    def begins(cpu: Any, tb: Any) -> None:
        assert panda.arch.get_pc(cpu) == tb.pc == cpu.env_ptr.eip
        flags = panda.arch.get_reg(cpu, "EFLAGS")
        log.append(("begin", tb.pc, flags))
        if tb.pc == CODE + 4:
            # Taken as it was ZF; the next branch depends on this carry.
            panda.arch.set_reg(cpu, "EFLAGS", flags | CF)
            assert panda.arch.get_reg(cpu, "EFLAGS") == flags | CF

    @panda.cb_end_block_exec
    def ends(cpu: Any, tb: Any) -> None:
        log.append(("end", tb.pc, panda.arch.get_reg(cpu, "EFLAGS")))

    def at_end(cpu: Any) -> None:
        assert panda.arch.get_reg(cpu, "EBX") == 1, "jnz was not taken"
        assert panda.arch.get_reg(cpu, "ECX") == 0, "jc was taken"

    run_to(panda, CODE + len(code), at_end)
    begun = [entry for entry in log if entry[0] == "begin"]
    assert [pc for _, pc, _ in begun].count(CODE + 4) == 1, "not asked twice"
    assert begun[1][1:] == (CODE + 4, 2 | ZF | PF)
    ended = {pc: flags for what, pc, flags in log if what == "end"}
    assert ended[CODE] == 2 | ZF | PF
    assert ended[CODE + 4] == 2 | ZF | PF | CF


def change_course(arch: str) -> None:
    """Set the pc in insn_exec, in before_block_exec and beside a memory access."""
    # 1000: mov eax,1; 1005: mov ecx,1; 100a: jmp 100c; 100c: mov edx,1; 1011: nop
    # 1012: mov [8000],eax; 1017: mov ebx,1; 101c: nop
    code = bytes.fromhex(
        "b801000000 b901000000 eb00 ba01000000 90 a300800000 bb01000000 90".replace(" ", "")
    )
    panda = bare_machine(arch, code)

    @panda.cb_insn_exec
    def skip(cpu: Any, pc: int) -> None:
        if pc == CODE + 5:
            panda.arch.set_pc(cpu, CODE + 10)
            assert panda.arch.get_pc(cpu) == CODE + 10
            assert panda.arch.get_reg(cpu, "EIP") == CODE + 10

    @panda.cb_before_block_exec
    def skip_block(cpu: Any, tb: Any) -> None:
        if tb.pc == CODE + 12:
            panda.arch.set_reg(cpu, "PC", CODE + 17)

    @panda.cb_virt_mem_before_write
    def skip_write(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        if addr == DATA:
            panda.arch.set_pc(cpu, CODE + 28)

    panda.enable_memcb()

    def at_end(cpu: Any) -> None:
        values = [panda.arch.get_reg(cpu, name) for name in ("EAX", "ECX", "EBX")]
        # The CPU's identification is in EDX after a reset.
        assert values == [1, 0, 0]
        assert panda.arch.get_reg(cpu, "EDX") != 1
        assert panda.physical_memory_read(DATA, 4, fmt="int") == 0

    run_to(panda, CODE + len(code), at_end)


def mode_registers(arch: str) -> None:
    """The guest sees control, segment and vector registers as they were written."""
    # nop; mov eax,cr3; mov ecx,cr0; mov edx,cr4; mov ebx,fs:[0]; movups [8010],xmm1
    # mov ebp,cr2; nop
    code = bytes.fromhex(
        "90 0f20d8 0f20c1 0f20e2 648b1d00000000 0f110d10800000 0f20d5 90".replace(" ", "")
    )
    panda = bare_machine(arch, code)
    vector = 0x00112233445566778899AABBCCDDEEFF

    @panda.cb_insn_exec
    def write(cpu: Any, pc: int) -> None:
        if pc == CODE:
            arch_ = panda.arch
            for name, value in (("CR3", 0x5000), ("CR4", 0x200), ("CR2", 0xABCD000)):
                arch_.set_reg(cpu, name, value)
                assert arch_.get_reg(cpu, name) == value
            assert panda.current_asid(cpu) == 0x5000
            arch_.set_reg(cpu, "CR0", arch_.get_reg(cpu, "CR0") | 0x10020)
            panda.physical_memory_write(DATA + 0x100, b"\x78\x56\x34\x12")
            arch_.set_reg(cpu, "FS", DATA + 0x100)
            assert arch_.get_reg(cpu, "FS") == DATA + 0x100 == cpu.env_ptr.segs[4].base
            arch_.set_reg(cpu, "XMM1", vector)
            assert arch_.get_reg(cpu, "XMM1") == vector
            arch_.set_reg(cpu, "GDT", (0, 0x7000, 0x1F, 0))
            assert arch_.get_reg(cpu, "GDT") == (0, 0x7000, 0x1F, 0)
            assert cpu.env_ptr.gdt.base == 0x7000
            for name in ("DR0", "DR3", "SYSENTER_ESP", "STAR"):
                arch_.set_reg(cpu, name, 0x1234)
                assert arch_.get_reg(cpu, name) == 0x1234

    def at_end(cpu: Any) -> None:
        assert panda.arch.get_reg(cpu, "EAX") == 0x5000
        assert panda.arch.get_reg(cpu, "ECX") & 0x10021 == 0x10021
        assert panda.arch.get_reg(cpu, "EDX") == 0x200
        assert panda.arch.get_reg(cpu, "EBX") == 0x12345678
        assert panda.arch.get_reg(cpu, "EBP") == 0xABCD000
        stored = panda.physical_memory_read(DATA + 0x10, 16)
        assert int.from_bytes(stored, "little") == vector

    seen = run_to(panda, CODE + len(code), at_end)
    assert set(seen.values()) == {1}, "no instruction was met twice"


def refusals(arch: str) -> None:
    """What cannot be written where: an error that says what to do, and the guest goes on."""
    # mov [8000],eax; nop; spin: jmp spin
    code = bytes.fromhex("a300800000 90 ebfe".replace(" ", ""))
    panda = bare_machine(arch, code)
    errors: dict[str, str] = {}

    def attempt(where: str, action: Callable[[], None]) -> None:
        try:
            action()
        except StateError as error:
            errors[where] = str(error)

    @panda.cb_insn_translate
    def translate(cpu: Any, pc: int) -> bool:
        attempt("translate pc", lambda: panda.arch.set_pc(cpu, CODE))
        attempt("translate XMM0", lambda: panda.arch.set_reg(cpu, "XMM0", 1))
        return False

    @panda.cb_virt_mem_before_write
    def access(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        if addr == DATA:
            attempt("access flags", lambda: panda.arch.set_reg(cpu, "EFLAGS", 0))
            panda.arch.set_reg(cpu, "XMM0", 1)

    panda.enable_memcb()

    @panda.queue_blocking
    def work() -> None:
        while panda.physical_memory_read(CODE, 1) != b"\xa3" or not errors.get("access flags"):
            time.sleep(0.01)
        attempt("thread CR3", lambda: panda.arch.set_reg(panda.cpu, "CR3", 0))
        attempt("thread pc", lambda: panda.arch.set_pc(panda.cpu, CODE))
        pause(panda)
        assert panda.arch.get_pc(panda.cpu) == CODE + 6
        panda.arch.set_reg(panda.cpu, "EFLAGS", 0x2 | CF | DF)
        assert panda.arch.get_reg(panda.cpu, "EFLAGS") == 2 | CF | DF
        panda.arch.set_reg(panda.cpu, "XMM3", 5)
        panda.cont()
        time.sleep(0.05)
        pause(panda)
        assert panda.arch.get_reg(panda.cpu, "EFLAGS") == 2 | CF | DF
        assert panda.arch.get_reg(panda.cpu, "XMM3") == 5
        panda.end_analysis()

    panda.run()
    assert "being translated" in errors["translate pc"]
    assert "being translated" in errors["translate XMM0"]
    assert "EFLAGS cannot be written in the middle of an instruction" in errors["access flags"]
    assert "CR3 cannot be written from this thread" in errors["thread CR3"]
    assert "the program counter cannot be written from this thread" in errors["thread pc"]


def before_the_first_instruction(arch: str) -> None:
    """General registers can be read and written in after_machine_init."""
    panda = bare_machine(arch, b"\x90")

    @panda.cb_after_machine_init
    def set_a_register(cpu: Any) -> None:
        panda.arch.set_reg(cpu, "EBX", 0x1234)
        assert panda.arch.get_reg(cpu, "BX") == 0x1234

    def at_end(cpu: Any) -> None:
        assert panda.arch.get_reg(cpu, "EBX") == 0x1234

    run_to(panda, CODE + 1, at_end)


def parse_registers(text: str) -> dict[str, int | tuple[int, int, int, int]]:
    """Make sense of the monitor's ``info registers``."""
    values: dict[str, int | tuple[int, int, int, int]] = {}
    number = "([0-9a-f]+)"
    for name, value in re.findall(rf"\b([A-Z0-9]{{2,4}}) ?={number}(?![0-9a-f ])", text):
        values[name] = int(value, 16)
    for name, value in re.findall(rf"\b([A-Z][A-Z0-9]{{1,3}}) ?={number}\b", text):
        values.setdefault(name, int(value, 16))
    for name, *rest in re.findall(
        rf"^(ES|CS|SS|DS|FS|GS|LDT|TR) *={number} {number} {number} {number}", text, re.M
    ):
        selector, base, limit, flags = (int(word, 16) for word in rest)
        values[name] = (selector, base, limit, flags)
    for name, base, limit in re.findall(rf"^(GDT|IDT) *= *{number} {number}", text, re.M):
        values[name] = (0, int(base, 16), int(limit, 16), 0)
    for name, high, low in re.findall(rf"XMM(\d+)={number} {number}", text):
        values[f"XMM{int(name)}"] = int(high + low, 16)
    for name, value in re.findall(r"XMM(\d+)=([0-9a-f]{32})", text):
        values[f"XMM{int(name)}"] = int(value, 16)
    return values


def against_the_monitor(arch: str) -> None:
    """A stopped Linux guest: everything as ``info registers`` says."""
    panda = Panda(generic=arch)
    compared: Counter[str] = Counter()

    def compare() -> None:
        cpu = panda.cpu
        text = panda.run_monitor_cmd("info registers")
        said = parse_registers(text)
        names = [*panda.arch.registers, "XMM0", "XMM1", "XMM7", "CR0", "CR2", "CR3", "CR4"]
        names += ["DR0", "DR3", "DR6", "DR7", "EFER", "LDT", "TR", "GDT", "IDT"]
        if arch == "x86_64":
            names += ["XMM15", "RIP"]
        else:
            names += ["EIP"]
        for name in names:
            shown = "R8" if name == "R08" else name
            value = said[shown]
            got = panda.arch.get_reg(cpu, name)
            if name in ("GDT", "IDT"):
                got = (0, got[1], got[2], 0)
            elif name in ("LDT", "TR"):
                # Bits of the base and limit are left in the flags; not shown.
                got = (*got[:3], got[3] & 0xF0FF00)
            assert got == value, f"{name}: {got!r}, the monitor says {value!r}\n{text}"
            compared[name] += 1
        flags = said["RFL" if arch == "x86_64" else "EFL"]
        assert panda.arch.get_reg(cpu, "EFLAGS") == flags, text
        for name in ("ES", "CS", "SS", "DS", "FS", "GS"):
            segment = said[name]
            assert isinstance(segment, tuple)
            assert panda.arch.get_reg(cpu, name) == segment[1], text
        match = re.search(r"CPL=(\d)", text)
        assert match
        assert panda.in_kernel(cpu) == (match[1] == "0")
        assert panda.current_asid(cpu) == said["CR3"]
        assert panda.current_sp(cpu) == said["RSP" if arch == "x86_64" else "ESP"]

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        panda.run_serial_cmd("(while :; do :; done) &")
        for _ in range(20):
            time.sleep(0.02)
            pause(panda)
            compare()
            panda.cont()
        panda.end_analysis()

    panda.run()
    assert compared["CR3"] == 20


def privilege(arch: str) -> None:
    """User and kernel mode of a Linux guest: privilege, stacks, pc."""
    panda = Panda(generic=arch)
    split = 1 << (panda.bits - 1) if panda.bits == 64 else 0xC0000000
    kinds: Counter[str] = Counter()
    bad: list[str] = []

    @panda.cb_before_block_exec(enabled=False)
    def look(cpu: Any, tb: Any) -> None:
        kernel = panda.in_kernel(cpu)
        pc, sp, ksp = panda.current_pc(cpu), panda.current_sp(cpu), panda.current_ksp(cpu)
        assert pc == tb.pc == panda.arch.get_pc(cpu)
        kinds["kernel" if kernel else "user"] += 1
        if kernel != (pc >= split):
            bad.append(f"privilege at {pc:#x}")
        if kernel and ksp != sp:
            bad.append(f"kernel stack at {pc:#x}: {ksp:#x}, {sp:#x}")
        if not kernel and ksp < split:
            bad.append(f"kernel stack at {pc:#x}: {ksp:#x}")
        if not kernel and sp >= split:
            bad.append(f"user stack at {pc:#x}: {sp:#x}")

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        panda.enable_callback("look")
        assert "hello" in panda.run_serial_cmd("echo hello; ls / > /dev/null")
        panda.disable_callback("look")
        panda.end_analysis()

    panda.run()
    assert kinds["kernel"] > 1000 and kinds["user"] > 1000, kinds
    assert not bad, bad[:10]


SCENARIOS: dict[str, Callable[[str], None]] = {
    scenario.__name__: scenario
    for scenario in (
        flags_and_registers,
        block_events,
        change_course,
        mode_registers,
        refusals,
        before_the_first_instruction,
        against_the_monitor,
        privilege,
    )
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](sys.argv[2])
    print("passed")
