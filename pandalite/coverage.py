"""Counters and coverage, kept by the generated code itself.

They cost a few instructions of the host per block
(``csrc/include/panda/counter.h``)::

    count = panda.counter("insn", kernel=False)
    with panda.coverage(edges=True, asid=asid) as covered:
        panda.run_serial_cmd("ls")
    covered.write_drcov("ls.drcov")
    print(count.value)
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ._bindings.enums import PandaCounterKind, PandaCoverageKind
from ._bindings.structs import PandaCoveredBlock, PandaCoveredEdge
from ._core import PandaCore
from .errors import StateError
from .filters import filter_of
from .utils import Closing

_COUNTERS = {"block": PandaCounterKind.BLOCKS, "insn": PandaCounterKind.INSNS}


class Counter(Closing):
    """A counter of the generated code, made by :meth:`pandalite.Panda.counter`."""

    def __init__(self, panda: Coverages, pointer: Any, kind: str) -> None:
        self._panda = panda
        self._pointer: Any = pointer
        # The counter is there while it is held.
        self._lock = threading.Lock()
        self._last = 0
        self._enabled = True
        #: What is counted.
        self.kind = kind

    @property
    def value(self) -> int:
        """The count so far; may be set. Reading it is no call."""
        pointer = self._pointer
        return self._last if pointer is None else int(pointer.contents.value)

    @value.setter
    def value(self, value: int) -> None:
        if self._pointer is None:
            raise StateError("this counter is closed")
        self._pointer.contents.value = value

    @property
    def enabled(self) -> bool:
        """Whether it counts; may be set at any time (C: ``panda_counter_enable``)."""
        return self._enabled and self._pointer is not None

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        with self._lock:
            if self._pointer is None:
                raise StateError("this counter is closed")
            self._panda.libpanda.panda_counter_enable(self._pointer, bool(enabled))
            self._enabled = bool(enabled)

    def close(self) -> None:
        """Count no more; ``value`` keeps its last value."""
        with self._lock:
            pointer, self._pointer = self._pointer, None
            if pointer is not None:
                self._last = int(pointer.contents.value)
                self._panda.libpanda.panda_counter_close(pointer)

    def __repr__(self) -> str:
        return f"<counter of {self.kind}s: {self.value}>"


class Block(NamedTuple):
    """A block of code that ran: its start, bytes, instructions, how often it began."""

    pc: int
    size: int
    icount: int
    hits: int


class Edge(NamedTuple):
    """The start of a block, that of one that followed it, and how often."""

    source: int
    target: int
    hits: int


class Module(NamedTuple):
    """A stretch of addresses with a name, for drcov files."""

    name: str
    base: int
    end: int


class Coverage(Closing):
    """Which code ran, made by :meth:`pandalite.Panda.coverage`.

    At the end of a ``with`` block nothing more is recorded; what was stays readable.
    """

    def __init__(self, panda: Coverages, handle: int, map_size: int) -> None:
        self._panda = panda
        self._library = panda.libpanda
        self._handle: int | None = handle
        # The handle is there while it is held.
        self._lock = threading.RLock()
        self._enabled = True
        self._blocks: list[Block] = []
        self._edges: list[Edge] = []
        self._map: Any = None
        if map_size:
            address = self._library.panda_coverage_map(handle)
            assert address
            where = ctypes.cast(address, ctypes.c_void_p).value
            assert where is not None
            self._map = (ctypes.c_uint8 * map_size).from_address(where)

    @property
    def enabled(self) -> bool:
        """Whether it records; may be set at any time (C: ``panda_coverage_enable``)."""
        return self._enabled and self._handle is not None

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        with self._lock:
            self._library.panda_coverage_enable(self._open(), bool(enabled))
            self._enabled = bool(enabled)

    @property
    def blocks(self) -> list[Block]:
        """Blocks that ran, in the order they were met (C: ``panda_coverage_blocks``)."""
        with self._lock:
            if self._handle is None:
                return self._blocks
            found = _copy(PandaCoveredBlock, self._library.panda_coverage_blocks, self._handle)
        return [Block(b.pc, b.size, b.icount, b.hits) for b in found if b.hits]

    @property
    def edges(self) -> list[Edge]:
        """Blocks that followed each other, by address (C: ``panda_coverage_edges``)."""
        with self._lock:
            if self._handle is None:
                return self._edges
            found = _copy(PandaCoveredEdge, self._library.panda_coverage_edges, self._handle)
        return sorted(Edge(e.source, e.target, e.hits) for e in found)

    @property
    def map(self) -> memoryview:
        """The map of edges, a byte each that stops at 255; may be written.

        The byte of an edge is ``(here(target) ^ (here(source) >> 1))`` where
        ``here(pc) = (pc * 0x9E3779B97F4A7C15 mod 2**64) >> (64 - map_bits)``.

        Raises:
            StateError: it was not asked for (``edge_map=True``).
        """
        if self._map is None:
            raise StateError("there is no map of edges: ask for it with edge_map=True")
        return memoryview(self._map).cast("B")

    def reset(self) -> None:
        """Forget all hits; takes effect at the guest's next block."""
        with self._lock:
            self._library.panda_coverage_reset(self._open())

    def close(self) -> None:
        """Record no more; what was recorded stays readable."""
        with self._lock:
            if self._handle is None:
                return
            self._blocks, self._edges = self.blocks, self.edges
            seen: weakref.ref[Any] | None = None
            if self._map is not None:
                # Views of the map that somebody may still have stay good.
                seen = weakref.ref(self._map)
                self._map = type(self._map).from_buffer_copy(self._map)
            handle, self._handle = self._handle, None
            in_use = seen is not None and seen() is not None
            self._library.panda_coverage_close(handle, in_use)

    def _open(self) -> int:
        if self._handle is None:
            raise StateError("this coverage is closed")
        return self._handle

    # --- export ---

    def write_drcov(
        self, path: str | os.PathLike[str], modules: Sequence[Module | tuple[str, int, int]] = ()
    ) -> int:
        """Write the blocks as a drcov file (version 2), as Lighthouse and others read.

        Args:
            path: the file; it is there when it is complete.
            modules: ``(name, base, end)`` of what the code belongs to, end excluded.
                Blocks outside of all modules go to one called ``guest``, which
                begins at the lowest of them.

        Returns:
            Number of blocks written. drcov has 32-bit offsets and 16-bit sizes:
            a block further from its module's start cannot be written.

        Raises:
            OSError: the file cannot be written.
            ValueError: a module is empty or overlaps another.
        """
        table = _modules(modules)
        rest = [b for b in self.blocks if _module_of(table, b.pc) is None]
        if rest:
            low = min(b.pc for b in rest)
            # Code may be spread over 64 bits, offsets have 32: a module for each part.
            for part in sorted({(b.pc - low) >> 31 for b in rest}):
                base = low + (part << 31)
                table.append(Module("guest" if not part else f"guest+{part << 31:#x}", base, 0))
        entries = []
        for block in self.blocks:
            index = _module_of(table, block.pc)
            if index is None:
                starts = [i for i, m in enumerate(table) if not m.end and m.base <= block.pc]
                index = max(starts, key=lambda i: table[i].base)
            offset = block.pc - table[index].base
            if offset < 1 << 32:
                entries.append((offset, min(block.size, 0xFFFF), index))
        ends = [
            m.end or max(table[i].base + o + s for o, s, j in entries if j == i)
            for i, m in enumerate(table)
        ]
        lines = ["DRCOV VERSION: 2", "DRCOV FLAVOR: drcov"]
        lines.append(f"Module Table: version 2, count {len(table)}")
        lines.append("Columns: id, base, end, entry, checksum, timestamp, path")
        for i, (module, end) in enumerate(zip(table, ends)):
            lines.append(
                f"{i}, {module.base:#018x}, {end:#018x}, 0x0000000000000000, 0x00000000, "
                f"0x00000000, {module.name}"
            )
        lines.append(f"BB Table: {len(entries)} bbs")
        data = bytearray("\n".join(lines).encode() + b"\n")
        for offset, size, index in entries:
            data += offset.to_bytes(4, "little")
            data += size.to_bytes(2, "little") + index.to_bytes(2, "little")
        _write(Path(path), bytes(data))
        return len(entries)

    def write_csv(self, path: str | os.PathLike[str], what: str = "blocks") -> None:
        """Write blocks (pc, size, icount, hits) or edges (source, target, hits) as CSV.

        Args:
            path: the file; it is there when it is complete.
            what: ``"blocks"`` or ``"edges"``.

        Raises:
            OSError: the file cannot be written.
            ValueError: what is something else.
        """
        if what == "blocks":
            rows = [f"{b.pc:#x},{b.size},{b.icount},{b.hits}" for b in self.blocks]
            head = "pc,size,icount,hits"
        elif what == "edges":
            rows = [f"{e.source:#x},{e.target:#x},{e.hits}" for e in self.edges]
            head = "source,target,hits"
        else:
            raise ValueError(f"what={what!r}: it is 'blocks' or 'edges'")
        _write(Path(path), "\n".join([head, *rows, ""]).encode())


def _copy(struct: Any, function: Any, handle: int) -> Iterable[Any]:
    """Ask the core for a list whose length grows while it is asked for."""
    room = 0
    while True:
        array = (struct * room)()
        count = function(handle, array, room)
        if count <= room:
            return list(array[:count])
        room = count + count // 4


def _modules(given: Sequence[Module | tuple[str, int, int]]) -> list[Module]:
    table = [Module(*m) for m in given]
    last = 0
    for module in sorted(table, key=lambda m: m.base):
        if module.base >= module.end:
            raise ValueError(f"module {module.name!r} is empty")
        if module.base < last:
            raise ValueError(f"module {module.name!r} overlaps the one before it")
        last = module.end
    return table


def _module_of(table: list[Module], pc: int) -> int | None:
    for index, module in enumerate(table):
        if module.base <= pc < module.end:
            return index
    return None


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class Coverages(PandaCore):
    """The part of Panda that makes counters and coverage."""

    def counter(self, kind: str = "block", *, enabled: bool = True, **filters: Any) -> Counter:
        """Make a counter of executed blocks or instructions (C: ``panda_counter_open``).

        Args:
            kind: ``"block"`` or ``"insn"``; the latter counts as QEMU's ``-icount``.
            enabled: False: it counts when ``counter.enabled`` is set.
            filters: ``pc``, ``asid``, ``kernel``, ``when``; see
                :func:`pandalite.filters.make_filter`. Of instructions it is the
                start of their block that counts.

        Raises:
            ValueError, TypeError: an argument makes no sense.
            StateError: there are too many streams, counters and filters (55).
        """
        self._check_process()
        if kind not in _COUNTERS:
            raise ValueError(f"there is no counter of {kind!r}; there are: block, insn")
        pointer = self.libpanda.panda_counter_open(_COUNTERS[kind], filter_of(filters))
        if not pointer:
            raise self._refusal(self.libpanda.panda_last_status())
        counter = Counter(self, pointer, kind)
        if not enabled:
            counter.enabled = False
        return counter

    def coverage(
        self,
        *,
        blocks: bool = True,
        edges: bool = False,
        edge_map: bool = False,
        map_bits: int = 16,
        enabled: bool = True,
        **filters: Any,
    ) -> Coverage:
        """Record which code runs (C: ``panda_coverage_open``); a context manager.

        Args:
            blocks: count how often each block begins.
            edges: count how often each block follows each other.
            edge_map: the same in a map of bytes, quicker and with collisions.
            map_bits: the map has ``2**map_bits`` bytes, 8 to 24 bits.
            enabled: False: it records when ``coverage.enabled`` is set.
            filters: ``pc``, ``asid``, ``kernel``, ``when``; see
                :func:`pandalite.filters.make_filter`. Of edges it is the target
                that counts.

        Raises:
            ValueError, TypeError: an argument makes no sense.
            StateError: there are too many streams, counters and filters (55).
        """
        self._check_process()
        if not (blocks or edges or edge_map):
            raise ValueError("there is nothing to record: give blocks=, edges= or edge_map=")
        what = (
            (PandaCoverageKind.BLOCKS if blocks else 0)
            | (PandaCoverageKind.EDGES if edges else 0)
            | (PandaCoverageKind.EDGE_MAP if edge_map else 0)
        )
        if not isinstance(map_bits, int) or not 8 <= map_bits <= 24:
            raise ValueError(f"map_bits={map_bits!r}: a map of edges has 8 to 24 bits")
        handle = self.libpanda.panda_coverage_open(what, map_bits, filter_of(filters))
        if not handle:
            raise self._refusal(self.libpanda.panda_last_status())
        coverage = Coverage(self, handle, 1 << map_bits if edge_map else 0)
        if not enabled:
            coverage.enabled = False
        return coverage

    def icount(self) -> int:
        """Instructions executed so far (C: ``panda_icount``).

        QEMU's own count, while the guest does not run (between runs, in the
        machine's callbacks, after ``vm_stop``). 0 without ``-icount`` among the
        arguments; see :meth:`counter` for one that needs none.
        """
        return int(self.libpanda.panda_icount())
