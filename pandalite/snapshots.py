"""The monitor, and snapshots of the machine (C: ``panda/monitor.h``)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from ._bindings.enums import PandaStatus
from ._core import PandaCore
from .errors import SnapshotError, SnapshotMismatchError, StateError, UnknownSnapshotError
from .utils import blocking, warn


class Snapshots(PandaCore):
    """The part of Panda that runs monitor commands and reverts the machine."""

    _warned_async_revert = False

    def queue_async(self, f: Callable[[], Any], internal: bool = False) -> None:
        """See :class:`pandalite.lifecycle.Lifecycle`."""
        raise NotImplementedError

    @blocking
    def run_monitor_cmd(self, cmd: str) -> str:
        """Run a command of QEMU's monitor and return what it prints.

        Raises:
            StateError: called in a callback, or while the machine is not run.
        """
        self._check_process()
        output = ctypes.c_char_p()
        self._check(self.libpanda.panda_monitor_run(cmd.encode(), output))
        text = (output.value or b"").decode(errors="replace")
        self.libpanda.panda_free(ctypes.cast(output, ctypes.c_void_p))
        return text.replace("\r\n", "\n").strip()

    @blocking
    def revert_sync(self, snapshot_name: str) -> str:
        """Load a snapshot and go on from there.

        Returns:
            "", as PyPANDA does on success.

        Raises:
            UnknownSnapshotError: no snapshot of that name (a ValueError).
            SnapshotMismatchError: made by a machine of another shape (a
                RuntimeError).
            SnapshotError: it could not be loaded; the machine is stopped.
        """
        self._check_process()
        self._revert(snapshot_name)
        return ""

    def _revert(self, name: str) -> None:
        status = self.libpanda.panda_snapshot_load(name.encode())
        if status == PandaStatus.ERR_SNAPSHOT:
            raise self._snapshot_error(name)
        self._check(status)
        if self.serial_console is not None:
            self.serial_console.reset()

    def _snapshot_error(self, name: str) -> SnapshotError:
        text = str(self._error(PandaStatus.ERR_SNAPSHOT))
        if "does not have the requested snapshot" in text or "do not have the requested" in text:
            known = self.snapshot_names()
            there = f"there are: {', '.join(known)}" if known else "there are none"
            return UnknownSnapshotError(
                f"the image does not have the requested snapshot {name!r}; {there}"
            )
        if "Length mismatch" in text or "size mismatch" in text.lower():
            return SnapshotMismatchError(
                f"snapshot {name!r} was made by a machine with another amount of RAM or other "
                f"devices (this one has mem={self.mem}): {text}"
            )
        return SnapshotError(f"snapshot {name!r}: {text}")

    def snapshot_names(self) -> list[str]:
        """Names of the snapshots in the machine's images."""
        names = ctypes.c_char_p()
        self._check(self.libpanda.panda_snapshot_list(names))
        text = (names.value or b"").decode(errors="replace")
        self.libpanda.panda_free(ctypes.cast(names, ctypes.c_void_p))
        return text.split("\n")[:-1]

    def revert_async(self, snapshot_name: str) -> None:
        """Ask for a snapshot to be loaded soon; deprecated, use revert_sync.

        A failure ends the run with the exception revert_sync would raise.
        """
        if not Snapshots._warned_async_revert:
            Snapshots._warned_async_revert = True
            warn("revert_async is deprecated: queue a function that calls revert_sync")
        self.queue_async(lambda: self._revert(snapshot_name), internal=True)

    def snap(self, snapshot_name: str) -> None:
        """Save a snapshot soon; the guest goes on afterwards.

        A failure ends the run with a SnapshotError.
        """
        self.queue_async(lambda: self._save(snapshot_name), internal=True)

    @blocking
    def snap_sync(self, snapshot_name: str) -> None:
        """Save a snapshot now; the guest goes on afterwards.

        Raises:
            SnapshotError: it could not be saved, e.g. no writable qcow2 disk.
        """
        self._save(snapshot_name)

    def _save(self, name: str) -> None:
        status = self.libpanda.panda_snapshot_save(name.encode())
        if status == PandaStatus.ERR_SNAPSHOT:
            raise SnapshotError(
                f"snapshot {name!r} could not be saved: {self._error(status)}. Snapshots need a "
                "writable qcow2 disk with room on the host's file system."
            )
        self._check(status)

    def delvm(self, snapshot_name: str) -> None:
        """Delete a snapshot soon."""
        self.queue_async(lambda: self._delete(snapshot_name), internal=True)

    @blocking
    def delvm_sync(self, snapshot_name: str) -> None:
        """Delete a snapshot now.

        Raises:
            UnknownSnapshotError: there is none of that name.
        """
        self._delete(snapshot_name)

    def _delete(self, name: str) -> None:
        status = self.libpanda.panda_snapshot_delete(name.encode())
        if status == PandaStatus.ERR_SNAPSHOT:
            raise self._snapshot_error(name)
        self._check(status)

    @blocking
    def copy_to_guest(
        self,
        copy_directory: str,
        iso_name: str | None = None,
        absolute_paths: bool = False,
        setup_script: str = "setup.sh",
        timeout: float | None = None,
        cdrom: str | None = None,
    ) -> None:
        """Copy a host directory into the guest, through its CD drive.

        See :func:`pandalite.copy_to_guest.copy_to_guest`.
        """
        # On use only: it brings the ISO writer along.
        from .copy_to_guest import copy_to_guest

        if self.serial_console is None:
            raise StateError("copy_to_guest needs the serial console: give expect_prompt=")
        copy_to_guest(
            self,  # type: ignore[arg-type]
            copy_directory,
            iso_name=iso_name,
            absolute_paths=absolute_paths,
            setup_script=setup_script,
            timeout=timeout,
            cdrom=cdrom or self.cdrom,
        )
