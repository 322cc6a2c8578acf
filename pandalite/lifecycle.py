"""Life of the machine: create, run, stop, run again, finish (C: ``panda/machine.h``)."""

from __future__ import annotations

import atexit
import ctypes
import os
import socket
import threading
import traceback
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import arguments, bare, recordings
from ._bindings.enums import PandaMachineState, PandaRunResult
from ._bindings.functions import FN_panda_call_in_main_loop_fn
from ._core import _ForkedLibrary
from .asyncthread import AsyncThread
from .callbacks import Callbacks, _CallbackInterrupted
from .errors import (
    GuestCoreError,
    GuestPanic,
    GuestReset,
    GuestShutdown,
    MachineError,
    PandaError,
    StateError,
    UnknownSnapshotError,
)
from .signals import DeferredInterrupt, SignalWakeup
from .utils import blocking, warn

#: Seconds a callback gets to return when the run ends; then it is interrupted.
CALLBACK_PATIENCE = 5.0
#: The same after Ctrl-C or an exception that ends the run.
CALLBACK_PATIENCE_INTERRUPTED = 0.2
#: Seconds an interrupted callback gets to return.
CALLBACK_PATIENCE_LAST = 0.2
#: Seconds a queued function gets to return when the run ends.
QUEUE_PATIENCE = 1.0
#: The same after Ctrl-C or an exception: all three together stay below a second.
QUEUE_PATIENCE_INTERRUPTED = 0.3

_ENTRY = ctypes.CFUNCTYPE(None)

#: Arguments of panda_set_limit().
Limit = tuple[int, "ctypes.Array[ctypes.c_uint64]", int]


class Lifecycle(Callbacks):
    """The part of Panda that creates and runs the machine."""

    _disk_is_shared: bool
    #: ``if=`` of the disk; "" for the machine's default.
    _disk_interface: str
    _extra_words: Sequence[str]
    _firmware: Sequence[str]
    #: QEMU's own monitor, on the terminal with -nographic.
    _raw_monitor: bool

    def _init_lifecycle(self) -> None:
        self.running = threading.Event()
        self.started = threading.Event()
        self.initializing = threading.Event()
        self.ending = False
        self.exit_exception = None
        self._owner_pid = os.getpid()
        self._run_lock = threading.Lock()
        self._run_result = PandaRunResult.STOPPED
        self._created = False
        self._finished = False
        self._dead = False
        self._interrupted = False
        self._stop_wanted = False
        self._vcpu_ident: int | None = None
        self._serial_socket: socket.socket | None = None
        #: Needed until the machine exists.
        self._temporary_files: list[Path] = []
        self._retired_callbacks: list[dict[str, Any]] = []
        self._main_loop_calls: list[Any] = []
        self.athread = AsyncThread(self.running, on_exception=self._queued_function_failed)
        # A C function that lives as long as the machine's threads may.
        self._vcpu_entry = _ENTRY(self._vcpu_main)
        _register_cleanup(self)

    # --- creation ---

    def _vcpu_main(self) -> None:
        """First Python frame of the CPU thread, and its last."""
        self._vcpu_ident = threading.get_ident()
        current = ctypes.pythonapi.PyThreadState_Get
        current.restype = ctypes.c_void_p
        self.libpanda.panda_python_attach_vcpu(current())
        self.libpanda.panda_vcpu_thread_main()

    def _create_machine(self) -> None:
        serial_fd = None
        theirs: socket.socket | None = None
        if self.serial_console is not None:
            ours, theirs = socket.socketpair()
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            # QEMU closes the descriptor it is given, so it gets its own.
            serial_fd = theirs.detach()
            self._serial_socket = ours
        disk = self._private_disk()
        self.panda_args[:] = self._arguments(serial_fd, disk or self.qcow)
        words = [w.encode() for w in self.panda_args]
        argv = (ctypes.c_char_p * (len(words) + 1))(*words, None)
        self.initializing.set()
        self.libpanda.panda_set_vcpu_entry(self._vcpu_entry)
        try:
            status = self.libpanda.panda_init(len(words), argv)
        finally:
            self.initializing.clear()
            if disk is not None:
                # QEMU has it open, or never will: nothing is left behind.
                Path(disk).unlink()
            self._delete_temporary_files()
        if status < 0:
            error = self._machine_error(str(self._error(status)))
            self._dead = True
            self._release_serial()
            raise self.exit_exception or error
        self._created = True
        self.libpanda.panda_set_console_fd(-1 if serial_fd is None else serial_fd)
        env = self.libpanda.panda_get_cpu().contents.env_ptr
        assert env is not None
        self.cpu.env_ptr = self._env_struct.from_address(env)
        self.arch.attach()
        if self.serial_console is not None and self._serial_socket is not None:
            self.serial_console.connect(self._serial_socket)

    def _delete_temporary_files(self) -> None:
        while self._temporary_files:
            self._temporary_files.pop().unlink(missing_ok=True)

    def _private_disk(self) -> str | None:
        """A disk on top of a shared image for this machine alone; None if not shared."""
        if self.qcow is None or not self._disk_is_shared:
            return None
        from .qcows import overlay

        return str(overlay.private_disk(Path(self.qcow)))

    def _disk_words(self, disk: str | None) -> list[str]:
        if disk is None:
            return []
        if not self._disk_is_shared and not self._disk_interface:
            return [disk]
        file = disk.replace(",", ",,")
        drive = f"file={file},format=qcow2,index=0,media=disk"
        if self._disk_interface:
            drive += f",if={self._disk_interface}"
        if self._disk_is_shared:
            # What goes with the process need not reach the disk.
            drive += ",cache=unsafe"
        return ["-drive", drive]

    def _arguments(self, serial_fd: int | None, disk: str | None) -> list[str]:
        return arguments.machine_arguments(
            library=str(self.libpanda.path),
            firmware=self._firmware,
            disk=self._disk_words(disk),
            extra=self._extra_words,
            mem=self.mem,
            serial_fd=serial_fd,
            raw_monitor=self._raw_monitor,
        )

    def _machine_error(self, text: str) -> PandaError:
        prefix = "the machine could not be created: "
        if "Snapshot '" in text and "does not exist" in text:
            return UnknownSnapshotError(
                f"{prefix}{text}. `info snapshots` in the monitor lists what an image holds."
            )
        if "annot allocate memory" in text or "cannot set up guest memory" in text:
            return MachineError(
                f"{prefix}{text}. The host cannot give {self.mem} of RAM: use a smaller mem=."
            )
        return MachineError(f"{prefix}{text}")

    def _release_serial(self) -> None:
        if self.serial_console is not None:
            self.serial_console.close()
        if self._serial_socket is not None:
            self._serial_socket.close()
            self._serial_socket = None

    # --- running ---

    def run(self) -> None:
        """Run the guest until :meth:`end_analysis`; creates the machine first.

        Blocks. To be called from the thread that is to be the machine's main
        thread: the same one every time, best Python's main thread, where Ctrl-C
        works. Can be called again: the machine goes on where it was; callbacks
        have to be registered anew. On a machine without devices
        (``-M configurable``) it returns as well when the CPU waits for an
        interrupt: none will come.

        Raises:
            MachineError: QEMU refused the machine (UnknownSnapshotError: the
                snapshot to start from).
            GuestShutdown, GuestReset, GuestPanic: the guest ended the run.
            GuestFault: on a machine without devices, the guest cannot go on.
            GuestCoreError: QEMU gave up; this Panda is of no use any more.
            StateError: run() is active already, or the machine is finished.
            BaseException: what a callback or a queued function raised.
        """
        self._run()

    def _run(
        self,
        limit: Limit | None = None,
        before: Callable[[], None] | None = None,
        keep_callbacks: bool = False,
    ) -> None:
        """Run until something ends it.

        Args:
            limit: what else ends it.
            before: called when the machine exists, before the guest goes on.
            keep_callbacks: leave callbacks registered at the end.
        """
        self._check_process()
        if not self._run_lock.acquire(blocking=False):
            raise StateError("run() is active already: one run at a time")
        try:
            self._check_can_run()
            self.ending = False
            self.exit_exception = None
            self._run_result = PandaRunResult.STOPPED
            self._interrupted = False
            self._stop_wanted = False
            try:
                with SignalWakeup() as wakeup:
                    if not self._created:
                        self._create_machine()
                    if before is not None:
                        before()
                    if limit is not None:
                        self._check(self.libpanda.panda_set_limit(*limit))
                    self._run_machine(wakeup)
            except BaseException as error:
                self._interrupted = True
                if self.exit_exception is None:
                    self.exit_exception = error
            finally:
                with DeferredInterrupt() as interrupt:
                    self._end_run(keep_callbacks)
                    if isinstance(self.exit_exception, KeyboardInterrupt):
                        # Ctrl-C twice is Ctrl-C.
                        interrupt.noted = False
            if self.exit_exception is not None:
                reason, self.exit_exception = self.exit_exception, None
                raise reason
        finally:
            self._run_lock.release()

    def _check_can_run(self) -> None:
        if self._finished:
            raise StateError("the machine was finished: create the next one in a new process")
        if self._dead:
            raise StateError(
                "QEMU gave up in this process and cannot be started again here; "
                "use a new process for the next try"
            )

    def _run_machine(self, wakeup: SignalWakeup) -> None:
        self.started.set()
        self.enable_internal_callbacks()
        if self.serial_console is not None:
            self.serial_console.resume()
        # Queued functions begin when the main loop serves them.
        self.queue_main_loop_wait_fn(self._main_loop_entered)
        self._check(self.libpanda.panda_watch_wakeup_fd(wakeup.fd))
        result: int = PandaRunResult.SIGNAL
        while result == PandaRunResult.SIGNAL:
            if self._stop_wanted:
                return
            result = self.libpanda.panda_run()
            # Handlers of noted signals run here, at the latest.
            wakeup.drain()
        self._check(result)
        self._judge(PandaRunResult(result))

    def _main_loop_entered(self) -> None:
        self.running.set()
        self.athread.resume()

    def _judge(self, result: PandaRunResult) -> None:
        """Turn the way a run ended into an exception, if it was not wanted."""
        self._run_result = result
        if result == PandaRunResult.FATAL:
            self._dead = True
            text = (self.libpanda.panda_last_error() or b"").decode(errors="replace")
            raise GuestCoreError(f"{text}. This machine is lost; start a new process to try again.")
        if self._stop_wanted or self.exit_exception is not None:
            return
        if result == PandaRunResult.GUEST_SHUTDOWN:
            raise GuestShutdown(
                "the guest powered itself off. run() again boots it anew; catch GuestShutdown "
                "if that is what you wait for."
            )
        if result == PandaRunResult.GUEST_RESET:
            raise GuestReset("the guest rebooted and -no-reboot was given")
        if result == PandaRunResult.GUEST_PANIC:
            raise GuestPanic(f"the guest's kernel panicked{self._last_panic_line()}")
        if result == PandaRunResult.GUEST_FAULT:
            raise bare.last_fault(self.libpanda)
        if result == PandaRunResult.RECORDING_FAILED:
            raise recordings.failure(self.libpanda)
        if result == PandaRunResult.REPLAY_DIVERGED:
            raise recordings.divergence(self.libpanda)

    def _last_panic_line(self) -> str:
        """What the kernel printed about it, if there is a console."""
        text = self.serial_console.get_partial() if self.serial_console else ""
        lines = [line for line in text.splitlines() if "Kernel panic" in line]
        return f": {lines[-1].strip()}" if lines else ""

    def _end_run(self, keep_callbacks: bool = False) -> None:
        """Bring everything that ran beside the guest to rest."""
        self.ending = True
        self.athread.ending = True
        if self.exit_exception is not None:
            self._interrupted = True
        at_rest = True
        if self._created and not self._dead:
            self.libpanda.panda_watch_wakeup_fd(-1)
            at_rest = self._pause()
            self._end_streams(at_rest)
        if self.serial_console is not None:
            self.serial_console.abort(sticky=True)
        patience = QUEUE_PATIENCE_INTERRUPTED if self._interrupted else QUEUE_PATIENCE
        if not self.athread.stop(timeout=patience):
            warn(
                f"the queued function {self.athread.last_called!r} did not return within "
                f"{patience:g} s of the end of the run; it was abandoned"
            )
        self.running.clear()
        self.started.clear()
        if not keep_callbacks:
            self.delete_callbacks()
            self._end_plugins()
        if at_rest:
            # None of their functions can be running any more.
            self._retired_callbacks.clear()
        if self._dead:
            self._finish()

    def _pause(self) -> bool:
        """Stop the guest; a callback that does not return is interrupted.

        Returns:
            False if a callback is stuck all the same.
        """
        patience = CALLBACK_PATIENCE_INTERRUPTED if self._interrupted else CALLBACK_PATIENCE
        if self.libpanda.panda_pause(int(patience * 1000)) == 0:
            return True
        interrupt = ctypes.pythonapi.PyThreadState_SetAsyncExc
        ident = ctypes.c_ulong(self._vcpu_ident or 0)
        interrupt(ident, ctypes.py_object(_CallbackInterrupted))
        if self.libpanda.panda_pause(int(CALLBACK_PATIENCE_LAST * 1000)) == 0:
            # It may have returned before the exception reached it.
            interrupt(ident, None)
            return True
        warn(
            "a callback is stuck in a call that cannot be interrupted (a sleep, a read); "
            "the machine stays as it is until it returns"
        )
        return False

    def _fail_run(self, error: BaseException) -> None:
        if self.exit_exception is None:
            self.exit_exception = error
        self._interrupted = True
        self._stop()

    def _queued_function_failed(self, error: BaseException) -> None:
        if self.ending:
            return
        if self.catch_exceptions:
            self._fail_run(error)
        else:
            traceback.print_exception(type(error), error, error.__traceback__)

    def _guest_panicked(self, line: str) -> None:
        self._fail_run(GuestPanic(f"the guest's kernel panicked: {line}"))

    def _stop(self) -> None:
        self._stop_wanted = True
        self.athread.ending = True
        self.libpanda.panda_stop_run()

    # --- stopping ---

    def end_analysis(self) -> None:
        """Make :meth:`run` return. From any thread, callback or queued function.

        Raises:
            StateError: nothing is being run.
        """
        self._check_process()
        if not self._run_lock.locked():
            raise StateError(
                "end_analysis() has nothing to end: the guest is not being run. Call it from a "
                "callback or a queued function, while run() is active."
            )
        self._stop()

    @blocking
    def stop_run(self) -> None:
        """Make :meth:`run` return; like :meth:`end_analysis`."""
        self.end_analysis()

    def cont(self) -> None:
        """Resume the guest after :meth:`vm_stop`."""
        self._check(self.libpanda.panda_cont())
        self.running.set()

    def vm_stop(self, code: int = 4) -> None:
        """Pause the guest while the run goes on.

        Args:
            code: QEMU's RunState; 4 is "paused".
        """
        self._check(self.libpanda.panda_vm_stop(code))

    def reset(self) -> None:
        """Reset the machine, as its reset button does, and let it boot."""
        self._check(self.libpanda.panda_reset())
        if self.serial_console is not None:
            self.serial_console.reset()

    def was_aborted(self) -> bool:
        """Whether QEMU gave up."""
        return bool(self.libpanda.panda_machine_state() == PandaMachineState.DEAD)

    # --- queues ---

    def queue_blocking(self, func: Callable[[], Any], queue: bool = True) -> Callable[[], Any]:
        """Decorate a function that waits for the guest, and queue it.

        Queued functions are called one after the other, in a thread of their
        own, once the machine runs.

        Args:
            func: takes no arguments.
            queue: False only marks it as blocking.
        """
        wrapped = blocking(func)
        if queue:
            self.queue_async(wrapped)
        return wrapped

    def queue_async(self, f: Callable[[], Any], internal: bool = False) -> None:
        """Queue a blocking function without arguments.

        Args:
            f: what to call; decorated with ``blocking`` if it is not yet.
            internal: use the second thread, which a stuck user function does
                not hold up.
        """
        self._check_process()
        self.athread.queue(f if getattr(f, "__blocking__", False) else blocking(f), internal)

    def queue_main_loop_wait_fn(self, fn: Callable[..., Any], args: Sequence[Any] = ()) -> None:
        """Call ``fn(*args)`` once in the main thread, from the main loop.

        There, calls that act on the machine as a whole are safe.
        """
        self._check_process()

        def call(_opaque: int | None) -> None:
            self._main_loop_calls.remove(function)
            try:
                fn(*args)
            except BaseException as error:
                self._queued_function_failed(error)

        function = FN_panda_call_in_main_loop_fn(call)
        # Kept until it has been called.
        self._main_loop_calls.append(function)
        status = self.libpanda.panda_call_in_main_loop(function, None)
        if status < 0:
            self._main_loop_calls.remove(function)
            raise self._error(status)

    # --- finishing ---

    def panda_finish(self) -> int:
        """Destroy the machine: close its images and end its threads.

        Done at the interpreter's exit as well. The process cannot have another
        machine after it.

        Returns:
            0, or a negative status if a thread did not end in time.
        """
        self._check_process()
        if self._run_lock.locked() and threading.current_thread() is not threading.main_thread():
            raise StateError("panda_finish() while run() is active: call end_analysis() first")
        return self._finish()

    def _finish(self) -> int:
        if self._finished:
            return 0
        self._finished = True
        self._delete_temporary_files()
        self.libpanda.panda_set_console_fd(-1)
        self.athread.stop(timeout=QUEUE_PATIENCE, discard=True)
        status = self.libpanda.panda_finish()
        self.arch.detach()
        self._release_serial()
        return status

    @blocking
    def do_panda_finish(self) -> None:
        """PyPANDA's name for finishing from a queued function: ends the run first."""
        self.end_analysis()

    def cleanup(self) -> None:
        """Accepted for compatibility: nothing is left to be cleaned up."""

    def __enter__(self) -> Lifecycle:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._finish()


def _register_cleanup(panda: Lifecycle) -> None:
    """End the machine's threads while Python can still run them."""
    ref = weakref.ref(panda)

    def at_exit() -> None:
        instance = ref()
        if instance is not None and os.getpid() == instance._owner_pid:
            instance._finish()

    def in_child() -> None:
        instance = ref()
        if instance is not None:
            instance.libpanda = _ForkedLibrary(instance._owner_pid)  # type: ignore[assignment]

    atexit.register(at_exit)
    os.register_at_fork(after_in_child=in_child)


def firmware_directories(biospath: str | os.PathLike[str] | None) -> list[str]:
    """Where firmware is looked for: the user's directory, then our own."""
    own = Path(__file__).resolve().parent / "_lib" / "firmware"
    given = [str(biospath)] if biospath is not None else []
    return [*given, str(own)]
