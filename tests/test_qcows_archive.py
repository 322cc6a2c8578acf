"""pandalite/qcows/archive.py: guests carried in one file, and files that are not what they say."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from images import image_with_root
from test_qcows import write_guest

import pandalite.qcows
from pandalite.errors import ImageError
from pandalite.qcows import Qcows, archive, cache, lookup, store, tiny

PACKAGE = Path(pandalite.qcows.__file__).resolve().parent.parent
DISK, KERNEL, INITRD = (
    "images/arm_wheezy/arm_wheezy.qcow",
    "images/arm_wheezy/vmlinuz-3.2.0-4-versatile",
    "images/arm_wheezy/initrd.img-3.2.0-4-versatile",
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    monkeypatch.setenv("PANDALITE_HOME", str(path))
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("PANDALITE_OFFLINE", "1")
    monkeypatch.setenv("PANDALITE_GUESTS", str(tmp_path / "guests"))
    monkeypatch.setattr(tiny, "_PACKAGE", tmp_path)
    return path


def fill(home: Path) -> None:
    """Put the files of arm_wheezy into a cache."""
    for name in (KERNEL, INITRD):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(name.encode() * 1000)
    image_with_root(home / DISK)


@pytest.fixture
def exported(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive with an image and a guest; the cache is another, empty one after it."""
    fill(home)
    guest = tmp_path / "guests" / "i386"
    write_guest(guest, "i386")
    manifest = json.loads((guest / "manifest.json").read_text())
    for name, facts in manifest["files"].items():
        facts["sha256"] = hashlib.sha256((guest / name).read_bytes()).hexdigest()
    (guest / "manifest.json").write_text(json.dumps(manifest))
    (guest / "copyright").mkdir()
    (guest / "copyright" / "busybox-static.txt").write_text("GPL")
    file = tmp_path / "guests.tar"
    members = archive.export(file, ["arm_wheezy", "i386", "i386_tiny"])
    assert len(members) == 3 + 4
    monkeypatch.setenv("PANDALITE_GUESTS", str(tmp_path / "none"))
    monkeypatch.setenv("PANDALITE_HOME", str(tmp_path / "other"))
    return file


def contents(home: Path) -> dict[str, bytes]:
    """The files in a cache, without locks and digests."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.parent.name != "digests"
    }


def test_round_trip(exported: Path, home: Path, tmp_path: Path) -> None:
    assert archive.import_file(exported) == ["arm_wheezy", "i386_tiny"]
    found = contents(cache.home())
    before = contents(home)
    assert {n: d for n, d in found.items() if n.startswith("images/")} == before
    assert found["guests/i386/copyright/busybox-static.txt"] == b"GPL"
    assert tiny.find_guest("i386").directory == tmp_path / "other" / "guests" / "i386"
    assert Qcows.get_qcow("arm_wheezy") == str(tmp_path / "other" / DISK)
    # Again, over what is there.
    assert archive.import_file(exported) == ["arm_wheezy", "i386_tiny"]
    assert contents(cache.home()) == found


def test_own_image(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_with_root(tmp_path / "disk.qcow2")
    folder = home / "images.d"
    folder.mkdir(parents=True)
    table = {"arch": "mips", "qcow": str(tmp_path / "disk.qcow2"), "prompt": "# ", "disk": "ide"}
    (folder / "all.json").write_text(json.dumps({"mine": {**table, "extra_args": "-M malta"}}))
    archive.export(tmp_path / "mine.tar", ["mine"])
    monkeypatch.setenv("PANDALITE_HOME", str(tmp_path / "other"))
    assert archive.import_file(tmp_path / "mine.tar") == ["mine"]
    path = Path(Qcows.get_qcow("mine"))
    assert path == tmp_path / "other" / "images" / "mine" / "disk.qcow2"
    entry = lookup.entry("mine")
    assert (entry.image.prompt, entry.words, entry.disk) == ("# ", ("-M", "malta"), "ide")
    assert archive.import_file(tmp_path / "mine.tar") == ["mine"]
    # One of that name that is another one is not replaced.
    (tmp_path / "other" / "images.d" / "mine.toml").unlink(missing_ok=True)
    (tmp_path / "other" / "images.d" / "mine.json").write_text(json.dumps({"mine": table}))
    with pytest.raises(ImageError, match=r"mine\.json has another one of that name"):
        archive.import_file(tmp_path / "mine.tar")


def test_export_refuses(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="qcows fetch arm_wheezy"):
        archive.export(tmp_path / "a.tar", ["arm_wheezy"])
    with pytest.raises(ImageError, match="no image is named"):
        archive.export(tmp_path / "a.tar", ["nonsense"])
    with pytest.raises(ImageError, match="not here"):
        archive.export(tmp_path / "a.tar", ["i386"])
    assert not (tmp_path / "a.tar").exists()


def rewrite(
    file: Path,
    change: Callable[[list[tuple[tarfile.TarInfo, bytes]], dict[str, Any]], None],
) -> None:
    """Change the members of an archive, and its manifest, by hand."""
    with tarfile.open(file) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    manifest = json.loads(members[0][1])
    change(members, manifest)
    if members and members[0][0].name == "manifest.json":
        data = json.dumps(manifest).encode()
        members[0][0].size = len(data)
        members[0] = (members[0][0], data)
    with tarfile.open(file, "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)


def named(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
    return info


def rename(new: str) -> Callable[[Any, Any], None]:
    def change(members: Any, manifest: Any) -> None:
        (info,) = [m for m, _ in members if m.name == KERNEL]
        info.name = new
        manifest["files"][new] = manifest["files"].pop(KERNEL)
        for item in manifest["items"]:
            item["files"] = [new if f == KERNEL else f for f in item["files"]]

    return change


def add_member(name: str, kind: bytes) -> Callable[[Any, Any], None]:
    return lambda members, manifest: members.append((named(name, b"", kind), b""))


def flip(members: Any, manifest: Any) -> None:
    for index, (info, data) in enumerate(members):
        if info.name == KERNEL:
            members[index] = (info, b"X" + data[1:])


def set_item(key: str, value: Any) -> Callable[[Any, Any], None]:
    return lambda members, manifest: manifest["items"][0].update({key: value})


def wrong_disk(members: Any, manifest: Any) -> None:
    for index, (info, _) in enumerate(members):
        if info.name == DISK:
            info.size = 4
            members[index] = (info, b"junk")
            digest = hashlib.sha256(b"junk").hexdigest()
            manifest["files"][DISK] = {"size": 4, "sha256": digest}


def wrong_kernel_of_guest(members: Any, manifest: Any) -> None:
    for index, (info, data) in enumerate(members):
        if info.name == "guests/i386/kernel":
            members[index] = (info, b"K" + data[1:])
            manifest["files"][info.name]["sha256"] = hashlib.sha256(b"K" + data[1:]).hexdigest()


HOSTILE: list[tuple[str, Callable[[Any, Any], Any], str]] = [
    ("outside", rename("../../evil"), "not one of a guest"),
    ("absolute", rename("/tmp/evil"), "not one of a guest"),
    ("dots", rename("images/arm_wheezy/../../../evil"), "not one of a guest"),
    ("hidden", rename("images/arm_wheezy/.evil"), "not one of a guest"),
    ("elsewhere", rename("images.d/evil.toml"), "not one of a guest"),
    ("other image", rename("images/mips_wheezy/x"), "other files"),
    ("link", add_member("images/arm_wheezy/x", tarfile.SYMTYPE), "not a plain file"),
    ("hard link", add_member("images/arm_wheezy/x", tarfile.LNKTYPE), "not a plain file"),
    ("device", add_member("images/arm_wheezy/x", tarfile.CHRTYPE), "not a plain file"),
    ("pipe", add_member("images/arm_wheezy/x", tarfile.FIFOTYPE), "not a plain file"),
    ("directory", add_member("images/arm_wheezy/x", tarfile.DIRTYPE), "not a plain file"),
    ("unlisted", add_member("images/arm_wheezy/x", tarfile.REGTYPE), "does not list"),
    ("twice", add_member(KERNEL, tarfile.REGTYPE), "does not list"),
    ("changed", flip, "content of .*vmlinuz"),
    ("missing", lambda m, f: m.pop(), "is missing"),
    ("size", lambda m, f: f["files"][KERNEL].update(size=5), "its manifest says 5"),
    ("negative", lambda m, f: f["files"][KERNEL].update(size=-5), "manifest.json is damaged"),
    ("bool", lambda m, f: f["files"][KERNEL].update(size=True), "manifest.json is damaged"),
    ("huge", lambda m, f: f["files"][KERNEL].update(size=1 << 60), "no room"),
    ("hash", lambda m, f: f["files"][KERNEL].update(sha256="x"), "manifest.json is damaged"),
    ("no manifest", lambda m, f: m.pop(0), "does not begin with"),
    ("not first", lambda m, f: m.insert(0, (named(KERNEL), b"")), "does not begin with"),
    ("format", lambda m, f: f.update(format=99), "format 99"),
    ("keys", lambda m, f: f.pop("items"), "manifest.json is damaged"),
    ("list", lambda m, f: f.update(files=[]), "manifest.json is damaged"),
    ("unknown", set_item("name", "x_wheezy"), "does not know: update"),
    ("other kind", set_item("kind", "tiny"), "does not know"),
    ("no disk", wrong_disk, "truncated|not a qcow2"),
    ("guest", wrong_kernel_of_guest, "guest's own manifest"),
]


@pytest.mark.parametrize(
    ("change", "reason"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE]
)
def test_hostile(exported: Path, tmp_path: Path, change: Any, reason: str) -> None:
    rewrite(exported, change)
    outside = {p.name for p in tmp_path.iterdir()}
    with pytest.raises(ImageError, match=reason):
        archive.import_file(exported)
    assert contents(tmp_path / "other") == {}
    assert {p.name for p in tmp_path.iterdir()} <= {*outside, "other"}


def test_user_entry_may_not_shadow(exported: Path) -> None:
    def change(members: Any, manifest: Any) -> None:
        manifest["items"][0].update(
            kind="user", table={"arch": "arm", "url": "https://example.org/arm_wheezy.qcow"}
        )

    rewrite(exported, change)
    with pytest.raises(ImageError, match="pandalite's own catalogue"):
        archive.import_file(exported)


def test_wrong_hash_of_the_catalogue(tmp_path: Path, home: Path) -> None:
    entry = lookup.entry("x86_64_ubuntu_1804")
    facts = entry.files[0]._replace(sha1=None)
    path = store.directory(entry) / facts.name
    path.parent.mkdir(parents=True)
    image_with_root(path)
    plain = entry._replace(files=(facts,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "entry", lambda _: plain)
        archive.export(tmp_path / "a.tar", ["x86_64_ubuntu_1804"])
    path.unlink()
    with pytest.raises(ImageError, match="its sha1 is"):
        archive.import_file(tmp_path / "a.tar")
    assert contents(home) == {}


def test_every_cut(exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    for length in [0, 1, 100, 512, 700, *range(2000, len(whole) - 12000, len(whole) // 20)]:
        exported.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"export it again|empty"):
            archive.import_file(exported)
        assert contents(tmp_path / "other") == {}
    for junk in (b"x" * 5000, b"\x1f\x8b" + whole, os.urandom(3000)):
        exported.write_bytes(junk)
        with pytest.raises(ImageError, match="no whole tar"):
            archive.import_file(exported)
    with pytest.raises(ImageError, match="No such file"):
        archive.import_file(tmp_path / "nowhere.tar")


def test_full_disk(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def full(handle: int) -> None:
        real(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ImageError, match="No space left"):
        archive.import_file(exported)
    assert contents(tmp_path / "other") == {}


def test_killed(exported: Path, tmp_path: Path) -> None:
    # Killed while it unpacks: nothing has its name, and the next one sweeps up.
    code = "import os, sys, time\nfrom pathlib import Path\nfrom pandalite.qcows import archive\n"
    code += "os.fsync = lambda handle: (print('here', flush=True), time.sleep(60))\n"
    code += "archive.import_file(Path(sys.argv[1]))"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(exported)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None and child.stdout.readline() == b"here\n"
    other = tmp_path / "other"
    (staging,) = other.glob(".import-*")
    # One that is at work is left alone.
    archive.import_file(exported)
    assert staging.exists()
    before = contents(other)
    Qcows.remove_image("arm_wheezy")
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not (other / "images" / "arm_wheezy").exists()
    archive.import_file(exported)
    assert not staging.exists()
    after = contents(other)
    assert {n for n in before if not n.startswith(".")} == set(after)


def test_two_at_once(exported: Path, tmp_path: Path) -> None:
    code = "import sys\nfrom pathlib import Path\nfrom pandalite.qcows import archive\n"
    code += "print(archive.import_file(Path(sys.argv[1])))"
    begin = time.monotonic()
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(exported)],
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for other in others:
        assert other.communicate()[0].strip() == "['arm_wheezy', 'i386_tiny']"
    assert time.monotonic() - begin < 60
    assert Qcows.get_qcow("arm_wheezy", download=False)
    assert list((tmp_path / "other").glob(".import-*")) == []
    assert [p.name for p in (tmp_path / "other" / "guests").glob(".*")] == []
