"""Helpers of the tests that need a disk image with something in it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from pandalite.qcows import qcow2

CLUSTER = 65536


def _append_cluster(image: bytearray, data: bytes) -> int:
    """Add an allocated cluster at the end; returns its offset."""
    image += bytes(-len(image) % CLUSTER)
    offset = len(image)
    assert len(data) <= CLUSTER
    image += data + bytes(CLUSTER - len(data))
    struct.pack_into(">H", image, 2 * CLUSTER + offset // CLUSTER * 2, 1)
    return offset


def add_data(path: Path, data: bytes = b"data of the guest") -> int:
    """Store data in the first cluster of an image of ours; returns where in the file."""
    image = bytearray(path.read_bytes())
    table = _append_cluster(image, b"")
    place = _append_cluster(image, data)
    flag = 1 << 63  # the only reference to it
    struct.pack_into(">Q", image, 3 * CLUSTER, table | flag)
    struct.pack_into(">Q", image, table, place | flag)
    path.write_bytes(image)
    return place


def add_snapshots(path: Path, names: list[str], vm_state_size: int = 12345) -> None:
    """Give an image of ours snapshots (of an empty disk)."""
    image = bytearray(path.read_bytes())
    entries = b""
    for number, name in enumerate(names, start=1):
        l1 = _append_cluster(image, b"")
        text = str(number).encode() + name.encode()
        entries += struct.pack(
            ">QIHHIIQII", l1, 1, len(str(number)), len(name.encode()), 1000 + number, 0, 77, 0, 16
        )
        entries += struct.pack(">QQ", vm_state_size, 64 << 20) + text
        entries += bytes(-len(entries) % 8)
    table = _append_cluster(image, entries)
    struct.pack_into(">IQ", image, 60, len(names), table)
    path.write_bytes(image)


def image_with_root(path: Path) -> None:
    """An image that has a ``root`` snapshot."""
    qcow2.create(path, 64 << 20)
    add_snapshots(path, ["root"])


class Builder:
    """Writes images with chosen clusters, in the disk and in snapshots.

    A state maps the number of a cluster to its bytes, None for one that reads as
    zeros by its flag. Clusters of equal bytes with equal number are shared.
    """

    def __init__(self, size: int, bits: int = 16, compress: Iterable[int] = ()) -> None:
        self.size, self.bits = size, bits
        self.cluster = 1 << bits
        self._compress = set(compress)
        self._image = bytearray(self.cluster)
        self._counts = {0: 1}
        self._placed: dict[tuple[int, bytes], int] = {}
        self._l1s: list[tuple[int, int]] = []
        self._names: list[str] = []

    def _put(self, data: bytes) -> int:
        place = len(self._image)
        self._image += data + bytes(-len(data) % self.cluster)
        for number in range(place // self.cluster, len(self._image) // self.cluster):
            self._counts[number] = 1
        return place

    def _entry(self, number: int, data: bytes | None) -> int:
        if data is None:
            return 1
        if (number, data) in self._placed:
            place = self._placed[number, data]
            self._counts[(place & qcow2.OFFSET_MASK) // self.cluster] += 1
            return place
        if number in self._compress:
            packer = zlib.compressobj(9, zlib.DEFLATED, -12)
            packed = packer.compress(data) + packer.flush()
            place = self._put(packed) | 1 << 62
            place |= (-(-len(packed) // 512) - 1) << (62 - (self.bits - 8))
        else:
            place = self._put(data)
        self._placed[number, data] = place
        return place

    def state(self, clusters: dict[int, bytes | None], name: str = "") -> Builder:
        """Add the disk's state (without a name), or a snapshot's."""
        per_l2 = self.cluster // 8
        least = -(-self.size // self.cluster // per_l2)
        tables: dict[int, list[int]] = {}
        for number, data in sorted(clusters.items()):
            table = tables.setdefault(number // per_l2, [0] * per_l2)
            table[number % per_l2] = self._entry(number, data)
        l1 = [0] * max([least, *(n + 1 for n in tables)])
        for number, table in tables.items():
            l1[number] = self._put(struct.pack(f">{per_l2}Q", *table))
        self._l1s.append((len(l1), self._put(struct.pack(f">{len(l1)}Q", *l1))))
        self._names.append(name)
        return self

    def write(self, path: Path, vm_state_size: int = 5000) -> Path:
        """Write the image; the state without a name is the disk's."""
        table = b""
        for (entries, place), name in zip(self._l1s, self._names):
            if name:
                text = b"1" + name.encode()
                table += struct.pack(
                    ">QIHHIIQII", place, entries, 1, len(text) - 1, 1000, 0, 77, 0, 16
                )
                table += struct.pack(">QQ", vm_state_size, self.size) + text
                table += bytes(-len(table) % 8)
        snapshots = (len(self._names) - self._names.count(""), self._put(table) if table else 0)
        block = self._put(bytes(self.cluster))
        index = self._put(struct.pack(">Q", block))
        assert max(self._counts) < self.cluster // 2
        for number, count in self._counts.items():
            struct.pack_into(">H", self._image, block + 2 * number, count)
        self._mark_copied(*self._l1s[self._names.index("")])
        header = qcow2.make_header(
            cluster_bits=self.bits,
            size=self.size,
            l1=self._l1s[self._names.index("")],
            refcounts=(1, index),
            snapshots=snapshots,
            backing_file=None,
        )
        self._image[: len(header)] = header
        path.write_bytes(self._image)
        return path

    def _mark_copied(self, entries: int, place: int) -> None:
        """Set the flag "only reference" in the tables of the disk."""
        for at in range(place, place + 8 * entries, 8):
            (entry,) = struct.unpack_from(">Q", self._image, at)
            if entry & ~1 and not entry & 1 << 62 and self._counts[entry // self.cluster] == 1:
                struct.pack_into(">Q", self._image, at, entry | 1 << 63)
            if place == self._l1s[self._names.index("")][1] and entry:
                self._mark_copied(self.cluster // 8, entry)


def read_clusters(path: Path, snapshot: str | None = None) -> dict[int, bytes]:
    """The clusters of the disk, or of a snapshot, that are not zeros, backing file and all."""
    with qcow2.opened(path) as reader:
        entries, place = reader.l1
        for found in reader.snapshot_entries():
            if found.snapshot.name == snapshot:
                entries, place = found.l1_entries, found.l1_offset
        clusters = read_clusters(Path(reader.backing_file)) if reader.backing_file else {}
        size = reader.cluster
        whole = path.read_bytes() + bytes(size)
        for i, l2 in enumerate(reader.table(place, entries, "L1")):
            if not l2 & qcow2.OFFSET_MASK:
                continue
            table = reader.table(l2 & qcow2.OFFSET_MASK, size // 8, "L2")
            for j, entry in enumerate(table):
                number = i * (size // 8) + j
                if entry & qcow2.COMPRESSED:
                    at = entry & ((1 << (62 - (reader.bits - 8))) - 1)
                    clusters[number] = zlib.decompressobj(-12).decompress(whole[at:], size)
                elif entry & 1:
                    clusters.pop(number, None)
                elif entry:
                    at = entry & qcow2.OFFSET_MASK
                    clusters[number] = whole[at : at + size]
    return {number: data for number, data in clusters.items() if any(data)}
