"""Copy a directory into the running guest, by way of a CD-ROM.

The directory becomes an ISO image, which is put into the guest's CD drive,
mounted, copied and taken out again. The guest needs a CD drive, the isofs file
system and a shell with mount, cp and mkdir; busybox is enough.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

from .errors import ConsoleError, MachineError, PandaError, StateError
from .iso9660 import make_iso
from .utils import progress, warn

__all__ = ["CopyToGuestError", "copy_to_guest"]

_MOUNT_TRIES = 10
_MOUNT_DELAY = 1.0  # seconds; the guest needs some to notice the new medium
# Where the drive may be. /dev/cdrom is made by udev, which small guests lack.
_DEVICES = "/dev/cdrom /dev/sr0 /dev/sr1 /dev/hdc /dev/hdd /dev/scd0"
_DEFAULT_DRIVE = "ide1-cd0"


class CopyToGuestError(PandaError, RuntimeError):
    """A step of copying a directory into the guest failed."""


class _Machine(Protocol):
    """What is needed of a Panda."""

    def run_serial_cmd(self, cmd: str, *, timeout: float | None = ...) -> str | None:
        """Run a shell command in the guest; its output, None if aborted."""

    def run_monitor_cmd(self, cmd: str) -> str | None:
        """Run a monitor command; its output."""


class _Aborted(Exception):
    """The run ends; whoever copies stops quietly."""


def copy_to_guest(
    panda: _Machine,
    copy_directory: str | os.PathLike[str],
    iso_name: str | os.PathLike[str] | None = None,
    absolute_paths: bool = False,
    setup_script: str = "setup.sh",
    timeout: float | None = None,
    cdrom: str | None = None,
) -> str | None:
    """Copy a directory into the guest and run its setup script.

    In the guest the directory gets its own name, below the shell's current
    directory (or its absolute host path, with ``absolute_paths``). Modes,
    symbolic links and times are kept; the files belong to root.

    Args:
        panda: runs the commands (``run_serial_cmd``, ``run_monitor_cmd``).
        copy_directory: directory on the host.
        iso_name: keep the image under this name; by default it is temporary.
        absolute_paths: use the host's absolute path in the guest.
        setup_script: run this file of the directory at last, if there is one.
        timeout: seconds for each command in the guest; None: the console's
            default.
        cdrom: name of the drive in QEMU; by default the image's
            (``panda.cdrom``), else ``ide1-cd0``.

    Returns:
        The setup script's output, or None if there is none or the run ended.

    Raises:
        ImageError: the directory is missing or cannot be made an image of.
        CopyToGuestError: a step in the guest failed; the message holds the
            guest's words (a RuntimeError).
        MachineError: QEMU refused to change the medium, e.g. no such drive.
        TimeoutExpired: a command in the guest took too long.
    """
    directory = Path(copy_directory)
    resolved = Path(os.path.abspath(directory))
    guest_path = str(resolved) if absolute_paths else resolved.name
    if not guest_path.strip("/"):
        raise StateError(f"cannot copy {str(directory)!r} to the guest: it has no name")
    if re.search(r"[\0-\x1f\x7f]", guest_path):
        raise StateError(f"cannot copy {guest_path!r} to the guest: control characters in the name")
    drive = cdrom or getattr(panda, "cdrom", None) or _DEFAULT_DRIVE
    private: str | None = None
    if iso_name is None:
        private = tempfile.mkdtemp(prefix="pandalite-iso-")
        image = os.path.join(private, "copy.iso")
    else:
        image = os.path.abspath(os.fspath(iso_name))
    try:
        progress(f"creating ISO {image}...")
        make_iso(directory, image)
        return _Copy(panda, drive, timeout).run(resolved, guest_path, image, setup_script)
    except _Aborted:
        return None
    finally:
        if private is not None:
            # QEMU may still hold the file open: it keeps the contents as long.
            shutil.rmtree(private, ignore_errors=True)


class _Copy:
    """One copy: where to, and the steps."""

    def __init__(self, panda: _Machine, drive: str, timeout: float | None) -> None:
        self._panda = panda
        self._drive = drive
        self._options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}

    def run(self, directory: Path, guest_path: str, image: str, setup_script: str) -> str | None:
        # `./` so that no name looks like an option, here or to a script.
        where = guest_path if guest_path.startswith("/") else f"./{guest_path}"
        target, mount_point = shlex.quote(where), shlex.quote(f"{where}.ro")
        self._step(f"mkdir -p {target} {mount_point}", "mkdir_ok", "make the directories")
        try:
            self._insert(image)
            self._mount(mount_point)
            self._step(f"cp -a {mount_point}/. {target}", "copyok", "copy the files")
        finally:
            self._take_out(mount_point)
        script = directory / setup_script
        if not setup_script or not script.is_file():
            return None
        path = shlex.quote(f"{where}/{setup_script}")
        progress(f"running {path} in the guest...")
        runner = "" if os.access(script, os.X_OK) else "sh "
        return self._guest(f"{runner}{path}")

    def _guest(self, command: str) -> str:
        output = self._panda.run_serial_cmd(command, **self._options)
        if output is None:
            raise _Aborted
        return output

    def _marked(self, command: str, marker: str) -> tuple[bool, str]:
        # The quotes keep the marker out of the command's echo.
        output = self._guest(f'{command} && echo {marker[:2]}""{marker[2:]}')
        return marker in output, output.replace(marker, "").strip()

    def _step(self, command: str, marker: str, what: str) -> None:
        done, output = self._marked(command, marker)
        if not done:
            raise CopyToGuestError(
                f"the guest could not {what}: {output or 'it gave no reason'} "
                f"(the command was: {command})"
            )

    def _mount(self, mount_point: str) -> None:
        # The loop itself succeeds in any case: $m tells whether a mount did.
        command = (
            f"m=; for d in {_DEVICES}; do test -b $d && mount -t iso9660 -o ro $d {mount_point} "
            '&& m=1 && break; done 2>&1; test "$m"'
        )
        output = ""
        for attempt in range(_MOUNT_TRIES):
            if attempt == 1:
                # Guests without udev do not load these by themselves.
                self._guest("modprobe -a sr_mod isofs 2>/dev/null; modprobe isofs 2>/dev/null")
            if attempt:
                time.sleep(_MOUNT_DELAY)
            done, output = self._marked(command, "mount_ok")
            if done:
                return
        raise CopyToGuestError(
            f"the guest could not mount the CD in {_MOUNT_TRIES} tries: "
            f"{output or 'it has none of the devices ' + _DEVICES}. It needs a CD drive and the "
            "modules sr_mod and isofs."
        )

    def _insert(self, image: str) -> None:
        if re.search(r"[\0-\x1f]", image):
            raise StateError(f"the image's name {image!r} has control characters")
        quoted = image.replace("\\", "\\\\").replace('"', '\\"')
        change = f'change {self._drive} "{quoted}"'
        output = self._monitor(change)
        if "locked" in output.lower() or "not open" in output.lower():
            # The guest holds the old medium: it is ours to take.
            self._monitor(f"eject -f {self._drive}")
            output = self._monitor(change)
        if output:
            raise MachineError(
                f"QEMU did not put the image into the CD drive {self._drive!r}: {output}. "
                f"{self._drives()}"
            )

    def _drives(self) -> str:
        try:
            listing = self._monitor("info block")
        except (PandaError, OSError):
            return "Name the drive with cdrom=..."
        removable = [
            line.split(":")[0].split(" (")[0]
            for line in re.split(r"\n(?=\S)", listing)
            if "removable" in line.lower()
        ]
        if not removable:
            return (
                "The machine has no drive for removable media: add one, e.g. "
                'extra_args="-drive id=cd0,if=ide,media=cdrom", and pass cdrom="cd0".'
            )
        return f"Pass cdrom=..., one of: {', '.join(removable)}"

    def _monitor(self, command: str) -> str:
        output = self._panda.run_monitor_cmd(command)
        if output is None:
            raise _Aborted
        return output.strip()

    def _take_out(self, mount_point: str) -> None:
        # Runs after failures too, so that its own must not hide the reason.
        try:
            self._guest(f"umount {mount_point} 2>/dev/null; rmdir {mount_point} 2>/dev/null")
            self._monitor(f"eject -f {self._drive}")
        except _Aborted:
            raise
        except (PandaError, ConsoleError) as exc:
            warn(f"cannot take the CD out of the guest's drive: {exc}")
