"""The user's own images: what their files may say, and what is said about wrong ones."""

from __future__ import annotations

import json
import os
import random
import re
import sys
from pathlib import Path

import pytest
from images import image_with_root

import pandalite.qcows
from pandalite.errors import ImageError, UnknownImageError
from pandalite.qcows import Qcows, add, lookup, make_root, qcow2, roots, user_images

needs_toml = pytest.mark.skipif(user_images._toml() is None, reason="no TOML parser")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the user's files, in a home of its own."""
    monkeypatch.setenv("PANDALITE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    path = tmp_path / "home" / "images.d"
    path.mkdir(parents=True)
    return path


ROUTER = """\
# Mine
[router]
arch = "x86_64"
qcow = "disk.qcow2"
prompt = 'root@[a-z]+:.*# '
default_mem = "256M"
extra_args = ["-append", "a b", "-kernel", "~/vmlinuz"]

["cloud.v1"]
arch = "arm"
url = "https://example.org/a/image.qcow2.xz"
urls = ["http://example.net/b/image.qcow2.xz"]
extra_files = ["vmlinuz"]
extra_args = "-kernel {vmlinuz} -M virt"
sha256 = "SHA256"
hashes = { vmlinuz = "SHA1" }
login = ["root", ""]
disk = "virtio"
""".replace("SHA256", "AB" * 32).replace("SHA1", "cd" * 20)


@needs_toml
def test_toml(folder: Path, tmp_path: Path) -> None:
    (folder / "mine.toml").write_text(ROUTER)
    image_with_root(folder / "disk.qcow2")
    entry = lookup.entry("Router")
    assert entry.kind == "user" and entry.origin == folder / "mine.toml"
    image = Qcows.get_qcow_info("router")
    assert image.arch == "x86_64" and image.default_mem == "256M" and image.snapshot == "root"
    assert image.extra_args == f"-append 'a b' -kernel {tmp_path}/me/vmlinuz"
    assert Qcows.get_qcow("router") == str(folder / "disk.qcow2")
    cloud = lookup.entry("cloud.v1")
    assert [f.name for f in cloud.files] == ["image.qcow2", "vmlinuz"]
    assert cloud.files[0].sha256 == "ab" * 32
    assert cloud.files[1].sha1 == "cd" * 20
    assert cloud.files[1].urls == ("https://example.org/a/vmlinuz", "http://example.net/b/vmlinuz")
    assert cloud.login == ("root", "") and cloud.disk == "virtio"
    assert cloud.image.alternate_urls == ["http://example.net/b/image.qcow2.xz"]
    place = tmp_path / "home" / "images" / "cloud.v1" / "vmlinuz"
    assert Qcows.get_qcow_info("cloud.v1").extra_args == f"-kernel {place} -M virt"
    assert {"router", "cloud.v1", "i386"} <= set(pandalite.qcows.SUPPORTED_IMAGES)


def test_json_needs_no_toml_parser(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_images, "_toml", lambda: None)
    qcow2.create(folder / "disk.qcow2", 1 << 20)
    (folder / "a.json").write_text('{"mine": {"arch": "mips", "qcow": "disk.qcow2"}}')
    assert lookup.entry("mine").image.arch == "mips"
    assert lookup.entry("mine").image.snapshot is None
    (folder / "b.toml").write_text(ROUTER)
    with pytest.raises(ImageError, match=r"b\.toml .*no TOML parser.*tomli.*b\.json"):
        lookup.entry("router")
    assert lookup.entry("mine").image.arch == "mips"  # and of the package, of course
    assert lookup.entry("i386").kind == "tiny"


WRONG = [
    ("[a", ":1: this is not TOML"),
    ("[a]\narch = 'mips'\narch = 'mips'", ":3: this is not TOML"),
    ("a = 3", "'a' must be a table"),
    ("[a]\nqcow = 'x'", ":1: 'a' has no arch"),
    ("[a]\narch = 'vax'\nqcow = 'x'", ":2: arch of 'a' must be a guest architecture"),
    ("[a]\narch = 'mips'", ":1: 'a' has neither qcow .* nor url"),
    ("[a]\narch = 'mips'\n\nqcov = 'x'", ":4: 'a' has the unknown key 'qcov'; do you mean 'qcow'"),
    ("[a]\narch = 'mips'\nzzz = 'x'", ":3: .*unknown key 'zzz'; the keys are: arch, os"),
    ("[a]\narch = 'mips'\nqcow = ''", ":3: qcow of 'a' must be a string"),
    ("[a]\narch = 'mips'\nqcow = 'x'\nprompt = '('", ":4: prompt .*regular expression"),
    ("[a]\narch = 'mips'\nqcow = 'x'\ndefault_mem = 256", ":4: default_mem .*in quotes.*256"),
    ("[a]\narch = 'mips'\nqcow = 'x'\ndefault_mem = '1 GB'", ":4: default_mem"),
    ("[a]\narch = 'mips'\nqcow = 'x'\nextra_args = '\"'", ":4: extra_args .*as a shell"),
    ("[a]\narch = 'mips'\nqcow = 'x'\nextra_args = [1]", ":4: extra_args .*list of words"),
    ("[a]\narch = 'mips'\nqcow = 'x'\nsha256 = 'ab'", ":4: sha256 .*64 hexadecimal"),
    ("[a]\narch = 'mips'\nqcow = 'x'\nsize = true", ":4: size"),
    ("[a]\narch = 'mips'\nqcow = 'x'\nlogin = 'root'", ":4: login"),
    ("[a]\narch = 'mips'\nqcow = 'x'\ndisk = 'floppy'", ":4: disk .*virtio"),
    ("[a]\narch = 'mips'\nqcow = 'x'\nhashes = {y = '1'}", ":4: hashes"),
    ("[a]\narch = 'mips'\nqcow = 'x'\nextra_files = ['y']", ":4: extra_files .*it has none"),
    ("[a]\narch = 'mips'\nurl = 'ftp://x/y'", ":3: url of 'a' must be an http://"),
    ("[a]\narch = 'mips'\nurl = 'https://x/'", ":3: url"),
    ("[a]\narch = 'mips'\nurl = 'https://x/y'\nqcow = '../y'", ":4: qcow .*without a directory"),
    ("[a]\narch = 'mips'\nurl = 'https://x/..'", "qcow .*without a directory"),
    ("[a]\narch = 'mips'\nurl = 'https://x/y'\nextra_files = ['/z']", ":4: extra_files"),
    ("[a]\narch = 'mips'\nurl = 'https://x/y'\nextra_files = ['y']", ":4: .*a file twice"),
    ("['../a']\narch = 'mips'\nqcow = 'x'", "cannot be named '../a'"),
    ("['']\narch = 'mips'\nqcow = 'x'", "cannot be named ''"),
    ("[A]\narch = 'mips'\nqcow = 'x'", "cannot be named 'A'"),
    ("[root-a]\narch = 'mips'\nqcow = 'x'", "root- are taken"),
    ("[i386]\narch = 'i386'\nqcow = 'x'", ":1: 'i386' is an image of pandalite's own"),
    (
        "[a]\narch = 'mips'\nqcow = 'x'\nos = 'a\\u0000b'".replace("'a\\u0000b'", '"a\\u0000b"'),
        ":4",
    ),
]


@needs_toml
@pytest.mark.parametrize(("text", "reason"), WRONG)
def test_wrong_toml(folder: Path, text: str, reason: str) -> None:
    path = folder / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ImageError, match=f"(?s)^{re.escape(str(path))}.*{reason}"):
        lookup.entry("something")
    entries, errors = user_images.load_all()
    assert entries == {} and len(errors) == 1
    # It does not stand in the way of other images.
    assert lookup.entry("i386").kind == "tiny"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": \n{,}}', ":2: this is not JSON"),
        ('{"a": {}, "a": {}}', "a key is there twice"),
        ("[1]", "a table for each image"),
        ("[" * 100000, "JSON|deeply"),
        ('{"a":\n{"arch": "mips",\n"qcow": "x",\n"size": -1}}', ":4: size"),
    ],
)
def test_wrong_json(folder: Path, text: str, reason: str) -> None:
    (folder / "wrong.json").write_text(text)
    with pytest.raises(ImageError, match=rf"wrong\.json.*({reason})"):
        lookup.entry("something")


def test_unreadable(folder: Path) -> None:
    (folder / "a.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ImageError, match=r"a\.json.*UTF-8"):
        lookup.entry("a")
    (folder / "a.json").unlink()
    (folder / "b.json").mkdir()
    with pytest.raises(ImageError, match=r"cannot read .*b\.json"):
        lookup.entry("a")
    (folder / "b.json").rmdir()
    for ignored in (".c.json", "README", "#d.toml", "e.toml~"):
        (folder / ignored).write_text("{")
    with pytest.raises(UnknownImageError):
        lookup.entry("a")


@needs_toml
def test_damaged_toml_raises_nothing_else(folder: Path) -> None:
    generator = random.Random(5)
    path = folder / "wrong.toml"
    refused = 0
    for _ in range(400):
        data = bytearray(ROUTER.encode())
        for _ in range(generator.randint(1, 4)):
            at = generator.randrange(len(data))
            if generator.random() < 0.3:
                del data[at : at + generator.randint(1, 9)]
            else:
                data[at] = generator.choice(b"\"'[]{}=,.\n# a1\\\x00\xff")
        path.write_bytes(data)
        try:
            user_images.read_file(path)
        except ImageError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 200


def test_same_name_twice(folder: Path) -> None:
    table = {"arch": "mips", "qcow": "/x"}
    (folder / "a.json").write_text(json.dumps({"mine": table}))
    (folder / "b.json").write_text(json.dumps({"mine": table}))
    assert lookup.entry("mine").image.arch == "mips"
    (folder / "b.json").write_text(json.dumps({"mine": {**table, "arch": "arm"}}))
    _, (error,) = user_images.load_all()
    assert re.search(r"b\.json.*'mine' is in .*a\.json too", str(error))


def test_disk_is_gone(folder: Path) -> None:
    (folder / "a.json").write_text('{"mine": {"arch": "mips", "qcow": "disk.qcow2"}}')
    with pytest.raises(ImageError, match=r"disk\.qcow2, which .*a\.json names, is not there"):
        Qcows.get_qcow("mine")
    qcow2.create(folder / "disk.qcow2", 1 << 20)
    digest = "0" * 64
    text = json.dumps({"mine": {"arch": "mips", "qcow": "disk.qcow2", "sha256": digest}})
    (folder / "a.json").write_text(text)
    with pytest.raises(ImageError, match=f"its sha256 is .*, not {digest}"):
        Qcows.get_qcow("mine")
    Qcows.remove_image("mine")
    assert (folder / "disk.qcow2").exists()


# Writing entries


@pytest.mark.parametrize("toml", [pytest.param(True, marks=needs_toml), False])
def test_write(folder: Path, monkeypatch: pytest.MonkeyPatch, toml: bool) -> None:
    if not toml:
        monkeypatch.setattr(user_images, "_toml", lambda: None)
    table = {
        "arch": "x86_64",
        "qcow": "/a b/'ü\"\\.qcow2",
        "prompt": "\\[x\\]\t\x7f# ",
        "extra_args": ["-append", 'a "b"'],
        "hashes": {"x.y": "0" * 40},
        "size": 12,
    }
    path = user_images.write("a.b", table)
    assert path == folder / ("a.b.toml" if toml else "a.b.json")
    entry = lookup.entry("a.b")
    assert entry.image.prompt == table["prompt"]
    assert entry.image.qcow == table["qcow"]
    assert list(entry.words) == table["extra_args"]
    (folder / "a.b.toml").rename(folder / "a.b.json") if toml else None
    if toml:
        with pytest.raises(ImageError, match=r"a\.b\.json has an image"):
            user_images.write("a.b", table)
    with pytest.raises(ImageError, match="unknown key"):
        user_images.write("c", {**table, "nonsense": 1})
    assert sorted(p.suffix for p in folder.iterdir()) == [".json"]


def test_add_checks_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    booted: list[str] = []
    monkeypatch.setattr(add, "probe", lambda name, *_: booted.append(name) or "found# ")
    disk = tmp_path / "disk.qcow2"
    with pytest.raises(ImageError, match="no disk image"):
        add.add("mine", qcow=disk, arch="mips")
    image_with_root(disk)
    with pytest.raises(ImageError, match="arch"):
        add.add("mine", qcow=disk, arch="vax")
    with pytest.raises(ImageError, match="cannot be named"):
        add.add("../mine", qcow=disk, arch="mips")
    with pytest.raises(ImageError, match="pandalite's own"):
        add.add("mips_wheezy", qcow=disk, arch="mips")
    assert booted == [] and list(folder.iterdir()) == []
    path, table = add.add("Mine", qcow=disk, arch="mips", words=["-M", "malta"])
    assert booted == ["mine"] and table["prompt"] == "found# "
    assert lookup.entry("mine").image.extra_args == "-M malta"
    assert path.parent == folder
    with pytest.raises(ImageError, match="there is an image 'mine'"):
        add.add("mine", qcow=disk, arch="mips", prompt="# ")


def test_probe_of_a_guest_that_fails(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libpanda-mips.so"
    library.touch()
    disk = tmp_path / "disk.qcow2"
    image_with_root(disk)
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nprint(eval(open({str(disk)!r}+'.say').read()))"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    for orders, reason in (("sys.exit('no shell')", "no shell"), ("'junk'", "something else")):
        Path(f"{disk}.say").write_text(orders)
        with pytest.raises(ImageError, match=reason):
            add.add("mine", qcow=disk, arch="mips", libpanda_path=str(library))
    assert list(folder.iterdir()) == []
    assert list((tmp_path / "home").rglob("*.qcow2")) == []
    assert os.path.exists(disk) and roots.GRACE > 1


@pytest.mark.parametrize(
    ("said", "prompt"),
    [
        ("\r\nroot@a:/# \r\nroot@a:/# ", "root@a:.*# "),
        ("\r\n# \r\n# ", "# "),
        ("\r\n$ \r\n[   12.3] random: crng\r\n$ ", "\\$ "),
        (
            "\r\n\x1b[?2004l\r\x1b[?2004h\x1b]0;t\x07[me@box ~]$ \r\n[me@box ~]$ ",
            "\\[me@box .*\\]\\$ ",
        ),
        ("\r\nBusyBox> \r\nBusyBox> \r\nBusyBox> ", "BusyBox> "),
        ("\r\nroot@a:/# \r\n", None),
        ("\r\n\r\n", None),
        ("\r\nbooting\r\nstill", None),
    ],
)
def test_prompt_is_found(said: str, prompt: str | None) -> None:
    line = make_root.repeated_line(said)
    assert (make_root.prompt_pattern(line) if line else None) == prompt
    if prompt:
        assert re.search(f"{prompt}$", line)
