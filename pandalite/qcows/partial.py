"""A file that is being received: ``NAME.part``, and ``NAME.part.json`` of what it is a part.

Whoever uses these holds the lock of the file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import ImageError
from .transfer import Version

__all__ = ["Bad", "Check", "NoRoom", "Part", "disk_errors", "human", "write_all"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Bad(Exception):
    """What was received is not the file that was meant; the text says why."""


class NoRoom(ImageError):
    """The disk, or a quota or limit, is full."""


def human(size: int) -> str:
    """A number of bytes for messages."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 10 << shift:
            return f"{size / (1 << shift):.1f} {unit}"
    return f"{size} bytes"


@contextlib.contextmanager
def disk_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Make ImageError of errors of the disk; ``needed`` is how much there is to write."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            much = f"{human(needed)} are" if needed else "more room is"
            raise NoRoom(
                f"no room to write {path} ({error.strerror}): {much} needed in all; make room, "
                "or set PANDALITE_HOME to a directory on another disk"
            ) from error
        raise ImageError(
            f"cannot write {path}: {error.strerror or error}; check the directory, or set "
            "PANDALITE_HOME to one that can be written"
        ) from error


def write_all(handle: int, data: bytes) -> None:
    """Write all of it, also where the system takes it in pieces."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Part:
    """What was received of a file so far."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = final.with_name(f"{final.name}.part")
        self.size = 0
        self.version = Version()
        #: From where: the URL, and how the file is packed there.
        self.origin = ("", "")
        #: It was not received in one piece.
        self.patched = False
        self._note = final.with_name(f"{final.name}.part.json")
        self._handle = -1

    def open(self) -> None:
        """Find out what is there, or begin with nothing."""
        if self._handle >= 0:
            return
        with disk_errors(self.path):
            try:
                self._handle = self._try_open()
            except OSError as error:
                if error.errno != errno.ELOOP:  # it is a symbolic link
                    raise
            status = os.fstat(self._handle) if self._handle >= 0 else None
            # Never write to what may be somebody else's file.
            if status is None or not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                self.delete()
                self._handle = self._try_open()
                status = os.fstat(self._handle)
            self.size = status.st_size
            if self.size and not self._read_note():
                os.ftruncate(self._handle, 0)
                self.size = 0

    def _try_open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self.path, flags, 0o666)

    def _read_note(self) -> bool:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            handle = os.open(self._note, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                note = json.loads(file.read(64 << 10))
            texts = [note[key] for key in ("url", "packing", "etag", "modified")]
            total = note["total"]
            if all(type(t) is str for t in texts) and (total is None or type(total) is int):
                self.origin = (texts[0], texts[1])
                self.version = Version(texts[2], texts[3], total)
                return True
        return False

    def start(self, version: Version, origin: tuple[str, str]) -> None:
        """Begin anew, with a file of this version from there."""
        self.open()
        self.version, self.origin = version, origin
        note = {
            "url": origin[0],
            "packing": origin[1],
            "etag": version.etag,
            "modified": version.modified,
            "total": version.total,
        }
        with disk_errors(self.path, version.total or 0):
            # In this order: a kill may leave a part without a note, which is
            # nothing, but never one with the note of another.
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            self.size = 0
            with contextlib.suppress(FileNotFoundError):
                self._note.unlink()
            with self._note.open("x") as file:
                json.dump(note, file)

    def write(self, data: bytes) -> None:
        """Add what comes next; if there is no room, delete all. NoRoom then."""
        try:
            with disk_errors(self.path, self.version.total or 0):
                os.lseek(self._handle, self.size, os.SEEK_SET)
                write_all(self._handle, data)
        except NoRoom:
            self.delete()
            raise
        self.size += len(data)

    def publish(self, path: Path) -> None:
        """Give the finished file at ``path`` its final name, and end the part."""
        with disk_errors(self.final):
            _sync(path)  # else a crash of the host can leave an empty file of that name
            os.replace(path, self.final)
            _sync(path.parent)
        self.delete()

    def delete(self) -> None:
        """Delete what was received."""
        self._close()
        self.size = 0
        self.patched = False
        self.version, self.origin = Version(), ("", "")
        for path in (self.path, self._note):
            with disk_errors(path), contextlib.suppress(FileNotFoundError):
                path.unlink()

    def close(self) -> None:
        """End the use; what was received stays."""
        if self._handle >= 0 and self.size == 0:
            self.delete()
        self._close()

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class Check:
    """Takes the content of a file and tells whether it is the right one."""

    def __init__(self, size: int | None, digests: dict[str, str | None]) -> None:
        self.length = 0
        self._size = size
        self._expected = {name: value.lower() for name, value in digests.items() if value}
        # SHA-1 is what there is for old images; some systems want to be told.
        self._hashes = {
            name: hashlib.new(name, usedforsecurity=name != "sha1") for name in self._expected
        }

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self.length += len(data)
        for value in self._hashes.values():
            value.update(data)

    def end(self) -> None:
        """Raise Bad unless all that is known agrees."""
        if self._size not in (None, self.length):
            raise Bad(f"it is {self.length} bytes long, expected are {self._size}")
        for name, expected in self._expected.items():
            found = self._hashes[name].hexdigest()
            if found != expected:
                raise Bad(f"its {name} is {found}, expected is {expected}")
