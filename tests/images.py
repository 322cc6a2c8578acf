"""Helpers of the tests that need a disk image with something in it."""

from __future__ import annotations

import struct
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
