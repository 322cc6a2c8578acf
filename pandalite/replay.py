"""A replay that goes to any of its moments, forward and back (C: ``panda/record.h``)."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import recordings
from ._bindings.enums import PandaRunResult
from .errors import RecordingError, StateError
from .limits import RunEnd
from .record import RecordReplay

if TYPE_CHECKING:
    from ._core import Cpu
    from .limits import Limits

_NO_COUNT = (1 << 64) - 1
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Write(NamedTuple):
    """Who wrote to memory: see :meth:`Replay.find_last_write`."""

    #: Instructions executed before the one that wrote.
    instructions: int
    #: Its address.
    pc: int
    #: Where the write began, as it was searched for (virtual or physical).
    address: int
    #: What was written.
    data: bytes


class Replay:
    """A replay under control; made by :meth:`pandalite.Panda.replay`.

    A place in it is a number of instructions executed: 0 is the recording's
    beginning, :attr:`total` its end. Callbacks, streams and coverage see what
    is executed by :meth:`run_to`, :meth:`step` and :meth:`run_until`; callbacks
    see nothing of the way that :meth:`seek` takes. Between the calls, registers
    and memory can be read. A context manager; :meth:`close` ends it.
    """

    def __init__(
        self, panda: RecordReplay, path: Path, budget: int, allow_writes: bool = False
    ) -> None:
        self._panda = panda
        self._keeps_checkpoints = budget > 0
        self._closed = False
        #: It has ended; the CPU may be halted and must not be run.
        self._at_end = False
        self.path = path

        def begin() -> None:
            status = panda.libpanda.panda_replay_begin(os.fsencode(path), budget)
            panda._check(status)
            panda._check(panda.libpanda.panda_replay_stop_at(0))

        panda.libpanda.panda_replay_allow_writes(allow_writes)
        try:
            # A guest that waits all the time executes nothing: it may be the end already.
            self._at_end = self._run(begin) == PandaRunResult.REPLAY_END
        except BaseException:
            panda.libpanda.panda_replay_allow_writes(False)
            raise

    def _run(self, before: Any, quiet: bool = False) -> PandaRunResult:
        panda = self._panda
        panda.libpanda.panda_set_quiet(quiet)
        try:
            panda._run(before=before, keep_callbacks=True)
        finally:
            panda.libpanda.panda_set_quiet(False)
        return panda._run_result

    def _check_open(self) -> None:
        if self._closed or not self._panda._replaying():
            raise StateError("this replay is closed: replay() begins a new one")

    @property
    def instructions(self) -> int:
        """Where the replay is: instructions executed."""
        self._check_open()
        return self._panda.libpanda.panda_rr_count()

    @property
    def total(self) -> int:
        """Instructions of the whole recording; 0 if it was cut off."""
        return self._panda.record_report().total

    @property
    def pc(self) -> int:
        """Address of the next instruction."""
        self._check_open()
        return self._panda.arch.get_pc(self._panda.cpu)

    def run_to(self, count: int) -> int:
        """Play forward until so many instructions are executed, or to the end.

        Returns:
            Where it is then.

        Raises:
            ValueError: that place is behind: :meth:`seek` goes back.
            ReplayDivergence, and whatever :meth:`Panda.run` raises.
        """
        return self._play(count, quiet=False)

    def _play(self, count: int, quiet: bool) -> int:
        here = self.instructions
        if count < here:
            raise ValueError(f"run_to({count}): the replay is at {here}; seek() goes back")
        if count > here and not self._at_end:
            lib = self._panda.libpanda
            result = self._run(lambda: self._panda._check(lib.panda_replay_stop_at(count)), quiet)
            self._at_end = result == PandaRunResult.REPLAY_END
            if quiet and self._translation_is_watched():
                # Who is asked then was not asked about what was translated.
                self._panda.flush_tb()
        return self.instructions

    def _translation_is_watched(self) -> bool:
        entries = self._panda.registered_callbacks.values()
        return any(entry["callback"].kind.name.endswith("_translate") for entry in entries)

    def run(self) -> int:
        """Play to the end; returns where that is."""
        return self.run_to(_NO_COUNT)

    def seek(self, count: int) -> int:
        """Go to a place, forward or back, over the checkpoints that were kept.

        Checkpoints are kept where the replay has been; to come to a place
        before them it begins anew at the nearest one.

        Returns:
            Where it is then: ``count``, or the end if that is before.
        """
        if count < 0:
            raise ValueError(f"seek({count}): a recording begins at 0")
        self._check_open()
        if self._at_end and count < self.instructions:
            self._at_end = False
        if self._at_end:
            return self.instructions
        self._panda._check(self._panda.libpanda.panda_replay_go_near(count))
        return self._play(count, quiet=True)

    def step(self, count: int = 1) -> int:
        """Execute some instructions."""
        return self.run_to(self.instructions + count)

    def reverse_step(self, count: int = 1) -> int:
        """Go back by some instructions; at most to the beginning."""
        return self.seek(max(0, self.instructions - count))

    def run_until(self, pc: int | Iterable[int], end: int | None = None) -> RunEnd:
        """Play forward to an address, or to one of several; see :meth:`Panda.run_until`.

        The end's reason is ``"ended"`` if the recording ends before, or so many
        instructions are executed in all (``end``).
        """
        self._check_open()
        if self._at_end:
            return RunEnd("ended", self.pc, 0)
        panda = self._panda
        panda._check(panda.libpanda.panda_replay_stop_at(_NO_COUNT if end is None else end))
        if TYPE_CHECKING:
            assert isinstance(panda, Limits)
        found = panda.run_until(pc)
        self._at_end = panda._run_result == PandaRunResult.REPLAY_END
        return found

    def serve_gdb(
        self,
        port: int | str | PathLike[str] = 0,
        host: str = "127.0.0.1",
        on_listening: Callable[[str], object] | None = None,
    ) -> None:
        """Let one gdb debug the replay, forward and back, until it detaches.

        In gdb: ``target remote ADDRESS``. The replay stays where gdb left it.

        Args:
            port: TCP port, 0 for any that is free; or path of a Unix socket.
            host: address to listen at.
            on_listening: called with the ADDRESS for gdb, e.g. to print it.

        Raises:
            UnsupportedFeatureError: there are no registers for gdb of this
                architecture.
            OSError: the address cannot be listened at.
            ReplayDivergence, and whatever :meth:`Panda.run` raises.
        """
        self._check_open()
        from .gdbserver import serve

        serve(self, port, host, on_listening)

    def find_last_write(self, address: int, size: int = 1, physical: bool = False) -> Write | None:
        """Who wrote to these bytes last, before this place.

        Searches backward, one checkpoint's distance at a time. The replay is
        where it was afterwards. Writes of devices are not found.

        Args:
            address: of the first byte; virtual, in the address space of this
                place.
            size: number of bytes.
            physical: the address is a physical one.

        Returns:
            The last write to any of them; None if there is none since the
            beginning.

        Raises:
            GuestMemoryError: nothing is mapped at the virtual address.
            StateError: the replay keeps no checkpoints.
        """
        self._check_open()
        if not self._keeps_checkpoints:
            raise StateError("this replay keeps no checkpoints (checkpoints=0)")
        here = end = self.instructions
        panda = self._panda
        target = address
        if not physical:
            target = panda.libpanda.panda_virt_to_phys(panda.cpu, address)
            if target == _NO_COUNT:
                from .errors import GuestMemoryError

                raise GuestMemoryError(f"nothing is mapped at {address:#x}")
        found: Write | None = None
        try:
            while found is None:
                begin = panda.libpanda.panda_replay_checkpoint_before(end)
                if begin == _NO_COUNT:
                    break
                self.seek(begin)
                found = self._last_write_until(end, target, size)
                end = begin
        finally:
            self.seek(here)
        return found and found._replace(address=found.address - target + address)

    def _last_write_until(self, end: int, target: int, size: int) -> Write | None:
        panda: Any = self._panda
        last: list[tuple[int, int, int, bytes]] = []

        def note(cpu: Cpu, pc: int, address: int, length: int, data: Any) -> None:
            if address < target + size and address + length > target:
                place = panda.rr_get_guest_instr_count()
                last[:] = [(place, pc, address, bytes(data[:length]))]

        # A wide store may begin before the first byte.
        low = max(0, target - 15)
        callback = panda.cb_phys_mem_after_write(addr=(low, target + size), name="find_last_write")(
            note
        )
        try:
            self.run_to(end)
        finally:
            panda.delete_callback("find_last_write")
            del callback
        return Write(*last[0]) if last else None

    def cut(self, begin: int, end: int, out: str | PathLike[str]) -> tuple[int, int]:
        """Make a new recording of a part; PANDA's scissors.

        A recording can be cut where devices did something, which is every few
        milliseconds: the part begins and ends at such places around the ones that
        are asked for. The replay is at the part's beginning afterwards.

        Args:
            begin: where the part begins, in instructions.
            end: where it ends.
            out: the new recording, as for :meth:`Panda.record`.

        Returns:
            Where the part begins and ends in this recording.

        Raises:
            ValueError: there is nothing between the two.
            RecordingError: the file cannot be written, or the machine is a
                pseries with a hash table.
        """
        if not 0 <= begin < end:
            raise ValueError(f"cut({begin}, {end}): there is nothing in between")
        if self.seek(begin) != begin:
            raise ValueError(f"cut({begin}, {end}): the recording ends at {self.instructions}")
        lib = self._panda.libpanda
        first = self.seek(lib.panda_replay_slice_begin())
        length = ctypes.c_uint64()
        path = os.fsencode(recordings.recording_path(out))
        self._panda._check(lib.panda_replay_cut(path, end, length))
        return first, first + length.value

    def go_live(self) -> int:
        """Leave the replay: from here on the machine lives, with the next ``panda.run()``.

        It goes back to the last moment before this place at which the state of
        the devices was recorded, at most some 20 ms away, and writes to the disks
        what was written to them by then. So the recording must be a complete one
        (:meth:`Panda.set_complete_rr_snapshot`), and the machine must have the
        disks that were recorded, as they were when the recording began.
        Connections of the guest's network are not there any more.

        Returns:
            The place, in instructions.

        Raises:
            StateError: the recording has no such moment before this place; the
                disks are others; the replay keeps no checkpoints, and is past it.
            ReplayDivergence, and whatever :meth:`Panda.run` raises.
        """
        here = self.instructions
        panda, lib = self._panda, self._panda.libpanda
        panda._check(lib.panda_replay_check_disks())
        writes: list[tuple[str, int, bytes]] = []
        # What was written by the last of these moments.
        place, count = -1, 0
        for entry in recordings.read_log(self.path):
            if entry.instructions > here:
                break
            if entry.kind == "devices":
                place, count = entry.instructions, len(writes)
            elif entry.kind == "data":
                writes.append((entry.device, entry.facts["offset"], entry.facts["bytes"]))
        if place < 0:
            raise StateError("the devices' state was not recorded before this place")
        self.seek(place - 1)
        self.run_to(place)
        for device, offset, data in writes[:count]:
            panda._check(lib.panda_replay_write_disk(device.encode(), offset, data, len(data)))
        panda._check(lib.panda_replay_go_live())
        self._end()
        return place

    def _end(self) -> None:
        self._closed = True
        self._panda.libpanda.panda_replay_allow_writes(False)

    def close(self) -> None:
        """End the replay; the machine is reset."""
        if not self._closed:
            self._end()
            if self._panda._replaying():
                self._panda._check(self._panda.libpanda.panda_replay_end())

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _bytes(budget: int | str) -> int:
    """A number of bytes out of ``2G`` or the like."""
    if isinstance(budget, int):
        return budget
    found = re.fullmatch(r"(\d+)([KMG]?)B?", budget.strip().upper())
    if not found:
        raise ValueError(f"checkpoints={budget!r}: a number of bytes, or like '500M' or '2G'")
    return int(found[1]) * _UNITS[found[2]]


class Replays(RecordReplay):
    """The part of Panda that makes replays under control."""

    #: See :class:`pandalite.plugins.Plugins`.
    _python_plugins: dict[str, Any]

    def run_replay(self, replaypfx: str | PathLike[str], *, allow_writes: bool = False) -> None:
        """Replay a recording to its end; see :meth:`RecordReplay.run_replay`.

        With the plugin ``scissors`` loaded, cut it instead.
        """
        scissors = self._python_plugins.get("scissors")
        if scissors is None:
            super().run_replay(replaypfx, allow_writes=allow_writes)
            return
        try:
            with self.replay(replaypfx) as replay:
                scissors.cut(replay)
        finally:
            self._end_plugins()

    def replay(
        self,
        name: str | PathLike[str],
        checkpoints: int | str | None = None,
        *,
        allow_writes: bool = False,
    ) -> Replay:
        """Load a recording and stand at its beginning; see :class:`Replay`.

        Args:
            name: the recording, as for :meth:`record`.
            checkpoints: memory that checkpoints may take, in bytes or like
                ``"2G"``, which is the default; that of the plugin ``checkpoint``,
                if it is loaded, is another. The more, the quicker it goes back;
                0: none are kept, and it only goes forward.
            allow_writes: registers and memory may be written, which makes it
                another execution; see :meth:`run_replay`.

        Raises:
            ValueError: there is no such recording, or a bad size.
            RecordingError: it is damaged, of another machine, or of PANDA.
        """
        path = recordings.existing(name)
        if checkpoints is None:
            plugin = self._python_plugins.get("checkpoint")
            checkpoints = "2G" if plugin is None else str(plugin.space)
        budget = _bytes(checkpoints)
        if 0 < budget < 1 << 20:
            raise ValueError(f"checkpoints={checkpoints!r}: 0, or at least 1M")
        return Replay(self, path, budget, allow_writes)


__all__ = ["RecordingError", "Replay", "Replays", "Write"]
