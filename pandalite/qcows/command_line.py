"""The command line that runs an image outside of pandalite, as PyPANDA prints it."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from pathlib import Path

from ..errors import ImageError
from . import cache, overlay, qcow2
from .catalogue import Entry
from .lookup import entry as find
from .manager import Qcows

__all__ = ["command_line", "remove_work_disk"]


def _program(arch: str) -> str:
    """The QEMU program for an architecture, by its full path if it is installed."""
    for name in (f"panda-system-{arch}", f"qemu-system-{arch}"):
        found = shutil.which(name)
        if found:
            return found
    print(
        f"note: neither panda-system-{arch} nor qemu-system-{arch} is installed; pandalite "
        "itself does not need them",
        file=sys.stderr,
    )
    return f"qemu-system-{arch}"


def command_line(name: str) -> str:
    """A command line that runs an image from its snapshot, on this terminal.

    The snapshot of a tiny guest fits the QEMU that pandalite is built from: a
    QEMU of another series may refuse it. An image that was downloaded, or is the
    user's, or a guest of ours that has a disk, is run on an overlay, so that it
    stays as it is; what the guest changes stays in the overlay until ``delete``.
    """
    entry = find(name)
    qcow = Qcows.get_qcow(name)
    snapshot = True
    if entry.kind != "tiny" or entry.disk:
        qcow, snapshot = _work_disk(entry, Path(qcow))
    image = Qcows.get_qcow_info(name)
    arguments = [_program(str(image.arch))]
    if entry.disk:
        file = qcow.replace(",", ",,")
        arguments += ["-drive", f"file={file},if={entry.disk}"]
    else:
        arguments.append(qcow)
    arguments += ["-m", str(image.default_mem)]
    extra = shlex.split(image.extra_args or "")
    at = 0
    while at < len(extra):
        if extra[at] == "-display" and extra[at + 1 : at + 2] == ["none"]:
            arguments.append("-nographic")
            at += 2
        else:
            arguments.append(extra[at])
            at += 1
    if snapshot:
        arguments += ["-loadvm", str(image.snapshot)]
    text = shlex.join(arguments)
    if sys.stdout.isatty():  # shorter to read; a script needs the whole path
        user = str(Path.home())
        text = text.replace(f" {user}/", " ~/")
    return text


def _work_path(entry: Entry) -> Path:
    return cache.home() / "work" / f"{entry.name}.qcow2"


def _work_disk(entry: Entry, base: Path) -> tuple[str, bool]:
    """The overlay for runs by hand, made if it is missing; whether it has the snapshot."""
    path = _work_path(entry)
    try:
        info = qcow2.validate(path)
        good = info.backing_file == str(base.absolute())
    except ImageError:
        good = False
    if not good:
        with cache.atomic_file(path) as partial:
            overlay.create_overlay(partial, base)
        info = qcow2.validate(path)
    return str(path), entry.image.snapshot is not None and info.has_snapshot(entry.image.snapshot)


def remove_work_disk(entry: Entry) -> None:
    """Delete the overlay for runs by hand."""
    with contextlib.suppress(OSError):
        _work_path(entry).unlink()
