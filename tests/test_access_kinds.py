"""Odd accesses are reported once each: SIMD, atomic, unaligned, page-crossing, pairs, strings.

A few instructions of each ISA run on a machine of CPU and memory; what each of them
accesses is written down here, and callbacks and streams must say exactly that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from bare_programs import CODE, DATA, STACK
from guest import run_case
from snippets import assemble

from pandalite import Panda
from pandalite._bindings.arches import ARCHITECTURES

#: What memory holds from DATA on.
PATTERN = bytes((7 * n + 1) & 0xFF for n in range(8192))

#: An address so that 4 or 8 bytes from it lie in two pages.
CROSSING = 0xFFD


class Step(NamedTuple):
    """An instruction and its accesses: r or w, offset from DATA or the stack, size."""

    text: str
    accesses: tuple[tuple[str, int | str, int], ...] = ()


def r(*places: tuple[int | str, int]) -> tuple[tuple[str, int | str, int], ...]:
    return tuple(("r", at, size) for at, size in places)


def w(*places: tuple[int | str, int]) -> tuple[tuple[str, int | str, int], ...]:
    return tuple(("w", at, size) for at, size in places)


def x86(bits: int) -> list[Step]:
    p, a = ("r", "%rax") if bits == 64 else ("e", "%eax")
    di, word = f"%{p}di", bits // 8
    return [
        Step(f"mov 8({di}), {a}", r((8, word))),
        Step(f"movzwl {CROSSING + 2}({di}), %edx", r((CROSSING + 2, 2))),
        Step(f"mov {CROSSING}({di}), %edx", r((CROSSING, 4))),
        Step(f"mov %edx, {CROSSING}({di})", w((CROSSING, 4))),
        Step(f"push {a}", w((f"-{word}", word))),
        Step(f"pop %{p}bx", r((f"-{word}", word))),
        Step(f"lock xadd %ecx, 16({di})", r((16, 4)) + w((16, 4))),
        Step(f"lock incl 24({di})", r((24, 4)) + w((24, 4))),
        Step(f"addl $1, 28({di})", r((28, 4)) + w((28, 4))),
        Step(f"xchg %ecx, 32({di})", r((32, 4)) + w((32, 4))),
        Step(f"movups 48({di}), %xmm0", r((48, 8), (56, 8))),
        Step(f"movups %xmm0, 65({di})", w((65, 8), (73, 8))),
        Step(f"movq %xmm0, 96({di})", w((96, 8))),
        Step(f"lea 128({di}), %{p}si", ()),
        Step("mov $3, %ecx"),
        Step(f"add $160, {di}"),
        Step(
            "rep movsb",
            (r((128, 1)) + w((160, 1))) + (r((129, 1)) + w((161, 1))) + (r((130, 1)) + w((162, 1))),
        ),
        Step("stosl" if bits == 32 else "stosq", w((163, word))),
    ]


ARM = [
    Step("ldr r1, [r0, #8]", r((8, 4))),
    Step("movw r3, #0xffd"),
    Step("ldr r1, [r0, r3]", r((CROSSING, 4))),
    Step("str r1, [r0, r3]", w((CROSSING, 4))),
    Step("ldrd r4, r5, [r0, #16]", r((16, 8))),
    Step("strd r4, r5, [r0, #24]", w((24, 8))),
    Step("push {r1, r4, r5}", w(("-12", 4), ("-8", 4), ("-4", 4))),
    Step("pop {r1, r4, r5}", r(("-12", 4), ("-8", 4), ("-4", 4))),
    Step("add r6, r0, #32"),
    Step("ldrex r1, [r6]", r((32, 4))),
    Step("strex r2, r1, [r6]", r((32, 4)) + w((32, 4))),
    Step("ldrexb r1, [r6]", r((32, 1))),
    Step("vldr d0, [r0, #48]", r((48, 8))),
    Step("vstr d0, [r0, #56]", w((56, 8))),
    Step("add r6, r0, #64"),
    Step("vld1.32 {d0, d1}, [r6]", r((64, 8), (72, 8))),
    Step("ldrsh r1, [r0, #80]", r((80, 2))),
]

AARCH64 = [
    Step("ldr x1, [x0, #8]", r((8, 8))),
    Step("mov x3, #0xffd"),
    Step("ldr x1, [x0, x3]", r((CROSSING, 8))),
    Step("str w1, [x0, x3]", w((CROSSING, 4))),
    Step("ldp x4, x5, [x0, #16]", r((16, 8), (24, 8))),
    Step("stp x4, x5, [x0, #32]", w((32, 8), (40, 8))),
    Step("ldp w4, w5, [x0, #48]", r((48, 8))),
    Step("str x1, [sp, #-16]!", w(("-16", 8))),
    Step("ldr x1, [sp], #16", r(("-16", 8))),
    Step("add x6, x0, #64"),
    Step("ldxr x1, [x6]", r((64, 8))),
    Step("stxr w2, x1, [x6]", r((64, 8)) + w((64, 8))),
    Step("ldr q0, [x0, #80]", r((80, 8), (88, 8))),
    Step("str q0, [x0, #96]", w((96, 8), (104, 8))),
    Step("ldr d1, [x0, #112]", r((112, 8))),
    Step("ldrsb x1, [x0, #120]", r((120, 1))),
]


def mips(bits: int) -> list[Step]:
    both = [
        Step("lw $5, 8($4)", r((8, 4))),
        Step("sh $5, 18($4)", w((18, 2))),
        Step("lb $5, 20($4)", r((20, 1))),
        Step("ll $6, 24($4)", r((24, 4))),
        Step("sc $6, 24($4)", r((24, 4)) + w((24, 4))),
        Step("ldc1 $f2, 32($4)", r((32, 8))),
        Step("sdc1 $f2, 40($4)", w((40, 8))),
        Step("sw $5, -4($29)", w(("-4", 4))),
        # In a delay slot.
        Step("b 1f\n nop\n1:"),
    ]
    wide = [
        Step("ld $5, 48($4)", r((48, 8))),
        Step("sd $5, 56($4)", w((56, 8))),
        Step("lld $6, 64($4)", r((64, 8))),
        Step("scd $6, 64($4)", r((64, 8)) + w((64, 8))),
    ]
    return both + (wide if bits == 64 else [])


def ppc(bits: int) -> list[Step]:
    both = [
        Step("lwz 4, 8(3)", r((8, 4))),
        Step("lwz 4, 0xffd(3)", r((CROSSING, 4))),
        Step("stw 4, 0xffd(3)", w((CROSSING, 4))),
        Step("lha 4, 16(3)", r((16, 2))),
        Step("addi 5, 3, 20"),
        Step("lwarx 4, 0, 5", r((20, 4))),
        Step("stwcx. 4, 0, 5", r((20, 4)) + w((20, 4))),
        Step("lhbrx 4, 0, 5", r((20, 2))),
        Step("lfd 1, 32(3)", r((32, 8))),
        Step("stfd 1, 40(3)", w((40, 8))),
        Step("stwu 4, -16(1)", w(("-16", 4))),
        Step("lwzu 4, 48(3)", r((48, 4))),
    ]
    wide = [
        Step("ld 4, 8(3)", r((56, 8))),
        Step("std 4, 16(3)", w((64, 8))),
    ]
    return both + (wide if bits == 64 else [])


RISCV = [
    Step("ld a1, 8(a0)", r((8, 8))),
    Step("addi a3, a0, 0x7fd"),
    Step("ld a1, 0x7ff+1-0x800(a3)", r((0x7FD, 8))),
    Step("li a4, 0xffd"),
    Step("add a4, a4, a0"),
    Step("lw a1, 0(a4)", r((CROSSING, 4))),
    Step("sw a1, 0(a4)", w((CROSSING, 4))),
    Step("lhu a1, 16(a0)", r((16, 2))),
    Step("addi a5, a0, 24"),
    Step("lr.d a1, (a5)", r((24, 8))),
    Step("sc.d a2, a1, (a5)", r((24, 8)) + w((24, 8))),
    Step("amoadd.w a1, a2, (a5)", r((24, 4)) + w((24, 4))),
    Step("amoswap.d a1, a2, (a5)", r((24, 8)) + w((24, 8))),
    Step("fld fa0, 32(a0)", r((32, 8))),
    Step("fsd fa0, 40(a0)", w((40, 8))),
    Step("sd a1, -8(sp)", w(("-8", 8))),
    Step("lb a1, 48(a0)", r((48, 1))),
]

#: Architecture -> its steps, and the register that holds DATA.
PROGRAMS: dict[str, tuple[list[Step], str]] = {
    "x86_64": (x86(64), "RDI"),
    "i386": (x86(32), "EDI"),
    "arm": (ARM, "R0"),
    "aarch64": (AARCH64, "X0"),
    "mips": (mips(32), "A0"),
    "mipsel": (mips(32), "A0"),
    "mips64": (mips(64), "A0"),
    "mips64el": (mips(64), "A0"),
    "ppc": (ppc(32), "R3"),
    "ppc64": (ppc(64), "R3"),
    "riscv64": (RISCV, "A0"),
}


def case_accesses(arch: str) -> dict[str, Any]:
    """Run the steps; what callbacks and a stream have seen, and memory before and after."""
    steps, base = PROGRAMS[arch]
    head = {"riscv64": ".option norvc\n.option arch, +d\n", "mips": ".set noreorder\n"}
    head |= {"arm": ".fpu neon\n", "ppc": ".machine ppc\n"}
    head |= dict.fromkeys(("mipsel", "mips64", "mips64el"), head["mips"])
    code = assemble(arch, head.get(arch, "") + "\n".join(step.text for step in steps))
    panda = Panda(arch, extra_args="-M configurable -nographic")
    called: list[Any] = []
    streamed: list[Any] = []

    @panda.cb_after_machine_init
    def setup(cpu: Any) -> None:
        panda.map_memory("code", 0x1000, CODE)
        panda.map_memory("data", STACK - DATA, DATA)
        panda.physical_memory_write(CODE, code)
        panda.physical_memory_write(DATA, PATTERN)
        panda.arch.set_reg(cpu, panda.arch.reg_sp, STACK)
        panda.arch.set_reg(cpu, base, DATA)
        panda.arch.set_pc(cpu, CODE)

    def note(kind: str, addr: int, size: int, buf: Any) -> None:
        called.append((kind, addr, size, int.from_bytes(bytes(buf[0:size]), "little")))

    @panda.cb_virt_mem_after_read
    def read(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        note("r", addr, size, buf)

    @panda.cb_virt_mem_after_write
    def write(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        note("w", addr, size, buf)
        stored = panda.physical_memory_read(addr, size)
        assert int.from_bytes(stored, panda.endianness) == called[-1][3]

    stream = panda.stream("mem", ("write", "addr", "size", "value"), on_batch=streamed.extend)
    panda.run_until(address=CODE + len(code), timeout=30)
    stream.close()
    return {
        "called": called,
        "streamed": [("rw"[int(write)], *rest) for write, *rest in streamed],
        "order": panda.endianness,
    }


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_accesses(arch: str) -> None:
    found = run_case(case_accesses, arch)
    expected = [
        [kind, DATA + at if isinstance(at, int) else STACK + int(at), size]
        for step in PROGRAMS[arch][0]
        for kind, at, size in step.accesses
    ]
    assert [event[:3] for event in found["called"]] == expected
    assert found["streamed"] == found["called"]
    # What is read is what was there or what was written last.
    memory = dict(enumerate(PATTERN, DATA))
    for kind, addr, size, value in found["called"]:
        data = value.to_bytes(size, found["order"])
        if kind == "r":
            stored = bytes(memory.get(addr + n, 0) for n in range(size))
            # lhbrx turns the bytes round; the value is what the register gets.
            assert stored == (
                data[::-1] if arch.startswith("ppc") and addr == DATA + 20 and size == 2 else data
            )
        memory.update(enumerate(data, addr))
