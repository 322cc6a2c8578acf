"""Record the guest's execution, and replay it (C: ``panda/record.h``)."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from . import recordings
from ._bindings.enums import PandaRrMode, PandaStatus
from .errors import StateError
from .lifecycle import Lifecycle
from .serial import Serial
from .snapshots import Snapshots
from .utils import blocking


class RecordReplay(Lifecycle, Serial, Snapshots):
    """The part of Panda that records and replays."""

    def record(self, recording_name: str | PathLike[str], snapshot_name: str | None = None) -> None:
        """Begin to record what the guest does, at this moment of the run.

        The file, ``<recording_name>.plrec``, is complete after
        :meth:`end_record`; until then it is called ``*.part``. It holds the
        whole state of the machine: a replay needs nothing else.

        Args:
            recording_name: path of the file, with or without the suffix.
            snapshot_name: a snapshot of the disk image to begin from.

        Raises:
            StateError: the machine is recorded already, or replays.
            RecordingError: this machine cannot be recorded, or the file cannot
                be written.
            UnknownSnapshotError: there is no such snapshot.
        """
        path = os.fsencode(recordings.recording_path(recording_name))
        name = None if snapshot_name is None else snapshot_name.encode()
        status = self.libpanda.panda_record_begin(path, name)
        if status == PandaStatus.ERR_SNAPSHOT and snapshot_name is not None:
            raise self._snapshot_error(snapshot_name)
        self._check(status)

    def end_record(self) -> None:
        """End the recording and complete its file; the guest goes on.

        Raises:
            StateError: nothing is being recorded.
            RecordingError: the file could not be written; what there is of it
                ends in ``.part`` and can be replayed.
        """
        self._check(self.libpanda.panda_record_end())

    @blocking
    def record_cmd(
        self,
        guest_command: str,
        copy_directory: str | None = None,
        iso_name: str | None = None,
        setup_command: str | None = None,
        recording_name: str | PathLike[str] = "recording",
        snap_name: str | None = "root",
        ignore_errors: bool = False,
    ) -> str:
        """Record one command in the guest's shell, from its Enter to the next prompt.

        Args:
            guest_command: the command.
            copy_directory: directory to copy to the guest first.
            iso_name: see :meth:`copy_to_guest`.
            setup_command: run before, not recorded.
            recording_name: as for :meth:`record`.
            snap_name: snapshot to revert to first; None: none.
            ignore_errors: do not look at what the shell said.

        Returns:
            What the command printed.

        Raises:
            RuntimeError: the shell did not find the command, or cannot run it.
            Whatever :meth:`record` and :meth:`run_serial_cmd` raise.
        """
        if snap_name is not None:
            self.revert_sync(snap_name)
        if copy_directory is not None:
            self.copy_to_guest(copy_directory, iso_name)
        if setup_command is not None:
            self.run_serial_cmd(setup_command)
        self.type_serial_cmd(guest_command)
        self.record(recording_name)
        try:
            output = self.finish_serial_cmd()
        finally:
            self.end_record()
        for complaint in ("No such file or directory", "cannot execute binary file"):
            if not ignore_errors and output and complaint in output:
                raise RuntimeError(f"{guest_command!r} failed in the guest: {output.strip()}")
        return output or ""

    def recording_exists(self, name: str | PathLike[str]) -> bool:
        """Whether there is a recording of that name."""
        return recordings.recording_path(name).is_file()

    def run_replay(self, replaypfx: str | PathLike[str], *, allow_writes: bool = False) -> None:
        """Replay a recording to its end, or to :meth:`end_analysis`.

        Like :meth:`run`: callbacks registered before see the guest do again
        what it did, and they are gone afterwards. The machine must be created
        with the arguments of the one that was recorded; its disks and networks
        are not used (:meth:`Panda.from_recording` does without them). Afterwards
        the machine is reset.

        Args:
            replaypfx: the recording, as for :meth:`record`.
            allow_writes: callbacks may write registers and memory. The replay
                then does something else than the recording, and most likely
                ends in ReplayDivergence where that shows.

        Raises:
            ValueError: there is no such recording.
            RecordingError: it is damaged, of another machine, or of PANDA.
            ReplayDivergence: the replay did something else than the recording.
            Whatever :meth:`run` raises.
        """
        path = recordings.existing(replaypfx)
        self.libpanda.panda_replay_allow_writes(allow_writes)
        try:
            self._run(before=lambda: self._begin_replay(path))
        finally:
            self.libpanda.panda_replay_allow_writes(False)
            if self._created and not self._dead and self._replaying():
                self._check(self.libpanda.panda_replay_end())

    def _replaying(self) -> bool:
        return bool(self.libpanda.panda_rr_mode() == PandaRrMode.REPLAY)

    def _begin_replay(self, path: Path) -> None:
        self._check(self.libpanda.panda_replay_begin(os.fsencode(path), 0))

    def end_replay(self) -> None:
        """Give a replay up; :meth:`run_replay` returns.

        Raises:
            StateError: there is no replay.
        """
        if not self._replaying():
            raise StateError("nothing is being replayed")
        self.end_analysis()

    def rr_get_guest_instr_count(self) -> int:
        """Instructions executed since the recording or replay began; 0 without one.

        In a callback: before the instruction it is about.
        """
        return self.libpanda.panda_rr_count()

    def set_complete_rr_snapshot(self) -> None:
        """Make complete recordings from now on, whose replays can be left to live on.

        They have the state of all devices every 20 ms, and what is written to
        disks; see :meth:`Replay.go_live`.
        """
        self.libpanda.panda_record_complete(True)

    def record_report(self) -> recordings.Report:
        """Facts about the recording or replay that is made, or was made last."""
        return recordings.report(self.libpanda)
