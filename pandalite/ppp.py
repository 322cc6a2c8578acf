"""PPP: callbacks that plugins offer, for Python functions.

What a callback is called with is declared where the plugin is: as a typedef in the
plugin's header (then it is in ``pandalite/_bindings/plugins.py``), or, for plugins
with very many callbacks and for plugins of your own, by :func:`declare`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from ._bindings.constants import PANDA_PPP_WORDS
from ._bindings.enums import PandaPppKind
from ._bindings.structs import PandaPythonCallback
from .callbacks import Callbacks, _as_int, _raise
from .errors import CallbackSignatureError, PluginError
from .utils import warn

if TYPE_CHECKING:
    from _ctypes import CFuncPtr

#: C types by their names in signatures.
TYPES: dict[str, Any] = {
    "cpu": ctypes.c_void_p,
    "tb": ctypes.c_void_p,
    "ptr": ctypes.c_uint64,
    "u64": ctypes.c_uint64,
    "s64": ctypes.c_int64,
    "u32": ctypes.c_uint32,
    "s32": ctypes.c_int32,
    "u16": ctypes.c_uint16,
    "s16": ctypes.c_int16,
    "u8": ctypes.c_uint8,
    "bool": ctypes.c_bool,
    "str": ctypes.c_char_p,
    "address": ctypes.c_void_p,
    "void": None,
}

#: C's spellings of the same.
_SPELLINGS = {
    "PandaCPU *": "cpu",
    "PandaTB *": "tb",
    "target_ptr_t": "ptr",
    "uint64_t": "u64",
    "int64_t": "s64",
    "uint32_t": "u32",
    "int32_t": "s32",
    "uint16_t": "u16",
    "int16_t": "s16",
    "uint8_t": "u8",
    "size_t": "u64",
    "hwaddr": "u64",
    "int": "s32",
    "unsigned int": "u32",
    "bool": "bool",
    "_Bool": "bool",
    "const char *": "str",
    "char *": "str",
    "void": "void",
}


#: What the core makes of an argument without ctypes.
_KINDS: dict[str, int] = {
    **{
        kind: getattr(PandaPppKind, kind.upper())
        for kind in TYPES
        if kind.upper() in PandaPppKind.__members__
    },
    "ptr": PandaPppKind.U64,
}


class Signature(NamedTuple):
    """What a PPP callback is called with.

    Fields:
        args: pairs of a name and a type of :data:`TYPES`, or a ctypes type; a
            function gets the structure itself for a pointer to one.
        result: the type of the result.
    """

    args: tuple[tuple[str, Any], ...]
    result: Any = "void"


#: Finds the signature of a callback by its name; None: there is no such callback.
Finder = Callable[[Callbacks, str], Union[Signature, None]]

_declared: dict[str, Finder] = {}

#: Modules of pandalite that declare the callbacks of a plugin when they are imported.
_HOMES: dict[str, str] = {"syscalls2": ".syscalls.ppp"}


def declare(plugin: str, signatures: Finder | dict[str, Signature]) -> None:
    """Say what the PPP callbacks of a plugin are called with.

    Args:
        plugin: its name.
        signatures: by the callback's name, or a function of the Panda and the
            callback's name that returns the signature, or None.
    """
    if callable(signatures):
        _declared[plugin] = signatures
    else:
        table = dict(signatures)
        _declared[plugin] = lambda _panda, name: table.get(name)


def signature_of(panda: Callbacks, plugin: str, name: str) -> Signature:
    """The signature of a callback; CallbackSignatureError if it is not declared."""
    from ._bindings.plugins import PPP

    found: Signature | None = None
    if plugin in _HOMES and plugin not in _declared:
        import_module(_HOMES[plugin], __package__)
    if plugin in _declared:
        found = _declared[plugin](panda, name)
    if found is None and name in PPP.get(plugin, {}):
        known = PPP[plugin][name]
        types: Iterable[Any] = getattr(known.functype, "_argtypes_", ())
        args = [
            (arg, _SPELLINGS.get(spelling, ctype))
            for arg, spelling, ctype in zip(known.argnames, known.argtypes, types)
        ]
        result = _SPELLINGS.get(known.restype, getattr(known.functype, "_restype_", None))
        found = Signature(tuple(args), result)
    if found is None:
        names = ", ".join(sorted(PPP.get(plugin, {}))) or "none declared"
        raise CallbackSignatureError(
            f"it is not known what {name} of plugin {plugin} is called with; its callbacks: "
            f"{names}. For a plugin of your own, pandalite.ppp.declare() says it"
        )
    return found


def _is_pointer(ctype: Any) -> bool:
    return isinstance(ctype, type) and issubclass(ctype, ctypes._Pointer)


_TEMPLATE = """
def trampoline({params}):
    try:
        {statement}
    except BaseException as error:
        return failed(error)
"""


class PppFunction:
    """A Python function made ready for a PPP callback; keeps what C calls alive."""

    def __init__(
        self,
        panda: Callbacks,
        plugin: str,
        name: str,
        function: Callable[..., Any],
        failed: Callable[[BaseException], int],
    ) -> None:
        import inspect

        signature = signature_of(panda, plugin, name)
        self.plugin = plugin
        self.name = name
        self.function = function
        names = [arg for arg, _ in signature.args]
        try:
            inspect.signature(function).bind(*range(len(names)))
        except ValueError:
            pass
        except TypeError as error:
            raise CallbackSignatureError(
                f"{getattr(function, '__name__', function)} does not fit {name} of plugin "
                f"{plugin}, which passes {len(names)} arguments ({', '.join(names)}): {error}"
            ) from None
        params, arguments, types = [], [], []
        for number, (_, kind) in enumerate(signature.args):
            ctype = TYPES[kind] if isinstance(kind, str) else kind
            param = f"a{number}"
            params.append(param)
            types.append(ctype)
            if kind in ("cpu", "tb"):
                arguments.append(str(kind))
            elif _is_pointer(ctype) and issubclass(ctype._type_, ctypes.Structure):
                arguments.append(f"({param}.contents if {param} else None)")
            else:
                arguments.append(param)
        call = f"fn({', '.join(arguments)})"
        result = signature.result
        #: Its arguments as the core can make them itself, or None: it calls ``pointer``.
        self.kinds: bytes | None = None
        if (
            panda._core_knows_python
            and result in ("void", "bool")
            and len(params) < PANDA_PPP_WORDS
        ):
            kinds = [_KINDS.get(kind) for _, kind in signature.args if isinstance(kind, str)]
            if len(kinds) == len(params) and None not in kinds:
                self.kinds = bytes(kind for kind in kinds if kind is not None)
        restype = TYPES[result] if isinstance(result, str) else result
        if restype is None:
            statement = call
        elif restype is ctypes.c_bool:
            statement = f"return bool({call})"
        else:
            statement = f"return as_int({call})"
        scope: dict[str, Any] = {
            "fn": function,
            "failed": failed,
            "as_int": _as_int,
            "cpu": panda.cpu,
            "tb": panda.tb,
        }
        source = _TEMPLATE.format(params=", ".join(params), statement=statement)
        exec(compile(source, f"<trampoline of {plugin}.{name}>", "exec"), scope)
        self.pointer: CFuncPtr = ctypes.CFUNCTYPE(restype, *types)(scope["trampoline"])


class Ppp(Callbacks):
    """The part of Panda for PPP callbacks."""

    #: Name -> what is registered.
    ppp_registered_cbs: dict[str, dict[str, Any]]

    def _init_ppp(self) -> None:
        self.ppp_registered_cbs = {}
        # Kept: C calls it.
        self._ppp_void = ctypes.CFUNCTYPE(None)

    def _need_plugin(self, name: str, autoload: bool) -> None:
        """Load a plugin if it is not loaded; see :class:`pandalite.plugins.Plugins`."""
        raise NotImplementedError

    def ppp(
        self, plugin_name: str, attr: str, name: str | None = None, autoload: bool = True
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorate a function as a callback that a plugin calls.

        Args:
            plugin_name: the plugin, e.g. ``"callstack_instr"``.
            attr: the callback, e.g. ``"on_call"``.
            name: to refer to it (default: the function's); one that is taken is
                replaced, with a warning.
            autoload: load the plugin if it is not loaded.

        Raises:
            CallbackSignatureError: there is no such callback, or the function takes
                other arguments.
            Whatever :meth:`pandalite.Panda.load_plugin` raises.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._check_process()
            self._need_plugin(plugin_name, autoload)
            chosen = str(name or getattr(function, "__name__", attr))
            if chosen == "<lambda>":
                self.lambda_cnt += 1
                chosen = f"<lambda_{self.lambda_cnt}>"
            failed = self._callback_failed if self.catch_exceptions else _raise
            made = PppFunction(self, plugin_name, attr, function, failed)
            if chosen in self.ppp_registered_cbs:
                warn(f"PPP callback {chosen!r} is registered already: the new one replaces it")
                self.disable_ppp(chosen)
            self.plugin_register_count += 1
            handle = self.plugin_register_count
            where = plugin_name.encode(), attr.encode(), handle
            if made.kinds is not None:
                target = PandaPythonCallback(id(function), id(self.cpu), id(self.tb), None)
                status = self.libpanda.panda_ppp_add_python(
                    *where, target, made.kinds, len(made.kinds)
                )
            else:
                pointer = ctypes.cast(made.pointer, self._ppp_void)
                status = self.libpanda.panda_ppp_add(*where, pointer)
            if status < 0:
                raise PluginError(str(self._error(status)))
            self.ppp_registered_cbs[chosen] = {
                "plugin": plugin_name,
                "callback": attr,
                "handle": handle,
                "function": made,
            }
            return function

        return register

    def disable_ppp(self, name: str) -> None:
        """Remove a PPP callback for good; KeyError if there is none of that name."""
        entry = self.ppp_registered_cbs.pop(name)
        self.libpanda.panda_ppp_remove_all(entry["handle"])
        # Its C function may be running this moment: it goes when the run ends.
        self._retired_callbacks.append(entry)

    def delete_callbacks(self) -> None:
        """Unregister all callbacks, those of plugins too."""
        super().delete_callbacks()
        for name in list(self.ppp_registered_cbs):
            self.disable_ppp(name)
