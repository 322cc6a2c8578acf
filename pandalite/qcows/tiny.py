"""The tiny guests: their files, and the disk image with their ``root`` snapshot.

A tiny guest is a kernel and an initial RAM file system (made by
``tools/build_guest.py``). Its disk is empty: it is there to hold the ``root``
snapshot, taken at the shell prompt, which is made on first use by booting the
guest once in a child process, and kept in the cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ImageError
from . import cache, qcow2
from .catalogue import SNAPSHOT, Image, kernel_args, tiny_facts, tiny_image

__all__ = ["BOOT_TIMEOUT", "DISK_SIZE", "TinyGuest", "find_guest", "remove_images", "root_image"]

#: Seconds after which making a snapshot is given up. A boot takes 4 to 7 s of
#: CPU time, but a busy machine may give us little of it.
BOOT_TIMEOUT = 240.0

#: Seconds a child process has to report that it gave up, before it is killed.
GRACE = 15.0

#: Size in bytes of the empty disk of a tiny guest.
DISK_SIZE = 64 << 20

#: How many disk images per architecture are kept: one is left over each time
#: the guest or the core library changes.
KEEP = 3

_PACKAGE = Path(__file__).resolve().parent.parent
_MANIFEST_FORMAT = 1


class TinyGuest(NamedTuple):
    """A tiny guest that is there: its files and what its manifest says."""

    arch: str
    directory: Path
    manifest: dict[str, Any]

    @property
    def kernel(self) -> Path:
        """The kernel image."""
        return self.directory / "kernel"

    @property
    def initrd(self) -> Path:
        """The initial RAM file system."""
        return self.directory / "initrd.gz"

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
    """Where the files of a tiny guest are looked for, in order."""
    given = os.environ.get("PANDALITE_GUESTS")
    places = [Path(given).expanduser() / arch] if given else []
    return [*places, _PACKAGE / "_lib" / "guests" / arch]


def find_guest(arch: str) -> TinyGuest:
    """Find the files of an architecture's tiny guest.

    Looks in ``$PANDALITE_GUESTS/<arch>`` and then in the installed package.
    ImageError, with what to do, when they are not there or not whole.
    """
    tiny_facts(arch)  # raises for an architecture that has none
    places = guest_directories(arch)
    for directory in places:
        if (directory / "manifest.json").exists():
            return _load_guest(arch, directory)
    raise ImageError(
        f"the tiny guest for {arch} is not here (looked in {', '.join(map(str, places))}): "
        "build it with `make guests` in a checkout of pandalite, or set PANDALITE_GUESTS to a "
        "directory that has it"
    )


def _load_guest(arch: str, directory: Path) -> TinyGuest:
    remedy = f"build it again with `make guests`, or delete {directory}"
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != _MANIFEST_FORMAT:
            raise ImageError(
                f"the guest in {directory} is of format {manifest['format']}, this version of "
                f"pandalite needs {_MANIFEST_FORMAT}: {remedy}"
            )
        if manifest["arch"] != arch:
            raise ImageError(f"{directory} holds a guest for {manifest['arch']}: {remedy}")
        guest = TinyGuest(arch, directory, manifest)
        for file in (guest.kernel, guest.initrd):
            if file.stat().st_size != manifest["files"][file.name]["size"]:
                raise ImageError(f"{file} is not whole: {remedy}")
        _ = guest.image  # fails when a fact is missing
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"the guest in {directory} is damaged ({error!r}): {remedy}") from error
    return guest


def _key(guest: TinyGuest, library: Path) -> str:
    """A name for all that a snapshot depends on."""
    import hashlib

    parts = {
        "guest": {n: f["sha256"] for n, f in guest.manifest["files"].items()},
        "core": cache.file_sha256(library),
        # Without the files' places: they may move.
        "machine": kernel_args(guest.manifest["run"], "kernel", "initrd"),
        "mem": guest.mem,
        "disk": DISK_SIZE,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


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
    (``cache.private_copy``). Making it takes about 7 s: the guest is booted
    in a child process, for at most ``timeout`` seconds; other processes that
    want the same image wait for it.

    Raises ImageError if the guest is not there or did not reach its prompt,
    CoreLibraryError if the core library is missing, and TimeoutExpired if
    another process does not get done.
    """
    guest = find_guest(arch)
    library = _library(arch, libpanda_path)
    final = root_path(guest, library)
    if _usable(final):
        return final
    with cache.lock(cache.images_dir() / f"tiny-{arch}.lock", timeout + 2 * GRACE):
        if _usable(final):
            return final
        for directory in cache.images_dir().glob(f"tiny-{arch}-*"):
            cache.remove_leftovers(directory)
        with cache.atomic_file(final) as partial:
            qcow2.create(partial, DISK_SIZE)
            _boot(guest, library, partial, timeout)
            if not qcow2.validate(partial).has_snapshot(SNAPSHOT):
                raise ImageError(
                    f"the {arch} guest was booted, but no snapshot was saved in {partial}"
                )
        _remove_old(arch)
    return final


def _library(arch: str, given: str | os.PathLike[str] | None) -> Path:
    from .._bindings.loader import find_library

    return find_library(arch, given)


def _usable(path: Path) -> bool:
    """Whether a finished image is there. Marks it as used, for the clean-up."""
    try:
        if not qcow2.validate(path).has_snapshot(SNAPSHOT):
            return False
    except ImageError:
        return False
    with contextlib.suppress(OSError):  # the cache may be read-only
        os.utime(path.parent)
    return True


def _remove_old(arch: str) -> None:
    """Delete the images of an architecture that were not used for longest."""
    found = cache.images_dir().glob(f"tiny-{arch}-*")
    for directory in sorted(found, key=lambda d: d.stat().st_mtime, reverse=True)[KEEP:]:
        _remove_image(directory)


def _remove_image(directory: Path) -> None:
    with contextlib.suppress(OSError):
        (directory / "root.qcow2").unlink(missing_ok=True)
        directory.rmdir()  # fails, rightly, if there is anything else in it


def remove_images(arch: str) -> int:
    """Delete the cached disk images of a tiny guest; returns how many there were."""
    found = list(cache.images_dir().glob(f"tiny-{arch}-*/root.qcow2"))
    for path in found:
        _remove_image(path.parent)
    return len(found)


def _boot(guest: TinyGuest, library: Path, disk: Path, timeout: float) -> None:
    """Boot a guest in a child process, which saves the snapshot to ``disk``."""
    import subprocess

    if not sys.executable:
        raise ImageError("this Python does not know its own program, so it cannot start another")
    request = {
        "arch": guest.arch,
        "library": str(library),
        "qcow": str(disk),
        "mem": guest.mem,
        "prompt": guest.prompt,
        "extra_args": guest.machine_args,
        "snapshot": SNAPSHOT,
        "timeout": timeout,
    }
    environment = dict(os.environ)
    # The child must find this package, however this process found it.
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(_PACKAGE.parent), *([inherited] if inherited else [])]
    )
    command = [sys.executable, "-m", "pandalite.qcows.make_root", json.dumps(request)]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        # A session of its own: Ctrl-C is for us, and we end the child.
        start_new_session=True,
    )
    try:
        # The child's own limit is `timeout`, and its message is the better one.
        output, _ = child.communicate(timeout=timeout + GRACE)
    except subprocess.TimeoutExpired:
        _end(child)
        raise ImageError(
            f"the {guest.arch} guest did not reach its prompt in {timeout:.0f} s, and the "
            "process that runs it does not answer"
        ) from None
    except BaseException:
        _end(child)
        raise
    if child.returncode:
        text = output.decode(errors="replace").strip()
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"{child.returncode}"
        raise ImageError(
            f"the snapshot of the {guest.arch} guest could not be made (the process that boots "
            f"it ended with {how}):\n{text[-2000:] or '(it said nothing)'}"
        )


def _end(child: Any) -> None:
    """Kill the child process with all it started."""
    import signal

    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.communicate()
