"""What plugins say that answer instead of the core: see ``on_get_...`` of ``osi``.

C gives structures that are to be freed; here they become the objects that the core's own
answers are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar

from ._bindings.structs import OsiModule as CModule
from ._bindings.structs import OsiProc as CProcess
from ._core import Cpu
from .osi_types import OsiModule, OsiProc

_T = TypeVar("_T")

#: As much of a process' name as Linux has.
_LONGEST_NAME = 15


def current_process(library: Any, cpu: Cpu) -> OsiProc | None:
    """The process that runs; None: nobody says."""
    found = library.panda_osi_get_current_process(cpu)
    if not found:
        return None
    try:
        return _process(found.contents)
    finally:
        library.panda_osi_free_osiproc(found)


def processes(library: Any, cpu: Cpu) -> list[OsiProc]:
    """All processes; none if nobody says."""
    listed = library.panda_osi_get_processes(cpu)
    return _objects(library, listed, CProcess, _process)


def mappings(library: Any, cpu: Cpu) -> list[OsiModule]:
    """What the process that runs has mapped, names as bytes."""
    process = library.panda_osi_get_current_process(cpu)
    listed = library.panda_osi_get_mappings(cpu, process) if process else None
    library.panda_osi_free_osiproc(process)
    return _objects(library, listed, CModule, _module)


def mapping_by_addr(library: Any, cpu: Cpu, addr: int) -> OsiModule | None:
    """The mapping of the process that runs with an address in it, names as text."""
    process = library.panda_osi_get_current_process(cpu)
    found = library.panda_osi_get_mapping_by_addr(cpu, process, addr) if process else None
    library.panda_osi_free_osiproc(process)
    if not found:
        return None
    module = _module(found.contents)
    library.panda_osi_free_osimodule(found)
    file, name = (
        None if raw is None else raw.decode(errors="surrogateescape")
        for raw in (module.file, module.name)
    )
    return module._replace(file=file, name=name)


def _text(pointer: Any) -> bytes | None:
    return ctypes.string_at(pointer) if pointer else None


def _process(c: CProcess) -> OsiProc:
    process = OsiProc()
    process.task, process.pgd, process.asid = c.taskd, c.pgd, c.asid
    process.pid = process.tid = c.pid
    process.ppid, process.create_time = c.ppid, c.create_time
    process.name = (_text(c.name) or b"")[:_LONGEST_NAME]
    return process


def _module(c: CModule) -> OsiModule:
    return OsiModule(c.modd, c.base, c.size, _text(c.file), _text(c.name), c.offset, c.flags)


def _objects(library: Any, listed: Any, structure: Any, make: Callable[[Any], _T]) -> list[_T]:
    """What a list has, as objects; it is freed."""
    if not listed:
        return []
    array = listed.contents
    start = ctypes.cast(array.data, ctypes.c_void_p).value or 0
    size = ctypes.sizeof(structure)
    found = [make(structure.from_address(start + i * size)) for i in range(array.len)]
    library.panda_osi_cleanup_garray(listed)
    return found
