"""What the log of a recording says, one entry after the other: who did what, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, NamedTuple

from .archive import Archive
from .facts import facts_of, open_archive
from .log import (
    ARCH,
    BASE,
    BYTES,
    DEVICES,
    DISK,
    DISK_DATA,
    FLUSH,
    LINES,
    LINES_KICK,
    MEMORY,
    MEMORY_PACKET,
    NEW_REGION,
    PACKET,
    READ,
    REGION,
    RESET,
    SERIAL,
    SOURCE,
    TOPOLOGY,
    VALUE,
    WRITE,
    decode_entries,
    number,
    read_chunk,
)

__all__ = ["Device", "Entry", "devices", "read_log"]


class Entry(NamedTuple):
    """Something that crossed from a device to the CPU or memory, or back."""

    #: Instructions executed before it; the block of code that makes a call is counted whole.
    instructions: int
    #: ``read``, ``write``, ``call``, ``random``, ``memory``, ``lines``, ``reset``, ``map``,
    #: ``region``, ``tlb``, ``disk``, ``packet``, ``serial`` or ``arch``; in complete recordings
    #: also ``devices``, their state, and ``data``, what was written to a disk.
    kind: str
    #: QEMU's path of the device, or the name of a disk, network card or port; "" if it is not
    #: known.
    device: str
    #: What else there is to it.
    facts: dict[str, Any]


_FUNCTIONS = ("interrupt line", "clock", "random bytes", "reset request", "shutdown request")
_OPERATIONS = (
    *("add", "remove", "enable", "move", "resize", "alias offset", "read-only"),
    "ROM mode",
)


@dataclass
class _Reader:
    """What entries build on."""

    blocks: list[str]
    #: Paths of regions and devices, by their numbers; 0 is none.
    paths: list[str] = field(default_factory=lambda: [""])
    source: str = ""
    packet: bytes = b""

    def path(self, index: int) -> str:
        return self.paths[index] if index < len(self.paths) else ""

    def owner(self, index: int) -> str:
        """The device of a region: the one it is a part of."""
        return self.path(index).rpartition("/")[0]

    def entry(self, place: int, kind: int, values: list[Any]) -> Entry | None:
        if kind in (READ, WRITE):
            _after, region, offset, how, value = values[:5]
            name = self.path(region).rpartition("/")[2]
            facts = {"region": name, "offset": offset, "size": how >> 3, "value": value}
            return Entry(place, "read" if kind == READ else "write", self.owner(region), facts)
        if kind == VALUE:
            function = values[1]
            known = function < len(_FUNCTIONS)
            name = _FUNCTIONS[function] if known else f"function {function}"
            return Entry(place, "call", "", {"function": name, "argument": values[2]})
        if kind == BYTES:
            return Entry(place, "random", "", {"function": values[1], "bytes": values[2]})
        if kind == MEMORY:
            return self._memory(place, values[0], values[1], values[2])
        if kind == MEMORY_PACKET:
            block, offset, head, at, count = values
            return self._memory(place, block, offset, head + self.packet[at : at + count])
        if kind == REGION:
            self.paths.append(values[0].decode(errors="replace"))
            return None
        if kind == NEW_REGION:
            self.paths.append(values[4].decode(errors="replace"))
            facts = {"name": self.paths[-1], "size": values[3]}
            return Entry(place, "region", "", facts)
        if kind == TOPOLOGY:
            operation = values[0]
            known = operation < len(_OPERATIONS)
            facts = {
                "operation": _OPERATIONS[operation] if known else str(operation),
                "region": self.path(values[1]),
                "other": self.path(values[2]),
                "value": values[3],
            }
            return Entry(place, "map", self.owner(values[1]), facts)
        if kind == SOURCE:
            self.source = self.path(values[0])
            return None
        if kind == DISK:
            facts = {
                "direction": "read" if values[0] == 4 else "written",
                "offset": values[2],
                "address": values[3],
                "size": values[4],
            }
            return Entry(place, "disk", values[1].decode(errors="replace"), facts)
        if kind == DEVICES:
            return Entry(place, "devices", "", {"bytes": values[0]})
        if kind == DISK_DATA:
            name, offset, size, data = values
            facts = {"offset": offset, "bytes": data or bytes(size)}
            return Entry(place, "data", name.decode(errors="replace"), facts)
        if kind == PACKET:
            self.packet = values[2]
        if kind in (PACKET, SERIAL):
            facts = {"direction": "sent" if values[0] else "received", "bytes": values[2]}
            name = "packet" if kind == PACKET else "serial"
            return Entry(place, name, values[1].decode(errors="replace"), facts)
        if kind in (LINES, LINES_KICK):
            return Entry(place, "lines", "", {"changed": values})
        if kind in (RESET, FLUSH, ARCH):
            return Entry(place, {RESET: "reset", FLUSH: "tlb"}.get(kind, "arch"), "", {})
        return None

    def _memory(self, place: int, block: int, offset: int, data: bytes) -> Entry:
        name = self.blocks[block] if block < len(self.blocks) else ""
        return Entry(place, "memory", self.source, {"block": name, "offset": offset, "bytes": data})


def read_log(name: str | PathLike[str]) -> Iterator[Entry]:
    """All entries of a recording, in their order, with the device that each is about.

    Raises:
        ValueError: there is no such recording.
        RecordingError: it is none of pandalite's, or a newer version is needed.
        DamagedRecordingError: it is not what was written.
    """
    with open_archive(name) as archive:
        reader = _Reader([b.name for b in facts_of(archive).blocks])
        yield from _read(archive, reader)


def _read(archive: Archive, reader: _Reader) -> Iterator[Entry]:
    for member in archive.under("log"):
        chunk = read_chunk(archive, member)
        data, at, place = chunk.data, chunk.begin, chunk.count
        reader.source = ""
        while at < len(data):
            size, at = number(data, at)
            end = at + size
            executed, at = number(data, at)
            _steps, at = number(data, at)
            flags, at = number(data, at)
            at += 4 * (flags & 1)
            calls, at = number(data, at)
            yield from _part(data, at, at + calls, place, reader)
            place += executed
            yield from _part(data, at + calls, end, place, reader)
            at = end


def _part(data: bytes, at: int, end: int, place: int, reader: _Reader) -> Iterator[Entry]:
    """A slice's calls, with the effects before each, or the effects after it."""
    waiting: list[tuple[int, list[Any]]] = []
    reader.packet = b""
    for kind, values in decode_entries(data, at, end):
        waiting.append((kind, values))
        if kind <= BYTES:
            # Effects are of the call that follows.
            place += values[0]
            yield from _known(reader, place, waiting)
            waiting = []
    yield from _known(reader, place, waiting)


def _known(reader: _Reader, place: int, waiting: list[tuple[int, list[Any]]]) -> Iterator[Entry]:
    for kind, values in waiting:
        if kind != BASE:
            entry = reader.entry(place, kind, values)
            if entry is not None:
                yield entry


@dataclass
class Device:
    """What a device did in a recording."""

    #: QEMU's path, or the name of a disk, network card or serial port.
    name: str
    #: How often the CPU read and wrote it.
    reads: int = 0
    writes: int = 0
    #: How often it wrote to memory, and how many bytes.
    memory_writes: int = 0
    memory_bytes: int = 0
    #: Transfers - requests, packets, writes of a port - and their bytes, from the guest and
    #: to it.
    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0


def devices(name: str | PathLike[str]) -> list[Device]:
    """What each device did in a recording; the one named "" is who is not known.

    Raises what :func:`read_log` does.
    """
    found: dict[str, Device] = {}
    for entry in read_log(name):
        if entry.kind not in ("read", "write", "memory", "disk", "packet", "serial"):
            continue
        device = found.setdefault(entry.device, Device(entry.device))
        if entry.kind == "read":
            device.reads += 1
        elif entry.kind == "write":
            device.writes += 1
        elif entry.kind == "memory":
            device.memory_writes += 1
            device.memory_bytes += len(entry.facts["bytes"])
        else:
            size = entry.facts["size"] if entry.kind == "disk" else len(entry.facts["bytes"])
            if entry.facts["direction"] in ("sent", "written"):
                device.sent += 1
                device.sent_bytes += size
            else:
                device.received += 1
                device.received_bytes += size
    return sorted(found.values(), key=lambda device: device.name)
