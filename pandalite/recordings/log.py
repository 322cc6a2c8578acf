"""The log of a recording: its chunks, their slices, and the slices' entries.

docs/recording-format.md describes it. All that is checked here is that it is
well-formed; whether it is true, only a replay can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .archive import Archive, Member

__all__ = ["Chunk", "Malformed", "check_chunk", "decode_entries", "read_chunk"]

# PandaEntryKind of csrc/record/record.h. Calls of devices:
READ, WRITE, VALUE, BYTES = range(1, 5)
# Effects of devices:
MEMORY, LINES, LINES_KICK, REGION, RESET, TOPOLOGY, NEW_REGION, FLUSH, ARCH = range(5, 14)
# For who reads the recording:
DISK, PACKET, SERIAL = range(14, 17)
# What numbers build on that are logged as differences, in a recording that was cut out:
BASE = 17
# Memory that is written with what is in the last packet; which device writes:
MEMORY_PACKET, SOURCE = 18, 19
# Of complete recordings: the devices' state, what was written to disks:
DEVICES, DISK_DATA = 20, 21

#: Flags of a slice: the CPU ran; it ended as an interrupt was delivered; or as the host program
#: wrote registers.
_RAN, _INTERRUPTED, _WRITTEN = 1, 2, 4

#: What follows an entry's kind: numbers (n), strings of bytes (s), bytes (b).
_SHAPES = {
    READ: "nnnnnb",
    WRITE: "nnnnnb",
    VALUE: "nnnn",
    BYTES: "nns",
    MEMORY: "nns",
    REGION: "s",
    RESET: "s",
    TOPOLOGY: "nnnnn",
    NEW_REGION: "nnnns",
    FLUSH: "n",
    DISK: "nsnnn",
    PACKET: "nss",
    SERIAL: "nss",
    BASE: "s",
    MEMORY_PACKET: "nnsnn",
    SOURCE: "n",
    DEVICES: "s",
    DISK_DATA: "snns",
}
#: An entry of a call: its first number is how many instructions it comes after the
#: last one.
_LAST_CALL = BYTES

#: Kinds of effects that only pseries machines have, and their numbers.
_REGISTERS = 0
_PSERIES = {1: 3, 2: 0, 3: 1}


class Malformed(Exception):
    """A log is not well-formed; its message says where and why."""


@dataclass
class Chunk:
    """The header of a chunk, and its data."""

    count: int
    steps: int
    end_count: int
    end_steps: int
    #: Which part of RAM is compared at its end, from 1; 0: none.
    ram_part: int
    data: bytes
    #: Where its slices begin in it.
    begin: int

    def count_slices(self) -> int:
        """How many slices there are."""
        at, slices = self.begin, 0
        while at < len(self.data):
            size, at = number(self.data, at)
            at += size
            slices += 1
        return slices


@dataclass
class Totals:
    """What was found in a chunk."""

    instructions: int = 0
    steps: int = 0
    slices: int = 0
    crossings: int = 0
    #: Regions known at its end, those of the chunks before included.
    regions: int = 0
    #: Size of the packet that entries may refer to.
    packet: int = 0

    def add(self, more: Totals) -> None:
        """Go on with the chunk that follows."""
        self.instructions += more.instructions
        self.steps += more.steps
        self.slices += more.slices
        self.crossings += more.crossings
        self.regions = more.regions


def number(data: bytes, at: int) -> tuple[int, int]:
    """The LEB128 number at a place, and the place after it."""
    value = shift = 0
    try:
        while shift < 64:
            byte = data[at]
            at += 1
            if byte < 0x80:
                return value | byte << shift, at
            value |= (byte & 0x7F) << shift
            shift += 7
    except IndexError:
        raise Malformed(f"it ends within a number, at byte {at}") from None
    raise Malformed(f"a number of more than 64 bits ends at byte {at}")


def read_chunk(archive: Archive, member: Member) -> Chunk:
    """Unpack a chunk and read its header.

    Raises:
        DamagedRecordingError: it is not what was written.
    """
    data = archive.read(member)
    try:
        count, at = number(data, 0)
        steps, at = number(data, at)
        counted, at = number(data, at)
        stepped, at = number(data, at)
        part, at = number(data, at)
    except Malformed as error:
        raise archive.damage(member, str(error)) from None
    if part:
        at += 8
    if at > len(data):
        raise archive.damage(member, f"it ends within its header, at byte {len(data)}")
    return Chunk(count, steps, count + counted, steps + stepped, part, data, at)


def check_chunk(chunk: Chunk, block_sizes: Sequence[int], regions: int = 0) -> Totals:
    """Walk all entries of a chunk.

    Args:
        chunk: what to walk.
        block_sizes: sizes of the machine's blocks of memory.
        regions: how many regions the chunks before have named.

    Raises:
        Malformed: it is not well-formed.
    """
    data = chunk.data
    totals = Totals(regions=regions)
    at = chunk.begin
    while at < len(data):
        size, at = number(data, at)
        end = at + size
        if end > len(data):
            raise Malformed(f"a slice of {size} bytes at byte {at} goes beyond its end")
        _check_slice(data, at, end, totals, block_sizes)
        at = end
    for name, found, said in (
        ("instructions", totals.instructions, chunk.end_count - chunk.count),
        ("steps", totals.steps, chunk.end_steps - chunk.steps),
    ):
        if found != said:
            raise Malformed(f"its slices have {found} {name}, its header says {said}")
    return totals


def _check_slice(
    data: bytes, begin: int, end: int, totals: Totals, block_sizes: Sequence[int]
) -> None:
    instructions, at = number(data, begin)
    steps, at = number(data, at)
    flags, at = number(data, at)
    if flags not in (0, _RAN, _RAN | _INTERRUPTED, _RAN | _WRITTEN):
        raise Malformed(f"the flags of the slice at byte {begin} are {flags}")
    at += 4 * (flags & _RAN)
    calls, at = number(data, at)
    if at + calls > end:
        raise Malformed(f"the calls of the slice at byte {begin} go beyond its end")
    made = 0
    totals.packet = 0
    for kind, where, numbers, size in _entries(data, at, at + calls):
        if kind <= _LAST_CALL:
            totals.crossings += 1
            made += numbers[0]
            if kind <= WRITE and numbers[1] > totals.regions:
                raise Malformed(f"the call at byte {where} is of an unknown region {numbers[1]}")
        else:
            _check_effect(kind, where, numbers, size, totals, block_sizes)
    if made > instructions:
        raise Malformed(
            f"the slice at byte {begin} has {instructions} instructions, but a call after {made}"
        )
    totals.packet = 0
    for kind, where, numbers, size in _entries(data, at + calls, end):
        if kind <= _LAST_CALL:
            raise Malformed(f"the call at byte {where} is one while the CPU did not run")
        _check_effect(kind, where, numbers, size, totals, block_sizes)
    totals.instructions += instructions
    totals.steps += steps
    totals.slices += 1


def _check_effect(
    kind: int,
    where: int,
    numbers: Sequence[int],
    size: int,
    totals: Totals,
    block_sizes: Sequence[int],
) -> None:
    if kind == MEMORY:
        block, offset = numbers
        if block >= len(block_sizes) or offset + size > block_sizes[block]:
            raise Malformed(f"the entry at byte {where} writes memory that is not there")
    elif kind == MEMORY_PACKET:
        block, offset, place, count = numbers
        if block >= len(block_sizes) or offset + size + count > block_sizes[block]:
            raise Malformed(f"the entry at byte {where} writes memory that is not there")
        if place + count > totals.packet:
            raise Malformed(f"the entry at byte {where} is about a packet that is not there")
    elif kind == PACKET:
        totals.packet = size
    elif kind == DISK_DATA and size not in (0, numbers[1]):
        raise Malformed(f"the entry at byte {where} has {size} bytes of {numbers[1]}")
    elif kind == SOURCE and numbers[0] > totals.regions:
        raise Malformed(f"the entry at byte {where} names an unknown device")
    elif kind in (REGION, NEW_REGION):
        totals.regions += 1
    elif kind == TOPOLOGY and max(numbers[1], numbers[2]) > totals.regions:
        raise Malformed(f"the entry at byte {where} is about an unknown region")


def _entries(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, Sequence[int], int]]:
    """The entries from a place to another: kind, place, numbers, size of the last string."""
    while at < end:
        begin = at
        kind = data[at]
        at += 1
        shape = _SHAPES.get(kind)
        numbers: list[int] = []
        size = 0
        if shape is None:
            at = _skip_special(data, begin, kind)
        else:
            for part in shape:
                if part == "b":
                    at += 1
                    continue
                value = data[at] if at < end else 0x80
                if value < 0x80:
                    at += 1
                else:
                    value, at = number(data, at)
                if part == "n":
                    numbers.append(value)
                else:
                    size = value
                    at += size
        if at > end:
            raise Malformed(f"the entry at byte {begin}, of kind {kind}, goes beyond its slice")
        yield kind, begin, numbers, size


def decode_entries(data: bytes, at: int, end: int) -> Iterator[tuple[int, list[Any]]]:
    """The entries from a place to another: their kinds, and what follows in each."""
    while at < end:
        begin = at
        kind = data[at]
        at += 1
        shape = _SHAPES.get(kind)
        values: list[Any] = []
        if shape is None:
            at = _skip_special(data, begin, kind)
            values.append(data[begin + 1 : at])
        for part in shape or "":
            if part == "b":
                values.append(data[at : at + 1])
                at += 1
                continue
            value, at = number(data, at)
            if part == "s":
                values.append(data[at : at + value])
                at += value
            else:
                values.append(value)
        if at > end:
            raise Malformed(f"the entry at byte {begin}, of kind {kind}, goes beyond its slice")
        yield kind, values


def _skip_special(data: bytes, begin: int, kind: int) -> int:
    """The place after an entry whose size depends on what is in it."""
    at = begin + 1
    if kind in (LINES, LINES_KICK):
        changed, at = number(data, at)
        if changed >> 32:
            raise Malformed(f"the entry at byte {begin} changes lines that no CPU has")
        for _ in range(bin(changed).count("1")):
            _, at = number(data, at)
        return at
    if kind == ARCH:
        effect, at = number(data, at)
        if effect == _REGISTERS:
            step = 1
            while step:
                step, at = number(data, at)
                if step:
                    _, at = number(data, at)
            return at
        if effect in _PSERIES:
            for _ in range(_PSERIES[effect]):
                _, at = number(data, at)
            return at
    raise Malformed(f"the entry at byte {begin} is of an unknown kind {kind}")
