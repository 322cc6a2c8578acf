"""Processes and mappings with the fields PyPANDA has for them."""

from __future__ import annotations

from typing import Any, NamedTuple

from ._bindings.structs import PandaTask


class OsiProc(PandaTask):
    """A process, with the fields of PANDA's ``OsiProc`` and those of ``PandaTask``.

    ``pid`` and ``ppid`` are those the guest's user sees, ``name`` is bytes, ``asid`` is
    what ``panda.current_asid(cpu)`` says while it runs, 0 if unknown.
    """

    __slots__ = ()

    @property
    def taskd(self) -> int:
        """Address of its task_struct."""
        return self.task

    @property
    def pages(self) -> None:
        """Always None, as in PANDA."""
        return None

    def __repr__(self) -> str:
        return f"<OsiProc {self.pid} {self.name!r}>"


class OsiModule(NamedTuple):
    """A mapping, with the fields of PANDA's ``OsiModule``."""

    #: Address of its vm_area_struct.
    modd: int
    base: int
    size: int
    #: Path of its file; None without one.
    file: Any
    #: Last part of the path; ``[heap]``, ``[stack]`` or ``[???]`` without a file.
    name: Any
    #: Where in its file it begins, in bytes.
    offset: int
    #: The kernel's flags (vm_flags).
    flags: int
