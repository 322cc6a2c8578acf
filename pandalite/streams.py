"""Event streams: events as records, written by C and read in batches.

The recommended way to see very many events. The core writes records of 64-bit
words; Python gets batches of them, without a call per event and without a copy
(``csrc/include/panda/stream.h``)::

    with panda.stream("block", fields=("pc", "size"), kernel=False) as blocks:
        ...
        for batch in blocks:
            total += int(batch.numpy()["size"].sum())

A stream lasts until it is stopped or the run ends; then its iteration ends too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._bindings.enums import PandaStatus, PandaStreamField, PandaStreamKind
from ._bindings.structs import PandaBatch, PandaStreamSpec, PandaStreamStats
from ._core import PandaCore
from .errors import IntrospectionError, StateError
from .filters import filter_of
from .utils import Closing, warn

if TYPE_CHECKING:
    from ._bindings.loader import CoreLibrary

#: Kind -> the fields it has, in the order of a record if none are asked for.
KINDS: dict[str, tuple[str, ...]] = {
    "block": ("pc", "asid", "size", "icount", "kernel"),
    "edge": ("source", "pc", "asid", "kernel"),
    "insn": ("pc", "asid", "kernel", "block"),
    "mem": ("pc", "addr", "size", "value", "write", "asid", "kernel"),
    "asid": ("pc", "old", "new"),
    "exception": ("pc", "number", "interrupt", "asid", "kernel"),
    "call": ("pc", "target", "sp", "depth", "returns", "asid", "kernel"),
    "syscall": (
        *("pc", "number", "phase", "result", "arg0", "arg1", "arg2", "arg3", "arg4", "arg5"),
        *("thread", "asid", "abi"),
    ),
    "io": ("pc", "addr", "size", "value", "write", "port", "asid", "kernel"),
    "os": (
        *("event", "count", "pid", "tid", "value", "other", "addr", "size"),
        *("thread", "asid", "name0", "name1"),
    ),
}

#: Events of streams of "os", by their number in records.
OS_EVENTS = (
    *("start", "exec", "fork", "exit", "switch"),
    *("mmap", "open", "close", "signal", "deliver"),
)

_ACCESSES = {"r": 1, "w": 2, "rw": 3}

#: How long a wait in C lasts before Python looks at signals again.
_WAIT_MS = 200

#: Seconds a reader of ours may take after the end of its stream.
_PATIENCE = 60
#: The same after Ctrl-C or an exception that ends the run.
_PATIENCE_INTERRUPTED = 0.3


class Batch:
    """Records of a stream: a table of unsigned 64-bit words.

    Its memory belongs to the stream: it holds these records until the next batch
    is asked for. Copy what is to be kept.
    """

    def __init__(self, fields: tuple[str, ...], words: Any, count: int) -> None:
        #: Names of the columns.
        self.fields = fields
        self._words = words
        self._count = count

    def __len__(self) -> int:
        return self._count

    @property
    def view(self) -> memoryview:
        """The records as they are: a memoryview of ``len(batch)`` rows of words, format Q."""
        flat = memoryview(self._words).cast("B")
        return flat.cast("Q", (self._count, len(self.fields)))

    def column(self, field: str) -> memoryview:
        """One field of all records, as a memoryview with a stride; ValueError if unknown."""
        try:
            index = self.fields.index(field)
        except ValueError:
            raise ValueError(
                f"the stream has no field {field!r}; it has: {', '.join(self.fields)}"
            ) from None
        flat = memoryview(self._words).cast("B").cast("Q")
        return flat[index :: len(self.fields)]

    def numpy(self) -> Any:
        """The records as a NumPy array with a field per column (``array["pc"]``), not copied.

        Raises:
            StateError: NumPy is not installed.
        """
        try:
            numpy: Any = import_module("numpy")
        except ImportError:
            raise StateError(
                "Batch.numpy() needs NumPy: pip install numpy, or use Batch.view"
            ) from None
        return numpy.frombuffer(
            self._words, dtype=[(name, "<u8") for name in self.fields], count=self._count
        )

    def tolist(self) -> list[tuple[int, ...]]:
        """The records as tuples, copied."""
        rows: Any = self.view.tolist()
        return [tuple(row) for row in rows]

    def tobytes(self) -> bytes:
        """The records as bytes, copied."""
        return self.view.tobytes()

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return iter(self.tolist())


class Stream(Closing):
    """A stream of events, made by :meth:`pandalite.Panda.stream`.

    Iterate over it, in any thread but one at a time, to get batches; or give
    ``on_batch=`` or ``to_file=``, and pandalite does it in a thread of its own.
    """

    def __init__(self, panda: Streams, handle: int, kind: str, fields: tuple[str, ...]) -> None:
        self._panda = panda
        self._library = panda.libpanda
        self._handle: int | None = handle
        #: Kind of events, and names of the fields of a record.
        self.kind = kind
        self.fields = fields
        self._enabled = True
        self._reading = threading.Lock()
        # The handle is there while it is held. No call under it waits.
        self._lock = threading.Lock()
        self._closing = False
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        # Views of the memory of batches that somebody may still have.
        self._views: dict[int, weakref.ref[Any]] = {}
        self._batch = PandaBatch()
        self._last_stats = (0, 0, 0)

    # --- reading ---

    def read(self, timeout: float | None = None) -> Batch | None:
        """Wait for the next batch (C: ``panda_stream_next``).

        The one before it is given back: what it showed will change.

        Args:
            timeout: seconds to wait; None: until there is one, or the end.

        Returns:
            The batch; None if the stream has ended, or in the time there was none.

        Raises:
            StateError: it is read elsewhere at this moment.
        """
        if not self._reading.acquire(blocking=False):
            if self._closing:
                return None
            raise StateError("this stream is being read by somebody else: one reader at a time")
        try:
            end = None if timeout is None else time.monotonic() + timeout
            while self._handle is not None:
                left = _WAIT_MS if end is None else (end - time.monotonic()) * 1000
                wait = int(max(0, min(left, _WAIT_MS)))
                status = self._library.panda_stream_next(self._handle, wait, self._batch)
                if status == PandaStatus.OK:
                    return self._make_batch()
                if left < 1:
                    break
            return None
        finally:
            self._reading.release()

    def _make_batch(self) -> Batch | None:
        count = self._batch.count
        if not count:
            return None
        address = ctypes.cast(self._batch.records, ctypes.c_void_p).value
        assert address is not None
        words = (ctypes.c_uint64 * (count * len(self.fields))).from_address(address)
        self._views = {a: ref for a, ref in self._views.items() if ref() is not None}
        self._views[id(words)] = weakref.ref(words)
        return Batch(self.fields, words, count)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            batch = self.read()
            if batch is None:
                return
            yield batch

    # --- control ---

    @property
    def enabled(self) -> bool:
        """Whether events get in; may be set at any time (C: ``panda_stream_enable``)."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        with self._lock:
            self._library.panda_stream_enable(self._open(), bool(enabled))
            self._enabled = bool(enabled)

    def flush(self) -> None:
        """Hand the records there are to the reader, at the guest's next block."""
        with self._lock:
            self._library.panda_stream_flush(self._open())

    def stop(self) -> None:
        """No more events; the reader gets what there is, then the end."""
        with self._lock:
            if self._handle is not None:
                self._library.panda_stream_stop(self._handle)

    def close(self) -> None:
        """Stop it and free its memory; called at the end of a ``with`` block.

        A reader of pandalite's own gets what is left before. One in a thread of yours
        does not: if it is to, call :meth:`stop` and let it come to the end.
        Arrays and views of batches stay valid; so does what they show, from now on.

        Raises:
            BaseException: what its reader raised (``on_batch=``, ``to_file=``), unless
                ``run()`` raises it.
        """
        with self._lock:
            if self._handle is None or self._closing:
                return
            self._closing = True
            self._library.panda_stream_stop(self._handle)
        self._panda._streams.discard(self)
        self._join()
        # A reader that waits in C sees the end and lets go.
        with self._reading, self._lock:
            handle, self._handle = self._handle, None
            assert handle is not None
            self._last_stats = self._stats(handle)
            kept = [words for ref in self._views.values() if (words := ref()) is not None]
            self._library.panda_stream_close(handle, bool(kept))
            if kept:
                # The memory goes with the last that shows it.
                _Keeper(self._library, handle, kept)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    @property
    def delivered(self) -> int:
        """Number of records the reader got."""
        return self._read_stats()[0]

    @property
    def dropped(self) -> int:
        """Number of records lost as no batch was free; 0 unless ``when_full="drop"``."""
        return self._read_stats()[1]

    @property
    def waits(self) -> int:
        """How often the guest had to wait for the reader."""
        return self._read_stats()[2]

    def _read_stats(self) -> tuple[int, int, int]:
        with self._lock:
            return self._last_stats if self._handle is None else self._stats(self._handle)

    def _stats(self, handle: int) -> tuple[int, int, int]:
        stats = PandaStreamStats()
        self._library.panda_stream_stats(handle, stats)
        return stats.delivered, stats.dropped, stats.waits

    def _open(self) -> int:
        if self._handle is None:
            raise StateError("this stream is closed")
        return self._handle

    def _run_ended(self, at_rest: bool) -> None:
        """The run is over: the rest is the reader's."""
        self._panda._streams.discard(self)
        with self._lock:
            if self._handle is None:
                return
            if at_rest:
                self._library.panda_stream_finish(self._handle)
            else:
                self._library.panda_stream_stop(self._handle)
        self._join()

    def __del__(self) -> None:
        # One that nobody has closed and that its run has let go.
        if getattr(self, "_handle", None) is None or sys.is_finalizing():
            return
        if self._panda._owner_pid == os.getpid():
            self.close()

    # --- a reader of its own ---

    def _start(self, on_batch: Callable[[Batch], object], file: _RecordFile | None) -> None:
        def consume() -> None:
            try:
                for batch in self:
                    on_batch(batch)
                if file is not None:
                    file.complete()
            except BaseException as error:
                # Nobody reads any more, and the guest must not wait.
                self.stop()
                if file is not None:
                    file.discard()
                if self._panda._run_lock.locked():
                    self._panda._fail_run(error)
                else:
                    self._failure = error
                for _ in self:
                    pass

        self._thread = threading.Thread(target=consume, name=f"stream-{self.kind}", daemon=True)
        self._thread.start()

    def _join(self) -> None:
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            patience = _PATIENCE_INTERRUPTED if self._panda._interrupted else _PATIENCE
            thread.join(patience)
            if thread.is_alive():
                warn(
                    f"the reader of a stream of {self.kind} did not finish within "
                    f"{patience:g} s of its end; it was abandoned"
                )

    def __repr__(self) -> str:
        state = "closed" if self._handle is None else "open"
        return f"<{state} stream of {self.kind}: {', '.join(self.fields)}>"


class _Keeper:
    """Frees a closed stream's memory when nobody looks at its batches any more."""

    def __init__(self, library: CoreLibrary, handle: int, kept: list[Any]) -> None:
        self._library = library
        self._handle = handle
        self._left = len(kept)
        for words in kept:
            # Not at the interpreter's end: what is left then goes with the process.
            weakref.finalize(words, self._one_gone).atexit = False

    def _one_gone(self) -> None:
        self._left -= 1
        if not self._left:
            self._library.panda_stream_close(self._handle, False)


class Streams(PandaCore):
    """The part of Panda that opens streams."""

    _streams: set[Stream]

    def _init_streams(self) -> None:
        self._streams = set()

    def stream(
        self,
        kind: str,
        fields: Sequence[str] | None = None,
        *,
        batch: int = 65536,
        batches: int = 8,
        when_full: str = "wait",
        access: str = "rw",
        events: Sequence[str] | None = None,
        on_batch: Callable[[Batch], object] | None = None,
        to_file: str | os.PathLike[str] | None = None,
        enabled: bool = True,
        **filters: Any,
    ) -> Stream:
        """Open a stream of events (C: ``panda_stream_open``).

        Args:
            kind: ``"block"`` (starts of blocks), ``"edge"`` (from block to block),
                ``"insn"``, ``"mem"`` (accesses that were made), ``"asid"`` (changes of the
                address space), ``"exception"`` (with interrupts), ``"call"`` (calls and
                returns), ``"syscall"`` (system calls and their returns), ``"io"``
                (device registers and ports) or ``"os"`` (events of the guest's
                system); docs/streams.md.
            fields: what a record holds; default: all that the kind has.
            batch: records in a batch.
            batches: batches there may be at a time; the memory used is ``batch *
                batches * 8 * len(fields)`` bytes.
            when_full: all batches are full: ``"wait"``: the guest waits for the
                reader, and its clock stands still; ``"drop"``: records are lost
                and counted.
            access: of ``"mem"``: ``"r"``, ``"w"`` or ``"rw"``.
            events: of ``"os"``: which ones, names of :data:`OS_EVENTS`; default: all but
                ``"start"``, which is the same moment as ``"exec"``.
            on_batch: a function that gets each batch, in a thread of its own. What it
                raises ends the run and is raised by ``run()``.
            to_file: write the records to this file, as they are; it is there under
                this name when the stream has ended.
            enabled: False: no events get in until ``stream.enabled`` is set.
            filters: which events; see :func:`pandalite.filters.make_filter`.

        Raises:
            ValueError, TypeError: an argument makes no sense.
            StateError: there are too many streams, counters and filters (55).
            OSError: the file cannot be made.
            IntrospectionError: the guest's kernel is found and does not show one of events.
        """
        self._check_process()
        names = _fields(kind, fields)
        if when_full not in ("wait", "drop"):
            raise ValueError(f"when_full={when_full!r}: it is 'wait' or 'drop'")
        if access not in _ACCESSES:
            raise ValueError(f"access={access!r}: it is 'r', 'w' or 'rw'")
        if access != "rw" and kind != "mem":
            raise ValueError(f"access= is for streams of 'mem', not of {kind!r}")
        if events is not None and kind != "os":
            raise ValueError(f"events= is for streams of 'os', not of {kind!r}")
        if on_batch is not None and not callable(on_batch):
            raise TypeError(f"on_batch={on_batch!r} is not a function")
        if on_batch is not None and to_file is not None:
            raise ValueError("give on_batch= or to_file=, not both: a stream has one reader")
        wanted = filter_of(filters)
        spec = PandaStreamSpec()
        spec.kind = PandaStreamKind[kind.upper()]
        spec.n_fields = len(names)
        numbers: Any = (ctypes.c_uint32 * len(names))(
            *[PandaStreamField[f"FIELD_{name.upper()}"] for name in names]
        )
        spec.fields = numbers
        spec.batch = _positive("batch", batch)
        spec.batches = _positive("batches", batches)
        spec.drop = when_full == "drop"
        spec.accesses = _ACCESSES[access] if kind != "os" else _os_events(events)
        if events is not None:
            self._check_os_events(spec.accesses)
        file = None if to_file is None else _RecordFile(Path(to_file))
        handle = self.libpanda.panda_stream_open(spec, wanted)
        if not handle:
            if file is not None:
                file.discard()
            raise self._refusal(self.libpanda.panda_last_status())
        stream = Stream(self, handle, kind, names)
        self._streams.add(stream)
        if not enabled:
            stream.enabled = False
        if file is not None:
            on_batch = file.write
        if on_batch is not None:
            stream._start(on_batch, file)
        return stream

    def _check_os_events(self, wanted: int) -> None:
        """Those that are asked for by name have to be there, as far as that is known."""
        for number in range(wanted.bit_length()):
            reason = self.libpanda.panda_os_event_reason(number) if wanted >> number & 1 else None
            if reason is not None:
                raise IntrospectionError(reason.decode(errors="replace"))

    def _end_streams(self, at_rest: bool) -> None:
        """The run is over: readers get the rest, then the end."""
        for stream in list(self._streams):
            stream._run_ended(at_rest)


def _positive(name: str, number: int) -> int:
    if not isinstance(number, int) or not 0 < number < 1 << 31:
        raise ValueError(f"{name}={number!r}: it must be a number of 1 or more")
    return number


def _os_events(names: Sequence[str] | None) -> int:
    """Bits of ``PandaOsEventKind``."""
    if names is None:
        names = OS_EVENTS[1:]
    elif isinstance(names, str):
        names = (names,)
    unknown = [name for name in names if name not in OS_EVENTS]
    if unknown or not names:
        raise ValueError(
            f"events={names!r}: name some of the guest's events: {', '.join(OS_EVENTS)}"
        )
    return sum({1 << OS_EVENTS.index(name) for name in names})


def _fields(kind: str, fields: Sequence[str] | None) -> tuple[str, ...]:
    if kind not in KINDS:
        raise ValueError(f"there is no stream of {kind!r}; there are: {', '.join(KINDS)}")
    if isinstance(fields, str):
        fields = (fields,)
    try:
        names = KINDS[kind] if fields is None else tuple(fields)
    except TypeError:
        raise TypeError(f"fields={fields!r}: give a list of names") from None
    if not names or len(set(names)) != len(names):
        raise ValueError(f"fields={names!r}: give each field once, and at least one")
    for name in names:
        if name not in KINDS[kind]:
            raise ValueError(
                f"streams of {kind!r} have no field {name!r}; they have: {', '.join(KINDS[kind])}"
            )
    return names


class _RecordFile:
    """Records on their way into a file, which gets its name when they are complete."""

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.file = self.part.open("wb")

    def write(self, batch: Batch) -> None:
        self.file.write(batch.view)

    def complete(self) -> None:
        self.file.close()
        self.part.replace(self.path)

    def discard(self) -> None:
        # It may fail as the writes did; the descriptor is closed nevertheless.
        with contextlib.suppress(OSError):
            self.file.close()
        self.part.unlink(missing_ok=True)
