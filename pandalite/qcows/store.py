"""The files of images that are downloaded: where they are, and whether they are right.

A file is looked for in our store (``images/<name>`` in the cache), then in an
existing ``~/.panda``, which is only read, then it is downloaded. What is known
of its content is checked once, then remembered by size and time.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ImageError
from . import cache, qcow2
from .catalogue import PANDA_DIRECTORY, Entry, FileFacts, Image
from .user_images import expand_home

if TYPE_CHECKING:
    from .download import RemoteFile

__all__ = [
    "Files",
    "MissingImageError",
    "check",
    "directory",
    "ensure",
    "image_at",
    "locate",
    "panda_directory",
    "remote_file",
    "remove",
]

#: Seconds to wait for another process that downloads the same image.
LOCK_TIMEOUT = 6 * 3600.0


class MissingImageError(ImageError, ValueError):
    """A file of an image is not there, and downloading it was not allowed."""


class Files(NamedTuple):
    """The files of an image: the disk, and all by name."""

    disk: Path
    by_name: dict[str, Path]


def directory(entry: Entry) -> Path:
    """Where the files of an image are kept, or will be."""
    return cache.images_dir() / entry.name


def panda_directory() -> Path:
    """Where PyPANDA keeps its images."""
    return Path(PANDA_DIRECTORY).expanduser()


def check(path: Path, facts: FileFacts, *, disk: bool, again: bool = False) -> None:
    """ImageError if a file is not what is known of it; ``again`` reads it in any case.

    A disk of which nothing is known must at least be a whole qcow2 image.
    """
    wrong = ""
    size = path.stat().st_size
    if facts.size is not None and size != facts.size:
        wrong = f"it has {size} bytes, not {facts.size}"
    for algorithm, expected in (("sha256", facts.sha256), ("sha1", facts.sha1)):
        if expected and not wrong:
            found = cache.file_digest(path, algorithm, again=again)
            if found != expected:
                wrong = f"its {algorithm} is {found}, not {expected}"
    if wrong:
        raise ImageError(f"{path} is not the file that is meant ({wrong})")
    if disk:
        qcow2.validate(path, deep=again)


def locate(entry: Entry, facts: FileFacts) -> Path | None:
    """Where a file of an image is, checked; None if it is nowhere.

    ImageError if it is in our store, or the user's own, and wrong. A wrong file
    in ``~/.panda`` is passed over: PANDA changes its images when it runs them.
    """
    disk = facts is entry.files[0]
    if facts.path is not None:
        if not facts.path.is_file():
            origin = f", which {entry.origin} names," if entry.origin else ""
            raise ImageError(
                f"{facts.path}{origin} is not there: put the image {entry.name} there again, "
                f"or correct qcow"
            )
        check(facts.path, facts, disk=disk)
        return facts.path
    ours = directory(entry) / facts.name
    if ours.is_file():
        try:
            check(ours, facts, disk=disk)
        except ImageError as error:
            raise ImageError(
                f"{error}: delete it with `python -m pandalite.qcows delete {entry.name}` and "
                "fetch it again"
            ) from error
        return ours
    theirs = panda_directory() / facts.name
    if entry.kind == "panda" and theirs.is_file():
        with contextlib.suppress(ImageError, OSError):
            check(theirs, facts, disk=disk)
            return theirs
    return None


def present(entry: Entry) -> Files | None:
    """The files of an image if all are there; ImageError if one is wrong."""
    found = {}
    for facts in entry.files:
        path = locate(entry, facts)
        if path is None:
            return None
        found[facts.name] = path
    with contextlib.suppress(OSError):  # the time of the last use, for the clean-up
        os.utime(directory(entry))
    return Files(found[entry.files[0].name], found)


def ensure(entry: Entry, *, download: bool = True, progress: bool | None = None) -> Files:
    """The files of an image, downloaded if they are missing.

    MissingImageError (a ValueError) if they are and ``download`` is False;
    ImageError if a file is wrong or cannot be got.
    """
    files = present(entry)
    if files is not None:
        return files
    if not download:
        missing = [f.name for f in entry.files if not locate(entry, f)]
        raise MissingImageError(
            f"{', '.join(missing)} of {entry.name} is not in {directory(entry)} and was not to be "
            f"downloaded: get it with `python -m pandalite.qcows fetch {entry.name}`"
        )
    from . import download as network

    for facts in entry.files:
        if locate(entry, facts) is None:
            path = network.fetch(
                remote_file(facts),
                directory(entry),
                progress=progress,
                lock_timeout=LOCK_TIMEOUT,
                image=entry.name,
            )
            if facts is entry.files[0]:
                _check_fetched(path)
    files = present(entry)
    if files is None:
        raise ImageError(f"the files of {entry.name} were deleted meanwhile: try again")
    return files


def _check_fetched(path: Path) -> None:
    """Of most disks no hash is known: what came must at least be a whole image."""
    try:
        qcow2.validate(path)
    except ImageError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise ImageError(
            f"what was downloaded is not a disk image and was deleted ({error})"
        ) from error


def remote_file(facts: FileFacts) -> RemoteFile:
    """What the download layer has to know of a file."""
    from .download import RemoteFile

    return RemoteFile(facts.name, facts.urls, facts.size, facts.sha256, facts.sha1)


def image_at(entry: Entry) -> Image:
    """The fields of an image, with the places where its files are, or will be."""
    if entry.kind == "tiny" or entry.image.extra_args is None:
        return entry.image
    places = {}
    for facts in entry.files:
        path = facts.path
        if path is None:
            with contextlib.suppress(ImageError):
                path = locate(entry, facts)
        places[facts.name] = path or directory(entry) / facts.name
    words = [expand_home(_placed(word, places)) for word in entry.words]
    return entry.image._replace(extra_args=shlex.join(words))


def _placed(word: str, places: dict[str, Path]) -> str:
    """Put the places of files into a word of the command line.

    They are named as ``~/.panda/NAME``, as PANDA does, or ``{NAME}``.
    """
    for name, path in places.items():
        # In a list of properties a comma has to be doubled.
        place = str(path).replace(",", ",,") if "=" in word else str(path)
        for mark in (f"{PANDA_DIRECTORY}/{name}", f"{{{name}}}"):
            at = word.find(mark)
            end = at + len(mark)
            if at >= 0 and (end == len(word) or word[end] == "," or mark.endswith("}")):
                return word[:at] + place + word[end:]
    return word


def remove(entry: Entry) -> int:
    """Delete the downloaded files of an image; returns how many there were.

    The user's own files and those in ``~/.panda`` stay.
    """
    where = directory(entry)
    count = 0
    if not where.is_dir():
        return 0
    for lock in where.glob("*.lock"):
        with cache.lock(lock, 0):  # TimeoutExpired while it is being downloaded
            pass
    for facts in entry.files:
        for path in where.glob(f"{facts.name}*"):
            with contextlib.suppress(OSError):
                path.unlink()
                count += path.name == facts.name
    cache.remove_leftovers(where)
    with contextlib.suppress(OSError):
        where.rmdir()
    return count
