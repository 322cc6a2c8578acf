"""Find and load the core library of a guest architecture.

The one module of this package that is written by hand.

Where a library is looked for, first hit decides:

1. the ``path`` argument of :func:`load`, a file or a directory;
2. ``PANDALITE_LIB`` in the environment, a file or a directory;
3. ``PANDA_LIB`` in the environment, a file (PyPANDA's name for it);
4. ``pandalite/_lib/``, where a wheel or ``make core`` puts it.

The system's library path is never searched: a library of another version
would be worse than none.
"""

from __future__ import annotations

import os
from ctypes import CDLL, RTLD_LOCAL, PyDLL
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol, cast

from pandalite._bindings.arches import ARCHITECTURES, Architecture
from pandalite._bindings.functions import (
    NONBLOCKING,
    PROTOTYPES,
    Library,
    NonblockingLibrary,
    declare,
)
from pandalite.errors import CoreLibraryError, UnknownArchitectureError

if TYPE_CHECKING:
    from ctypes import Structure

__all__ = [
    "CoreLibrary",
    "architecture",
    "available",
    "env_struct",
    "find_library",
    "library_name",
    "load",
]

#: Where the libraries of this installation are.
LIBRARY_DIR = Path(__file__).resolve().parent.parent / "_lib"


class CoreLibrary(Library, Protocol):
    """A loaded core library: the functions of the C API and where it came from.

    Calls through this object release Python's global lock. ``fast`` has the
    functions that return at once, without that: they save some 50 ns a call.
    """

    #: The guest architecture.
    arch: Architecture
    #: The file it was loaded from.
    path: Path
    #: The functions that never block, called with the global lock held.
    fast: NonblockingLibrary


class _Core(CDLL):
    """What implements CoreLibrary at run time."""

    arch: Architecture
    path: Path
    fast: NonblockingLibrary


def library_name(arch: str) -> str:
    """Name of the file that holds the core library of an architecture."""
    return f"libpanda-{arch}.so"


def available(directory: Path | None = None) -> list[str]:
    """Names of the architectures whose library is in a directory (default: our own)."""
    where = LIBRARY_DIR if directory is None else directory
    return [name for name in ARCHITECTURES if (where / library_name(name)).is_file()]


def architecture(arch: str) -> Architecture:
    """Return what is known about an architecture; UnknownArchitectureError if nothing is."""
    try:
        return ARCHITECTURES[arch]
    except KeyError:
        raise UnknownArchitectureError(
            f"unknown guest architecture {arch!r}; known: {', '.join(ARCHITECTURES)}; "
            f"{_present(LIBRARY_DIR)}"
        ) from None


def find_library(arch: str, path: str | os.PathLike[str] | None = None) -> Path:
    """Return the file to load for an architecture; CoreLibraryError if there is none."""
    known = architecture(arch)
    if path is not None:
        return _resolve(known, Path(path), "path argument", may_be_directory=True)
    for variable, may_be_directory in (("PANDALITE_LIB", True), ("PANDA_LIB", False)):
        value = os.environ.get(variable)
        if value:
            return _resolve(
                known,
                Path(value),
                f"environment variable {variable}",
                may_be_directory=may_be_directory,
            )
    found = LIBRARY_DIR / library_name(arch)
    if not found.is_file():
        raise CoreLibraryError(
            f"the core library for {arch} is not installed: {found} does not exist; "
            f"{_present(LIBRARY_DIR)}; {_remedy(arch)}"
        )
    return found


def load(arch: str, path: str | os.PathLike[str] | None = None) -> CoreLibrary:
    """Load the core library of a guest architecture and declare its functions.

    Raises UnknownArchitectureError or CoreLibraryError; the message tells what
    was looked for, what is there, and what to do.
    """
    known = architecture(arch)
    file = find_library(arch, path)
    try:
        # dlopen() adds RTLD_NOW by itself in ctypes. RTLD_LOCAL keeps two
        # libraries of different architectures from seeing each other.
        core = _Core(str(file), mode=RTLD_LOCAL)
    except OSError as error:
        raise CoreLibraryError(
            f"the core library for {arch} cannot be loaded: {error}; "
            f"if it was damaged or built for another system: {_remedy(arch)}"
        ) from error
    try:
        declare(core)
    except AttributeError as error:
        missing = [name for name in PROTOTYPES if not hasattr(core, name)]
        raise CoreLibraryError(
            f"{file} is not a core library of this version of pandalite: it lacks "
            f"{_some(missing)}; {_remedy(arch)}"
        ) from error
    name = core.panda_arch_name().decode("ascii", "replace")
    if name != arch:
        raise CoreLibraryError(
            f"{file} is a core library for {name}, not for {arch}; "
            f"{_present(file.parent)}; {_remedy(arch)}"
        )
    # The same handle: PyDLL differs only in that it keeps the global lock.
    holding = PyDLL(str(file), handle=core._handle)
    declare(holding, NONBLOCKING)
    fast = SimpleNamespace(**{function: getattr(holding, function) for function in NONBLOCKING})
    core.arch = known
    core.path = file
    core.fast = cast(NonblockingLibrary, fast)
    return cast(CoreLibrary, core)


def env_struct(arch: str) -> type[Structure]:
    """Return the ctypes Structure of what PandaCPU.env_ptr points to.

    CoreLibraryError if no layout was generated for that architecture.
    """
    architecture(arch)
    try:
        module = import_module(f"pandalite._bindings.env_{arch}")
    except ModuleNotFoundError as error:
        raise CoreLibraryError(
            f"there is no CPU state layout for {arch}; {_remedy(arch)} writes it"
        ) from error
    return cast("type[Structure]", module.CPUArchState)


def _resolve(arch: Architecture, given: Path, origin: str, *, may_be_directory: bool) -> Path:
    given = given.expanduser()
    if given.is_dir() and may_be_directory:
        file = given / library_name(arch.name)
        if file.is_file():
            return file.resolve()
        raise CoreLibraryError(
            f"no core library for {arch.name}: {origin} names the directory {given}, which has no "
            f"{file.name}; {_present(given)}; {_remedy(arch.name)}"
        )
    if given.is_file():
        # A path without a slash would make dlopen() search the system.
        return given.resolve()
    what = "a file or directory" if may_be_directory else "a file"
    raise CoreLibraryError(
        f"no core library for {arch.name}: {origin} is {str(given)!r}, which is not {what}"
    )


def _present(directory: Path) -> str:
    names = available(directory)
    return f"libraries in {directory}: {', '.join(names) if names else 'none'}"


def _remedy(arch: str) -> str:
    return f"`make core ARCH={arch}` in the source tree builds it, or reinstall pandalite"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more functions"
