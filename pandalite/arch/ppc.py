"""The PowerPC family: ppc and ppc64."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from .base import PandaArch, numbered

if TYPE_CHECKING:
    from pandalite._bindings.structs import PandaCPU

__all__ = ["PowerPCArch"]

#: Summary overflow in a field of the condition register: a system call failed.
_SO = 1


class PowerPCArch(PandaArch):
    """Registers and conventions of PowerPC guests, of 32 and 64 bits.

    Besides the general registers (``R1`` is ``SP``), :meth:`get_reg` and :meth:`set_reg`
    take ``LR CTR CR XER``, the fields ``CR0`` to ``CR7``, ``MSR SRR0 SRR1 SPRG0`` to
    ``SPRG3``, ``DAR DSISR PVR FPSCR``, ``SR0`` to ``SR15`` and ``F0`` to ``F31`` (64 bits).
    """

    registers = numbered(("R0", "SP", *(f"R{n}" for n in range(2, 32))))
    aliases = MappingProxyType({"R1": "SP"})
    register_file = "gpr"
    reg_sp = 1
    reg_retval = MappingProxyType(
        {"default": "R3", "ppc": "R3", "syscall": "R3", "linux_kernel": "R3"}
    )
    call_conventions = MappingProxyType(
        {
            "default": tuple(f"R{n}" for n in range(3, 11)),
            "ppc": tuple(f"R{n}" for n in range(3, 11)),
            "linux_kernel": tuple(f"R{n}" for n in range(3, 11)),
            "syscall": ("R0", *(f"R{n}" for n in range(3, 9))),
        }
    )

    def _syscall_failed(self, cpu: PandaCPU) -> bool:
        return bool(self.get_reg(cpu, "CR0") & _SO)

    def _set_syscall_failed(self, cpu: PandaCPU, failure: bool) -> bool:
        field = self.get_reg(cpu, "CR0") & ~_SO
        self.set_reg(cpu, "CR0", field | (_SO if failure else 0))
        return True

    def get_return_address(self, cpu: PandaCPU) -> int:
        """Return where a function returns to, at its entry: LR."""
        value: int = self.get_reg(cpu, "LR")
        return value
