"""Go through a replay from one point of interest to another, forward and back.

What :mod:`pandalite.gdbserver` does when the debugger says "continue". Which
events are hits is decided in C, by filters; Python notes their counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ._bindings.constants import PANDA_LIMIT_ADDRESSES

if TYPE_CHECKING:
    from ._core import Cpu
    from .replay import Replay

#: Instructions between two looks at whether somebody wants to interrupt: at first, at
#: least and at most. As many as take about PATIENCE seconds.
CHUNK, CHUNK_LEAST, CHUNK_MOST = 1 << 18, 1 << 12, 1 << 22
PATIENCE = 0.2

#: Instructions that are looked at first on the way back.
NEAR = 1 << 16

#: The widest access there is, less one: it may begin so far before what it touches.
_REACH = 15


class Watch(NamedTuple):
    """Memory to be watched, by virtual address, in whatever address space."""

    #: ``"watch"`` (writes), ``"rwatch"`` (reads) or ``"awatch"`` (both).
    kind: str
    address: int
    size: int


class Stop(NamedTuple):
    """Why it stopped."""

    #: ``"break"``, ``"watch"``, ``"count"``, ``"step"``, ``"begin"``, ``"end"`` (of the
    #: recording) or ``"interrupt"``.
    reason: str
    #: What was accessed, for ``"watch"``.
    watch: Watch | None = None


class _Hit(NamedTuple):
    #: Instructions executed before the one that hit.
    place: int
    pc: int
    watch: Watch | None


class _Notes:
    """The first or the last hit of those that were seen."""

    def __init__(self, keep_first: bool, ignore: Callable[[_Hit], bool]) -> None:
        self.hit: _Hit | None = None
        self._keep_first = keep_first
        self._ignore = ignore

    def take(self, hit: _Hit) -> bool:
        """Note a hit; whether that is enough."""
        if (self._keep_first and self.hit is not None) or self._ignore(hit):
            return False
        self.hit = hit
        return self._keep_first


class Traveller:
    """Moves a replay to breakpoints, watchpoints and counts of instructions.

    A breakpoint is met before its instruction is executed. A watchpoint is met
    behind the access in the direction of travel: after the instruction on the
    way forward, before it on the way back; the other way round if it
    ``stops_before_access``.
    """

    def __init__(
        self,
        replay: Replay,
        interrupted: Callable[[], bool] = lambda: False,
        stops_before_access: bool = False,
    ) -> None:
        """Travel through a replay.

        Args:
            replay: what is moved.
            interrupted: asked every few million instructions whether to stop.
            stops_before_access: what debuggers expect of some architectures;
                they step over the access themselves.
        """
        self.breakpoints: set[int] = set()
        self.watches: set[Watch] = set()
        #: Counts of instructions to stop at.
        self.counts: set[int] = set()
        self._replay = replay
        self._panda: Any = replay._panda
        self._interrupted = interrupted
        self._stops_before = stops_before_access
        self._chunk = CHUNK
        self._chunk_begin: float | None = None
        #: Count of an access not stepped over yet after it was reported.
        self._reported = -1

    # ---- moving ----

    def step(self) -> Stop:
        """Execute one instruction; watched memory is."""
        here = self._replay.instructions
        reported, self._reported = self._reported, -1
        if not self.watches:
            self._replay.run_to(here + 1)
        else:
            with self._noting(set(), True, lambda hit: hit.place == reported) as notes:
                self._replay.run_to(here + 1)
            if notes.hit is not None:
                return self._arrive(notes.hit, forward=True)
        return Stop("end" if self._replay.instructions == here else "step")

    def step_range(self, begin: int, end: int) -> Stop:
        """Execute one instruction, and more as long as the next is in a range.

        Args:
            begin: address of the range's first byte.
            end: address behind its last byte.
        """
        looked = time.monotonic()
        while True:
            stop = self.step()
            pc = self._replay.pc
            if stop.reason != "step" or not begin <= pc < end:
                return stop
            if pc in self.breakpoints:
                return Stop("break")
            if self._replay.instructions in self.counts:
                return Stop("count")
            if time.monotonic() - looked > PATIENCE:
                if self._interrupted():
                    return Stop("interrupt")
                looked = time.monotonic()

    def step_back(self) -> Stop:
        """Take one instruction back."""
        here = self._replay.instructions
        reported, self._reported = self._reported, -1
        if here == 0:
            return Stop("begin")
        self._replay.seek(here - 1)
        if self.watches:
            with self._noting(set(), False, lambda hit: hit.place == reported) as notes:
                self._replay.run_to(here)
            if notes.hit is not None:
                return self._arrive(notes.hit, forward=False)
            self._replay.seek(here - 1)
        return Stop("step")

    def forward(self) -> Stop:
        """Play to the next hit, or to the end."""
        replay = self._replay
        here, pc = replay.instructions, replay.pc
        reported, self._reported = self._reported, -1
        self._chunk_begin = None
        goal = min((count for count in self.counts if count > here), default=None)
        if self.watches or len(self.breakpoints) > PANDA_LIMIT_ADDRESSES:

            def ignore(hit: _Hit) -> bool:
                if hit.watch is not None:
                    return hit.place == reported
                return (hit.place, hit.pc) == (here, pc)

            stop = self._forward_noting(goal, ignore)
        elif self.breakpoints:
            stop = self._forward_exactly(goal)
        else:
            stop = self._forward_to(goal)
        return stop

    def back(self) -> Stop:
        """Go to the last hit before this place, or to the beginning.

        From each checkpoint to the one after it is played twice at most: once
        to see where the last hit is, once to go there. Hits that are many are
        near: the last few instructions are looked at first.
        """
        replay = self._replay
        end = here = replay.instructions
        reported, self._reported = self._reported, -1
        self._chunk_begin = None
        goal = max((count for count in self.counts if count < here), default=None)
        seen = self.breakpoints or self.watches
        with self._noting(
            self.breakpoints,
            False,
            lambda hit: hit.watch is not None and hit.place == reported,
        ) as notes:
            while seen and end > (goal or 0):
                begin = self._panda.libpanda.panda_replay_checkpoint_before(end)
                if begin >= end:
                    break
                if end == here:
                    begin = max(begin, here - NEAR)
                replay.seek(begin)
                if not self._play(end):
                    return Stop("interrupt")
                if notes.hit is not None:
                    break
                end = begin
        if notes.hit is not None and (goal is None or notes.hit.place >= goal):
            return self._arrive(notes.hit, forward=False)
        if goal is not None:
            replay.seek(goal)
            return Stop("count")
        replay.seek(0)
        return Stop("begin")

    # ---- ways forward ----

    def _aim(self, goal: int | None) -> int | None:
        """Where to play to before the next look; None if it is interrupted."""
        if self._interrupted():
            return None
        now = time.monotonic()
        if self._chunk_begin is None:
            self._chunk = CHUNK
        elif now - self._chunk_begin > PATIENCE:
            self._chunk = max(self._chunk // 4, CHUNK_LEAST)
        else:
            self._chunk = min(self._chunk * 2, CHUNK_MOST)
        self._chunk_begin = now
        aim = self._replay.instructions + self._chunk
        return aim if goal is None else min(aim, goal)

    def _play(self, goal: int | None) -> bool:
        """Play to a count or to the end; False if it was interrupted."""
        replay = self._replay
        while goal is None or replay.instructions < goal:
            aim = self._aim(goal)
            if aim is None:
                return False
            if replay.run_to(aim) < aim:
                break
        return True

    def _reached(self, goal: int | None) -> Stop:
        return Stop("count" if self._replay.instructions == goal else "end")

    def _forward_to(self, goal: int | None) -> Stop:
        return self._reached(goal) if self._play(goal) else Stop("interrupt")

    def _forward_exactly(self, goal: int | None) -> Stop:
        """Breakpoints alone: the core stops at them."""
        replay = self._replay
        while True:
            aim = self._aim(goal)
            if aim is None:
                return Stop("interrupt")
            if replay.run_until(self.breakpoints, end=aim).reason == "address":
                return Stop("break")
            if replay.instructions < aim or aim == goal:
                return self._reached(goal)
            # The core does not stop where a run begins.
            if replay.pc in self.breakpoints:
                with self._noting(self.breakpoints, True, lambda hit: False) as notes:
                    replay.run_to(aim + 1)
                if notes.hit is not None:
                    return self._arrive(notes.hit, forward=True)

    def _forward_noting(self, goal: int | None, ignore: Callable[[_Hit], bool]) -> Stop:
        """Play over the next hit, a little, and come back to it."""
        replay = self._replay
        with self._noting(self.breakpoints, True, ignore) as notes:
            while notes.hit is None:
                aim = self._aim(goal)
                if aim is None:
                    return Stop("interrupt")
                if replay.run_to(aim) < aim or aim == goal:
                    break
        if notes.hit is not None:
            return self._arrive(notes.hit, forward=True)
        return self._reached(goal)

    # ---- hits ----

    def _arrive(self, hit: _Hit, forward: bool) -> Stop:
        """Go to where a hit is met."""
        replay = self._replay
        if hit.watch is not None:
            before = forward == self._stops_before
            replay.seek(hit.place if before else hit.place + 1)
            if self._stops_before:
                self._reported = hit.place
            return Stop("watch", hit.watch)
        replay.seek(hit.place)
        if replay.pc != hit.pc and hit.place > 0:
            # It begins an exception's handler: the instruction that was to be
            # executed here is not, and the count stays.
            replay.seek(hit.place - 1)
            replay.run_until(hit.pc, end=hit.place + 1)
        return Stop("break")

    @contextmanager
    def _noting(
        self, pcs: set[int], keep_first: bool, ignore: Callable[[_Hit], bool]
    ) -> Iterator[_Notes]:
        """Note hits among what is played."""
        panda = self._panda
        notes = _Notes(keep_first, ignore)
        # Cleared when there is a first hit: all others cost next to nothing.
        flag = panda.flag() if keep_first else None
        names: list[str] = []

        def register(kind: str, function: Callable[..., Any], **filters: Any) -> None:
            name = f"{__name__}.{kind}"
            panda.register_callback(getattr(panda.callback, kind), function, name, **filters)
            names.append(name)

        def take(pc: int, watch: Watch | None) -> None:
            if notes.take(_Hit(panda.rr_get_guest_instr_count(), pc, watch)) and flag is not None:
                flag.clear()

        def access(other: str) -> Callable[..., None]:
            watches = [watch for watch in self.watches if watch.kind != other]

            def seen(cpu: Cpu, pc: int, address: int, size: int, data: Any) -> None:
                for watch in watches:
                    if address < watch.address + watch.size and address + size > watch.address:
                        take(pc, watch)
                        return

            return seen

        def ranges(other: str) -> list[tuple[int, int]]:
            return [
                (max(0, watch.address - _REACH), watch.address + watch.size)
                for watch in self.watches
                if watch.kind != other
            ]

        try:
            if pcs:
                register("insn_translate", lambda cpu, pc: True, pc=list(pcs))
                register("insn_exec", lambda cpu, pc: take(pc, None), pc=list(pcs), when=flag)
            for kind, other in (
                ("virt_mem_after_write", "rwatch"),
                ("virt_mem_after_read", "watch"),
            ):
                if ranges(other):
                    register(kind, access(other), addr=ranges(other), when=flag)
            yield notes
        finally:
            for name in names:
                panda.delete_callback(name)
