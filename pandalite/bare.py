"""Machines without devices, ``-M configurable`` (C: ``panda/bare.h``)."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from ._bindings.enums import PandaFaultKind
from ._bindings.structs import PandaFault
from .errors import GuestFault

if TYPE_CHECKING:
    from ._bindings.loader import CoreLibrary

_KINDS = {
    PandaFaultKind.FETCH: "fetch",
    PandaFaultKind.READ: "read",
    PandaFaultKind.WRITE: "write",
}


def last_fault(library: CoreLibrary) -> GuestFault:
    """Return the exception for the fault that ended the last run."""
    fault = PandaFault()
    library.panda_last_fault(ctypes.byref(fault))
    if fault.kind == PandaFaultKind.EXCEPTION:
        name = (library.panda_exception_name(fault.exception) or b"").decode()
        return GuestFault(
            f"exception {fault.exception}{name and f' ({name})'} at pc {fault.pc:#x}: the program "
            "has set up no handler for it",
            kind="exception",
            pc=fault.pc,
            address=fault.address,
            exception=fault.exception,
        )
    kind = _KINDS[PandaFaultKind(fault.kind)]
    if kind == "fetch":
        text = f"the pc is {fault.pc:#x}, where no memory is mapped"
    else:
        text = (
            f"a {kind} of {fault.size} bytes at {fault.address:#x}, where no memory is mapped, "
            f"by the instruction at pc {fault.pc:#x}"
        )
    return GuestFault(text, kind=kind, pc=fault.pc, address=fault.address, size=fault.size)
