"""Guest architectures: registers, calling conventions, the stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandalite.errors import UnknownArchitectureError

from .base import PandaArch
from .x86 import X86_64Arch, X86Arch

if TYPE_CHECKING:
    from .base import ArchHost

__all__ = ["PandaArch", "X86Arch", "X86_64Arch", "make_arch"]

#: The class for each architecture.
_CLASSES: dict[str, type[PandaArch]] = {
    "i386": X86Arch,
    "x86_64": X86_64Arch,
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
