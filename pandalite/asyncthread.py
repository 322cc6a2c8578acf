"""The threads that run the user's blocking functions beside the machine.

Python's main thread runs the guest, so whatever waits for the guest runs here:
one thread for the user's functions, in the order they were queued, and a second
one for pandalite's own short tasks, which must work while the user's is busy.
"""

from __future__ import annotations

import collections
import ctypes
import threading
import time
import traceback
from typing import Any, Callable

from .errors import StateError
from .utils import warn

__all__ = ["AsyncThread", "WorkerInterrupted"]

_Job = Callable[[], Any]
_OnException = Callable[[BaseException], None]

# How long the user's queue may be empty before the reminder, in seconds.
_IDLE_REMINDER = 5.0
# How often a worker with work looks whether run() was called, in seconds. An
# Event cannot be waited for together with anything else; this happens only
# between queueing and run().
_START_POLL = 0.1


class WorkerInterrupted(BaseException):
    """Raised inside a queued function that is asked to end early.

    Not an :class:`Exception`, so that ``except Exception`` in the function does
    not swallow it. It is never reported to the ``on_exception`` callback.
    """


def _print_exception(exc: BaseException) -> None:
    text = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    warn(f"a queued function failed:\n{text.rstrip()}")


class _Queue:
    """Jobs that wait for a worker; outlives the worker."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.jobs: collections.deque[_Job] = collections.deque()
        self.changed = threading.Condition()
        self.worker: _Worker | None = None


class _Worker:
    """One daemon thread that takes jobs from a queue until it is told to end."""

    def __init__(self, owner: AsyncThread, queue: _Queue) -> None:
        self._owner = owner
        self._queue = queue
        self.ending = False  # guarded by queue.changed
        self._state = threading.Lock()
        self._busy = False  # inside the user's function; guarded by _state
        self._abandoned = False
        self.thread = threading.Thread(
            target=self._main, name=f"pandalite-{queue.name}", daemon=True
        )

    def _main(self) -> None:
        while True:
            try:
                self._loop()
                return
            except WorkerInterrupted:
                # An interrupt that arrived just after the function returned.
                self._busy = False

    def _loop(self) -> None:
        owner, queue = self._owner, self._queue
        while True:
            with queue.changed:
                while not queue.jobs and not self.ending:
                    queue.changed.wait(self._reminder_delay())
                    self._remind()
                if self.ending:
                    return
            # The job stays queued until the machine runs, so that stop() before
            # run() loses nothing.
            while not owner.panda_started.wait(_START_POLL):
                with queue.changed:
                    if self.ending:
                        return
            with queue.changed:
                if self.ending:
                    return
                if not queue.jobs:
                    continue
                job = queue.jobs.popleft()
            self._run(job)

    def _run(self, job: _Job) -> None:
        owner = self._owner
        if self._queue is owner._user:
            owner.last_called = getattr(job, "__name__", repr(job))
        failure: BaseException | None = None
        try:
            with self._state:
                self._busy = True
            job()
        except BaseException as exc:  # including sys.exit(): the caller decides
            failure = exc
        finally:
            with self._state:
                self._busy = False
                # An interrupt still under way must not hit the next function.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(threading.get_ident()), None
                )
        if self._queue is owner._user:
            owner.empty_at = time.monotonic()
        interrupted = isinstance(failure, WorkerInterrupted)
        # What an abandoned function raises later concerns nobody any more.
        if failure is not None and not interrupted and not self._abandoned:
            owner._report(failure)
        # The frame must not live on in this thread's locals.
        del failure

    def _reminder_delay(self) -> float | None:
        owner = self._owner
        if self._queue is not owner._user or owner.empty_at is None or owner.warned or owner.ending:
            return None
        return max(0.0, owner.empty_at + _IDLE_REMINDER - time.monotonic()) + 0.01

    def _remind(self) -> None:
        delay = self._reminder_delay()
        if delay is None or delay > 0.01 or self._queue.jobs or self.ending:
            return
        owner = self._owner
        if not owner.panda_started.is_set():
            owner.empty_at = time.monotonic()
            return
        owner.warned = True
        warn(
            f"all queued functions have run (the last was {owner.last_called!r}) and the machine "
            f"has gone on for {_IDLE_REMINDER:g} s. If the run should have ended: call "
            "panda.end_analysis() in the last queued function."
        )

    def interrupt(self, exc_type: type[BaseException]) -> bool:
        """Raise ``exc_type`` in the function under way; False if there is none."""
        with self._state:
            ident = self.thread.ident
            if not self._busy or ident is None:
                return False
            count = ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(ident), ctypes.py_object(exc_type)
            )
        return bool(count == 1)

    def end(self, deadline: float, interrupt: bool) -> bool:
        """Ask the thread to end; True if it has ended by ``deadline``."""
        with self._queue.changed:
            self.ending = True
            self._queue.changed.notify_all()
        if self.thread is threading.current_thread():
            return True  # it ends as soon as the job that called us returns
        remaining = max(0.0, deadline - time.monotonic())
        self.thread.join(remaining / 2 if interrupt else remaining)
        if self.thread.is_alive() and interrupt:
            self.interrupt(WorkerInterrupted)
            self.thread.join(max(0.0, deadline - time.monotonic()))
        self._abandoned = self.thread.is_alive()
        return not self._abandoned


class AsyncThread:
    """Runs blocking functions in two daemon threads, started when first needed.

    Args:
        panda_started: set while the machine runs; no function is called before.
        on_exception: called in the worker thread with what a function raised
            (any BaseException, SystemExit included). The thread goes on with
            the next function. Default: print the traceback as a warning.

    Attributes:
        running: False between :meth:`stop` and :meth:`resume`.
        ending: set by the owner while the run ends; silences the reminder.
        warned: whether the reminder about end_analysis was printed.
        empty_at: ``time.monotonic()`` when the last user function ended, or None.
        last_called: name of the user function last called, or None.
    """

    def __init__(
        self, panda_started: threading.Event, on_exception: _OnException | None = None
    ) -> None:
        self.panda_started = panda_started
        self.running = True
        self.ending = False
        self.warned = False
        self.empty_at: float | None = None
        self.last_called: str | None = None
        self._on_exception: _OnException = on_exception or _print_exception
        self._user = _Queue("user")
        self._internal = _Queue("internal")

    def queue(self, func: _Job | None, internal: bool = False) -> None:
        """Queue a function without arguments, decorated with ``blocking``.

        After :meth:`stop` it waits for :meth:`resume`.

        Args:
            func: what to call; its result is dropped.
            internal: use the second thread, for pandalite's own tasks.

        Raises:
            StateError: ``func`` is missing or not decorated (a RuntimeError).
        """
        if func is None:
            raise StateError("cannot queue nothing: pass a function")
        if not getattr(func, "__blocking__", False):
            raise StateError(
                f"cannot queue {getattr(func, '__name__', func)!r}: decorate it with @blocking "
                "from pandalite first"
            )
        queue = self._internal if internal else self._user
        with queue.changed:
            queue.jobs.append(func)
            queue.changed.notify_all()
            self._ensure_worker(queue)

    def resume(self) -> None:
        """Allow functions to run (again); called at the start of every run."""
        self.running = True
        self.ending = False
        self.warned = False
        self.empty_at = None
        for queue in (self._user, self._internal):
            with queue.changed:
                self._ensure_worker(queue)

    def interrupt(self, exc_type: type[BaseException] = WorkerInterrupted) -> bool:
        """Raise an exception of ``exc_type`` in the user function under way.

        The function sees it at its next Python instruction: a call into C that
        blocks (``time.sleep``, a read, a lock) has to return first. pandalite's
        own waits are woken by their abort functions; call those as well.

        Returns:
            True if a function was under way and will see the exception.
        """
        worker = self._user.worker
        return worker.interrupt(exc_type) if worker is not None else False

    def pending(self) -> int:
        """How many user functions wait to be called."""
        return len(self._user.jobs)

    def stop(self, timeout: float = 2.0, discard: bool = False, interrupt: bool = True) -> bool:
        """End both threads.

        Functions not yet called stay queued for the next :meth:`resume` unless
        ``discard``. A function under way gets half of ``timeout`` to return,
        then :class:`WorkerInterrupted` is raised in it (if ``interrupt``). One
        that still does not return, because it is stuck in a call into C, is
        abandoned: its daemon thread ends when it returns, what it raises is
        dropped, and later functions get a new thread.

        Args:
            timeout: seconds to wait at most, for both threads together.

        Returns:
            True if no thread had to be abandoned.
        """
        self.running = False
        deadline = time.monotonic() + timeout
        clean = True
        for queue in (self._user, self._internal):
            with queue.changed:
                if discard:
                    queue.jobs.clear()
                worker, queue.worker = queue.worker, None
            if worker is not None:
                clean = worker.end(deadline, interrupt) and clean
        return clean

    def _ensure_worker(self, queue: _Queue) -> None:
        # Called with queue.changed held. A worker whose process forked has no
        # thread any more in the child, hence is_alive().
        if not self.running or not queue.jobs:
            return
        if queue.worker is None or not queue.worker.thread.is_alive():
            queue.worker = _Worker(self, queue)
            queue.worker.thread.start()

    def _report(self, exc: BaseException) -> None:
        try:
            self._on_exception(exc)
        except Exception as failure:
            _print_exception(exc)
            _print_exception(failure)  # the callback's own
