"""The RISC-V family: riscv64."""

from __future__ import annotations

from types import MappingProxyType

from .base import PandaArch, numbered

__all__ = ["RiscV64Arch"]


class RiscV64Arch(PandaArch):
    """Registers and conventions of 64-bit RISC-V guests.

    Besides the general registers (``X0`` to ``X31`` are names for them too, ``FP`` is
    ``S0``), :meth:`get_reg` and :meth:`set_reg` take ``F0`` to ``F31`` (64 bits), ``FRM
    FFLAGS PRIV SATP STVEC SEPC SCAUSE STVAL SSCRATCH MSTATUS MTVEC MEPC MCAUSE MTVAL
    MSCRATCH MIE MIP MIDELEG MEDELEG MHARTID``. ``ZERO`` is always 0: what is written
    to it is lost.
    """

    registers = numbered(
        (
            *("ZERO", "RA", "SP", "GP", "TP", "T0", "T1", "T2", "S0", "S1"),
            *(f"A{n}" for n in range(8)),
            *(f"S{n}" for n in range(2, 12)),
            *("T3", "T4", "T5", "T6"),
        )
    )
    aliases = MappingProxyType(
        {"FP": "S0", **{f"X{number}": name for number, name in enumerate(registers)}}
    )
    register_file = "gpr"
    reg_zero = 0
    reg_sp = 2
    reg_retaddr = 1
    reg_retval = MappingProxyType(
        {"default": "A0", "riscv": "A0", "syscall": "A0", "linux_kernel": "A0"}
    )
    call_conventions = MappingProxyType(
        {
            "default": tuple(f"A{n}" for n in range(8)),
            "riscv": tuple(f"A{n}" for n in range(8)),
            "linux_kernel": tuple(f"A{n}" for n in range(8)),
            "syscall": ("A7", "A0", "A1", "A2", "A3", "A4", "A5"),
        }
    )
