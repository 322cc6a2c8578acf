"""Hooks of memory, hypercalls, breakpoints, and PyPANDA's older hooks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._bindings.functions import PROTOTYPES
from ._bindings.structs import memory_access_desc, memory_hooks_region
from .callbacks import _raise
from .hooks import Hooks

if TYPE_CHECKING:
    from ._bindings.structs import PandaCPU, PandaTB

Function = Callable[..., Any]


class HookKinds(Hooks):
    """The part of Panda for hooks that are not of an address of code."""

    #: Memory hooks: function -> its region and what keeps it alive.
    mem_hooks: dict[Function, Any]
    #: Hypercalls: function -> its numbers and what keeps it alive.
    hypercalls: dict[Function, tuple[list[int], Any]]
    #: Hooks of :meth:`hook2` with a place to begin: name -> its hooks.
    _hook2_places: dict[str, list[Any]]

    def _init_hook_kinds(self) -> None:
        self.mem_hooks = {}
        self.hypercalls = {}
        self._hook2_places = {}

    # --- memory ---

    def hook_mem(
        self,
        start_address: int,
        end_address: int,
        on_before: bool,
        on_after: bool,
        on_read: bool,
        on_write: bool,
        on_virtual: bool,
        on_physical: bool,
        enabled: bool,
    ) -> Callable[[Function], Function]:
        """Decorate a function ``(cpu, access)``: it is called for accesses to memory.

        Args:
            start_address, end_address: the first and the last address.
            on_before, on_after: whether the access is to be made, or was made.
            on_read, on_write: which accesses.
            on_virtual, on_physical: which addresses these are.
            enabled: False: nothing is called, until ``access.hook`` is enabled, which
                is in ``panda.mem_hooks[function]``.

        The function gets a ``memory_access_desc``: ``pc``, ``addr``, ``size``, ``buf``
        (a pointer to the value's bytes in host order, null before a read), ``on_before``
        and its relatives, ``hook``. Writing to ``buf`` does what it does in memory
        callbacks. C: ``panda_mem_hooks_add_mem_hook``.

        Raises:
            ValueError: the range, or what is to be watched, is empty.
            StateError: there are too many filters (55); each kind of access takes one.
        """

        def register(function: Function) -> Function:
            self._check_process()
            self._need_plugin("mem_hooks", autoload=True)
            failed = self._callback_failed if self.catch_exceptions else _raise
            cpu = self.cpu

            def call(_cpu: int, where: int) -> None:
                try:
                    function(cpu, memory_access_desc.from_address(where))
                except BaseException as error:
                    failed(error)

            pointer = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(call)
            region = memory_hooks_region(
                start_address,
                end_address,
                enabled,
                on_before,
                on_after,
                on_read,
                on_write,
                on_virtual,
                on_physical,
            )
            region.cb = ctypes.cast(pointer, type(region.cb))
            stored = self.libpanda.panda_mem_hooks_add_mem_hook(region)
            if not stored:
                raise self._refusal(self.libpanda.panda_last_status())
            self.mem_hooks[function] = stored.contents
            self._retired_callbacks.append({"mem_hook": pointer})
            return function

        return register

    def hook_phys_mem_read(
        self,
        start_address: int,
        end_address: int,
        on_before: bool = True,
        on_after: bool = False,
        enabled: bool = True,
    ) -> Callable[[Function], Function]:
        """Decorate a function ``(cpu, access)``: reads of physical addresses."""
        return self.hook_mem(
            start_address, end_address, on_before, on_after, True, False, False, True, enabled
        )

    def hook_phys_mem_write(
        self,
        start_address: int,
        end_address: int,
        on_before: bool = True,
        on_after: bool = False,
        enabled: bool = True,
    ) -> Callable[[Function], Function]:
        """Decorate a function ``(cpu, access)``: writes to physical addresses."""
        return self.hook_mem(
            start_address, end_address, on_before, on_after, False, True, False, True, enabled
        )

    def hook_virt_mem_read(
        self,
        start_address: int,
        end_address: int,
        on_before: bool = True,
        on_after: bool = False,
        enabled: bool = True,
    ) -> Callable[[Function], Function]:
        """Decorate a function ``(cpu, access)``: reads of virtual addresses."""
        return self.hook_mem(
            start_address, end_address, on_before, on_after, True, False, True, False, enabled
        )

    def hook_virt_mem_write(
        self,
        start_address: int,
        end_address: int,
        on_before: bool = True,
        on_after: bool = False,
        enabled: bool = True,
    ) -> Callable[[Function], Function]:
        """Decorate a function ``(cpu, access)``: writes to virtual addresses."""
        return self.hook_mem(
            start_address, end_address, on_before, on_after, False, True, True, False, enabled
        )

    # --- hypercalls ---

    def hypercall(self, magic: int | list[int]) -> Callable[[Function], Function]:
        """Decorate a function ``(cpu)``: it is called for a hypercall of the guest.

        The call counts as handled. docs/callbacks.md has the instruction of each
        architecture, and the register with the number.

        Args:
            magic: the number, or several.

        Raises:
            TypeError: magic is neither.
            ValueError: there is a function for that number.
        """
        numbers = [magic] if isinstance(magic, int) else magic
        if not isinstance(numbers, list) or not all(isinstance(n, int) for n in numbers):
            raise TypeError(f"a hypercall's magic is an int or a list of ints, not {magic!r}")

        def register(function: Function) -> Function:
            self._check_process()
            self._need_plugin("hypercaller", autoload=True)
            failed = self._callback_failed if self.catch_exceptions else _raise
            cpu = self.cpu

            def call(_cpu: Any) -> None:
                try:
                    function(cpu)
                except BaseException as error:
                    failed(error)

            functype = PROTOTYPES["panda_hypercaller_register_hypercall"][1][1]
            pointer = functype(call)
            done: list[int] = []
            for number in numbers:
                status = self.libpanda.panda_hypercaller_register_hypercall(
                    number & 0xFFFFFFFF, pointer
                )
                if status < 0:
                    error = self._refusal(status)
                    self._forget_hypercalls(done)
                    raise error
                done.append(number)
            self.hypercalls[function] = (done, pointer)
            return function

        return register

    def disable_hypercall(self, fn: Function) -> None:
        """Undo :meth:`hypercall`; KeyError if the function was not decorated."""
        numbers, pointer = self.hypercalls.pop(fn)
        self._forget_hypercalls(numbers)
        self._retired_callbacks.append({"hypercall": pointer})

    def _forget_hypercalls(self, numbers: list[int]) -> None:
        for number in numbers:
            self.libpanda.panda_hypercaller_unregister_hypercall(number & 0xFFFFFFFF)

    # --- breakpoints ---

    def set_breakpoint(self, cpu: PandaCPU, pc: int) -> None:
        """Stop the machine before an instruction, as for gdb.

        It stands there until the breakpoint is cleared and ``cont()`` is called.
        C: ``panda_set_breakpoint``.
        """
        self._check(self.libpanda.panda_set_breakpoint(cpu, pc))

    def clear_breakpoint(self, cpu: PandaCPU, pc: int) -> None:
        """Undo :meth:`set_breakpoint`."""
        self._check(self.libpanda.panda_clear_breakpoint(cpu, pc))

    # --- call stacks ---

    def callstack_callers(self, lim: int, cpu: PandaCPU) -> list[int]:
        """Where the functions that run will return to, the last called first.

        In a callback. The plugin ``callstack_instr`` follows calls from when it is
        loaded: by the first use of this, if not before.

        Args:
            lim: length of the list; what is not known is 0.
            cpu: the CPU.
        """
        self._need_plugin("callstack_instr", autoload=True)
        callers = (ctypes.c_uint64 * lim)()
        self.libpanda.fast.panda_callstack_instr_get_callers(callers, lim, cpu)
        return list(callers)

    # --- PyPANDA's hooks2 ---

    def hook2(
        self,
        name: str,
        kernel: bool = True,
        procname: str | None = None,
        libname: str | None = None,
        trace_start: int = 0,
        trace_stop: int = 0,
        range_begin: int = 0,
        range_end: int = 0,
    ) -> Callable[[Function], Function]:
        """Decorate a function ``(cpu, tb, None)``: it is called for the blocks of a range.

        Args:
            name: to enable and disable it, see :meth:`enable_hook2`.
            kernel: True: in the kernel's mode only, False: in user mode only.
            procname: in a process of this short name only.
            libname: in code mapped from a file with this in its name only.
            trace_start, trace_stop: between these two addresses only.
            range_begin, range_end: start addresses of blocks, both included; 0 and 0: all.
        """

        def register(function: Function) -> Function:
            filters: dict[str, Any] = {"kernel": kernel}
            if range_begin or range_end:
                filters["pc"] = (range_begin, range_end + 1)

            def block(cpu: PandaCPU, tb: PandaTB) -> None:
                if not libname or self._is_mapped_from(cpu, tb.pc, libname):
                    function(cpu, tb, None)

            kind = self.callback.start_block_exec
            self.register_callback(kind, block, name, not trace_start, procname or None, **filters)
            places = []
            if trace_start:
                places.append(
                    self.add_hook(trace_start, lambda *_: self.enable_callback(name), kernel=kernel)
                )
            if trace_stop:
                places.append(
                    self.add_hook(trace_stop, lambda *_: self.disable_callback(name), kernel=kernel)
                )
            self._hook2_places[name] = places
            return function

        return register

    def hook2_single_insn(
        self,
        name: str,
        pc: int,
        kernel: bool = False,
        procname: str | None = None,
        libname: str | None = None,
    ) -> Callable[[Function], Function]:
        """Decorate a function ``(cpu, tb, None)``: it is called before an instruction.

        Args:
            name: to enable and disable it, see :meth:`enable_hook2`.
            pc: any instruction.
            kernel: True: in the kernel's mode only, False: in user mode only.
            procname: in a process of this short name only.
            libname: in code mapped from a file with this in its name only.
        """
        asked: Any = self

        def register(function: Function) -> Function:
            def insn(cpu: PandaCPU, tb: PandaTB, _hook: Any) -> None:
                if procname and asked.get_process_name(cpu) != procname:
                    return
                if not libname or self._is_mapped_from(cpu, pc, libname):
                    function(cpu, tb, None)

            made = self.add_hook(pc, insn, kernel=kernel)
            self._hook2_places[name] = [made]
            return function

        return register

    def _is_mapped_from(self, cpu: PandaCPU, pc: int, libname: str) -> bool:
        asked: Any = self
        mapping = asked.get_mapping_by_addr(cpu, pc)
        return mapping is not None and libname in (mapping.file or "")

    def enable_hook2(self, hook_name: str) -> None:
        """Let a hook of :meth:`hook2` act; KeyError if there is none of that name."""
        places = self._hook2_places[hook_name]
        for made in places:
            made.enable()
        if hook_name in self.registered_callbacks and not places:
            self.enable_callback(hook_name)

    def disable_hook2(self, hook_name: str) -> None:
        """Let a hook of :meth:`hook2` act no more; it can be enabled again."""
        for made in self._hook2_places[hook_name]:
            if made.enabled:
                made.disable()
        if hook_name in self.registered_callbacks:
            self.disable_callback(hook_name)

    def delete_callbacks(self) -> None:
        """Unregister all callbacks, and remove all hooks."""
        super().delete_callbacks()
        for function in list(self.hypercalls):
            self.disable_hypercall(function)
        for region in self.mem_hooks.values():
            self.libpanda.panda_mem_hooks_remove_mem_hook(region)
        self.mem_hooks.clear()
        self._hook2_places.clear()
