"""The Panda class: PyPANDA's names over small modules, one per concern."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from os import PathLike, getpid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import arguments
from ._bindings import loader
from ._core import Cpu, Tb
from .arch import make_arch
from .compound import Compound
from .coverage import Coverages
from .errors import ImageError, StateError
from .lifecycle import firmware_directories
from .limits import Limits
from .osi import Osi
from .replay import Replays
from .serial import Serial
from .snapshots import Snapshots
from .streams import Streams
from .symbol_hooks import SymbolHooks
from .unsupported import Unsupported
from .utils import progress

if TYPE_CHECKING:
    from .qcows import Image
    from .qcows.catalogue import Entry

#: The process's one Panda; QEMU can be started once in a process.
_instance: Panda | None = None
_instance_lock = threading.Lock()


class Panda(
    SymbolHooks, Limits, Compound, Osi, Replays, Serial, Snapshots, Streams, Coverages, Unsupported
):
    """A guest machine inside this process.

    The machine is created by the first :meth:`run`. There can be one Panda per
    process; more machines need more processes.

    Args:
        arch: guest architecture, e.g. ``"x86_64"``.
        mem: size of RAM, as for QEMU's ``-m``.
        expect_prompt: regular expression of the guest's shell prompt on its
            first serial port; enables the serial console.
        serial_kwargs: more arguments for the console, see
            :class:`pandalite.expect.Expect`.
        os_version: name of the guest's system, like ``"linux-64-debian:6.1"``; its last
            part names the group of a kernel's profile, see :meth:`set_os_name`.
        qcow: path of a qcow2 disk image.
        os: kind of operating system, a word.
        generic: name of a guest of the catalogue (:mod:`pandalite.qcows`); sets
            arch, mem, qcow, expect_prompt and more.
        raw_monitor: with ``-nographic`` in extra_args, QEMU's monitor has the
            terminal.
        extra_args: more QEMU options, a string or a list of words; PANDA's ``-panda
            name:key=value,...;name``, ``-panda-arg name:key=value``, ``-panda-plugin file``
            (plugins of the first run) and ``-os name`` too.
        catch_exceptions: exceptions in callbacks and queued functions end the
            run and are raised by :meth:`run`; False only prints them.
        libpanda_path: core library to use instead of the installed one.
        biospath: directory with firmware, searched before our own.
        plugin_path: directory of plugins that are not built in, see
            :meth:`load_plugin`; default: the environment variable
            ``PANDA_PLUGIN_DIR``.

    Raises:
        UnknownArchitectureError, UnknownImageError, ImageError,
        CoreLibraryError, , MachineError (a file that is
        not there), StateError (the process has a Panda), ValueError.
    """

    def __init__(
        self,
        arch: str = "i386",
        mem: str = "128M",
        expect_prompt: str | bytes | None = None,
        serial_kwargs: dict[str, Any] | None = None,
        os_version: str | None = None,
        qcow: str | PathLike[str] | None = None,
        os: str = "linux",
        generic: str | None = None,
        raw_monitor: bool = False,
        extra_args: str | Sequence[str] | None = None,
        catch_exceptions: bool = True,
        libpanda_path: str | PathLike[str] | None = None,
        biospath: str | PathLike[str] | None = None,
        plugin_path: str | PathLike[str] | None = None,
    ) -> None:
        words = arguments.split_extra_args(extra_args)
        self.cdrom = None
        self.os_type = os
        if os_version:
            self.set_os_name(os_version)
        self._disk_interface = ""
        byte_order: str | None = None
        if generic is not None:
            image, qcow, entry = _catalogue_image(generic, libpanda_path)
            self._disk_interface = entry.disk
            byte_order = entry.byte_order
            arch = image.arch or arch
            mem = image.default_mem or mem
            expect_prompt = expect_prompt or image.prompt
            self.cdrom = image.cdrom
            words = [*words, *arguments.split_extra_args(image.extra_args)]
        words, plugins, os_name = arguments.plugin_words(words)
        if os_name is not None:
            self.set_os_name(os_name)
        arguments.check_words(words)

        known = loader.architecture(arch)
        self.arch_name = known.name
        self.bits = known.bits
        self.endianness = byte_order or ("little" if known.little_endian else "big")
        self.register_size = known.register_size
        self._address_mask = (1 << known.bits) - 1
        self.mem = str(mem)
        self.expect_prompt = expect_prompt
        self.catch_exceptions = catch_exceptions
        self.qcow = None
        if qcow is not None:
            self.qcow = str(qcow)
            _check_disk(Path(qcow))
        self._extra_words = words
        self._raw_monitor = raw_monitor
        # Images of the cache and of PANDA's stay as they are, and several processes
        # may run the same guest: each run works on a disk of its own on top.
        self._disk_is_shared = self.qcow is not None and (
            generic is not None or _is_shared(Path(self.qcow))
        )
        self._firmware = firmware_directories(biospath)
        self.panda_args: list[str] = []
        self._init_serial(serial_kwargs)

        with _instance_lock:
            self._claim_process()
            try:
                self._load(libpanda_path, plugin_path)
                for name, args in plugins:
                    self.load_plugin(name, args)
            except BaseException:
                _release_process(self)
                raise

    @classmethod
    def from_recording(cls, name: str | PathLike[str], **kwargs: Any) -> Panda:
        """A Panda with the machine that a recording was made on, for :meth:`run_replay`.

        It needs the recording alone: what the machine was connected to - disk
        images, networks, files - is replaced by nothing, so it is of no use but
        for replays.

        Args:
            name: as for :meth:`run_replay`.
            kwargs: further arguments of :class:`Panda`; those that make the
                machine are the recording's.

        Raises:
            ValueError: there is no such recording, or an argument is the recording's.
            RecordingError: it is damaged, of a newer version, or of PANDA.
            Whatever :class:`Panda` raises.
        """
        from .recordings import machine, read_recording

        machine.check_arguments(kwargs)
        recording = read_recording(name)
        made = machine.machine_of(recording, console=kwargs.get("expect_prompt") is not None)
        words, files = machine.stand_ins(made)
        extra = arguments.split_extra_args(kwargs.pop("extra_args", None))
        try:
            panda = cls(
                arch=made.arch,
                mem=made.mem or str(recording.ram_size >> 20),
                extra_args=[*made.extra_args, *words, *extra],
                **kwargs,
            )
        except BaseException:
            for path in files:
                path.unlink()
            raise
        panda._temporary_files += files
        panda.endianness = recording.byte_order or panda.endianness
        return panda

    def _load(
        self,
        libpanda_path: str | PathLike[str] | None,
        plugin_path: str | PathLike[str] | None,
    ) -> None:
        self.libpanda = loader.load(self.arch_name, libpanda_path)
        self.libpanda_path = str(self.libpanda.path)
        self._tell_os_name()
        self._env_struct = loader.env_struct(self.arch_name)
        cpu = ctypes.addressof(self.libpanda.panda_get_cpu().contents)
        tb = ctypes.addressof(self.libpanda.panda_get_tb().contents)
        self.cpu = Cpu.from_address(cpu)
        self.tb = Tb.from_address(tb)
        buffer = self.libpanda.panda_get_mem_buf()
        assert buffer is not None
        self.mem_buf = (ctypes.c_uint8 * 16).from_address(buffer)
        self._init_callbacks()
        self._init_streams()
        self._init_plugins(plugin_path)
        self._init_hooks()
        self._init_hook_kinds()
        self._init_symbol_hooks()
        self._init_memory()
        self._init_lifecycle()
        self.arch = make_arch(self)
        self._init_compound()
        self.panda_args[:] = self._arguments(None, self.qcow)

    def _claim_process(self) -> None:
        global _instance
        pid = getpid()
        if _instance is not None and _instance._owner_pid == pid:
            raise StateError(
                "this process has a Panda already, and QEMU can be started once in a process: "
                "use that one again, or start a new process for the next machine"
            )
        self._owner_pid = pid
        _instance = self

    # --- CPU state ---

    def get_cpu(self) -> Cpu:
        """The first CPU (C: ``panda_get_cpu``)."""
        return self.cpu

    def current_pc(self, cpu: Cpu) -> int:
        """Program counter; exact in every callback."""
        return cpu.panda_guest_pc if cpu.in_callback else self.libpanda.fast.panda_current_pc(cpu)

    def current_sp(self, cpu: Cpu) -> int:
        """Stack pointer."""
        return self.libpanda.fast.panda_current_sp(cpu)

    def current_ksp(self, cpu: Cpu) -> int:
        """Kernel stack pointer, from kernel or user mode; 0 if unknown."""
        return self.libpanda.panda_current_ksp(cpu)

    def current_asid(self, cpu: Cpu) -> int:
        """Identifier of the current address space; x86: CR3."""
        return self.libpanda.fast.panda_current_asid(cpu)

    def in_kernel(self, cpu: Cpu) -> bool:
        """Whether the CPU runs at its kernel's privilege level."""
        return self.libpanda.fast.panda_in_kernel_mode(cpu)

    def in_kernel_mode(self, cpu: Cpu) -> bool:
        """Same as :meth:`in_kernel`."""
        return self.libpanda.fast.panda_in_kernel_mode(cpu)

    def in_kernel_code_linux(self, cpu: Cpu) -> bool:
        """Whether the pc is in the part of the address space Linux keeps for itself."""
        pc = self.current_pc(cpu)
        return pc >= 0xC0000000 if self.bits == 32 else bool(pc >> (self.bits - 1))

    def get_build_dir(self) -> str:
        """Directory of the core library in use."""
        return str(Path(self.libpanda_path).parent)


def _release_process(panda: Panda) -> None:
    global _instance
    if _instance is panda:
        _instance = None


def _catalogue_image(
    generic: str, libpanda_path: str | PathLike[str] | None
) -> tuple[Image, str, Entry]:
    """Look a guest up and have its files ready: its facts, its disk, its entry."""
    from .qcows import Qcows, disks, lookup

    entry = lookup.entry(generic)
    image = Qcows.get_qcow_info(generic)
    progress(f"using generic {generic}")
    return image, str(disks.disk_of(entry, libpanda_path)), entry


def _is_shared(path: Path) -> bool:
    """Whether a disk is one that must stay as it is."""
    from .qcows import disks

    return disks.is_shared(path)


def _check_disk(path: Path) -> None:
    """Refuse a disk image that QEMU would refuse later and less clearly."""
    from .qcows import qcow2

    if not path.exists():
        raise ImageError(f"there is no disk image {path}: check the path given as qcow=")
    qcow2.validate(path)
