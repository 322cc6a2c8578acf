"""Run to an address or for a number of instructions (C: ``panda/limit.h``)."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ._bindings.constants import PANDA_LIMIT_ADDRESSES
from ._bindings.enums import PandaRunResult
from .errors import GuestFault, TimeoutExpired
from .lifecycle import Lifecycle

_NO_COUNT = (1 << 64) - 1

_REASONS = {
    PandaRunResult.ADDRESS: "address",
    PandaRunResult.COUNT: "count",
    PandaRunResult.HALTED: "halted",
}


class RunEnd(NamedTuple):
    """How :meth:`~pandalite.Panda.run_until` ended."""

    #: ``"address"``, ``"count"``, ``"halted"`` (a machine without devices waits for an
    #: interrupt) or ``"ended"`` (``end_analysis()``).
    reason: str
    #: Address of the next instruction.
    pc: int
    #: Instructions executed by this call.
    instructions: int


class _Watch:
    """Calls a function after a time, unless it was ended before."""

    def __init__(self, timeout: float | None, function: Callable[[], None]) -> None:
        self.expired = False
        self._ended = False
        self._lock = threading.Lock()
        self._function = function
        self._timer: threading.Timer | None = None
        if timeout is not None:
            self._timer = threading.Timer(timeout, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def _expire(self) -> None:
        # With the lock: never a run that comes after the one it is for.
        with self._lock:
            if not self._ended:
                self.expired = True
                self._function()

    def end(self) -> None:
        """Call nothing from here on."""
        with self._lock:
            self._ended = True
        if self._timer is not None:
            self._timer.cancel()


class Limits(Lifecycle):
    """The part of Panda that runs a given piece of code."""

    _address_mask: int

    def run_until(
        self,
        address: int | Iterable[int] | None = None,
        count: int | None = None,
        timeout: float | None = None,
    ) -> RunEnd:
        """Run the guest to an address or for a number of instructions; like :meth:`run`.

        Works on every machine. Unlike :meth:`run` it leaves callbacks
        registered, so that it can be called again to go on. Between calls,
        registers and memory can be read and written.

        Args:
            address: end before the instruction at this address, or at one of
                several, is executed; the one the CPU stands on at the start
                does not count.
            count: end when exactly that many instructions have been executed.
                One that faults and is executed again, as an operating system
                makes it, may count each time.
            timeout: seconds to wait for that.

        Raises:
            TimeoutExpired: the guest did not get there in time.
            GuestFault: on a machine without devices, the guest cannot go on.
            ValueError: a bad count or address, or too many addresses.
            Whatever :meth:`run` raises.
        """
        addresses = self._addresses(address)
        if count is not None and not 0 < count < _NO_COUNT:
            raise ValueError(f"count={count}: a number of instructions is 1 or more")
        array = (ctypes.c_uint64 * max(len(addresses), 1))(*addresses)
        watch = _Watch(timeout, self._stop)
        try:
            limit = (_NO_COUNT if count is None else count, array, len(addresses))
            self._run(limit, keep_callbacks=True)
        except GuestFault as error:
            error.instructions = self.libpanda.panda_limit_executed()
            raise
        finally:
            watch.end()
            if self._created and not self._dead:
                self.libpanda.panda_clear_limit()
        reason = _REASONS.get(self._run_result, "ended")
        executed = self.libpanda.panda_limit_executed()
        pc = self.arch.get_pc(self.cpu)
        if reason == "ended" and watch.expired:
            raise TimeoutExpired(
                f"the guest executed {executed} instructions in {timeout:g} s and did not get "
                f"there; it is at {pc:#x}"
            )
        return RunEnd(reason, pc, executed)

    def _addresses(self, address: int | Iterable[int] | None) -> list[int]:
        if address is None:
            return []
        found = [address] if isinstance(address, int) else list(address)
        for one in found:
            if not isinstance(one, int) or not 0 <= one <= self._address_mask:
                raise ValueError(f"{one!r} is no address of a {self.bits}-bit guest")
        if len(found) > PANDA_LIMIT_ADDRESSES:
            raise ValueError(f"{len(found)} addresses: {PANDA_LIMIT_ADDRESSES} at most")
        return found
