"""A disk for one run, on top of an image that stays as it is.

Gigabytes are not copied: a run works on an overlay. But QEMU finds no snapshot
of the image below an overlay, only those of the overlay itself. So the
snapshots are brought along: their tables, the saved machine state, and those
clusters of the disk that differ from what the image holds now. All else is
read from the image. Pure Python.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import zlib
from array import array
from pathlib import Path

from ..errors import ImageError
from . import cache, qcow2
from .qcow2 import COMPRESSED, OFFSET_MASK, Reader, SnapshotEntry

__all__ = ["SMALL", "OverlayUnsupported", "create_overlay", "private_disk"]

#: Images of up to this many bytes are copied whole: that is quick.
SMALL = 192 << 20

_COPIED = 1 << 63
_ZERO = 1
_CHUNK = 8 << 20


class OverlayUnsupported(ImageError):
    """The snapshots of an image cannot be brought to an overlay: copy it instead."""


def private_disk(image: Path, directory: Path | None = None) -> Path:
    """Make a disk that one run can change, with all snapshots; returns its path.

    The caller deletes it, and may do so as soon as QEMU has opened it. In this
    order: blocks shared with the image, where the file system can do it; a
    copy, if the image is small; an overlay that has the snapshots. Only for an
    image with a feature that rules an overlay out (encryption, an external data
    file, subclusters, snapshots of another size) is a big image copied. Default
    directory: :func:`run_directory`.
    """
    with qcow2.opened(image) as reader:
        count = len(reader.snapshot_entries())
        backing = reader.backing_file
    # A relative name would mean another file, seen from another directory.
    movable = not backing or Path(backing).is_absolute()
    status = image.stat()
    small = status.st_blocks * 512 <= SMALL
    where = run_directory() if directory is None else cache.make_directory(directory)
    if movable and (count or not small) and (disk := _cloned(image, where)):
        return disk
    if movable and small and count:
        return cache.private_copy(image, where)
    disk = cache.new_disk(image, where)
    try:
        create_overlay(disk, image)
        return disk
    except BaseException as error:
        with contextlib.suppress(OSError):
            disk.unlink()
        if not isinstance(error, OverlayUnsupported):
            raise
        if not movable:
            raise ImageError(
                f"{image} cannot be used as it is: {error}, and its backing file {backing} is "
                "named by a relative path: give the whole path with qemu-img rebase -u -b"
            ) from error
    cache.check_space(where, status.st_blocks * 512, f"a copy of {image.name}")
    return cache.private_copy(image, where)


def run_directory() -> Path:
    """Where the disks of runs are: the cache's ``run``, or, where it is read-only, ``TMPDIR``."""
    own = cache.home() / "run"
    with contextlib.suppress(ImageError):
        if os.access(cache.make_directory(own), os.W_OK):
            return own
    return Path(tempfile.gettempdir())


def _cloned(image: Path, where: Path) -> Path | None:
    disk = cache.new_disk(image, where)
    with contextlib.suppress(OSError):
        if cache.clone(image, disk):
            return disk
    with contextlib.suppress(OSError):
        disk.unlink()
    return None


def create_overlay(path: Path, image: Path) -> Path:
    """Make an overlay of an image that has the image's snapshots; returns its path.

    Its disk is the image's as it is now. ImageError if the image is damaged or
    the overlay cannot be written; OverlayUnsupported if the snapshots cannot be
    brought along.
    """
    base = image.absolute()
    with qcow2.opened(base) as reader:
        entries = reader.snapshot_entries()
        if entries:
            _check_supported(reader, entries)
        try:
            with base.open("rb") as source, path.open("wb+") as out:
                _Writer(reader, base, source.fileno(), out.fileno()).write(entries)
        except OSError as error:
            raise ImageError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _check_supported(reader: Reader, entries: list[SnapshotEntry]) -> None:
    if reader.encrypted:
        raise OverlayUnsupported("it is encrypted")
    if reader.features & (qcow2.EXTENDED_L2 | qcow2.DATA_FILE):
        raise OverlayUnsupported("it has subclusters or an external data file")
    for entry in entries:
        if entry.disk_size != reader.size:
            raise OverlayUnsupported(
                f"snapshot {entry.snapshot.name!r} is of a disk of another size"
            )


class _Writer:
    """Writes one overlay: data as it comes, reference counts and header at the end."""

    def __init__(self, reader: Reader, base: Path, source: int, out: int) -> None:
        self._reader = reader
        self._base = base
        self._source = source
        self._out = out
        self._counts = array("H", [1])  # the header's cluster
        self._placed: dict[int, int] = {}  # cluster of the image -> of the overlay
        self._copies: list[list[int]] = []  # place in the image, place here, bytes
        self._cluster = reader.cluster
        self._per_l2 = reader.cluster // 8
        #: Entries of the L1 table that are the disk; what is behind them is machine state.
        self._disk_l1 = -(-reader.size // (reader.cluster * self._per_l2))

    def write(self, entries: list[SnapshotEntry]) -> None:
        """Write it all."""
        cluster = self._cluster
        # The active disk: nothing of its own.
        l1 = (max(self._disk_l1, 1), self._put(bytes(8 * max(self._disk_l1, 1))))
        table = b""
        active = self._reader.table(self._reader.l1[1], self._reader.l1[0], "L1 table (disk)")
        for entry in entries:
            table += self._snapshot(entry, active)
        snapshots = (len(entries), self._put(table) if table else 0)
        for place, target, size in self._copies:
            _copy(self._source, self._out, place, target, size)
        refcounts = self._refcounts()
        header = qcow2.make_header(
            cluster_bits=self._reader.bits,
            size=self._reader.size,
            l1=l1,
            refcounts=refcounts,
            snapshots=snapshots,
            backing_file=self._base,
        )
        os.ftruncate(self._out, len(self._counts) * cluster)
        _pwrite(self._out, header, 0)

    def _allocate(self, clusters: int) -> int:
        place = len(self._counts) * self._cluster
        self._counts.extend([1] * clusters)
        return place

    def _put(self, data: bytes) -> int:
        place = self._allocate(-(-len(data) // self._cluster))
        _pwrite(self._out, data, place)
        return place

    def _snapshot(self, entry: SnapshotEntry, active: array[int]) -> bytes:
        """Bring one snapshot along; returns its entry of the table."""
        what = f"snapshot {entry.snapshot.name!r}"
        theirs = self._reader.table(entry.l1_offset, entry.l1_entries, f"L1 table ({what})")
        l1 = array("Q", bytes(8 * len(theirs)))
        for index, value in enumerate(theirs):
            place = value & OFFSET_MASK
            if index >= self._disk_l1:
                now = None
            else:
                now = (active[index] if index < len(active) else 0) & OFFSET_MASK
                if now == place:
                    continue
            if place or now:
                l1[index] = self._l2(place, now, what)
        # Without the "only reference" flag: QEMU corrects it when it loads one.
        text = (entry.snapshot.id.encode(), entry.snapshot.name.encode())
        record = qcow2.SNAPSHOT_ENTRY.pack(
            *(self._put(_big_endian(l1)), len(l1), len(text[0]), len(text[1])),
            *(entry.snapshot.date, 0, entry.snapshot.vm_clock, 0, 16),
        )
        record += struct.pack(">QQ", entry.snapshot.vm_state_size, entry.disk_size)
        record += text[0] + text[1]
        return record + bytes(-len(record) % 8)

    def _l2(self, place: int, now: int | None, what: str) -> int:
        """Write an L2 table; ``now`` is the active one, None in the machine state."""
        theirs = self._read_l2(place, what)
        ours = self._read_l2(now or 0, "disk")
        if now is not None and theirs == ours:
            return 0
        l2 = array("Q", bytes(self._cluster))
        for index, (value, current) in enumerate(zip(theirs, ours)):
            if now is not None and not (value ^ current) & ~_COPIED:
                continue
            if value & COMPRESSED:
                l2[index] = self._unpacked(value, what)
            elif value & _ZERO and self._reader.version >= 3:
                l2[index] = _ZERO
            elif value & OFFSET_MASK:
                l2[index] = self._copied(value & OFFSET_MASK)
            elif now is not None and self._reader.backing_file:
                raise OverlayUnsupported("it has a backing file, and its snapshots differ from it")
            else:
                l2[index] = _ZERO
        if not any(l2):
            return 0
        return self._put(_big_endian(l2))

    def _read_l2(self, place: int, what: str) -> array[int]:
        if not place:
            return array("Q", bytes(self._cluster))
        if place % self._cluster:
            raise ImageError(f"{self._base} is damaged (the L2 table of the {what})")
        return self._reader.table(place, self._per_l2, f"L2 table ({what})")

    def _copied(self, place: int) -> int:
        """Where a cluster of the image will be; it is copied later, with its neighbours."""
        if place in self._placed:
            target = self._placed[place]
            self._counts[target // self._cluster] += 1
            return target
        target = self._placed[place] = self._allocate(1)
        size = self._cluster
        last = self._copies[-1] if self._copies else [0, 0, 0]
        if last[0] + last[2] == place and last[1] + last[2] == target:
            last[2] += size
        else:
            self._copies.append([place, target, size])
        return target

    def _unpacked(self, value: int, what: str) -> int:
        if self._reader.features & qcow2.COMPRESSION:
            raise OverlayUnsupported("its data is not compressed with zlib")
        bits = 62 - (self._reader.bits - 8)
        place = value & ((1 << bits) - 1)
        sectors = (value >> bits) & ((1 << self._reader.bits - 8) - 1)
        size = (sectors + 1) * 512 - place % 512
        raw = os.pread(self._source, size, place)  # the end of the file may cut it short
        try:
            data = zlib.decompressobj(-15).decompress(raw, self._cluster)
        except zlib.error as error:
            raise ImageError(f"{self._base} is damaged (data of {what}: {error})") from error
        if len(data) != self._cluster:
            raise ImageError(f"{self._base} is damaged (data of {what} is not whole)")
        return self._put(data)

    def _refcounts(self) -> tuple[int, int]:
        """Write the reference counts; returns how many clusters the table has, and its place."""
        per_block = self._cluster // 2
        used = len(self._counts)
        blocks = tables = 0
        while True:
            total = used + blocks + tables
            need = -(-total // per_block)
            table = -(-need * 8 // self._cluster)
            if (need, table) == (blocks, tables):
                break
            blocks, tables = need, table
        place = self._allocate(tables)
        first = self._allocate(blocks)
        index = array("Q", [first + n * self._cluster for n in range(blocks)])
        _pwrite(self._out, _big_endian(index), place)
        _pwrite(self._out, _big_endian(self._counts), first)
        return tables, place


def _big_endian(table: array[int]) -> bytes:
    import sys

    if sys.byteorder == "little":
        table = table[:]
        table.byteswap()
    return table.tobytes()


def _pwrite(out: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(out, view, place)
        view, place = view[done:], place + done


def _copy(source: int, out: int, place: int, target: int, size: int) -> None:
    while size:
        try:
            done = os.copy_file_range(source, out, min(size, _CHUNK), place, target)
        except OSError:
            data = os.pread(source, min(size, _CHUNK), place)
            _pwrite(out, data, target)
            done = len(data)
        if not done:
            return  # the last cluster of an image need not be whole
        place, target, size = place + done, target + done, size - done
