"""What a callback usually wants to know, in one call (C: ``panda/compound.h``)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

from ._bindings.enums import PandaValue
from ._bindings.structs import PandaPythonReadApi
from ._core import Cpu
from .arch import Aarch64Arch
from .arch.base import pack_places
from .memory import Memory

_HEAD = (PandaValue.PC, PandaValue.ASID, PandaValue.SP, PandaValue.IN_KERNEL)
_HEAD_PLACES = pack_places(_HEAD)

#: How many pointers the quick way reads at once.
_POINTERS = 512


class Context(NamedTuple):
    """Where the CPU is and what it was called with; see :meth:`~pandalite.Panda.context`."""

    #: Program counter; in a callback, that of the event.
    pc: int
    #: Identifier of the address space, as ``panda.current_asid``.
    asid: int
    #: Stack pointer.
    sp: int
    #: Whether the CPU runs at its kernel's privilege level.
    in_kernel: bool
    #: The arguments asked for; of ``syscall``, the first is the system call's number.
    args: list[int]
    #: The string asked for; None if there is none at that address.
    text: str | None


class Compound(Memory):
    """The part of Panda that reads several things at once."""

    _values: Callable[..., list[Any] | None]
    _pointers: Callable[[int, int, bool], list[int] | None]

    def _init_compound(self) -> None:
        api = PandaPythonReadApi()
        for name, *_ in PandaPythonReadApi._fields_:
            if name != "none":
                function = getattr(ctypes.pythonapi, name)
                setattr(api, name, ctypes.cast(function, ctypes.c_void_p))
        api.none = id(None)
        self.libpanda.panda_python_set_read_api(api)
        self._values = self._made_by(self.libpanda.panda_python_make_values)
        self._pointers = self._made_by(self.libpanda.panda_python_make_pointers)
        self._peek_text = self._made_by(self.libpanda.panda_python_make_text)
        self._contexts: dict[tuple[int, str, bool], bytes] = {}
        self._two_modes = isinstance(self.arch, Aarch64Arch)
        self.arch.read_values = self._read_values
        if isinstance(self.arch, Aarch64Arch):
            self.arch.arm32.read_values = self._read_values

    @staticmethod
    def _made_by(maker: Any) -> Any:
        """The Python function that a function of the core makes."""
        address = ctypes.cast(maker, ctypes.c_void_p).value or 0
        return ctypes.PYFUNCTYPE(ctypes.py_object)(address)()

    def _read_values(self, places: bytes) -> list[int] | None:
        # Quick, if the TLB leads to what is on the stack: Python's lock is kept.
        found = self._values(places)
        if found is None:
            n = len(places) // 2
            out = (ctypes.c_uint64 * max(n, 1))()
            what = (ctypes.c_uint16 * max(n, 1)).from_buffer_copy(places or b"\0\0")
            if self.libpanda.panda_read_values(self.cpu, what, n, out) == 0:
                found = out[:n]
        return found

    def context(
        self,
        cpu: Cpu,
        args: int = 0,
        convention: str = "default",
        text: int | None = None,
        max_length: int = 256,
    ) -> Context:
        """Read what a callback usually wants, in one call of the core.

        Args:
            cpu: the CPU.
            args: how many arguments, as ``panda.arch.get_args`` returns them.
            convention: of the arguments; for ``"syscall"`` the first is the
                system call's number.
            text: number of the argument that points to a string to be read.
            max_length: bytes of it at most.

        Raises:
            NotImplementedError: the convention places fewer arguments, or is
                not known.
            ValueError: an argument on the stack that cannot be read, or
                ``text`` is none of the arguments.
        """
        # Where arguments are differs with the mode on the one that has two.
        mode = self._two_modes and not cpu.env_ptr.aarch64
        places = self._contexts.get((args, convention, mode))
        if places is None:
            places = _HEAD_PLACES + self.arch.argument_places(cpu, args, convention)
            self._contexts[args, convention, mode] = places
        if text is None:
            found = self._values(places)
            if found is not None:
                pc, asid, sp, kernel, *rest = found
                # What the class itself does, without its Python function.
                return tuple.__new__(Context, (pc, asid, sp, kernel == 1, rest, None))
        else:
            if not 0 <= text < args:
                raise ValueError(f"text={text}: of {args} arguments there is none of that number")
            found = self._values(places, len(_HEAD) + text, max_length)
            if found is not None and found[-1] is not None:
                string = found.pop().decode("utf-8", "ignore")
                pc, asid, sp, kernel, *rest = found
                return tuple.__new__(Context, (pc, asid, sp, kernel == 1, rest, string))
        found = self._read_values(places)
        if found is None:
            # Says which argument it is.
            values = [self.arch.get_arg(cpu, n, convention) for n in range(args)]
            found = [*(self._read_values(_HEAD_PLACES) or [0] * len(_HEAD)), *values]
        pc, asid, sp, kernel, *rest = found
        string = None
        if text is not None:
            try:
                string = self.read_str(cpu, rest[text], max_length)
            except ValueError:
                string = None
        return Context(pc, asid, sp, bool(kernel), rest, string)

    def read_pointers(self, cpu: Cpu, addr: int, count: int, until_null: bool = False) -> list[int]:
        """Read pointers that lie in a row, in one call of the core.

        Args:
            cpu: the CPU whose page tables count.
            addr: guest virtual address of the first.
            count: how many.
            until_null: end before the first that is 0, as in ``argv``; there
                may be fewer than ``count`` then.

        Returns:
            ints of the guest's size and byte order.

        Raises:
            GuestMemoryError: one of them cannot be read (a ValueError).
            ValueError: a bad address or count.
        """
        if not isinstance(addr, int) or not isinstance(count, int) or count < 0:
            raise ValueError(f"cannot read {count!r} pointers at {addr!r}")
        at = addr & self._address_mask
        if count <= _POINTERS:
            quick = self._pointers(at, count, until_null)
            if quick is not None:
                return quick
        try:
            out = (ctypes.c_uint64 * max(count, 1))()
        except (OverflowError, MemoryError):
            raise ValueError(f"cannot read {count} pointers at {addr:#x}") from None
        found = self.libpanda.panda_read_pointers(cpu, at, count, until_null, out)
        if found < 0:
            raise self._read_error(addr, found)
        if found < count and not (until_null and self._ends_with_null(cpu, at, found)):
            # Raises what is wrong with it.
            size = self.libpanda.panda_word_size(cpu)
            self.virtual_memory_read(cpu, at + found * size, size)
        return out[:found]

    def _ends_with_null(self, cpu: Cpu, at: int, found: int) -> bool:
        size = self.libpanda.panda_word_size(cpu)
        try:
            data: bytes = self.virtual_memory_read(cpu, at + found * size, size)
        except ValueError:
            return False
        return not any(data)
