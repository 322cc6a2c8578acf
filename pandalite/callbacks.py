"""Callbacks: registration, decorators, and what happens when one raises.

Functions of the kinds that are raised most often are called by the core itself,
through CPython's C API (``panda/python.h``). All others, and all of them on
Pythons that lack a function for it (3.9, 3.10), get a *trampoline*: a small
Python function behind a ctypes closure, of exactly the arguments that change
from event to event, made from a template for its kind. The CPU and block
objects never change, so they do not cross the C boundary, which halves the
cost of such a call.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ._bindings.callbacks import KINDS, CallbackKind, panda_cb
from ._bindings.structs import PandaPythonApi, PandaPythonCallback
from ._core import PandaCore
from .errors import CallbackSignatureError, UnsupportedFeatureError
from .filters import Flag, filter_of, new_flag
from .utils import warn

if TYPE_CHECKING:
    from _ctypes import CFuncPtr

_C_TYPES: dict[str, Any] = {
    "target_ptr_t": ctypes.c_uint64,
    "hwaddr": ctypes.c_uint64,
    "uint64_t": ctypes.c_uint64,
    "uint32_t": ctypes.c_uint32,
    "int32_t": ctypes.c_int32,
    "uint8_t": ctypes.c_uint8,
    "size_t": ctypes.c_size_t,
    "bool": ctypes.c_bool,
    "int": ctypes.c_int,
    "void": None,
    "char *": ctypes.c_char_p,
    "const char *": ctypes.c_char_p,
    "uint64_t *": ctypes.POINTER(ctypes.c_uint64),
    "uint8_t *": ctypes.POINTER(ctypes.c_uint8),
    "const uint8_t *": ctypes.POINTER(ctypes.c_uint8),
    "char **": ctypes.POINTER(ctypes.c_char_p),
}

#: Arguments that are the same object in every event.
_CONSTANTS = {"PandaCPU *": "cpu", "PandaTB *": "tb"}

#: Kinds whose buffer is the core's one value buffer.
_FIXED_BUFFER = "_mem_"


#: Kinds whose result is the number to go on with, for the one they are given.
_MAY_CHANGE_NUMBER = ("before_handle_exception", "before_handle_interrupt")


class _Shape(NamedTuple):
    """How a kind's trampoline looks."""

    functype: type[CFuncPtr]
    params: tuple[str, ...]
    arguments: tuple[str, ...]


def _shape(kind: CallbackKind) -> _Shape:
    """Work out which arguments have to cross the C boundary.

    C passes more arguments than the trampoline declares; those at the end are
    simply not looked at.
    """
    params: list[str] = []
    types: list[Any] = []
    arguments: list[str] = []
    last = 0
    for name, ctype in zip(kind.argnames, kind.argtypes):
        constant = _CONSTANTS.get(ctype)
        if ctype == "uint8_t *" and _FIXED_BUFFER in kind.name:
            constant = "mem_buf"
        params.append(f"_{name}")
        types.append(ctypes.c_void_p if constant else _C_TYPES.get(ctype, ctypes.c_void_p))
        arguments.append(constant or f"_{name}")
        if not constant:
            last = len(params)
    functype = ctypes.CFUNCTYPE(_C_TYPES[kind.restype], *types[:last])
    return _Shape(functype, tuple(params[:last]), tuple(arguments))


_TEMPLATE = """
def trampoline({params}):
    try:
        {statement}
    except BaseException as error:
        return failed(error)
"""


def _as_int(value: object) -> int:
    """What C gets of a callback's result: None or nonsense is 0."""
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        return 0


def _keeping_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what a callback has put into its last argument until it is called again.

    ``result[0] = b"..."`` stores the address of the bytes, which C reads when
    Python may have dropped them.
    """
    kept: list[Any] = []

    def call(*args: Any) -> Any:
        value = function(*args)
        text = args[-1][0]
        if text is not None:
            kept[:] = [ctypes.create_string_buffer(text)]
            args[-1][0] = ctypes.cast(kept[0], ctypes.c_char_p)
        return value

    return call


class _CallbackInterrupted(BaseException):
    """Raised inside a callback that does not return while the run ends."""


class CallbackFunction:
    """A Python function made ready for a callback kind (``panda.callback.X(fn)``)."""

    def __init__(self, kind: CallbackKind, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise CallbackSignatureError(f"{kind.name}: {function!r} is not a function")
        self.kind = kind
        self.function = function
        self.pointer: CFuncPtr | None = None
        self.__name__ = getattr(function, "__name__", kind.name)
        self._check_arity()

    def _check_arity(self) -> None:
        count = len(self.kind.argnames)
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):
            return
        try:
            signature.bind(*range(count))
        except TypeError as error:
            expected = ", ".join(self.kind.argnames) or "none"
            raise CallbackSignatureError(
                f"callback {self.__name__}{signature} does not fit kind {self.kind.name}, which "
                f"passes {count} argument{'s' * (count != 1)} ({expected}): {error}"
            ) from None

    def build(self, panda: PandaCore, failed: Callable[[BaseException], int]) -> CFuncPtr:
        """Make the C function; it lives as long as this object."""
        shape = _shape(self.kind)
        call = f"fn({', '.join(shape.arguments)})"
        if self.kind.restype == "void":
            statement = call
        elif self.kind.restype == "bool":
            statement = f"return bool({call})"
        else:
            statement = f"return as_int({call})"
        if self.kind.name in _MAY_CHANGE_NUMBER:
            # No result is no change.
            statement = f"result = {call}; return {shape.params[-1]} if result is None else "
            statement += "as_int(result)"
        scope: dict[str, Any] = {
            "fn": _keeping_text(self.function)
            if "char **" in self.kind.argtypes
            else self.function,
            "failed": failed,
            "as_int": _as_int,
            "cpu": panda.cpu,
            "tb": panda.tb,
            "mem_buf": panda.mem_buf,
        }
        source = _TEMPLATE.format(params=", ".join(shape.params), statement=statement)
        exec(compile(source, f"<trampoline of {self.kind.name}>", "exec"), scope)
        self.pointer = shape.functype(scope["trampoline"])
        return self.pointer

    def __call__(self, *args: Any) -> Any:
        """Call the Python function."""
        return self.function(*args)


class CallbackType:
    """A callback kind, as found in ``panda.callback``; call it with a function."""

    def __init__(self, kind: CallbackKind) -> None:
        self.kind = kind
        self.__doc__ = kind.doc

    def __call__(self, function: Callable[..., Any]) -> CallbackFunction:
        """Make a function ready to be registered."""
        return CallbackFunction(self.kind, function)

    def __repr__(self) -> str:
        return f"<callback kind {self.kind.name}>"


class CallbackName(NamedTuple):
    """Value of ``panda.callback_dictionary``: name and number of a kind."""

    name: str
    number: int


class Callbacks(PandaCore):
    """The part of Panda that registers callbacks."""

    callback: Any
    callback_dictionary: dict[CallbackType, CallbackName]
    registered_callbacks: dict[str, dict[str, Any]]
    plugin_register_count: int
    lambda_cnt: int
    _core_knows_python: bool
    disabled_tb_chaining: bool
    _memcb: bool
    #: Functions that remove what else is called in events.
    _removers: list[Callable[[], None]]

    def _init_callbacks(self) -> None:
        types = {name: CallbackType(kind) for name, kind in KINDS.items()}
        self.callback = _KindNames(**types)
        self.callback_dictionary = {
            t: CallbackName(name, KINDS[name].number) for name, t in types.items()
        }
        self.registered_callbacks = {}
        self.plugin_register_count = 0
        self.lambda_cnt = 0
        self._removers = []
        self.disabled_tb_chaining = False
        self._memcb = False
        # Kept: the core holds its address.
        self._python_failed = self._callback_failed
        api = _python_api(self._python_failed if self.catch_exceptions else None)
        self._core_knows_python = api is not None
        if api is not None:
            self.libpanda.panda_python_set_api(api)

    def register_callback(
        self,
        callback: CallbackType,
        function: CallbackFunction | Callable[..., Any],
        name: str,
        enabled: bool = True,
        procname: str | None = None,
        **filters: Any,
    ) -> None:
        """Register a function for a callback kind.

        Args:
            callback: the kind, ``panda.callback.<kind>``.
            function: ``panda.callback.<kind>(fn)``, or the Python function.
            name: to refer to it; one that is taken is replaced, with a warning.
            enabled: whether it is called at once.
            procname: only while a process of this short name runs; a filter, too.
            filters: which events it is called for: ``pc``, ``addr``, ``asid``,
                ``kernel``, ``every``, ``first``, ``once_per_block``, ``when``; see
                :func:`pandalite.filters.make_filter`. C: ``panda_set_filter``.

        Raises:
            UnsupportedFeatureError: ``before_loadvm``.
            CallbackSignatureError: the function takes other arguments.
            ValueError, TypeError: a filter makes no sense.
            StateError: there are too many filters (55).
            IntrospectionError: with ``procname``, the guest's kernel is found and does not
                show which process runs.
        """
        self._check_process()
        if not isinstance(function, CallbackFunction):
            function = callback(function)
        if procname is not None:
            filters = {**filters, "procname": procname}
        wanted = filter_of(filters)
        kind = callback.kind
        if kind.name == "before_loadvm":
            raise UnsupportedFeatureError(
                "before_loadvm cannot be registered (PANDA aborts on it too): use after_loadvm"
            )
        if name in self.registered_callbacks:
            warn(f"callback {name!r} is registered already: the new one replaces it")
            self.delete_callback(name)

        self.plugin_register_count += 1
        handle = self.plugin_register_count
        if wanted is not None:
            self._check_argument(self.libpanda.panda_set_filter(handle, wanted))
        if self.libpanda.panda_python_supports(kind.number):
            pcb: Any = PandaPythonCallback(
                id(function.function), id(self.cpu), id(self.tb), id(self.mem_buf)
            )
            status = self.libpanda.panda_register_python_callback(handle, kind.number, pcb)
        else:
            failed = self._callback_failed if self.catch_exceptions else _raise
            pcb = panda_cb()
            pcb.cbaddr = ctypes.cast(function.build(self, failed), type(pcb.cbaddr))
            status = self.libpanda.panda_register_callback_helper(handle, kind.number, pcb)
        if status < 0:
            self.libpanda.panda_set_filter(handle, None)
        self._check_argument(status)
        self.registered_callbacks[name] = {
            "procname": procname,
            "enabled": True,
            "callback": callback,
            "handle": handle,
            "pcb": pcb,
            "function": function,
        }
        if not enabled:
            self.disable_callback(name)

    def is_callback_enabled(self, name: str) -> bool:
        """Whether a callback is enabled; RuntimeError if there is none of that name."""
        return bool(self._registered(name)["enabled"])

    def enable_callback(self, name: str) -> None:
        """Enable a callback; RuntimeError if there is none of that name."""
        self._set_enabled(name, True)

    def disable_callback(self, name: str, forever: bool = False) -> None:
        """Disable a callback; it keeps its place and can be enabled again.

        Args:
            name: of the callback; RuntimeError if there is none.
            forever: forget it as well.
        """
        self._set_enabled(name, False)
        if forever and not self.ending:
            self.delete_callback(name)

    def delete_callback(self, name: str) -> None:
        """Unregister a callback; ValueError if there is none of that name."""
        entry = self.registered_callbacks.pop(name, None)
        if entry is None:
            raise ValueError(f"no callback {name!r} is registered{self._callback_names()}")
        self.libpanda.panda_unregister_callbacks(entry["handle"])
        # Its C function may be running this moment: it goes when the run ends.
        self._retired_callbacks.append(entry)

    def delete_callbacks(self) -> None:
        """Unregister all callbacks."""
        for name in list(self.registered_callbacks):
            self.delete_callback(name)
        for remove in self._removers:
            remove()

    def enable_all_callbacks(self) -> None:
        """Enable all callbacks."""
        for name in list(self.registered_callbacks):
            self._set_enabled(name, True)

    def enable_internal_callbacks(self) -> None:
        """Enable the callbacks whose name begins with two underscores."""
        for name in list(self.registered_callbacks):
            if name.startswith("__"):
                self._set_enabled(name, True)

    def enable_plugin(self, handle: int) -> None:
        """Enable all callbacks of an owner (C: ``panda_enable_plugin``)."""
        self.libpanda.panda_enable_plugin(handle)

    def disable_plugin(self, handle: int) -> None:
        """Disable all callbacks of an owner (C: ``panda_disable_plugin``)."""
        self.libpanda.panda_disable_plugin(handle)

    def flag(self, is_set: bool = True) -> Flag:
        """Make a switch for ``when=`` filters; it can be thrown from anywhere.

        Args:
            is_set: whether events pass to begin with.

        Raises:
            StateError: there are 65535 already.
        """
        return new_flag(self.libpanda, is_set)

    # --- what instrumentation does to the code cache ---

    def enable_memcb(self) -> None:
        """Accepted for compatibility: registering a memory callback does it."""
        self._memcb = True
        self.libpanda.panda_enable_memcb()

    def disable_memcb(self) -> None:
        """Undo :meth:`enable_memcb`; registered memory callbacks go on."""
        self._memcb = False
        self.libpanda.panda_disable_memcb()

    def enable_precise_pc(self) -> None:
        """Accepted for compatibility: the pc is always exact."""

    def disable_precise_pc(self) -> None:
        """Accepted for compatibility: the pc is always exact."""

    def enable_tb_chaining(self) -> None:
        """Let blocks jump to each other directly; the default."""
        self.disabled_tb_chaining = False
        self.libpanda.panda_enable_tb_chaining()

    def disable_tb_chaining(self) -> None:
        """Return to the execution loop after each block.

        No callback needs it: every block is seen with chaining on.
        """
        if not self.disabled_tb_chaining:
            self.disabled_tb_chaining = True
            self.libpanda.panda_disable_tb_chaining()

    def flush_tb(self) -> None:
        """Drop all translated code before the next block is looked up."""
        self.libpanda.panda_do_flush_tb()

    def break_exec(self) -> None:
        """In a start_block_exec callback: leave the block before it runs.

        Execution continues at the pc as it is when all callbacks have run.
        """
        self.libpanda.panda_do_break_exec()

    def exit_cpu_loop(self) -> None:
        """Leave the execution loop without running the present block."""
        self.libpanda.panda_exit_cpu_loop()

    # --- helpers ---

    _retired_callbacks: list[dict[str, Any]]

    def _registered(self, name: str) -> dict[str, Any]:
        try:
            return self.registered_callbacks[name]
        except KeyError:
            raise RuntimeError(
                f"no callback {name!r} is registered{self._callback_names()}"
            ) from None

    def _check_argument(self, status: int) -> None:
        if status < 0:
            raise self._refusal(status)

    def _callback_names(self) -> str:
        names = ", ".join(sorted(self.registered_callbacks))
        return f"; there are: {names}" if names else ""

    def _set_enabled(self, name: str, enabled: bool) -> None:
        if self.ending:
            return
        entry = self._registered(name)
        # Each callback is an owner of its own.
        (self.enable_plugin if enabled else self.disable_plugin)(entry["handle"])
        entry["enabled"] = enabled

    def _callback_failed(self, error: BaseException) -> int:
        """A callback raised: no other runs any more, the run ends."""
        if isinstance(error, _CallbackInterrupted):
            return 0
        self.libpanda.panda_set_callback_gate(True)
        self._fail_run(error)
        return 0


class _KindNames:
    """Namespace of the callback kinds: ``panda.callback.before_block_exec``."""

    def __init__(self, **types: CallbackType) -> None:
        self.__dict__.update(types)
        self._fields = tuple(types)

    def __iter__(self) -> Any:
        return (getattr(self, name) for name in self._fields)


def _python_api(failed: Callable[[BaseException], int] | None) -> PandaPythonApi | None:
    """Addresses of CPython's functions for the core; None if one is missing."""
    api = PandaPythonApi()
    try:
        for name, *_ in PandaPythonApi._fields_:
            if name not in ("failed", "none"):
                function = getattr(ctypes.pythonapi, name)
                setattr(api, name, ctypes.cast(function, ctypes.c_void_p))
    except AttributeError:
        return None
    api.none = id(None)
    api.failed = None if failed is None else id(failed)
    return api


def _raise(error: BaseException) -> int:
    """With catch_exceptions=False ctypes prints what a callback raises."""
    raise error


def _make_decorator(kind: CallbackKind) -> Callable[..., Any]:
    def decorator(
        self: Callbacks,
        func: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        procname: str | None = None,
        enabled: bool = True,
        **filters: Any,
    ) -> Any:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            chosen = str(name or getattr(function, "__name__", kind.name))
            if chosen == "<lambda>":
                self.lambda_cnt += 1
                chosen = f"<lambda_{self.lambda_cnt}>"
            self.register_callback(
                getattr(self.callback, kind.name), function, chosen, enabled, procname, **filters
            )
            return function

        return register if func is None else register(func)

    decorator.__name__ = f"cb_{kind.name}"
    decorator.__qualname__ = f"Callbacks.cb_{kind.name}"
    decorator.__doc__ = (
        f"Decorate a function ({', '.join(kind.argnames)}) as a {kind.name} callback.\n\n"
        f"{kind.doc}\n\nArguments: name (default: the function's), enabled, and filters: "
        "pc, addr, asid, kernel, every, first, once_per_block, when "
        "(:mod:`pandalite.filters`)."
    )
    return decorator


for _kind in KINDS.values():
    setattr(Callbacks, f"cb_{_kind.name}", _make_decorator(_kind))
