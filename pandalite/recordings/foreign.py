"""Recordings of PANDA: they cannot be replayed here, but it can be said what they are."""

from __future__ import annotations

import contextlib
import struct
import tarfile
import zlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

__all__ = ["PandaRecording", "find", "look_into"]

_GZIP = b"\x1f\x8b"
_SNAPSHOT, _LOG, _COMMAND = "-rr-snp", "-rr-nondet.log", "-rr.cmd"
#: A command line is text of about this size; more is not read.
_TEXT_MAX = 1 << 16


@dataclass(frozen=True)
class PandaRecording:
    """A recording that PANDA made."""

    #: The archive; of the older format, the log.
    path: Path
    #: None: it could not be read.
    instructions: int | None
    #: The command line it was made with; "" if it could not be read.
    command: str

    def describe(self) -> str:
        """What it is, for who wanted to replay it."""
        facts = []
        if self.instructions is not None:
            facts.append(f"{self.instructions} instructions")
        if self.command:
            facts.append(f"made with `{self.command}`")
        more = f" ({', '.join(facts)})" if facts else ""
        return (
            f"{self.path} is a PANDA 2.9.1 recording and cannot be replayed here{more}: record "
            "again with pandalite, or replay it with PANDA"
        )


def find(name: str | PathLike[str]) -> PandaRecording | None:
    """PANDA's recording of a name, as PANDA finds it: ``.rr2``, else the pair of files."""
    path = Path(name)
    for packed in (path, path.with_name(path.name + ".rr2")):
        found = look_into(packed)
        if found is not None:
            return found
    prefix = path.name
    for end in (_SNAPSHOT, _LOG):
        if prefix.endswith(end):
            prefix = prefix[: -len(end)]
    log = path.with_name(prefix + _LOG)
    if log.is_file() and path.with_name(prefix + _SNAPSHOT).is_file():
        command = b""
        with contextlib.suppress(OSError), path.with_name(prefix + _COMMAND).open("rb") as file:
            command = file.read(_TEXT_MAX)
        with log.open("rb") as file:
            return PandaRecording(log, _count(file.read(8)), _text(command))
    return None


def look_into(path: Path) -> PandaRecording | None:
    """The recording that an archive of PANDA's holds; None if it is no such archive."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
    except OSError:
        return None
    if not packed:
        return None
    recognised = False
    instructions: int | None = None
    command = ""
    # A damaged one is recognised by its first member.
    with (
        contextlib.suppress(OSError, EOFError, tarfile.TarError, zlib.error),
        tarfile.open(path, "r|gz") as archive,
    ):
        for member in archive:
            name = member.name[2:] if member.name.startswith("./") else member.name
            recognised = recognised or name == "RRv2"
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if name == "nondetlog":
                instructions = _count(content.read(8))
            elif name == "capture.cmd":
                command = _text(content.read(_TEXT_MAX))
    return PandaRecording(path, instructions, command) if recognised else None


def _count(first: bytes) -> int | None:
    """The log begins with the number of instructions."""
    return int(struct.unpack("<Q", first)[0]) if len(first) == 8 else None


def _text(data: bytes) -> str:
    return " ".join(data.replace(b"\0", b" ").decode(errors="replace").split())
