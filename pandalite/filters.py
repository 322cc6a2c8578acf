"""Filters: which events a callback, a stream or a counter is there for.

They are decided in C, or in the generated code itself, so an event nobody wants
costs next to nothing (``csrc/include/panda/filter.h``). All conditions given must
hold; ``once_per_block``, ``every`` and ``first``, in this order, count only events that
the others let pass.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Union

from ._bindings.enums import PandaMode
from ._bindings.structs import PandaFilter, PandaRange
from .errors import StateError

if TYPE_CHECKING:
    from ._bindings.loader import CoreLibrary

#: A pair ``(low, high)`` with the high end excluded, a ``range``, or one address.
Range = Union["tuple[int, int]", range, int]

_LIMIT = 1 << 64

#: The names of the filters, for error messages.
NAMES = ("pc", "addr", "asid", "kernel", "every", "first", "once_per_block", "when", "procname")


class Flag:
    """A switch for filters (``when=``), made by :meth:`pandalite.Panda.flag`.

    Setting and clearing it takes effect at the next event, may be done from any
    thread and in callbacks, and needs no new translation of guest code.
    """

    def __init__(self, library: CoreLibrary, number: int) -> None:
        self._library = library
        #: Number of the flag in the core (C: ``panda_flag_new``).
        self.number = number

    def set(self) -> None:
        """Let events pass (C: ``panda_flag_set``)."""
        self._library.fast.panda_flag_set(self.number, True)

    def clear(self) -> None:
        """Let no event pass (C: ``panda_flag_set``)."""
        self._library.fast.panda_flag_set(self.number, False)

    def __bool__(self) -> bool:
        return bool(self._library.fast.panda_flag_get(self.number))

    def __enter__(self) -> Flag:
        self.set()
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()

    def __repr__(self) -> str:
        return f"<flag {self.number}, {'set' if self else 'cleared'}>"


def new_flag(library: CoreLibrary, is_set: bool) -> Flag:
    """Make a flag; StateError if the core has no more (C: ``panda_flag_new``)."""
    number = library.panda_flag_new(is_set)
    if not number:
        raise StateError("there are too many flags: keep one and set it again instead")
    return Flag(library, number)


def check_names(filters: Iterable[str]) -> None:
    """Refuse keyword arguments that are not filters; TypeError says which there are."""
    for name in filters:
        if name not in NAMES:
            raise TypeError(f"there is no filter {name!r}; there are: {', '.join(NAMES)}")


def make_filter(
    *,
    pc: Range | Iterable[Range] | None = None,
    addr: Range | Iterable[Range] | None = None,
    asid: int | Iterable[int] | None = None,
    kernel: bool | None = None,
    every: int | None = None,
    first: int | None = None,
    once_per_block: bool = False,
    when: Flag | None = None,
    procname: str | bytes | None = None,
) -> PandaFilter | None:
    """Make the core's filter of Python arguments; None if nothing is asked for.

    Args:
        pc: where the code is: ``(low, high)`` with high excluded, a ``range``, one
            address, or several of them. Of a block it is the start that counts.
        addr: which addresses are accessed, likewise; memory events only.
        asid: address spaces, as ``panda.current_asid()`` has them; one or several.
        kernel: True: only code of the kernel; False: only that of users.
        every: one event in so many: the every-th, the 2*every-th...
        first: so many events, then none until the callback is enabled again.
        once_per_block: only the first event of each block of code.
        when: a :class:`Flag` that has to be set.
        procname: short name of the process that runs, as :meth:`Panda.get_process_name`
            says it (Linux: 15 bytes, what is longer is cut). Nothing passes until
            the guest's kernel is found in memory.

    Raises:
        ValueError, TypeError: an argument makes no sense.
    """
    out = PandaFilter()
    out.n_pc, out.pc = _ranges("pc", pc)
    out.n_addr, out.addr = _ranges("addr", addr)
    asids = _asids(asid)
    out.n_asid = len(asids)
    if asids:
        values: Any = (ctypes.c_uint64 * len(asids))(*asids)
        out.asid = values
    if kernel is not None:
        out.mode = PandaMode.KERNEL if kernel else PandaMode.USER
    out.every = _count("every", every)
    out.first = _count("first", first)
    out.once_per_block = bool(once_per_block)
    if when is not None:
        if not isinstance(when, Flag):
            raise TypeError(f"when={when!r} is not a flag: make one with panda.flag()")
        out.flag = when.number
    if procname is not None:
        if not isinstance(procname, (str, bytes)) or not procname:
            raise TypeError(f"procname={procname!r} is not the name of a process")
        out.procname = os.fsencode(procname)
    is_empty = not (
        out.n_pc
        or out.n_addr
        or out.n_asid
        or out.mode
        or out.every > 1
        or out.first
        or out.once_per_block
        or out.flag
        or procname
    )
    return None if is_empty else out


def filter_of(keywords: dict[str, Any]) -> PandaFilter | None:
    """:func:`make_filter` of keyword arguments as users give them."""
    check_names(keywords)
    return make_filter(**keywords)


def _ranges(name: str, given: Range | Iterable[Range] | None) -> tuple[int, Any]:
    if given is None:
        return 0, None
    pairs = [_range(name, item) for item in _items(name, given)]
    if not pairs:
        raise ValueError(f"{name}=: there is no range in {given!r}, so nothing would pass")
    array = (PandaRange * len(pairs))(*[PandaRange(low, high - 1) for low, high in pairs])
    return len(pairs), array


def _items(name: str, given: Any) -> Sequence[Range]:
    if isinstance(given, (int, range)):
        return [given]
    try:
        items = list(given)
    except TypeError:
        raise TypeError(
            f"{name}={given!r}: give (low, high), a range, an address, or a list of these"
        ) from None
    if isinstance(given, tuple) and len(items) == 2 and all(isinstance(i, int) for i in items):
        return [(items[0], items[1])]
    return items


def _range(name: str, item: Any) -> tuple[int, int]:
    if isinstance(item, range):
        if item.step != 1:
            raise ValueError(f"{name}={item!r}: a range of addresses has no steps")
        low, high = item.start, item.stop
    elif isinstance(item, int):
        low, high = item, item + 1
    else:
        try:
            low, high = item
            low, high = int(low), int(high)
        except (TypeError, ValueError):
            raise TypeError(
                f"{name}: {item!r} is no range: give (low, high), a range or an address"
            ) from None
    if not 0 <= low < high <= _LIMIT:
        raise ValueError(
            f"{name}: there is no address from {low:#x} up to and without {high:#x}: "
            "the low end comes first, and addresses have 64 bits"
        )
    return low, high


def _asids(given: int | Iterable[int] | None) -> list[int]:
    if given is None:
        return []
    values = [given] if isinstance(given, int) else [int(value) for value in given]
    if not values:
        raise ValueError("asid=: there is no address space in it, so nothing would pass")
    for value in values:
        if not 0 <= value < _LIMIT:
            raise ValueError(f"asid={value:#x}: address spaces have 64 bits")
    return values


def _count(name: str, given: int | None) -> int:
    if given is None:
        return 0
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"{name}={given!r} is not a number")
    if not 0 < given < _LIMIT // 2:
        raise ValueError(f"{name}={given}: it must be 1 or more")
    return given
