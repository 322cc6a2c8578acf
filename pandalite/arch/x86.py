"""The x86 family: x86_64 and i386."""

from __future__ import annotations

import re
from ctypes import sizeof
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable

from pandalite._bindings.structs import PandaSegment
from pandalite.errors import PandaError

from .base import PandaArch, SubRegister, numbered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandalite._bindings.structs import PandaCPU

__all__ = ["X86Arch", "X86_64Arch"]

#: The numbered vector registers, with the suffixes PyPANDA lets one add.
_XMM = re.compile(r"(XMM\d+)[HLQX]?")
_NO_VECTOR = re.compile(r"(?:MM|YMM|ZMM)\d+")

_LEGACY = ("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI")
_LOW_BYTES = ("AL", "CL", "DL", "BL")
_HIGH_BYTES = ("AH", "CH", "DH", "BH")


def _legacy_parts() -> dict[str, SubRegister]:
    parts = {name: SubRegister(number, 0, 16) for number, name in enumerate(_LEGACY)}
    parts.update({name: SubRegister(number, 0, 8) for number, name in enumerate(_LOW_BYTES)})
    parts.update({name: SubRegister(number, 8, 8) for number, name in enumerate(_HIGH_BYTES)})
    return parts


def _long_parts() -> dict[str, SubRegister]:
    parts = {f"E{name}": SubRegister(number, 0, 32) for number, name in enumerate(_LEGACY)}
    parts.update(_legacy_parts())
    parts.update({f"{name}L": SubRegister(4 + i, 0, 8) for i, name in enumerate(_LEGACY[4:])})
    for number in range(8, 16):
        for suffix, width in (("D", 32), ("W", 16), ("B", 8)):
            parts[f"R{number}{suffix}"] = SubRegister(number, 0, width)
    return parts


class X86_64Arch(PandaArch):
    """Registers and conventions of x86_64 guests.

    Besides the general registers, :meth:`get_reg` and :meth:`set_reg` take:

    - their parts: ``EAX``, ``AX``, ``AL``, ``AH``, ``SPL``, ``R8D``, ``R8W``, ``R8B``, ...;
    - ``RFLAGS``, ``EFLAGS`` (all flags, exact in every callback), ``RIP``, ``EIP`` (the
      offset in the code segment; ``PC`` is the linear address);
    - ``ES CS SS DS FS GS``: the segment's base address;
    - ``LDT TR GDT IDT``: a tuple (selector, base, limit, flags);
    - ``CR0 CR2 CR3 CR4 CR8``, ``DR0`` to ``DR7``, ``EFER``, ``STAR``, ``LSTAR``, ``CSTAR``,
      ``FMASK``, ``SYSENTER_CS``, ``SYSENTER_ESP``, ``SYSENTER_EIP``, ``FSBASE``, ``GSBASE``,
      ``KERNELGSBASE``;
    - ``XMM0`` to ``XMM15``: an int of 128 bits.
    """

    registers = numbered(
        ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", *(f"R{n}" for n in range(8, 16)))
    )
    sub_registers = MappingProxyType(_long_parts())
    register_file = "regs"
    reg_sp = 4
    reg_retval = MappingProxyType(
        {"default": "RAX", "sysv": "RAX", "syscall": "RAX", "linux_kernel": "RAX"}
    )
    call_conventions = MappingProxyType(
        {
            "default": ("RDI", "RSI", "RDX", "RCX", "R8", "R9"),
            "sysv": ("RDI", "RSI", "RDX", "RCX", "R8", "R9"),
            "linux_kernel": ("RDI", "RSI", "RDX", "RCX", "R8", "R9"),
            "syscall": ("RAX", "RDI", "RSI", "RDX", "R10", "R8", "R9"),
        }
    )

    #: Names of the general registers, in the order of their numbers.
    reg_names_general: Sequence[str] = tuple(registers)
    #: Names of the low 16 bits of the first eight.
    reg_names_short: Sequence[str] = _LEGACY
    #: Names of the bytes of the first four.
    reg_names_byte: Sequence[str] = (*_LOW_BYTES, *_HIGH_BYTES)
    #: The segment registers, in the order of their numbers.
    seg_names: Sequence[str] = ("ES", "CS", "SS", "DS", "FS", "GS")
    #: Descriptor-table registers and system segments.
    reg_names_mmr: Sequence[str] = ("LDT", "TR", "GDT", "IDT")

    def _syscall_failed(self, cpu: PandaCPU) -> bool:
        # FreeBSD: the carry flag marks an error number.
        return self._is_freebsd() and bool(self.get_reg(cpu, "EFLAGS") & 1)

    def get_return_address(self, cpu: PandaCPU) -> int:
        """Return where a function returns to, at its entry: the word at the stack pointer."""
        return self._read_stack(cpu, 0)

    def _is_freebsd(self) -> bool:
        family = getattr(self.panda, "get_os_family", None)
        try:
            return family is not None and family() == "OS_FREEBSD"
        except PandaError:
            # Nothing is known of the system.
            return False

    # ---- registers of this family ----

    def _special_reader(self, name: str) -> Callable[[PandaCPU], Any]:
        if name in self.seg_names:
            return lambda cpu: self._read_segment(cpu, name).base
        if name in self.reg_names_mmr:
            return lambda cpu: self._read_table(cpu, name)
        if _NO_VECTOR.fullmatch(name):
            raise ValueError(f"reading {name} is not supported; XMM registers are")
        return super()._special_reader(self._vector_name(name))

    def _set_special(self, cpu: PandaCPU, name: str, val: Any) -> None:
        if name in ("FS", "GS"):
            # The base alone: that needs no new translation of the running code.
            super()._set_special(cpu, f"{name}BASE", val)
        elif name in self.seg_names:
            segment = self._read_segment(cpu, name)
            segment.base = self._fit(val, self.panda.bits, name)
            self._write_core(cpu, name, bytes(segment))
        elif name in self.reg_names_mmr:
            self._write_core(cpu, name, bytes(self._table_value(name, val)))
        elif _NO_VECTOR.fullmatch(name):
            raise NotImplementedError(f"writing {name} is not supported; XMM registers are")
        else:
            super()._set_special(cpu, self._vector_name(name), val)

    @staticmethod
    def _vector_name(name: str) -> str:
        match = _XMM.fullmatch(name)
        return match[1] if match else name

    def _read_segment(self, cpu: PandaCPU, name: str) -> PandaSegment:
        buf = self._read_core(cpu, name)
        assert len(buf) == sizeof(PandaSegment)
        return PandaSegment.from_buffer_copy(buf)

    def _read_table(self, cpu: PandaCPU, name: str) -> tuple[int, int, int, int]:
        segment = self._read_segment(cpu, name)
        return (segment.selector, segment.base, segment.limit, segment.flags)

    def _table_value(self, name: str, val: Any) -> PandaSegment:
        try:
            selector, base, limit, flags = val
        except (TypeError, ValueError):
            raise ValueError(
                f"{name} is set to a tuple (selector, base, limit, flags), not to {val!r}"
            ) from None
        return PandaSegment(
            selector=self._fit(selector, 32, f"the selector of {name}"),
            base=self._fit(base, self.panda.bits, f"the base of {name}"),
            limit=self._fit(limit, 32, f"the limit of {name}"),
            flags=self._fit(flags, 32, f"the flags of {name}"),
        )


class X86Arch(X86_64Arch):
    """Registers and conventions of i386 guests; see :class:`X86_64Arch`."""

    registers = numbered(tuple(f"E{name}" for name in _LEGACY))
    sub_registers = MappingProxyType(_legacy_parts())
    reg_retval = MappingProxyType(
        {"default": "EAX", "cdecl": "EAX", "syscall": "EAX", "linux_kernel": "EAX"}
    )
    call_conventions = MappingProxyType(
        {
            "default": tuple(f"stack_{n}" for n in range(20)),
            "cdecl": tuple(f"stack_{n}" for n in range(20)),
            "syscall": ("EAX", "EBX", "ECX", "EDX", "ESI", "EDI", "EBP"),
            "linux_kernel": ("EAX", "EDX", "ECX", "stack_3", "stack_4", "stack_5", "stack_6"),
        }
    )
    reg_names_general: Sequence[str] = tuple(registers)
