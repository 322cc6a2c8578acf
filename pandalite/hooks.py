"""Hooks: functions called when the guest comes to an address.

The core puts the call into the translated code of just that place
(``csrc/hooks/``): any instruction can be hooked, and a hook costs nothing anywhere
else. On what a handler can do with the function it is in, see :class:`Hook`.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._bindings.constants import MODE_ANY, MODE_KERNEL_ONLY, MODE_USER_ONLY
from ._bindings.structs import PandaPythonCallback
from ._bindings.structs import hook as _hook
from .callbacks import _as_int, _raise
from .plugins import Plugins

if TYPE_CHECKING:
    from ._bindings.structs import PandaCPU, PandaTB

#: A handler: called with the CPU, the block and the :class:`Hook`.
Handler = Callable[..., Any]

#: Types that are called at the very instruction.
_AT_INSTRUCTION = ("start_block_exec", "before_block_exec")

#: Types that are callbacks of a block that begins at the address.
_OF_BLOCK = ("before_block_exec_invalidate_opt", "after_block_exec", "end_block_exec")

#: Types of translation: the block is translated anew for them.
_OF_TRANSLATION = ("before_tcg_codegen", "before_block_translate", "after_block_translate")


class Hook(_hook):
    """A hook, as its handler gets it (C: ``hook``).

    ``addr``, ``asid``, ``km`` and ``enabled`` are the C structure's. A handler that
    clears ``enabled`` removes its hook; :meth:`enable` adds it again.
    """

    _panda: Hooks
    #: The handler.
    function: Handler
    cb_type: str
    _remove: Callable[[], None]
    #: The C function, where the core does not call Python itself.
    _keep: Any = None
    #: It is called, and its handler may be running.
    _inserted = False

    def enable(self) -> None:
        """Add the hook again that was removed; from anywhere."""
        if not self.enabled:
            self._panda._insert_hook(self)

    def disable(self) -> None:
        """Remove the hook; from anywhere, its own handler included."""
        self.enabled = False
        self._remove()

    # --- in a hook at a function's first instruction ---

    def argument(self, number: int) -> int:
        """The function's argument of that number, from 0, as an unsigned word.

        Raises:
            GuestMemoryError: it is on the stack, which is not mapped.
        """
        value = ctypes.c_uint64()
        library = self._panda.libpanda
        self._panda._check(library.panda_hooks_get_argument(self._panda.cpu, number, value))
        return value.value

    def set_argument(self, number: int, value: int) -> None:
        """Change an argument of the function."""
        library = self._panda.libpanda
        mask = (1 << 64) - 1
        self._panda._check(library.panda_hooks_set_argument(self._panda.cpu, number, value & mask))

    def return_address(self) -> int:
        """Where the function will return to."""
        value = ctypes.c_uint64()
        library = self._panda.libpanda
        self._panda._check(library.panda_hooks_get_return_address(self._panda.cpu, value))
        return value.value

    def skip(self, result: int = 0) -> None:
        """Have the function return ``result`` at once, without running."""
        library = self._panda.libpanda
        mask = (1 << 64) - 1
        self._panda._check(library.panda_hooks_skip_function(self._panda.cpu, result & mask))

    def on_return(self, function: Callable[[Any, int], Any]) -> Hook:
        """Call a function when the function has returned, once.

        Args:
            function: called with the CPU and the result, an unsigned word;
                ``panda.arch.set_retval`` changes it.

        Returns:
            The hook at the return address, which can be disabled.
        """
        panda = self._panda
        address = self.return_address()
        if panda.arch_name == "arm" or (panda.arch_name == "aarch64" and address & 1):
            # Of Thumb code.
            address &= ~1
        fast = panda.libpanda.fast
        wanted = fast.panda_hooks_get_returned_sp(panda.cpu)
        kernel = fast.panda_in_kernel_mode(panda.cpu)
        asid = 0 if kernel else fast.panda_current_asid(panda.cpu)

        def returned(cpu: PandaCPU, tb: PandaTB, hook: Hook) -> None:
            # Another call of the function, deeper in the stack, returns before.
            if fast.panda_current_sp(panda.cpu) >= wanted:
                hook.enabled = False
                panda._spent(hook)
                function(cpu, fast.panda_hooks_get_result(cpu))

        made = panda.add_hook(address, returned, asid=asid)
        # There may be very many: they are kept until they have acted.
        panda.hook_list.pop()
        panda._return_hooks[id(made)] = made
        return made


class Hooks(Plugins):
    """The part of Panda for hooks."""

    #: All hooks of Python functions.
    hook_list: list[Hook]
    _address_mask: int
    #: Hooks of returns that are to come, by their identity.
    _return_hooks: dict[int, Hook]

    def _init_hooks(self) -> None:
        self.hook_list = []
        self._return_hooks = {}
        # The core may look at one of them for a moment yet.
        self._last_spent: deque[Hook] = deque(maxlen=1024)

    def _spent(self, made: Hook) -> None:
        """A hook of a return has acted, and never will again."""
        self._return_hooks.pop(id(made), None)
        self._last_spent.append(made)

    def hook(
        self,
        addr: int,
        enabled: bool = True,
        kernel: bool | None = None,
        asid: int | None = None,
        cb_type: str = "start_block_exec",
    ) -> Callable[[Handler], Handler]:
        """Decorate a function ``(cpu, tb, hook)``: it is called at an address.

        Args:
            addr: of an instruction. The types other than ``start_block_exec`` and
                ``before_block_exec`` need the start of a block.
            enabled: whether it acts at once.
            kernel: True: in the kernel's mode only, False: in user mode only.
            asid: in this address space only (``panda.current_asid``); not looked at
                with ``kernel=True``.
            cb_type: kind of callback. ``after_block_exec`` gets the exit code before
                the hook, ``before_block_translate`` the pc in place of the block.

        A handler that sets ``hook.enabled = False`` removes its hook.

        Raises:
            ValueError: there is no such kind of hook.
        """

        def register(function: Handler) -> Handler:
            self.add_hook(addr, function, enabled, kernel, asid, cb_type)
            return function

        return register

    def add_hook(
        self,
        addr: int,
        function: Handler,
        enabled: bool = True,
        kernel: bool | None = None,
        asid: int | None = None,
        cb_type: str = "start_block_exec",
    ) -> Hook:
        """Add a hook; the same as :meth:`hook`, and returns it (pandalite's own)."""
        self._check_process()
        if cb_type not in (*_AT_INSTRUCTION, *_OF_BLOCK, *_OF_TRANSLATION):
            raise ValueError(
                f"there are no hooks of type {cb_type!r}: "
                f"{', '.join((*_AT_INSTRUCTION, *_OF_BLOCK, *_OF_TRANSLATION))}"
            )
        made = Hook()
        made.addr = addr & self._address_mask
        made.asid = 0 if kernel or asid is None else asid
        made.km = {None: MODE_ANY, True: MODE_KERNEL_ONLY, False: MODE_USER_ONLY}[kernel]
        made.type = getattr(self.callback, cb_type).kind.number
        made.cb_type = cb_type
        made.function = function
        made._panda = self
        if enabled:
            self._insert_hook(made)
        self.hook_list.append(made)
        return made

    def hook_single_insn(
        self, name: str, pc: int, kernel: bool | None = None, asid: int | None = None
    ) -> Callable[[Handler], Handler]:
        """Decorate a function ``(cpu, tb, hook)``: it is called before an instruction.

        Args:
            name: not looked at; kept for PyPANDA's sake.
            pc, kernel, asid: as for :meth:`hook`.
        """
        return self.hook(pc, kernel=kernel, asid=asid)

    def skip_function(self, cpu: PandaCPU, result: int = 0) -> None:
        """In a hook at a function's first instruction: have it return at once.

        C: ``panda_hooks_skip_function``.

        Raises:
            GuestMemoryError: the return address is on the stack, which is not mapped.
        """
        self._check(self.libpanda.panda_hooks_skip_function(cpu, result & ((1 << 64) - 1)))

    def delete_callbacks(self) -> None:
        """Unregister all callbacks, and remove all hooks."""
        super().delete_callbacks()
        hooks = [*self.hook_list, *self._return_hooks.values()]
        for made in hooks:
            if made.enabled:
                made.disable()
        # The core may be calling one of them: they go when the run ends.
        self._retired_callbacks.extend({"hook": made} for made in hooks)
        self.hook_list.clear()
        self._return_hooks.clear()

    # --- how a hook is inserted, by type ---

    def _insert_hook(self, made: Hook) -> None:
        made.enabled = True
        if made.cb_type in _AT_INSTRUCTION:
            self._insert_at_instruction(made)
        else:
            self._insert_as_callback(made)

    def _insert_at_instruction(self, made: Hook) -> None:
        library = self.libpanda
        if library.panda_python_supports(made.type):
            target = PandaPythonCallback(id(made.function), id(self.cpu), id(self.tb), id(made))
            status = library.panda_hooks_add_python(made, target)
            if status < 0:
                made.enabled = False
                raise self._refusal(status)
            stored: Any = made
        elif made._inserted:
            # By its own handler, which has cleared it: the core has not seen it yet.
            return
        else:
            failed = self._callback_failed if self.catch_exceptions else _raise

            def call(_cpu: int, _tb: int, where: int) -> None:
                # The core has a copy, which may say something else then.
                try:
                    made.function(self.cpu, self.tb, made)
                except BaseException as error:
                    failed(error)
                if not made.enabled:
                    made._inserted = False
                    _hook.from_address(where).enabled = False

            if made._keep is not None:
                self._retired_callbacks.append({"hook": made._keep})
            pointer = _FUNCTION(call)
            made._keep = pointer
            made.cb.cbaddr = ctypes.cast(pointer, type(made.cb.cbaddr))
            stored = library.panda_hooks_add_hook(made)
            if not stored:
                made.enabled = False
                raise self._refusal(library.panda_last_status())
            made._inserted = True

        def remove() -> None:
            made._inserted = False
            library.panda_hooks_remove_hook(stored)

        made._remove = remove

    def _insert_as_callback(self, made: Hook) -> None:
        kind = made.cb_type
        fast = self.libpanda.fast
        takes_pc = kind == "before_block_translate"

        def fits(place: Any) -> bool:
            pc = place if takes_pc else place.pc
            if kind == "before_tcg_codegen":
                if not pc <= made.addr < pc + place.size:
                    return False
            elif pc != made.addr:
                return False
            if made.km != MODE_ANY and (made.km == MODE_KERNEL_ONLY) != fast.panda_in_kernel_mode(
                self.cpu
            ):
                return False
            return not made.asid or made.asid == fast.panda_current_asid(self.cpu)

        def called(cpu: PandaCPU, place: Any, *exit_code: int) -> Any:
            if not made.enabled or not fits(place):
                return 0
            result = made.function(cpu, place, *exit_code, made)
            if not made.enabled:
                made._remove()
            return _as_int(result)

        self.plugin_register_count += 1
        name = f"__hook_{self.plugin_register_count}"
        filters: dict[str, Any] = {"pc": made.addr} if kind in _OF_BLOCK else {}
        adapted: Callable[..., Any] = called
        if kind != "after_block_exec":
            adapted = lambda cpu, place: called(cpu, place)  # noqa: E731
        else:
            adapted = lambda cpu, place, code: called(cpu, place, code)  # noqa: E731
        self.register_callback(getattr(self.callback, kind), adapted, name, **filters)
        if kind in _OF_TRANSLATION:
            self.flush_tb()

        def remove() -> None:
            if name in self.registered_callbacks:
                self.delete_callback(name)

        made._remove = remove


#: The C function of a hook.
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
