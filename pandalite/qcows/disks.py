"""The disk that ``Panda(generic=...)`` starts an image from."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from . import cache, roots, store, tiny
from .catalogue import Entry

__all__ = ["disk_of", "is_shared"]

#: Descriptors of directories this process uses; they are open until it ends.
_held: dict[Path, int] = {}


def disk_of(
    entry: Entry,
    libpanda_path: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
) -> Path:
    """The disk of an image with its snapshot, made or downloaded if it is missing.

    It is shared: run on :func:`pandalite.qcows.overlay.private_disk`. The clean-up
    of the cache leaves it alone as long as this process lives.
    """
    while True:
        disk = _made(entry, libpanda_path, download)
        hold(disk)
        if disk.exists():  # else it was cleaned up just before it was marked
            return disk


def _made(entry: Entry, libpanda_path: str | os.PathLike[str] | None, download: bool) -> Path:
    arch = entry.image.arch
    assert arch is not None
    if entry.kind == "tiny":
        ensure_guest(entry, download)
        return tiny.root_image(entry.guest, libpanda_path)
    files = store.ensure(entry, download=download)
    for path in files.by_name.values():
        hold(path)
    if entry.image.snapshot is None:
        return files.disk
    from .._bindings.loader import find_library

    return roots.root_disk(entry, files, find_library(arch, libpanda_path))


def ensure_guest(entry: Entry, download: bool = True) -> None:
    """Have the files of a tiny guest here, if they can be downloaded from anywhere."""
    from ..errors import ImageError

    try:
        tiny.find_guest(entry.guest)
    except ImageError:
        from . import guests  # brings archives along: only where it is needed

        guests.ensure_guest(entry, download=download)


def hold(path: Path) -> None:
    """Keep the clean-up from deleting a file of the cache while this process lives."""
    directory = path.parent
    if directory not in _held and cache.images_dir() in directory.parents:
        handle = cache.hold(directory)
        if handle is not None:
            _held[directory] = handle


def is_shared(path: Path) -> bool:
    """Whether a disk is in the cache or in ``~/.panda``, so must stay as it is."""
    with contextlib.suppress(OSError):
        real = path.resolve()
        if real.name.startswith("."):  # it is being made
            return False
        places = [cache.images_dir(), store.panda_directory()]
        return any(place.resolve() in real.parents for place in places)
    return False
