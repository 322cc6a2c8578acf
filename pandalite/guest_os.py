"""The guest's operating system, as ``panda.os`` shows it.

What is asked for is read from guest memory at that moment: ask in a callback on the
CPU thread, or while the guest is stopped. Linux, without a profile: the kernel's own
tables are found in memory (``csrc/introspect/``, docs/introspection.md).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

from . import user_symbols
from ._bindings.structs import (
    PandaLogMessage,
    PandaMapping,
    PandaModule,
    PandaMount,
    PandaOpenFile,
    PandaProcessMemory,
    PandaSocket,
    PandaTask,
)
from .errors import IntrospectionError
from .user_symbols import Library, UserSymbol

if TYPE_CHECKING:
    from ._core import PandaCore
    from .os_events import OsEvents

#: The longest path that is asked for.
_PATH = 4096

_FAMILIES = {1: "unix", 2: "inet", 10: "inet6", 16: "netlink", 17: "packet"}
_KINDS = {1: "stream", 2: "dgram", 3: "raw", 5: "seqpacket"}


@dataclass(frozen=True)
class Mapping:
    """A part of a process' address space (C: ``PandaMapping``)."""

    #: First address.
    start: int
    #: First address behind it.
    end: int
    #: As /proc/PID/maps has them, e.g. ``"r-xp"``.
    rights: str
    #: Where in its file it begins, in bytes.
    offset: int
    #: Path of the file; ``"[heap]"``, ``"[stack]"`` or the empty string without one.
    path: str
    #: Address of its vm_area_struct.
    vma: int = field(repr=False)
    #: The kernel's flags (vm_flags).
    flags: int = field(repr=False)


@dataclass(frozen=True)
class OpenFile:
    """A file a process has open (C: ``PandaOpenFile``)."""

    fd: int
    #: Path, ``pipe:[number]``, ``socket:[number]`` or ``anon_inode:...``.
    path: str
    #: Where the next read or write begins, in bytes.
    position: int
    #: Flags it was opened with (O_...).
    flags: int
    #: Address of its struct file.
    file: int = field(repr=False)


@dataclass(frozen=True)
class Socket:
    """A socket a process has open (C: ``PandaSocket``)."""

    fd: int
    #: ``unix``, ``inet``, ``inet6``, ``netlink``, ``packet`` or a number.
    family: str
    #: ``stream``, ``dgram``, ``raw``, ``seqpacket`` or a number.
    kind: str
    #: Number of the protocol, e.g. 6 for TCP.
    protocol: int
    #: The protocol's state; TCP: 1 established, 10 listening.
    state: int
    #: Address and port; the address is text, empty where there are none. Of a unix
    #: socket it is its name, as /proc/net/unix has it: ``@`` is a byte that is 0.
    local: tuple[str, int]
    remote: tuple[str, int]


@dataclass(frozen=True)
class Module:
    """A loaded kernel module (C: ``PandaModule``)."""

    name: str
    base: int
    #: Bytes of all its parts.
    size: int
    #: Address of its struct module.
    module: int = field(repr=False)


@dataclass(frozen=True)
class Symbol:
    """A symbol of the kernel."""

    name: str
    address: int
    #: How far behind it the address is that was asked for.
    offset: int = 0
    #: Name of the module that has it; the empty string for the kernel itself.
    module: str = ""

    def __str__(self) -> str:
        text = f"{self.name}+{self.offset:#x}" if self.offset else self.name
        return f"{text} [{self.module}]" if self.module else text


@dataclass(frozen=True)
class Mount:
    """What is mounted at a place (C: ``PandaMount``)."""

    #: What is mounted, e.g. ``"/dev/sda1"`` or ``"proc"``.
    source: str
    #: Where.
    path: str
    #: Kind of file system.
    kind: str
    #: ``"rw"`` or ``"ro"`` first, then as in /proc/mounts; not the file system's own ones.
    options: list[str]
    #: Addresses of its struct mount and of that it is on.
    mount: int = field(repr=False)
    parent: int = field(repr=False)


@dataclass(frozen=True)
class LogMessage:
    """A message in the kernel's log (C: ``PandaLogMessage``).

    Printed, it is as ``dmesg`` shows it.
    """

    #: Its number, from 0 on.
    sequence: int
    #: When it was logged, in ns of the kernel's clock.
    time: int
    #: 0 (emergency) to 7 (debugging).
    level: int
    #: 0: the kernel itself; else as programs give it to syslog().
    facility: int
    text: str

    def __str__(self) -> str:
        seconds, rest = divmod(self.time, 10**9)
        stamp = f"[{seconds:5}.{rest // 1000:06}] "
        return "\n".join(stamp + line for line in self.text.split("\n"))


@dataclass(frozen=True)
class Process:
    """A process of the guest, or one thread of it (C: ``PandaTask``).

    The fields are what was true when it was asked for; the methods ask anew and
    raise IntrospectionError if it has ended meanwhile.
    """

    pid: int
    #: The thread: equal to ``pid`` for the first one of a process.
    tid: int
    ppid: int
    #: Short name (comm): at most 15 bytes.
    name: str
    uid: int
    gid: int
    euid: int
    egid: int
    kernel_thread: bool
    #: The kernel's state word; 0: it runs or may run.
    state: int
    #: When it began, in ns of the guest's clock; 0 if unknown.
    create_time: int
    #: What ``panda.current_asid(cpu)`` says while it runs; 0 if unknown.
    asid: int
    #: Addresses of its task_struct, mm_struct and top page table.
    task: int = field(repr=False)
    mm: int = field(repr=False)
    pgd: int = field(repr=False)
    _os: GuestOs = field(repr=False, compare=False)

    def mappings(self) -> list[Mapping]:
        """What it has mapped, by address; none for a kernel thread."""
        return self._os._mappings(self)

    def files(self) -> list[OpenFile]:
        """The files it has open, by descriptor."""
        return self._os._files(self.task)

    def sockets(self) -> list[Socket]:
        """Those of its files that are sockets.

        Raises:
            IntrospectionError: What one of them is cannot be made out.
        """
        return self._os._sockets(self.task)

    def threads(self) -> list[Process]:
        """All its threads, the first one included."""
        return self._os._tasks(self._os._library.panda_os_threads, self.task)

    def exe(self) -> str:
        """Path of the program it runs; the empty string for a kernel thread."""
        return "" if not self.mm else self._os._text(self._os._library.panda_os_exe, self.task)

    def cmdline(self) -> list[str]:
        """Its arguments, the name of the program first."""
        bounds = self._os._bounds(self)
        return self._strings(bounds.arg_start, bounds.arg_end) if bounds else []

    def environ(self) -> dict[str, str]:
        """Its environment, as it was when the program began."""
        bounds = self._os._bounds(self)
        words = self._strings(bounds.env_start, bounds.env_end) if bounds else []
        return dict(word.split("=", 1) for word in words if "=" in word)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of its memory, whether it runs or not: up to the first page that is not there."""
        return self._os._read(self.task, address, size)

    def symbol_at(self, address: int) -> UserSymbol | None:
        """The symbol of its program or a library that an address is in; None: in none."""
        return user_symbols.symbol_at(self._os, self.task, address)

    def symbol(self, name: str, library: str | None = None) -> UserSymbol:
        """A symbol of its program or a library, by name.

        Args:
            name: may end with ``@`` and a version.
            library: a part of the path of the file it is to be in; None: any.

        Raises:
            IntrospectionError: there is none.
        """
        return user_symbols.symbol(self._os, self.task, name, library)

    def symbols(self, library: str) -> list[UserSymbol]:
        """All symbols of the first file with a part in its path, by address.

        Raises:
            IntrospectionError: it has no such file.
        """
        return user_symbols.symbols(self._os, self.task, library)

    def libraries(self) -> list[Library]:
        """Its program and the libraries it has mapped, by address."""
        return user_symbols.libraries(self._os, self.task)

    def _strings(self, start: int, end: int) -> list[str]:
        if not 0 < end - start <= 1 << 20:
            return []
        words = self.read(start, end - start).rstrip(b"\0").split(b"\0")
        return [os.fsdecode(word) for word in words if word]


class GuestOs:
    """The guest's operating system: ``panda.os``.

    Printed, and compared with a string, it is the name that was given to
    ``Panda(os_version=)`` or :meth:`pandalite.Panda.set_os_name`.
    """

    def __init__(self, panda: PandaCore, name: str | None) -> None:
        self._panda = panda
        self._library = panda.libpanda
        #: The name that was given, like ``"linux-64-debian:6.1"``; None without one.
        self.name = name
        self._events: OsEvents | None = None

    def __str__(self) -> str:
        return self.name or ""

    def __repr__(self) -> str:
        return f"<guest system {self.name or 'without a name'}>"

    def __eq__(self, other: object) -> bool:
        return self.name == other if isinstance(other, str) or other is None else self is other

    def __hash__(self) -> int:
        return hash(self.name)

    def __bool__(self) -> bool:
        return self.name is not None

    # --- the kernel ---

    def attach(self) -> None:
        """Find the kernel in guest memory now, rather than when it is first needed.

        Raises:
            IntrospectionError: it is not there (yet), and why (C: ``panda_os_attach``).
        """
        self._check(self._library.panda_os_attach())

    @property
    def release(self) -> str:
        """The kernel's release, e.g. ``"6.1.0-50-amd64"`` (C: ``panda_os_release``)."""
        return (self._library.panda_os_release() or b"").decode(errors="replace")

    def report(self) -> str:
        """What is known of the kernel and how, as text (C: ``panda_os_report``)."""
        return (self._library.panda_os_report() or b"").decode(errors="replace")

    def symbol(self, name: str) -> Symbol:
        """A symbol of the kernel by name (C: ``panda_os_symbol``).

        Else one of its modules; ``"module:name"`` is one of that module.

        Raises:
            IntrospectionError: there is none.
        """
        address = ctypes.c_uint64()
        self._check(self._library.panda_os_symbol(name.encode(), ctypes.byref(address)))
        module, _, own = name.rpartition(":")
        return Symbol(own, address.value, 0, module)

    def symbol_at(self, address: int) -> Symbol | None:
        """The kernel's symbol at or below an address (C: ``panda_os_symbol_at``).

        In a module it is the module's.
        """
        offset = ctypes.c_uint64()
        found = self._library.panda_os_symbol_at(address, ctypes.byref(offset))
        if found is None:
            return None
        name, _, module = found.decode(errors="replace").partition(" [")
        return Symbol(name, address - offset.value, offset.value, module.rstrip("]"))

    def modules(self) -> list[Module]:
        """The loaded modules, as /proc/modules has them (C: ``panda_os_modules``).

        Raises:
            IntrospectionError: the kernel does not show them.
        """
        found = self._list(PandaModule, self._library.panda_os_modules, 256)
        return [Module(os.fsdecode(m.name), m.base, m.size, m.module) for m in found]

    def set_symbol_directory(self, directory: str | os.PathLike[str] | None) -> None:
        """Where copies of the guest's files are on the host, for symbols of programs.

        A file is looked for at its path in the guest below it, when its tables are not
        all in the guest's memory, and only used if its first page is equal.

        Args:
            directory: a copy of the guest's root directory; None: there is none.

        Raises:
            ValueError: there is no such directory (C: ``panda_os_set_symbol_directory``).
        """
        if directory is not None and not os.path.isdir(directory):
            raise ValueError(f"there is no directory {os.fsdecode(directory)!r}")
        path = None if directory is None else os.fsencode(directory)
        self._check(self._library.panda_os_set_symbol_directory(path))

    def mounts(self, process: Process | None = None) -> list[Mount]:
        """What a process sees mounted, as /proc/mounts; the first process if none is given.

        A mount comes behind the one it is on (C: ``panda_os_mounts``).

        Raises:
            IntrospectionError: the kernel's mounts are not known; the process has ended.
        """
        lib, task = self._library, (process or self.process(1)).task
        return [
            Mount(
                self._text(lib.panda_os_mount_source, m.mount),
                self._text(lib.panda_os_mount_path, task, m.mount),
                os.fsdecode(m.type),
                _mount_options(m.flags, m.sb_flags),
                m.mount,
                m.parent,
            )
            for m in self._list(PandaMount, lib.panda_os_mounts, 64, task)
        ]

    def dmesg(self) -> list[LogMessage]:
        """The kernel's log, the oldest message first (C: ``panda_os_dmesg``).

        Raises:
            IntrospectionError: where the log is is not known: kernels before 5.10, or
                without VMCOREINFO.
        """
        room, size = 2048, 1 << 18
        while True:
            found, texts = (PandaLogMessage * room)(), ctypes.create_string_buffer(size)
            count = self._library.panda_os_dmesg(found, room, texts, size)
            self._check(count)
            if count > room:
                room = count + count // 4
                continue
            needed = found[count - 1].text + found[count - 1].length if count else 0
            if needed > size:
                size = needed + needed // 4
                continue
            raw = texts.raw
            return [
                LogMessage(
                    m.sequence,
                    m.time,
                    m.level,
                    m.facility,
                    raw[m.text : m.text + m.length].decode(errors="surrogateescape"),
                )
                for m in found[:count]
            ]

    def uptime(self) -> float:
        """Seconds since the boot, as the kernel has it: as of its last tick.

        An idle kernel does not tick, and catches up with the next interrupt
        (C: ``panda_os_uptime``).

        Raises:
            IntrospectionError: the kernel's clock is not known.
        """
        ns = ctypes.c_uint64()
        self._check(self._library.panda_os_uptime(ctypes.byref(ns)))
        return ns.value / 1e9

    def profile(self, group: str | None = None) -> str:
        """What is known of the kernel, in the format of PANDA's ``kernelinfo.conf``.

        Args:
            group: name of the group; the kernel's release if none is given.

        Raises:
            IntrospectionError: the kernel is not found (C: ``panda_os_profile``).
        """
        text = self._library.panda_os_profile(None if group is None else group.encode())
        if text is None:
            raise self._panda._error(self._library.panda_last_status())
        return bytes(text).decode()

    def use_profile(self, path: str | os.PathLike[str] | None, group: str | None = None) -> None:
        """Take the kernel's layout from a file like ``kernelinfo.conf``; None: no longer.

        It is checked against memory when the kernel is next asked for: if it does not
        fit, that raises IntrospectionError and names the keys (C: ``panda_os_use_profile``).

        Args:
            path: the file.
            group: the kernel's group; if none is given, that which ``Panda(os_version=)``
                names, if there is one, else that whose name is the kernel's.

        Raises:
            ValueError: there is no such file or group.
        """
        where = None if path is None else os.fsencode(path)
        status = self._library.panda_os_use_profile(
            where, None if group is None else group.encode()
        )
        if status < 0:
            raise self._panda._refusal(status)

    # --- processes ---

    @property
    def current(self) -> Process | None:
        """The thread that runs; None if it is not known (C: ``panda_os_current``)."""
        task = PandaTask()
        if self._library.panda_os_current(ctypes.byref(task)) < 0:
            return None
        return self._process(task)

    def processes(self) -> list[Process]:
        """All processes, kernel threads included (C: ``panda_os_processes``).

        Raises:
            IntrospectionError: the kernel is not found.
        """
        return self._tasks(self._library.panda_os_processes)

    def threads(self) -> Iterator[Process]:
        """All threads of all processes."""
        for process in self.processes():
            yield from process.threads() if process.pid else [process]

    def process(self, pid: int) -> Process:
        """The process with a number.

        Raises:
            IntrospectionError: there is none.
        """
        for process in self.processes():
            if process.pid == pid:
                return process
        raise IntrospectionError(f"the guest has no process {pid}")

    # --- events ---

    def on(
        self,
        kind: str,
        *,
        procname: str | None = None,
        pid: int | None = None,
        name: str | None = None,
    ) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
        """Decorate a function that is called with each event of a kind.

        What the events are and what a function gets is in :mod:`pandalite.os_events`.
        It is called on the CPU thread, in the kernel's code; the rules of callbacks
        hold, those on exceptions too. At the end of the run it is removed.

        Args:
            kind: ``"start"``, ``"exec"``, ``"fork"``, ``"exit"``, ``"switch"``,
                ``"mmap"``, ``"open"``, ``"close"``, ``"signal"`` or ``"deliver"``.
            procname: of processes of this short name only (15 bytes, as for callbacks).
            pid: of this process only.
            name: to refer to it in :meth:`off`; default: the function's.

        Raises:
            ValueError: there is no such event.
            IntrospectionError: the guest's kernel does not show it. If that is
                found out in the run, ``run()`` raises it.
        """
        from .os_events import OsEvents, check_kind

        check_kind(kind)

        def register(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            if self._events is None:
                self._events = OsEvents(self)
            self._events.add(kind, function, procname, pid, name)
            return function

        return register

    def off(self, function: str | Callable[[Any], Any]) -> None:
        """Have a function of :meth:`on` called no more, by itself or by its name.

        Raises:
            KeyError: there is none.
        """
        if self._events is None:
            raise KeyError(function)
        self._events.remove(function)

    # --- what processes ask ---

    def _check(self, status: int) -> None:
        if status < 0:
            raise self._panda._error(status)

    def _list(self, kind: Any, function: Callable[..., int], guess: int, *first: int) -> list[Any]:
        """Call a C function that fills an array, again if it has more than were thought."""
        room = guess
        while True:
            array = (kind * room)()
            count = function(*first, array, room)
            self._check(count)
            if count <= room:
                return list(array[:count])
            room = count + count // 4

    def _tasks(self, function: Callable[..., int], *first: int) -> list[Process]:
        return [self._process(t) for t in self._list(PandaTask, function, 128, *first)]

    def _process(self, t: PandaTask) -> Process:
        return Process(
            t.pid,
            t.tid,
            t.ppid,
            os.fsdecode(t.name),
            t.uid,
            t.gid,
            t.euid,
            t.egid,
            bool(t.kernel_thread),
            t.state,
            t.create_time,
            t.asid,
            t.task,
            t.mm,
            t.pgd,
            self,
        )

    def _text(self, function: Callable[..., int], *addresses: int) -> str:
        buffer = ctypes.create_string_buffer(_PATH)
        self._check(function(*addresses, buffer, _PATH))
        return os.fsdecode(buffer.value)

    def _path(self, file: int) -> str:
        return self._text(self._library.panda_os_file_path, file)

    def _bounds(self, process: Process) -> PandaProcessMemory | None:
        if not process.mm:
            return None
        memory = PandaProcessMemory()
        self._check(self._library.panda_os_memory(process.task, ctypes.byref(memory)))
        return memory

    def _mappings(self, process: Process) -> list[Mapping]:
        bounds = self._bounds(process)
        if bounds is None:
            return []
        found = self._list(PandaMapping, self._library.panda_os_mappings, 64, process.task)
        paths = {m.file: self._path(m.file) for m in found if m.file}
        return [_mapping(m, paths.get(m.file) or _purpose(m, bounds)) for m in found]

    def _mapping_at(self, process: Process, address: int) -> Mapping | None:
        bounds = self._bounds(process)
        m = PandaMapping()
        if bounds is None or self._library.panda_os_mapping_at(process.task, address, m) < 0:
            return None
        return _mapping(m, self._path(m.file) if m.file else _purpose(m, bounds))

    def _files(self, task: int) -> list[OpenFile]:
        found = self._list(PandaOpenFile, self._library.panda_os_files, 64, task)
        return [OpenFile(f.fd, self._path(f.file), f.pos, f.flags, f.file) for f in found]

    def _sockets(self, task: int) -> list[Socket]:
        result = []
        for f in self._list(PandaOpenFile, self._library.panda_os_files, 64, task):
            if not self._path(f.file).startswith("socket:["):
                continue
            s = PandaSocket()
            self._check(self._library.panda_os_socket(f.file, ctypes.byref(s)))
            local = s.path.decode(errors="surrogateescape")
            result.append(
                Socket(
                    f.fd,
                    _FAMILIES.get(s.family, str(s.family)),
                    _KINDS.get(s.type, str(s.type)),
                    s.protocol,
                    s.state,
                    (local or _address(s.family, bytes(s.local_address)), s.local_port),
                    (_address(s.family, bytes(s.remote_address)), s.remote_port),
                )
            )
        return result

    def _read(self, task: int, address: int, size: int) -> bytes:
        buffer = (ctypes.c_uint8 * size)()
        count = self._library.panda_os_read(task, address, buffer, size)
        self._check(count)
        return bytes(memoryview(buffer)[:count])


def _mapping(m: PandaMapping, path: str) -> Mapping:
    return Mapping(m.start, m.end, _rights(m.flags), m.offset, path, m.vma, m.flags)


def _rights(flags: int) -> str:
    letters = "".join(c if flags & bit else "-" for c, bit in (("r", 1), ("w", 2), ("x", 4)))
    return letters + ("s" if flags & 0x80 else "p")


def _purpose(mapping: PandaMapping, bounds: PandaProcessMemory) -> str:
    if mapping.start <= bounds.brk and mapping.end >= bounds.start_brk and bounds.start_brk:
        return "[heap]"
    if mapping.start <= bounds.start_stack < mapping.end:
        return "[stack]"
    return ""


def _address(family: int, raw: bytes) -> str:
    import socket

    if family == 2:
        return socket.inet_ntop(socket.AF_INET, raw[:4])
    return socket.inet_ntop(socket.AF_INET6, raw) if family == 10 else ""


#: Flags of file systems (SB_...) and of mounts (MNT_...), in the order the kernel shows them.
_SB_OPTIONS = {16: "sync", 128: "dirsync", 64: "mand", 1 << 25: "lazytime"}
_MNT_OPTIONS = {
    1: "nosuid",
    2: "nodev",
    4: "noexec",
    8: "noatime",
    16: "nodiratime",
    32: "relatime",
    128: "nosymfollow",
}


def _mount_options(flags: int, sb_flags: int) -> list[str]:
    found = ["ro" if flags & 64 or sb_flags & 1 else "rw"]
    found += [name for bit, name in _SB_OPTIONS.items() if sb_flags & bit]
    return found + [name for bit, name in _MNT_OPTIONS.items() if flags & bit]
