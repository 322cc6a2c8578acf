"""Tiny guests into the user's store: downloaded as an archive, or built in a checkout."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import ImageError
from . import archive, cache, store, tiny
from .catalogue import Entry, debian_guests, guest_urls, tiny_facts

__all__ = ["archive_name", "build", "copy_guest", "ensure_guest", "fetch_guest"]


def archive_name(arch: str) -> str:
    """The file name of a guest that is downloaded, an archive as ``export`` makes it."""
    return f"pandalite-guest-{arch}.tar"


def ensure_guest(entry: Entry, *, download: bool = True) -> None:
    """Have a tiny guest here, if there is a place to download it from.

    Where there is none, nothing is done: who looks for the guest tells what to do.
    """
    there = guest_urls() or os.environ.get("PANDALITE_IMAGE_MIRROR")
    if download and there and not tiny.is_here(entry.guest):
        fetch_guest(entry)


def fetch_guest(entry: Entry, progress: bool | None = None) -> Path:
    """Have a tiny guest here: the one that is, or download it; returns its directory."""
    arch = entry.guest
    if not tiny.is_here(arch):
        cache.make_directory(cache.home() / "guests")
        with cache.lock(cache.home() / "guests" / f"{arch}-fetch.lock", store.LOCK_TIMEOUT):
            if not tiny.is_here(arch):  # another process was first
                _download(entry, progress)
    return tiny.find_guest(arch).directory


def _download(entry: Entry, progress: bool | None) -> None:
    from . import download

    arch = entry.guest
    name = archive_name(arch)
    urls = tuple(f"{base.rstrip('/')}/{name}" for base in guest_urls())
    try:
        path = download.fetch(
            download.RemoteFile(name, urls),
            cache.home() / "downloads",
            progress=progress,
            lock_timeout=store.LOCK_TIMEOUT,
            image=entry.name,
        )
    except ImageError as error:
        raise ImageError(
            f"the {entry.flavour} guest {arch} is not on this host, and it could not be "
            f"downloaded: {error}. Or "
            + ("install the package pandalite-guests, or " if entry.flavour == "tiny" else "")
            + f"run `python -m pandalite.qcows build {arch}` in a checkout"
        ) from error
    try:
        if entry.name not in archive.import_file(path):
            raise ImageError(f"{name} does not have {entry.name}: tell who runs the mirror")
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def copy_guest(guest: tiny.TinyGuest, to: Path) -> Path:
    """Copy a guest's directory to ``to/<arch>``, for ``PANDALITE_GUESTS`` elsewhere."""
    final = to / guest.arch
    partial = to / f".{guest.arch}.part"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(guest.directory, partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except OSError as error:
        raise ImageError(f"cannot write {final}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def build(arch: str, options: Sequence[str] = ()) -> Path:
    """Build a guest of ours with the tools of a checkout, into the user's store.

    ``options`` are further words for ``tools/build_guest.py``. ImageError if this is
    an installed package, which has no tools, or if the build fails; what it says
    goes to standard error.
    """
    tiny_facts(arch)
    tool = tiny.package_directory().parent / "tools" / "build_guest.py"
    if not tool.is_file():
        raise ImageError(
            "guests are built in a checkout of pandalite, and this is an installed package: "
            + ("" if arch in debian_guests() else "install pandalite-guests, fetch the guest, or ")
            + "import it"
        )
    guests = cache.make_directory(cache.home() / "guests")
    with tempfile.TemporaryDirectory(".part", f".{arch}-", guests) as temporary:
        made = Path(temporary) / arch
        command = [sys.executable, str(tool), arch, "--output", str(made), *options]
        done = subprocess.run(command, stdout=2, check=False)  # to standard error
        if done.returncode:
            raise ImageError(f"building the guest for {arch} failed, see above")
        tiny.load_guest(arch, made)
        return archive.install_guest(arch, made)
