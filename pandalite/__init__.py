"""pandalite: whole-system dynamic analysis in a plain Python package.

Run a whole guest machine inside the Python process, see everything it does and
change it. The main class is :class:`Panda`; names and meanings are PyPANDA's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .errors import *  # noqa: F403
    from .panda import Panda
    from .utils import blocking

__all__ = ["Panda", "__version__", "blocking"]

_HOMES = {"Panda": "panda", "blocking": "utils"}


def __getattr__(name: str) -> Any:
    """Import on first use: `import pandalite` opens no file it does not need."""
    # import_module() only: a plain `from . import` asks this function again.
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name[:1].isupper():
        try:
            value = getattr(import_module(".errors", __name__), name)
        except AttributeError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
