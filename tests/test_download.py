"""pandalite/qcows/download.py against a server that misbehaves on purpose."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import logging
import lzma
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time
import zlib
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from bad_server import BadServer, Page

import pandalite
from pandalite.errors import ImageError, TimeoutExpired
from pandalite.qcows import cache, download, partial, transfer, unpack
from pandalite.qcows.download import RemoteFile, fetch

PACKAGE = Path(pandalite.__file__).resolve().parent.parent
DATA = random.Random(1).randbytes(300_001)
OTHER = random.Random(2).randbytes(300_001)
SECONDS = 60.0


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


HASH = sha256(DATA)
SHA1 = hashlib.sha1(DATA).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, an environment without settings."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("PANDALITE_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setattr(download, "PAUSE_MAX", 0.05)
    monkeypatch.setattr(download, "RETRY_AFTER_MAX", 1.0)
    monkeypatch.setattr(download, "PROGRESS", 1000)
    monkeypatch.setattr(download, "SPACE_MARGIN", 0)
    monkeypatch.setattr(transfer, "READ_TIMEOUT", 5.0)


@pytest.fixture
def server() -> Iterator[BadServer]:
    with BadServer() as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    return path


def remote(server: BadServer, *paths: str, name: str = "disk", **facts: Any) -> RemoteFile:
    return RemoteFile(name, tuple(server.url + path for path in paths or ("/disk",)), **facts)


def names(target: Path) -> list[str]:
    """What is in the directory, but for the lock."""
    return sorted(p.name for p in target.iterdir() if p.suffix != ".lock")


def failure(file: RemoteFile, target: Path, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        fetch(file, target, **options)
    assert not (target / file.name).exists()
    return str(caught.value)


def child(body: str, target: Path, **environment: str) -> subprocess.Popen[str]:
    """A process that has `file(url, **facts)`, `target`, `fetch` and runs the body."""
    program = f"""\
        import os, sys, time
        from pathlib import Path
        from pandalite.qcows import cache, download, transfer, unpack
        from pandalite.qcows.download import RemoteFile, fetch
        download.SPACE_MARGIN = 0
        download.PAUSE = 0.01
        target = Path({str(target)!r})
        def file(url, name="disk", **facts):
            return RemoteFile(name, (url,), **facts)
        """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program) + textwrap.dedent(body)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE), **environment},
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it wrote; kills it if that takes too long."""
    try:
        return process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the child hangs: {out}{err}") from None


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# What goes well


def test_download(server: BadServer, target: Path) -> None:
    server.page("/disk", DATA)
    file = remote(server, size=len(DATA), sha256=HASH.upper(), sha1=SHA1)
    assert fetch(file, target) == target / "disk"
    assert (target / "disk").read_bytes() == DATA
    assert names(target) == ["disk"]
    headers = server.requests[0].headers
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"] == f"pandalite/{pandalite.__version__}"
    fetch(file, target)
    assert len(server.requests) == 1


def test_directory_is_made(server: BadServer, target: Path) -> None:
    server.page("/disk", b"")
    assert fetch(remote(server, size=0), target / "a" / "b").read_bytes() == b""


def test_import_loads_no_requests() -> None:
    code = (
        "import sys, pandalite, pandalite.qcows.download\n"
        "print([m for m in ('requests', 'tqdm', 'urllib3', 'subprocess') "
        "if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )
    assert run.stdout == "[]\n", run.stderr


def test_unverifiable_is_said(
    server: BadServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.page("/disk", DATA)
    with caplog.at_level(logging.WARNING):
        fetch(remote(server), target)
    assert "no known hash" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        fetch(remote(server, name="other", sha256=HASH), target)
    assert caplog.text == ""


@pytest.mark.parametrize("how", [{"no_length": True}, {"chunked": True}])
def test_no_length(server: BadServer, target: Path, how: dict[str, bool]) -> None:
    server.page("/disk", DATA, **how)
    assert "does not say how long" in failure(remote(server), target)
    assert names(target) == []
    for name, facts in (("a", {"sha256": HASH}), ("b", {"size": len(DATA)})):
        assert fetch(remote(server, name=name, **facts), target).read_bytes() == DATA
    # It ends by itself however much the server sends.
    assert "longer than" in failure(remote(server, size=1000), target)
    assert names(target) == ["a", "b"]


def test_percent_and_query(server: BadServer, target: Path) -> None:
    server.page("/my%20disk", DATA)
    fetch(remote(server, "/my%20disk?raw=1", sha256=HASH), target)
    assert server.requests[0].path == "/my%20disk?raw=1"


# Cuts


@pytest.mark.parametrize("reset", [False, True])
def test_cut_at_every_tenth(server: BadServer, target: Path, reset: bool) -> None:
    tenth = len(DATA) // 10

    def before(page: Page, count: int) -> None:
        page.cut_at = tenth * count if count < 10 else None

    server.page("/disk", DATA, before=before, reset=reset)
    fetch(remote(server, size=len(DATA), sha256=HASH), target)
    assert (target / "disk").read_bytes() == DATA
    if not reset:  # which may lose what is on the way
        assert server.ranges == [None, *(f"bytes={tenth * n}-" for n in range(1, 10))]
        assert server.sent == len(DATA)
    assert {r.headers.get("if-range") for r in server.requests[1:]} == {'"1"'}
    assert names(target) == ["disk"]


@pytest.mark.parametrize("tenth", range(1, 10))
def test_cut_then_a_later_process(server: BadServer, target: Path, tenth: int) -> None:
    at = len(DATA) * tenth // 10
    page = server.page("/disk", DATA, cut_at=at)
    file = remote(server, size=len(DATA), sha256=HASH)
    text = failure(file, target)
    assert f"cut short: {at} of {len(DATA)} bytes" in text and "goes on from there" in text
    assert names(target) == ["disk.part", "disk.part.json"]
    assert (target / "disk.part").read_bytes() == DATA[:at]
    note = json.loads((target / "disk.part.json").read_text())
    assert note["url"] == file.urls[0] and note["etag"] == '"1"' and note["total"] == len(DATA)
    page.cut_at = None
    server.requests.clear()
    process = child(
        f"print(fetch(file({file.urls[0]!r}, sha256={HASH!r}), target))",
        target,
    )
    out, err = finish(process)
    assert out.strip() == str(target / "disk"), err
    assert server.ranges == [f"bytes={at}-"] and server.sent == len(DATA) - at
    assert (target / "disk").read_bytes() == DATA
    assert names(target) == ["disk"]


@pytest.mark.parametrize("server_knows", [True, False])
@pytest.mark.parametrize("by", ["etag", "modified"])
def test_changed_content(server: BadServer, target: Path, by: str, server_knows: bool) -> None:
    def before(page: Page, count: int) -> None:
        if count == 2:
            page.data = OTHER
            page.cut_at = None
            if by == "etag":
                page.etag = '"2"'
            else:
                page.modified = formatdate(2e9, usegmt=True)

    page = server.page("/disk", DATA, before=before, cut_at=100_000)
    page.ignore_if_range = not server_knows
    if by == "modified":
        page.etag, page.modified = None, formatdate(1e9, usegmt=True)
    fetch(remote(server), target)  # no hash: a mixture would not be noticed later
    assert (target / "disk").read_bytes() == OTHER
    assert server.ranges == [None, "bytes=100000-"] + [None] * (not server_knows)


def test_changed_length(server: BadServer, target: Path) -> None:
    def before(page: Page, count: int) -> None:
        page.data, page.cut_at = (DATA, 100_000) if count == 1 else (OTHER[:150_000], None)

    server.page("/disk", DATA, before=before)  # and the same ETag
    assert fetch(remote(server), target).read_bytes() == OTHER[:150_000]


def test_became_shorter_than_the_part(server: BadServer, target: Path) -> None:
    def before(page: Page, count: int) -> None:
        page.data, page.cut_at = (DATA, 100_000) if count == 1 else (OTHER[:50_000], None)

    server.page("/disk", DATA, before=before, ignore_if_range=True)
    assert fetch(remote(server), target).read_bytes() == OTHER[:50_000]
    assert [r.status for r in server.requests] == [200, 416, 200]


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_without_a_validator(server: BadServer, target: Path, etag: str | None) -> None:
    def before(page: Page, count: int) -> None:
        page.cut_at = 100_000 if count == 1 else None

    server.page("/disk", DATA, before=before, etag=etag)
    fetch(remote(server, sha256=HASH), target)  # the hash finds out: goes on
    assert server.ranges == [None, "bytes=100000-"]
    assert "if-range" not in server.requests[1].headers
    if etag is None:
        server.requests.clear()
        server.page("/disk", DATA, before=before, etag=etag)
        fetch(remote(server, name="other"), target)
        assert server.ranges == [None, None]


def test_changed_without_a_sign(server: BadServer, target: Path) -> None:
    """The pieces do not fit and only the hash tells: once more from the start."""

    def before(page: Page, count: int) -> None:
        page.data, page.cut_at = (OTHER, 100_000) if count == 1 else (DATA, None)

    server.page("/disk", OTHER, before=before)
    assert fetch(remote(server, sha256=HASH), target).read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-", None]


def test_changes_for_ever(server: BadServer, target: Path) -> None:
    def before(page: Page, count: int) -> None:
        page.etag = f'"{count}"'

    server.page("/disk", DATA, before=before, cut_at=100_000, ignore_if_range=True)
    failure(remote(server), target)
    assert len(server.requests) < 20


def test_ignores_range(server: BadServer, target: Path) -> None:
    def before(page: Page, count: int) -> None:
        page.cut_at = 100_000 if count == 1 else None

    server.page("/disk", DATA, before=before, ignore_range=True)
    fetch(remote(server, sha256=HASH), target)
    assert [r.status for r in server.requests] == [200, 200]
    assert server.ranges == [None, "bytes=100000-"]
    assert (target / "disk").read_bytes() == DATA


@pytest.mark.parametrize("text", ["bytes 5-300000/300001", "nonsense", "bytes 100000-9/*"])
def test_wrong_content_range(server: BadServer, target: Path, text: str) -> None:
    def before(page: Page, count: int) -> None:
        page.cut_at = 100_000 if count == 1 else None
        page.headers = {"Content-Range": text} if count > 1 else {}

    server.page("/disk", DATA, before=before)
    assert fetch(remote(server, sha256=HASH), target).read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-", None]


def test_cut_without_progress(server: BadServer, target: Path) -> None:
    server.page("/disk", DATA, cut_at=100)
    assert "cut short" in failure(remote(server, sha256=HASH), target)
    assert len(server.requests) == download.ATTEMPTS


@pytest.mark.parametrize("note", [None, "", "{}", "[1]", '{"url": 1}', "\0" * 50, "link"])
def test_bad_note(server: BadServer, target: Path, tmp_path: Path, note: str | None) -> None:
    server.page("/disk", DATA)
    (target / "disk.part").write_bytes(OTHER[:1000])
    if note == "link":
        (tmp_path / "note").write_text("keep")
        (target / "disk.part.json").symlink_to(tmp_path / "note")
    elif note is not None:
        (target / "disk.part.json").write_text(note)
    assert fetch(remote(server, sha256=HASH), target).read_bytes() == DATA
    assert server.ranges == [None]
    assert note != "link" or (tmp_path / "note").read_text() == "keep"


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "fifo"])
def test_part_is_something_else(server: BadServer, target: Path, tmp_path: Path, kind: str) -> None:
    server.page("/disk", DATA)
    precious = tmp_path / "precious"
    precious.write_text("keep")
    part = target / "disk.part"
    if kind == "symlink":
        part.symlink_to(precious)
    elif kind == "dangling":
        part.symlink_to(tmp_path / "new")
    elif kind == "hard link":
        os.link(precious, part)
    else:
        os.mkfifo(part)
    assert fetch(remote(server), target).read_bytes() == DATA
    assert precious.read_text() == "keep" and not (tmp_path / "new").exists()
    assert not (target / "disk").is_symlink()


def test_something_in_the_way(server: BadServer, target: Path) -> None:
    server.page("/disk", DATA)
    (target / "disk").mkdir()
    with pytest.raises(ImageError, match=r"in the way.*delete it"):
        fetch(remote(server), target)
    (target / "other.part").mkdir()
    with pytest.raises(ImageError, match=r"other\.part"):
        fetch(remote(server, name="other"), target)


# Wrong content


def test_wrong_length(server: BadServer, target: Path) -> None:
    server.page("/disk", DATA)
    text = failure(remote(server, size=7), target)
    assert f"{len(DATA)} bytes" in text and "7" in text
    assert server.sent < len(DATA) or names(target) == []
    text = failure(remote(server, size=len(DATA) + 1), target)
    assert f"expected are {len(DATA) + 1}" in text
    assert names(target) == []


@pytest.mark.parametrize("claimed", [100_000, 400_000])
def test_content_length_lies(server: BadServer, target: Path, claimed: int) -> None:
    server.page("/disk", DATA, length=claimed)
    text = failure(remote(server, size=len(DATA), sha256=HASH), target)
    assert f"it is {claimed} bytes long, expected are {len(DATA)}" in text
    text = failure(remote(server, sha256=HASH), target)
    assert ("its sha256" if claimed < len(DATA) else "cut short") in text


@pytest.mark.parametrize("kind", ["sha256", "sha1"])
def test_wrong_hash(server: BadServer, target: Path, kind: str) -> None:
    page = server.page("/disk", OTHER)
    expected = hashlib.new(kind, DATA).hexdigest()
    text = failure(remote(server, **{kind: expected}), target)
    assert f"its {kind} is {hashlib.new(kind, OTHER).hexdigest()}, expected is {expected}" in text
    assert "has been deleted" in text and "PANDALITE_IMAGE_MIRROR" in text
    assert names(target) == [] and page.count == 1


def test_wrong_hash_then_a_good_mirror(server: BadServer, target: Path) -> None:
    server.page("/a/disk", OTHER)
    server.page("/b/disk", DATA)
    assert fetch(remote(server, "/a/disk", "/b/disk", sha256=HASH), target).read_bytes() == DATA
    assert server.ranges == [None, None]
    assert names(target) == ["disk"]


def test_wrong_hash_and_always_cut(server: BadServer, target: Path) -> None:
    def before(page: Page, count: int) -> None:
        page.cut_at = 100_000 if count % 2 else None

    server.page("/disk", OTHER, before=before)
    assert "its sha256" in failure(remote(server, sha256=HASH), target)
    assert len(server.requests) <= 4 and names(target) == []


def test_complete_part_is_checked(server: BadServer, target: Path) -> None:
    """A process ended between the last byte and the rename."""
    file = remote(server, size=len(DATA), sha256=HASH)
    page = server.page("/disk", DATA, cut_at=len(DATA) - 1)
    failure(file, target)
    page.cut_at = None
    (target / "disk.part").write_bytes(DATA)
    server.requests.clear()
    assert fetch(file, target).read_bytes() == DATA
    assert not server.requests
    (target / "disk").unlink()
    page.cut_at = len(DATA) - 1
    failure(file, target)
    page.cut_at = None
    (target / "disk.part").write_bytes(OTHER)
    server.requests.clear()
    assert fetch(file, target).read_bytes() == DATA
    assert server.ranges == [None]


# Statuses, redirections, mirrors


@pytest.mark.parametrize(
    ("status", "tries"),
    [(404, 1), (403, 1), (401, 1), (410, 1), (407, 1), (204, 1), (500, 5), (503, 5), (429, 5)],
)
def test_status(server: BadServer, target: Path, status: int, tries: int) -> None:
    server.page("/disk", DATA, status=status)
    text = failure(remote(server, sha256=HASH), target)
    assert f"HTTP {status}" in text
    for part in (str(target / "disk"), HASH, "python -m pandalite.qcows fetch disk --to DIR"):
        assert part in text
    assert len(server.requests) == tries
    assert names(target) == []


@pytest.mark.parametrize("status", [500, 502, 503, 408, 429])
def test_status_that_passes(server: BadServer, target: Path, status: int) -> None:
    def before(page: Page, count: int) -> None:
        page.status = status if count < 4 else None

    server.page("/disk", DATA, before=before)
    assert fetch(remote(server, sha256=HASH), target).read_bytes() == DATA


def test_pauses_grow(server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download, "PAUSE", 0.02)
    monkeypatch.setattr(download, "PAUSE_MAX", 0.08)
    server.page("/disk", status=500, before=lambda *_: pauses.append(time.monotonic()))
    failure(remote(server), target)
    gaps = [b - a for a, b in zip(pauses, pauses[1:])]
    for gap, least in zip(gaps, (0.016, 0.032, 0.064, 0.064)):
        assert gap >= least


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("0", 0.0, 0.9),
        ("1000", 1.0, 10.0),
        ("nonsense", 0.0, 0.9),
        (formatdate(time.time() + 3600, usegmt=True), 1.0, 10.0),
        (formatdate(1e9, usegmt=True), 0.0, 0.9),
    ],
)
def test_retry_after(
    server: BadServer, target: Path, header: str, least: float, most: float
) -> None:
    def before(page: Page, count: int) -> None:
        times.append(time.monotonic())
        page.status = 503 if count == 1 else None

    times: list[float] = []
    server.page("/disk", DATA, before=before, headers={"Retry-After": header})
    fetch(remote(server), target)
    assert least <= times[1] - times[0] < most


def test_mirrors_in_turn(server: BadServer, target: Path) -> None:
    server.page("/b/disk", status=500)
    server.page("/c/disk", DATA)
    file = remote(server, "/a/disk", "/b/disk", "/c/disk", sha256=HASH)
    fetch(file._replace(urls=("http://127.0.0.1:1/disk", *file.urls)), target)
    assert [r.path for r in server.requests] == ["/a/disk", "/b/disk", "/c/disk"]


def test_stays_where_it_has_begun(server: BadServer, target: Path) -> None:
    def before(page: Page, count: int) -> None:
        page.cut_at = 100_000 if count == 1 else None

    server.page("/a/disk", DATA, before=before)
    server.page("/b/disk", DATA)
    fetch(remote(server, "/a/disk", "/b/disk"), target)
    assert [r.path for r in server.requests] == ["/a/disk", "/a/disk"]


def test_goes_on_from_another_mirror(server: BadServer, target: Path) -> None:
    server.page("/a/disk", DATA, cut_at=100_000)
    server.page("/b/disk", DATA, etag='"b"')
    file = remote(server, "/a/disk", "/b/disk")
    fetch(file._replace(sha256=HASH), target)
    assert server.requests[-1].path == "/b/disk" and server.requests[-1].range == "bytes=100000-"
    assert "if-range" not in server.requests[-1].headers
    # Without a hash nothing tells whether the pieces fit.
    fetch(file._replace(name="other"), target)
    assert server.requests[-1].path == "/b/disk" and server.requests[-1].range is None
    assert (target / "other").read_bytes() == DATA


def test_wrong_answers_leave_the_part(server: BadServer, target: Path) -> None:
    """A login page of a network, say, in place of the file."""
    page = server.page("/disk", DATA, cut_at=100_000)
    file = remote(server, size=len(DATA), sha256=HASH)
    failure(file, target)
    server.page("/disk", b"please log in", ignore_range=True)
    assert "expected are" in failure(file, target)
    server.page("/disk", status=404)
    failure(file, target)
    assert (target / "disk.part").read_bytes() == DATA[:100_000]
    page.cut_at = None
    server.pages["/disk"] = page
    fetch(file, target)
    assert server.ranges[-1] == "bytes=100000-"


def test_part_of_another_release(server: BadServer, target: Path) -> None:
    server.page("/disk", OTHER, cut_at=100_000)
    failure(remote(server, size=len(OTHER)), target)
    server.page("/disk", DATA[:200_000], ignore_if_range=True)
    file = remote(server, size=200_000, sha256=sha256(DATA[:200_000]))
    assert fetch(file, target).read_bytes() == DATA[:200_000]
    assert server.ranges[-1] is None


def test_cut_in_the_headers(server: BadServer, target: Path) -> None:
    """It looks like an empty file of unknown length."""

    def before(page: Page, count: int) -> None:
        page.no_length, page.data = (True, b"") if count == 1 else (False, DATA)

    server.page("/disk", before=before)
    assert fetch(remote(server, sha256=HASH), target).read_bytes() == DATA


def test_all_reasons_are_told(server: BadServer, target: Path) -> None:
    server.page("/a/disk", status=403)
    server.page("/b/disk", OTHER)
    file = remote(server, "/a/disk", "/b/disk", sha256=HASH)
    text = failure(file, target)
    assert f"{file.urls[0]}: HTTP 403 Forbidden" in text
    assert f"{file.urls[1]}: its sha256 is" in text


def test_redirects(server: BadServer, target: Path) -> None:
    server.page("/disk", location="/a")
    server.page("/a", location=f"{server.url}/b")
    server.page("/b", DATA)
    assert fetch(remote(server, sha256=HASH), target).read_bytes() == DATA


def test_redirect_loop(server: BadServer, target: Path) -> None:
    server.page("/disk", location="/a")
    server.page("/a", location="/b")
    server.page("/b", location="/a")
    text = failure(remote(server), target)
    u = server.url
    assert f"a redirect loop: {u}/a -> {u}/b -> {u}/a" in text
    assert len(server.requests) == 3


def test_endless_redirects(server: BadServer, target: Path) -> None:
    def before(page: Page, count: int) -> None:
        page.location = f"/disk?{count}"

    server.page("/disk", before=before)
    assert "more than 10 redirects" in failure(remote(server), target)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", ""])
def test_bad_redirect(server: BadServer, target: Path, location: str) -> None:
    server.page("/disk", location=location)
    assert "redirect" in failure(remote(server), target)
    assert len(server.requests) == 1


def test_nothing_reachable(target: Path) -> None:
    file = RemoteFile("disk", ("http://127.0.0.1:1/disk", "http://nowhere.invalid/disk"))
    text = failure(file, target, image="x86_64_ubuntu")
    assert "Connection refused" in text and "offline" in text
    assert "python -m pandalite.qcows fetch x86_64_ubuntu --to DIR" in text
    assert str(target / "disk") in text
    assert names(target) == []


def test_packed_on_the_way(server: BadServer, target: Path) -> None:
    """A Content-Encoding that was not asked for; but some servers say so of .gz files."""
    packed = gzip.compress(DATA)
    server.page("/disk", packed, headers={"Content-Encoding": "gzip"})
    assert "gzip" in failure(remote(server, sha256=HASH), target)
    server.page("/disk.gz", packed, headers={"Content-Encoding": "x-gzip"})
    assert fetch(remote(server, "/disk.gz", sha256=HASH), target).read_bytes() == DATA
    file = remote(server, "/disk.gz", name="disk.gz", sha256=sha256(packed))
    assert fetch(file, target).read_bytes() == packed


# Slow servers


@pytest.mark.parametrize("what", ["drip", "drip_headers"])
def test_slow_loris(
    server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(transfer, "MIN_BYTES_SECONDS", 0.4)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    server.page("/slow", DATA, **{what: 0.02})
    server.page("/disk", DATA)
    before = time.monotonic()
    assert "too slow" in failure(remote(server, "/slow"), target)
    assert time.monotonic() - before < 5
    assert fetch(remote(server, "/slow", "/disk", sha256=HASH), target).read_bytes() == DATA
    assert threading.active_count() < 20


def test_slow_but_fast_enough(
    server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "MIN_BYTES_SECONDS", 0.3)
    monkeypatch.setattr(transfer, "MIN_BYTES", 5)
    server.page("/disk", DATA[:100], drip=0.01)
    assert fetch(remote(server), target).read_bytes() == DATA[:100]
    assert len(server.requests) == 1


def test_silence(server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "READ_TIMEOUT", 0.5)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    server.page("/disk", DATA, stop_at=100_000)
    assert "timed out" in failure(remote(server), target).lower()
    assert (target / "disk.part").read_bytes() == DATA[:100_000]


def test_silence_by_old_urllib3(
    server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """urllib3 before 2 has no read1."""
    import urllib3.response

    for kind in urllib3.response.HTTPResponse.__mro__:
        if "read1" in vars(kind):
            monkeypatch.delattr(kind, "read1")
    server.page("/a", DATA, cut_at=100_000)
    server.page("/disk", DATA)
    assert fetch(remote(server, "/a", "/disk", sha256=HASH), target).read_bytes() == DATA
    monkeypatch.setattr(transfer, "MIN_BYTES_SECONDS", 0.4)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.page("/slow", DATA, drip=0.02)
    assert "too slow" in failure(remote(server, "/slow", name="other"), target)


# Packed files


def zst(data: bytes) -> bytes:
    if shutil.which("zstd") is None:
        pytest.skip("no zstd")
    return subprocess.run(
        ["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, timeout=SECONDS, check=True
    ).stdout


PACK = {"xz": lzma.compress, "gz": gzip.compress, "zst": zst}
TEXT = b"".join(b"line %d\n" % n for n in range(60_000))


@pytest.mark.parametrize("kind", PACK)
def test_unpack(server: BadServer, target: Path, kind: str) -> None:
    packed = PACK[kind](TEXT)
    for path, data in ((f"/disk.{kind}", packed), (f"/two.{kind}", packed + PACK[kind](DATA))):
        server.page(path, data)
    file = remote(server, f"/disk.{kind}", size=len(TEXT), sha256=sha256(TEXT))
    assert fetch(file, target).read_bytes() == TEXT
    assert fetch(remote(server, f"/two.{kind}", name="two"), target).read_bytes() == TEXT + DATA
    # Not if that is its name.
    file = remote(server, f"/disk.{kind}", name=f"disk.{kind}", sha256=sha256(packed))
    assert fetch(file, target).read_bytes() == packed
    assert names(target) == sorted(["disk", f"disk.{kind}", "two"])


@pytest.mark.parametrize("kind", PACK)
def test_packed_is_resumed(server: BadServer, target: Path, kind: str) -> None:
    packed = PACK[kind](DATA)
    page = server.page(f"/disk.{kind}", packed, cut_at=100_000)
    file = remote(server, f"/disk.{kind}", size=len(DATA), sha256=HASH)
    failure(file, target)
    assert (target / "disk.part").read_bytes() == packed[:100_000]
    page.cut_at = None
    server.requests.clear()
    fetch(file, target)
    assert server.ranges == ["bytes=100000-"]
    assert (target / "disk").read_bytes() == DATA and names(target) == ["disk"]


def test_part_of_another_packing(server: BadServer, target: Path) -> None:
    """A part of the .xz file is none of the plain one."""
    server.page("/disk.xz", lzma.compress(DATA), cut_at=100_000)
    server.page("/disk", DATA)
    fetch(remote(server, "/disk.xz", "/disk", sha256=HASH), target)
    assert [r.range for r in server.requests if r.path == "/disk"] == [None]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("damage", ["short", "flipped", "empty", "junk after", "not at all"])
def test_damaged(server: BadServer, target: Path, kind: str, damage: str) -> None:
    packed = PACK[kind](TEXT)
    middle = len(packed) // 2
    data = {
        "short": packed[:-20],
        "flipped": packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :],
        "empty": b"",
        "junk after": packed + b"junk",
        "not at all": TEXT,
    }[damage]
    server.page(f"/disk.{kind}", data)
    failure(remote(server, f"/disk.{kind}", size=len(TEXT), sha256=sha256(TEXT)), target)
    if damage != "empty" or kind != "zst":
        assert "packed file is" in failure(remote(server, f"/disk.{kind}"), target)
    assert names(target) == []


@pytest.mark.parametrize("kind", PACK)
def test_bomb_beyond_the_declared_size(server: BadServer, target: Path, kind: str) -> None:
    server.page(f"/disk.{kind}", PACK[kind](bytes(30 << 20)))
    most = 0
    # Nothing beyond it is ever written.
    write_all = partial.write_all

    def counted(handle: int, data: bytes) -> None:
        nonlocal most
        write_all(handle, data)
        most = max(most, os.fstat(handle).st_size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "write_all", counted)
        text = failure(remote(server, f"/disk.{kind}", size=5 << 20), target)
    assert f"unpacks to more than the {5 << 20} bytes" in text
    assert most <= 5 << 20
    assert names(target) == []


def test_bomb_without_a_declared_size(
    server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.page("/disk.gz", gzip.compress(bytes(30 << 20)))
    monkeypatch.setattr(download, "RATIO_FLOOR", 1 << 20)
    assert "unpacks to more than" in failure(remote(server, "/disk.gz"), target)
    monkeypatch.setattr(download, "RATIO_MAX", 2000)
    monkeypatch.setattr(download, "SIZE_MAX", 20 << 20)
    assert f"more than the {20 << 20} bytes" in failure(remote(server, "/disk.gz"), target)
    assert names(target) == []
    monkeypatch.setattr(download, "SIZE_MAX", 40 << 20)
    assert fetch(remote(server, "/disk.gz"), target).stat().st_size == 30 << 20


def test_packed_form_is_too_big(server: BadServer, target: Path) -> None:
    server.page("/disk.gz", bytes(3 << 20))
    assert "at most" in failure(remote(server, "/disk.gz", size=1000), target)
    server.page("/disk.gz", bytes(3 << 20), chunked=True)
    assert "longer than" in failure(remote(server, "/disk.gz", size=1000), target)
    assert names(target) == []


def test_xz_that_wants_all_memory(
    server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "XZ_MEMORY", 1 << 20)
    server.page("/disk.xz", lzma.compress(DATA))
    assert "emory" in failure(remote(server, "/disk.xz"), target)


def test_gzip_padding_and_small_pieces(tmp_path: Path) -> None:
    path = tmp_path / "x"
    buffer = io.BytesIO()
    for n in range(300):
        buffer.write(gzip.compress(b"%d," % n) + bytes(n % 5 * 512))
    path.write_bytes(buffer.getvalue())
    assert b"".join(unpack.unpacked(path, "gz")) == b"".join(b"%d," % n for n in range(300))
    path.write_bytes(zlib.compress(b"not gzip"))
    with pytest.raises(unpack.UnpackError, match="damaged"):
        list(unpack.unpacked(path, "gz"))


def test_no_zstd(server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_zstd_decoder", lambda: None)
    monkeypatch.setattr(unpack, "_zstd_program", lambda: None)
    server.page("/disk.zst", b"x")
    text = failure(remote(server, "/disk.zst"), target)
    for part in ("Python 3.14", "package zstandard", "program zstd"):
        assert part in text
    assert not server.requests
    # Another mirror may have it packed in another way.
    server.page("/disk.xz", lzma.compress(DATA))
    fetch(remote(server, "/disk.zst", "/disk.xz", sha256=HASH), target)


@pytest.mark.parametrize("module", ["compression.zstd", "zstandard"])
def test_zstd_modules(tmp_path: Path, module: str) -> None:
    pytest.importorskip(module)
    found = unpack._zstd_decoder()
    assert found is not None
    path = tmp_path / "x"
    path.write_bytes(zst(TEXT) + zst(b"") + zst(DATA))
    assert b"".join(unpack.unpacked(path, "zst")) == TEXT + DATA


# Disks


def test_no_room_is_known_first(
    server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(target)._replace(free=1 << 20)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    server.page("/disk", bytes(3 << 20))
    text = failure(remote(server, "/disk"), target)
    assert "3072.0 KiB" in text and "1024.0 KiB are free" in text and "PANDALITE_HOME" in text
    assert server.pages["/disk"].count == 1
    # Packed: what it unpacks to counts, too.
    server.page("/disk.xz", lzma.compress(bytes(3 << 20)))
    assert "no room" in failure(remote(server, "/disk.xz", size=3 << 20), target)
    packed = gzip.compress(random.Random(3).randbytes(600_000))
    server.page("/disk.gz", packed)
    assert f"{2 * len(packed) / 1024:.1f} KiB" in failure(remote(server, "/disk.gz"), target)
    assert names(target) == []
    # The margin.
    server.page("/disk", DATA)
    monkeypatch.setattr(download, "SPACE_MARGIN", 1 << 20)
    assert "margin of 1024.0 KiB" in failure(remote(server, "/disk"), target)
    monkeypatch.setattr(download, "SPACE_MARGIN", 700_000)
    fetch(remote(server, "/disk"), target)


def test_room_for_the_rest_is_enough(
    server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = server.page("/disk", DATA, cut_at=200_000)
    failure(remote(server, sha256=HASH), target)
    page.cut_at = None
    usage = shutil.disk_usage(target)._replace(free=len(DATA) - 200_000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    fetch(remote(server, sha256=HASH), target)


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(mount, capture_output=True, timeout=SECONDS).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("cannot mount a tmpfs")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], timeout=SECONDS, check=True)


@pytest.mark.parametrize("kind", ["", ".gz"])
@pytest.mark.parametrize("checked", [True, False])
def test_full_disk(
    server: BadServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    checked: bool,
) -> None:
    if not checked:  # it becomes full in the middle
        plenty = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(download.shutil, "disk_usage", lambda path: plenty)
    data = bytes(5 << 20)
    server.page("/disk" + kind, gzip.compress(data) if kind else data)
    with small_disk(tmp_path / "small") as target:
        text = failure(remote(server, "/disk" + kind, size=len(data)), target)
        assert "no room" in text and re.search(r"512\d\.0 KiB", text) and "PANDALITE_HOME" in text
        assert names(target) == []
        disk = os.statvfs(target)
        assert (disk.f_blocks - disk.f_bfree) * disk.f_frsize < 100_000
        assert server.pages["/disk" + kind].count == 1


def test_file_size_limit(server: BadServer, target: Path) -> None:
    """The same by a limit of the process, which needs no root."""
    server.page("/disk", bytes(5 << 20))
    process = child(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        from pandalite.errors import ImageError
        try:
            fetch(file({server.url + "/disk"!r}), target)
        except ImageError as error:
            print(error)
        """,
        target,
    )
    out, err = finish(process)
    assert "no room" in out and "PANDALITE_HOME" in out, err
    assert names(target) == []


def test_read_only_directory(server: BadServer) -> None:
    import tempfile

    server.page("/disk", DATA)
    with tempfile.TemporaryDirectory() as name:
        target = Path(name)
        target.chmod(0o555)
        process = child(
            f"""
            import requests
            from pandalite.errors import ImageError
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            for where in (target, target / "sub"):
                try:
                    fetch(file({server.url + "/disk"!r}), where)
                except ImageError as error:
                    print(error)
            """,
            target,
        )
        out, err = finish(process)
        lines = out.splitlines()
        assert len(lines) == 2 and all("PANDALITE_HOME" in line for line in lines), out + err
        assert all("Permission denied" in line for line in lines)
        assert not server.requests
        target.chmod(0o755)
        (target / "disk").write_bytes(DATA)
        target.chmod(0o555)
        process = child(
            f"""
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            print(fetch(file({server.url + "/disk"!r}), target))
            """,
            target,
        )
        assert finish(process)[0].strip() == str(target / "disk")
        target.chmod(0o755)


# Processes


def test_ten_processes_download_once(server: BadServer, target: Path) -> None:
    page = server.page("/disk", DATA, stop_at=100_000)
    processes = [
        child(
            f"""
            print("ready", flush=True)
            sys.stdin.readline()
            print(fetch(file({server.url + "/disk"!r}, sha256={HASH!r}), target))
            """,
            target,
        )
        for _ in range(10)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        wait_for(lambda: server.sent == 100_000)
        time.sleep(0.2)  # the others come and wait
        page.go_on.set()
        for process in processes:
            out, err = finish(process)
            assert out.strip() == str(target / "disk"), err
    finally:
        for process in processes:
            process.kill()
    assert len(server.requests) == 1 and server.sent == len(DATA)
    assert names(target) == ["disk"]


def test_lock_timeout(server: BadServer, target: Path) -> None:
    with cache.lock(target / "disk.lock", 1), pytest.raises(TimeoutExpired, match="another"):
        fetch(remote(server), target, lock_timeout=0.1)
    assert not server.requests


@pytest.mark.parametrize("kind", ["", ".xz"])
def test_kill_in_the_middle(server: BadServer, target: Path, kind: str) -> None:
    data = lzma.compress(DATA) if kind else DATA
    page = server.page("/disk" + kind, data, stop_at=200_000)
    url = server.url + "/disk" + kind
    process = child(f"fetch(file({url!r}, sha256={HASH!r}), target)", target)
    part = target / "disk.part"
    try:
        wait_for(lambda: part.exists() and part.stat().st_size == 200_000)
    finally:
        process.kill()
        finish(process)
    assert process.returncode == -signal.SIGKILL
    assert names(target) == ["disk.part", "disk.part.json"]
    page.stop_at = None
    page.go_on.set()
    process = child(f"print(fetch(file({url!r}, sha256={HASH!r}), target))", target)
    out, err = finish(process)
    assert out.strip() == str(target / "disk"), err
    assert server.ranges == [None, "bytes=200000-"]
    assert (target / "disk").read_bytes() == DATA and names(target) == ["disk"]


def test_kill_while_unpacking(server: BadServer, target: Path) -> None:
    server.page("/disk.gz", gzip.compress(DATA))
    process = child(
        f"""
        def stop(path, kind):
            yield b"some"
            print("unpacking", flush=True)
            time.sleep(60)
        unpack.unpacked = stop
        fetch(file({server.url + "/disk.gz"!r}, sha256={HASH!r}), target)
        """,
        target,
    )
    assert process.stdout is not None and process.stdout.readline() == "unpacking\n"
    process.kill()
    finish(process)
    assert names(target) == [".disk.unpacked.part", "disk.part", "disk.part.json"]
    assert fetch(remote(server, "/disk.gz", sha256=HASH), target).read_bytes() == DATA
    assert len(server.requests) == 1 and names(target) == ["disk"]


def test_keyboard_interrupt(server: BadServer, target: Path) -> None:
    page = server.page("/disk", DATA, stop_at=200_000)
    process = child(
        f"""
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            fetch(file({server.url + "/disk"!r}, sha256={HASH!r}), target)
        except KeyboardInterrupt:
            print("interrupted")
        """,
        target,
    )
    part = target / "disk.part"
    wait_for(lambda: part.exists() and part.stat().st_size == 200_000)
    process.send_signal(signal.SIGINT)
    out, err = finish(process)
    assert out == "interrupted\n", err
    page.stop_at = None
    page.go_on.set()
    assert fetch(remote(server, sha256=HASH), target).read_bytes() == DATA
    assert server.ranges == [None, "bytes=200000-"]


# Names, URLs, the environment


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", ".hidden", "a\0b", "a\nb", " a", "a ",
     "x" * 201, "a.part", "a.part.json", "a.lock"],
)  # fmt: skip
def test_bad_names(server: BadServer, target: Path, name: str) -> None:
    with pytest.raises(ImageError, match="refusing"):
        fetch(remote(server, name=name), target)
    assert list(target.iterdir()) == [] and not server.requests


def test_unusual_names(server: BadServer, target: Path) -> None:
    server.page("/disk", DATA)
    for name in ("a..b", "-rf", "Ubuntu 18.04 é.qcow2", "x" * 200):
        assert fetch(remote(server, name=name), target).read_bytes() == DATA


@pytest.mark.parametrize(
    "url",
    ["ftp://host/disk", "disk", "/disk", "http:///disk", "http://host:x/disk", "http://[::/disk",
     "file://host/disk", "file:disk", "http://host/a\nb", "data:,x", "http://host:99999/"],
)  # fmt: skip
def test_bad_urls(target: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="URL; correct the entry"):
        fetch(RemoteFile("disk", (url,)), target)
    if url.split() == [url]:
        monkeypatch.setenv("PANDALITE_IMAGE_MIRROR", url)
        with pytest.raises(ImageError, match="URL; correct PANDALITE_IMAGE_MIRROR"):
            fetch(RemoteFile("disk", ()), target)


def test_offline(server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.page("/disk", DATA)
    file = remote(server, size=len(DATA), sha256=HASH, sha1=SHA1)
    monkeypatch.setenv("PANDALITE_OFFLINE", "1")
    text = failure(file, target, image="x86 64")
    for part in ("PANDALITE_OFFLINE", str(target / "disk"), HASH, SHA1, str(len(DATA))):
        assert part in text
    assert "python -m pandalite.qcows fetch 'x86 64' --to DIR" in text
    assert not server.requests and list(target.iterdir()) == []
    (target / "disk").write_bytes(b"by hand")
    assert fetch(file, target).read_bytes() == b"by hand"
    (target / "disk").unlink()
    for value in ("", "0"):
        monkeypatch.setenv("PANDALITE_OFFLINE", value)
        fetch(file, target)
        (target / "disk").unlink()


def test_offline_with_a_share(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = tmp_path / "a share"
    share.mkdir()
    (share / "disk").write_bytes(DATA)
    monkeypatch.setenv("PANDALITE_OFFLINE", "1")
    monkeypatch.setenv("PANDALITE_IMAGE_MIRROR", share.as_uri())
    fetch(RemoteFile("disk", ("http://127.0.0.1:1/disk",), sha256=HASH), target)
    assert (target / "disk").read_bytes() == DATA


def test_mirror(server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.page("/mirror/disk.xz", lzma.compress(DATA))
    server.page("/mirror/plain%20name", OTHER)
    file = remote(server, "/far/away/disk.xz?x=1", sha256=HASH)
    bases = f"  {server.url}/none/\t{server.url}/mirror "
    monkeypatch.setenv("PANDALITE_IMAGE_MIRROR", bases)
    fetch(file, target)
    assert [r.path for r in server.requests] == ["/none/disk.xz", "/mirror/disk.xz"]
    assert fetch(RemoteFile("plain name", ()), target).read_bytes() == OTHER
    monkeypatch.delenv("PANDALITE_IMAGE_MIRROR")
    assert "PANDALITE_IMAGE_MIRROR" in failure(RemoteFile("nowhere", ()), target)


def test_mirror_fails(server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.page("/disk", DATA)
    server.page("/mirror/disk", OTHER)
    monkeypatch.setenv("PANDALITE_IMAGE_MIRROR", f"{server.url}/mirror")
    assert fetch(remote(server, sha256=HASH), target).read_bytes() == DATA


def test_passwords_are_not_shown(
    server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = server.page("/disk", DATA, cut_at=100_000)
    base = server.url.replace("//", "//me:secret@")
    monkeypatch.setenv("PANDALITE_IMAGE_MIRROR", base)
    assert "secret" not in failure(RemoteFile("disk", (), sha256=HASH), target)
    assert "secret" not in (target / "disk.part.json").read_text()
    assert server.requests[0].headers["authorization"].startswith("Basic ")
    page.cut_at = None
    fetch(RemoteFile("disk", (), sha256=HASH), target)
    assert server.ranges[-1] == "bytes=100000-"


def test_file_urls(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "disk"
    source.write_bytes(DATA)
    assert fetch(RemoteFile("disk", (source.as_uri(),)), target).read_bytes() == DATA
    os.mkfifo(tmp_path / "fifo")
    for name, reason in (("fifo", "not a regular"), ("gone", "No such file")):
        text = failure(RemoteFile("b", ((tmp_path / name).as_uri(),)), target)
        assert reason in text
    # Goes on where it was cut, unless the file has changed.
    for after in (DATA, OTHER):
        file = RemoteFile(sha256(after), (source.as_uri(),))
        part = target / f"{file.name}.part"
        part.write_bytes(DATA[:1000])
        note = {"url": file.urls[0], "packing": "", "modified": "", "total": len(DATA)}
        note["etag"] = f'"{source.stat().st_mtime_ns}"'
        part.with_name(part.name + ".json").write_text(json.dumps(note))
        if after != DATA:
            source.write_bytes(after)
            os.utime(source, ns=(1, 1))
        assert fetch(file, target).read_bytes() == after


def test_proxy(server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.page("/disk", DATA)
    monkeypatch.setenv("http_proxy", server.url)
    fetch(RemoteFile("disk", ("http://nowhere.invalid/disk",), sha256=HASH), target)
    assert server.requests[0].path == "http://nowhere.invalid/disk"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "server.pem"
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", str(path), "-out", f"{path}.crt"],
            check=True, timeout=SECONDS, capture_output=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl")
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def test_certificates(
    target: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch, server: BadServer
) -> None:
    server.page("/plain", DATA)
    with BadServer(certificate) as secure:
        secure.page("/disk", DATA)
        secure.page("/down", location=f"{server.url}/plain")
        secure.page("/slow", DATA, drip=0.02)
        text = failure(remote(secure), target)
        assert "REQUESTS_CA_BUNDLE" in text and "certificate" in text
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        fetch(remote(secure), target)
        # An insecure redirection is followed if a hash checks what comes.
        assert "not secure" in failure(remote(secure, "/down", name="a"), target)
        fetch(remote(secure, "/down", name="a", sha256=HASH), target)
        monkeypatch.setattr(transfer, "MIN_BYTES_SECONDS", 0.4)
        monkeypatch.setattr(download, "ATTEMPTS", 1)
        assert "too slow" in failure(remote(secure, "/slow", name="b"), target)


# The bar


def test_bar(server: BadServer, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server.page("/disk", DATA)
    fetch(remote(server, name="quiet"), target)  # pytest's stderr is no terminal
    fetch(remote(server, name="off"), target, progress=False)
    assert capfd.readouterr().err == ""
    fetch(remote(server, name="shown"), target, progress=True)
    err = capfd.readouterr().err
    assert "shown" in err and "100%" in err


def test_bar_on_a_terminal(server: BadServer, target: Path) -> None:
    """By a real pseudo-terminal; and the bar begins where the part ended."""
    import pty

    page = server.page("/disk.xz", lzma.compress(DATA), cut_at=150_000)
    failure(remote(server, "/disk.xz", sha256=HASH), target)
    page.cut_at, page.stop_at = None, 200_000
    page.go_on.set()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 25, 100, 0, 0))
    code = (
        f"from pathlib import Path\n"
        "from pandalite.qcows.download import RemoteFile, fetch\n"
        f"fetch(RemoteFile('disk', ({server.url + '/disk.xz'!r},), sha256={HASH!r}), "
        f"Path({str(target)!r}))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):
        while data := os.read(ours, 4096):
            text += data
    os.close(ours)
    assert process.wait(SECONDS) == 0, text
    assert b"disk: " in text and b"unpacking disk: " in text
    assert b" 50%" in text or b" 49%" in text, text


def test_no_stderr(server: BadServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.page("/disk", DATA)
    monkeypatch.setattr(sys, "stderr", None)
    fetch(remote(server), target)
