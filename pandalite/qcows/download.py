"""Download a file so that only a whole, verified one gets its name.

What arrives is kept in ``NAME.part`` beside the target, with a note of what it
is a part of in ``NAME.part.json``: a cut, a crash or a kill costs nothing that
was received. Processes that want the same file wait for the first one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shlex
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple
from urllib.parse import quote, urlsplit

from ..errors import ImageError
from . import cache, transfer, unpack
from .partial import Bad, Check, NoRoom, Part, disk_errors, human, write_all
from .transfer import Changed, Cut, Failed, shown

__all__ = ["RemoteFile", "fetch"]

#: How often a URL is tried without any progress, and the pauses between: each
#: is twice as long as the one before.
ATTEMPTS = 5
PAUSE = 1.0
PAUSE_MAX = 30.0
#: The longest a server may ask us to wait.
RETRY_AFTER_MAX = 120.0
#: Received bytes that count as progress.
PROGRESS = 64 << 10
#: What must stay free on the disk.
SPACE_MARGIN = 32 << 20
#: The limits of a file whose size is not known: in bytes, and, if it is packed,
#: how many times as big as its packed form (from RATIO_FLOOR bytes on).
SIZE_MAX = 64 << 30
RATIO_MAX = 250
RATIO_FLOOR = 256 << 20

_log = logging.getLogger(__name__)


class RemoteFile(NamedTuple):
    """A file that can be downloaded."""

    name: str
    """The name it gets: a plain one, without a directory, not hidden."""
    urls: tuple[str, ...]
    """The same file, best first. ``.xz``, ``.gz`` or ``.zst`` at the end of a URL's
    path, when ``name`` does not end so, means that it is to be unpacked."""
    size: int | None = None
    """Its length in bytes, unpacked, if known."""
    sha256: str | None = None
    """The SHA-256 of the unpacked file, in hexadecimal, if known."""
    sha1: str | None = None
    """Likewise the SHA-1."""


def fetch(
    file: RemoteFile,
    directory: Path,
    *,
    progress: bool | None = None,
    lock_timeout: float = 3600.0,
    image: str | None = None,
) -> Path:
    """Download a file to ``directory``, verified; returns its path.

    A file that is there already is returned as it is, without any access to
    the network. Of several processes one downloads; the others wait for it,
    ``lock_timeout`` seconds at most (then TimeoutExpired). ``progress``: show a
    bar, by default if stderr is a terminal. ``image``: the catalogue's name, for
    messages. ImageError says what went wrong and what to do.

    ``PANDALITE_IMAGE_MIRROR``, base URLs separated by spaces, is tried first;
    ``PANDALITE_OFFLINE=1`` forbids all but ``file://`` URLs.
    """
    _check_name(file.name)
    final = Path(directory) / file.name
    if os.path.isfile(final):
        return final
    sources = _sources(file)
    job = _Download(file, final, image or file.name, progress)
    if os.environ.get("PANDALITE_OFFLINE", "") not in ("", "0"):
        sources = [source for source in sources if source.url.startswith("file:")]
        if not sources:
            raise ImageError(
                f"{file.name} is not on this host and PANDALITE_OFFLINE forbids to download "
                f"it: {job.by_hand()}"
            )
    if not sources:
        raise ImageError(f"nothing is known about where to get {file.name}: {job.by_hand()}")
    cache.make_directory(final.parent)
    with cache.lock(final.with_name(f"{file.name}.lock"), lock_timeout):
        if not os.path.isfile(final):  # another process was first
            job.run(sources)
    return final


def _check_name(name: str) -> None:
    plain = name.isprintable() and name == name.strip() and not set(name) & set("/\\")
    ours = name.endswith((".part", ".part.json", ".lock"))
    if not name or name.startswith(".") or not plain or ours or len(os.fsencode(name)) > 200:
        raise ImageError(
            f"refusing to download to a file named {name!r}: it must be a plain name of at most "
            "200 bytes that has no directory in it, does not begin with a dot and does not end "
            "with .part, .part.json or .lock; correct the entry in the catalogue"
        )


class _Source:
    """One URL and how it went so far."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.packing = unpack.packing(urlsplit(url).path, name)
        self.failures = 0
        self.reached = 0  # the most that was received of it when failures was last reset
        self.ready = 0.0  # not to be tried before
        self.restarted = False


def _sources(file: RemoteFile) -> list[_Source]:
    """All places of a file, without repetition: mirrors first."""
    for url in file.urls:
        _check_url(url, f"the entry of {file.name} in the catalogue")
    own = quote(file.name)
    names = [urlsplit(url).path.rpartition("/")[2] or own for url in file.urls] or [own]
    urls = []
    for base in os.environ.get("PANDALITE_IMAGE_MIRROR", "").split():
        _check_url(base, "PANDALITE_IMAGE_MIRROR")
        urls += [f"{base.rstrip('/')}/{name}" for name in names]
    return [_Source(url, file.name) for url in dict.fromkeys([*urls, *file.urls])]


def _check_url(url: str, where: str) -> None:
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0
        if parts.scheme == "file":
            good = parts.netloc in ("", "localhost") and parts.path.startswith("/")
        good = good and parts.scheme in ("http", "https", "file") and url.isprintable()
    except ValueError:
        raise ImageError(f"{url!r} is not a URL; correct {where}") from None
    if not good:
        raise ImageError(f"{shown(url)!r} is no http://, https:// or file:/// URL; correct {where}")


class _Download:
    """One download, under the lock."""

    def __init__(self, file: RemoteFile, final: Path, image: str, progress: bool | None) -> None:
        self.file = file
        self.final = final
        self.image = image
        self.progress = progress
        self.part = Part(final)
        self.hashed = bool(file.sha256 or file.sha1)

    def by_hand(self) -> str:
        """How to get the file without us."""
        facts = {"sha256": self.file.sha256, "sha1": self.file.sha1, "size": self.file.size}
        known = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)
        return (
            f"put the file at {self.final}{f' ({known})' if known else ''}; "
            "where there is a network, `python -m pandalite.qcows fetch "
            f"{shlex.quote(self.image)} --to DIR` fetches it; or set PANDALITE_IMAGE_MIRROR to the "
            "URL of a directory that has it"
        )

    def run(self, sources: list[_Source]) -> None:
        """Try the sources until one has given the file."""
        if os.path.lexists(self.final):
            raise ImageError(f"{self.final} is in the way and is no file: delete it")
        failures: dict[str, Failed | Bad] = {}
        queue = deque(sources)
        try:
            self.part.open()
            while queue:
                source = queue.popleft()
                time.sleep(max(0.0, source.ready - time.monotonic()))
                before = self.part.size
                try:
                    self._attempt(source)
                    return
                except Bad as error:
                    failures[source.url] = error
                    _log.info("%s: %s", shown(source.url), error)
                    patched = self.part.patched
                    self.part.delete()
                    if patched and not source.restarted:  # the pieces may not have fitted
                        source.restarted = True
                        queue.appendleft(source)
                except Failed as error:
                    failures[source.url] = error
                    _log.info("%s: %s", shown(source.url), error)
                    self._fail(source, error, queue, self.part.size > before)
        finally:
            self.part.close()
        self._give_up(failures)

    def _fail(self, source: _Source, error: Failed, queue: deque[_Source], gained: bool) -> None:
        """Note that an attempt failed, and put the source where it is its turn."""
        if not error.retry:
            return
        if self.part.size >= source.reached + PROGRESS:
            source.reached = self.part.size
            source.failures = 0
        source.failures += 1
        if source.failures >= ATTEMPTS:
            return
        if isinstance(error, Changed):
            self.part.delete()
            queue.appendleft(source)
            return
        pause = min(PAUSE * 2 ** (source.failures - 1), PAUSE_MAX) * random.uniform(0.8, 1.2)
        if error.after is not None:
            pause = max(pause, min(error.after, RETRY_AFTER_MAX))
        source.ready = time.monotonic() + pause
        # Elsewhere in the meantime, unless this one has begun to give it.
        (queue.appendleft if gained else queue.append)(source)

    def _give_up(self, failures: dict[str, Failed | Bad]) -> None:
        reasons = "; ".join(f"{shown(url)}: {error}" for url, error in failures.items())
        text = f"cannot download {self.file.name}: {reasons}. "
        errors = list(failures.values())
        if all(isinstance(error, Failed) and error.unreachable for error in errors):
            text += "Nothing can be reached: is this host offline, or does it need https_proxy? "
        if any(isinstance(error, Bad) for error in errors):
            text += "What was received was wrong and has been deleted. "
        elif self.part.size:
            text += "What was received is kept and the next try goes on from there. "
        raise ImageError(f"{text}To do: {self.by_hand()}") from errors[-1]

    def _attempt(self, source: _Source) -> None:
        """Request the file, or what is missing of it, once."""
        file, part = self.file, self.part
        reason = unpack.why_not(source.packing) if source.packing else ""
        if reason:
            raise Failed(reason, retry=False)
        part.open()
        known = part.version
        same = part.origin == (shown(source.url), source.packing)
        # From elsewhere, or with nothing to tell one content from another:
        # then only a hash finds out whether the pieces fit.
        fits = self.hashed or (same and (known.etag or known.modified))
        offset = part.size if fits and part.origin[1] == source.packing else 0
        if offset and offset == known.total:
            part.patched = True  # a process ended before it was looked at
        else:
            self._receive(source, offset, same)
        if source.packing:
            self._finish_packed(source.packing)
        else:
            check = self._check()
            with disk_errors(part.path), part.path.open("rb") as content:
                while data := content.read(1 << 20):
                    check.add(data)
            check.end()
            part.publish(part.path)
        if not self.hashed:
            _log.warning(
                "%s has no known hash: only its length was checked, against %s",
                self.final,
                "what is known" if file.size is not None else "what the server said",
            )

    def _receive(self, source: _Source, offset: int, same: bool) -> None:
        file, part = self.file, self.part
        limit = SIZE_MAX if file.size is None else file.size
        if source.packing and file.size is not None:
            limit += limit // 8 + (1 << 20)  # what cannot be packed gets a little longer
        with transfer.open_url(
            source.url,
            offset,
            part.version,
            same=same,
            hashed=self.hashed,
            packed=bool(source.packing) or bool(unpack.packing(urlsplit(source.url).path, "")),
        ) as body:
            part.patched = body.start > 0
            total = body.version.total
            if not source.packing and file.size is not None:
                if total not in (None, file.size):
                    raise Failed(f"it is {total} bytes long, expected are {file.size}", retry=False)
                total = file.size
            if total is None and file.size is None and not self.hashed:
                raise Failed(
                    "the server does not say how long the file is, and neither its size nor a "
                    "hash is known to check it by"
                )
            if total is not None and total > limit:
                raise Failed(f"it is {total} bytes long, at most {limit} are expected", retry=False)
            if body.start == 0:
                part.start(body.version, (shown(source.url), source.packing))
            self._check_space(source.packing, total)
            with _bar(self.progress, file.name, part.size, total) as advance:
                try:
                    while data := body.read():
                        if part.size + len(data) > limit:
                            raise Bad(f"it is longer than the {limit} bytes expected")
                        part.write(data)
                        advance(len(data))
                except Cut:
                    if total is None:
                        raise
            if total is None and part.size == 0:  # headers that were cut look like this
                raise Failed("the server sent nothing")
            if total is not None and part.size != total:
                what = "cut short" if part.size < total else "too long"
                raise Failed(f"the transfer was {what}: {part.size} of {total} bytes")

    def _check_space(self, packing: str, total: int | None) -> None:
        """ImageError unless there is room for what is still to be written."""
        part, size = self.part, self.file.size
        needed = max(0, (total or size or 0) - part.size)
        if packing:
            needed += size if size is not None else total or 0  # it is not smaller, at least
        free = shutil.disk_usage(self.final.parent).free
        if free < needed + SPACE_MARGIN:
            if part.size == 0:
                part.delete()
            raise ImageError(
                f"no room for {self.final}: {human(needed)} and a margin of "
                f"{human(SPACE_MARGIN)} are needed, {human(free)} are free; make room, or set "
                "PANDALITE_HOME to a directory on another disk"
            )

    def _check(self) -> Check:
        file = self.file
        return Check(file.size, {"sha256": file.sha256, "sha1": file.sha1})

    def _finish_packed(self, packing: str) -> None:
        """Unpack what was received to a temporary file, and check that."""
        part, size = self.part, self.file.size
        limit = size
        if limit is None:
            limit = min(SIZE_MAX, max(RATIO_FLOOR, part.size * RATIO_MAX))
        self._check_space(packing, part.size)
        temporary = self.final.with_name(f".{self.final.name}.unpacked.part")
        check = self._check()
        try:
            with disk_errors(temporary, size or 0):
                with contextlib.suppress(FileNotFoundError):
                    temporary.unlink()  # of a process that was killed
                with (
                    temporary.open("xb", buffering=0) as out,
                    _bar(self.progress, f"unpacking {self.file.name}", 0, size) as advance,
                ):
                    for data in unpack.unpacked(part.path, packing):
                        if check.length + len(data) > limit:
                            raise Bad(f"it unpacks to more than the {limit} bytes expected")
                        write_all(out.fileno(), data)
                        check.add(data)
                        advance(len(data))
            check.end()
            part.publish(temporary)
        except unpack.UnpackError as error:
            raise Bad(str(error)) from error
        except NoRoom:
            part.delete()
            raise
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def _bar(
    wanted: bool | None, label: str, done: int, total: int | None
) -> Iterator[Callable[[int], object]]:
    """Show a progress bar; gives the function that moves it on."""
    if wanted is None:
        wanted = sys.stderr is not None and sys.stderr.isatty()
    if not wanted:
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(
        desc=label, initial=done, total=total, unit="B", unit_scale=True, unit_divisor=1024
    ) as bar:
        yield bar.update
