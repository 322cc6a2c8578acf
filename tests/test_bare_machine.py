"""Machines without devices: hand-assembled programs of every instruction set."""

from __future__ import annotations

import os
import pty
import select
import time
from typing import Any

import bare_programs as programs
import pytest
from bare_programs import CODE, DATA, STACK
from guest import case_command, run_case

from pandalite import Panda
from pandalite._bindings.arches import ARCHITECTURES

MACHINE = "-M configurable -nographic"


def machine(program: str, extra: str = "", arch: str | None = None) -> Panda:
    """A machine with a program, its data and a stack; the CPU stands at its start."""
    panda = Panda(arch or programs.arch_of(program), extra_args=f"{MACHINE} {extra}")
    width = ARCHITECTURES[programs.arch_of(program)].register_size

    @panda.cb_after_machine_init
    def setup(cpu: Any) -> None:
        panda.map_memory("code", 0x1000, CODE)
        panda.map_memory("data", STACK - DATA, DATA)
        panda.physical_memory_write(CODE, programs.code_of(program))
        panda.physical_memory_write(
            DATA,
            b"".join(v.to_bytes(width, panda.endianness) for v in programs.values(width)),
        )
        restart(panda, program)

    return panda


def restart(panda: Panda, program: str) -> None:
    """Put the CPU at the program's start."""
    cpu = panda.get_cpu()
    panda.arch.set_pc(cpu, CODE | (program == "thumb"))
    narrow = programs.arch_of(program) != panda.arch_name
    panda.arch.set_reg(cpu, "SP" if narrow else panda.arch.reg_sp, STACK)


def results(panda: Panda, program: str) -> dict[str, Any]:
    """What the program has computed."""
    cpu = panda.get_cpu()
    width = panda.register_size
    stored = [DATA + 0x40 + n * width for n in range(programs.WORDS)]
    return {
        "registers": [panda.arch.get_reg(cpu, r) for r in programs.REGISTERS[program]],
        "sums": [
            panda.physical_memory_read(at, width, fmt="int")
            for at in (*stored, DATA + programs.WORDS * width + 0x80)
        ],
    }


def case_program(program: str) -> dict[str, Any]:
    """To the end with callbacks, by count without, and step by step."""
    panda = machine(program)
    want = programs.expected(program, panda.register_size)
    found: dict[str, Any] = {"trace": [], "blocks": [], "ends": [], "accesses": []}

    @panda.cb_insn_translate(name="translate")
    def translate(cpu: Any, pc: int) -> bool:
        return True

    @panda.cb_insn_exec(name="insn")
    def insn(cpu: Any, pc: int) -> int:
        found["trace"].append(pc)
        assert panda.arch.get_pc(cpu) == pc == panda.current_pc(cpu)
        return 0

    @panda.cb_before_block_exec(name="block")
    def block(cpu: Any, tb: Any) -> None:
        found["blocks"].append([tb.pc, tb.size, tb.icount])

    @panda.cb_after_block_exec(name="end")
    def end(cpu: Any, tb: Any, exit_code: int) -> None:
        found["ends"].append([tb.pc, tb.size, tb.icount])

    def access(kind: str, pc: int, addr: int, size: int, buf: Any) -> None:
        value = int.from_bytes(bytes(buf[0:size]), "little")
        found["accesses"].append([pc, kind, addr, size, value])

    @panda.cb_virt_mem_after_read(name="read")
    def read(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        access("r", pc, addr, size, buf)

    @panda.cb_phys_mem_after_write(name="write")
    def write(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        access("w", pc, addr, size, buf)

    ends = [panda.run_until(address=want.end, timeout=30)]
    found["first"] = results(panda, program)
    for name in list(panda.registered_callbacks):
        panda.delete_callback(name)
    panda.physical_memory_write(DATA + 0x40, bytes(0x80))
    restart(panda, program)
    ends.append(panda.run_until(count=len(want.trace), timeout=30))
    found["second"] = results(panda, program)
    restart(panda, program)
    found["steps"] = []
    for _ in want.trace:
        found["steps"].append(panda.arch.get_pc(panda.get_cpu()))
        ends.append(panda.run_until(count=1, timeout=30))
    found["third"] = results(panda, program)
    found["run ends"] = ends
    found["width"] = panda.register_size
    return found


@pytest.mark.parametrize("program", list(programs.PROGRAMS))
def test_program(program: str) -> None:
    found = run_case(case_program, program)
    width = found["width"]
    want = programs.expected(program, width)
    assert found["trace"] == want.trace
    assert found["blocks"] == want.blocks
    assert found["ends"] == want.blocks
    assert found["accesses"] == want.accesses
    assert found["steps"] == want.trace
    address, count, *steps = found["run ends"]
    assert address == ["address", want.end, len(want.trace)]
    assert count == ["count", want.end, len(want.trace)]
    assert steps == [["count", pc, 1] for pc in [*want.trace[1:], want.end]]
    registers = [want.sums[-1], 0, DATA + programs.WORDS * width]
    for run in ("first", "second", "third"):
        assert found[run] == {"registers": registers, "sums": want.sums}


def test_every_architecture_has_a_program() -> None:
    assert {programs.arch_of(p) for p in programs.PROGRAMS} == set(ARCHITECTURES)


# ---- what a program cannot do ----

#: An instruction that no CPU of the family knows, and the exception's name.
UNDEFINED = {
    "x86_64": ("0f0b", "invalid opcode"),
    "i386": ("0f0b", "invalid opcode"),
    "arm": ("f000f0e7", "undefined instruction"),
    "thumb": ("00de", "undefined instruction"),
    "aarch64": ("00000000", "undefined instruction"),
    **dict.fromkeys(("mips", "mips64"), ("ec000000", "reserved instruction")),
    **dict.fromkeys(("mipsel", "mips64el"), ("000000ec", "reserved instruction")),
    **dict.fromkeys(("ppc", "ppc64"), ("00000000", "illegal instruction")),
    "riscv64": ("00000000", "illegal instruction"),
}

#: A call of the system, the exception's name.
CALLS = {
    "x86_64": ("cd80", None),
    "i386": ("cd80", None),
    "arm": ("000000ef", "supervisor call"),
    "thumb": ("00df", "supervisor call"),
    "aarch64": ("010000d4", "supervisor call"),
    **dict.fromkeys(("mips", "mips64"), ("0000000c", "system call")),
    **dict.fromkeys(("mipsel", "mips64el"), ("0c000000", "system call")),
    **dict.fromkeys(("ppc", "ppc64"), ("44000002", "system call")),
    "riscv64": ("73000000", "environment call"),
}

#: Wait for an interrupt.
WAITS = {
    **dict.fromkeys(("x86_64", "i386"), "f4"),
    "arm": "03f020e3",
    "thumb": "30bf",
    "aarch64": "7f2003d5",
    **dict.fromkeys(("mips", "mips64"), "42000020"),
    **dict.fromkeys(("mipsel", "mips64el"), "20000042"),
    "riscv64": "73005010",
}

NOWHERE = 0x900000


def fault_of(panda: Panda, **kwargs: Any) -> dict[str, Any]:
    """Run; the fault it ends with, and where the CPU stands."""
    from pandalite import GuestFault

    try:
        end = panda.run_until(timeout=30, **kwargs)
    except GuestFault as error:
        return {
            **vars(error),
            "text": str(error),
            "at": panda.arch.get_pc(panda.get_cpu()),
        }
    return {"end": end}


def case_faults(program: str) -> dict[str, Any]:
    """All kinds of faults, one after the other, on one machine."""
    panda = machine(program)
    cpu = panda.get_cpu()
    thumb = int(program == "thumb")
    loop = programs.label(program, "loop")
    pointer = programs.REGISTERS[program][2]
    want = programs.expected(program, panda.register_size)
    found: dict[str, Any] = {}
    panda.run_until(count=1, timeout=30)

    panda.arch.set_reg(cpu, pointer, NOWHERE)
    panda.arch.set_pc(cpu, loop | thumb)
    found["read"] = fault_of(panda, count=10)
    # Memory that appears is used: the load, what is between, and the store.
    panda.map_memory("more", 0x1000, NOWHERE)
    found["goes on"] = fault_of(panda, count=3)

    panda.arch.set_reg(cpu, pointer, NOWHERE + 0x1000 - panda.register_size)
    panda.arch.set_pc(cpu, loop | thumb)
    found["write"] = fault_of(panda, count=10)

    panda.arch.set_pc(cpu, NOWHERE - 0x100 | thumb)
    found["fetch"] = fault_of(panda, count=10)

    code = CODE + 0x800
    for kind, table in (("undefined", UNDEFINED), ("call", CALLS)):
        panda.physical_memory_write(code, bytes.fromhex(table[program][0]))
        panda.arch.set_pc(cpu, code | thumb)
        found[kind] = fault_of(panda, count=10)
        found[f"{kind} again"] = fault_of(panda, count=10)

    # The program's last page ends with what is to be executed last.
    first = want.trace[0]
    size = want.trace[1] - first
    panda.physical_memory_write(CODE + 0x1000 - size, panda.physical_memory_read(first, size))
    for kwargs in ({"count": 1}, {"address": CODE + 0x1000}):
        panda.arch.set_pc(cpu, CODE + 0x1000 - size | thumb)
        found[f"edge {next(iter(kwargs))}"] = fault_of(panda, **kwargs)

    if program in WAITS:
        wait = bytes.fromhex(WAITS[program])
        panda.physical_memory_write(code, wait + panda.physical_memory_read(first, size))
        panda.arch.set_pc(cpu, code | thumb)
        panda.run()
        found["run returns"] = panda.arch.get_pc(cpu)
        panda.arch.set_pc(cpu, code | thumb)
        found["wait"] = fault_of(panda, count=10)
        found["after wait"] = fault_of(panda, count=1)
    return found


@pytest.mark.parametrize("program", list(programs.PROGRAMS))
def test_faults(program: str) -> None:
    found = run_case(case_faults, program)
    want = programs.expected(program, ARCHITECTURES[programs.arch_of(program)].register_size)
    loop = programs.label(program, "loop")
    store = want.accesses[1][0]
    width = want.accesses[0][3]

    read = found["read"]
    assert (read["kind"], read["address"], read["size"]) == ("read", NOWHERE, width)
    assert read["pc"] == read["at"] == loop
    assert read["instructions"] == 0
    assert f"{NOWHERE:#x}" in read["text"] and f"{loop:#x}" in read["text"]
    assert found["goes on"]["end"][::2] == ["count", 3]

    write = found["write"]
    assert (write["kind"], write["size"]) == ("write", width)
    assert write["address"] == NOWHERE + 0x1000 - width + 0x40
    assert write["pc"] == write["at"] == store
    assert write["instructions"] == 2

    fetch = found["fetch"]
    assert (fetch["kind"], fetch["instructions"]) == ("fetch", 0)
    assert fetch["pc"] == fetch["at"] == NOWHERE - 0x100

    code = CODE + 0x800
    for kind, (_, name) in (("undefined", UNDEFINED[program]), ("call", CALLS[program])):
        fault = found[kind]
        assert fault["kind"] == "exception"
        assert fault["pc"] == fault["at"] == code
        assert fault["instructions"] == 0
        assert f"exception {fault['exception']}" in fault["text"]
        if name is not None:
            assert f"({name})" in fault["text"]
        # The state is that before it: it happens again, and nothing else.
        assert found[f"{kind} again"] == fault

    assert found["edge count"]["end"] == ["count", CODE + 0x1000, 1]
    assert found["edge address"]["end"] == ["address", CODE + 0x1000, 1]

    if program in WAITS:
        after = code + len(WAITS[program]) // 2
        assert found["run returns"] == after
        assert found["wait"]["end"] == ["halted", after, 1]
        assert found["after wait"]["end"][::2] == ["count", 1]


# ---- scripts as PyPANDA's users write them ----


def case_script(arch: str, code: str, register: str, values: list[int]) -> list[Any]:
    """Set up in after_machine_init, watch each instruction, end in a callback."""
    panda = Panda(arch, extra_args=["-M", "configurable", "-nographic"], raw_monitor=True)
    program = bytes.fromhex(code)
    seen: list[Any] = []

    @panda.cb_after_machine_init
    def setup(cpu: Any) -> None:
        panda.map_memory("mymem", 2 * 1024 * 1024, 0)
        panda.physical_memory_write(0, program)
        panda.arch.set_reg(cpu, register, values[0])
        panda.arch.set_pc(cpu, 0)

    panda.enable_precise_pc()
    panda.cb_insn_translate(lambda cpu, pc: True)

    @panda.cb_insn_exec
    def on_insn(cpu: Any, pc: int) -> int:
        seen.append([pc, panda.arch.get_reg(cpu, register)])
        if pc >= len(program):
            panda.end_analysis()
        return 0

    panda.run()
    return seen


SCRIPTS = {
    "i386": ("4141", "ECX", 1),  # inc ecx; inc ecx
    "x86_64": ("48ffc148ffc1", "RCX", 3),  # inc rcx; inc rcx
    "arm": ("011081e2011081e2", "R1", 4),  # add r1, r1, #1, twice
    "aarch64": ("2104009121040091", "X1", 4),  # add x1, x1, #1, twice
    "mips": ("2508000125080001", "T0", 4),  # addiu $t0, $t0, 1, twice
    "mipsel": ("0100082501000825", "T0", 4),
    "mips64": ("6508000165080001", "A4", 4),  # daddiu $8, $8, 1, twice
    "mips64el": ("0100086501000865", "A4", 4),
    "ppc": ("3863000138630001", "R3", 4),  # addi 3, 3, 1, twice
    "ppc64": ("3863000138630001", "R3", 4),
    "riscv64": ("1305150013051500", "A0", 4),  # addi a0, a0, 1, twice
}


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_script(arch: str) -> None:
    code, register, size = SCRIPTS[arch]
    seen = run_case(case_script, arch, code, register, [0x1234])
    assert seen[:3] == [[0, 0x1234], [size, 0x1235], [2 * size, 0x1236]]


def case_refusals(arch: str) -> dict[str, Any]:
    """What map_memory and accesses to nothing raise."""
    panda = machine(arch)
    found: dict[str, Any] = {}

    def attempt(name: str, call: Any) -> None:
        try:
            found[name] = repr(call())
        except Exception as error:
            found[name] = [type(error).__name__, str(error)]

    attempt("too early", lambda: panda.map_memory("m", 4096, 0x50000))
    attempt("no limit", lambda: panda.run_until(count=1, timeout=30).reason)
    attempt("overlap", lambda: panda.map_memory("m", 4096, DATA))
    attempt("overlap of an end", lambda: panda.map_memory("m", 8192, DATA - 4096))
    attempt("empty", lambda: panda.map_memory("m", 0, 0x50000))
    attempt("beside", lambda: panda.map_memory("m", 100, DATA - 4096))
    attempt("rounded", lambda: panda.physical_memory_write(DATA - 1, b"x"))
    cpu = panda.get_cpu()
    attempt("read", lambda: panda.virtual_memory_read(cpu, NOWHERE, 4))
    attempt("write", lambda: panda.virtual_memory_write(cpu, NOWHERE, b"1234"))
    attempt("physical read", lambda: panda.physical_memory_read(NOWHERE, 4))
    attempt("physical write", lambda: panda.physical_memory_write(STACK - 2, b"1234"))
    attempt("count", lambda: panda.run_until(count=0))
    attempt("address", lambda: panda.run_until(address=-1))
    attempt("addresses", lambda: panda.run_until(address=range(1000)))
    restart(panda, arch)
    attempt("time", lambda: panda.run_until(timeout=0.05))
    attempt("after it", lambda: panda.run_until(count=3, timeout=30))
    return found


@pytest.mark.parametrize("arch", ["x86_64", "mips"])
def test_refusals(arch: str) -> None:
    found = run_case(case_refusals, arch)
    assert found["too early"][0] == "StateError"
    assert found["no limit"] == "'count'"
    for name in ("overlap", "overlap of an end"):
        assert found[name][0] == "GuestMemoryError"
        assert f"{DATA:#x}" in found[name][1]
    assert found["empty"][0] == "GuestMemoryError"
    assert found["beside"] == found["rounded"] == "None"
    for name in ("read", "write", "physical read", "physical write"):
        assert found[name][0] == "GuestMemoryError", name
    for name in ("count", "address", "addresses"):
        assert found[name][0] == "ValueError", name
    kind, text = found["time"]
    assert kind == "TimeoutExpired"
    end = programs.label(arch, "end")
    # The jump to itself, or what is in its delay slot.
    assert any(f"it is at {pc:#x}" in text for pc in (end, end + 4))
    assert "reason='count'" in found["after it"]


def case_created(arch: str, words: str) -> str:
    """Create a machine that cannot be; the message."""
    from pandalite import MachineError

    panda = Panda(arch, extra_args=f"{MACHINE} {words}")
    try:
        panda.run()
    except MachineError as error:
        return str(error)
    return "created"


def test_what_the_machine_does_not_take(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("{}")
    assert "does not take -kernel" in run_case(case_created, "arm", f"-kernel {tmp_path / 'file'}")
    text = run_case(case_created, "x86_64", "-M configurable,mode=wide")
    assert "mode=wide" in text
    assert "x86_64 has no such mode" in run_case(
        case_created, "x86_64", "-M configurable,mode=long -cpu pentium"
    )
    assert "arm has no such mode" in run_case(case_created, "arm", "-M configurable,mode=real")


# ---- counts of what is not just one instruction after the other ----


BIG = 0x100000
ROUNDS = 0x28000


def case_x86_counts() -> dict[str, Any]:
    """String instructions, code that writes itself, callbacks that redirect."""
    panda = machine("x86_64")
    cpu = panda.get_cpu()
    found: dict[str, Any] = {}
    panda.run_until(count=1, timeout=30)

    def fresh(code: str) -> None:
        panda.physical_memory_write(CODE + 0x800, bytes.fromhex(code))
        panda.arch.set_pc(cpu, CODE + 0x800)

    # mov ecx, N; mov edi, BIG; rep stosb; nop: more rounds than are made at once.
    panda.map_memory("big", ROUNDS, BIG)
    fresh("b9" + ROUNDS.to_bytes(4, "little").hex() + "bf" + BIG.to_bytes(4, "little").hex())
    panda.physical_memory_write(CODE + 0x80A, bytes.fromhex("f3aa90"))
    found["rep"] = panda.run_until(address=CODE + 0x80D, timeout=30)
    found["rounds"] = panda.arch.get_reg(cpu, "EDI") - BIG
    # mov byte [rip + 1], 0x42 (an immediate); mov al, 0x11; nop: writes to its own block.
    fresh("c6050100000042b01190")
    found["own code"] = panda.run_until(address=CODE + 0x809, timeout=30)
    found["al"] = panda.arch.get_reg(cpu, "AL")

    # Before the second of four nops: skip to the last, once.
    fresh("90909090")

    @panda.cb_before_block_exec(name="block")
    def block(cpu: Any, tb: Any) -> None:
        if tb.pc == CODE + 0x800:
            panda.arch.set_pc(cpu, CODE + 0x802)

    found["redirected"] = panda.run_until(address=CODE + 0x804, timeout=30)
    panda.delete_callback("block")
    panda.cb_insn_translate(lambda cpu, pc: True, name="translate")

    @panda.cb_insn_exec(name="insn")
    def insn(cpu: Any, pc: int) -> int:
        if pc == CODE + 0x801:
            panda.arch.set_pc(cpu, CODE + 0x803)
        return 0

    panda.arch.set_pc(cpu, CODE + 0x800)
    found["redirected again"] = panda.run_until(address=CODE + 0x804, timeout=30)
    return found


def test_x86_counts() -> None:
    found = run_case(case_x86_counts)
    assert found["rep"] == ["address", CODE + 0x80D, 4]
    assert found["rounds"] == ROUNDS
    assert found["own code"] == ["address", CODE + 0x809, 2]
    assert found["al"] == 0x42
    assert found["redirected"] == ["address", CODE + 0x804, 2]
    assert found["redirected again"] == ["address", CODE + 0x804, 2]


# ---- what is in the middle of something ----


def case_delay_slot(arch: str, mode: str) -> Any:
    """A callback asks for something in a delay slot; the branch is taken all the same."""
    panda = Panda(arch, extra_args=MACHINE)
    big = panda.endianness
    # beq $0, $0, +3; addiu $2, $2, 1; addiu $3, $3, 1; nop; (target) nop
    words = (0x10000003, 0x24420001, 0x24630001, 0, 0)
    panda.cb_insn_translate(lambda cpu, pc: True, name="translate")

    @panda.cb_after_machine_init(name="setup")
    def setup(cpu: Any) -> None:
        panda.map_memory("code", 0x1000, CODE)
        panda.physical_memory_write(CODE, b"".join(w.to_bytes(4, big) for w in words))
        panda.arch.set_pc(cpu, CODE)

    @panda.cb_insn_exec(name="insn")
    def insn(cpu: Any, pc: int) -> int:
        if pc == CODE + 4 and mode == "break":
            panda.break_exec()
        elif pc == CODE + 4 and mode == "register":
            panda.arch.set_reg(cpu, "CP0_STATUS", panda.arch.get_reg(cpu, "CP0_STATUS"))
        elif pc == CODE + 4 and mode == "set_pc":
            panda.arch.set_pc(cpu, CODE + 8)
        return 0

    end = panda.run_until(address=CODE + 16, timeout=30)
    return [*end, panda.arch.get_regs(panda.get_cpu(), ["V0", "V1"])]


@pytest.mark.parametrize("arch", ["mips", "mips64el"])
@pytest.mark.parametrize("mode", ["break", "register", "set_pc"])
def test_delay_slot(arch: str, mode: str) -> None:
    found = run_case(case_delay_slot, arch, mode)
    if mode == "set_pc":
        # The branch is abandoned, and what was in its slot.
        assert found == ["address", CODE + 16, 1 + 2, [0, 1]]
    else:
        assert found == ["address", CODE + 16, 2, [1, 0]]


def case_unaligned(program: str, code: str) -> Any:
    """A load of a word at an odd address."""
    panda = machine(program)
    cpu = panda.get_cpu()
    panda.run_until(count=1, timeout=30)
    panda.physical_memory_write(CODE + 0x800, bytes.fromhex(code))
    panda.arch.set_pc(cpu, CODE + 0x800)
    panda.arch.set_reg(cpu, programs.REGISTERS[program][2], DATA + 1)
    end = panda.run_until(count=1, timeout=30)
    data = panda.physical_memory_read(DATA + 1, panda.register_size, fmt="int")
    return end.reason, panda.arch.get_reg(cpu, 3) == data


# ldr r3, [r2]; ldr x3, [x2]
@pytest.mark.parametrize(("program", "code"), [("arm", "003092e5"), ("aarch64", "430040f9")])
def test_unaligned(program: str, code: str) -> None:
    assert run_case(case_unaligned, program, code) == ["count", True]


# ---- x86's modes ----


def case_mode(arch: str, mode: str, code: str, registers: list[str]) -> Any:
    """Run code in a mode; the registers after it."""
    panda = Panda(arch, extra_args=f"{MACHINE},mode={mode}".replace(" -nographic", ""))
    program = bytes.fromhex(code)

    @panda.cb_after_machine_init
    def setup(cpu: Any) -> None:
        panda.map_memory("all", 0x20000, 0)
        panda.physical_memory_write(0x1000, program)
        panda.arch.set_pc(cpu, 0x1000)

    end = panda.run_until(address=0x1000 + len(program), timeout=30)
    cpu = panda.get_cpu()
    return end.reason, [panda.arch.get_reg(cpu, name) for name in registers]


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_x86_modes(arch: str) -> None:
    # mov ax, 0x5678; xor al, 0x12
    real = run_case(case_mode, arch, "real", "b878563412", ["EAX"])
    assert real == ["address", [0x566A]]
    # inc eax (a prefix in long mode); mov ebx, eax
    protected = run_case(case_mode, arch, "protected", "4089c3", ["EBX"])
    assert protected == ["address", [1]]


def test_x86_vectors_are_on() -> None:
    # vpcmpeqd ymm0, ymm0, ymm0; movq rax, xmm0; sqrtsd xmm1, xmm0
    code = "c5fd76c066480f7ec0f20f51c8"
    assert run_case(case_mode, "x86_64", "long", code, ["RAX"]) == ["address", [(1 << 64) - 1]]


# ---- a program that handles its exceptions ----


def case_handler(arch: str, setup: str, trap: str, handler: str, at: int, end: int) -> Any:
    """An instruction traps, the handler returns behind it."""
    panda = Panda(arch, extra_args=MACHINE)

    @panda.cb_after_machine_init
    def start(cpu: Any) -> None:
        panda.map_memory("all", 0x20000, 0)
        panda.physical_memory_write(0x1000, bytes.fromhex(setup + trap))
        panda.physical_memory_write(at, bytes.fromhex(handler))
        panda.arch.set_pc(cpu, 0x1000)

    return panda.run_until(address=end, timeout=30)


def test_a_program_handles_its_exceptions() -> None:
    # lui t0, 2 (0x2000); csrw mtvec, t0 | ecall | csrr t1, mepc; addi t1, t1, 4; csrw mepc, t1;
    # mret
    found = run_case(
        case_handler,
        "riscv64",
        "b722000073905230",
        "73000000",
        "73231034130343007310133473002030",
        0x2000,
        0x100C,
    )
    assert found == ["address", 0x100C, 2 + 1 + 4]


# ---- raw_monitor=True ----


def case_terminal() -> None:
    """A program that never ends, with QEMU's monitor on the terminal."""
    panda = Panda("x86_64", extra_args=MACHINE, raw_monitor=True)

    @panda.cb_after_machine_init
    def setup(cpu: Any) -> None:
        panda.map_memory("code", 0x1000, CODE)
        panda.physical_memory_write(CODE, b"\xeb\xfe")
        panda.arch.set_pc(cpu, CODE)

    try:
        panda.run()
    except KeyboardInterrupt:
        print("interrupted")


def test_raw_monitor() -> None:
    command = case_command(case_terminal)
    child, terminal = pty.fork()
    if child == 0:
        os.execv(command[0], command)
    said = b""
    deadline = time.monotonic() + 60
    sent = 0
    try:
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    said += os.read(terminal, 4096)
                except OSError:
                    break
            if sent == 0 and said.endswith(b"(qemu) "):
                os.write(terminal, b"info status\n")
                sent = 1
            elif sent == 1 and b"VM status: running" in said:
                os.write(terminal, b"\x03")
                sent = 2
        assert b"interrupted" in said
        assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 0
    finally:
        os.close(terminal)
