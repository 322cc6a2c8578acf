"""Guest registers as gdb wants them: descriptions of targets, and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .errors import UnsupportedFeatureError


class GdbRegister(NamedTuple):
    """A register as gdb knows it."""

    name: str
    bits: int
    #: gdb's type of it.
    type: str = "int"
    #: Our name, if another; "": its value is not available.
    ours: str | None = None


class Feature(NamedTuple):
    """A group of registers that gdb knows by name."""

    name: str
    registers: tuple[GdbRegister, ...]


class GdbTarget(NamedTuple):
    """What gdb needs to know of an architecture."""

    #: gdb's name of it.
    architecture: str
    features: tuple[Feature, ...]
    #: gdb expects watchpoints to be met before the access, and steps over it.
    stops_before_access: bool = False

    @property
    def registers(self) -> Sequence[GdbRegister]:
        """All of them, in gdb's order."""
        return [register for feature in self.features for register in feature.registers]

    def xml(self) -> str:
        """The description that gdb reads."""
        lines = [
            '<?xml version="1.0"?>',
            '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
            "<target>",
            f"<architecture>{self.architecture}</architecture>",
        ]
        for feature in self.features:
            lines.append(f'<feature name="{feature.name}">')
            lines += [
                f'<reg name="{r.name}" bitsize="{r.bits}" type="{r.type}"/>'
                for r in feature.registers
            ]
            lines.append("</feature>")
        return "\n".join([*lines, "</target>", ""])


def _plain(names: str, bits: int, **types: str) -> tuple[GdbRegister, ...]:
    return tuple(GdbRegister(n, bits, types.get(n, f"int{bits}")) for n in names.split())


def _x86(general: str, bits: int, ip: str) -> tuple[GdbRegister, ...]:
    pointers = {general.split()[i]: "data_ptr" for i in ((6, 7) if bits == 64 else (4, 5))}
    return (
        *_plain(general, bits, **pointers),
        GdbRegister(ip, bits, "code_ptr", "PC"),
        GdbRegister("eflags", 32, "int32"),
        *_plain("cs ss ds es fs gs", 32),
        *(GdbRegister(f"st{n}", 80, "i387_ext", "") for n in range(8)),
        *(
            GdbRegister(name, 32, "int", "")
            for name in ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"]
        ),
    )


_PC64 = GdbRegister("pc", 64, "code_ptr", "PC")

_TARGETS = {
    "x86_64": GdbTarget(
        "i386:x86-64",
        (
            Feature(
                "org.gnu.gdb.i386.core",
                _x86("rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15", 64, "rip"),
            ),
            Feature(
                "org.gnu.gdb.i386.segments",
                (
                    GdbRegister("fs_base", 64, "int", "FSBASE"),
                    GdbRegister("gs_base", 64, "int", "GSBASE"),
                ),
            ),
        ),
    ),
    "i386": GdbTarget(
        "i386",
        (
            Feature(
                "org.gnu.gdb.i386.core",
                _x86("eax ecx edx ebx esp ebp esi edi", 32, "eip"),
            ),
        ),
    ),
    "aarch64": GdbTarget(
        "aarch64",
        (
            Feature(
                "org.gnu.gdb.aarch64.core",
                (
                    *_plain(" ".join(f"x{n}" for n in range(31)), 64),
                    GdbRegister("sp", 64, "data_ptr"),
                    _PC64,
                    GdbRegister("cpsr", 32, "int32"),
                ),
            ),
        ),
        stops_before_access=True,
    ),
    "arm": GdbTarget(
        "arm",
        (
            Feature(
                "org.gnu.gdb.arm.core",
                (
                    *_plain(" ".join(f"r{n}" for n in range(13)), 32),
                    GdbRegister("sp", 32, "data_ptr"),
                    GdbRegister("lr", 32),
                    GdbRegister("pc", 32, "code_ptr", "PC"),
                    GdbRegister("cpsr", 32),
                ),
            ),
        ),
        stops_before_access=True,
    ),
    "riscv64": GdbTarget(
        "riscv:rv64",
        (
            Feature(
                "org.gnu.gdb.riscv.cpu",
                (
                    *_plain(
                        "zero ra sp gp tp t0 t1 t2 fp s1 a0 a1 a2 a3 a4 a5 a6 a7 "
                        "s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6",
                        64,
                        ra="code_ptr",
                        sp="data_ptr",
                        gp="data_ptr",
                        fp="data_ptr",
                    ),
                    _PC64,
                ),
            ),
        ),
    ),
}


def target_of(arch_name: str) -> GdbTarget:
    """What gdb needs to know of a guest architecture.

    Raises:
        UnsupportedFeatureError: it is not described here.
    """
    try:
        return _TARGETS[arch_name]
    except KeyError:
        raise UnsupportedFeatureError(
            f"gdb cannot debug replays of {arch_name} yet; it can those of {', '.join(_TARGETS)}"
        ) from None


class RegisterReader:
    """Reads the guest's registers in gdb's encoding."""

    def __init__(self, target: GdbTarget, panda: Any) -> None:
        self._panda = panda
        self._arch: Any = panda.arch
        self._readers = [self._reader(register) for register in target.registers]
        self._registers = target.registers

    def __len__(self) -> int:
        return len(self._readers)

    def read(self, number: int) -> str:
        """A register in hexadecimal digits, or x's if there is no knowing it."""
        size = self._registers[number].bits // 8
        value = self._readers[number]()
        if value is None:
            return "xx" * size
        # All architectures described here are little-endian.
        return str((value & ((1 << size * 8) - 1)).to_bytes(size, "little").hex())

    def _reader(self, register: GdbRegister) -> Callable[[], Any]:
        panda = self._panda
        arch = self._arch
        name = register.name.upper() if register.ours is None else register.ours
        if name == "":
            return lambda: None
        if name == "PC":
            return lambda: arch.get_pc(panda.cpu)
        if name in getattr(arch, "seg_names", ()):
            return lambda: arch._read_segment(panda.cpu, name).selector
        if hasattr(arch, "arm32"):
            return lambda: _read_aarch64(arch, panda.cpu, name)
        return lambda: arch.get_reg(panda.cpu, name)


def _read_aarch64(arch: Any, cpu: Any, name: str) -> int | None:
    """A 64-bit register; while 32-bit code runs, the 32-bit one of that number."""
    if arch._is_narrow(cpu) and name.startswith("X"):
        name = f"R{name[1:]}"
        if name not in arch.arm32.aliases and name not in arch.arm32.registers:
            return None
    value: int = arch.get_reg(cpu, name)
    return value
