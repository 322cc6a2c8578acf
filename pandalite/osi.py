"""PyPANDA's names for the guest's operating system, over :mod:`pandalite.guest_os`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from . import errors, osi_provided
from ._bindings.structs import PandaOpenFile, PandaTask
from ._core import Cpu, PandaCore
from .osi_types import OsiModule, OsiProc

if TYPE_CHECKING:
    from .guest_os import GuestOs, Mapping

_NAMES = re.compile(
    r"windows[-_]32[-_]xpsp[23]|windows[-_]32[-_]2000|windows[-_](32|64)[-_]7sp[01]"
    r"|(linux|freebsd)[-_](32|64)[-_].+"
)


class Osi(PandaCore):
    """The part of Panda that asks the guest's operating system.

    PyPANDA's functions ask plugins that answer instead of the core, if there are any
    (PPP callbacks ``on_get_...`` of ``osi``); ``panda.os`` is always the core's.
    """

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
        """Name the guest's system, like ``"linux-64-debian:6.1"``.

        Its last part is the group of a profile (``kernelinfo.conf``) that is taken if no
        other is named, see :meth:`pandalite.guest_os.GuestOs.use_profile`. Nothing else
        depends on it.

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
        self._tell_os_name()

    def _tell_os_name(self) -> None:
        """The core has the name too, once it is loaded; its plugins ask for it."""
        if hasattr(self, "libpanda"):
            self.libpanda.panda_set_os_name(os.fsencode(self._os_name or ""))

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
        if self.libpanda.fast.panda_osi_is_provided():
            return osi_provided.current_process(self.libpanda, cpu)
        process = OsiProc()
        return process if self.libpanda.fast.panda_os_current(process) >= 0 else None

    def get_process_name(self, cpu: Cpu) -> str | None:
        """Short name of the process that runs; None if it is not known."""
        task = self._current_task(cpu)
        return None if task is None else task.name.decode(errors="surrogateescape")

    def get_processes(self, cpu: Cpu) -> list[OsiProc]:
        """All processes, kernel threads included (C: ``panda_os_processes``).

        Raises:
            IntrospectionError: the guest's kernel is not found (yet).
        """
        if self.libpanda.fast.panda_osi_is_provided():
            return osi_provided.processes(self.libpanda, cpu)
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

    def _current_task(self, cpu: Cpu | None = None) -> PandaTask | None:
        """The thread that runs; with a cpu, whoever answers for it."""
        if cpu is not None and self.libpanda.fast.panda_osi_is_provided():
            return osi_provided.current_process(self.libpanda, cpu)
        task = PandaTask()
        return task if self.libpanda.fast.panda_os_current(task) >= 0 else None

    def get_mappings(self, cpu: Cpu) -> list[OsiModule]:
        """What the current process has mapped, by address; none for a kernel thread.

        ``file`` and ``name`` are bytes.
        """
        if self.libpanda.fast.panda_osi_is_provided():
            return osi_provided.mappings(self.libpanda, cpu)
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
        if self.libpanda.fast.panda_osi_is_provided():
            return osi_provided.mapping_by_addr(self.libpanda, cpu, addr)
        task = self._current_task()
        m = None if task is None else self.os._mapping_at(self.os._process(task), addr)
        return None if m is None else _module(m, m.path)

    def get_file_name(self, cpu: Cpu, fd: int) -> bytes | None:
        """Path of a file the current process has open; None if it has none of that number."""
        task = self._current_task(cpu)
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
