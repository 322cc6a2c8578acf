"""Hooks of symbols: of functions by name, in whatever process has them.

The plugin ``dynamic_symbols`` looks at what processes map (``csrc/plugins/``); when one
has the symbol, an ordinary hook is added there, for that process.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ._bindings.structs import hook_symbol_resolve
from ._bindings.structs import symbol as _symbol
from .callbacks import _raise
from .hook_kinds import HookKinds
from .hooks import Handler, Hook

if TYPE_CHECKING:
    from ._bindings.structs import PandaCPU
    from .guest_os import GuestOs, Symbol
    from .user_symbols import UserSymbol

#: A library's or symbol's name in C, with its end.
_ROOM = 256


class Frame(NamedTuple):
    """A function that runs."""

    #: Where it begins, and where it will return to.
    function: int
    caller: int
    #: Their symbols; None: in none that is known.
    symbol: Symbol | UserSymbol | None
    caller_symbol: Symbol | UserSymbol | None


class SymbolHook:
    """A hook of a symbol: it stands for a hook in each process that has it.

    ``panda.named_hooks[name]`` if it was given a name.
    """

    def __init__(self, panda: SymbolHooks, function: Handler, cb_type: str) -> None:
        #: The handler.
        self.function = function
        self.cb_type = cb_type
        self._panda = panda
        self._enabled = True
        self._hooks: dict[int, list[Hook]] = {}

    @property
    def hooks(self) -> list[Hook]:
        """The hooks there are now, one for each place in each process."""
        return [made for place in self._hooks.values() for made in place]

    @property
    def enabled(self) -> bool:
        """Whether it acts, in processes that will have the symbol too."""
        return self._enabled

    def enable(self) -> None:
        """Let it act again, in all processes; from anywhere."""
        self._enabled = True
        for made in self.hooks:
            made.enable()

    def disable(self) -> None:
        """Let it not act, in any process; from anywhere."""
        self._enabled = False
        for made in self.hooks:
            if made.enabled:
                made.disable()

    def _found(self, _resolve: Any, sym: _symbol, asid: int) -> None:
        panda = self._panda
        made = panda.add_hook(
            sym.address, self.function, False, kernel=False, asid=asid, cb_type=self.cb_type
        )
        panda.hook_list.pop()
        made.sym = sym
        if self._enabled:
            made.enable()
        self._hooks.setdefault(asid, []).append(made)

    def _gone(self, asid: int) -> None:
        for made in self._hooks.pop(asid, []):
            if made.enabled:
                made.disable()
            # The core may look at it for a moment yet.
            self._panda._last_spent.append(made)


class SymbolHooks(HookKinds):
    """The part of Panda for hooks of symbols."""

    #: Hooks of symbols that were given a name.
    named_hooks: dict[str, SymbolHook]
    _symbol_requests: dict[int, Any]
    os: GuestOs

    def _init_symbol_hooks(self) -> None:
        self.named_hooks = {}
        self._symbol_requests = {}
        self._symbol_hooks: list[SymbolHook] = []

    def hook_symbol(
        self,
        libraryname: str | None,
        symbol: str | int | None,
        kernel: bool = False,
        name: str | None = None,
        cb_type: str = "start_block_exec",
    ) -> Callable[[Handler], Handler]:
        """Decorate a function ``(cpu, tb, hook)``: it is called at a symbol.

        In every process that has it, now or later; ``hook.sym`` is the symbol, with
        ``name``, ``address``, ``value`` and ``section``, the path of its file.

        Args:
            libraryname: a part of the path of the program or library; None: any.
            symbol: its name, which may end with ``@`` and a version; a number: so far
                behind the first byte of the file; None: all functions.
            kernel: not looked at, as in PyPANDA: symbols are those of programs.
            name: to find it in ``panda.named_hooks``.
            cb_type: as for :meth:`hook`.

        A handler that sets ``hook.enabled = False`` removes the hook of that process.
        Loads the plugin ``dynamic_symbols``.

        Raises:
            IntrospectionError: the guest's kernel does not show what is mapped.
            ValueError: a name is too long.
        """

        def register(function: Handler) -> Handler:
            made = SymbolHook(self, function, cb_type)
            self._wait_for_symbol(libraryname, symbol, made._found, made._gone)
            self._symbol_hooks.append(made)
            if name is not None:
                self.named_hooks[name] = made
            return function

        return register

    def hook_symbol_resolution(
        self, libraryname: str | None, symbol: str | int | None, name: str | None = None
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorate a function ``(resolve, symbol, asid)``: a process has the symbol.

        Called once for each file and process. ``resolve.enabled = False`` ends it.

        Args:
            libraryname, symbol: as for :meth:`hook_symbol`.
            name: kept for PyPANDA's sake.

        Raises:
            IntrospectionError, ValueError: as for :meth:`hook_symbol`.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._wait_for_symbol(libraryname, symbol, function, None)
            return function

        return register

    def get_best_matching_symbol(
        self, cpu: PandaCPU, pc: int | None = None, asid: int | None = None
    ) -> _symbol:
        """The symbol of a process that is closest to an address and not above it.

        In a callback. C: ``panda_dynamic_symbols_get_best_matching_symbol``.

        Args:
            cpu: the CPU.
            pc: the address (default: the present one).
            asid: of the process (default: the one that runs).

        Returns:
            A ``symbol``: ``name``, ``address``, ``section`` (the path of its file); its
            address is 0 if there is none.
        """
        self._need_plugin("dynamic_symbols", autoload=True)
        address = self.libpanda.fast.panda_current_pc(cpu) if pc is None else pc
        found = self.libpanda.panda_dynamic_symbols_get_best_matching_symbol(
            cpu, address & self._address_mask, asid or 0
        )
        assert isinstance(found, _symbol)
        return found

    def callstack(self, cpu: PandaCPU, lim: int = 64) -> list[Frame]:
        """The functions that run, the last called first, with their symbols.

        In a callback. The kernel's stack in the kernel, else the program's. The plugin
        ``callstack_instr`` follows calls from when it is loaded: by the first use of
        this, if not before (pandalite's own).

        Args:
            cpu: the CPU.
            lim: at most so many.
        """
        self._need_plugin("callstack_instr", autoload=True)
        fast = self.libpanda.fast
        callers, functions = (ctypes.c_uint64 * lim)(), (ctypes.c_uint64 * lim)()
        n = fast.panda_callstack_instr_get_callers(callers, lim, cpu)
        n = min(n, fast.panda_callstack_instr_get_functions(functions, lim, cpu))
        process = None if fast.panda_in_kernel_mode(cpu) else self.os.current

        def named(address: int) -> Symbol | UserSymbol | None:
            return process.symbol_at(address) if process else self.os.symbol_at(address)

        return [
            Frame(functions[i], callers[i], named(functions[i]), named(callers[i]))
            for i in range(n)
        ]

    def delete_callbacks(self) -> None:
        """Unregister all callbacks, and remove all hooks, of symbols too."""
        super().delete_callbacks()
        for number in list(self._symbol_requests):
            self._stop_waiting(number)
        for made in self._symbol_hooks:
            made.disable()
        self._retired_callbacks.extend({"hook": made} for made in self._symbol_hooks)
        self._symbol_hooks.clear()
        self.named_hooks.clear()

    # --- waiting ---

    def _wait_for_symbol(
        self,
        library: str | None,
        symbol: str | int | None,
        found: Callable[..., Any],
        gone: Callable[[int], Any] | None,
    ) -> None:
        self._check_process()
        self._need_plugin("dynamic_symbols", autoload=True)
        failed = self._callback_failed if self.catch_exceptions else _raise
        request = hook_symbol_resolve(enabled=True)
        if isinstance(symbol, int):
            request.offset = symbol
            request.hook_offset = True
        else:
            request.name = _name(symbol)
        request.section = _name(library)

        def resolved(resolve: Any, sym: Any, asid: int) -> None:
            try:
                own = _symbol.from_buffer_copy(sym.contents)
                found(resolve.contents, own, asid)
            except BaseException as error:
                failed(error)

        def ended(_resolve: Any, asid: int) -> None:
            if gone is not None:
                gone(asid)

        request.cb = type(request.cb)(resolved)
        request.gone = type(request.gone)(ended)
        number = self.libpanda.panda_dynamic_symbols_hook_symbol_resolution(request)
        if number < 0:
            raise self._refusal(number)
        # C calls what it has in it.
        self._symbol_requests[number] = request

    def _stop_waiting(self, number: int) -> None:
        self.libpanda.panda_dynamic_symbols_remove(number)
        self._retired_callbacks.append({"hook": self._symbol_requests.pop(number)})


def _name(text: str | None) -> bytes:
    raw = b"" if text is None else os.fsencode(text)
    if len(raw) >= _ROOM:
        raise ValueError(f"a name of at most {_ROOM - 1} bytes is needed, not {text!r}")
    return raw
