"""Code that tests let a self-test guest run, written once for all architectures.

A snippet is in the words of the macros below; each family has its own way to do
what they say. It is assembled with the tools that made the guest, put into memory
no part of the guest is in, and called instead of the guest's branch test: in the
kernel's mode, with the guest's stack and page tables. `back` returns to the guest,
which goes on with its other tests.

    const V            A = V (32 bits)
    peek ADDR          load into A, 32 bits; also peek8, peek16, peek64
    poke ADDR, V       store 32 bits
    save N             store A as the Nth result, 32 bits; save64: 64
    hypercall M, V     the hypercall with M in the magic register and V in A
    set_asid V         write the register of the address space
    save_asid N        read it, store it as the Nth result in full width
    map_low, unmap_low make physical addresses below 2 GB those of the same virtual ones
    back               return
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ctools import ROOT
from elftools.elf.elffile import ELFFile

from pandalite import Panda
from pandalite._bindings.arches import ARCHITECTURES
from pandalite.errors import GuestReset, GuestShutdown

sys.path.insert(0, str(ROOT / "tools"))

import build_baremetal
from project import cache_dir, load_toml

#: How many results there are, of eight bytes each.
RESULTS = 20

X86 = """
    .macro  const value
    mov     $\\value, %eax
    .endm
    .macro  peek place
    mov     \\place, %eax
    .endm
    .macro  peek8 place
    movzbl  \\place, %eax
    .endm
    .macro  peek16 place
    movzwl  \\place, %eax
    .endm
    .macro  peek64 place
    mov     \\place, %rax
    .endm
    .macro  poke place, value
    movl    $\\value, \\place
    .endm
    .macro  save number
    mov     %eax, RESULTS + 8 * \\number
    .endm
    .macro  save64 number
    mov     %rax, RESULTS + 8 * \\number
    .endm
    .macro  hypercall magic, value
    mov     $\\magic, %eax
    mov     $\\value, %ebx
    cpuid
    .endm
    .macro  set_asid value
    mov     $\\value, %eax
    .if BITS == 64
    mov     %rax, %cr3
    .else
    mov     %eax, %cr3
    .endif
    .endm
    .macro  save_asid number
    .if BITS == 64
    mov     %cr3, %rax
    mov     %rax, RESULTS + 8 * \\number
    .else
    mov     %cr3, %eax
    save    \\number
    .endif
    .endm
    .macro  back
    ret
    .endm
"""

ARM = """
    .syntax unified
    .arm
    .macro  const value
    ldr     r0, =\\value
    .endm
    .macro  peek place
    ldr     r1, =\\place
    ldr     r0, [r1]
    .endm
    .macro  peek8 place
    ldr     r1, =\\place
    ldrb    r0, [r1]
    .endm
    .macro  peek16 place
    ldr     r1, =\\place
    ldrh    r0, [r1]
    .endm
    .macro  poke place, value
    ldr     r1, =\\place
    ldr     r2, =\\value
    str     r2, [r1]
    .endm
    .macro  save number
    ldr     r1, =RESULTS + 8 * \\number
    str     r0, [r1]
    .endm
    .macro  hypercall magic, value
    ldr     r7, =\\magic
    ldr     r0, =\\value
    .inst   0xee000710
    .endm
    .macro  set_asid value
    ldr     r0, =\\value
    mcr     p15, 0, r0, c2, c0, 0
    .endm
    .macro  save_asid number
    mrc     p15, 0, r0, c2, c0, 0
    save    \\number
    .endm
    .macro  back
    bx      lr
    .endm
"""

AARCH64 = """
    .macro  const value
    ldr     w0, =\\value
    .endm
    .macro  peek place
    ldr     x1, =\\place
    ldr     w0, [x1]
    .endm
    .macro  peek8 place
    ldr     x1, =\\place
    ldrb    w0, [x1]
    .endm
    .macro  peek16 place
    ldr     x1, =\\place
    ldrh    w0, [x1]
    .endm
    .macro  peek64 place
    ldr     x1, =\\place
    ldr     x0, [x1]
    .endm
    .macro  poke place, value
    ldr     x1, =\\place
    ldr     w2, =\\value
    str     w2, [x1]
    .endm
    .macro  save number
    ldr     x1, =RESULTS + 8 * \\number
    str     w0, [x1]
    .endm
    .macro  save64 number
    ldr     x1, =RESULTS + 8 * \\number
    str     x0, [x1]
    .endm
    .macro  hypercall magic, value
    ldr     x8, =\\magic
    ldr     x0, =\\value
    .inst   0xd500501f
    .endm
    .macro  set_asid value
    ldr     x0, =\\value
    msr     ttbr0_el1, x0
    isb
    .endm
    .macro  save_asid number
    mrs     x0, ttbr0_el1
    ldr     x1, =RESULTS + 8 * \\number
    str     x0, [x1]
    .endm
    .macro  back
    ret
    .endm
"""

MIPS = """
    .set    noreorder
    .if BITS == 64
    .macro  place_in register, value
    dli     \\register, \\value
    .endm
    .else
    .macro  place_in register, value
    li      \\register, \\value
    .endm
    .endif
    .macro  const value
    li      $a0, \\value
    .endm
    .macro  peek place
    place_in $t0, \\place
    lw      $a0, ($t0)
    .endm
    .macro  peek8 place
    place_in $t0, \\place
    lbu     $a0, ($t0)
    .endm
    .macro  peek16 place
    place_in $t0, \\place
    lhu     $a0, ($t0)
    .endm
    .macro  peek64 place
    place_in $t0, \\place
    ld      $a0, ($t0)
    .endm
    .macro  poke place, value
    place_in $t0, \\place
    li      $t1, \\value
    sw      $t1, ($t0)
    .endm
    .macro  save number
    place_in $t0, RESULTS + 8 * \\number
    sw      $a0, ($t0)
    .endm
    .macro  save64 number
    place_in $t0, RESULTS + 8 * \\number
    sd      $a0, ($t0)
    .endm
    .macro  hypercall magic, value
    li      $v0, \\magic
    li      $a0, \\value
    movz    $zero, $zero, $zero
    .endm
    .macro  set_asid value
    li      $t0, \\value
    mtc0    $t0, $10
    ehb
    .endm
    .macro  save_asid number
    mfc0    $a0, $10
    .if BITS == 64
    place_in $t0, RESULTS + 8 * \\number
    sd      $a0, ($t0)
    .else
    save    \\number
    .endif
    .endm
    .macro  map_low
    mfc0    $t0, $12
    ori     $t0, $t0, 4             # ERL
    mtc0    $t0, $12
    ehb
    .endm
    .macro  unmap_low
    mfc0    $t0, $12
    xori    $t0, $t0, 4
    mtc0    $t0, $12
    ehb
    .endm
    .macro  back
    jr      $ra
    nop
    .endm
"""

PPC = """
    .macro  word register, value
    lis     \\register, ((\\value) >> 16) & 0xffff
    ori     \\register, \\register, (\\value) & 0xffff
    .endm
    .macro  const value
    word    r3, \\value
    .endm
    .macro  peek place
    word    r4, \\place
    lwz     r3, 0(r4)
    .endm
    .macro  peek8 place
    word    r4, \\place
    lbz     r3, 0(r4)
    .endm
    .macro  peek16 place
    word    r4, \\place
    lhz     r3, 0(r4)
    .endm
    .macro  peek64 place
    word    r4, \\place
    ld      r3, 0(r4)
    .endm
    .macro  poke place, value
    word    r4, \\place
    word    r5, \\value
    stw     r5, 0(r4)
    .endm
    .macro  save number
    word    r4, RESULTS + 8 * \\number
    stw     r3, 0(r4)
    .endm
    .macro  save64 number
    word    r4, RESULTS + 8 * \\number
    std     r3, 0(r4)
    .endm
    .macro  hypercall magic, value
    word    r0, \\magic
    word    r3, \\value
    xori    10, 10, 0
    .endm
    .macro  set_asid value
    word    r3, \\value
    mtspr   48, r3
    isync
    .endm
    .macro  save_asid number
    mfspr   r3, 48
    .if BITS == 64
    word    r4, RESULTS + 8 * \\number
    std     r3, 0(r4)
    .else
    save    \\number
    .endif
    .endm
    .macro  back
    blr
    .endm
"""

RISCV = """
    .option norelax
    .macro  const value
    li      a0, \\value
    .endm
    .macro  peek place
    li      t0, \\place
    lw      a0, (t0)
    .endm
    .macro  peek8 place
    li      t0, \\place
    lbu     a0, (t0)
    .endm
    .macro  peek16 place
    li      t0, \\place
    lhu     a0, (t0)
    .endm
    .macro  peek64 place
    li      t0, \\place
    ld      a0, (t0)
    .endm
    .macro  poke place, value
    li      t0, \\place
    li      t1, \\value
    sw      t1, (t0)
    .endm
    .macro  save number
    li      t0, RESULTS + 8 * \\number
    sw      a0, (t0)
    .endm
    .macro  save64 number
    li      t0, RESULTS + 8 * \\number
    sd      a0, (t0)
    .endm
    .macro  hypercall magic, value
    li      a7, \\magic
    li      a0, \\value
    slti    x0, x0, 0
    .endm
    .macro  set_asid value
    li      t0, \\value
    csrw    satp, t0
    .endm
    .macro  save_asid number
    csrr    a0, satp
    li      t0, RESULTS + 8 * \\number
    sd      a0, (t0)
    .endm
    .macro  back
    ret
    .endm
"""


class Place(NamedTuple):
    """An address."""

    virtual: int
    physical: int


@dataclass(frozen=True)
class Target:
    """What differs between the architectures."""

    source: str
    #: Encoding of the hypercall, as a number of the guest's byte order.
    hypercall: int
    #: Registers: magic of a hypercall, its argument and result.
    magic: str
    value: str
    #: What a system call of the guest's user program is: number, argument, result.
    call: tuple[str, str, str]
    #: From a system call's pc in before_handle_exception to what comes after it.
    call_size: int
    #: A device's register that keeps what is written, and the bits that it keeps.
    device: Place
    device_bits: int
    #: Where nothing is: on a page of its own, beside a device.
    nothing: Place
    beside: Place
    #: Address spaces for set_asid: two, and the guest's own.
    asids: tuple[str, str, str]
    #: What the core makes of the register's value.
    asid_mask: int = (1 << 64) - 1
    #: From a symbol to its physical address.
    memory_mask: int = (1 << 64) - 1
    #: Does the CPU fault when it loads where nothing is?
    faults: bool = True


def _same(address: int) -> Place:
    return Place(address, address)


def _mips(sign: int) -> Target:
    """The upper half of a 64-bit address repeats its bit 31."""
    return Target(
        MIPS,
        *(0x0000000A, "V0", "A0", ("V0", "A0", "V0"), 4),
        # The bar of eight LEDs.
        *(Place(sign + 0xBF000408, 0x1F000408), 0xFF),
        # Below 512 MB malta has something everywhere.
        *(_same(0x30000000), _same(0x30000020)),
        asids=("5", "9", "0"),
        memory_mask=0x1FFFFFFF,
    )


#: HPET's counter, which stands still, and what comes after its registers.
_HPET, _AFTER_HPET = 0xFED000F0, 0xFED00800
#: In x86_64's tables the test maps these here, below 1 GB.
HPET_MAP = Place(0x3FE00000, 0xFEC00000)


def _mapped(address: int) -> Place:
    return Place(address - HPET_MAP.physical + HPET_MAP.virtual, address)


_I386 = Target(
    X86,
    *(0x0FA2, "EAX", "EBX", ("EAX", "ECX", "EAX"), 2),
    *(_same(_HPET), 0xFFFFFFFF, _same(0x10000000), _same(_AFTER_HPET)),
    asids=("0x5000", "0x7000", "0"),
    faults=False,
)
_X86_64 = Target(
    X86,
    *(0x0FA2, "EAX", "EBX", ("EAX", "ECX", "EAX"), 2),
    *(_mapped(_HPET), 0xFFFFFFFF, _same(0x10000000), _mapped(_AFTER_HPET)),
    asids=("page_tables+8", "page_tables+16", "page_tables"),
    faults=False,
)
#: Of the clock: the match register.
_CLOCK = _same(0x09010004)
_ARM = Target(
    ARM,
    *(0xEE000710, "R7", "R0", ("R7", "R0", "R0"), 0),
    *(_CLOCK, 0xFFFFFFFF, _same(0x09200000), _same(0x09200008)),
    asids=("level_1+0x80", "level_1+0x100", "level_1"),
)
_AARCH64 = Target(
    AARCH64,
    *(0xD500501F, "X8", "X0", ("X8", "X0", "X0"), 0),
    *(_CLOCK, 0xFFFFFFFF, _same(0x09200000), _same(0x09200008)),
    asids=("level_1+8+(3<<48)", "level_1+16+(4<<48)", "level_1"),
    asid_mask=(1 << 48) - 2,
)
_PPC = Target(
    PPC,
    *(0x694A0000, "R0", "R3", ("R0", "R3", "R3"), 4),
    # Which pins are open drains; what comes after the serial port's registers.
    *(Place(0x600FF004, 0xFE00FF004), 0xFFFFFFFF),
    *(Place(0x600A0000, 0xFE00A0000), Place(0x60004800, 0xFE0004800)),
    asids=("5", "9", "0"),
    faults=False,
)
_RISCV = Target(
    RISCV,
    *(0x00002013, "A7", "A0", ("A7", "A0", "A0"), 4),
    # The lower half of the time of the next tick; after the serial port's registers.
    *(_same(0x02004000), 0xFFFFFFFF, _same(0x00200000), _same(0x10000100)),
    asids=("5<<44", "9<<44", "0"),
)

TARGETS = {
    "i386": _I386,
    "x86_64": _X86_64,
    "arm": _ARM,
    "aarch64": _AARCH64,
    "mips": _mips(0),
    "mipsel": _mips(0),
    "mips64": _mips(0xFFFFFFFF << 32),
    "mips64el": _mips(0xFFFFFFFF << 32),
    "ppc": _PPC,
    "ppc64": _PPC,
    "riscv64": _RISCV,
}


def symbols_of(elf: Path) -> dict[str, int]:
    """The addresses of a guest's symbols."""
    with elf.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {s.name: s["st_value"] for s in table.iter_symbols() if s.name}


def places(symbols: dict[str, int]) -> tuple[int, int]:
    """Where a snippet is put, and where its results are: pages after the guest's."""
    code = (symbols["bss_end"] + 0xFFF & ~0xFFF) + 0x1000
    return code, code + 0x2000


@functools.cache
def assemble(arch: str, text: str) -> bytes:
    """Assemble a snippet; the guest's symbols may be used."""
    symbols = symbols_of(build_baremetal.build(arch))
    guest = load_toml(build_baremetal.TABLE)["guests"][arch]
    cache = cache_dir()
    folder = build_baremetal.tools(guest["package"], cache)
    values = {
        "BITS": load_toml(build_baremetal.ARCHES)[arch]["bits"],
        "RESULTS": places(symbols)[1],
    }
    values |= {n: symbols[n] for n in ("page_tables", "level_1", "idt") if n in symbols}
    lines = [f".set {name}, {value:#x}" for name, value in values.items()]
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name) / "snippet.S", Path(name) / "snippet.o"
        source.write_text("\n".join([*lines, TARGETS[arch].source, ".text", text, ""]))
        subprocess.run(
            [f"{folder}/usr/bin/{guest['prefix']}-as", *guest["as"], "-o", output, source],
            env=build_baremetal._environment(folder),
            check=True,
            timeout=60,
        )
        with output.open("rb") as file:
            elf = ELFFile(file)
            for section in elf.iter_sections():
                relocated = (
                    section.name in (".rel.text", ".rela.text") and section.num_relocations()
                )
                assert not relocated, [r.entry for r in section.iter_relocations()]
            code: bytes = elf.get_section_by_name(".text").data()
    return code


class Guest:
    """A self-test guest that runs a snippet.

    Args:
        arch: of the guest.
        text: the snippet; None: the guest's own tests are all it runs.
        at: the test of the guest's that the snippet takes the place of.
        words: further options.
    """

    def __init__(
        self,
        arch: str,
        text: str | None = None,
        at: str = "self_test_branches",
        words: Sequence[str] = (),
    ) -> None:
        self.arch = arch
        self.elf = build_baremetal.build(arch)
        self.target = TARGETS[arch]
        self.symbols = symbols_of(self.elf)
        self.code = b"" if text is None else assemble(arch, text)
        self.begin, self.results = places(self.symbols)
        # Open as long as there is the guest.
        self.serial = tempfile.NamedTemporaryFile()  # noqa: SIM115
        options = [*build_baremetal.machine_words(arch, self.elf), *words]
        options += ["-serial", f"file:{self.serial.name}"]
        self.panda = Panda(arch=arch, mem="64M", extra_args=options)
        self.at = at
        self.order = "little" if ARCHITECTURES[arch].little_endian else "big"
        #: Callbacks to be enabled before the snippet or the guest's next test.
        self.enabled: list[str] = []
        self.panda.cb_before_block_translate(self._translated, name="_translated")
        self.panda.cb_before_block_exec(self._block, name="_block", enabled=False)

    def _translated(self, cpu: Any, pc: int) -> None:
        # Not before: firmware of the PC would be watched for seconds.
        if pc == self.symbols["self_test_memory"]:
            self.panda.enable_callback("_block")

    def _block(self, cpu: Any, tb: Any) -> None:
        panda = self.panda
        if tb.pc != self.symbols[self.at]:
            return
        panda.disable_callback("_block")
        panda.disable_callback("_translated")
        if self.arch == "x86_64":
            place = HPET_MAP
            entry = self.symbols["page_tables"] + 0x2000 + (place.virtual >> 21) * 8
            panda.physical_memory_write(entry, (place.physical | 0x87).to_bytes(8, "little"))
        for name in self.enabled:
            panda.enable_callback(name)
        if self.code:
            panda.physical_memory_write(self.begin & self.target.memory_mask, self.code)
            panda.arch.set_pc(cpu, self.begin)

    def word(self, address: int, size: int = 4) -> int:
        """A number in the guest's memory, of its kernel's."""
        data = self.panda.physical_memory_read(address & self.target.memory_mask, size)
        return int.from_bytes(data, self.order)  # type: ignore[arg-type]

    def set_word(self, name: str, value: int) -> None:
        address = self.symbols[name] & self.target.memory_mask
        data = value.to_bytes(4, self.order)  # type: ignore[arg-type]
        self.panda.physical_memory_write(address, data)

    def run(self) -> tuple[str, str]:
        """Run to the power-off; how it ended and what was printed."""
        try:
            self.panda.run()
            end = "nothing"
        except (GuestReset, GuestShutdown) as error:
            end = type(error).__name__
        return end, self.serial.read().decode()
