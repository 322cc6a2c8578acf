"""The MIPS family: mips, mipsel, mips64 and mips64el."""

from __future__ import annotations

import warnings
from types import MappingProxyType
from typing import TYPE_CHECKING

from .base import PandaArch, numbered

if TYPE_CHECKING:
    from pandalite._bindings.structs import PandaCPU

__all__ = ["Mips64Arch", "MipsArch"]


class MipsArch(PandaArch):
    """Registers and conventions of 32-bit MIPS guests (o32).

    Besides the general registers, :meth:`get_reg` and :meth:`set_reg` take ``HI LO``
    (of the multiplier), ``F0`` to ``F31`` (64 bits each), ``FCCR FCSR FIR DSPCONTROL``, and
    of the system coprocessor ``CP0_STATUS CP0_CAUSE CP0_EPC CP0_ERROREPC CP0_BADVADDR
    CP0_ENTRYHI CP0_ENTRYLO0 CP0_ENTRYLO1 CP0_CONTEXT CP0_PAGEMASK CP0_WIRED CP0_INDEX
    CP0_COMPARE CP0_PRID CP0_EBASE CP0_CONFIG CP0_USERLOCAL``. ``ZERO`` is always 0:
    what is written to it is lost.
    """

    registers = numbered(
        (
            *("ZERO", "AT", "V0", "V1", "A0", "A1", "A2", "A3"),
            *(f"T{n}" for n in range(8)),
            *(f"S{n}" for n in range(8)),
            *("T8", "T9", "K0", "K1", "GP", "SP", "FP", "RA"),
        )
    )
    aliases = MappingProxyType({"R30": "FP", "S8": "FP"})
    register_file = "active_tc.gpr"
    reg_zero = 0
    reg_sp = 29
    reg_retaddr = 31
    reg_retval = MappingProxyType(
        {"default": "V0", "mips": "V0", "syscall": "V0", "linux_kernel": "V0"}
    )
    call_conventions = MappingProxyType(
        {
            # The caller leaves room for the four that are in registers.
            **dict.fromkeys(
                ("default", "mips", "linux_kernel"),
                ("A0", "A1", "A2", "A3", *(f"stack_{n}" for n in range(3, 19))),
            ),
            "syscall": (
                *("V0", "A0", "A1", "A2", "A3"),
                *("stack_3", "stack_4", "stack_5", "stack_6"),
            ),
        }
    )

    def _syscall_failed(self, cpu: PandaCPU) -> bool:
        return bool(self.get_reg(cpu, "A3") == 1)

    def _set_syscall_failed(self, cpu: PandaCPU, failure: bool) -> bool:
        self.set_reg(cpu, "A3", int(failure))
        return True

    def get_call_return(self, cpu: PandaCPU) -> int:
        """Return :meth:`get_return_address`; its former name."""
        warnings.warn(
            "get_call_return is deprecated, use get_return_address",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.get_return_address(cpu)


class Mips64Arch(MipsArch):
    """Registers and conventions of 64-bit MIPS guests (n64); see :class:`MipsArch`."""

    registers = numbered(
        (
            *("ZERO", "AT", "V0", "V1"),
            *(f"A{n}" for n in range(8)),
            *(f"T{n}" for n in range(4)),
            *(f"S{n}" for n in range(8)),
            *("T8", "T9", "K0", "K1", "GP", "SP", "S8", "RA"),
        )
    )
    aliases = MappingProxyType({"R30": "S8", "FP": "S8"})
    call_conventions = MappingProxyType(
        {
            **dict.fromkeys(("default", "mips", "linux_kernel"), ("A0", "A1", "A2", "A3")),
            "syscall": ("V0", "A0", "A1", "A2", "A3", "A4", "A5"),
        }
    )
