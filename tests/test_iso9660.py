"""ISO images: read back with a small reader of our own, and with other people's tools."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from pandalite import iso9660
from pandalite.errors import ImageError
from pandalite.utils import make_iso

SECTOR = 2048


class Entry(NamedTuple):
    mode: int
    links: int
    mtime: bytes
    target: str
    data: bytes
    iso_name: str


class Reader:
    """Reads what fs/isofs/rock.c reads, and is as strict about it."""

    def __init__(self, path: Path) -> None:
        self.image = path.read_bytes()
        self.entries: dict[str, Entry] = {}
        pvd = self.image[16 * SECTOR : 17 * SECTOR]
        assert pvd[:7] == b"\x01CD001\x01"
        assert self.image[17 * SECTOR :][:7] == b"\xffCD001\x01"
        assert struct.unpack("<I", pvd[80:84])[0] * SECTOR == len(self.image)
        assert struct.unpack(">I", pvd[84:88])[0] * SECTOR == len(self.image)
        self.check_path_tables(pvd)
        extent, size = self.place(pvd[156:190])
        self.walk(extent, size, "")

    @staticmethod
    def place(record: bytes) -> tuple[int, int]:
        little = struct.unpack("<I", record[2:6]) + struct.unpack("<I", record[10:14])
        big = struct.unpack(">I", record[6:10]) + struct.unpack(">I", record[14:18])
        assert little == big
        return little[0], little[1]

    def check_path_tables(self, pvd: bytes) -> None:
        size = struct.unpack("<I", pvd[132:136])[0]
        tables = []
        for order, where in (("<", 140), (">", 148)):
            start = struct.unpack(order + "I", pvd[where : where + 4])[0] * SECTOR
            table, rows = self.image[start : start + size], []
            while table:
                length, _, extent, parent = struct.unpack(order + "BBIH", table[:8])
                rows.append((table[8 : 8 + length], extent, parent))
                table = table[8 + length + length % 2 :]
            tables.append(rows)
        assert tables[0] == tables[1]
        for number, (_, extent, parent) in enumerate(tables[0], 1):
            assert parent <= number
            self_record = self.image[extent * SECTOR :]
            assert self.place(self_record)[0] == extent

    def walk(self, extent: int, size: int, prefix: str) -> None:
        assert size % SECTOR == 0
        iso_names = []
        for index, record in enumerate(self.records(extent, size)):
            ident = record[33 : 33 + record[32]]
            area = record[33 + len(ident) + (1 - len(ident) % 2) :]
            fields = self.susp(area)
            where, length = self.place(record)
            if index < 2:
                assert ident == bytes((index,))
                assert any(tag == b"PX" for tag, _ in fields)
                if not prefix and index == 0:
                    assert fields[0] == (b"SP", b"\xbe\xef\0")
                    assert fields[-1][0] == b"ER"
                continue
            iso_names.append(ident)
            name, target, px, tf = "", "", b"", b""
            for tag, body in fields:
                if tag == b"NM":
                    name += os.fsdecode(body[1:])
                elif tag == b"SL":
                    target += self.link(body)
                elif tag == b"PX":
                    px = body
                elif tag == b"TF":
                    tf = body
            mode, links = struct.unpack("<I", px[:4])[0], struct.unpack("<I", px[8:12])[0]
            assert record[25] == (2 if stat.S_ISDIR(mode) else 0)
            data = b""
            path = f"{prefix}{name}"
            assert path not in self.entries
            if stat.S_ISDIR(mode):
                self.walk(where, length, path + "/")
            elif stat.S_ISREG(mode):
                data = self.image[where * SECTOR : where * SECTOR + length]
                assert len(data) == length
            self.entries[path] = Entry(mode, links, tf[1:8], target, data, ident.decode())
        assert iso_names == sorted(iso_names)
        assert len(set(iso_names)) == len(iso_names)

    def records(self, extent: int, size: int) -> list[bytes]:
        found = []
        for sector in range(extent, extent + size // SECTOR):
            block = self.image[sector * SECTOR : (sector + 1) * SECTOR]
            while block and block[0]:
                assert block[0] <= len(block) and block[0] % 2 == 0
                found.append(block[: block[0]])
                block = block[block[0] :]
        return found

    def susp(self, area: bytes) -> list[tuple[bytes, bytes]]:
        fields, following = [], b""
        while True:
            while len(area) >= 4 and area[2]:
                tag, length, version = area[:2], area[2], area[3]
                assert version == 1 and length <= len(area)
                body = area[4:length]
                if tag == b"CE":
                    block, offset, size = struct.unpack("<I4xI4xI4x", body)
                    assert not following and offset + size <= SECTOR
                    start = block * SECTOR + offset
                    following = self.image[start : start + size]
                else:
                    fields.append((tag, body))
                area = area[length:]
            assert not any(area)
            if not following:
                return fields
            area, following = following, b""

    @staticmethod
    def link(body: bytes) -> str:
        more, body, text = body[0] & 1, body[1:], ""
        while body:
            flags, length = body[0], body[1]
            part = {2: ".", 4: "..", 8: ""}.get(flags & ~1, os.fsdecode(body[2 : 2 + length]))
            text += part
            body = body[2 + length :]
            if flags & 8 or (not flags & 1 and (body or more)):
                text += "/"
        return text


LINKS = [
    "a", "../x/./y", "/", "/usr/bin/env", "a//b", "dir/", "..", "n" * 250, "/" + "d/" * 500 + "e",
    "/".join(f"part{i:03}" * 20 for i in range(25)),
]  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    top.mkdir()
    (top / "empty").write_bytes(b"")
    (top / "sector").write_bytes(b"s" * SECTOR)
    (top / "setup.sh").write_text("#!/bin/sh\n")
    (top / "setup.sh").chmod(0o755)
    (top / "secret").write_bytes(b"x")
    (top / "secret").chmod(0o4711)
    (top / "big").write_bytes(os.urandom(3_000_001))
    (top / "Mixed.Case.tar.gz").write_bytes(b"1")
    (top / "mixed.case.tar.gz").write_bytes(b"2")
    (top / ".hidden").write_bytes(b"h")
    (top / "trailing.").write_bytes(b"t")
    (top / "name with blanks \u20ac \n").write_bytes(b"b")
    (top / ("long" * 63)).write_bytes(b"l")
    os.link(top / "big", top / "hardlink")
    for index, target in enumerate(LINKS):
        os.symlink(target, top / f"link{index}")
    os.symlink("t" * 250, top / ("longlink" + "k" * 240))
    many = top / "many"
    many.mkdir()
    for index in range(1200):
        (many / f"samestart{index}.text").write_bytes(b"%d" % index)
    deep = top
    for level in range(15):
        deep = deep / f"level{level}"
        deep.mkdir()
    (deep / "bottom").write_bytes(b"deep")
    (top / "emptydir").mkdir(mode=0o700)
    for path in sorted(top.rglob("*")):
        os.utime(path, (0, 1_700_000_000), follow_symlinks=False)
    os.utime(top, (0, 1_700_000_000))
    return top


def expected(top: Path) -> dict[str, tuple[int, str, bytes]]:
    result = {}
    for path in top.rglob("*"):
        info = path.lstat()
        link = os.readlink(path) if path.is_symlink() else ""
        data = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        result[str(path.relative_to(top))] = (info.st_mode, link, data)
    return result


def test_everything_is_there(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "out.iso"
    make_iso(tree, image)
    reader = Reader(image)
    got = {name: (e.mode, e.target, e.data) for name, e in reader.entries.items()}
    assert got == expected(tree)
    assert reader.entries["setup.sh"].mtime == bytes((123, 11, 14, 22, 13, 20, 0))
    assert reader.entries["level0"].links == 3
    for entry in reader.entries.values():
        name = entry.iso_name
        if stat.S_ISDIR(entry.mode):
            assert len(name) <= 8
        else:
            stem, _, ext = name.partition(";")[0].partition(".")
            assert name.endswith(";1") and len(stem) <= 8 and len(ext) <= 3


def test_same_directory_same_bytes(tree: Path, tmp_path: Path) -> None:
    make_iso(tree, tmp_path / "a.iso")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(tree), str(copy)], check=True)
    make_iso(str(copy), str(tmp_path / "b.iso"))
    assert (tmp_path / "a.iso").read_bytes() == (tmp_path / "b.iso").read_bytes()


def test_hard_links_share_their_contents(tree: Path, tmp_path: Path) -> None:
    make_iso(tree, tmp_path / "a.iso")
    assert (tmp_path / "a.iso").stat().st_size < 3_000_001 + (4 << 20)


def drop_long_links(tree: Path) -> None:
    """isoinfo crashes on targets of more than a kilobyte, xorriso refuses them."""
    for link in tree.glob("link*"):
        if len(os.readlink(link)) > 900:
            link.unlink()


@pytest.mark.skipif(shutil.which("isoinfo") is None, reason="isoinfo is not installed")
def test_isoinfo_reads_it(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.iso"
    drop_long_links(tree)
    make_iso(tree, image)
    listing = subprocess.run(
        ["isoinfo", "-R", "-f", "-i", str(image)], check=True, capture_output=True
    ).stdout
    for name in ("/setup.sh", "/many/samestart7.text", "/Mixed.Case.tar.gz", "/" + "long" * 63):
        assert name.encode() + b"\n" in listing
    data = subprocess.run(
        ["isoinfo", "-R", "-i", str(image), "-x", "/big"], check=True, capture_output=True
    ).stdout
    assert data == (tree / "big").read_bytes()


@pytest.mark.skipif(shutil.which("xorriso") is None, reason="xorriso is not installed")
def test_xorriso_extracts_it(tree: Path, tmp_path: Path) -> None:
    image, out = tmp_path / "a.iso", tmp_path / "out"
    drop_long_links(tree)
    make_iso(tree, image)
    run = subprocess.run(
        ["xorriso", "-osirrox", "on", "-indev", str(image), "-extract", "/", str(out)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    want, got = expected(tree), expected(out)
    assert set(got) == set(want)
    for name, (mode, link, data) in want.items():
        assert got[name][2] == data, name
        if not stat.S_ISLNK(mode):
            assert got[name][0] == mode, name
        elif "//" not in link and not link.endswith("/"):
            assert got[name][1] == link


def test_image_inside_the_directory_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    image = tmp_path / "self.iso"
    make_iso(tmp_path, image)
    first = image.read_bytes()
    make_iso(tmp_path, image)
    assert set(Reader(image).entries) == {"file"}
    assert len(image.read_bytes()) == len(first)


def test_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    make_iso(tmp_path / "d", tmp_path / "x.iso")
    assert Reader(tmp_path / "x.iso").entries == {}


def left_over(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.endswith((".iso", ".part"))]


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "x.iso"
    with pytest.raises(ImageError, match=r"nowhere.*No such file"):
        make_iso(tmp_path / "nowhere", image)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageError, match="not a directory"):
        make_iso(tmp_path / "file", image)
    tree = tmp_path / "tree"
    tree.mkdir()
    with pytest.raises(ImageError, match="No such file"):
        make_iso(tree, tmp_path / "none" / "x.iso")
    with pytest.raises(ImageError, match="is a directory"):
        make_iso(tree, tmp_path)
    with pytest.raises(ImageError, match="volume"):
        make_iso(tree, image, volume_id="no good")
    (tree / ("n" * 254)).write_bytes(b"")
    with pytest.raises(ImageError, match="254 bytes"):
        make_iso(tree, image)
    (tree / ("n" * 254)).unlink()
    os.mkfifo(tree / "pipe")
    with pytest.raises(ImageError, match="pipe"):
        make_iso(tree, image)
    (tree / "pipe").unlink()
    with open(tree / "huge", "wb") as file:
        file.truncate(1 << 32)
    with pytest.raises(ImageError, match=r"huge.*4 GiB"):
        make_iso(tree, image)
    (tree / "huge").unlink()
    monkeypatch.setattr(iso9660, "_MAX_DIRS", 3)
    for index in range(3):
        (tree / str(index)).mkdir()
    with pytest.raises(ImageError, match="directories"):
        make_iso(tree, image)
    assert left_over(tmp_path) == []


def test_unreadable_and_shrinking_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * 5000)
    image = tmp_path / "x.iso"
    image.write_bytes(b"old")
    scan = iso9660._scan

    def meddle(change: str) -> None:
        def scan_then_change(*args: object) -> object:
            result = scan(*args)  # type: ignore[arg-type]
            if change == "shrink":
                os.truncate(tree / "file", 100)
            else:
                (tree / "file").unlink()
            return result

        monkeypatch.setattr(iso9660, "_scan", scan_then_change)

    meddle("shrink")
    with pytest.raises(ImageError, match="shorter"):
        make_iso(tree, image)
    meddle("remove")
    with pytest.raises(ImageError, match=r"cannot read.*file"):
        make_iso(tree, image)
    assert image.read_bytes() == b"old"  # the old image is untouched
    assert left_over(tmp_path) == ["x.iso"]


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * 100)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(iso9660, "_write", fail)
    with pytest.raises(ImageError, match="No space left"):
        make_iso(tree, tmp_path / "x.iso")
    assert left_over(tmp_path) == []
