"""The catalogue of PANDA's images and where their files are found."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from images import image_with_root

import pandalite.qcows
from pandalite._bindings import loader
from pandalite.arguments import split_extra_args
from pandalite.errors import ImageError, UnknownImageError
from pandalite.qcows import Qcows, cache, catalogue, disks, lookup, qcow2, store, tiny

PACKAGE = Path(pandalite.qcows.__file__).resolve().parent.parent

#: PANDA's names, without those that mean our tiny guests here.
PANDA = [
    *("i386_wheezy", "x86_64_wheezy", "ppc_wheezy", "arm_wheezy", "aarch64_focal"),
    *("mips64_buster", "mips_wheezy", "mipsel_wheezy", "mips_buildroot5", "mipsel_buildroot5"),
    *("i386_ubuntu_1604", "x86_64_ubuntu_1804"),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a home directory of their own for each test, and no network."""
    path = tmp_path / "cache"
    monkeypatch.setenv("PANDALITE_HOME", str(path))
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "me").mkdir()
    monkeypatch.setenv("PANDALITE_OFFLINE", "1")
    monkeypatch.delenv("PANDALITE_IMAGE_MIRROR", raising=False)
    return path


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for a mirror; it has the files of arm_wheezy."""
    path = tmp_path / "mirror"
    path.mkdir()
    image_with_root(path / "debian_7.3_arm.qcow")
    (path / "vmlinuz-3.2.0-4-versatile").write_bytes(b"kernel")
    (path / "initrd.img-3.2.0-4-versatile").write_bytes(b"initrd")
    monkeypatch.setenv("PANDALITE_IMAGE_MIRROR", f"file://{path}")
    return path


# The catalogue


def test_panda_images() -> None:
    entries = catalogue.builtin()
    panda = {name: e for name, e in entries.items() if e.kind == "panda"}
    assert sorted(panda) == sorted(PANDA)
    for name, entry in panda.items():
        image = entry.image
        assert pandalite.qcows.SUPPORTED_IMAGES[name] == image
        assert image.arch is not None and loader.architecture(image.arch)
        assert image.snapshot == "root" and image.default_mem
        assert image.url is not None
        assert image.url.startswith("https://panda-re.mit.edu/qcows/linux/")
        assert image.prompt is not None and re.compile(image.prompt)
        assert re.match(r"linux-(32|64)-\w+:.+", str(image.os))
        assert entry.description and entry.flavour
        names = [facts.name for facts in entry.files]
        assert names == [image.qcow, *(image.extra_files or [])]
        for facts in entry.files:
            assert facts.urls[0].rsplit("/", 1)[0] == image.url.rsplit("/", 1)[0]
        # Each extra file is used, where PyPANDA keeps it.
        for extra in image.extra_files or []:
            assert f"/.panda/{extra}" in str(image.extra_args)
        assert split_extra_args(image.extra_args)


def test_hashes_are_those_panda_gives() -> None:
    images = catalogue.SUPPORTED_IMAGES
    assert {n for n in PANDA if images[n].hashes} == {"mipsel_wheezy", "x86_64_ubuntu_1804"}
    bionic = "bionic-server-cloudimg-amd64-noaslr-nokaslr.qcow2"
    digest = "556305921c8250537bbbfbb57cb56f9ef07f4d63"
    assert images["x86_64_ubuntu_1804"].hashes == {bionic: digest}
    assert catalogue.builtin()["x86_64_ubuntu_1804"].files[0].sha1 == digest


def test_plain_names_are_tiny_guests() -> None:
    for arch in catalogue.tiny_architectures():
        assert lookup.entry(arch).kind == "tiny"
    assert lookup.entry("MIPS_Wheezy").name == "mips_wheezy"
    with pytest.raises(UnknownImageError, match=r"do you mean arm_wheezy"):
        lookup.entry("arm_weezy")
    with pytest.raises(UnknownImageError, match="no image is named"):
        lookup.entry("a\0b")


# Where files are


def test_download(mirror: Path, home: Path) -> None:
    path = Path(Qcows.get_qcow("arm_wheezy"))
    assert path == home / "images" / "arm_wheezy" / "arm_wheezy.qcow"
    assert path.read_bytes() == (mirror / "debian_7.3_arm.qcow").read_bytes()
    words = shlex.split(str(Qcows.get_qcow_info("arm_wheezy").extra_args))
    assert words[words.index("-kernel") + 1] == str(path.parent / "vmlinuz-3.2.0-4-versatile")
    assert words[words.index("-append") + 1] == "root=/dev/sda1"
    # All is there: nothing is fetched again.
    for file in mirror.iterdir():
        file.unlink()
    assert Qcows.get_qcow("arm_wheezy", download=False) == str(path)
    Qcows.remove_image("arm_wheezy")
    assert not path.parent.exists()
    with pytest.raises(ValueError, match=r"arm_wheezy\.qcow, vmlinuz.*qcows fetch arm_wheezy"):
        Qcows.get_qcow("arm_wheezy", download=False)


def test_one_file_is_missing(mirror: Path) -> None:
    path = Path(Qcows.get_qcow("arm_wheezy"))
    (path.parent / "vmlinuz-3.2.0-4-versatile").unlink()
    path.chmod(0o400)

    def identity() -> list[int]:
        # Not the time of access: it may be read.
        facts = path.stat()
        return [facts.st_ino, facts.st_mode, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]

    before = identity()
    assert Qcows.get_qcow("arm_wheezy") == str(path)
    assert path.with_name("vmlinuz-3.2.0-4-versatile").read_bytes() == b"kernel"
    assert identity() == before


def test_offline(home: Path) -> None:
    with pytest.raises(ImageError) as caught:
        Qcows.get_qcow("arm_wheezy")
    for part in (
        "arm_wheezy.qcow",
        str(home / "images" / "arm_wheezy" / "arm_wheezy.qcow"),
        "python -m pandalite.qcows fetch arm_wheezy --to DIR",
        "PANDALITE_OFFLINE",
    ):
        assert part in str(caught.value)
    assert Qcows.get_qcow_info("arm_wheezy").arch == "arm"


def test_panda_directory_is_only_read(mirror: Path, home: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "me" / ".panda"
    theirs.mkdir()
    image_with_root(theirs / "arm_wheezy.qcow")
    (theirs / "vmlinuz-3.2.0-4-versatile").write_bytes(b"another kernel")
    theirs.chmod(0o555)
    before = {p.name: p.stat().st_mtime_ns for p in theirs.iterdir()}
    assert Qcows.get_qcow("arm_wheezy") == str(theirs / "arm_wheezy.qcow")
    words = shlex.split(str(Qcows.get_qcow_info("arm_wheezy").extra_args))
    assert words[words.index("-kernel") + 1] == str(theirs / "vmlinuz-3.2.0-4-versatile")
    store_place = home / "images" / "arm_wheezy"
    assert words[words.index("-initrd") + 1] == str(store_place / "initrd.img-3.2.0-4-versatile")
    assert sorted(p.name for p in store_place.iterdir() if p.suffix != ".lock") == [
        "initrd.img-3.2.0-4-versatile"
    ]
    assert disks.is_shared(theirs / "arm_wheezy.qcow")
    Qcows.remove_image("arm_wheezy")
    theirs.chmod(0o755)
    assert {p.name: p.stat().st_mtime_ns for p in theirs.iterdir()} == before


def test_damaged_in_panda_directory(mirror: Path, home: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "me" / ".panda"
    theirs.mkdir()
    (theirs / "arm_wheezy.qcow").write_bytes((mirror / "debian_7.3_arm.qcow").read_bytes()[:70000])
    assert Qcows.get_qcow("arm_wheezy") == str(home / "images" / "arm_wheezy" / "arm_wheezy.qcow")
    assert (theirs / "arm_wheezy.qcow").stat().st_size == 70000


def bionic(monkeypatch: pytest.MonkeyPatch, data: bytes) -> catalogue.Entry:
    """The entry of an image with a hash, which is that of some data."""
    entry = catalogue.builtin()["x86_64_ubuntu_1804"]
    facts = entry.files[0]._replace(sha1=hashlib.sha1(data).hexdigest())
    changed = entry._replace(files=(facts,))
    monkeypatch.setitem(catalogue._ENTRIES, entry.name, changed)
    return changed


def test_hash(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_with_root(tmp_path / "good")
    data = (tmp_path / "good").read_bytes()
    entry = bionic(monkeypatch, data)
    theirs = tmp_path / "me" / ".panda" / entry.files[0].name
    theirs.parent.mkdir()
    theirs.write_bytes(data[:-1] + b"x")  # PANDA has run it
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("PANDALITE_IMAGE_MIRROR", f"file://{mirror}")
    (mirror / entry.files[0].name).write_bytes(data[:-2] + b"xx")
    with pytest.raises(ImageError, match="sha1"):
        Qcows.get_qcow("x86_64_ubuntu_1804")
    ours = home / "images" / entry.name / entry.files[0].name
    assert not ours.exists()
    (mirror / entry.files[0].name).write_bytes(data)
    assert Qcows.get_qcow("x86_64_ubuntu_1804") == str(ours)
    # Verified once, remembered after it.
    digests = list((home / "digests").iterdir())
    (memo,) = [p for p in digests if p.suffix == ".sha1" and entry.files[0].sha1 in p.read_text()]
    memo.write_text(memo.read_text().replace(str(entry.files[0].sha1), "0" * 40))
    with pytest.raises(ImageError, match="sha1"):
        Qcows.get_qcow("x86_64_ubuntu_1804")
    memo.unlink()
    assert Qcows.get_qcow("x86_64_ubuntu_1804") == str(ours)
    # Changed behind our back.
    ours.write_bytes(data[:-1] + b"y")
    with pytest.raises(ImageError, match=r"sha1.*qcows delete x86_64_ubuntu_1804"):
        Qcows.get_qcow("x86_64_ubuntu_1804")


def test_what_is_no_image_is_not_kept(mirror: Path, home: Path) -> None:
    (mirror / "debian_7.3_arm.qcow").write_bytes(b"<html>It works!</html>")
    with pytest.raises(ImageError, match=r"not a disk image and was deleted.*not a qcow2"):
        Qcows.get_qcow("arm_wheezy")
    assert not list(home.rglob("*.qcow"))


def test_read_only_cache(mirror: Path, home: Path) -> None:
    Qcows.get_qcow("arm_wheezy")
    code = "from pandalite.qcows import Qcows, cache, store, lookup\n"
    code += "print(Qcows.get_qcow('arm_wheezy')); print(Qcows.get_qcow_info('arm_wheezy').arch)\n"
    code += "cache.file_sha256(store.directory(lookup.entry('arm_wheezy')) / 'arm_wheezy.qcow')"
    output = run_read_only(home, [sys.executable, "-c", code])
    assert output.split() == [str(home / "images" / "arm_wheezy" / "arm_wheezy.qcow"), "arm"]


def run_read_only(home: Path, command: list[str]) -> str:
    """Run a command while the cache cannot be written, not even by root."""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(home), *command],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("a read-only mount needs root")
    assert done.returncode == 0, done.stderr
    return done.stdout


# With a server


@pytest.fixture
def server(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An HTTP server with the mirror's files; gives what was requested of it."""
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            requests.append(self.path)

    made = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(mirror))
    )
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{made.server_address[1]}"
    monkeypatch.setenv("PANDALITE_IMAGE_MIRROR", url)
    monkeypatch.delenv("PANDALITE_OFFLINE")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield requests
    made.shutdown()
    thread.join()
    made.server_close()


def test_ten_processes_download_once(server: list[str], home: Path) -> None:
    code = "from pandalite.qcows import Qcows; print(Qcows.get_qcow('arm_wheezy'))"
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(10)
    ]
    found = {other.communicate(timeout=100)[0].strip() for other in others}
    assert found == {str(home / "images" / "arm_wheezy" / "arm_wheezy.qcow")}
    assert sorted(server) == [
        *("/debian_7.3_arm.qcow", "/initrd.img-3.2.0-4-versatile", "/vmlinuz-3.2.0-4-versatile")
    ]


def test_get_file(server: list[str], mirror: Path, tmp_path: Path) -> None:
    url = os.environ["PANDALITE_IMAGE_MIRROR"] + "/vmlinuz-3.2.0-4-versatile"
    del os.environ["PANDALITE_IMAGE_MIRROR"]
    digest = hashlib.sha1(b"kernel").hexdigest()
    Qcows.get_file(url, tmp_path / "one", digest)
    assert (tmp_path / "one").read_bytes() == b"kernel"
    with pytest.raises(RuntimeError, match="sha1"):
        Qcows.get_file([url], tmp_path / "two", "0" * 40, _is_tty=False)
    assert not (tmp_path / "two").exists()


def test_download_qcow(server: list[str], mirror: Path, tmp_path: Path) -> None:
    image = Qcows.get_qcow_info("arm_wheezy")
    out = tmp_path / "out"
    Qcows.download_qcow(image, out / "mine.qcow2", _is_tty=False)
    assert (out / "mine.qcow2").read_bytes() == (mirror / "debian_7.3_arm.qcow").read_bytes()
    assert (out / "initrd.img-3.2.0-4-versatile").read_bytes() == b"initrd"
    with pytest.raises(RuntimeError, match="no url"):
        Qcows.download_qcow(pandalite.qcows.Image(), out / "x")


# Arguments and paths


def test_odd_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: Path) -> None:
    odd = tmp_path / "a, b' {x}"
    monkeypatch.setenv("PANDALITE_HOME", str(odd))
    entry = lookup.entry("aarch64_focal")
    words = shlex.split(str(store.image_at(entry).extra_args))
    flash = odd / "images" / "aarch64_focal" / "ubuntu20_04-aarch64-flash0.qcow"
    assert f"file={str(flash).replace(',', ',,')},if=pflash,readonly=on" in words
    path = Path(Qcows.get_qcow("arm_wheezy"))
    words = shlex.split(str(Qcows.get_qcow_info("arm_wheezy").extra_args))
    assert str(path.parent / "vmlinuz-3.2.0-4-versatile") in words
    entry = lookup.entry("mipsel_wheezy")  # whose kernel's name begins with another's
    assert str(store.image_at(entry).extra_args).count(".mipsel") == 1


def test_shared_disks(home: Path, tmp_path: Path) -> None:
    (home / "images" / "x").mkdir(parents=True)
    own = qcow2.create(tmp_path / "own.qcow2", 1 << 20)
    cached = qcow2.create(home / "images" / "x" / "disk.qcow2", 1 << 20)
    assert not disks.is_shared(own)
    assert disks.is_shared(cached)
    (tmp_path / "link.qcow2").symlink_to(cached)
    assert disks.is_shared(tmp_path / "link.qcow2")
    assert not disks.is_shared(home / "images" / "x" / ".disk.qcow2.part")


# The companion package


def test_guest_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.delenv("PANDALITE_GUESTS", raising=False)
    package = tmp_path / "site" / "pandalite_guests"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('it was imported')")
    assert len(tiny.guest_directories("i386")) == 2
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PANDALITE_GUESTS", "~/guests")
    assert tiny.guest_directories("i386") == [
        tmp_path / "me" / "guests" / "i386",
        PACKAGE / "_lib" / "guests" / "i386",
        package / "guests" / "i386",
        home / "guests" / "i386",
    ]
    assert "pandalite_guests" not in sys.modules


def test_images_json_has_all_fields() -> None:
    data = json.loads((PACKAGE / "qcows" / "images.json").read_text())
    for facts in data["images"].values():
        for file in facts["files"]:
            assert set(file) == {"name", "url", "mirrors", "size", "sha256", "sha1"}
    assert cache.images_dir().name == "images"
