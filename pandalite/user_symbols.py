"""Symbols of the guest's programs and libraries, as ``process.symbol_at`` gives them.

ELF's tables are read from guest memory: from the page cache of the guest's kernel and
the memory of the process; and, if ``panda.os.symbol_directory`` says where, from copies
of the guest's files on the host (``csrc/introspect/images.c``).
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._bindings.structs import PandaLibrary, PandaSymbol

if TYPE_CHECKING:
    from .guest_os import GuestOs

#: STT_FUNC and STT_GNU_IFUNC of ELF.
_FUNCTIONS = (2, 10)


@dataclass(frozen=True)
class UserSymbol:
    """A symbol of a program or library in a process (C: ``PandaSymbol``)."""

    name: str
    #: Where it is in the process.
    address: int
    #: In bytes; 0 if the file does not say it.
    size: int
    #: Path of the file it is in, or ``[vdso]``.
    path: str
    #: Of a symbol that has versions, e.g. ``"GLIBC_2.2.5"``; else empty.
    version: str
    #: Whether it is a function.
    function: bool
    #: Whether others can link to it: it is global or weak.
    exported: bool
    #: How far behind it the address is that was asked for.
    offset: int = 0

    def __str__(self) -> str:
        name = f"{os.path.basename(self.path)}!{self.name}"
        return f"{name}+{self.offset:#x}" if self.offset else name


@dataclass(frozen=True)
class Library:
    """A program or library that a process has mapped (C: ``PandaLibrary``)."""

    path: str
    #: Where its first mapping begins, and behind its last one.
    start: int
    end: int
    #: What is added to the file's addresses in this process.
    bias: int
    #: How many symbols were found.
    symbols: int
    #: Whether all of its tables were in memory.
    complete: bool


def symbol_at(system: GuestOs, task: int, address: int) -> UserSymbol | None:
    """The symbol an address is in (C: ``panda_os_user_symbol_at``)."""
    found = PandaSymbol()
    status = system._library.panda_os_user_symbol_at(task, address, ctypes.byref(found))
    return _symbol(found) if status >= 0 else None


def symbol(system: GuestOs, task: int, name: str, library: str | None) -> UserSymbol:
    """A symbol by name (C: ``panda_os_user_symbol``)."""
    found = PandaSymbol()
    part = None if library is None else os.fsencode(library)
    system._check(system._library.panda_os_user_symbol(task, part, os.fsencode(name), found))
    return _symbol(found)


def symbols(system: GuestOs, task: int, library: str) -> list[UserSymbol]:
    """All symbols of a file (C: ``panda_os_user_symbols``)."""

    def fill(task: int, array: Any, room: int) -> int:
        return int(system._library.panda_os_user_symbols(task, os.fsencode(library), array, room))

    return [_symbol(s) for s in system._list(PandaSymbol, fill, 4096, task)]


def libraries(system: GuestOs, task: int) -> list[Library]:
    """What a process has mapped that has symbols (C: ``panda_os_libraries``)."""
    found = system._list(PandaLibrary, system._library.panda_os_libraries, 32, task)
    return [
        Library(os.fsdecode(f.path), f.start, f.end, f.bias, f.symbols, bool(f.complete))
        for f in found
    ]


def _symbol(s: PandaSymbol) -> UserSymbol:
    return UserSymbol(
        os.fsdecode(s.name),
        s.address,
        s.size,
        os.fsdecode(s.path),
        os.fsdecode(s.version),
        s.kind in _FUNCTIONS,
        bool(s.binding),
        s.offset,
    )
