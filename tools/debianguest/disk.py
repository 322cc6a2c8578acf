"""A raw disk as a compressed qcow2 image. The same input gives the same bytes."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from pandalite.qcows import qcow2

_BITS = 16
_CLUSTER = 1 << _BITS
_PER_L2 = _CLUSTER // 8
_COPIED = 1 << 63
_ZERO = bytes(_CLUSTER)


def _used(raw: int, size: int) -> Iterator[int]:
    """The clusters of a file that are no holes, by number."""
    at, last = 0, -1
    while at < size:
        try:
            start = os.lseek(raw, at, os.SEEK_DATA)
        except OSError:  # no data behind this
            return
        at = os.lseek(raw, start, os.SEEK_HOLE)
        for number in range(max(start // _CLUSTER, last + 1), -(-at // _CLUSTER)):
            yield number
            last = number


def _packed(data: bytes) -> bytes | None:
    """A cluster as QEMU unpacks it (a window of 4 KB, no header); None if it is no smaller."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    packed = packer.compress(data) + packer.flush()
    return packed if len(packed) < _CLUSTER else None


def compress(raw: Path, image: Path) -> None:
    """Write the disk in the file ``raw`` to a new qcow2 image, compressed.

    Clusters of zeros take no room. It is meant to be a backing file: what is
    written to it later is written uncompressed.
    """
    size = raw.stat().st_size
    l2_tables = -(-size // (_CLUSTER * _PER_L2))
    l2: dict[int, list[int]] = {}
    counts: dict[int, int] = {}
    l1_clusters = -(-l2_tables * 8 // _CLUSTER)
    first_data = (1 + l1_clusters) * _CLUSTER
    with raw.open("rb") as source, image.open("xb") as out:
        end = first_data
        out.seek(end)
        for number in _used(source.fileno(), size):
            data = os.pread(source.fileno(), _CLUSTER, number * _CLUSTER).ljust(_CLUSTER, b"\0")
            if data == _ZERO:
                continue
            packed = _packed(data)
            if packed is None:
                end = -(-end // _CLUSTER) * _CLUSTER
                entry, stored = end | _COPIED, data
            else:
                sectors = (end + len(packed) - 1) // 512 - end // 512
                entry = qcow2.COMPRESSED | sectors << 62 - (_BITS - 8) | end
                stored = packed
            out.seek(end)
            out.write(stored)
            for cluster in range(end // _CLUSTER, (end + len(stored) - 1) // _CLUSTER + 1):
                counts[cluster] = counts.get(cluster, 0) + 1
            end += len(stored)
            l2.setdefault(number // _PER_L2, [0] * _PER_L2)[number % _PER_L2] = entry
        # The tables, each in clusters of its own, behind the data.
        end = -(-end // _CLUSTER)
        l1 = [0] * l2_tables
        for index, table in sorted(l2.items()):
            out.seek(end * _CLUSTER)
            out.write(struct.pack(f">{_PER_L2}Q", *table))
            l1[index] = end * _CLUSTER | _COPIED
            end += 1
        per_block = _CLUSTER // 2
        blocks = tables = 0
        while (need := -(-(end + blocks + tables) // per_block)) != blocks or (
            -(-need * 8 // _CLUSTER) != tables
        ):
            blocks, tables = need, -(-need * 8 // _CLUSTER)
        total = end + tables + blocks
        for cluster in [*range(1 + l1_clusters), *range(end - len(l2), total)]:
            counts[cluster] = 1
        refs = struct.pack(
            f">{blocks * per_block}H", *(counts.get(c, 0) for c in range(blocks * per_block))
        )
        out.seek(end * _CLUSTER)
        index_table = struct.pack(
            f">{blocks}Q", *((end + tables + n) * _CLUSTER for n in range(blocks))
        )
        out.write(index_table.ljust(tables * _CLUSTER, b"\0"))
        out.write(refs)
        header = qcow2.make_header(
            cluster_bits=_BITS,
            size=size,
            l1=(l2_tables, _CLUSTER),
            refcounts=(tables, end * _CLUSTER),
            snapshots=(0, 0),
            backing_file=None,
        )
        out.seek(0)
        out.write(header)
        out.seek(_CLUSTER)
        out.write(struct.pack(f">{l2_tables}Q", *l1))
