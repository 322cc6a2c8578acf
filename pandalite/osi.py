"""PyPANDA's names for the guest's operating system, over :mod:`pandalite.guest_os`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from . import errors
from ._bindings.structs import PandaOpenFile, PandaTask
from ._core import Cpu, PandaCore

if TYPE_CHECKING:
    from .guest_os import GuestOs, Mapping

_NAMES = re.compile(
    r"windows[-_]32[-_]xpsp[23]|windows[-_]32[-_]2000|windows[-_](32|64)[-_]7sp[01]"
    r"|(linux|freebsd)[-_](32|64)[-_].+"
)


class OsiProc(PandaTask):
    """A process, with the fields of PANDA's ``OsiProc`` and those of ``PandaTask``.

    ``pid`` and ``ppid`` are those the guest's user sees, ``name`` is bytes, ``asid`` is
    what ``panda.current_asid(cpu)`` says while it runs, 0 if unknown.
    """

    __slots__ = ()

    @property
    def taskd(self) -> int:
        """Address of its task_struct."""
        return self.task

    @property
    def pages(self) -> None:
        """Always None, as in PANDA."""
        return None

    def __repr__(self) -> str:
        return f"<OsiProc {self.pid} {self.name!r}>"


class OsiModule(NamedTuple):
    """A mapping, with the fields of PANDA's ``OsiModule``."""

    #: Address of its vm_area_struct.
    modd: int
    base: int
    size: int
    #: Path of its file; None without one.
    file: Any
    #: Last part of the path; ``[heap]``, ``[stack]`` or ``[???]`` without a file.
    name: Any
    #: Where in its file it begins, in bytes.
    offset: int
    #: The kernel's flags (vm_flags).
    flags: int


class Osi(PandaCore):
    """The part of Panda that asks the guest's operating system."""

    _guest_os: GuestOs | None = None
    _os_name: str | None = None

    @property
    def os(self) -> GuestOs:
        """The guest's operating system (:class:`pandalite.guest_os.GuestOs`)."""
        if self._guest_os is None:
            from .guest_os import GuestOs

            self._guest_os = GuestOs(self, self._os_name)
        return self._guest_os

    def set_os_name(self, os_name: str) -> None:
        """Name the guest's system, like ``"linux-64-debian:6.1"``. Nothing depends on it.

        Raises:
            ValueError: it is not of the form PANDA has.
        """
        if not _NAMES.fullmatch(os_name):
            raise ValueError(
                f"{os_name!r} is no name of a system: give one like 'linux-64-debian:6.1' "
                "(linux, freebsd or windows; 32 or 64; its version)"
            )
        self._os_name = os_name
        if self._guest_os is not None:
            self._guest_os.name = os_name

    def get_os_family(self) -> str:
        """``OS_LINUX``, ``OS_WINDOWS``, ``OS_FREEBSD`` or ``OS_UNKNOWN``, by the name given."""
        family = re.split("[-_]", self._os_name or self.os_type or "")[0].upper()
        return f"OS_{family}" if family in ("LINUX", "WINDOWS", "FREEBSD") else "OS_UNKNOWN"

    def get_id(self, cpu: Cpu) -> int:
        """A number that is the same whenever the same address space is current.

        The thread's task_struct where the address space's own number is reused
        (MIPS), else :meth:`current_asid`.
        """
        if self.arch_name.startswith("mips"):
            task = self._current_task()
            if task is not None:
                return task.mm or task.task
        return self.libpanda.fast.panda_current_asid(cpu)

    # --- processes ---

    def get_current_process(self, cpu: Cpu) -> OsiProc | None:
        """The process that runs; None if it is not known (C: ``panda_os_current``)."""
        process = OsiProc()
        return process if self.libpanda.fast.panda_os_current(process) >= 0 else None

    def get_process_name(self, cpu: Cpu) -> str | None:
        """Short name of the process that runs; None if it is not known."""
        task = self._current_task()
        return None if task is None else task.name.decode(errors="surrogateescape")

    def get_processes(self, cpu: Cpu) -> list[OsiProc]:
        """All processes, kernel threads included (C: ``panda_os_processes``).

        Raises:
            IntrospectionError: the guest's kernel is not found (yet).
        """
        return self.os._list(OsiProc, self.libpanda.panda_os_processes, 128)

    def get_processes_dict(self, cpu: Cpu) -> dict[int, dict[str, Any]]:
        """All processes by number: ``name``, ``pid``, ``parent_pid``, ``create_time``.

        Raises:
            IntrospectionError: the guest's kernel is not found (yet).
        """
        return {
            p.pid: {
                "name": p.name.decode(errors="surrogateescape"),
                "pid": p.pid,
                "parent_pid": p.ppid,
                "create_time": p.create_time,
            }
            for p in self.get_processes(cpu)
        }

    def garray_len(self, garray: Any) -> int:
        """How many elements a list of the plugin ``osi`` has; 0 for NULL."""
        return int(self.libpanda.panda_osi_garray_len(garray))

    # --- what the current one has ---

    def _current_task(self) -> PandaTask | None:
        task = PandaTask()
        return task if self.libpanda.fast.panda_os_current(task) >= 0 else None

    def get_mappings(self, cpu: Cpu) -> list[OsiModule]:
        """What the current process has mapped, by address; none for a kernel thread.

        ``file`` and ``name`` are bytes.
        """
        task = self._current_task()
        if task is None or not task.mm:
            return []
        return [
            _module(m, m.path.encode(errors="surrogateescape"))
            for m in self.os._process(task).mappings()
        ]

    def get_mapping_by_addr(self, cpu: Cpu, addr: int) -> OsiModule | None:
        """The mapping of the current process with an address in it; None without one.

        ``file`` and ``name`` are strings (C: ``panda_os_mapping_at``).
        """
        task = self._current_task()
        m = None if task is None else self.os._mapping_at(self.os._process(task), addr)
        return None if m is None else _module(m, m.path)

    def get_file_name(self, cpu: Cpu, fd: int) -> bytes | None:
        """Path of a file the current process has open; None if it has none of that number."""
        task = self._current_task()
        file = PandaOpenFile()
        if task is None or not -(1 << 31) <= fd < 1 << 31:
            return None
        if self.libpanda.panda_os_file(task.task, fd, file) < 0:
            return None
        try:
            return self.os._path(file.file).encode(errors="surrogateescape")
        except errors.IntrospectionError:
            return None


def _module(m: Mapping, path: Any) -> OsiModule:
    """An OsiModule; path is text or bytes, and so are its names."""
    text = isinstance(path, str)
    slash = "/" if text else b"/"
    if path and not path.startswith("[" if text else b"["):
        file, name = path, path.rsplit(slash, 1)[-1]
    else:
        file, name = None, path or ("[???]" if text else b"[???]")
    return OsiModule(m.vma, m.start, m.end - m.start, file, name, m.offset, m.flags)
