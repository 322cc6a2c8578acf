"""Guest architectures: registers, calling conventions, the stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandalite.errors import UnknownArchitectureError

from .arm import Aarch64Arch, ArmArch
from .base import PandaArch
from .mips import Mips64Arch, MipsArch
from .ppc import PowerPCArch
from .riscv import RiscV64Arch
from .x86 import X86_64Arch, X86Arch

if TYPE_CHECKING:
    from .base import ArchHost

__all__ = [
    "Aarch64Arch",
    "ArmArch",
    "Mips64Arch",
    "MipsArch",
    "PandaArch",
    "PowerPCArch",
    "RiscV64Arch",
    "X86Arch",
    "X86_64Arch",
    "make_arch",
]

#: The class for each architecture.
_CLASSES: dict[str, type[PandaArch]] = {
    "i386": X86Arch,
    "x86_64": X86_64Arch,
    "arm": ArmArch,
    "aarch64": Aarch64Arch,
    "mips": MipsArch,
    "mipsel": MipsArch,
    "mips64": Mips64Arch,
    "mips64el": Mips64Arch,
    "ppc": PowerPCArch,
    "ppc64": PowerPCArch,
    "riscv64": RiscV64Arch,
}


def make_arch(panda: ArchHost) -> PandaArch:
    """Return the architecture object for a machine, by its ``arch_name``.

    Raises:
        UnknownArchitectureError: if there is none.
    """
    try:
        kind = _CLASSES[panda.arch_name]
    except KeyError:
        raise UnknownArchitectureError(
            f"Unsupported architecture {panda.arch_name!r}; known: {', '.join(_CLASSES)}"
        ) from None
    return kind(panda)
