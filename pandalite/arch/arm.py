"""The ARM family: arm and aarch64."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .base import PandaArch, Register, numbered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandalite._bindings.structs import PandaCPU

    from .base import ArchHost

__all__ = ["Aarch64Arch", "ArmArch"]


class ArmArch(PandaArch):
    """Registers and conventions of 32-bit ARM guests.

    Besides the general registers (``IP`` is the program counter, number 15, and
    ``R15`` too), :meth:`get_reg` and :meth:`set_reg` take ``CPSR SPSR SCTLR TTBCR
    TTBR0 TTBR1 CONTEXTIDR VBAR DFSR DFAR IFAR TPIDRURW TPIDRURO TPIDRPRW FPSCR`` and
    ``D0`` to ``D31`` (64 bits).
    """

    registers = numbered((*(f"R{n}" for n in range(13)), "SP", "LR", "IP"))
    aliases = MappingProxyType({"R13": "SP", "R14": "LR", "R15": "IP"})
    register_file = "regs"
    reg_sp = 13
    reg_retaddr = 14
    reg_pc = 15
    reg_retval = MappingProxyType(
        {"default": "R0", "arm32": "R0", "syscall": "R0", "linux_kernel": "R0"}
    )
    call_conventions = MappingProxyType(
        {
            "default": ("R0", "R1", "R2", "R3"),
            "arm32": ("R0", "R1", "R2", "R3"),
            "linux_kernel": ("R0", "R1", "R2", "R3"),
            "syscall": ("R7", "R0", "R1", "R2", "R3", "R4", "R5"),
        }
    )

    def get_return_address(self, cpu: PandaCPU) -> int:
        """Return where a function returns to, at its entry: LR without the Thumb bit."""
        return super().get_return_address(cpu) & ~1


class _Arm32State(ArmArch):
    """The 32-bit registers of a 64-bit CPU, which are a file of their own."""

    register_width = 4


class Aarch64Arch(PandaArch):
    """Registers and conventions of 64-bit ARM guests.

    Besides the general registers (``X8`` is ``XR``, ``X16`` and ``X17`` are ``IP0`` and
    ``IP1``, ``X18`` is ``PR``, ``X29`` and ``X30`` are ``FP`` and ``LR``; ``W0`` to ``W30``
    are their lower halves), :meth:`get_reg` and :meth:`set_reg` take ``PSTATE`` (or
    ``CPSR``) ``SPSR SCTLR_EL1 TCR_EL1 TTBR0_EL1 TTBR1_EL1 VBAR_EL1 CONTEXTIDR_EL1 ESR_EL1
    FAR_EL1 ELR_EL1 SP_EL0 SP_EL1 TPIDR_EL0 TPIDRRO_EL0 TPIDR_EL1 FPCR FPSR`` and the
    vectors ``V0`` to ``V31`` (128 bits).

    While the CPU runs 32-bit code, all methods act as those of :class:`ArmArch`.
    """

    registers = numbered(
        (
            *(f"X{n}" for n in range(8)),
            "XR",
            *(f"X{n}" for n in range(9, 16)),
            *("IP0", "IP1", "PR"),
            *(f"X{n}" for n in range(19, 29)),
            *("FP", "LR", "SP"),
        )
    )
    aliases = MappingProxyType(
        {"X8": "XR", "X16": "IP0", "X17": "IP1", "X18": "PR", "X29": "FP", "X30": "LR"}
    )
    narrow_prefix = "W"
    register_file = "xregs"
    reg_sp = 31
    reg_retaddr = 30
    reg_retval = MappingProxyType(
        {"default": "X0", "arm64": "X0", "syscall": "X0", "linux_kernel": "X0"}
    )
    call_conventions = MappingProxyType(
        {
            "default": tuple(f"X{n}" for n in range(8)),
            "arm64": tuple(f"X{n}" for n in range(8)),
            "linux_kernel": tuple(f"X{n}" for n in range(8)),
            "syscall": ("XR", *(f"X{n}" for n in range(8))),
        }
    )

    def __init__(self, panda: ArchHost) -> None:
        """Bind to a :class:`~pandalite.Panda`; done by its constructor."""
        super().__init__(panda)
        #: The same machine's 32-bit state.
        self.arm32 = _Arm32State(panda)

    def attach(self) -> None:
        """Use the machine's register files."""
        super().attach()
        self.arm32.attach()

    def detach(self) -> None:
        """Forget the machine's register files."""
        super().detach()
        self.arm32.detach()

    @staticmethod
    def _is_narrow(cpu: PandaCPU) -> bool:
        state: Any = cpu.env_ptr
        return state is not None and not state.aarch64

    def get_reg(self, cpu: PandaCPU, reg: Register) -> Any:
        """Return the value of a register; see :meth:`PandaArch.get_reg`."""
        if self._is_narrow(cpu):
            return self.arm32.get_reg(cpu, reg)
        return super().get_reg(cpu, reg)

    def set_reg(self, cpu: PandaCPU, reg: Register, val: Any) -> None:
        """Set a register; see :meth:`PandaArch.set_reg`."""
        if self._is_narrow(cpu):
            self.arm32.set_reg(cpu, reg, val)
        else:
            super().set_reg(cpu, reg, val)

    def get_arg(self, cpu: PandaCPU, idx: int, convention: str = "default") -> int:
        """Return argument ``idx`` of a function; see :meth:`PandaArch.get_arg`."""
        if self._is_narrow(cpu):
            return self.arm32.get_arg(cpu, idx, _narrow(convention))
        return super().get_arg(cpu, idx, convention)

    def get_args(self, cpu: PandaCPU, num: int, convention: str = "default") -> list[int]:
        """Return the first arguments of a function; see :meth:`PandaArch.get_args`."""
        if self._is_narrow(cpu):
            return self.arm32.get_args(cpu, num, _narrow(convention))
        return super().get_args(cpu, num, convention)

    def argument_places(self, cpu: PandaCPU, num: int, convention: str = "default") -> bytes:
        """Return where arguments are; see :meth:`PandaArch.argument_places`."""
        if self._is_narrow(cpu):
            return self.arm32.argument_places(cpu, num, _narrow(convention))
        return super().argument_places(cpu, num, convention)

    def get_regs(self, cpu: PandaCPU, regs: Sequence[Register]) -> list[Any]:
        """Return the values of several registers; see :meth:`PandaArch.get_regs`."""
        if self._is_narrow(cpu):
            return self.arm32.get_regs(cpu, regs)
        return super().get_regs(cpu, regs)

    def set_arg(
        self, cpu: PandaCPU, idx: int, val: int | bytes, convention: str = "default"
    ) -> None:
        """Set argument ``idx`` of a function; see :meth:`PandaArch.set_arg`."""
        if self._is_narrow(cpu):
            self.arm32.set_arg(cpu, idx, val, _narrow(convention))
        else:
            super().set_arg(cpu, idx, val, convention)

    def get_retval(self, cpu: PandaCPU, convention: str = "default") -> int:
        """Return what a function returned; see :meth:`PandaArch.get_retval`."""
        if self._is_narrow(cpu):
            return self.arm32.get_retval(cpu, _narrow(convention))
        return super().get_retval(cpu, convention)

    def set_retval(
        self, cpu: PandaCPU, val: int, convention: str = "default", failure: bool = False
    ) -> None:
        """Set what a function returns; see :meth:`PandaArch.set_retval`."""
        if self._is_narrow(cpu):
            self.arm32.set_retval(cpu, val, _narrow(convention), failure)
        else:
            super().set_retval(cpu, val, convention, failure)

    def get_return_address(self, cpu: PandaCPU) -> int:
        """Return where a function returns to, at its entry: LR."""
        if self._is_narrow(cpu):
            return self.arm32.get_return_address(cpu)
        return super().get_return_address(cpu)

    def dump_regs(self, cpu: PandaCPU) -> None:
        """Print the program counter and the general registers, and what they point to."""
        if self._is_narrow(cpu):
            self.arm32.dump_regs(cpu)
        else:
            super().dump_regs(cpu)

    def dump_stack(self, cpu: PandaCPU, words: int = 8) -> None:
        """Print the words from the stack pointer upward, and what they point to."""
        if self._is_narrow(cpu):
            self.arm32.dump_stack(cpu, words)
        else:
            super().dump_stack(cpu, words)


def _narrow(convention: str) -> str:
    return {"arm64": "arm32"}.get(convention, convention)
