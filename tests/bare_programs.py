"""One program for each instruction set, hand-assembled, and what it does.

It adds up WORDS values, stores each sum, doubles the last one in a function and stores
that. ``thumb`` is for arm. Each instruction is (label, bytes, assembly).
"""

from __future__ import annotations

from typing import NamedTuple

CODE = 0x10000
DATA = 0x20000
STACK = 0x22000
#: Values to add up; the loop's count is in the code.
WORDS = 5

PROGRAMS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "x86_64": (
        ("start", "31c0", "xor eax, eax"),
        ("", "b905000000", "mov ecx, 5"),
        ("", "be00000200", "mov esi, 0x20000"),
        ("loop", "488b16", "mov rdx, [rsi]"),
        ("", "4801d0", "add rax, rdx"),
        ("", "48894640", "mov [rsi+0x40], rax"),
        ("", "4883c608", "add rsi, 8"),
        ("", "ffc9", "dec ecx"),
        ("", "75ee", "jnz loop"),
        ("", "e809000000", "call func"),
        ("rest", "48898680000000", "mov [rsi+0x80], rax"),
        ("end", "ebfe", "jmp end"),
        ("func", "4801c0", "add rax, rax"),
        ("", "c3", "ret"),
    ),
    "i386": (
        ("start", "31c0", "xor eax, eax"),
        ("", "b905000000", "mov ecx, 5"),
        ("", "be00000200", "mov esi, 0x20000"),
        ("loop", "8b16", "mov edx, [esi]"),
        ("", "01d0", "add eax, edx"),
        ("", "894640", "mov [esi+0x40], eax"),
        ("", "83c604", "add esi, 4"),
        ("", "49", "dec ecx"),
        ("", "75f3", "jnz loop"),
        ("", "e808000000", "call func"),
        ("rest", "898680000000", "mov [esi+0x80], eax"),
        ("end", "ebfe", "jmp end"),
        ("func", "01c0", "add eax, eax"),
        ("", "c3", "ret"),
    ),
    "arm": (
        ("start", "0000a0e3", "mov r0, #0"),
        ("", "0510a0e3", "mov r1, #5"),
        ("", "0228a0e3", "mov r2, #0x20000"),
        ("loop", "003092e5", "ldr r3, [r2]"),
        ("", "030080e0", "add r0, r0, r3"),
        ("", "400082e5", "str r0, [r2, #0x40]"),
        ("", "042082e2", "add r2, r2, #4"),
        ("", "011051e2", "subs r1, r1, #1"),
        ("", "f9ffff1a", "bne loop"),
        ("", "010000eb", "bl func"),
        ("rest", "800082e5", "str r0, [r2, #0x80]"),
        ("end", "feffffea", "b end"),
        ("func", "000080e0", "add r0, r0, r0"),
        ("", "1eff2fe1", "bx lr"),
    ),
    "thumb": (
        ("start", "0020", "movs r0, #0"),
        ("", "0521", "movs r1, #5"),
        ("", "4ff40032", "mov.w r2, #0x20000"),
        ("loop", "1368", "ldr r3, [r2]"),
        ("", "c018", "adds r0, r0, r3"),
        ("", "1064", "str r0, [r2, #0x40]"),
        ("", "0432", "adds r2, #4"),
        ("", "0139", "subs r1, #1"),
        ("", "f9d1", "bne loop"),
        ("", "00f003f8", "bl func"),
        ("rest", "c2f88000", "str.w r0, [r2, #0x80]"),
        ("end", "fee7", "b end"),
        ("func", "0018", "adds r0, r0, r0"),
        ("", "7047", "bx lr"),
    ),
    "aarch64": (
        ("start", "000080d2", "mov x0, #0"),
        ("", "a1008052", "mov w1, #5"),
        ("", "4200a0d2", "mov x2, #0x20000"),
        ("loop", "430040f9", "ldr x3, [x2]"),
        ("", "0000038b", "add x0, x0, x3"),
        ("", "402000f9", "str x0, [x2, #0x40]"),
        ("", "42200091", "add x2, x2, #8"),
        ("", "21040071", "subs w1, w1, #1"),
        ("", "61ffff54", "b.ne loop"),
        ("", "03000094", "bl func"),
        ("rest", "404000f9", "str x0, [x2, #0x80]"),
        ("end", "00000014", "b end"),
        ("func", "0000008b", "add x0, x0, x0"),
        ("", "c0035fd6", "ret"),
    ),
    "mips": (
        ("start", "00001021", "addu $2, $0, $0"),
        ("", "24080005", "addiu $8, $0, 5"),
        ("", "3c090002", "lui $9, 2"),
        ("loop", "8d2a0000", "lw $10, 0($9)"),
        ("", "004a1021", "addu $2, $2, $10"),
        ("", "ad220040", "sw $2, 0x40($9)"),
        ("", "2508ffff", "addiu $8, $8, -1"),
        ("", "1500fffb", "bne $8, $0, loop"),
        ("", "25290004", "addiu $9, $9, 4"),
        ("", "04110004", "bgezal $0, func"),
        ("", "00000000", "nop"),
        ("rest", "ad220080", "sw $2, 0x80($9)"),
        ("end", "1000ffff", "beq $0, $0, end"),
        ("", "00000000", "nop"),
        ("func", "03e00008", "jr $31"),
        ("", "00421021", "addu $2, $2, $2"),
    ),
    "mipsel": (
        ("start", "21100000", "addu $2, $0, $0"),
        ("", "05000824", "addiu $8, $0, 5"),
        ("", "0200093c", "lui $9, 2"),
        ("loop", "00002a8d", "lw $10, 0($9)"),
        ("", "21104a00", "addu $2, $2, $10"),
        ("", "400022ad", "sw $2, 0x40($9)"),
        ("", "ffff0825", "addiu $8, $8, -1"),
        ("", "fbff0015", "bne $8, $0, loop"),
        ("", "04002925", "addiu $9, $9, 4"),
        ("", "04001104", "bgezal $0, func"),
        ("", "00000000", "nop"),
        ("rest", "800022ad", "sw $2, 0x80($9)"),
        ("end", "ffff0010", "beq $0, $0, end"),
        ("", "00000000", "nop"),
        ("func", "0800e003", "jr $31"),
        ("", "21104200", "addu $2, $2, $2"),
    ),
    "mips64": (
        ("start", "0000102d", "daddu $2, $0, $0"),
        ("", "64080005", "daddiu $8, $0, 5"),
        ("", "3c090002", "lui $9, 2"),
        ("loop", "dd2a0000", "ld $10, 0($9)"),
        ("", "004a102d", "daddu $2, $2, $10"),
        ("", "fd220040", "sd $2, 0x40($9)"),
        ("", "6508ffff", "daddiu $8, $8, -1"),
        ("", "1500fffb", "bne $8, $0, loop"),
        ("", "65290008", "daddiu $9, $9, 8"),
        ("", "04110004", "bgezal $0, func"),
        ("", "00000000", "nop"),
        ("rest", "fd220080", "sd $2, 0x80($9)"),
        ("end", "1000ffff", "beq $0, $0, end"),
        ("", "00000000", "nop"),
        ("func", "03e00008", "jr $31"),
        ("", "0042102d", "daddu $2, $2, $2"),
    ),
    "mips64el": (
        ("start", "2d100000", "daddu $2, $0, $0"),
        ("", "05000864", "daddiu $8, $0, 5"),
        ("", "0200093c", "lui $9, 2"),
        ("loop", "00002add", "ld $10, 0($9)"),
        ("", "2d104a00", "daddu $2, $2, $10"),
        ("", "400022fd", "sd $2, 0x40($9)"),
        ("", "ffff0865", "daddiu $8, $8, -1"),
        ("", "fbff0015", "bne $8, $0, loop"),
        ("", "08002965", "daddiu $9, $9, 8"),
        ("", "04001104", "bgezal $0, func"),
        ("", "00000000", "nop"),
        ("rest", "800022fd", "sd $2, 0x80($9)"),
        ("end", "ffff0010", "beq $0, $0, end"),
        ("", "00000000", "nop"),
        ("func", "0800e003", "jr $31"),
        ("", "2d104200", "daddu $2, $2, $2"),
    ),
    "ppc": (
        ("start", "38600000", "li 3, 0"),
        ("", "38800005", "li 4, 5"),
        ("", "3ca00002", "lis 5, 2"),
        ("loop", "80c50000", "lwz 6, 0(5)"),
        ("", "7c633214", "add 3, 3, 6"),
        ("", "90650040", "stw 3, 0x40(5)"),
        ("", "38a50004", "addi 5, 5, 4"),
        ("", "3484ffff", "addic. 4, 4, -1"),
        ("", "4082ffec", "bne loop"),
        ("", "4800000d", "bl func"),
        ("rest", "90650080", "stw 3, 0x80(5)"),
        ("end", "48000000", "b end"),
        ("func", "7c631a14", "add 3, 3, 3"),
        ("", "4e800020", "blr"),
    ),
    "ppc64": (
        ("start", "38600000", "li 3, 0"),
        ("", "38800005", "li 4, 5"),
        ("", "3ca00002", "lis 5, 2"),
        ("loop", "e8c50000", "ld 6, 0(5)"),
        ("", "7c633214", "add 3, 3, 6"),
        ("", "f8650040", "std 3, 0x40(5)"),
        ("", "38a50008", "addi 5, 5, 8"),
        ("", "3484ffff", "addic. 4, 4, -1"),
        ("", "4082ffec", "bne loop"),
        ("", "4800000d", "bl func"),
        ("rest", "f8650080", "std 3, 0x80(5)"),
        ("end", "48000000", "b end"),
        ("func", "7c631a14", "add 3, 3, 3"),
        ("", "4e800020", "blr"),
    ),
    "riscv64": (
        ("start", "13050000", "addi a0, zero, 0"),
        ("", "93055000", "addi a1, zero, 5"),
        ("", "37060200", "lui a2, 0x20"),
        ("loop", "83360600", "ld a3, 0(a2)"),
        ("", "3305d500", "add a0, a0, a3"),
        ("", "2330a604", "sd a0, 0x40(a2)"),
        ("", "13068600", "addi a2, a2, 8"),
        ("", "9385f5ff", "addi a1, a1, -1"),
        ("", "e39605fe", "bne a1, zero, loop"),
        ("", "ef00c000", "jal func"),
        ("rest", "2330a608", "sd a0, 0x80(a2)"),
        ("end", "6f000000", "j end"),
        ("func", "3305a500", "add a0, a0, a0"),
        ("", "67800000", "ret"),
    ),
}

#: Registers after the program: of the sum, the count and the pointer.
REGISTERS = {
    "x86_64": ("RAX", "RCX", "RSI"),
    "i386": ("EAX", "ECX", "ESI"),
    **dict.fromkeys(("arm", "thumb"), ("R0", "R1", "R2")),
    "aarch64": ("X0", "X1", "X2"),
    **dict.fromkeys(("mips", "mipsel"), ("V0", "T0", "T1")),
    # n64 names registers 8 and 9 A4 and A5.
    **dict.fromkeys(("mips64", "mips64el"), ("V0", "A4", "A5")),
    **dict.fromkeys(("ppc", "ppc64"), ("R3", "R4", "R5")),
    "riscv64": ("A0", "A1", "A2"),
}


class Expected(NamedTuple):
    """What a run to the end does."""

    #: Addresses of the instructions, in order.
    trace: list[int]
    #: Blocks: address, bytes, instructions.
    blocks: list[list[int]]
    #: Accesses: address of the instruction, "r" or "w", address, size, value.
    accesses: list[list[object]]
    #: The sums the loop stores, and the last one doubled.
    sums: list[int]
    #: Address of the label ``end``.
    end: int


def code_of(program: str) -> bytes:
    """The program's bytes."""
    return b"".join(bytes.fromhex(code) for _, code, _ in PROGRAMS[program])


def arch_of(program: str) -> str:
    """The architecture a program is for."""
    return "arm" if program == "thumb" else program


def label(program: str, name: str) -> int:
    """The address of a label."""
    at = CODE
    for found, code, _ in PROGRAMS[program]:
        if found == name:
            return at
        at += len(code) // 2
    raise KeyError(name)


def values(width: int) -> list[int]:
    """The values to add up: sums overflow, and no two bytes are alike."""
    pattern = 0xF1E2D3C4B5A69788
    return [(pattern * (n + 1) >> n) & ((1 << 8 * width) - 1) for n in range(WORDS)]


def expected(program: str, width: int) -> Expected:
    """What a run of a program with registers of ``width`` bytes does."""
    table = PROGRAMS[program]
    sizes = [len(code) // 2 for _, code, _ in table]
    pcs = [CODE + sum(sizes[:n]) for n in range(len(table))]
    at = {name: n for n, (name, _, _) in enumerate(table) if name}
    # The loop ends with the only conditional branch to it, and its delay slot.
    call = next(n for n, (_, _, text) in enumerate(table) if text.endswith("func"))
    parts = {
        "first": range(call),
        "loop": range(at["loop"], call),
        "call": range(call, at["rest"]),
        "func": range(at["func"], len(table)),
        "rest": range(at["rest"], at["func"]),
    }
    order = ["first", *["loop"] * (WORDS - 1), "call", "func", "rest"]
    trace = [
        pcs[n] for name in order for n in parts[name] if not (n >= at["end"] > 0 and n < at["func"])
    ]
    blocks = [
        [pcs[parts[name][0]], sum(sizes[n] for n in parts[name]), len(parts[name])]
        for name in order
    ]
    mask = (1 << 8 * width) - 1
    sums: list[int] = []
    accesses: list[list[object]] = []
    load, store = pcs[at["loop"]], pcs[at["loop"] + 2]
    for n, value in enumerate(values(width)):
        sums.append(((sums[-1] if sums else 0) + value) & mask)
        accesses.append([load, "r", DATA + n * width, width, value])
        accesses.append([store, "w", DATA + n * width + 0x40, width, sums[-1]])
    if program in ("x86_64", "i386"):
        back = pcs[at["rest"]]
        accesses.append([pcs[call], "w", STACK - width, width, back])
        accesses.append([pcs[-1], "r", STACK - width, width, back])
    sums.append(sums[-1] * 2 & mask)
    accesses.append([pcs[at["rest"]], "w", DATA + WORDS * width + 0x80, width, sums[-1]])
    return Expected(trace, blocks, accesses, sums, pcs[at["end"]])
