"""Small helpers used throughout: messages, the blocking decorator, ISO images."""

from __future__ import annotations

import functools
import sys
import threading
from abc import ABC, abstractmethod
from typing import Any, Callable, TypeVar, cast

from .errors import BlockingCallError
from .iso9660 import make_iso

__all__ = ["Closing", "blocking", "debug", "make_iso", "progress", "warn"]

#: Set to True to have modules print more about what they do.
debug = False

_F = TypeVar("_F", bound=Callable[..., Any])
_C = TypeVar("_C", bound="Closing")


class Closing(ABC):
    """What is closed at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what it holds."""

    def __enter__(self: _C) -> _C:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _say(message: str, colour: str) -> None:
    stream = sys.stderr
    if stream is None:  # pythonw and some embedders have none
        return
    text = f"[pandalite] {message}"
    try:
        if stream.isatty():
            text = f"\x1b[{colour}m{text}\x1b[0m"
        # One write, so that lines of several threads do not mix.
        stream.write(text + "\n")
        stream.flush()
    except (OSError, ValueError):
        # A closed or full stderr must never end an analysis.
        return


def progress(msg: object) -> None:
    """Print a progress message to stderr, in green on a terminal."""
    _say(str(msg), "32")


def warn(msg: object) -> None:
    """Print a warning to stderr, in red on a terminal."""
    _say(str(msg), "31")


def blocking(func: _F) -> _F:
    """Mark ``func`` as one that waits for the guest.

    Such a function must run in the asynchronous thread (``queue_blocking``,
    ``queue_async``), because Python's main thread is the one that runs the
    machine it would wait for. The wrapper has ``__blocking__`` set, and
    `` (with async thread)`` appended to its name.

    Raises:
        BlockingCallError: on a call from Python's main thread (an
            AssertionError too, as PyPANDA raises).
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise BlockingCallError(
                f"Blocking function run in main thread: {getattr(func, '__name__', func)} waits "
                "for the guest, which the main thread has to run. Call it from a function "
                "decorated with @panda.queue_blocking, or queue it with panda.queue_async."
            )
        return func(*args, **kwargs)

    wrapper.__blocking__ = True  # type: ignore[attr-defined]
    wrapper.__name__ = f"{getattr(func, '__name__', 'function')} (with async thread)"
    return cast(_F, wrapper)
