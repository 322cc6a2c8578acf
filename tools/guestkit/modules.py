"""Kernel modules: which others a module needs, and the index files for modprobe.

Debian makes ``modules.dep`` when a kernel is installed, so the package has
none; it is computed here from what each module says in its ``.modinfo``.
"""

from __future__ import annotations

import lzma
import posixpath
import re
import zlib
from dataclasses import dataclass, field

from guestkit.deb import Package
from guestkit.elf import Elf

_SUFFIX = re.compile(r"\.ko(\.xz|\.gz)?$")


class ModuleError(Exception):
    """The kernel package lacks a module that is needed."""


def normal(name: str) -> str:
    """A module's name as the kernel shows it: ``-`` and ``_`` are the same."""
    return name.replace("-", "_")


@dataclass(frozen=True)
class Module:
    """A module of the guest: its path under the module directory and its needs."""

    name: str
    path: str
    data: bytes = field(repr=False)
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


class Kernel:
    """The modules of a kernel, which may come in several packages."""

    def __init__(self, *packages: Package) -> None:
        self._name = packages[0].deb.name
        found = [
            (package, path)
            for package in packages
            for path in package.paths(r"usr/lib/modules/[^/]+/modules\.builtin$")
        ]
        if len(found) != 1:
            raise ModuleError(f"{self._name} has {len(found)} module directories, not one")
        holder, builtin = found[0]
        self.root = posixpath.dirname(builtin)
        self.release = posixpath.basename(self.root)
        self._paths = {
            normal(_SUFFIX.sub("", posixpath.basename(path))): (package, path)
            for package in packages
            for path in package.paths(re.escape(self.root) + r"/kernel/.*\.ko")
        }
        self.builtin_list = holder.read(builtin)
        self._builtin = {
            normal(_SUFFIX.sub("", posixpath.basename(line)))
            for line in self.builtin_list.decode().split()
        }
        self._loaded: dict[str, Module] = {}

    def is_builtin(self, name: str) -> bool:
        """Whether the kernel itself holds the module."""
        return normal(name) in self._builtin

    def has(self, name: str) -> bool:
        """Whether the package ships it as a loadable module."""
        return normal(name) in self._paths

    def module(self, name: str) -> Module:
        """Read a module, uncompressed."""
        name = normal(name)
        if name not in self._loaded:
            if name not in self._paths:
                raise ModuleError(f"{self._name} has no kernel module {name}")
            package, path = self._paths[name]
            data = package.read(path)
            if path.endswith(".xz"):
                data = lzma.decompress(data)
            elif path.endswith(".gz"):
                data = zlib.decompress(data, 31)
            info = Elf(data).modinfo()
            depends = [normal(d) for k, v in info if k == "depends" for d in v.split(",") if d]
            self._loaded[name] = Module(
                name,
                _SUFFIX.sub(".ko", posixpath.relpath(path, self.root)),
                data,
                tuple(d for d in depends if not self.is_builtin(d)),
                tuple(v for k, v in info if k == "alias"),
            )
        return self._loaded[name]

    def closure(self, names: list[str]) -> list[Module]:
        """The named modules and all they need, each after what it needs."""
        order: dict[str, Module] = {}

        def visit(name: str, above: tuple[str, ...]) -> None:
            name = normal(name)
            if name in order or self.is_builtin(name):
                return
            if name in above:
                raise ModuleError(f"kernel modules need each other: {' -> '.join(above)}")
            module = self.module(name)
            for need in module.depends:
                visit(need, (*above, name))
            order[name] = module

        for name in names:
            visit(name, ())
        return list(order.values())


def index_files(modules: list[Module], builtin: bytes) -> dict[str, bytes]:
    """``modules.dep``, ``modules.alias`` and the like for a set of modules."""
    by_name = {m.name: m for m in modules}

    def needs(module: Module) -> list[str]:
        # modprobe wants the whole closure on each line, nearest first.
        found: list[str] = []
        todo = list(module.depends)
        while todo:
            name = todo.pop(0)
            if name not in found:
                found.append(name)
                todo += by_name[name].depends
        return found

    ordered = sorted(modules, key=lambda m: m.path)
    dep = [" ".join([f"{m.path}:", *(by_name[n].path for n in needs(m))]) for m in ordered]
    alias = [f"alias {a} {m.name}" for m in ordered for a in sorted(m.aliases)]
    return {
        "modules.dep": "".join(line + "\n" for line in dep).encode(),
        "modules.alias": "".join(line + "\n" for line in alias).encode(),
        "modules.builtin": builtin,
        "modules.symbols": b"",
        "modules.softdep": b"",
    }
