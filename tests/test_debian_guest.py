"""The guests with a disk (tools/debianguest): their parts, without network and guest."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shlex
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from ctools import ROOT

from pandalite.errors import ImageError
from pandalite.qcows import catalogue, lookup, qcow2, tiny
from pandalite.qcows.command_line import command_line

sys.path.insert(0, str(ROOT / "tools"))

import build_guest
from debianguest import build, disk, files
from project import BuildError

NAMES = build.names()
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"

needs_ext4 = pytest.mark.skipif(
    not shutil.which("debugfs", path=PATH), reason="e2fsprogs is not installed"
)


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", PATH)


# The file system


def sample(folder: Path) -> files.Files:
    """Files of all kinds, with names that debugfs trips over."""
    source = folder / "source"
    source.write_bytes(b"from a file\n" * 1000)
    tree: files.Files = {
        "etc/a b": files.file(b"space"),
        'etc/say "hi"': files.file(b"quotes"),
        "etc/[": files.file(b"bracket"),
        "etc/empty": files.file(b""),
        "etc/ünï": files.file(b"letters"),
        "big": files.Node(stat.S_IFREG | 0o4755, 12, 34, 1_000_000_000, source),
        "home/user": files.directory(0o700, 1000, 1_111_111_111),
        "link": files.symlink("etc/a b"),
        "long": files.symlink("x" * 200),
    }
    for number in range(60):  # more than fit into one block of a directory
        tree[f"names/{'n' * 200}{number}"] = files.Node(stat.S_IFREG | 0o4755, same="big")
    return tree


def write(image: Path, tree: files.Files) -> bytes:
    files.write_ext4(image, tree, size=32 << 20, inodes=2048, label="test", time=1_700_000_000)
    return image.read_bytes()


def debugfs(image: Path, command: str) -> str:
    done = subprocess.run(
        ["debugfs", "-R", command, str(image)], capture_output=True, text=True, check=True
    )
    return done.stdout


@needs_ext4
def test_equal_files_give_equal_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = sample(tmp_path)
    first = write(tmp_path / "1.img", tree)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    os.utime(tmp_path / "source", (1, 1))
    (tmp_path / "source").chmod(0o600)
    backwards = dict(reversed(list(tree.items())))
    assert write(tmp_path / "2.img", backwards) == first
    assert not list(tmp_path.glob("*.scratch"))


@needs_ext4
def test_what_is_in_the_image(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    write(image, sample(tmp_path))
    subprocess.run(["e2fsck", "-fn", str(image)], check=True, capture_output=True)
    facts = debugfs(image, "stat /big")
    assert re.search(r"Mode:\s+04755", facts) and re.search(r"Links: 61\b", facts)
    assert re.search(r"User:\s+12\s+Group:\s+34", facts) and "mtime: 0x3b9aca00" in facts
    assert debugfs(image, "cat /big") == "from a file\n" * 1000
    assert debugfs(image, f"cat /names/{'n' * 200}59") == "from a file\n" * 1000
    assert debugfs(image, 'cat "/etc/a b"') == "space"
    assert debugfs(image, 'cat "/etc/say ""hi"""') == "quotes"
    assert debugfs(image, "cat /etc/ünï") == "letters"
    assert re.search(r"(?s)Mode:\s+0700.*User:\s+1000", debugfs(image, "stat /home/user"))
    assert 'Fast link dest: "etc/a b"' in debugfs(image, "stat /link")
    assert "ctime: 0x6553f100" in debugfs(image, "stat /etc")


@needs_ext4
def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="another name of /gone"):
        write(tmp_path / "1.img", {"a": files.Node(stat.S_IFREG | 0o644, same="gone")})
    with pytest.raises(BuildError, match="a file name is not possible"):
        write(tmp_path / "2.img", {"a\nb": files.file(b"x")})
    with pytest.raises(BuildError, match="debugfs"):
        write(tmp_path / "3.img", {"a": files.file(os.urandom(40 << 20))})


def test_from_tar(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:

        def add(name: str, kind: bytes, link: str = "", data: bytes = b"") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, len(data)
            member.mode, member.uid, member.gid, member.mtime = 0o2755, 1, 2, 3
            tar.addfile(member, io.BytesIO(data))

        add("./", tarfile.DIRTYPE)
        add("./bin", tarfile.SYMTYPE, "usr/bin")
        add("./bin/sh", tarfile.SYMTYPE, "dash")
        add("./bin/dash", tarfile.REGTYPE, data=b"program")
        add("./usr/bin/other", tarfile.LNKTYPE, "./bin/dash")
        add("./var", tarfile.DIRTYPE)
        add("./dev/null", tarfile.CHRTYPE)
    raw.seek(0)
    with tarfile.open(fileobj=raw) as tar:
        found = dict(files.from_tar(tar, tmp_path))
    assert sorted(found) == ["usr/bin/dash", "usr/bin/other", "usr/bin/sh", "var"]
    assert found["usr/bin/sh"].link == "dash"
    assert found["usr/bin/other"].same == "usr/bin/dash"
    program = found["usr/bin/dash"]
    assert (program.mode, program.uid, program.gid, program.mtime) == (0o102755, 1, 2, 3)
    assert isinstance(program.data, Path) and program.data.read_bytes() == b"program"
    assert stat.S_ISDIR(found["var"].mode)


def test_times() -> None:
    tree = {"a": files.file(b"", mtime=5), "b": files.file(b"", mtime=50), "c": files.file(b"")}
    assert [n.mtime for n in files.clamped(tree, 10).values()] == [5, 10, 10]
    parents = files.with_parents({"a/b/c": files.file(b"")}, 7)
    assert sorted(parents) == ["a", "a/b", "a/b/c"] and parents["a"].mtime == 7


# The disk image


def read_back(image: Path) -> dict[int, bytes]:
    """The clusters of a qcow2 image by their place on the disk, as its tables have them.

    Checks that the reference counts are right.
    """
    data = image.read_bytes()
    with qcow2.opened(image) as reader:
        cluster = reader.cluster
        l1 = reader.table(reader.l1[1], reader.l1[0], "L1")
    counts: dict[int, int] = {}

    def count(start: int, length: int) -> None:
        for number in range(start // cluster, (start + length - 1) // cluster + 1):
            counts[number] = counts.get(number, 0) + 1

    count(0, cluster)
    count(struct.unpack_from(">Q", data, 40)[0], len(l1) * 8)
    out = {}
    for index, place in enumerate(l1):
        place &= qcow2.OFFSET_MASK
        if not place:
            continue
        count(place, cluster)
        for inner, entry in enumerate(struct.unpack_from(f">{cluster // 8}Q", data, place)):
            at = (index * cluster // 8 + inner) * cluster
            if entry & qcow2.COMPRESSED:
                start = entry & (1 << 54) - 1
                length = ((entry >> 54 & 0xFF) + 1) * 512 - start % 512
                assert start + length <= len(data)
                block = zlib.decompressobj(-12).decompress(data[start : start + length])
                assert len(block) == cluster
            elif entry:
                start, length = entry & qcow2.OFFSET_MASK, cluster
                block = data[start : start + cluster]
            else:
                continue
            count(start, length)
            out[at] = block
    table, clusters = struct.unpack_from(">QI", data, 48)
    count(table, clusters * cluster)
    stored: dict[int, int] = {}
    for number, block_at in enumerate(
        struct.unpack_from(f">{clusters * cluster // 8}Q", data, table)
    ):
        if block_at:
            count(block_at, cluster)
            values = struct.unpack_from(f">{cluster // 2}H", data, block_at)
            stored.update({number * cluster // 2 + i: v for i, v in enumerate(values) if v})
    assert stored == counts
    return out


def test_compressed_image(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    source = random.Random(3)
    size = (600 << 20) + 512  # two L2 tables, and a last cluster that is not whole
    pieces = dict.fromkeys((0, 3 << 20, 513 << 20, 599 << 20), b"text that can be packed " * 9000)
    pieces[9 << 20] = source.randbytes(200_000)  # that cannot
    pieces[20 << 20] = bytes(300_000)  # zeros that are there
    pieces[size - 512] = b"e" * 512
    expected = {}
    with raw.open("wb") as out:
        out.truncate(size)
        for place, data in pieces.items():
            out.seek(place)
            out.write(data)
            for at in range(0, len(data), 65536):
                block = data[at : at + 65536].ljust(65536, b"\0")
                if any(block):
                    expected[place + at] = block
    image = tmp_path / "disk.qcow2"
    disk.compress(raw, image)
    assert qcow2.validate(image, deep=True).virtual_size == size
    assert image.stat().st_size < 1 << 20
    assert read_back(image) == expected
    again = tmp_path / "again.qcow2"
    disk.compress(raw, again)
    assert again.read_bytes() == image.read_bytes()


def test_empty_disk(tmp_path: Path) -> None:
    with (tmp_path / "raw").open("wb") as out:
        out.truncate(1 << 20)
    disk.compress(tmp_path / "raw", tmp_path / "disk.qcow2")
    assert read_back(tmp_path / "disk.qcow2") == {}


# Packages and the recipe


def test_package_is_unpacked_for_the_guest(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN").chmod(0o755)
    (tree / "DEBIAN" / "control").write_text(
        "Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: toy\n"
    )
    (tree / "file").write_bytes(b"odd")
    deb, plain = tmp_path / "toy.deb", tmp_path / "plain.deb"
    subprocess.run(["dpkg-deb", "-b", str(tree), str(deb)], check=True, capture_output=True)
    build.uncompressed(deb, plain)
    assert b"data.tar " in plain.read_bytes()
    for what in ("--info", "--contents", "--fsys-tarfile"):
        first, second = (
            subprocess.run(["dpkg-deb", what, str(d)], check=True, capture_output=True).stdout
            for d in (deb, plain)
        )
        # The size of the package itself may differ.
        assert first.split(b"\n", 2)[-1] == second.split(b"\n", 2)[-1]
    deb.write_bytes(b"junk")
    with pytest.raises(BuildError, match="delete it and build again"):
        build.uncompressed(deb, tmp_path / "other.deb")


class FakePackage:
    """As much of a package as the search for its copyright file looks at."""

    def __init__(self, name: str, notice_of: str, has_it: bool = False) -> None:
        self.name, self.notice_of, self.has_it = name, notice_of, has_it

    def __contains__(self, path: str) -> bool:
        return self.has_it and path == f"usr/share/doc/{self.name}/copyright"


def test_copyright_file_of_another_package() -> None:
    chain = [("a", "b", False), ("b", "c", False), ("c", "c", True), ("x", "y", False)]
    chain += [("z", "z", False), ("loop", "loop2", False), ("loop2", "loop", False)]
    packages: Any = {name: FakePackage(name, *rest) for name, *rest in chain}
    for name in "abc":
        assert build.notice_of(packages[name], packages).name == "c"
    for name in ("x", "z", "loop"):
        with pytest.raises(BuildError, match=f"package {name} has no copyright"):
            build.notice_of(packages[name], packages)


@pytest.mark.parametrize("name", NAMES)
def test_recipe(name: str) -> None:
    recipe = build.recipe_of(name, [])
    for package in ("apt", "busybox-static", "python3", "mount"):
        assert package in recipe["packages"]
    assert recipe["suite"] == build_guest.recipe_of(recipe["base"])["suite"]
    key = build.recipe_key(recipe)
    assert key == build.recipe_key(build.recipe_of(name, []))
    other = build.recipe_of(name, ["gdb"], gcc=True)
    assert {"gdb", "gcc", "libc6-dev"} <= set(other["packages"])
    assert build.recipe_key(other) != key


def test_no_packages_for_tiny_guests(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert build_guest.main(["i386", "--with-gcc", "--output", str(tmp_path / "out")]) == 1
    assert "only to guests with a disk" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_configuration(name: str) -> None:
    recipe = build.recipe_of(name, [])
    made: files.Files = {
        "usr/bin/bash": files.file(b"bash", 0o755),
        "etc/machine-id": files.file(b"random"),
        "var/log/dpkg.log": files.file(b"times"),
        "var/lib/dpkg/status": files.file(b"status"),
        "var/lib/dpkg/status-old": files.file(b"old"),
        "debs/bash.deb": files.file(b"deb"),
        "run/lock": files.directory(),
    }
    tree = build.final_system(recipe, made)
    gone = {"var/log/dpkg.log", "var/lib/dpkg/status-old", "debs/bash.deb", "run/lock"}
    assert not gone & set(tree)
    assert tree["etc/machine-id"].data == b"" and tree["bin"].link == "usr/bin"
    assert {"usr/bin/bash", "var/lib/dpkg/status", "tmp", "proc"} <= set(tree)
    assert tree["usr/sbin/init"].link == "../bin/busybox"
    texts = {p: n.data.decode() for p, n in tree.items() if isinstance(n.data, bytes)}
    assert recipe["run"]["console"] in texts["etc/inittab"]
    assert recipe["run"]["prompt"] in texts["usr/sbin/console-shell"]
    assert "path-exclude=/usr/share/man/*" in texts["etc/dpkg/dpkg.cfg.d/pandalite"]
    for path, text in texts.items():
        assert not re.search(r"@[A-Z]+@", text), path
        # No mirror has its name in a guest.
        assert not re.search(r"https?://(?!MIRROR/)", text), path


def test_scripts_are_scripts() -> None:
    for script in [HERE / "configure", HERE / "init"]:
        subprocess.run(["sh" if script.name == "init" else "bash", "-n", str(script)], check=True)


HERE = ROOT / "tools" / "debianguest" / "stages"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("pandalite: step x\npandalite: failed: dpkg --audit complains\n", "dpkg --audit"),
        ("", "could not install"),
    ],
)
def test_failure_in_the_guest_is_told(
    log: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert json.loads(command[2])["mem"] == "1G"
        (tmp_path / "configure.log").write_text(log)
        return subprocess.CompletedProcess(command, 1, "no such library")

    monkeypatch.setattr(build.subprocess, "run", run)
    recipe = build.recipe_of("x86_64_debian", [])
    with pytest.raises(BuildError, match=f"(?s)no such library.*{said}" if log else said):
        build.configure(recipe, tmp_path, tmp_path / "a", tmp_path / "b")
    monkeypatch.undo()
    (tmp_path / "configure.log").unlink()

    def done(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        (tmp_path / "configure.log").write_text("much\r\npandalite: done\r\n")
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(build.subprocess, "run", done)
    build.configure(recipe, tmp_path, tmp_path / "a", tmp_path / "b")


# In the catalogue


@pytest.mark.parametrize("name", NAMES)
def test_catalogue(name: str) -> None:
    entry = lookup.entry(name)
    assert (entry.kind, entry.flavour, entry.guest, entry.name) == ("tiny", "debian", name, name)
    assert entry.disk == "virtio" and entry.image.qcow == f"{name}.qcow2"
    assert entry.image.arch == build.recipe_of(name, [])["base"]
    assert name not in catalogue.tiny_architectures()
    assert catalogue.debian_guests() == NAMES


def test_who_lacks_it_is_told_how_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANDALITE_HOME", str(tmp_path))
    monkeypatch.delenv("PANDALITE_GUESTS", raising=False)
    monkeypatch.delenv("PANDALITE_IMAGE_MIRROR", raising=False)
    monkeypatch.setattr(tiny, "_PACKAGE", tmp_path)
    monkeypatch.setattr(tiny, "_companion", lambda: None)
    with pytest.raises(ImageError) as caught:
        tiny.root_image("x86_64_debian")
    assert "python -m pandalite.qcows build x86_64_debian" in str(caught.value)
    assert "python tools/build_guest.py x86_64_debian" in str(caught.value)


def test_snapshot_is_made_on_an_overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "x86_64_debian"
    monkeypatch.setenv("PANDALITE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PANDALITE_GUESTS", str(tmp_path))
    folder = tmp_path / name
    folder.mkdir()
    qcow2.create(folder / "disk.qcow2", 1 << 30)
    for part in ("kernel", "initrd.gz"):
        (folder / part).write_bytes(b"toy")
    parts = {p.name: {"size": p.stat().st_size, "sha256": p.name} for p in folder.iterdir()}
    manifest = {
        "format": 1,
        "arch": name,
        "kernel": {"release": "6.1.0-50-toy"},
        "run": catalogue.tiny_facts(name),
        "files": parts,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    library = tmp_path / "libpanda-x86_64.so"
    library.write_bytes(b"a library")
    asked = []

    def boot(request: dict[str, Any], *_: Any) -> None:
        info = qcow2.validate(request["qcow"])
        asked.append((request["interface"], info.backing_file, info.virtual_size))
        raise ImageError("enough")

    monkeypatch.setattr(tiny.roots, "boot", boot)
    with pytest.raises(ImageError, match="enough"):
        tiny.root_image(name, library)
    assert asked == [("virtio", str(folder / "disk.qcow2"), 1 << 30)]
    # A run by hand works on an overlay of its own, too: the cached disk stays as it is.
    made = tmp_path / "made.qcow2"
    qcow2.create_on_top(made, folder / "disk.qcow2")
    monkeypatch.setattr(tiny, "root_image", lambda *_: made)
    words = shlex.split(command_line(name))
    (drive,) = (word for word in words if word.startswith("file="))
    work = Path(drive[5:].partition(",")[0])
    assert drive.endswith(",if=virtio") and qcow2.validate(work).backing_file == str(made)
    assert lookup.entry(name).image.prompt == tiny.find_guest(name).prompt
    (folder / "disk.qcow2").write_bytes(b"cut off")
    with pytest.raises(ImageError, match=r"not whole.*build_guest\.py x86_64_debian"):
        tiny.find_guest(name)
