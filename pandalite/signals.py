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
