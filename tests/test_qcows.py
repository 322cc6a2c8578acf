"""pandalite/qcows: the catalogue, the cache, and how the root snapshot is made."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from images import add_snapshots, image_with_root

import pandalite.qcows
from pandalite._bindings import loader
from pandalite.errors import CoreLibraryError, ImageError, TimeoutExpired, UnknownImageError
from pandalite.qcows import Qcows, cache, catalogue, qcow2, roots, tiny
from pandalite.qcows.__main__ import main

PACKAGE = Path(pandalite.qcows.__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory of its own for each test."""
    path = tmp_path / "home"
    monkeypatch.setenv("PANDALITE_HOME", str(path))
    monkeypatch.delenv("PANDALITE_GUESTS", raising=False)
    monkeypatch.delenv("PANDALITE_LIB", raising=False)
    monkeypatch.delenv("PANDA_LIB", raising=False)
    return path


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Toy guests and toy core libraries for both architectures."""
    folder = tmp_path / "guests"
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for arch in ("x86_64", "i386"):
        write_guest(folder / arch, arch)
        (libraries / f"libpanda-{arch}.so").write_bytes(b"a library")
    monkeypatch.setenv("PANDALITE_GUESTS", str(folder))
    monkeypatch.setenv("PANDALITE_LIB", str(libraries))
    return folder


def write_guest(folder: Path, arch: str, kernel: bytes = b"kernel") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = {"kernel": kernel, "initrd.gz": b"initrd"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = {
        "format": 1,
        "arch": arch,
        "kernel": {"release": "6.1.0-50-toy"},
        "run": catalogue.tiny_facts(arch),
        "files": {n: {"size": len(d), "sha256": f"{n}{d!r}"} for n, d in files.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the process that boots a guest by one that obeys orders.

    Returns the file that holds its orders, Python source. What it does each
    time is added to ``calls`` beside it.
    """
    orders = tmp_path / "orders.py"
    calls = tmp_path / "calls"
    program = tmp_path / "python"
    program.write_text(
        textwrap.dedent(f"""\
        #!{sys.executable}
        import json, os, sys, time
        from pathlib import Path
        sys.path[:0] = [{str(PACKAGE.parent)!r}, {str(Path(__file__).parent)!r}]
        assert sys.argv[1:3] == ["-m", "pandalite.qcows.make_root"], sys.argv
        request = json.loads(sys.argv[3])
        with open({str(calls)!r}, "a") as file:
            file.write(json.dumps(dict(request, pid=os.getpid())) + "\\n")
        from images import add_snapshots, image_with_root
        exec(Path({str(orders)!r}).read_text())
        """)
    )
    program.chmod(0o755)
    orders.write_text('image_with_root(Path(request["qcow"]))\n')
    monkeypatch.setattr(sys, "executable", str(program))
    return orders


def calls_of(child: Path) -> list[dict[str, Any]]:
    calls = child.with_name("calls")
    return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def leftovers(home: Path) -> list[str]:
    return [p.name for p in home.rglob("*") if p.name.endswith(".part") or p.suffix == ".qcow2"]


# The cache directory


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("PANDALITE_HOME", "~/mine")
    assert cache.home() == tmp_path / "me" / "mine"
    assert str(cache.home()) == pandalite.qcows.VM_DIR
    monkeypatch.setenv("PANDALITE_HOME", "")
    assert cache.home() == tmp_path / "xdg" / "pandalite"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.home() == tmp_path / "me" / ".cache" / "pandalite"


def test_atomic_file(home: Path) -> None:
    final = home / "a" / "file"
    with cache.atomic_file(final) as partial:
        partial.write_text("first")
        assert not final.exists()
    assert final.read_text() == "first"
    with pytest.raises(KeyError), cache.atomic_file(final) as partial:
        partial.write_text("half of the sec")
        raise KeyError
    assert final.read_text() == "first"
    assert [p.name for p in final.parent.iterdir()] == ["file"]


def test_unusable_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PANDALITE_HOME", str(tmp_path / "file" / "sub"))
    with pytest.raises(ImageError, match="PANDALITE_HOME"):
        cache.make_directory(cache.home())
    with pytest.raises(ImageError, match="PANDALITE_HOME"), cache.lock(cache.home() / "lock", 1):
        pass
    # Remembering a digest is a convenience: it must not fail.
    assert cache.file_sha256(tmp_path / "file").startswith("e3b0c442")


def test_lock_excludes_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as other:  # another open file is like another process
        fcntl.flock(other, fcntl.LOCK_EX)
        begin = time.monotonic()
        with pytest.raises(TimeoutExpired, match="another process"), cache.lock(path, 0.2):
            pass
        assert 0.15 < time.monotonic() - begin < 5
        release = threading.Timer(0.2, fcntl.flock, (other, fcntl.LOCK_UN))
        release.start()
        with cache.lock(path, 10), path.open("w") as third, pytest.raises(BlockingIOError):
            fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
        release.join()
    with cache.lock(path, 0):
        pass


def test_file_sha256_notices_changes(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = cache.file_sha256(path)
    assert cache.file_sha256(path) == first
    (memo,) = (home / "digests").iterdir()
    memo.write_text(memo.read_text().replace(first, "f" * 64))
    assert cache.file_sha256(path) == "f" * 64  # it was not read again
    path.write_bytes(b"two")
    assert cache.file_sha256(path) not in (first, "f" * 64)


def test_private_copy(tmp_path: Path, home: Path) -> None:
    source = tmp_path / "root.qcow2"
    source.write_bytes(os.urandom(3 << 20))
    copies = [cache.private_copy(source), cache.private_copy(source)]
    assert copies[0] != copies[1]
    for copy in copies:
        assert copy.parent == home / "run"
        assert copy.read_bytes() == source.read_bytes()
    copies[0].write_bytes(b"changed")
    assert source.stat().st_size == 3 << 20
    with pytest.raises(OSError, match="No such file"):
        (tmp_path / "gone").stat()
    with pytest.raises(ImageError, match="gone"):
        cache.private_copy(tmp_path / "gone")
    assert len(list((home / "run").iterdir())) == 2


# The catalogue


def test_names() -> None:
    images = pandalite.qcows.SUPPORTED_IMAGES
    for arch in ("x86_64", "i386"):
        assert images[arch] == images[f"{arch}_tiny"]
        image = images[arch]
        assert image.arch == arch
        assert image.snapshot == "root"
        assert image.cdrom == "ide1-cd0"
        assert image.prompt is not None and re.fullmatch(image.prompt, image.prompt)
        assert re.match(r"linux[-_](32|64)[-_].+", str(image.os))
        assert "nokaslr" in str(image.extra_args)
    assert pandalite.qcows.Image()._fields == (
        *("arch", "os", "prompt", "cdrom", "snapshot", "url", "alternate_urls", "extra_files"),
        *("qcow", "default_mem", "extra_args", "hashes"),
    )
    with pytest.raises(ImageError, match="vax"):
        catalogue.tiny_facts("vax")


def test_get_qcow_info(
    guests: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Qcows.get_qcow_info("X86_64")
    words = shlex.split(str(image.extra_args))
    assert words[words.index("-kernel") + 1] == str(guests / "x86_64" / "kernel")
    assert words[words.index("-initrd") + 1] == str(guests / "x86_64" / "initrd.gz")
    assert image.os == "linux-64-debian:6.1.0-50-toy"
    assert Qcows.get_qcow_info(None).arch == "i386"
    assert "i386" in caplog.text
    with pytest.raises(RuntimeError, match=r"no image is named 'i387'.*i386_tiny"):
        Qcows.get_qcow_info("i387")
    with pytest.raises(UnknownImageError, match="is a file"):
        Qcows.get_qcow_info(str(guests / "i386" / "kernel"))
    # What is known without the guest's files is given without them.
    monkeypatch.setenv("PANDALITE_GUESTS", str(tmp_path))
    monkeypatch.setattr(tiny, "_PACKAGE", tmp_path)
    assert Qcows.get_qcow_info("i386") == pandalite.qcows.SUPPORTED_IMAGES["i386"]


def test_guest_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "_PACKAGE", tmp_path)
    with pytest.raises(ImageError, match="make guests"):
        Qcows.get_qcow("x86_64")


def test_guest_damaged(guests: Path) -> None:
    folder = guests / "i386"
    (folder / "kernel").write_bytes(b"ker")
    with pytest.raises(ImageError, match=r"kernel is not whole.*make guests"):
        tiny.find_guest("i386")
    (folder / "kernel").unlink()
    with pytest.raises(ImageError, match="damaged"):
        tiny.find_guest("i386")
    write_guest(folder, "i386")
    manifest = json.loads((folder / "manifest.json").read_text())
    changes: list[dict[str, Any]]
    changes = [{"format": 99}, {"arch": "vax"}, {"run": {}}, {"files": {}}, {"kernel": 3}]
    for change in changes:
        (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(ImageError, match="make guests"):
            tiny.find_guest("i386")
    (folder / "manifest.json").write_text("{ not JSON")
    with pytest.raises(ImageError, match="damaged"):
        tiny.find_guest("i386")


# The root snapshot


def test_made_once(guests: Path, child: Path) -> None:
    path = Qcows.get_qcow("x86_64")
    assert qcow2.validate(path).has_snapshot("root")
    assert Qcows.get_qcow("x86_64_tiny") == path
    (call,) = calls_of(child)
    assert call["arch"] == "x86_64"
    assert call["mem"] == "128M"
    assert call["prompt"] == "root@debian-x86_64:# "
    assert call["extra_args"][-6:-1:2] == ["-kernel", "-initrd", "-append"]
    assert Qcows.get_qcow(path) == path  # an existing file is taken as it is


def test_threads_and_processes_wait_for_each_other(guests: Path, child: Path) -> None:
    child.write_text('time.sleep(0.5); image_with_root(Path(request["qcow"]))')
    code = "import sys; sys.executable = sys.argv[1]\n"
    code += "from pandalite.qcows import tiny; print(tiny.root_image('i386'))"
    others = [
        subprocess.Popen(
            [os.path.realpath("/proc/self/exe"), "-c", code, sys.executable],
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(tiny.root_image("i386"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found += [Path(other.communicate()[0].strip()) for other in others]
    assert len(found) == 5 and len(set(found)) == 1
    assert len(calls_of(child)) == 1


@pytest.mark.parametrize(
    ("orders", "reason"),
    [
        ("sys.exit('SnapshotError: no room')", r"ended with 1\):\nSnapshotError: no room"),
        ("os.kill(os.getpid(), 11)", r"signal 11\):\n\(it said nothing\)"),
        ("pass", "no snapshot was saved"),
        ("Path(request['qcow']).write_text('junk')", "not a qcow2"),
        ("Path(request['qcow']).unlink()", "no disk image"),
    ],
)
def test_child_fails(guests: Path, child: Path, home: Path, orders: str, reason: str) -> None:
    good = child.read_text()
    child.write_text(orders)
    with pytest.raises(ImageError, match=reason):
        tiny.root_image("i386")
    assert leftovers(home) == []
    child.write_text(good)  # and nothing stands in the way of the next try
    assert tiny.root_image("i386").exists()


def test_child_hangs(
    guests: Path, child: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roots, "GRACE", 0.5)
    child.write_text("import subprocess; subprocess.Popen(['sleep', '60']).wait()")
    begin = time.monotonic()
    with pytest.raises(ImageError, match="did not reach its prompt in 1 s"):
        tiny.root_image("i386", timeout=1)
    assert time.monotonic() - begin < 10
    assert leftovers(home) == []
    (call,) = calls_of(child)
    assert not is_running(call["pid"])


def test_interrupt_ends_the_child(guests: Path, child: Path, home: Path) -> None:
    child.write_text("time.sleep(60)")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        with pytest.raises(KeyboardInterrupt):
            tiny.root_image("i386")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert leftovers(home) == []
    (call,) = calls_of(child)
    assert not is_running(call["pid"])


def test_remade_when_something_changes(guests: Path, child: Path) -> None:
    first = tiny.root_image("i386")
    library = Path(os.environ["PANDALITE_LIB"]) / "libpanda-i386.so"
    library.write_bytes(b"another library")
    second = tiny.root_image("i386")
    write_guest(guests / "i386", "i386", kernel=b"another kernel")
    third = tiny.root_image("i386")
    assert len({first, second, third}) == 3
    assert len(calls_of(child)) == 3
    moved = guests.parent / "elsewhere"
    guests.rename(moved)
    os.environ["PANDALITE_GUESTS"] = str(moved)
    assert tiny.root_image("i386") == third


def test_damaged_image_is_remade(guests: Path, child: Path) -> None:
    path = tiny.root_image("i386")
    path.write_bytes(path.read_bytes()[:70000])
    assert qcow2.validate(tiny.root_image("i386")).has_snapshot("root")
    # A killed maker's file is swept away by the next one.
    path.unlink()
    (path.parent / ".root.qcow2.1.2.part").write_text("half")
    tiny.root_image("i386")
    assert sorted(p.name for p in path.parent.iterdir()) == ["root.qcow2"]


def test_old_images_are_deleted(guests: Path, child: Path) -> None:
    library = Path(os.environ["PANDALITE_LIB"]) / "libpanda-i386.so"
    made = []
    for number in range(roots.KEEP + 2):
        library.write_text(f"library {number}")
        made.append(tiny.root_image("i386"))
        os.utime(made[-1].parent, (number, number))
    other = tiny.root_image("x86_64")
    assert [p.exists() for p in made] == [False, False, *[True] * roots.KEEP]
    Qcows.remove_image("i386")
    assert not any(p.parent.exists() for p in made)
    assert other.exists()


def test_other_name_of_the_snapshot(home: Path) -> None:
    final = home / "images" / f"root-mine-{'0' * 16}" / "root.qcow2"
    made = []

    def fill(path: Path) -> None:
        made.append(path)
        qcow2.create(path, 64 << 20)
        add_snapshots(path, ["ready"])

    for _ in range(2):
        assert roots.make("root-mine", final, fill, 10, "ready") == final
    assert len(made) == 1
    with pytest.raises(ImageError, match="no snapshot was saved"):
        roots.make("root-mine", final, fill, 10, "root")
    assert qcow2.validate(final).has_snapshot("ready")


def test_no_core_library(guests: Path, child: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path(os.environ["PANDALITE_LIB"]) / "libpanda-i386.so").unlink()
    with pytest.raises(CoreLibraryError, match="i386"):
        tiny.root_image("i386")
    assert calls_of(child) == []


# The command


def test_command(
    guests: Path, child: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["x86_64"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert "system-x86_64" in words[0]
    assert words[1] == Qcows.get_qcow("x86_64")
    assert words[2:4] == ["-m", "128M"]
    assert words[-2:] == ["-loadvm", "root"]
    assert "-nographic" in words and "-display" not in words
    assert main(["delete", "x86_64"]) == 0
    assert not Path(words[1]).exists()
    child.write_text("sys.exit('it burns')")
    assert main(["x86_64"]) == 1
    assert "it burns" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["vax"], ["a", "b", "c"]])
def test_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "usage:" in error and "x86_64_tiny" in error


def test_delete_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["delete", "vax"]) == 1
    assert "vax" in capsys.readouterr().err


# With the real thing


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_root_of_the_real_guest(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if arch not in loader.available():
        pytest.skip(f"the core library for {arch} is not built")
    try:
        tiny.find_guest(arch)
    except ImageError:
        pytest.skip(f"the tiny guest for {arch} is not built")
    # In the user's own cache, as it is made anyway; checked thoroughly here.
    monkeypatch.delenv("PANDALITE_HOME")
    info = qcow2.validate(tiny.root_image(arch), deep=True)
    (root,) = info.snapshots
    assert root.name == "root"
    assert 1 << 20 < root.vm_state_size < 256 << 20


def test_image_helper(tmp_path: Path) -> None:
    image_with_root(tmp_path / "a.qcow2")
    assert qcow2.validate(tmp_path / "a.qcow2", deep=True).has_snapshot("root")
