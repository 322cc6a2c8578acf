"""How the file of a recording is called."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

#: The end of the name of a recording's file.
SUFFIX = ".plrec"
#: What follows while it is written, and when it was cut off.
PART = ".part"


def recording_path(name: str | PathLike[str]) -> Path:
    """The file of a recording: the name, with the suffix if it has none."""
    path = Path(name)
    if path.suffix == SUFFIX or path.name.endswith(SUFFIX + PART):
        return path
    return path.with_name(path.name + SUFFIX)
