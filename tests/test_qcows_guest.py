"""Images of one's own with the real core: snapshots, overlays, finding the prompt, damage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from guest import boot, in_guest, run_case, run_case_process
from guest import case_command as command
from images import Builder
from test_qcows_store import run_read_only

from pandalite._bindings import loader
from pandalite.errors import ImageError, PandaError
from pandalite.expect import Expect
from pandalite.qcows import cache, disks, lookup, make_root, qcow2, roots, tiny

MB = 1 << 20


def guest() -> tiny.TinyGuest:
    return tiny.find_guest("x86_64")


def words() -> list[str]:
    """QEMU's arguments for our kernel, with a real disk."""
    found = guest()
    run = ["-kernel", str(found.kernel), "-initrd", str(found.initrd)]
    return ["-net", "none", *run, "-append", "console=ttyS0 quiet nokaslr"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    monkeypatch.setenv("PANDALITE_HOME", str(path))
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    return path


def entry(home: Path, qcow: Path, **facts: Any) -> None:
    """Write an entry for an image, "mine"."""
    table = {"arch": "x86_64", "qcow": str(qcow), "extra_args": words(), **facts}
    (home / "images.d").mkdir(parents=True, exist_ok=True)
    (home / "images.d" / "mine.json").write_text(json.dumps({"mine": table}))


def digest(path: Path) -> tuple[str, int]:
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns


def case_run(what: str, small: bool = True) -> Any:
    """Start "mine", load its snapshot, run a command; what it says and how long that took."""
    from pandalite.qcows import overlay

    if not small:
        overlay.SMALL = 0
        cache.clone = lambda *_: False  # type: ignore[assignment]
    begin = time.monotonic()
    panda = boot("mine")
    times = []

    def work() -> Any:
        panda.run_serial_cmd("true")
        times.append(time.monotonic() - begin)
        return panda.run_serial_cmd(what)

    output = in_guest(panda, work)
    return output, times[0], " ".join(panda.panda_args)


def case_prepare(qcow: str, mem: str) -> None:
    """Boot an image, write to its disk, save "root", write something else."""
    from pandalite import Panda

    panda = Panda(
        arch="x86_64", mem=mem, qcow=qcow, expect_prompt=guest().prompt, extra_args=words()
    )

    @panda.queue_blocking
    def work() -> None:
        panda.serial_console.expect(timeout=150)
        panda.run_serial_cmd("echo before > /dev/sda; echo kept > /tmp/file; sync")
        panda.run_serial_cmd("dd if=/dev/zero bs=64k count=200 | tr '\\0' x > /dev/sda; sync")
        panda.run_serial_cmd("echo before > /dev/sda; sync")
        panda.snap_sync("root")
        panda.run_serial_cmd("echo after > /dev/sda; rm /tmp/file; sync")
        panda.run_serial_cmd("dd if=/dev/zero of=/dev/sda bs=64k count=9 seek=9; sync")
        panda.end_analysis()

    panda.run()


READ = "head -n 1 /dev/sda; cat /tmp/file; tr -d x < /dev/sda | head -c 99 | tr -d '\\0'"


def test_own_image(home: Path, tmp_path: Path) -> None:
    disk = qcow2.create(tmp_path / "disk, 1.qcow2", 64 * MB)
    before = digest(disk)
    entry(home, disk, prompt=guest().prompt, disk="ide")
    output, _, arguments = run_case(case_run, "echo hello > /dev/sda; sync; head -n 1 /dev/sda")
    assert output == "hello"
    assert "if=ide" in arguments
    (made,) = (home / "images").glob("root-mine-*/root.qcow2")
    assert qcow2.validate(made, deep=True).backing_file == str(disk)
    root = digest(made)
    # The second start needs no boot, and finds nothing of the first.
    output, seconds, _ = run_case(case_run, "head -c 5 /dev/sda | tr -d '\\0'")
    assert output == ""
    assert seconds < 5  # 0.3 s when the machine has nothing else to do
    assert digest(disk) == before and digest(made) == root
    assert list((home / "run").iterdir()) == []
    # With other RAM it is another snapshot.
    entry(home, disk, prompt=guest().prompt, default_mem="96M")
    output, _, _ = run_case(case_run, "grep MemTotal /proc/meminfo")
    assert int(output.split()[1]) < 96 << 10
    assert len(list((home / "images").glob("root-mine-*/root.qcow2"))) == 2
    # In a cache that cannot be written it runs as well.
    case = command(case_run, "uname")
    assert "Linux" in run_read_only(home, case)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a snapshot of its own, as PANDA's have, made with 128 MB of RAM."""
    path = tmp_path_factory.mktemp("prepared") / "disk.qcow2"
    qcow2.create(path, 64 * MB)
    run_case(case_prepare, str(path), "128M")
    assert qcow2.validate(path, deep=True).has_snapshot("root")
    return path


@pytest.mark.parametrize("small", [True, False])
def test_snapshot_of_the_image(home: Path, prepared: Path, small: bool) -> None:
    before = digest(prepared)
    entry(home, prepared, prompt=guest().prompt)
    disk = disks.disk_of(lookup.entry("mine"))
    info = qcow2.validate(disk, deep=True)
    assert info.snapshots == qcow2.validate(prepared).snapshots
    # What is the same in both is not in it: the disk has 13 MB of data.
    assert disk.stat().st_size < prepared.stat().st_size - 10 * MB
    output, _, _ = run_case(case_run, READ, small)
    assert output.split() == ["before", "kept", "before"]
    assert digest(prepared) == before


def test_snapshot_that_does_not_fit(home: Path, prepared: Path) -> None:
    before = digest(prepared)
    entry(home, prepared, default_mem="96M", snapshot="root")
    with pytest.raises(ImageError, match=r"(?s)'root' in .*cannot be used.*prompt"):
        disks.disk_of(lookup.entry("mine"))
    assert not list(home.rglob("*.qcow2"))
    # Where the prompt is known, one is made by booting: the disk is as it is now.
    entry(home, prepared, default_mem="96M", prompt=guest().prompt)
    output, _, _ = run_case(case_run, READ.replace("/tmp/file", "/dev/null"))
    assert output.split()[0] == "after"
    assert digest(prepared) == before


def test_failure_is_always_told(prepared: Path, tmp_path: Path) -> None:
    # An error while the run ends must not look like success: it did, now and then.
    disk = tmp_path / "disk.qcow2"
    request = {
        "arch": "x86_64",
        "library": str(loader.find_library("x86_64")),
        "qcow": str(disk),
        "mem": "96M",
        "prompt": "# ",
        "extra_args": words(),
        "snapshot": "root",
        "load": True,
        "timeout": 60,
    }
    for _ in range(5):
        disk.write_bytes(prepared.read_bytes())
        with pytest.raises(ImageError, match="SnapshotMismatchError"):
            roots.boot(request, "mine", 60)


def test_image_without_snapshot(home: Path, prepared: Path) -> None:
    entry(home, prepared)
    assert lookup.entry("mine").image.snapshot is None
    assert disks.disk_of(lookup.entry("mine")) == prepared
    assert disks.disk_of(lookup.entry("mine")).stat().st_mtime_ns == prepared.stat().st_mtime_ns


def case_of_the_cache(qcow: str) -> Any:
    """An image of the cache, given by its path, stays as it is too."""
    from pandalite import Panda

    panda = Panda(arch="x86_64", mem="128M", qcow=qcow, extra_args=words())

    @panda.queue_blocking
    def work() -> None:
        panda.snap_sync("mine")
        panda.end_analysis()

    panda.run()
    return panda.snapshot_names()


def test_image_of_the_cache_by_path(home: Path) -> None:
    (home / "images" / "x").mkdir(parents=True)
    path = qcow2.create(home / "images" / "x" / "disk.qcow2", 64 * MB)
    before = digest(path)
    assert run_case(case_of_the_cache, str(path)) == ["mine"]
    assert digest(path) == before


def test_add_finds_the_prompt(home: Path, tmp_path: Path) -> None:
    disk = qcow2.create(tmp_path / "disk.qcow2", 64 * MB)
    before = digest(disk)
    line = [sys.executable, "-m", "pandalite.qcows", "add", "mine", "--json"]
    line += ["--qcow", str(disk), "--arch", "x86_64", *(f"--arg={word}" for word in words())]
    root = Path(make_root.__file__).resolve().parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["entry"]["prompt"] == guest().prompt
    assert lookup.entry("mine").image.prompt == guest().prompt
    assert digest(disk) == before
    assert list((home / "run").iterdir()) == []


# A guest that asks for a login


def talk(theirs: socket.socket, heard: list[str], shell: str) -> None:
    """What a guest says that wants a login, however often Enter is pressed."""

    def line() -> str:
        text = b""
        while not text.endswith(b"\n"):
            data = theirs.recv(1)
            if not data:
                raise OSError
            text += data
        heard.append(text.decode().strip())
        return heard[-1]

    with contextlib.suppress(OSError):
        theirs.sendall(b"booting\r\n\r\nDebian box ttyS0\r\n\r\n")
        while True:
            theirs.sendall(b"box login: ")
            user = line()
            theirs.sendall(user.encode() + b"\r\n")
            if user != "root":
                continue
            theirs.sendall(b"Password: ")
            password = line()
            theirs.sendall(b"\r\n")
            if password == "secret":
                break
            theirs.sendall(b"Login incorrect\r\n")
        while True:
            theirs.sendall(b"\r\n" if len(heard) == 2 else b"")
            theirs.sendall(shell.encode())
            theirs.sendall(line().encode() + b"\r\n")


@pytest.mark.parametrize("password", ["secret", "wrong"])
def test_login(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_root, "SETTLED", 0.5)
    ours, theirs = socket.socketpair()
    heard: list[str] = []
    thread = threading.Thread(target=talk, args=(theirs, heard, "root@box:~# "))
    thread.start()
    console = Expect("serial", ours, r"root@box:.*# ")
    try:
        request = {"login": ["root", password], "timeout": 5 if password == "wrong" else 60}
        if password == "wrong":
            with pytest.raises(PandaError, match="root@box"):
                make_root.reach_prompt(console, request)
        else:
            make_root.reach_prompt(console, request)
            assert heard == ["root", "secret"]
    finally:
        console.close()
        ours.close()
        theirs.shutdown(socket.SHUT_RDWR)
        thread.join()
        theirs.close()


@pytest.mark.parametrize("login", [["root", "secret"], None])
def test_probe_logs_in(login: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_root, "SETTLED", 0.5)
    ours, theirs = socket.socketpair()
    heard: list[str] = []
    thread = threading.Thread(target=talk, args=(theirs, heard, "root@box:~# "))
    thread.start()
    console = Expect("serial", ours, "no such prompt")
    try:
        request = {"login": login, "timeout": 60}
        if login:
            assert make_root.find_prompt(console, request) == "root@box:.*# "
        else:
            with pytest.raises(PandaError, match="--login USER PASSWORD"):
                make_root.find_prompt(console, request)
    finally:
        console.close()
        ours.close()
        theirs.shutdown(socket.SHUT_RDWR)
        thread.join()
        theirs.close()


# Damaged images and the real core


def case_open(qcow: str) -> str:
    """Have QEMU open an image that our own check is not asked about, and use it."""
    from pandalite import Panda, panda

    panda._check_disk = lambda _: None
    machine = Panda(arch="x86_64", mem="16M", qcow=qcow, extra_args="-M pc -nodefaults")
    found = ["opened"]

    @machine.queue_blocking
    def work() -> None:
        for action in (
            lambda: machine.revert_sync("root"),
            lambda: machine.snap_sync("new"),
            lambda: machine.revert_sync("new"),
            lambda: machine.delvm_sync("root"),
        ):
            try:
                action()
            except PandaError as error:
                found.append(type(error).__name__)
        machine.end_analysis()

    try:
        machine.run()
    except PandaError as error:
        found.append(type(error).__name__)
    return " ".join(found)


def test_damaged_images_do_not_crash_the_core(tmp_path: Path) -> None:
    state: dict[int, bytes | None] = {n: bytes([n + 1]) * 65536 for n in range(9)}
    builder = Builder(64 * MB).state(state)
    builder.state({**state, 3: None, 4: b"x" * 65536, 8192: b"vm" * 32768}, "root")
    path = builder.write(tmp_path / "disk.qcow2")
    whole = path.read_bytes()
    with qcow2.opened(path) as reader:
        tables = [reader.l1[1], *(e.l1_offset for e in reader.snapshot_entries())]
        tables += [reader.table(t, 1, "L1")[0] & qcow2.OFFSET_MASK for t in tables]
    (refcounts,), (snapshots,) = (struct.unpack_from(">Q", whole, at) for at in (48, 64))
    (block,) = struct.unpack_from(">Q", whole, refcounts)
    areas = [(0, 104), (snapshots, 60), (refcounts, 8), (block, 60), *((t, 64) for t in tables)]
    generator = random.Random(99)  # the same damage each time
    answers = [run_case(case_open, str(path))]
    for _ in range(19):
        changed = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            start, size = generator.choice(areas)
            at = start + generator.randrange(size)
            changed[at] = generator.choice([0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1])
        path.write_bytes(changed)
        done = run_case_process(case_open, str(path), timeout=60)
        assert done.returncode >= 0, done.stderr  # a negative one is a signal
        assert "@@result@@" in done.stdout, done.stderr
        answers.append(done.stdout.rsplit("@@result@@", 1)[1])
    assert len(set(answers)) > 2 and roots.GRACE
