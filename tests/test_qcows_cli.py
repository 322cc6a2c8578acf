"""The command ``python -m pandalite.qcows``, and the clean-up of the cache."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from images import image_with_root
from test_qcows import write_guest
from test_qcows_store import run_read_only

import pandalite.qcows
from pandalite.errors import ImageError
from pandalite.qcows import (
    Qcows,
    cache,
    catalogue,
    cleanup,
    disks,
    guests,
    lookup,
    overlay,
    qcow2,
    tiny,
    user_images,
)
from pandalite.qcows.cli import main

PACKAGE = Path(pandalite.qcows.__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Homes of their own, toy guests for x86_64 and i386, and a mirror that has arm_wheezy."""
    path = tmp_path / "home"
    monkeypatch.setenv("PANDALITE_HOME", str(path))
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("PANDALITE_OFFLINE", "1")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("PANDALITE_IMAGE_MIRROR", f"file://{mirror}")
    image_with_root(mirror / "debian_7.3_arm.qcow")
    (mirror / "vmlinuz-3.2.0-4-versatile").write_bytes(b"kernel")
    (mirror / "initrd.img-3.2.0-4-versatile").write_bytes(b"initrd")
    monkeypatch.setattr(tiny, "_PACKAGE", tmp_path)
    monkeypatch.setenv("PANDALITE_GUESTS", str(tmp_path / "guests"))
    write_guest(tmp_path / "guests" / "i386", "i386")
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> tuple[Any, str]:
    """Run the command with --json; returns what it printed there, and its errors."""
    capsys.readouterr()
    assert main([*words, "--json"]) == status
    done = capsys.readouterr()
    return json.loads(done.out) if done.out else None, done.err


def test_list(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    data, _ = run(capsys, "list")
    images = {image["name"]: image for image in data["images"]}
    assert set(images) == set(catalogue.SUPPORTED_IMAGES)
    assert images["i386"]["state"] == "here" and images["i386"]["same_as"] == "i386_tiny"
    assert images["x86_64"]["state"] == "missing"
    assert images["arm_wheezy"]["state"] == "missing"
    Qcows.get_qcow("arm_wheezy")
    (home / "images.d").mkdir()
    (home / "images.d" / "bad.json").write_text("{")
    assert main(["list"]) == 1
    done = capsys.readouterr()
    assert "arm_wheezy" in done.out and "here" in done.out
    (line,) = done.err.splitlines()
    assert "bad.json:1" in line


def test_info(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    data, _ = run(capsys, "info", "ARM_wheezy")
    assert data["image"]["prompt"] == "root@debian-armel:.*# "
    assert [f["state"] for f in data["files"]] == ["missing"] * 3
    Qcows.get_qcow("arm_wheezy")
    data, _ = run(capsys, "info", "arm_wheezy")
    assert data["files"][1]["path"] == str(
        home / "images" / "arm_wheezy" / "vmlinuz-3.2.0-4-versatile"
    )
    assert main(["info", "arm_wheezy"]) == 0
    assert "Debian 7" in capsys.readouterr().out
    (home / "images" / "arm_wheezy" / "arm_wheezy.qcow").write_bytes(b"junk")
    data, _ = run(capsys, "info", "arm_wheezy")
    assert data["state"] == "damaged" and "delete" in data["files"][0]["state"]


def test_fetch(capsys: pytest.CaptureFixture[str], tmp_path: Path, home: Path) -> None:
    to = tmp_path / "usb"
    data, _ = run(capsys, "fetch", "arm_wheezy", "i386", "--to", str(to))
    assert sorted(p.name for p in to.iterdir() if p.suffix != ".lock") == [
        *("arm_wheezy.qcow", "i386", "initrd.img-3.2.0-4-versatile", "vmlinuz-3.2.0-4-versatile")
    ]
    assert data[1]["paths"] == [str(to / "i386")]
    assert tiny.load_guest("i386", to / "i386").arch == "i386"
    assert not (home / "images").exists()
    # Carried to the place that is named on the other host, it is found.
    place = home / "images" / "arm_wheezy"
    place.mkdir(parents=True)
    for name in ("arm_wheezy.qcow", "initrd.img-3.2.0-4-versatile", "vmlinuz-3.2.0-4-versatile"):
        shutil.copy(to / name, place / name)
    data, _ = run(capsys, "path", "arm_wheezy")
    assert data["path"] == str(place / "arm_wheezy.qcow")
    shutil.rmtree(to)
    run(capsys, "fetch", "arm_wheezy", "--to", str(to))  # from here this time
    assert (to / "arm_wheezy.qcow").read_bytes() == (place / "arm_wheezy.qcow").read_bytes()


def test_fetch_offline(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    _, error = run(capsys, "fetch", "mips_wheezy", status=1)
    (line,) = error.splitlines()
    assert str(home / "images" / "mips_wheezy") in line and "fetch mips_wheezy --to DIR" in line


def test_fetch_a_tiny_guest(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "guests" / "i386"
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, facts in manifest["files"].items():
        facts["sha256"] = cache.file_sha256(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    archive = tmp_path / "mirror" / guests.archive_name("i386")
    run(capsys, "export", str(archive), "i386")
    monkeypatch.setenv("PANDALITE_GUESTS", str(tmp_path / "none"))
    data, _ = run(capsys, "fetch", "i386")
    assert data[0]["paths"] == [str(home / "guests" / "i386")]
    assert not list((home / "downloads").glob("*.tar"))
    # Whoever needs the guest gets it from the mirror, too.
    shutil.rmtree(home / "guests" / "i386")
    disks.ensure_guest(lookup.entry("i386"))
    assert tiny.find_guest("i386").directory == home / "guests" / "i386"
    _, error = run(capsys, "fetch", "x86_64", status=1)
    assert "pandalite-guests" in error and "build x86_64" in error
    # A wrong one is not kept.
    shutil.rmtree(home / "guests" / "i386")
    archive.write_bytes(archive.read_bytes()[:-20000] + b"x" * 20000)
    _, error = run(capsys, "fetch", "i386", status=1)
    assert not (home / "guests" / "i386").exists()
    assert not list((home / "downloads").glob("*.tar"))


def test_build(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PANDALITE_GUESTS")
    monkeypatch.setattr(tiny, "_PACKAGE", tmp_path / "checkout" / "pandalite")
    _, error = run(capsys, "build", "i386", status=1)
    assert "installed package" in error and "pandalite-guests" in error
    tool = tmp_path / "checkout" / "tools" / "build_guest.py"
    tool.parent.mkdir(parents=True)
    tool.write_text(
        "import shutil, sys\nprint('building', *sys.argv[1:])\n"
        f"shutil.copytree({str(tmp_path / 'guests' / 'i386')!r}, sys.argv[3])"
    )
    data, _ = run(capsys, "build", "i386")
    assert data["path"] == str(home / "guests" / "i386")
    assert tiny.find_guest("i386").directory == home / "guests" / "i386"
    run(capsys, "build", "i386")  # over the old one
    seen = tmp_path / "options"
    tool.write_text(f"{tool.read_text()}\nopen({str(seen)!r}, 'w').write(' '.join(sys.argv[4:]))")
    run(capsys, "build", "i386", "--with", "gdb", "--with", "strace", "--with-gcc")
    assert seen.read_text() == "--with gdb --with strace --with-gcc"
    tool.write_text("import sys; sys.exit('no mirror')")
    _, error = run(capsys, "build", "i386", status=1)
    assert "building the guest for i386 failed" in error
    assert [p.name for p in (home / "guests").iterdir() if p.suffix != ".lock"] == ["i386"]
    _, error = run(capsys, "build", "vax", status=1)
    assert "vax" in error


def test_verify(capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path) -> None:
    _, error = run(capsys, "verify", "arm_wheezy", status=1)
    assert "nothing to verify" in error
    path = Path(Qcows.get_qcow("arm_wheezy"))
    data, _ = run(capsys, "verify", "arm_wheezy")
    assert [r["problem"] for r in data] == [""] * 3
    # The toy guest's manifest has no hashes that fit.
    data, error = run(capsys, "verify", status=1)
    assert {r["name"] for r in data if r["problem"]} == {"i386_tiny"}
    assert "manifest" in error
    content = path.read_bytes()
    path.write_bytes(content[: 5 * 65536])
    data, error = run(capsys, "verify", "arm_wheezy", status=1)
    assert "truncated" in error and str(path) in error
    assert tmp_path in path.parents


def test_path(capsys: pytest.CaptureFixture[str], tmp_path: Path, home: Path) -> None:
    _, error = run(capsys, "path", "arm_wheezy", status=1)
    assert "fetch arm_wheezy" in error
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "libpanda-i386.so").write_bytes(b"library")
    os.environ["PANDALITE_LIB"] = str(libraries)
    try:
        _, error = run(capsys, "path", "i386", status=1)
        assert "not made yet" in error
    finally:
        del os.environ["PANDALITE_LIB"]


def test_delete(capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path) -> None:
    Qcows.get_qcow("arm_wheezy")
    run(capsys, "delete", "arm_wheezy")
    assert not (home / "images" / "arm_wheezy").exists()
    disk = qcow2.create(tmp_path / "disk.qcow2", 1 << 20)
    run(capsys, "add", "mine", "--qcow", str(disk), "--arch", "mips", "--prompt", "# ")
    assert lookup.entry("mine").image.prompt == "# "
    run(capsys, "delete", "mine")
    assert disk.exists()
    assert list((home / "images.d").iterdir()) == []


def test_add(capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path) -> None:
    disk = qcow2.create(tmp_path / "disk.qcow2", 1 << 20)
    words = ["add", "mine", "--qcow", str(disk), "--arch", "mips", "--prompt", "# "]
    words += ["--mem", "256M", "--arg=-M", "--arg=malta", "--login", "root", "", "--disk", "ide"]
    data, _ = run(capsys, *words)
    assert data["entry"]["extra_args"] == ["-M", "malta"]
    entry = lookup.entry("mine")
    assert entry.words == ("-M", "malta") and entry.login == ("root", "") and entry.disk == "ide"
    _, error = run(capsys, *words, status=1)
    assert "there is an image 'mine'" in error
    words[1] = "../mine"
    _, error = run(capsys, *words, status=1)
    assert "cannot be named" in error
    assert [p.stem for p in (home / "images.d").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "words",
    [
        *(["info"], ["fetch"], ["gc"], ["gc", "--max-size", "lots"], ["list", "--nonsense"]),
        *(["export", "x.tar"], ["import"], ["add", "x"], ["delete", "a", "b"], ["--nonsense"]),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], words: Sequence[str]) -> None:
    assert main(words) == 2
    assert "usage:" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("list", "fetch", "gc", "export", "import", "add", "verify"):
        assert f"\n    {command} " in text
        assert main([command, "--help"]) == 0


def test_delete_during_a_download(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    path = Path(Qcows.get_qcow("arm_wheezy"))
    with (path.parent / "arm_wheezy.qcow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _, error = run(capsys, "delete", "arm_wheezy", status=1)
    assert "another process" in error and path.exists()


# The printed command line


def test_command_line(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["arm_wheezy"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    words = shlex.split(line)
    assert "system-arm" in words[0]
    # On an overlay: the image stays as it is, whatever is run by hand.
    assert words[1] == str(home / "work" / "arm_wheezy.qcow2")
    info = qcow2.validate(words[1])
    assert info.backing_file == str(home / "images" / "arm_wheezy" / "arm_wheezy.qcow")
    assert info.has_snapshot("root") and words[-2:] == ["-loadvm", "root"]
    assert words[2:5] == ["-m", "128M", "-nographic"]
    before = Path(words[1]).stat()
    data, _ = run(capsys, "arm_wheezy")
    assert shlex.split(data["command"]) == words
    assert Path(words[1]).stat() == before
    run(capsys, "delete", "arm_wheezy")
    assert not Path(words[1]).exists()
    # PANDA attaches this one's disk to virtio.
    entry = lookup.entry("mips64_buster")
    place = home / "images" / "mips64_buster"
    place.mkdir(parents=True)
    for facts in entry.files:
        (place / facts.name).write_bytes(b"x")
    qcow2.create(place / entry.files[0].name, 1 << 20)
    data, _ = run(capsys, "mips64_buster")
    words = shlex.split(data["command"])
    assert words[1:3] == ["-drive", f"file={home}/work/mips64_buster.qcow2,if=virtio"]
    assert "-loadvm" not in words  # this one has no snapshot


# Clean-up


def put(path: Path, size: int, age: float) -> Path:
    """A directory with a file, unused for some seconds."""
    path.mkdir(parents=True)
    file = path / "root.qcow2"
    file.write_bytes(b"x" * size)
    for place in (file, path):
        os.utime(place, (time.time() - age, time.time() - age))
    return path


@pytest.fixture
def full(home: Path) -> list[Path]:
    """A cache with five things of 1 MB, the oldest first."""
    images = home / "images"
    names = [
        *(images / "mips_wheezy", images / f"tiny-mips-{'0' * 16}", home / "guests" / "mips"),
        *(images / f"root-mine-{'1' * 16}", images / "arm_wheezy"),
    ]
    return [put(path, 1 << 20, 5000 - 1000 * n) for n, path in enumerate(names)]


def exist(paths: Sequence[Path]) -> list[bool]:
    return [path.exists() for path in paths]


def test_gc(capsys: pytest.CaptureFixture[str], full: list[Path]) -> None:
    data, _ = run(capsys, "gc", "--max-size", "10M")
    assert data["deleted"] == [] and all(exist(full))
    data, _ = run(capsys, "gc", "--max-size", "3.5M", "--dry-run")
    assert [d["path"] for d in data["deleted"]] == [str(p) for p in full[:2]]
    assert all(exist(full))
    data, _ = run(capsys, "gc", "--max-size", "3.5M")
    assert exist(full) == [False, False, True, True, True]
    assert data["size"] < 3.5 * (1 << 20)
    assert main(["gc", "--max-size", "0"]) == 0
    assert not any(exist(full))
    assert "deleted" in capsys.readouterr().out


def test_gc_leaves_what_is_in_use(
    capsys: pytest.CaptureFixture[str], full: list[Path], home: Path
) -> None:
    held, locked, making, qemu = full[0], full[4], full[1], full[3]
    handle = cache.hold(held)
    assert handle is not None
    download = (locked / "arm_wheezy.qcow.lock").open("w")
    fcntl.flock(download, fcntl.LOCK_EX)
    family = (home / "images" / "tiny-mips.lock").open("w")
    fcntl.flock(family, fcntl.LOCK_EX)
    image = (qemu / "root.qcow2").open("rb")
    # As QEMU does it: a shared lock of a byte, bound to the open file.
    wanted = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0)
    fcntl.fcntl(image.fileno(), 37, wanted)
    data, _ = run(capsys, "gc", "--max-size", "0")
    assert exist(full) == [True, True, False, True, True]
    assert {k["path"] for k in data["kept"]} == {str(p) for p in (held, locked, making, qemu)}
    os.close(handle)
    for file in (download, family, image):
        file.close()
    run(capsys, "gc", "--max-size", "0")
    assert not any(exist(full))


def test_gc_and_a_running_panda(full: list[Path], home: Path, tmp_path: Path) -> None:
    # What a process got from the catalogue stays as long as it lives.
    code = "import sys\nfrom pandalite.qcows import disks, lookup\n"
    code += "entry = lookup.entry('mine')\nprint(disks.disk_of(entry), flush=True)\n"
    code += "sys.stdin.read()"
    image_with_root(tmp_path / "disk")
    (home / "images.d").mkdir()
    table = {"arch": "mips", "url": f"file://{tmp_path}/disk", "qcow": "d.qcow2"}
    (home / "images.d" / "mine.json").write_text(json.dumps({"mine": table}))
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    disk = Path(child.stdout.readline().strip())
    assert disk == home / "images" / "mine" / "d.qcow2"
    assert [i.path for i in cleanup.clean(0).kept] == [disk.parent]
    assert disk.exists()
    child.communicate("")
    assert cleanup.clean(0).kept == []
    assert not disk.parent.exists()


def test_gc_sweeps_leftovers(full: list[Path], home: Path) -> None:
    old = time.time() - 2 * cleanup.STALE
    stale = [
        home / "run" / "root-1-x.qcow2",
        home / "images" / "mips_wheezy" / "x.part",
        home / "images" / ".root.1.part",
    ]
    fresh = home / "run" / "root-2-x.qcow2"
    busy = home / "run" / "root-3-x.qcow2"
    for path in (*stale, fresh, busy):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 5000)
        if path is not fresh:
            os.utime(path, (old, old))
    with busy.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        result = cleanup.clean(1 << 40)
    assert sorted(item.path for item in result.deleted) == sorted(stale)
    assert [item.path for item in result.kept] == [busy]
    assert not any(exist(stale)) and fresh.exists() and busy.exists()
    assert all(exist(full))


def test_sizes() -> None:
    assert cleanup.parse_size("10G") == 10 << 30
    assert cleanup.parse_size(" 1.5 MiB ") == 3 << 19
    assert cleanup.parse_size("0") == 0
    for wrong in ("", "G", "-1", "1 2", "ten", "1X"):
        with pytest.raises(ValueError, match="10G"):
            cleanup.parse_size(wrong)


def test_use_is_noted(full: list[Path], home: Path) -> None:
    path = Path(Qcows.get_qcow("arm_wheezy"))
    os.utime(path.parent, (1, 1))
    for file in path.parent.iterdir():
        os.utime(file, (1, 1))
    assert cleanup.items()[0].path == path.parent
    Qcows.get_qcow("arm_wheezy")
    assert cleanup.items()[-1].path == path.parent
    assert disks.is_shared(path)


# Read-only, as a whole process


def test_read_only_cache(home: Path) -> None:
    Qcows.get_qcow("arm_wheezy")
    base = [sys.executable, "-m", "pandalite.qcows"]
    path = run_read_only(home, [*base, "path", "arm_wheezy"]).strip()
    assert path == str(home / "images" / "arm_wheezy" / "arm_wheezy.qcow")
    assert "arm_wheezy" in run_read_only(home, [*base, "list"])
    assert "right" in run_read_only(home, [*base, "verify", "arm_wheezy"])
    assert "armel" in run_read_only(home, [*base, "info", "arm_wheezy"])


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words in (["import", str(tmp_path / "x")], ["export", str(tmp_path / "x"), "arm_wheezy"]):
        assert main(words) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("pandalite.qcows: ")
    with pytest.raises(ImageError):
        guests.build("i386")


def test_broken_pipe(home: Path) -> None:
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m pandalite.qcows list | true",
        shell=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr


def test_documented() -> None:
    text = (PACKAGE.parent / "docs" / "images.md").read_text()
    commands = {"list", "info", "fetch", "build", "verify", "path", "delete", "gc"}
    commands |= {"export", "import", "add"}
    for command in commands:
        assert f"\n| `{command} " in text or f"\n| `{command}` " in text
    for key in user_images.KEYS:
        assert f"`{key}`" in text
    assert f"at most {overlay.SMALL >> 20} MB" in text
    for name in ("HOME", "GUESTS", "OFFLINE", "IMAGE_MIRROR"):
        assert f"| `PANDALITE_{name}` |" in text


@pytest.mark.skipif(user_images._toml() is None, reason="no TOML parser")
def test_documented_entries_are_right(tmp_path: Path) -> None:
    text = (PACKAGE.parent / "docs" / "images.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "x.toml").write_text(example)
    assert list(user_images.read_file(tmp_path / "x.toml")) == ["router", "cloud"]


def test_variant_of_an_architecture(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, home: Path
) -> None:
    # The little-endian guest of ppc64 runs with the core library of ppc64.
    entry = lookup.entry("ppc64el")
    assert (entry.guest, entry.image.arch, entry.byte_order) == ("ppc64el", "ppc64", "little")
    write_guest(tmp_path / "guests" / "ppc64el", "ppc64el")
    data, _ = run(capsys, "fetch", "ppc64el", "--to", str(tmp_path / "usb"))
    assert data[0]["paths"] == [str(tmp_path / "usb" / "ppc64el")]
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "libpanda-ppc64.so").write_bytes(b"library")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANDALITE_LIB", str(libraries))
        _, error = run(capsys, "path", "ppc64el", status=1)
    assert "not made yet" in error
