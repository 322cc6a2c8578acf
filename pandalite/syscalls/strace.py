"""The system calls of programs in the guest, as strace prints them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pandalite.errors import PandaError

from .decode import Call, Decoder
from .numbers import ARCH_ABIS

if TYPE_CHECKING:
    from pandalite.panda import Panda

__all__ = ["Strace"]

#: Calls that have no return to wait for.
_LAST = frozenset({"exit", "exit_group", "rt_sigreturn", "sigreturn"})


class Strace:
    """Prints system calls, each when it has returned.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`, while the guest
    runs, or before it does::

        with Strace(panda, "cat", print):
            panda.run_serial_cmd("cat /etc/hostname")

    Args:
        panda: the machine.
        program: the name of a program: its processes are followed from their execve() to
            their end, and those they make; None: all processes.
        on_line: gets each line.
        follow: the processes that a program makes are followed too.
    """

    def __init__(
        self,
        panda: Panda,
        program: str | None = None,
        on_line: Callable[[str], object] = print,
        follow: bool = True,
    ) -> None:
        self._panda = panda
        self._program = program
        self._on_line = on_line
        self._follow = follow
        self._decoders = [Decoder(abi, panda.endianness) for abi in ARCH_ABIS[panda.arch_name]]
        #: Calls that have not returned, by thread and where they return to.
        self._open: dict[tuple[int, int], Call] = {}
        #: The same of those that make a process that has not begun.
        self._forks: Counter[tuple[int, int]] = Counter()
        #: Threads that are followed, and their number in the order of appearance.
        self._threads: dict[int, int] = {}
        self._count = 0
        self._names = [f"strace-{id(self)}-{way}" for way in ("enter", "return")]

    def start(self) -> None:
        """Begin."""
        for name, event, function in zip(
            self._names, ("on_all_sys_enter2", "on_all_sys_return2"), (self._enter, self._leave)
        ):
            self._panda.ppp("syscalls2", event, name)(function)

    def stop(self) -> None:
        """End it."""
        for name in self._names:
            if name in self._panda.ppp_registered_cbs:
                self._panda.disable_ppp(name)

    def __enter__(self) -> Strace:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- events ----

    def _reader(self, cpu: Any) -> Callable[[int, int], bytes | None]:
        def read(address: int, size: int) -> bytes | None:
            try:
                data: bytes = self._panda.virtual_memory_read(cpu, address, size)
            except (PandaError, ValueError):
                return None
            return data

        return read

    def _enter(self, cpu: Any, _pc: int, _info: Any, context: Any) -> None:
        followed = self._program is None or context.thread in self._threads
        decoder = self._decoders[context.profile]
        name = decoder.public.get(context.no, "")
        if not followed and name not in ("execve", "execveat"):
            return
        args = [int.from_bytes(bytes(context.args[i]), "little") for i in range(7)]
        call = decoder.enter(context.no, args, self._reader(cpu))
        if name in _LAST:
            text = None
            if name == "rt_sigreturn":
                text = decoder.sigreturn(self._panda.current_sp(cpu), self._reader(cpu))
            self._print(context.thread, text or decoder.leave(call, None, self._reader(cpu)))
            if name.startswith("exit"):
                self._threads.pop(context.thread, None)
            return
        key = context.thread, context.retaddr
        self._open[key] = call
        if followed and self._follow and context.double_return:
            # The child may begin when its parent is no more.
            self._forks[key] += 1

    def _leave(self, cpu: Any, _pc: int, _info: Any, context: Any) -> None:
        if context.in_child:
            key = context.caller, context.retaddr
            if self._forks[key] > 0:
                self._forks[key] -= 1
                self._add(context.thread)
            return
        call = self._open.pop((context.caller, context.retaddr), None)
        if call is None:
            return
        if call.prototype.name in ("execve", "execveat") and context.result == 0:
            call.decoder.new_program(call, self._panda.current_sp(cpu), self._reader(cpu))
            followed = self._threads.pop(context.caller, None)
            if followed is not None:
                self._threads[context.thread] = followed
            elif self._program is not None and self._is_wanted(call):
                self._add(context.thread)
        if self._program is not None and context.thread not in self._threads:
            return
        text = call.decoder.leave(call, context.result, self._reader(cpu))
        self._print(context.thread, text)

    def _is_wanted(self, call: Call) -> bool:
        text = call.texts[1 if call.name == "execveat" else 0] or ""
        return text.strip('"').rpartition("/")[2] == self._program

    def _add(self, thread: int) -> None:
        self._count += 1
        self._threads[thread] = self._count

    def _print(self, thread: int, text: str) -> None:
        number = self._threads.get(thread, thread)
        self._on_line(f"[{number:#x}] {text}" if number > 1 else text)
