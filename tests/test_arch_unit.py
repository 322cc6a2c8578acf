"""Architecture objects without a guest: names, parts of registers, conventions, errors."""

from __future__ import annotations

import random
from ctypes import memmove, sizeof
from types import SimpleNamespace
from typing import Any

import pytest

from pandalite._bindings import loader
from pandalite._bindings.enums import PandaStatus
from pandalite._bindings.structs import PandaSegment
from pandalite._core import Cpu
from pandalite.arch import PandaArch, X86_64Arch, X86Arch, make_arch
from pandalite.errors import GuestMemoryError, StateError, UnknownArchitectureError
from pandalite.telescope import telescope

LONG_NAMES = ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI")
NAMES = ("EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI")
SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS", "LDT", "TR", "GDT", "IDT")


class FakeLib:
    """The register functions of the core, on a dictionary."""

    @property
    def fast(self) -> FakeLib:
        """The functions that never block."""
        return self

    def __init__(self, word: int) -> None:
        self.values: dict[str, bytes] = {name: bytes(sizeof(PandaSegment)) for name in SEGMENTS}
        wide = {"EFLAGS": 4, "EFER": 8, "FSBASE": word, "GSBASE": word, "XMM0": 16, "XMM7": 16}
        wide.update({f"CR{n}": word for n in (0, 2, 3, 4)})
        self.values.update({name: bytes(size) for name, size in wide.items()})
        self.refuse: tuple[int, bytes] | None = None
        self.pc = 0x1000
        self.error = b""

    def panda_last_error(self) -> bytes:
        return self.error

    def panda_current_pc(self, cpu: Cpu) -> int:
        return self.pc

    def panda_set_pc(self, cpu: Cpu, pc: int) -> int:
        if self.refuse:
            status, self.error = self.refuse
            return status
        self.pc = pc
        return PandaStatus.OK

    def panda_register_name(self, number: int) -> bytes | None:
        names = list(self.values)
        return names[number].encode() if number < len(names) else None

    def panda_register_size(self, number: int) -> int:
        return len(list(self.values.values())[number])

    def panda_register_read(self, cpu: Cpu, number: int, buf: Any, size: int) -> int:
        value = list(self.values.values())[number]
        assert len(value) == size
        memmove(buf, value, size)
        return PandaStatus.OK

    def panda_register_write(self, cpu: Cpu, number: int, data: bytes, size: int) -> int:
        if self.refuse:
            status, self.error = self.refuse
            return status
        assert len(data) == size
        self.values[list(self.values)[number]] = data
        return PandaStatus.OK


class FakePanda:
    """What PandaArch needs of a Panda; memory is one mapping of 256 bytes."""

    BASE = 0x7F00

    def __init__(self, arch_name: str) -> None:
        known = loader.architecture(arch_name)
        self.arch_name = arch_name
        self.bits = known.bits
        self.endianness = "little"
        self.register_size = known.register_size
        self.lib: Any = FakeLib(known.register_size)
        self.cpu = Cpu()
        self.cpu.env_ptr = loader.env_struct(arch_name)()
        self.memory = bytearray(256)
        self.family = "OS_LINUX"

    def get_os_family(self) -> str:
        return self.family

    def virtual_memory_read(self, cpu: Cpu, addr: int, length: int, fmt: str = "bytearray") -> Any:
        start = addr - self.BASE
        if start < 0 or start + length > len(self.memory):
            raise GuestMemoryError(f"no memory at {addr:#x}")
        data = bytes(self.memory[start : start + length])
        return int.from_bytes(data, "little") if fmt == "int" else data

    def virtual_memory_write(self, cpu: Cpu, addr: int, data: bytes) -> None:
        start = addr - self.BASE
        if start < 0 or start + len(data) > len(self.memory):
            raise GuestMemoryError(f"no memory at {addr:#x}")
        self.memory[start : start + len(data)] = data

    def put_word(self, addr: int, value: int) -> None:
        self.virtual_memory_write(self.cpu, addr, value.to_bytes(self.register_size, "little"))


@pytest.fixture
def x64() -> FakePanda:
    return FakePanda("x86_64")


@pytest.fixture
def x32() -> FakePanda:
    return FakePanda("i386")


# ---- names ----


def test_classes(x64: FakePanda, x32: FakePanda) -> None:
    assert type(make_arch(x64)) is X86_64Arch
    assert type(make_arch(x32)) is X86Arch
    assert issubclass(X86Arch, X86_64Arch) and issubclass(X86_64Arch, PandaArch)
    with pytest.raises(UnknownArchitectureError, match=r"vax.*known: i386, x86_64"):
        make_arch(SimpleNamespace(arch_name="vax"))


def test_register_order(x64: FakePanda, x32: FakePanda) -> None:
    assert [*X86_64Arch.registers] == [*LONG_NAMES, *(f"R{n}" for n in range(8, 16))]
    assert tuple(X86Arch.registers) == NAMES
    for panda in (x64, x32):
        arch = make_arch(panda)
        registers = panda.cpu.env_ptr.regs
        for number, name in enumerate(arch.registers):
            registers[number] = 0x1000 + number
            for key in (name, name.lower(), name.capitalize(), number):
                assert arch.get_reg(panda.cpu, key) == 0x1000 + number
                arch.set_reg(panda.cpu, key, 0x2000 + number)
                assert registers[number] == 0x2000 + number
                registers[number] = 0x1000 + number


def test_general_registers_are_the_guests_memory(x64: FakePanda) -> None:
    arch = make_arch(x64)
    view = arch.general_registers(x64.cpu)
    assert len(view) == 16
    view[3] = 1 << 63
    assert x64.cpu.env_ptr.regs[3] == 1 << 63
    assert arch.get_reg(x64.cpu, "RBX") == 1 << 63


def test_no_machine_yet(x64: FakePanda) -> None:
    arch = make_arch(x64)
    x64.cpu.env_ptr = None
    with pytest.raises(StateError, match=r"run\(\) creates the machine"):
        arch.get_reg(x64.cpu, "RAX")


def test_detach(x64: FakePanda) -> None:
    arch = make_arch(x64)
    arch.attach()
    x64.cpu.env_ptr.regs[0] = 7
    assert arch.get_reg(x64.cpu, "RAX") == 7
    arch.detach()
    x64.cpu.env_ptr = loader.env_struct("x86_64")()
    assert arch.get_reg(x64.cpu, "RAX") == 0


@pytest.mark.parametrize("write", [False, True])
def test_unknown_names(x64: FakePanda, x32: FakePanda, write: bool) -> None:
    def use(panda: FakePanda, reg: Any) -> None:
        arch = make_arch(panda)
        if write:
            arch.set_reg(panda.cpu, reg, 1)
        else:
            arch.get_reg(panda.cpu, reg)

    with pytest.raises(ValueError, match=r"x86_64 has no register 'RAXX'; did you mean RAX"):
        use(x64, "raxx")
    with pytest.raises(ValueError, match=r"i386 has no register 'RAX'; did you mean .*EAX"):
        use(x32, "RAX")
    with pytest.raises(ValueError, match=r"known: .*CR0.*RAX"):
        use(x64, "zzzzzz")
    for number in (16, -1):
        with pytest.raises(ValueError, match=f"no register number {number}"):
            use(x64, number)
    with pytest.raises(ValueError, match="no register number 8: i386 has 8"):
        use(x32, 8)
    wrongs: list[Any] = [None, 1.5, b"RAX", ["RAX"], {}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="named by a str or an int"):
            use(x64, wrong)


# ---- parts ----


def part_names(arch: PandaArch) -> list[tuple[str, int, int, int]]:
    """Every part by Intel's manual, written down independently: name, register, shift, width."""
    parts = []
    for number, letter in enumerate("ACDB"):
        parts += [(f"{letter}X", number, 0, 16), (f"{letter}L", number, 0, 8)]
        parts += [(f"{letter}H", number, 8, 8)]
    for number, name in enumerate(("SP", "BP", "SI", "DI"), 4):
        parts += [(name, number, 0, 16)]
    if len(arch.registers) == 16:
        for number, name in enumerate(NAMES):
            parts += [(name, number, 0, 32)]
        for number, name in enumerate(("SPL", "BPL", "SIL", "DIL"), 4):
            parts += [(name, number, 0, 8)]
        for number in range(8, 16):
            parts += [(f"R{number}D", number, 0, 32), (f"R{number}W", number, 0, 16)]
            parts += [(f"R{number}B", number, 0, 8)]
    return parts


@pytest.mark.parametrize("name", ["x86_64", "i386"])
def test_parts(name: str) -> None:
    panda = FakePanda(name)
    arch = make_arch(panda)
    registers = panda.cpu.env_ptr.regs
    chance = random.Random(1)
    expected = part_names(arch)
    assert {part[0] for part in expected} == set(arch.sub_registers)
    for part, number, shift, width in expected:
        before = [chance.getrandbits(panda.bits) for _ in arch.registers]
        for i, value in enumerate(before):
            registers[i] = value
        assert arch.get_reg(panda.cpu, part) == before[number] >> shift & ((1 << width) - 1)
        assert arch.get_reg(panda.cpu, part.lower()) == arch.get_reg(panda.cpu, part)
        new = chance.getrandbits(width)
        arch.set_reg(panda.cpu, part, new)
        assert arch.get_reg(panda.cpu, part) == new
        mask = ((1 << width) - 1) << shift
        for i, value in enumerate(before):
            wanted = value & ~mask | new << shift if i == number else value
            assert registers[i] == wanted, part


def test_values_that_do_not_fit(x64: FakePanda, x32: FakePanda) -> None:
    arch = make_arch(x64)
    arch.set_reg(x64.cpu, "RAX", -1)
    assert arch.get_reg(x64.cpu, "RAX") == (1 << 64) - 1
    arch.set_reg(x64.cpu, "AL", -128)
    assert arch.get_reg(x64.cpu, "AL") == 0x80
    for reg, value in (("RAX", 1 << 64), ("RAX", -(1 << 63) - 1), ("AL", 256), ("AH", -129)):
        with pytest.raises(ValueError, match=f"does not fit into {reg}"):
            arch.set_reg(x64.cpu, reg, value)
    with pytest.raises(ValueError, match="EAX, which has 32 bits"):
        make_arch(x32).set_reg(x32.cpu, "EAX", 1 << 32)
    with pytest.raises(TypeError):
        arch.set_reg(x64.cpu, "RAX", "1")
    assert arch.get_reg(x64.cpu, "RAX") & ~0xFF == (1 << 64) - 0x100


# ---- registers of the core ----


def test_special_registers(x64: FakePanda) -> None:
    arch = make_arch(x64)
    x64.lib.values["EFLAGS"] = (0x246).to_bytes(4, "little")
    assert arch.get_reg(x64.cpu, "eflags") == 0x246
    arch.set_reg(x64.cpu, "cr3", 0x12345000)
    assert arch.get_reg(x64.cpu, "CR3") == 0x12345000
    number = 0x0123456789ABCDEF_FEDCBA9876543210
    arch.set_reg(x64.cpu, "XMM0", number)
    for name in ("XMM0", "xmm0h", "XMM0L", "XMM0Q", "XMM0X"):
        assert arch.get_reg(x64.cpu, name) == number
    for name in ("MM0", "YMM3", "ymm0"):
        with pytest.raises(ValueError, match="not supported"):
            arch.get_reg(x64.cpu, name)
        with pytest.raises(NotImplementedError, match="not supported"):
            arch.set_reg(x64.cpu, name, 1)


def test_segments(x64: FakePanda) -> None:
    arch = make_arch(x64)
    made = PandaSegment(selector=0x2B, limit=0xFFFFFFFF, base=0x1000, flags=0xCFF300)
    x64.lib.values["DS"] = bytes(made)
    assert arch.get_reg(x64.cpu, "ds") == 0x1000
    arch.set_reg(x64.cpu, "DS", 0x2000)
    made.base = 0x2000
    assert x64.lib.values["DS"] == bytes(made)
    before = x64.lib.values["FS"]
    arch.set_reg(x64.cpu, "FS", 0x7F0000)
    assert x64.lib.values["FS"] == before
    assert x64.lib.values["FSBASE"] == (0x7F0000).to_bytes(8, "little")


def test_descriptor_tables(x64: FakePanda) -> None:
    arch = make_arch(x64)
    for name in ("LDT", "TR", "GDT", "IDT"):
        value = (0x40, 0xFFFFFE0000001000, 0x206F, 0x8B00)
        arch.set_reg(x64.cpu, name, value)
        assert arch.get_reg(x64.cpu, name.lower()) == value
        with pytest.raises(ValueError, match=f"{name} is set to a tuple"):
            arch.set_reg(x64.cpu, name, 1)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (PandaStatus.ERR_STATE, StateError),
        (PandaStatus.ERR_ARGUMENT, ValueError),
        (PandaStatus.ERR_MEMORY, GuestMemoryError),
    ],
)
def test_refused_by_the_core(x64: FakePanda, status: int, kind: type[Exception]) -> None:
    arch = make_arch(x64)
    x64.lib.refuse = (status, b"pause it first")
    with pytest.raises(kind, match="pause it first"):
        arch.set_reg(x64.cpu, "CR3", 0)
    with pytest.raises(kind, match="pause it first"):
        arch.set_pc(x64.cpu, 0)


# ---- pc ----


def test_pc(x64: FakePanda) -> None:
    arch = make_arch(x64)
    x64.cpu.panda_guest_pc = 0x5555
    assert arch.get_pc(x64.cpu) == 0x1000
    x64.cpu.in_callback = 1
    assert arch.get_pc(x64.cpu) == 0x5555
    assert arch.get_reg(x64.cpu, "pc") == 0x5555
    arch.set_reg(x64.cpu, "PC", 0x4000)
    assert x64.lib.pc == 0x4000
    arch.set_pc(x64.cpu, 0x6000)
    assert x64.lib.pc == 0x6000


# ---- conventions ----


def set_all(panda: FakePanda, arch: PandaArch) -> None:
    for number in range(len(arch.registers)):
        panda.cpu.env_ptr.regs[number] = 100 + number
    assert arch.reg_sp is not None
    panda.cpu.env_ptr.regs[arch.reg_sp] = panda.BASE
    for word in range(256 // panda.register_size):
        panda.put_word(panda.BASE + word * panda.register_size, 1000 + word)


@pytest.mark.parametrize(
    ("convention", "names"),
    [
        ("default", "RDI RSI RDX RCX R8 R9"),
        ("sysv", "RDI RSI RDX RCX R8 R9"),
        ("linux_kernel", "RDI RSI RDX RCX R8 R9"),
        ("syscall", "RAX RDI RSI RDX R10 R8 R9"),
    ],
)
def test_arguments_x86_64(x64: FakePanda, convention: str, names: str) -> None:
    arch = make_arch(x64)
    set_all(x64, arch)
    wanted = [arch.get_reg(x64.cpu, name) for name in names.split()]
    assert arch.get_args(x64.cpu, len(wanted), convention) == wanted
    with pytest.raises(NotImplementedError, match=f"places {len(wanted)} arguments"):
        arch.get_arg(x64.cpu, len(wanted), convention)
    arch.set_arg(x64.cpu, 1, 77, convention)
    assert arch.get_reg(x64.cpu, names.split()[1]) == 77


def test_arguments_i386(x32: FakePanda) -> None:
    arch = make_arch(x32)
    set_all(x32, arch)
    # Above the return address.
    assert arch.get_args(x32.cpu, 20) == [1001 + n for n in range(20)]
    assert arch.get_arg(x32.cpu, 2, "cdecl") == 1003
    assert arch.get_args(x32.cpu, 7, "syscall") == [
        arch.get_reg(x32.cpu, name) for name in ("EAX", "EBX", "ECX", "EDX", "ESI", "EDI", "EBP")
    ]
    kernel = [arch.get_reg(x32.cpu, name) for name in ("EAX", "EDX", "ECX")]
    assert arch.get_args(x32.cpu, 7, "linux_kernel") == [*kernel, 1004, 1005, 1006, 1007]
    arch.set_arg(x32.cpu, 0, 0xCAFE)
    arch.set_arg(x32.cpu, 1, b"\x01\x02")
    arch.set_arg(x32.cpu, 2, -2)
    assert x32.memory[4:10] == b"\xfe\xca\x00\x00\x01\x02"
    assert arch.get_arg(x32.cpu, 2) == 0xFFFFFFFE


def test_argument_errors(x64: FakePanda, x32: FakePanda) -> None:
    arch = make_arch(x64)
    with pytest.raises(NotImplementedError, match="no calling convention 'fastcall'; known: def"):
        arch.get_arg(x64.cpu, 0, "fastcall")
    with pytest.raises(NotImplementedError, match="fastcall"):
        arch.get_retval(x64.cpu, "fastcall")
    with pytest.raises(NotImplementedError, match="no return value"):
        arch.set_retval(x64.cpu, 0, "fastcall")
    with pytest.raises(ValueError, match="counted from 0"):
        arch.get_arg(x64.cpu, -1)
    with pytest.raises(ValueError, match="not to bytes"):
        arch.set_arg(x64.cpu, 0, b"abc")
    x32.cpu.env_ptr.regs[4] = 0
    with pytest.raises(ValueError, match="no memory at 0x4"):
        make_arch(x32).get_arg(x32.cpu, 0)


def test_stack_address_wraps(x32: FakePanda) -> None:
    arch = make_arch(x32)
    x32.cpu.env_ptr.regs[4] = 0xFFFFFFFC
    with pytest.raises(ValueError, match="no memory at 0x0"):
        arch.get_arg(x32.cpu, 0)


@pytest.mark.parametrize("name", ["x86_64", "i386"])
def test_return_values(name: str) -> None:
    panda = FakePanda(name)
    arch = make_arch(panda)
    for convention in arch.reg_retval:
        arch.set_retval(panda.cpu, -2, convention)
        raw = (1 << panda.bits) - 2
        assert panda.cpu.env_ptr.regs[0] == raw
        wanted = -2 if convention == "syscall" else raw
        assert arch.get_retval(panda.cpu, convention) == wanted
    with pytest.warns(DeprecationWarning, match="get_retval"):
        assert arch.get_return_value(panda.cpu) == raw


def test_freebsd_return_values(x64: FakePanda) -> None:
    arch = make_arch(x64)
    arch.set_reg(x64.cpu, "RAX", 2)
    arch.set_reg(x64.cpu, "EFLAGS", 3)
    assert arch.get_retval(x64.cpu, "syscall") == 2
    x64.family = "OS_FREEBSD"
    assert arch.get_retval(x64.cpu, "syscall") == -2
    assert arch.get_retval(x64.cpu) == 2
    arch.set_reg(x64.cpu, "EFLAGS", 2)
    assert arch.get_retval(x64.cpu, "syscall") == 2


@pytest.mark.parametrize("name", ["x86_64", "i386"])
def test_return_address(name: str) -> None:
    panda = FakePanda(name)
    arch = make_arch(panda)
    set_all(panda, arch)
    panda.put_word(panda.BASE, 0x8048123)
    assert arch.get_return_address(panda.cpu) == 0x8048123


def test_base_class_without_facts(x64: FakePanda) -> None:
    bare = PandaArch(x64)
    with pytest.raises(NotImplementedError, match="return address"):
        bare.get_return_address(x64.cpu)
    with pytest.raises(NotImplementedError, match="none is defined"):
        bare.get_arg(x64.cpu, 0)
    with pytest.raises(NotImplementedError, match="stack pointer"):
        bare.dump_stack(x64.cpu)


# ---- for people ----


def test_telescope(x64: FakePanda) -> None:
    base = x64.BASE
    cpu: Any = x64.cpu

    def follow(value: int) -> str:
        return telescope(x64, cpu, value)

    assert follow(0) == ""
    assert follow(0x10) == ""
    x64.memory[128:136] = b"/bin/sh\0"
    assert follow(base + 128) == ' -> "/bin/sh"'
    x64.put_word(base, base + 128)
    assert follow(base) == f' -> {base + 128:#x} -> "/bin/sh"'
    x64.put_word(base + 8, base + 8)
    assert follow(base + 8) == f" -> {base + 8:#x}" * 5
    x64.memory[128:144] = b"ab\0" + bytes(13)
    assert follow(base + 128) == " -> 0x6261"
    # The last word of a mapping: less than a window can be read.
    x64.put_word(base + 248, 0x42)
    assert follow(base + 248) == " -> 0x42"


def test_dumps(
    x32: FakePanda, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = make_arch(x32)
    base = x32.BASE
    x32.cpu.env_ptr.regs[0] = base + 128
    x32.memory[128:136] = b"/bin/sh\0"
    x32.cpu.env_ptr.regs[4] = base + 248
    x32.put_word(base + 248, 5)
    x32.put_word(base + 252, base + 128)
    arch.dump_regs(x32.cpu)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "PC: 0x1000"
    assert [line.split(":")[0] for line in lines[1:]] == list(arch.registers)
    assert lines[1] == f'EAX: {base + 128:#x} -> "/bin/sh"'
    assert lines[2] == "ECX: 0x0"
    arch.dump_stack(x32.cpu, words=3)
    assert capsys.readouterr().out.splitlines() == [
        f"[ESP+0x00] {base + 248:#x}: 0x5",
        f'[ESP+0x04] {base + 252:#x}: {base + 128:#x} -> "/bin/sh"',
        f"[ESP+0x08] {base + 256:#x}: cannot be read",
    ]
    x32.cpu.env_ptr.regs[4] = 0
    arch.dump_state(x32.cpu)
    captured = capsys.readouterr()
    assert captured.out.startswith("PC: 0x1000\n")
    assert captured.out.count("cannot be read") == 8
    assert "stack pointer is 0" in captured.err


# ---- the other families ----

OTHERS = ["arm", "aarch64", "mips", "mipsel", "mips64", "mips64el", "ppc", "ppc64", "riscv64"]

#: Stack pointer, return address (None: a register of the core), value, system call.
ABI = {
    "arm": ("SP", "LR", "R0", "R7"),
    "aarch64": ("SP", "LR", "X0", "XR"),
    **dict.fromkeys(["mips", "mipsel", "mips64", "mips64el"], ("SP", "RA", "V0", "V0")),
    **dict.fromkeys(["ppc", "ppc64"], ("SP", None, "R3", "R0")),
    "riscv64": ("SP", "RA", "A0", "A7"),
}


def other(name: str) -> tuple[FakePanda, PandaArch]:
    panda = FakePanda(name)
    panda.lib.values.update(CR0=bytes(4), LR=(0x4321).to_bytes(panda.register_size, "little"))
    if name == "aarch64":
        panda.cpu.env_ptr.aarch64 = True
    return panda, make_arch(panda)


@pytest.mark.parametrize("name", OTHERS)
def test_every_register_of_other_families(name: str) -> None:
    panda, arch = other(name)
    special = {arch.reg_pc, arch.reg_zero}
    assert set(arch.registers.values()) == set(range(16 if name == "arm" else 32))
    for key, number in {
        **arch.registers,
        **{a: arch.registers[r] for a, r in arch.aliases.items()},
    }.items():
        if number in special:
            continue
        for form in (key, key.lower(), number):
            arch.set_reg(panda.cpu, form, 0x1000 + number)
            assert arch.general_registers(panda.cpu)[number] == 0x1000 + number
            assert arch.get_reg(panda.cpu, form) == 0x1000 + number
    with pytest.raises(ValueError, match="does not fit"):
        arch.set_reg(panda.cpu, arch.reg_sp, 1 << panda.bits)
    with pytest.raises(ValueError, match="has no register 'EAX'"):
        arch.get_reg(panda.cpu, "EAX")


@pytest.mark.parametrize("name", OTHERS)
def test_conventions_of_other_families(name: str) -> None:
    panda, arch = other(name)
    sp, link, value, number = ABI[name]
    assert arch.registers[sp] == arch.reg_sp
    arch.set_reg(panda.cpu, link or "LR", 0x4320)
    assert arch.get_return_address(panda.cpu) == 0x4320
    for convention, places in arch.call_conventions.items():
        for index, place in enumerate(places):
            if not place.startswith("stack_"):
                arch.set_arg(panda.cpu, index, 0x77 + index, convention)
                assert arch.get_reg(panda.cpu, place) == 0x77 + index
                assert arch.get_arg(panda.cpu, index, convention) == 0x77 + index
    assert arch.call_conventions["syscall"][0] == number
    for convention in arch.reg_retval:
        arch.set_retval(panda.cpu, 0x55, convention)
        assert arch.get_reg(panda.cpu, value) == 0x55 == arch.get_retval(panda.cpu, convention)


@pytest.mark.parametrize("name", OTHERS)
def test_failed_system_calls(name: str) -> None:
    panda, arch = other(name)
    value = ABI[name][2]
    arch.set_retval(panda.cpu, -13, "syscall", failure=True)
    assert arch.get_retval(panda.cpu, "syscall") == -13
    flagged = name.startswith(("mips", "ppc"))
    assert arch.get_reg(panda.cpu, value) == (13 if flagged else (1 << panda.bits) - 13)
    arch.set_retval(panda.cpu, 13, "syscall", failure=False)
    assert arch.get_retval(panda.cpu, "syscall") == 13
    # Only system calls have the flag.
    arch.set_retval(panda.cpu, 13, "syscall", failure=True)
    assert arch.get_retval(panda.cpu) == 13


@pytest.mark.parametrize("name", ["mips", "mips64", "riscv64"])
def test_register_zero(name: str) -> None:
    panda, arch = other(name)
    for key in ("ZERO", "zero", 0):
        arch.set_reg(panda.cpu, key, 5)
        assert arch.get_reg(panda.cpu, key) == 0


def test_arm_program_counter() -> None:
    panda, arch = other("arm")
    for address, key in enumerate(("IP", "r15", 15, "PC")):
        arch.set_reg(panda.cpu, key, 0x8000 + 4 * address)
        assert panda.lib.pc == 0x8000 + 4 * address
    arch.set_reg(panda.cpu, "LR", 0x1235)
    assert arch.get_return_address(panda.cpu) == 0x1234


def test_lower_halves() -> None:
    panda, arch = other("aarch64")
    arch.set_reg(panda.cpu, "X3", 0x1122334455667788)
    assert arch.get_reg(panda.cpu, "w3") == 0x55667788
    arch.set_reg(panda.cpu, "W3", 1)
    assert arch.get_reg(panda.cpu, "X3") == 0x1122334400000001
    with pytest.raises(ValueError, match="W31"):
        arch.get_reg(panda.cpu, "W31")


def test_32_bit_code_on_a_64_bit_cpu() -> None:
    panda, arch = other("aarch64")
    panda.cpu.env_ptr.aarch64 = False
    registers = panda.cpu.env_ptr.regs
    arch.set_reg(panda.cpu, "R3", 7)
    assert registers[3] == 7 and arch.get_arg(panda.cpu, 3, "arm64") == 7
    arch.set_retval(panda.cpu, -13, "syscall")
    assert registers[0] == 0xFFFFFFF3
    assert arch.get_retval(panda.cpu, "syscall") == -13
    with pytest.raises(ValueError, match="32 bits"):
        arch.set_reg(panda.cpu, "PC", 1 << 32)
    with pytest.raises(ValueError, match="X0"):
        arch.get_reg(panda.cpu, "X0")
    panda.cpu.env_ptr.aarch64 = True
    assert arch.get_reg(panda.cpu, "X0") == 0
