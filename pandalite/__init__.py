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
    home = _HOMES.get(name)
    if home is None:
        from . import errors

        if name not in errors.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(errors, name)
    else:
        value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value
