"""Disks with a ``root`` snapshot at the shell prompt, made on first use.

A child process boots the machine to its prompt on a new disk (empty, or an
overlay of an image that stays as it is) and saves it. What is made is kept
under a name that says all it depends on: the image, the machine's arguments,
the size of RAM and the core library. When one of them changes it is made anew.

The images PANDA publishes have a ``root`` snapshot of their own. It is used when
this core can load it, which is tried once; else one is made by booting.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..arguments import split_extra_args
from ..errors import ImageError
from . import cache, overlay, qcow2, store
from .catalogue import SNAPSHOT, Entry

__all__ = ["GRACE", "KEEP", "boot", "make", "remove", "root_disk"]

#: Seconds a child process has to report that it gave up, before it is killed.
GRACE = 15.0

#: How many disks per image are kept: one is left over each time something it
#: depends on changes.
KEEP = 3

#: Seconds after which booting a disk image is given up: it may have a whole
#: distribution to start, on a machine that is busy.
BOOT_TIMEOUT = 900.0

_PACKAGE = Path(__file__).resolve().parent.parent


def key(parts: dict[str, Any]) -> str:
    """A name for all that a snapshot depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def usable(disk: Path, snapshot: str) -> bool:
    """Whether a finished disk is there. Marks it as used, for the clean-up."""
    try:
        if not qcow2.validate(disk).has_snapshot(snapshot):
            return False
    except ImageError:
        return False
    with contextlib.suppress(OSError):  # the cache may be read-only
        os.utime(disk.parent)
    return True


def make(
    family: str,
    final: Path,
    fill: Callable[[Path], None],
    timeout: float,
    snapshot: str = SNAPSHOT,
) -> Path:
    """Have a disk made by ``fill`` if it is not there, under the family's lock.

    ``fill`` is given the path to make it at; ImageError if the disk then has no
    snapshot of that name. Other processes that want the same
    disk wait, for ``timeout`` seconds at most. Old disks of the family, the
    directories ``<family>-*``, are deleted.
    """
    if usable(final, snapshot):
        return final
    with cache.lock(cache.images_dir() / f"{family}.lock", timeout + 2 * GRACE):
        if usable(final, snapshot):
            return final
        for directory in family_directories(family):
            cache.remove_leftovers(directory)
        with cache.atomic_file(final) as partial:
            fill(partial)
            if not qcow2.validate(partial).has_snapshot(snapshot):
                raise ImageError(
                    f"the guest of {family} was booted, but no snapshot was saved in {partial}"
                )
        _remove_old(family)
    return final


def family_directories(family: str) -> list[Path]:
    """The directories of the disks of one image."""
    found = cache.images_dir().glob(f"{family}-*")
    return [d for d in found if len(d.name) == len(family) + 17 and d.is_dir()]


def _remove_old(family: str) -> None:
    """Delete the disks that were not used for longest and are not in use now."""
    found = family_directories(family)
    for directory in sorted(found, key=lambda d: d.stat().st_mtime, reverse=True)[KEEP:]:
        if not cache.is_held(directory):
            remove_directory(directory)


def remove_directory(directory: Path) -> None:
    """Delete one disk that was made."""
    with contextlib.suppress(OSError):
        (directory / "root.qcow2").unlink(missing_ok=True)
        directory.rmdir()  # fails, rightly, if there is anything else in it


def remove(family: str) -> int:
    """Delete all disks of an image; returns how many there were."""
    found = [d for d in family_directories(family) if (d / "root.qcow2").exists()]
    for directory in found:
        remove_directory(directory)
    return len(found)


# Disks of PANDA's and the user's images


def root_path(entry: Entry, files: store.Files, library: Path) -> Path:
    """Where the disk of an image with a given core library is, or will be."""
    parts = {
        "disk": _content(entry, files, 0),
        # A moved image needs a new overlay: the overlay has its path.
        "place": str(files.disk.absolute()),
        "files": [_content(entry, files, n) for n in range(1, len(entry.files))],
        "core": cache.file_sha256(library),
        "machine": entry.words,
        "interface": entry.disk,
        "mem": entry.image.default_mem,
        "prompt": entry.image.prompt,
    }
    return cache.images_dir() / f"root-{entry.name}-{key(parts)}" / "root.qcow2"


def _content(entry: Entry, files: store.Files, number: int) -> str:
    """What stands for a file's content; cheap where it was checked already."""
    facts = entry.files[number]
    path = files.by_name[facts.name]
    if facts.sha1 and not facts.sha256:
        return cache.file_digest(path, "sha1")
    return cache.file_sha256(path)


def root_disk(
    entry: Entry,
    files: store.Files,
    library: Path,
    timeout: float = BOOT_TIMEOUT,
) -> Path:
    """The disk of an image with its snapshot at the prompt; made if it is missing.

    It is an overlay of the image, shared by all processes: run on a copy of it
    (:func:`pandalite.qcows.overlay.private_disk`). ImageError if the image's own
    snapshot cannot be loaded and the guest does not reach its prompt either.
    """
    snapshot = entry.image.snapshot or SNAPSHOT
    final = root_path(entry, files, library)

    def fill(partial: Path) -> None:
        reason = _take_over(entry, files, library, partial, snapshot)
        if not reason:
            return
        if not entry.image.prompt:
            raise ImageError(
                f"{reason}, and a new one cannot be made, because the prompt of the guest is "
                "not known: add prompt to its entry"
            )
        qcow2.create_on_top(partial, files.disk)
        try:
            boot(_request(entry, library, partial, snapshot, timeout), entry.name, timeout)
        except ImageError as error:
            raise ImageError(f"{reason}. Booting it for a new one failed: {error}") from error

    return make(f"root-{entry.name}", final, fill, timeout, snapshot)


def _take_over(
    entry: Entry, files: store.Files, library: Path, partial: Path, snapshot: str
) -> str:
    """Make the disk with the image's own snapshot; returns why not, "" if it worked."""
    if not any(s.name == snapshot for s in qcow2.list_snapshots(files.disk)):
        return f"the image {files.disk} has no snapshot {snapshot!r}"
    try:
        try:
            overlay.create_overlay(partial, files.disk)
        except overlay.OverlayUnsupported:
            cache.check_space(partial.parent, files.disk.stat().st_size, f"a copy of {files.disk}")
            copy = cache.private_copy(files.disk, partial.parent)
            copy.replace(partial)
        request = _request(entry, library, partial, snapshot, GRACE * 4)
        boot({**request, "load": True}, entry.name, GRACE * 4)
    except ImageError as error:
        return (
            f"the snapshot {snapshot!r} in {files.disk} cannot be used with this version of "
            f"QEMU ({error})"
        )
    return ""


def _request(
    entry: Entry, library: Path, disk: Path, snapshot: str, timeout: float
) -> dict[str, Any]:
    image = store.image_at(entry)
    return {
        "arch": image.arch,
        "library": str(library),
        "qcow": str(disk),
        "interface": entry.disk,
        "mem": image.default_mem,
        "prompt": image.prompt,
        "login": list(entry.login) if entry.login else None,
        "extra_args": split_extra_args(image.extra_args),
        "snapshot": snapshot,
        "timeout": timeout,
    }


# The child process


def boot(request: dict[str, Any], name: str, timeout: float) -> str:
    """Run :mod:`pandalite.qcows.make_root` in a child process; returns what it printed.

    ``name`` is for messages. ImageError, with the child's words, if it fails.
    """
    import subprocess

    if not sys.executable:
        raise ImageError("this Python does not know its own program, so it cannot start another")
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
            f"the {name} guest did not reach its prompt in {timeout:.0f} s, and the "
            "process that runs it does not answer"
        ) from None
    except BaseException:
        _end(child)
        raise
    text = output.decode(errors="replace").strip()
    if child.returncode:
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"{child.returncode}"
        raise ImageError(
            f"the snapshot of the {name} guest could not be made (the process that boots "
            f"it ended with {how}):\n{text[-2000:] or '(it said nothing)'}"
        )
    return text


def _end(child: Any) -> None:
    """Kill the child process with all it started."""
    import signal

    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.communicate()
