"""The tiny guests: their files, and the disk image with their ``root`` snapshot.

A tiny guest is a kernel and an initial RAM file system (made by
``tools/build_guest.py``). Its disk is empty: it is there to hold the ``root``
snapshot, taken at the shell prompt, which is made on first use by booting the
guest once in a child process, and kept in the cache.

The guests with a disk (flavour "debian") are the same, but for the disk: theirs is
an overlay of the one that was built, which stays as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ImageError
from . import cache, qcow2, roots
from .catalogue import SNAPSHOT, Image, debian_guests, kernel_args, tiny_facts, tiny_image

__all__ = ["BOOT_TIMEOUT", "DISK_SIZE", "TinyGuest", "find_guest", "remove_images", "root_image"]

#: Seconds after which making a snapshot is given up. A boot takes 4 to 7 s of
#: CPU time, but a busy machine may give us little of it.
BOOT_TIMEOUT = 240.0

#: Size in bytes of the empty disk of a tiny guest.
DISK_SIZE = 64 << 20

_PACKAGE = Path(__file__).resolve().parent.parent
_MANIFEST = "manifest.json"
_MANIFEST_FORMAT = 1


class TinyGuest(NamedTuple):
    """A tiny guest that is there: its files and what its manifest says."""

    arch: str
    directory: Path
    manifest: dict[str, Any]

    @property
    def library(self) -> str:
        """Architecture of the core library that runs it."""
        return str(self.manifest["run"].get("library", self.arch))

    @property
    def kernel(self) -> Path:
        """The kernel image."""
        return self.directory / "kernel"

    @property
    def initrd(self) -> Path:
        """The initial RAM file system."""
        return self.directory / "initrd.gz"

    @property
    def disk(self) -> Path | None:
        """The disk it starts from; None if everything is in the RAM file system."""
        return self.directory / "disk.qcow2" if "disk" in self.manifest["run"] else None

    @property
    def mem(self) -> str:
        """RAM size, as ``-m`` takes it."""
        return str(self.manifest["run"]["mem"])

    @property
    def prompt(self) -> str:
        """Regular expression of the root shell's prompt."""
        return str(self.manifest["run"]["prompt"])

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` prints it."""
        return str(self.manifest["kernel"]["release"])

    @property
    def machine_args(self) -> list[str]:
        """QEMU's arguments for this guest, besides RAM, disk and serial port."""
        return kernel_args(self.manifest["run"], str(self.kernel), str(self.initrd))

    @property
    def image(self) -> Image:
        """The catalogue entry, with the places of the files filled in."""
        run = self.manifest["run"]
        return tiny_image(self.arch, run, self.release, str(self.kernel), str(self.initrd))


def guest_directories(arch: str) -> list[Path]:
    """Where the files of a tiny guest are looked for, in order.

    ``$PANDALITE_GUESTS/<arch>``, what is in the package, the companion package
    ``pandalite_guests``, the user's store (:func:`store_directory`).
    """
    return list(_places(arch))


def _places(arch: str) -> Iterator[Path]:
    # One after the other: the companion is not looked for when the guest is here.
    given = os.environ.get("PANDALITE_GUESTS")
    if given:
        yield Path(given).expanduser() / arch
    yield _PACKAGE / "_lib" / "guests" / arch
    companion = _companion()
    if companion is not None:
        yield companion / "guests" / arch
    yield store_directory(arch)


def package_directory() -> Path:
    """Where this package is."""
    return _PACKAGE


def store_directory(arch: str) -> Path:
    """Where a guest that was fetched, built or imported by this user is kept."""
    return cache.home() / "guests" / arch


def _companion() -> Path | None:
    """The directory of the installed companion package; it is not imported."""
    import importlib.util

    try:
        spec = importlib.util.find_spec("pandalite_guests")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def is_here(arch: str) -> bool:
    """Whether the files of a tiny guest are anywhere; they may be damaged."""
    return any((directory / _MANIFEST).exists() for directory in _places(arch))


def find_guest(arch: str) -> TinyGuest:
    """Find the files of an architecture's tiny guest.

    Looks where :func:`guest_directories` says. ImageError, with what to do,
    when they are nowhere or not whole.
    """
    tiny_facts(arch)  # raises for an architecture that has none
    places = []
    for directory in _places(arch):
        if (directory / _MANIFEST).exists():
            return load_guest(arch, directory)
        places.append(directory)
    looked = ", ".join(map(str, places))
    if arch in debian_guests():
        raise ImageError(
            f"the guest {arch} is not here (looked in {looked}): build it in a checkout of "
            "pandalite, on a Debian host with a mirror, which takes minutes (python -m "
            f"pandalite.qcows build {arch}, or python tools/build_guest.py {arch}), import it "
            "(python -m pandalite.qcows import), or set PANDALITE_GUESTS to a directory that has it"
        )
    raise ImageError(
        f"the tiny guest for {arch} is not here (looked in {looked}): "
        "install the package pandalite-guests, build it with `make guests` in a checkout of "
        "pandalite, import it (python -m pandalite.qcows import), or set PANDALITE_GUESTS to a "
        "directory that has it"
    )


def load_guest(arch: str, directory: Path) -> TinyGuest:
    """The tiny guest in a directory; ImageError if it is not whole."""
    command = f"python tools/build_guest.py {arch}" if arch in debian_guests() else "make guests"
    remedy = f"build it again with `{command}`, or delete {directory}"
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != _MANIFEST_FORMAT:
            raise ImageError(
                f"the guest in {directory} is of format {manifest['format']}, this version of "
                f"pandalite needs {_MANIFEST_FORMAT}: {remedy}"
            )
        if manifest["arch"] != arch:
            raise ImageError(f"{directory} holds a guest for {manifest['arch']}: {remedy}")
        guest = TinyGuest(arch, directory, manifest)
        for file in filter(None, (guest.kernel, guest.initrd, guest.disk)):
            if file.stat().st_size != manifest["files"][file.name]["size"]:
                raise ImageError(f"{file} is not whole: {remedy}")
        _ = guest.image  # fails when a fact is missing
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"the guest in {directory} is damaged ({error!r}): {remedy}") from error
    return guest


def _key(guest: TinyGuest, library: Path) -> str:
    parts = {
        "guest": {n: f["sha256"] for n, f in guest.manifest["files"].items()},
        "core": cache.file_sha256(library),
        # Without the files' places: they may move.
        "machine": kernel_args(guest.manifest["run"], "kernel", "initrd"),
        "mem": guest.mem,
        "disk": DISK_SIZE,
    }
    if guest.disk is not None:
        # The overlay has the path of what it lies on.
        parts["disk"] = [guest.manifest["run"]["disk"], str(guest.disk.absolute())]
    return roots.key(parts)


def root_path(guest: TinyGuest, library: Path) -> Path:
    """Where the disk image of a guest with a given core library is, or will be."""
    return cache.images_dir() / f"tiny-{guest.arch}-{_key(guest, library)}" / "root.qcow2"


def root_image(
    arch: str,
    libpanda_path: str | os.PathLike[str] | None = None,
    timeout: float = BOOT_TIMEOUT,
) -> Path:
    """The disk image of a tiny guest with its ``root`` snapshot; made if missing.

    The image is shared by all processes: run on a copy of it
    (``overlay.private_disk``). Making it takes about 7 s: the guest is booted
    in a child process, for at most ``timeout`` seconds; other processes that
    want the same image wait for it.

    Raises ImageError if the guest is not there or did not reach its prompt,
    CoreLibraryError if the core library is missing, and TimeoutExpired if
    another process does not get done.
    """
    from .._bindings.loader import find_library

    guest = find_guest(arch)
    library = find_library(guest.library, libpanda_path)

    def fill(partial: Path) -> None:
        if guest.disk is None:
            qcow2.create(partial, DISK_SIZE)
        else:
            qcow2.create_on_top(partial, guest.disk)
        roots.boot(_request(guest, library, partial, timeout), arch, timeout)

    return roots.make(f"tiny-{arch}", root_path(guest, library), fill, timeout)


def _request(guest: TinyGuest, library: Path, disk: Path, timeout: float) -> dict[str, Any]:
    return {
        "arch": guest.library,
        "library": str(library),
        "qcow": str(disk),
        "interface": guest.manifest["run"].get("disk", ""),
        "mem": guest.mem,
        "prompt": guest.prompt,
        "extra_args": guest.machine_args,
        "snapshot": SNAPSHOT,
        "timeout": timeout,
    }


def remove_images(arch: str) -> int:
    """Delete the cached disk images of a tiny guest; returns how many there were."""
    return roots.remove(f"tiny-{arch}")
