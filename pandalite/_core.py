"""What the modules behind :class:`pandalite.Panda` share: its attributes.

``Panda`` is put together from one class per concern; each of them derives from
:class:`PandaCore`, which declares what they may use of each other.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, NoReturn

from . import errors
from ._bindings.enums import PandaStatus
from ._bindings.structs import PandaCPU, PandaTB

if TYPE_CHECKING:
    import threading

    from ._bindings.loader import CoreLibrary
    from .arch import PandaArch
    from .asyncthread import AsyncThread
    from .expect import Expect

_STATUS_ERRORS: dict[int, type[errors.PandaError]] = {
    PandaStatus.ERR_STATE: errors.StateError,
    PandaStatus.ERR_MACHINE: errors.MachineError,
    PandaStatus.ERR_FATAL: errors.GuestCoreError,
    PandaStatus.ERR_MEMORY: errors.GuestMemoryError,
    PandaStatus.ERR_SNAPSHOT: errors.SnapshotError,
    PandaStatus.ERR_TIMEOUT: errors.TimeoutExpired,
    PandaStatus.ERR_UNSUPPORTED: errors.UnsupportedFeatureError,
    PandaStatus.ERR_RECORDING: errors.RecordingError,
    PandaStatus.ERR_OS: errors.IntrospectionError,
}


class Cpu(PandaCPU):
    """A virtual CPU, as callbacks get it (C: ``PandaCPU``).

    One object per CPU, valid as long as the machine. ``env_ptr`` is the
    architecture's register state, a ctypes Structure: ``cpu.env_ptr.regs[0]``.
    """

    # A plain attribute in place of the pointer: set once, quick to read.
    env_ptr: Any = None


class Tb(PandaTB):
    """A translated block, as callbacks get it (C: ``PandaTB``).

    The same object is filled anew for every event: copy what is to be kept.
    """


class PandaCore:
    """Attributes that the parts of Panda share."""

    # the guest
    arch_name: str
    arch: PandaArch
    bits: int
    endianness: str
    register_size: int
    os_type: str
    mem: str
    qcow: str | None
    cdrom: str | None
    expect_prompt: str | bytes | None
    # the core library
    libpanda: CoreLibrary
    cpu: Cpu
    tb: Tb
    mem_buf: ctypes.Array[ctypes.c_uint8]
    _env_struct: type[ctypes.Structure]
    # the run
    athread: AsyncThread
    running: threading.Event
    started: threading.Event
    initializing: threading.Event
    ending: bool
    _interrupted: bool
    _run_lock: threading.Lock
    exit_exception: BaseException | None
    catch_exceptions: bool
    panda_args: list[str]
    serial_console: Expect | None
    _owner_pid: int
    _vcpu_ident: int | None

    def end_analysis(self) -> None:
        """See :class:`pandalite.lifecycle.Lifecycle`."""
        raise NotImplementedError

    def _fail_run(self, error: BaseException) -> None:
        """Note an exception that ends the run; the first one wins."""
        raise NotImplementedError

    def _end_plugins(self) -> None:
        """See :class:`pandalite.plugins.Plugins`."""
        raise NotImplementedError

    def _end_streams(self, at_rest: bool) -> None:
        """See :class:`pandalite.streams.Streams`."""
        raise NotImplementedError

    @property
    def lib(self) -> CoreLibrary:
        """The core library; short name of ``libpanda``."""
        return self.libpanda

    def _error(self, status: int) -> errors.PandaError:
        """The exception for a failed C call of this thread."""
        text = (self.libpanda.panda_last_error() or b"").decode(errors="replace")
        kind = _STATUS_ERRORS.get(status)
        if kind is None:
            return errors.StateError(text or f"the core library failed with status {status}")
        return kind(text)

    def _refusal(self, status: int) -> Exception:
        """The same for a call with the user's arguments: a wrong one is a ValueError."""
        error = self._error(status)
        return ValueError(str(error)) if status == PandaStatus.ERR_ARGUMENT else error

    def _check(self, status: int) -> None:
        """Raise the exception of a C call that returned a negative status."""
        if status < 0:
            raise self._error(status)

    def _check_process(self) -> None:
        if os.getpid() != self._owner_pid:
            raise errors.StateError(
                f"this Panda belongs to process {self._owner_pid}: a machine does not survive "
                "fork(). Create the Panda in the child, or start children with the "
                "multiprocessing start method 'spawn'."
            )


class _ForkedLibrary:
    """Stands in for the core library in a forked child."""

    def __init__(self, owner: int) -> None:
        self._owner = owner

    def __getattr__(self, name: str) -> NoReturn:
        raise errors.StateError(
            f"{name} called in a forked child of process {self._owner}: a machine does not "
            "survive fork(). Create the Panda in the child, or start children with the "
            "multiprocessing start method 'spawn'."
        )
