"""C plugins: those that are built in, and your own from files."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .errors import PluginError
from .ppp import Ppp

if TYPE_CHECKING:
    from .panda import Panda
    from .replay_plugins import PythonPlugin


class Plugin:
    """A loaded plugin: its functions are attributes (``panda.plugins["x"].fn``).

    Those of built-in plugins know their arguments' types; for a function of a plugin
    from a file, set ``argtypes`` and ``restype`` as for any ctypes function.
    """

    def __init__(self, panda: Ppp, name: str) -> None:
        self._panda = panda
        self.name = name

    def __getattr__(self, name: str) -> Any:
        from ._bindings.functions import NONBLOCKING
        from ._bindings.plugins import FUNCTIONS

        library = self._panda.libpanda
        own = FUNCTIONS.get(self.name, {})
        if name in own:
            where: Any = library.fast if own[name] in NONBLOCKING else library
            found = getattr(where, own[name])
        else:
            if name.startswith("__"):
                raise AttributeError(name)
            address = library.panda_plugin_symbol(self.name.encode(), name.encode())
            if not address:
                there = f"; it has {', '.join(own)}" if own else ""
                raise AttributeError(f"plugin {self.name} has no function {name}{there}")
            found = ctypes.CDLL(None)._FuncPtr(address)
        setattr(self, name, found)
        return found

    def __dir__(self) -> list[str]:
        from ._bindings.plugins import FUNCTIONS

        return [*super().__dir__(), *FUNCTIONS.get(self.name, {})]

    def __repr__(self) -> str:
        return f"<plugin {self.name}>"


class LoadedPlugins(Mapping[str, Any]):
    """The loaded plugins by name; asking for one that is not loaded loads it."""

    def __init__(self, panda: Plugins) -> None:
        self._panda = panda
        self._made: dict[str, Plugin] = {}

    def __getitem__(self, name: str) -> Any:
        self._panda._need_plugin(name, autoload=True)
        if name in self._panda._python_plugins:
            return self._panda._python_plugins[name]
        if name not in self._made:
            self._made[name] = Plugin(self._panda, name)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        loaded = self._panda.libpanda.panda_plugin_is_loaded
        return isinstance(name, str) and (
            name in self._panda._python_plugins or bool(loaded(name.encode()))
        )

    def __iter__(self) -> Iterator[str]:
        yield from self._panda._python_plugins
        number = 0
        while name := self._panda.libpanda.panda_plugin_name(number):
            yield name.decode()
            number += 1

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<loaded plugins: {', '.join(self) or 'none'}>"


class Plugins(Ppp):
    """The part of Panda for C plugins."""

    #: Loaded plugins in Python.
    _python_plugins: dict[str, PythonPlugin]
    #: Where plugins are looked for that are not built in.
    plugin_path: str | None

    def _init_plugins(self, plugin_path: str | os.PathLike[str] | None) -> None:
        self._init_ppp()
        given = plugin_path or os.environ.get("PANDA_PLUGIN_DIR")
        self.plugin_path = None if given is None else os.fspath(given)
        self._loaded_plugins = LoadedPlugins(self)
        self._python_plugins = {}

    @property
    def plugins(self) -> LoadedPlugins:
        """The loaded plugins by name; ``panda.plugins["x"]`` loads x if need be."""
        return self._loaded_plugins

    def get_plugin_path(self) -> str | None:
        """The directory plugins are looked for in that are not built in; None: none."""
        return self.plugin_path

    def load_plugin(
        self, name: str | os.PathLike[str], args: Mapping[str, Any] | list[str] | None = None
    ) -> None:
        """Load a plugin; nothing happens if it is loaded already.

        Args:
            name: of a built-in plugin; path of a file (it has a ``/`` or ends in
                ``.so``); or name of a file ``panda_<name>.so`` or ``<name>.so`` in the
                directory given as ``plugin_path=``.
            args: its arguments: a dict, or a list of texts ``"key=value"``.

        Raises:
            ValueError: there is no such plugin; args is none of these.
            PluginError: it cannot be loaded, or its arguments are wrong.
        """
        self._check_process()
        plugin, path = self._find_plugin(os.fspath(name))
        if plugin in self._python_plugins:
            return
        if path is None and plugin in (known := _python()):
            given = dict(word.partition("=")[::2] for word in _words(args))
            self._python_plugins[plugin] = known[plugin](cast("Panda", self), given)
            return
        words = [word.encode() for word in _words(args)]
        array = (ctypes.c_char_p * len(words))(*words)
        status = self.libpanda.panda_plugin_load(
            plugin.encode(), None if path is None else os.fsencode(path), array, len(words)
        )
        if status < 0:
            raise PluginError(str(self._error(status)))

    def require(self, name: str) -> None:
        """Load a plugin without arguments; :meth:`load_plugin` says more."""
        self.load_plugin(name)

    def unload_plugin(self, name: str) -> None:
        """Unload a plugin: it ends its work and calls nobody any more.

        Raises:
            ValueError: it is not loaded.
        """
        if name in self._python_plugins:
            self._python_plugins.pop(name).unload()
            return
        status = self.libpanda.panda_plugin_unload(name.encode())
        if status < 0:
            raise self._refusal(status)

    def unload_plugins(self) -> None:
        """Unload all plugins, the last loaded first, and delete all callbacks."""
        self.delete_callbacks()
        self._end_plugins()

    def _end_plugins(self) -> None:
        """The run ends: so does the work of plugins."""
        while self._python_plugins:
            self._python_plugins.popitem()[1].unload()
        self.libpanda.panda_plugins_unload()

    def builtin_plugins(self) -> dict[str, str]:
        """The built-in plugins: name -> what it is for."""
        found: dict[str, str] = {}
        while name := self.libpanda.panda_plugin_builtin(len(found)):
            found[name.decode()] = (self.libpanda.panda_plugin_purpose(name) or b"").decode()
        found.update({name: plugin.purpose for name, plugin in _python().items()})
        return found

    def _need_plugin(self, name: str, autoload: bool) -> None:
        if name in self.plugins:
            return
        if not autoload:
            raise PluginError(f"plugin {name} is not loaded: panda.load_plugin({name!r})")
        self.load_plugin(name)

    def _find_plugin(self, name: str) -> tuple[str, Path | None]:
        """Name of a plugin and its file; a built-in one has none."""
        if "/" in name or name.endswith(".so"):
            path = Path(name)
            if not path.is_file():
                raise ValueError(f"there is no plugin file {name}")
            return path.name[: -len(path.suffix)].removeprefix("panda_"), path.resolve()
        if name in self.plugins or name in self.builtin_plugins():
            return name, None
        if self.plugin_path is not None:
            for file in (f"panda_{name}.so", f"{name}.so"):
                path = Path(self.plugin_path) / file
                if path.is_file():
                    return name, path.resolve()
        builtin = ", ".join(self.builtin_plugins()) or "none"
        file = "" if self.plugin_path is None else f"; {self.plugin_path} has no panda_{name}.so"
        raise ValueError(f"there is no plugin {name}: built in are {builtin}{file}")


def _python() -> dict[str, type[PythonPlugin]]:
    from .replay_plugins import PLUGINS

    return PLUGINS


def _words(args: Mapping[str, Any] | list[str] | None) -> list[str]:
    """Arguments as plugins get them."""
    if args is None:
        return []
    if isinstance(args, Mapping):
        return [str(key) if value is None else f"{key}={value}" for key, value in args.items()]
    if isinstance(args, (list, tuple)):
        return [str(word) for word in args]
    raise ValueError(f"arguments of a plugin are a dict or a list, not {type(args).__name__}")
