"""Python's signals while the machine runs in C.

Python's own handler only notes a signal and writes a byte to the wakeup
descriptor; the Python-level handler runs when the main thread is back in
Python. So the main loop watches the descriptor and returns on a byte.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from types import TracebackType
from typing import Any


class SignalWakeup:
    """Makes signals end a call into the core library; a context manager.

    Attributes:
        fd: the descriptor to watch, -1 outside of Python's main thread, where
            no signal is handled anyway.
    """

    def __init__(self) -> None:
        self.fd = -1
        self._reader: socket.socket | None = None
        self._writer: socket.socket | None = None
        self._previous = -1

    def __enter__(self) -> SignalWakeup:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self.fd = self._reader.fileno()
        return self

    def drain(self) -> None:
        """Take the bytes of signals that were noted.

        A host program's own wakeup descriptor gets them as well.
        """
        if self._reader is None:
            return
        with contextlib.suppress(BlockingIOError):
            noted = self._reader.recv(4096)
            if self._previous >= 0:
                with contextlib.suppress(OSError):
                    os.write(self._previous, noted)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._reader is None or self._writer is None:
            return
        signal.set_wakeup_fd(self._previous)
        self.drain()
        self.fd = -1
        self._reader.close()
        self._writer.close()
        self._reader = self._writer = None


class DeferredInterrupt:
    """Keeps Ctrl-C from cutting a piece of clean-up in two; a context manager.

    An interrupt that comes meanwhile is delivered at the end, unless the caller
    takes it (an exception ends the run anyway).
    """

    def __init__(self) -> None:
        self.noted = False
        self._handler: Any = None

    def __enter__(self) -> DeferredInterrupt:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *_: object) -> None:
        self.noted = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handler is None:
            return
        signal.signal(signal.SIGINT, self._handler)
        if self.noted:
            self.noted = False
            self._handler(signal.SIGINT, None)
