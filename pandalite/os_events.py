"""Events of the guest's operating system: ``@panda.os.on("exec")``.

The core hooks functions of the guest's kernel while somebody listens
(``csrc/introspect/events.c``), and enters Python for the events that are wanted. A
function gets one of the objects below; all of it is read at that moment, so what it
gives stays true of the event.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._bindings.enums import PandaOsEventKind
from ._bindings.structs import PandaOsEvent, PandaOsListenerSpec
from .callbacks import _raise
from .errors import CallbackSignatureError, IntrospectionError
from .streams import OS_EVENTS as KINDS

if TYPE_CHECKING:
    from .guest_os import GuestOs, Mapping, Process

#: Most words, bytes of text and pairs that are read of a program's first stack. Linux
#: gives a program 6 MB at most.
_MOST_WORDS = 1 << 16
_MOST_BYTES = 1 << 23
_MOST_PAIRS = 64

#: Names of the auxiliary vector's numbers (AT_...), without the prefix, in lower case.
AUXV: dict[int, str] = {
    3: "phdr",
    4: "phent",
    5: "phnum",
    6: "pagesz",
    7: "base",
    8: "flags",
    9: "entry",
    11: "uid",
    12: "euid",
    13: "gid",
    14: "egid",
    15: "platform",
    16: "hwcap",
    17: "clktck",
    23: "secure",
    24: "base_platform",
    25: "random",
    26: "hwcap2",
    27: "rseq_feature_size",
    28: "rseq_align",
    29: "hwcap3",
    30: "hwcap4",
    31: "execfn",
    32: "sysinfo",
    33: "sysinfo_ehdr",
    51: "minsigstksz",
}


@dataclass(frozen=True)
class OsEvent:
    """An event: whom it happens to, and when (C: ``PandaOsEvent``)."""

    #: ``"start"``, ``"exec"``, ``"fork"``, ``"exit"``, ``"switch"``, ``"mmap"``,
    #: ``"open"``, ``"close"``, ``"signal"`` or ``"deliver"``.
    kind: str
    #: The thread it happens to, as it is at that moment.
    process: Process
    #: Instructions since the recording or replay began; 0 without one.
    count: int


@dataclass(frozen=True)
class ExecEvent(OsEvent):
    """``exec``: a process has got another program, which has not run yet."""

    #: Path of the program.
    exe: str


@dataclass(frozen=True)
class StartEvent(ExecEvent):
    """``start``: the same moment, with all that the program is given.

    As far as it can be read: a guest may have anything on a program's stack.
    """

    argv: list[str]
    #: Its environment, in the order it is given.
    envp: list[str]
    #: The auxiliary vector: names of :data:`AUXV`, or numbers, and values.
    auxv: dict[str | int, int]


@dataclass(frozen=True)
class ForkEvent(OsEvent):
    """``fork``: a process makes another one, or a thread, which has not run yet."""

    child: Process
    #: The child is a thread of the same process.
    is_thread: bool


@dataclass(frozen=True)
class ExitEvent(OsEvent):
    """``exit``: a thread ends."""

    #: As wait() has it.
    status: int
    #: What the program has given to exit(); None if a signal ends it.
    code: int | None
    #: Number of the signal that ends it; None if it ends by itself.
    signal: int | None
    #: No other thread of the process is left: it ends.
    is_last: bool


@dataclass(frozen=True)
class SwitchEvent(OsEvent):
    """``switch``: another thread runs, ``process``."""


@dataclass(frozen=True)
class MmapEvent(OsEvent):
    """``mmap``: a mapping was made, or has changed."""

    mapping: Mapping
    #: It was there, and its bounds or rights have changed.
    changed: bool


@dataclass(frozen=True)
class FileEvent(OsEvent):
    """``open`` and ``close``: a descriptor comes or goes."""

    #: -1: closed by exec or at the end of the process.
    fd: int
    #: Path, ``pipe:[number]``, ``socket:[number]`` or ``anon_inode:...``.
    path: str
    #: Address of its struct file.
    file: int = field(repr=False)


@dataclass(frozen=True)
class SignalEvent(OsEvent):
    """``signal``: a signal is sent to ``process``, which does not know of it yet."""

    number: int
    #: The thread whose system call, fault or end it is from; for timers and the
    #: terminal it is whatever ran.
    sender: Process | None
    _suppressed: list[bool] = field(default_factory=list, repr=False, compare=False)

    def suppress(self) -> None:
        """Do not let it happen: the process gets SIGWINCH, which does nothing by itself."""
        self._suppressed[:] = [True]


@dataclass(frozen=True)
class DeliverEvent(OsEvent):
    """``deliver``: a program's own function for a signal is about to run."""

    number: int


#: What is called for an event.
Function = Callable[[Any], Any]


class _Listener:
    """A function that listens, and what C calls."""

    def __init__(self, number: int, function: Function, keep: tuple[Any, ...]) -> None:
        self.number = number
        self.function = function
        self.keep = keep


class OsEvents:
    """Who listens to events of a guest's system; one for each Panda."""

    def __init__(self, guest: GuestOs) -> None:
        panda: Any = guest._panda
        self._guest = guest
        self._panda = panda
        self._library = guest._library
        self._listeners: dict[str, _Listener] = {}
        panda._removers.append(self.remove_all)

    def add(
        self, kind: str, function: Function, procname: str | None, pid: int | None, name: str | None
    ) -> None:
        """Have a function called; see :meth:`pandalite.guest_os.GuestOs.on`."""
        panda = self._panda
        panda._check_process()
        if not callable(function):
            raise CallbackSignatureError(f"{kind}: {function!r} is not a function")
        chosen = str(name or getattr(function, "__name__", kind))
        while name is None and chosen in self._listeners:
            chosen += "_"
        failed = panda._callback_failed if panda.catch_exceptions else _raise
        make = _MAKERS[kind]
        guest = self._guest

        def call(_cpu: int, where: int, _context: int) -> int:
            try:
                event = make(guest, kind, PandaOsEvent.from_address(where))
                function(event)
                return bool(isinstance(event, SignalEvent) and event._suppressed)
            except BaseException as error:
                failed(error)
                return 0

        def missing(reason: bytes, _context: int) -> None:
            panda._callback_failed(IntrospectionError(reason.decode(errors="replace")))

        spec = PandaOsListenerSpec()
        spec.kind = PandaOsEventKind[kind.upper()]
        spec.pid = pid or 0
        spec.procname = None if procname is None else os.fsencode(procname)
        keep = _CALL(call), _MISSING(missing)
        spec.function = ctypes.cast(keep[0], type(spec.function))
        spec.missing = ctypes.cast(keep[1], type(spec.missing))
        number = self._library.panda_os_events_add(spec)
        if number < 0:
            raise panda._refusal(number)
        if chosen in self._listeners:
            self.remove(chosen)
        self._listeners[chosen] = _Listener(number, function, keep)

    def remove(self, which: str | Function) -> None:
        """Have it called no more; KeyError if there is none."""
        names = [
            name for name, listener in self._listeners.items() if which in (name, listener.function)
        ]
        if not names:
            raise KeyError(which)
        for name in names:
            listener = self._listeners.pop(name)
            self._library.panda_os_events_remove(listener.number)
            # Its C function may be running this moment: it goes when the run ends.
            self._panda._retired_callbacks.append({"os event": listener.keep})

    def remove_all(self) -> None:
        """The run is over."""
        for name in list(self._listeners):
            self.remove(name)


def check_kind(kind: str) -> None:
    """Refuse what is no event; ValueError says which there are."""
    if kind not in KINDS:
        raise ValueError(f"the guest's system has no event {kind!r}: {', '.join(KINDS)}")


_CALL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_MISSING = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p)


# --- the objects, of what C knows ---


def _common(guest: GuestOs, kind: str, e: PandaOsEvent) -> tuple[str, Process, int]:
    return kind, guest._process(e.task), e.count


def _path(guest: GuestOs, file: int) -> str:
    """Path of a file; the empty string if it cannot be read."""
    try:
        return guest._path(file) if file else ""
    except IntrospectionError:
        return ""


def _exe(guest: GuestOs, process: Process) -> str:
    try:
        return process.exe()
    except IntrospectionError:
        return ""


def _exec(guest: GuestOs, kind: str, e: PandaOsEvent) -> OsEvent:
    common = _common(guest, kind, e)
    return ExecEvent(*common, _exe(guest, common[1]))


def _start(guest: GuestOs, kind: str, e: PandaOsEvent) -> OsEvent:
    common = _common(guest, kind, e)
    return StartEvent(*common, _exe(guest, common[1]), *_first_stack(guest, common[1]))


def _fork(guest: GuestOs, kind: str, e: PandaOsEvent) -> OsEvent:
    child = guest._process(e.other)
    return ForkEvent(*_common(guest, kind, e), child, child.pid != child.tid)


def _exit(guest: GuestOs, kind: str, e: PandaOsEvent) -> OsEvent:
    signal = e.value & 0x7F
    code = None if signal else e.value >> 8 & 0xFF
    return ExitEvent(*_common(guest, kind, e), e.value, code, signal or None, bool(e.flag))


def _switch(guest: GuestOs, kind: str, e: PandaOsEvent) -> OsEvent:
    return SwitchEvent(*_common(guest, kind, e))


def _mmap(guest: GuestOs, kind: str, e: PandaOsEvent) -> OsEvent:
    from .guest_os import _mapping

    mapping = _mapping(e.mapping, _path(guest, e.file))
    return MmapEvent(*_common(guest, kind, e), mapping, bool(e.flag))


def _file(guest: GuestOs, kind: str, e: PandaOsEvent) -> OsEvent:
    return FileEvent(*_common(guest, kind, e), e.value, _path(guest, e.file), e.file)


def _signal(guest: GuestOs, kind: str, e: PandaOsEvent) -> OsEvent:
    sender = guest._process(e.other) if e.other.task else None
    return SignalEvent(*_common(guest, kind, e), e.value, sender)


def _deliver(guest: GuestOs, kind: str, e: PandaOsEvent) -> OsEvent:
    return DeliverEvent(*_common(guest, kind, e), e.value)


_MAKERS: dict[str, Callable[[Any, str, Any], OsEvent]] = {
    "start": _start,
    "exec": _exec,
    "fork": _fork,
    "exit": _exit,
    "switch": _switch,
    "mmap": _mmap,
    "open": _file,
    "close": _file,
    "signal": _signal,
    "deliver": _deliver,
}


def name_of(name0: int, name1: int) -> str:
    """The name of a process, of a record's ``name0`` and ``name1``."""
    import sys

    raw = name0.to_bytes(8, sys.byteorder) + name1.to_bytes(8, sys.byteorder)
    return os.fsdecode(raw.split(b"\0", 1)[0])


# --- what a program finds on its stack ---


class _Words:
    """Words of a program's memory, one after another."""

    def __init__(self, process: Process, address: int, size: int, order: Any) -> None:
        self._process = process
        self._at = address
        self._size = size
        self._order = order
        self._left = b""

    def next(self) -> int:
        if len(self._left) < self._size:
            more = self._process.read(self._at, 256 * self._size)
            self._at += len(more)
            self._left += more
            if len(self._left) < self._size:
                raise IntrospectionError("the program's first stack cannot be read")
        word, self._left = self._left[: self._size], self._left[self._size :]
        return int.from_bytes(word, self._order)


def _text_at(process: Process, address: int) -> str:
    text = b""
    while b"\0" not in text and len(text) < 1 << 17:
        # Up to the end of a page: the next one may not be there.
        more = process.read(address + len(text), 4096 - (address + len(text)) % 4096)
        if not more:
            break
        text += more
    return os.fsdecode(text.split(b"\0", 1)[0])


def _texts(process: Process, words: _Words) -> list[str]:
    found: list[str] = []
    size = 0
    while len(found) < _MOST_WORDS and size < _MOST_BYTES:
        pointer = words.next()
        if not pointer:
            break
        found.append(_text_at(process, pointer))
        size += len(found[-1])
    return found


def _first_stack(
    guest: GuestOs, process: Process
) -> tuple[list[str], list[str], dict[str | int, int]]:
    panda: Any = guest._panda
    argv: list[str] = []
    envp: list[str] = []
    auxv: dict[str | int, int] = {}
    with contextlib.suppress(IntrospectionError):
        bounds = guest._bounds(process)
        if bounds is None:
            return argv, envp, auxv
        # A machine of PowerPC starts in one byte order, and may run programs of the other.
        orders = (panda.endianness, "big" if panda.endianness == "little" else "little")
        for order, width in itertools.product(orders, (panda.bits // 8, 4)):
            words = _Words(process, bounds.start_stack, width, order)
            # A count; a program of 32 bits has a pointer behind it in the same word.
            if 0 <= words.next() <= _MOST_WORDS:
                break
        argv, envp = _texts(process, words), _texts(process, words)
        for _ in range(_MOST_PAIRS):
            number, value = words.next(), words.next()
            if not number:
                break
            auxv[AUXV.get(number, number)] = value
    return argv, envp, auxv
