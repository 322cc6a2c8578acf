"""pandalite/qcows/overlay.py: disks of runs on top of images that stay as they are."""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from images import Builder, add_snapshots, read_clusters

from pandalite.errors import ImageError
from pandalite.qcows import cache, overlay, qcow2

MB = 1 << 20


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    monkeypatch.setenv("PANDALITE_HOME", str(path))
    monkeypatch.setattr(cache, "clone", lambda *_: False)  # as on ext4
    return path


def check_with_qemu_img(path: Path) -> None:
    """Have QEMU's own tool look, where it is installed."""
    if shutil.which("qemu-img"):
        done = subprocess.run(["qemu-img", "check", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def random_state(generator: random.Random, count: int, size: int) -> dict[int, bytes | None]:
    state: dict[int, bytes | None] = {}
    for number in generator.sample(range(count), count // 2):
        kind = generator.randrange(8)
        state[number] = None if kind == 0 else generator.randbytes(16) * (size // 16)
    return state


@pytest.mark.parametrize("seed", range(12))
def test_snapshots_come_along(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    bits = generator.choice([9, 9, 12, 16])
    size = 1 << bits
    count = generator.choice([70, 130]) if bits == 9 else 20
    compress = generator.sample(range(count), count // 4)
    builder = Builder(count * size, bits, compress)
    disk = random_state(generator, count, size)
    builder.state(disk)
    snapshots = ("root", "später")[: generator.randint(1, 2)]
    first = -(-count // (size // 8)) * (size // 8)  # of the machine state
    for name in snapshots:
        state = {**disk, **random_state(generator, count, size)}
        for number in generator.sample(range(count), 5):
            state.pop(number, None)
        for number in range(first, first + 9):
            state[number] = generator.randbytes(size)
        builder.state(state, name)
    base = builder.write(tmp_path / "base.qcow2")
    before = base.read_bytes()
    check_with_qemu_img(base)
    made = overlay.create_overlay(tmp_path / "overlay.qcow2", base)
    info = qcow2.validate(made, deep=True)
    assert info.snapshots == qcow2.validate(base).snapshots
    assert info.backing_file == str(base)
    assert read_clusters(made) == read_clusters(base)
    for name in snapshots:
        wanted = read_clusters(base, name)
        assert len(wanted) >= 9
        assert read_clusters(made, name) == wanted
    check_with_qemu_img(made)
    assert base.read_bytes() == before


def test_what_is_the_same_is_not_copied(tmp_path: Path) -> None:
    disk: dict[int, bytes | None] = {n: os.urandom(65536) for n in range(30)}
    base = Builder(32 * 65536).state(disk).state({**disk, 8192: b"v" * 65536}, "root")
    path = base.write(tmp_path / "base.qcow2")
    made = overlay.create_overlay(tmp_path / "overlay.qcow2", path)
    assert made.stat().st_size < 12 * 65536
    assert 8192 in read_clusters(made, "root")


def test_private_disk_chooses(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = qcow2.create(tmp_path / "plain.qcow2", MB)
    disk = overlay.private_disk(plain)
    assert disk.parent == home / "run"
    assert qcow2.validate(disk).backing_file == str(plain)
    with_root = qcow2.create(tmp_path / "root.qcow2", 64 * MB)
    add_snapshots(with_root, ["root"])
    assert overlay.private_disk(with_root).read_bytes() == with_root.read_bytes()
    monkeypatch.setattr(overlay, "SMALL", 0)
    disk = overlay.private_disk(with_root)
    info = qcow2.validate(disk)
    assert info.has_snapshot("root") and info.backing_file == str(with_root)
    # A clone, where the file system has them.
    monkeypatch.setattr(cache, "clone", lambda a, b: bool(shutil.copy(a, b)))
    assert overlay.private_disk(with_root).read_bytes() == with_root.read_bytes()
    assert sorted(p.stem.split("-")[0] for p in (home / "run").iterdir()) == [
        *("plain", "root", "root", "root")
    ]


def test_what_an_overlay_cannot_have_is_copied(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "SMALL", 0)
    path = qcow2.create(tmp_path / "base.qcow2", MB)
    add_snapshots(path, ["root"])  # the disk was of 64 MB then
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, 32, 2)
    path.write_bytes(data)
    with pytest.raises(overlay.OverlayUnsupported, match="encrypted"):
        overlay.create_overlay(tmp_path / "o", path)
    assert overlay.private_disk(path).read_bytes() == data
    struct.pack_into(">I", data, 32, 0)
    path.write_bytes(data)
    with pytest.raises(overlay.OverlayUnsupported, match="another size"):
        overlay.create_overlay(tmp_path / "o", path)
    copies = len(list((home / "run").iterdir()))
    monkeypatch.setattr(
        os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 9, 9, 3, 9, 9, 9, 0, 255))
    )
    with pytest.raises(ImageError, match=r"no room for a copy of base\.qcow2.*are free"):
        overlay.private_disk(path)
    assert len(list((home / "run").iterdir())) == copies


def test_relative_backing_file(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    qcow2.create(folder / "base.qcow2", MB)
    path = qcow2.create(folder / "disk.qcow2", MB, backing_file=folder / "base.qcow2")
    data = path.read_bytes().replace(
        str(folder / "base.qcow2").encode(),
        b"base.qcow2" + bytes(len(str(folder)) + 1),
    )
    data = data[:16] + struct.pack(">I", 10) + data[20:]
    path.write_bytes(data)
    assert qcow2.validate(path).backing_file == "base.qcow2"
    # Not copied to where the name would mean something else.
    assert qcow2.validate(overlay.private_disk(path)).backing_file == str(path)


def test_damaged_compressed_data(tmp_path: Path) -> None:
    state: dict[int, bytes | None] = {0: b"a" * 65536}
    base = Builder(MB, compress=[0]).state({}).state(state, "root").write(tmp_path / "b.qcow2")
    data = base.read_bytes()
    packed = zlib.compressobj(9, zlib.DEFLATED, -12)
    start = (packed.compress(b"a" * 65536) + packed.flush())[:20]
    base.write_bytes(data.replace(start, b"\xff" * 20))
    with pytest.raises(ImageError, match=r"is damaged \(data of snapshot 'root'"):
        overlay.create_overlay(tmp_path / "o", base)


def test_read_only_cache(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = home / "images" / "x" / "disk.qcow2"
    image.parent.mkdir(parents=True)
    qcow2.create(image, MB)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(overlay.tempfile, "gettempdir", lambda: str(temporary))
    home.chmod(stat.S_IRUSR | stat.S_IXUSR)
    real = os.access
    monkeypatch.setattr(os, "access", lambda p, m: real(p, m) and not str(p).startswith(str(home)))
    try:
        assert overlay.private_disk(image).parent == temporary
    finally:
        home.chmod(0o755)


def test_no_leftovers_after_damage(tmp_path: Path, home: Path) -> None:
    path = qcow2.create(tmp_path / "base.qcow2", MB)
    add_snapshots(path, ["root"])
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, 60, 1 << 30)
    path.write_bytes(data)
    with pytest.raises(ImageError, match="snapshots"):
        overlay.private_disk(path)
    assert not (home / "run").exists() or list((home / "run").iterdir()) == []
