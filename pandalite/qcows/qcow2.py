"""qcow2 disk images: make an empty one, check one, list its snapshots.

Pure Python, so that no ``qemu-img`` is needed. The format is described in
docs/interop/qcow2 of QEMU's documentation.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import ImageError
from . import cache

__all__ = [
    "Info",
    "Snapshot",
    "create",
    "create_on_top",
    "is_qcow2",
    "list_snapshots",
    "make_header",
    "opened",
    "validate",
]

MAGIC = b"QFI\xfb"

_CLUSTER_BITS = 16
_HEADER_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_HEADER_V3 = struct.Struct(">QQQII")
SNAPSHOT_ENTRY = struct.Struct(">QIHHIIQII")
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
COMPRESSED = 1 << 62

_DIRTY = 1 << 0
_CORRUPT = 1 << 1
DATA_FILE = 1 << 2
COMPRESSION = 1 << 3
EXTENDED_L2 = 1 << 4
_KNOWN_INCOMPATIBLE = _DIRTY | _CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2

# QEMU's own limits; anything above is damage, not a big image.
_MAX_L1_BYTES = 32 << 20
_MAX_REFCOUNT_TABLE_BYTES = 8 << 20
_MAX_SNAPSHOTS = 65536
_MAX_SNAPSHOT_EXTRA = 1024


class Snapshot(NamedTuple):
    """An internal snapshot as the image's snapshot table has it.

    ``vm_state_size`` is the bytes of machine state (0: a disk-only snapshot),
    ``date`` seconds since 1970, ``vm_clock`` nanoseconds of guest time.
    """

    id: str
    name: str
    vm_state_size: int
    date: int
    vm_clock: int


class SnapshotEntry(NamedTuple):
    """A snapshot, its L1 table (entries and place), and the disk's size then."""

    snapshot: Snapshot
    l1_entries: int
    l1_offset: int
    disk_size: int


class Info(NamedTuple):
    """What the header of an image says.

    ``virtual_size`` and ``cluster_size`` are in bytes; ``backing_file`` is as
    written in the image, None if there is none.
    """

    version: int
    virtual_size: int
    cluster_size: int
    backing_file: str | None
    snapshots: tuple[Snapshot, ...]

    def has_snapshot(self, name: str) -> bool:
        """Whether there is a snapshot of that name."""
        return any(s.name == name for s in self.snapshots)


def create(
    path: str | os.PathLike[str],
    size: int,
    *,
    backing_file: str | os.PathLike[str] | None = None,
) -> Path:
    """Make an empty qcow2 image of ``size`` bytes, a multiple of 512.

    With ``backing_file``, a qcow2 image, the new one is an overlay: what it does
    not hold itself is read from there. An existing file is replaced. Returns
    the path.
    """
    if size <= 0 or size % 512:
        raise ValueError(f"the size of a disk is a positive multiple of 512 bytes, not {size}")
    cluster = 1 << _CLUSTER_BITS
    entries = -(-size // (cluster * (cluster // 8)))  # an L2 table is one cluster
    l1_clusters = -(-entries * 8 // cluster)
    if entries * 8 > _MAX_L1_BYTES:
        raise ValueError(f"a disk of {size} bytes is too big for this image format")
    clusters = 3 + l1_clusters  # header, refcount table, refcount block, L1 table
    backing = None if backing_file is None else Path(backing_file).absolute()
    header = make_header(
        cluster_bits=_CLUSTER_BITS,
        size=size,
        l1=(entries, 3 * cluster),
        refcounts=(1, cluster),
        snapshots=(0, 0),
        backing_file=backing,
    )
    image = bytearray(clusters * cluster)
    image[: len(header)] = header
    struct.pack_into(">Q", image, cluster, 2 * cluster)
    struct.pack_into(f">{clusters}H", image, 2 * cluster, *([1] * clusters))
    final = Path(path)
    with cache.atomic_file(final) as partial:
        partial.write_bytes(image)
    return final


def make_header(
    *,
    cluster_bits: int,
    size: int,
    l1: tuple[int, int],
    refcounts: tuple[int, int],
    snapshots: tuple[int, int],
    backing_file: Path | None,
) -> bytes:
    """The header of an image of version 3 with counts of 16 bits.

    ``l1``, ``refcounts`` and ``snapshots`` are the number of entries (for
    ``refcounts``: of clusters) and the place of the table. ImageError if the
    name of the backing file is too long.
    """
    name = b"" if backing_file is None else os.fsencode(backing_file)
    extensions = struct.pack(">II", 0xE2792ACA, 5) + b"qcow2\0\0\0" if name else b""
    extensions += bytes(8)  # the end of them
    place = 104 + len(extensions)
    if len(name) > 1023 or place + len(name) > 1 << cluster_bits:
        raise ImageError(f"the path of {backing_file} is too long for an overlay: move it")
    header = _HEADER_V2.pack(
        *(MAGIC, 3, place if name else 0, len(name), cluster_bits, size, 0),
        *(l1[0], l1[1], refcounts[1], refcounts[0], snapshots[0], snapshots[1]),
    )
    return header + _HEADER_V3.pack(0, 0, 0, 4, 104) + extensions + name


def create_on_top(path: str | os.PathLike[str], image: str | os.PathLike[str]) -> Path:
    """Make an empty overlay of an image, as big as it in whole sectors; returns its path."""
    return create(path, -(-validate(image).virtual_size // 512) * 512, backing_file=image)


def is_qcow2(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a qcow2 image does; False if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


def list_snapshots(path: str | os.PathLike[str]) -> list[Snapshot]:
    """The internal snapshots of an image; ImageError if it is not a whole qcow2."""
    with _open(path) as file:
        return list(Reader(Path(path), file).snapshots())


def validate(path: str | os.PathLike[str], *, deep: bool = False) -> Info:
    """Check that a file is a usable qcow2 image; returns what its header says.

    Raises ImageError with the reason and a remedy when the file is missing, a
    directory, not a qcow2, cut off, marked corrupt, or its backing file is
    missing. Whether data is cut off is told by the reference counts, which
    takes well under a millisecond; ``deep`` follows every table instead.
    """
    with _open(path) as file:
        image = Reader(Path(path), file)
        snapshots = tuple(image.snapshots())
        image.check_backing_file()
        if deep or not image.refcounts_fit():
            # Counts for clusters that nothing refers to are harmless (a writer
            # was killed): only the tables tell whether anything is lost.
            image.check_tables()
        return Info(image.version, image.size, image.cluster, image.backing_file or None, snapshots)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Reader]:
    """Open an image to read its tables; ImageError if it is none."""
    with _open(path) as file:
        yield Reader(Path(path), file)


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    file = Path(path)
    if file.is_dir():
        raise ImageError(f"{file} is a directory, not a disk image: name the file inside it")
    try:
        return file.open("rb")
    except FileNotFoundError:
        raise ImageError(
            f"there is no disk image {file}: check the path, or use "
            "Panda(generic=...) for one of the images pandalite knows"
        ) from None
    except OSError as error:
        raise ImageError(f"cannot read the disk image {file}: {error.strerror}") from error


class Reader:
    """An opened image; everything it reads is checked against the file's length.

    Attributes:
        cluster: bytes of a cluster; ``bits`` is its logarithm.
        l1: entries and place of the L1 table of the disk.
        features: the incompatible feature bits.
        encrypted: whether the data is.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._length = file.seek(0, os.SEEK_END)
        start = self.read(0, min(4, self._length), "header")
        if not self._length:
            raise ImageError(f"{path} is empty: {self._remedy}")
        if not MAGIC.startswith(start) or (len(start) < 4 and self._length >= 4):
            raise ImageError(
                f"{path} is not a qcow2 image (it begins with {start!r}): if it is a raw disk, "
                "convert it with qemu-img convert -O qcow2, or give it as a -drive in extra_args"
            )
        fields = _HEADER_V2.unpack(self.read(0, _HEADER_V2.size, "header"))
        self.version: int
        self.size: int
        self._snapshot_count: int
        _, self.version, self._backing_offset, self._backing_size, bits, self.size = fields[:6]
        crypt, self._l1_size, self._l1_offset, self._refcount_offset = fields[6:10]
        self.encrypted: bool = crypt != 0
        self.l1: tuple[int, int] = (self._l1_size, self._l1_offset)
        self._refcount_clusters, self._snapshot_count, self._snapshot_offset = fields[10:]
        if self.version not in (2, 3):
            raise ImageError(
                f"{path} is a qcow image of version {self.version}; version 2 or 3 is needed: "
                "convert it with qemu-img convert -O qcow2"
            )
        if not 9 <= bits <= 21:
            raise self._damaged(f"the cluster size is 2^{bits} bytes")
        self.cluster: int = 1 << bits
        self.bits: int = bits
        self.features, self._refcount_order = 0, 4
        if self.version == 3:
            extra = _HEADER_V3.unpack(self.read(_HEADER_V2.size, _HEADER_V3.size, "header"))
            self.features, _, _, self._refcount_order, _ = extra
        self._check_header()
        self.backing_file = ""
        if self._backing_offset:
            if not 0 < self._backing_size <= 1023:
                raise self._damaged("the name of the backing file has an impossible length")
            name = self.read(self._backing_offset, self._backing_size, "backing file name")
            self.backing_file = os.fsdecode(name)

    def _check_header(self) -> None:
        if self.features & _CORRUPT:
            raise ImageError(
                f"{self._path} is marked corrupt by QEMU: repair it with qemu-img check -r all, "
                f"or {self._remedy}"
            )
        if self.features & ~_KNOWN_INCOMPATIBLE:
            raise ImageError(
                f"{self._path} uses qcow2 features this version does not know "
                f"(bits {self.features & ~_KNOWN_INCOMPATIBLE:#x}): convert it with a newer "
                "qemu-img convert -O qcow2"
            )
        if self._refcount_order > 6:
            raise self._damaged(f"reference counts of 2^{self._refcount_order} bits")
        if self._l1_size * 8 > _MAX_L1_BYTES:
            raise self._damaged("the L1 table is impossibly big")
        if not 0 < self._refcount_clusters * self.cluster <= _MAX_REFCOUNT_TABLE_BYTES:
            raise self._damaged("the reference count table has an impossible size")
        reach = self._l1_size * self._entries_of_l2() * self.cluster
        if self.size > reach:
            raise self._damaged("the L1 table is too small for the disk")
        self._aligned(self._l1_offset, "L1 table")
        self._inside(self._l1_offset, self._l1_size * 8, "L1 table")
        self._aligned(self._refcount_offset, "reference count table")

    def _entries_of_l2(self) -> int:
        return self.cluster // (16 if self.features & EXTENDED_L2 else 8)

    @property
    def _remedy(self) -> str:
        return "delete it and get it again"

    def _damaged(self, what: str) -> ImageError:
        return ImageError(f"{self._path} is damaged ({what}): {self._remedy}")

    def _aligned(self, offset: int, what: str) -> None:
        if offset % self.cluster:
            raise self._damaged(f"the {what} is at an impossible place")

    def _inside(self, offset: int, size: int, what: str) -> None:
        if offset + size > self._length:
            raise ImageError(
                f"{self._path} is truncated: its {what} ends at byte {offset + size}, the file "
                f"has {self._length}: {self._remedy}"
            )

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Bytes at a place of the file; ``what`` they are is for the message."""
        self._inside(offset, size, what)
        try:
            self._file.seek(offset)
            data = self._file.read(size)
        except OSError as error:
            raise ImageError(f"cannot read {self._path}: {error.strerror or error}") from error
        if len(data) != size:
            raise ImageError(f"{self._path} changed while it was read: try again")
        return data

    def table(self, offset: int, entries: int, what: str) -> array[int]:
        """A table of 64-bit numbers."""
        table = array("Q")
        table.frombytes(self.read(offset, entries * 8, what))
        if sys.byteorder == "little":
            table.byteswap()
        return table

    def snapshots(self) -> list[Snapshot]:
        """The internal snapshots."""
        return [entry.snapshot for entry in self.snapshot_entries()]

    def snapshot_entries(self) -> list[SnapshotEntry]:
        """The snapshot table."""
        if self._snapshot_count > _MAX_SNAPSHOTS:
            raise self._damaged(f"it claims to hold {self._snapshot_count} snapshots")
        if self._snapshot_count:
            self._aligned(self._snapshot_offset, "snapshot table")
        found = []
        offset = self._snapshot_offset
        what = "snapshot table"
        for _ in range(self._snapshot_count):
            fields = SNAPSHOT_ENTRY.unpack(self.read(offset, SNAPSHOT_ENTRY.size, what))
            l1_offset, l1_size, id_size, name_size, date, _, clock, state, extra_size = fields
            offset += SNAPSHOT_ENTRY.size
            if extra_size > _MAX_SNAPSHOT_EXTRA or l1_size * 8 > _MAX_L1_BYTES:
                raise self._damaged("the snapshot table holds impossible sizes")
            extra = self.read(offset, extra_size, what)
            if extra_size >= 8:  # the 32-bit size above is 0 when this is there
                (state,) = struct.unpack_from(">Q", extra)
            disk_size = self.size
            if extra_size >= 16:
                (disk_size,) = struct.unpack_from(">Q", extra, 8)
            offset += extra_size
            text = self.read(offset, id_size + name_size, what)
            offset += id_size + name_size
            offset += -offset % 8
            number = text[:id_size].decode("utf-8", "replace")
            name = text[id_size:].decode("utf-8", "replace")
            self._inside(l1_offset, l1_size * 8, f"L1 table (snapshot {name!r})")
            snapshot = Snapshot(number, name, state, date, clock)
            found.append(SnapshotEntry(snapshot, l1_size, l1_offset, disk_size))
        return found

    def check_backing_file(self) -> None:
        """ImageError if there is to be a backing file and it is not there."""
        name = self.backing_file
        if name.startswith("file:"):
            name = name[5:]
        elif ":" in name.split("/")[0]:  # json:, nbd: and the like: for QEMU to judge
            return
        if name and not (self._path.parent / name).exists():
            raise ImageError(
                f"{self._path} needs its backing file {self._path.parent / name}, which does not "
                "exist: put it there, or give its new place with qemu-img rebase -u -b"
            )

    def refcounts_fit(self) -> bool:
        """Whether all clusters with a reference count are inside the file."""
        entries = self._refcount_clusters * self.cluster // 8
        table = self.table(self._refcount_offset, entries, "reference count table")
        per_block = self.cluster * 8 >> self._refcount_order
        for index in range(entries - 1, -1, -1):
            place = table[index] & OFFSET_MASK
            if not place:
                continue
            self._aligned(place, "reference count block")
            block = self.read(place, self.cluster, "reference count block")
            used = len(block.rstrip(b"\0")) * 8 >> self._refcount_order
            if not used:
                continue
            # Rounded down for counts of less than a byte: good enough, as a
            # file is hardly ever cut off in its last few clusters only.
            last: int = index * per_block + max(used - 1, 0)
            return last * self.cluster < self._length
        return True

    def check_tables(self) -> None:
        """Follow the L1 and L2 tables of the disk and of every snapshot."""
        done: set[int] = set()
        self._check_l1(self._l1_offset, self._l1_size, "disk", done)
        for snapshot, entries, offset, _ in self.snapshot_entries():
            self._aligned(offset, f"L1 table of snapshot {snapshot.name!r}")
            self._check_l1(offset, entries, f"snapshot {snapshot.name!r}", done)

    def _check_l1(self, offset: int, entries: int, what: str, done: set[int]) -> None:
        for entry in self.table(offset, entries, f"L1 table ({what})"):
            place = entry & OFFSET_MASK
            if place and place not in done:
                done.add(place)
                self._aligned(place, f"L2 table ({what})")
                self._check_l2(place, what)

    def _check_l2(self, offset: int, what: str) -> None:
        table = self.table(offset, self.cluster // 8, f"L2 table ({what})")
        if self.features & EXTENDED_L2:
            table = table[::2]
        external = bool(self.features & DATA_FILE)
        compressed_mask = (1 << 62 - (self.bits - 8)) - 1
        limit = self._length
        for entry in table:
            if entry & COMPRESSED:
                place = entry & compressed_mask
            elif external:
                continue
            else:
                place = entry & OFFSET_MASK
            if place >= limit:
                raise ImageError(
                    f"{self._path} is truncated: data of the {what} is at byte {place}, the file "
                    f"has {self._length}: {self._remedy}"
                )
