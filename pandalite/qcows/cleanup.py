"""What is in the cache, and making it smaller: the command ``gc``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import struct
import time
from pathlib import Path
from typing import NamedTuple

from ..errors import ImageError, TimeoutExpired
from . import cache, user_images

__all__ = ["Item", "Result", "clean", "in_use", "items", "parse_size", "size_of"]

#: Seconds after which what an interrupted process left is deleted.
STALE = 24 * 3600.0

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Item(NamedTuple):
    """Something in the cache that can be deleted, and made or fetched again.

    ``kind`` is "snapshot" (a disk that was made), "image" (downloaded files),
    "guest" (a tiny guest) or "leftover". ``used`` is when it was used last.
    """

    kind: str
    path: Path
    size: int
    used: float


class Result(NamedTuple):
    """What a clean-up did: what it deleted, what it had to leave, the size now."""

    deleted: list[Item]
    kept: list[Item]
    size: int


def parse_size(text: str) -> int:
    """Bytes of a size such as ``10G``, ``500M`` or ``1.5g``; ValueError if it is none."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not found:
        raise ValueError(f"{text!r} is not a size: write for instance 10G, 500M or 0")
    return int(float(found[1]) * _UNITS[found[2]])


def size_of(path: Path) -> int:
    """Bytes that a file or directory takes on the disk."""
    total = 0
    for place in [path, *path.rglob("*")] if path.is_dir() else [path]:
        with contextlib.suppress(OSError):
            total += place.lstat().st_blocks * 512
    return total


def items() -> list[Item]:
    """What is in the cache, without leftovers; the longest unused first."""
    found = []
    for directory in _directories(cache.images_dir()):
        found.append(_item("snapshot" if _family(directory) else "image", directory))
    found += [_item("guest", directory) for directory in _directories(cache.home() / "guests")]
    return sorted(found, key=lambda item: item.used)


def _family(directory: Path) -> str | None:
    """The family (:func:`.roots.make`) of a disk that was made; None of anything else."""
    made = re.fullmatch(r"((tiny|root)-.+)-[0-9a-f]{16}", directory.name)
    return made[1] if made else None


def _directories(path: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        found = [p for p in path.iterdir() if p.is_dir() and not p.is_symlink()]
        return [p for p in found if not p.name.startswith(".")]
    return []


def _item(kind: str, path: Path) -> Item:
    used = 0.0
    for place in [path, *path.glob("*")]:
        with contextlib.suppress(OSError):
            status = place.lstat()
            used = max(used, status.st_mtime, 0 if place is path else status.st_atime)
    return Item(kind, path, size_of(path), used)


def leftovers() -> list[Item]:
    """Files of processes that were killed, old enough that nobody works on them."""
    before = time.time() - STALE
    found = []
    places = [*(cache.home() / "run").glob("*"), *cache.home().glob(".import-*")]
    where = [cache.images_dir(), *_directories(cache.images_dir())]
    for directory in [*where, *(cache.home() / n for n in ("guests", "digests", "downloads"))]:
        places += [*directory.glob("*.part"), *directory.glob("*.part.json")]
    for place in places:
        with contextlib.suppress(OSError):
            if place.lstat().st_mtime < before:
                found.append(Item("leftover", place, size_of(place), place.lstat().st_mtime))
    return found


def in_use(path: Path) -> bool:
    """Whether a process uses something in the cache.

    That is so if it has marked it (:func:`cache.hold`), or QEMU has a file in it
    open, or it is being made or downloaded.
    """
    if not path.is_dir():
        return _locked(path)
    if cache.is_held(path):
        return True
    family = _family(path)
    places = [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
    if any(_locked(place) for place in places):
        return True
    return family is not None and cache.is_held(path.with_name(f"{family}.lock"))


def _locked(path: Path) -> bool:
    """Whether a file has a lock of any kind: QEMU locks bytes of its images."""
    if cache.is_held(path):
        return True
    # struct flock of 64-bit Linux: type, whence, start, length, process.
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with path.open("rb") as file:
            answer = fcntl.fcntl(file.fileno(), fcntl.F_GETLK, wanted)
    except OSError:
        return False
    kind: int = struct.unpack("hhqqi4x", answer)[0]
    return kind != fcntl.F_UNLCK


def clean(max_size: int, *, dry_run: bool = False) -> Result:
    """Delete what was unused for longest until the cache takes at most ``max_size`` bytes.

    What is in use stays. Old leftovers go in any case. With ``dry_run`` nothing
    is deleted; the result says what would be.
    """
    deleted = []
    kept = []
    for item in leftovers():
        if in_use(item.path):
            kept.append(item)
        elif dry_run or _delete(item):
            deleted.append(item)
    found = items()
    total = sum(item.size for item in found)
    for item in found:
        if total <= max_size:
            break
        if in_use(item.path) or not (dry_run or _delete(item)):
            kept.append(item)
            continue
        deleted.append(item)
        total -= item.size
    return Result(deleted, kept, total)


def _delete(item: Item) -> bool:
    """Delete something, unless somebody begins to use it just now."""
    path = item.path
    if item.kind == "leftover":
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return not path.exists()
    name = _family(path) if item.kind == "snapshot" else f"delete-{path.name}"
    try:
        with cache.lock(cache.images_dir() / f"{name}.lock", 0):
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # Who marks it as in use from now on finds it gone.
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                gone = path.with_name(f".{path.name}.{os.getpid()}.part")
                path.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
                return not gone.exists()
            finally:
                os.close(handle)
    except (OSError, TimeoutExpired):
        return False


def delete_entry_file(name: str) -> bool:
    """Delete the user's own file of an image, if it has nothing else in it."""
    for path in user_images.files():
        with contextlib.suppress(ImageError):
            if list(user_images.read_file(path)) == [name]:
                path.unlink()
                return True
    return False
