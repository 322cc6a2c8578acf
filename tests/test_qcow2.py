"""pandalite/qcows/qcow2.py: making, checking and reading qcow2 images."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from images import CLUSTER, Builder, add_data, add_snapshots

from pandalite.errors import ImageError
from pandalite.qcows import overlay, qcow2

MB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with data and two snapshots."""
    path = qcow2.create(tmp_path / "disk.qcow2", 64 * MB)
    add_data(path)
    add_snapshots(path, ["root", "später"])
    return path


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("size", [512, 64 * MB, 513 * MB, 1 << 40])
def test_create(tmp_path: Path, size: int) -> None:
    path = qcow2.create(tmp_path / "disk.qcow2", size)
    info = qcow2.validate(path, deep=True)
    assert (info.version, info.virtual_size, info.cluster_size) == (3, size, CLUSTER)
    assert info.backing_file is None
    assert info.snapshots == ()
    assert [p.name for p in tmp_path.iterdir()] == ["disk.qcow2"]
    reach = struct.unpack_from(">I", path.read_bytes(), 36)[0] * CLUSTER * (CLUSTER // 8)
    assert size <= reach < size + CLUSTER * (CLUSTER // 8)


def test_create_overlay(tmp_path: Path) -> None:
    base = qcow2.create(tmp_path / "base, 1.qcow2", 64 * MB)
    path = qcow2.create(tmp_path / "disk.qcow2", 64 * MB, backing_file=base)
    info = qcow2.validate(path, deep=True)
    assert (info.virtual_size, info.backing_file) == (64 * MB, str(base))
    base.unlink()
    with pytest.raises(ImageError, match=r"backing file .*base, 1\.qcow2"):
        qcow2.validate(path)
    with pytest.raises(ImageError, match="too long"):
        qcow2.create(tmp_path / "x", 512, backing_file="/" + "d/" * 600)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("size", [0, -512, 1000, 1 << 60])
def test_create_refuses(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match="disk"):
        qcow2.create(tmp_path / "disk.qcow2", size)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img to compare with")
def test_qemu_img_agrees(image: Path) -> None:
    done = subprocess.run(["qemu-img", "check", image], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    listing = subprocess.run(
        ["qemu-img", "snapshot", "-l", image], capture_output=True, text=True, check=True
    ).stdout
    assert all(s.name in listing for s in qcow2.list_snapshots(image))


def test_list_snapshots(image: Path) -> None:
    first, second = qcow2.list_snapshots(image)
    assert first == qcow2.Snapshot("1", "root", 12345, 1001, 77)
    assert (second.id, second.name) == ("2", "später")
    info = qcow2.validate(image)
    assert info.has_snapshot("root")
    assert not info.has_snapshot("roo")


def test_missing_and_directory(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no disk image .*nowhere.*check the path"):
        qcow2.validate(tmp_path / "nowhere.qcow2")
    with pytest.raises(ImageError, match="is a directory"):
        qcow2.validate(tmp_path)
    with pytest.raises(ImageError, match="no disk image"):
        qcow2.list_snapshots(tmp_path / "nowhere.qcow2")
    assert not qcow2.is_qcow2(tmp_path)


def test_not_qcow2(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"\0" * 4096)
    with pytest.raises(ImageError, match=r"not a qcow2 image.*convert"):
        qcow2.validate(path)
    path.write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        qcow2.validate(path)
    path.write_bytes(b"MZ")
    with pytest.raises(ImageError, match="not a qcow2"):
        qcow2.validate(path)
    assert not qcow2.is_qcow2(path)


def test_every_cut_is_noticed(image: Path) -> None:
    whole = image.read_bytes()
    assert len(whole) == 9 * CLUSTER
    for length in (2, 30, 72, 103, *range(CLUSTER // 2, len(whole), CLUSTER // 2)):
        if length > len(whole) - CLUSTER:
            continue  # inside the last cluster, which is mostly empty
        image.write_bytes(whole[:length])
        with pytest.raises(ImageError, match="truncated"):
            qcow2.validate(image)
    image.write_bytes(whole)
    qcow2.validate(image, deep=True)


def test_counts_of_clusters_never_written_are_harmless(tmp_path: Path) -> None:
    # What a killed writer leaves: counted, but nothing refers to it.
    path = qcow2.create(tmp_path / "disk.qcow2", 64 * MB)
    patch(path, 2 * CLUSTER + 2 * 100, b"\0\1")
    assert qcow2.validate(path).virtual_size == 64 * MB
    # The same count with a table that refers to it is lost data.
    place = add_data(path)
    path.write_bytes(path.read_bytes()[:place])
    with pytest.raises(ImageError, match=rf"truncated: data of the disk is at byte {place}"):
        qcow2.validate(path)


def test_lost_table_of_a_snapshot(tmp_path: Path) -> None:
    path = qcow2.create(tmp_path / "disk.qcow2", 64 * MB)
    add_snapshots(path, ["root"])
    l1 = 4 * CLUSTER
    patch(path, l1, struct.pack(">Q", 1 << 63 | 500 * CLUSTER))
    qcow2.validate(path)  # the quick check does not follow tables
    with pytest.raises(ImageError, match=r"truncated: its L2 table \(snapshot 'root'\)"):
        qcow2.validate(path, deep=True)


@pytest.mark.parametrize(
    ("offset", "data", "reason"),
    [
        (4, b"\0\0\0\x09", "version 9"),
        (20, b"\0\0\0\x40", "cluster size"),
        (24, b"\x7f" + b"\xff" * 7, "L1 table is too small"),
        (36, b"\xff" * 4, "L1 table"),
        (40, b"\0\0\0\0\0\0\x02\x01", "L1 table"),
        (40, b"\0\0\0\x40\0\0\0\0", "truncated"),
        (56, b"\0\0\0\0", "reference count table"),
        (60, b"\xff" * 4, "snapshots"),
        (72, b"\0" * 7 + b"\x02", r"marked corrupt.*qemu-img check"),
        (72, b"\x80" + b"\0" * 7, "features"),
        (96, b"\0\0\0\x07", "reference counts"),
    ],
)
def test_damaged_header(image: Path, offset: int, data: bytes, reason: str) -> None:
    patch(image, offset, data)
    with pytest.raises(ImageError, match=reason):
        qcow2.validate(image)


def test_backing_file(tmp_path: Path) -> None:
    path = qcow2.create(tmp_path / "disk.qcow2", 64 * MB)

    def set_backing(name: bytes) -> None:
        patch(path, 8, struct.pack(">QI", 200, len(name)))
        patch(path, 200, name)

    set_backing(b"base.qcow2")
    with pytest.raises(ImageError, match=r"backing file .*base\.qcow2.*rebase"):
        qcow2.validate(path)
    (tmp_path / "base.qcow2").touch()
    assert qcow2.validate(path).backing_file == "base.qcow2"
    set_backing(b"nbd://localhost/x")
    assert qcow2.validate(path).backing_file == "nbd://localhost/x"
    set_backing(b"file:gone")
    with pytest.raises(ImageError, match="gone"):
        qcow2.validate(path)


def test_random_damage_raises_nothing_else(image: Path) -> None:
    generator = random.Random(20)  # the same damage each time
    whole = image.read_bytes()
    # Where the metadata is: damage of plain data cannot be noticed.
    areas = [(0, 120), (CLUSTER, 64), (2 * CLUSTER, 64), (3 * CLUSTER, 64), (4 * CLUSTER, 64)]
    areas.append((8 * CLUSTER, 200))
    refused = 0
    for _ in range(600):
        changed = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            start, size = generator.choice(areas)
            changed[start + generator.randrange(size)] = generator.randrange(256)
        if generator.random() < 0.2:
            del changed[generator.randrange(len(changed)) :]
        image.write_bytes(changed)
        for deep in (False, True):
            try:
                qcow2.validate(image, deep=deep)
            except ImageError:
                refused += 1
    assert refused > 300


def test_fuzz(tmp_path: Path) -> None:
    # Each structure is damaged for itself, bits and whole numbers, also to
    # values that point elsewhere in the file.
    path = tmp_path / "disk.qcow2"
    active: dict[int, bytes | None] = {n: bytes([n + 1]) * 512 for n in range(40)}
    builder = Builder(40 * 512, bits=9, compress=[3, 4]).state(active)
    state: dict[int, bytes | None] = {**active, 5: None, 6: b"x" * 512, 70: b"vm" * 256}
    builder.state(state, "root").state({0: b"y" * 512}, "other").write(path)
    whole = path.read_bytes()
    with qcow2.opened(path) as reader:
        tables = [reader.l1, *(e[1:3] for e in reader.snapshot_entries())]
        areas = [(0, 112)] * 3 + [(place, 8 * entries) for entries, place in tables]
        for entries, place in tables:
            l2 = reader.table(place, entries, "L1")
            areas += [(entry & qcow2.OFFSET_MASK, 512) for entry in l2 if entry]
        refcounts, snapshots = (
            struct.unpack_from(">Q", whole, 48),
            struct.unpack_from(">Q", whole, 64),
        )
        areas += [(refcounts[0], 8), (snapshots[0], 150)]
        areas.append((struct.unpack_from(">Q", whole, refcounts[0])[0], 512))
    generator = random.Random(4711)  # the same damage each time
    refused = 0
    for _ in range(1500):
        changed = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            start, size = generator.choice(areas)
            at = start + generator.randrange(size)
            kind = generator.randrange(4)
            if kind == 0:
                changed[at] ^= 1 << generator.randrange(8)
            elif kind == 1:
                changed[at] = generator.randrange(256)
            else:
                at -= at % (4 if kind == 2 else 8)
                values = (0, 1, 511, 512, len(whole) - 512, len(whole), 1 << 31, (1 << 32) - 1)
                value = generator.choice((*values, 512 * generator.randrange(100)))
                struct.pack_into(">I" if kind == 2 else ">Q", changed, at, value)
        if generator.random() < 0.1:
            del changed[generator.randrange(len(changed)) :]
        path.write_bytes(changed)
        for check in (
            lambda: qcow2.validate(path, deep=True),
            lambda: qcow2.validate(path),
            lambda: overlay.create_overlay(tmp_path / "overlay", path),
        ):
            try:
                check()
            except ImageError:
                refused += 1
    assert refused > 800
