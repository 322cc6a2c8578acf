"""What a recording is of: read out of its file, without the core."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import RecordingError
from . import foreign
from .archive import Archive, Member
from .log import Chunk, read_chunk
from .names import PART, recording_path

__all__ = ["FORMAT", "MAJOR", "Block", "Disk", "Recording", "existing", "read_recording"]

#: What the manifest calls the format, and the newest version that is read here.
FORMAT = "pandalite-recording"
MAJOR = 3

MANIFEST = "manifest.json"
END = "end.json"


@dataclass(frozen=True)
class Block:
    """A piece of the machine's RAM or ROM."""

    name: str
    size: int


@dataclass(frozen=True)
class Disk:
    """A disk image that was in use when the recording began."""

    #: ``id=`` of the drive, or what QEMU called it; "" if it had none.
    name: str
    #: ``node-name=`` of the image, or what QEMU called it.
    node: str
    size: int


@dataclass(frozen=True)
class Recording:
    """Facts about a recording."""

    path: Path
    #: Version of the file's format.
    version: tuple[int, int]
    #: A number of its own for every recording.
    id: str
    #: When it was begun: UTC, as ISO 8601 has it.
    created: str
    arch: str
    #: QEMU's full names of the machine and of the CPU.
    machine: str
    cpu: str
    #: "little" or "big"; "" of the first recordings.
    byte_order: str
    #: Bytes.
    ram_size: int
    core_version: str
    qemu_version: str
    #: The machine's command line.
    args: tuple[str, ...]
    blocks: tuple[Block, ...]
    disks: tuple[Disk, ...]
    #: It was ended; else it was cut off by a crash or a full disk.
    complete: bool
    #: It has the devices' state from time to time: a replay can be left to live on.
    devices: bool
    #: Instructions executed in it; of one that was cut off: those that can be replayed.
    instructions: int
    #: Interrupts and exceptions delivered.
    steps: int
    #: Runs of the CPU between which devices did something.
    slices: int
    #: Calls of the CPU to devices; None of a recording that was cut off, or out of another.
    crossings: int | None
    #: Parts of the log.
    chunks: int
    #: Digest of all RAM at the end; "" of a recording that was cut off, or out of another.
    ram_digest: str
    file_size: int
    #: Bytes in the file of the devices' state, of RAM and of the log.
    state_bytes: int
    ram_bytes: int
    log_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON can hold them."""
        return {**asdict(self), "path": str(self.path)}


def existing(name: str | PathLike[str]) -> Path:
    """The file of a recording that is there.

    Raises:
        RecordingError: there is one of PANDA's under that name.
        ValueError: there is none.
    """
    path = recording_path(name)
    if path.is_file():
        return path
    theirs = foreign.find(name)
    if theirs is not None:
        raise RecordingError(theirs.describe())
    part = path.with_name(path.name + PART)
    if part.is_file():
        raise ValueError(
            f"there is no recording {path}, but {part}: it was cut off, or is being made. What "
            "there is of it can be replayed under that name"
        )
    raise ValueError(f"there is no recording {path}: record() makes one")


def read_recording(name: str | PathLike[str]) -> Recording:
    """Read what a recording is of.

    Raises:
        ValueError: there is no such recording.
        RecordingError: it is none of pandalite's, or a newer version is needed.
        DamagedRecordingError: it is not what was written.
    """
    with open_archive(name) as archive:
        return facts_of(archive)


def open_archive(name: str | PathLike[str]) -> Archive:
    """Open the file of a recording; raises what :func:`read_recording` does."""
    path = existing(name)
    theirs = foreign.look_into(path)
    if theirs is not None:
        raise RecordingError(theirs.describe())
    return Archive(path)


def facts_of(archive: Archive) -> Recording:
    """The same of an archive that is open."""
    manifest = _Reader(archive, MANIFEST)
    version = check_version(archive, manifest)
    chunks = archive.under("log")
    end = None
    if archive.find(END) is not None or not archive.cut_off:
        end = _Reader(archive, END)
    if end is not None:
        instructions, steps = end.number("instructions"), end.number("steps")
        slices = end.number("slices")
        if end.number("chunks") != len(chunks):
            raise archive.damage(
                archive.find(END),
                f"it says there are {end.number('chunks')} chunks, there are {len(chunks)}",
            )
    else:
        instructions, steps, slices = _reached(archive, chunks)
    return Recording(
        path=archive.path,
        version=version,
        id=manifest.text("id"),
        created=manifest.text("created"),
        arch=manifest.text("arch"),
        machine=manifest.text("machine"),
        cpu=manifest.text("cpu"),
        byte_order=manifest.text("byte_order") if "byte_order" in manifest.values else "",
        ram_size=manifest.number("ram_size"),
        core_version=manifest.text("core_version"),
        qemu_version=manifest.text("qemu_version"),
        args=tuple(manifest.texts("args")),
        blocks=tuple(Block(d.text("name"), d.number("size")) for d in manifest.tables("blocks")),
        # Not in the first recordings.
        disks=tuple(
            Disk(d.text("name"), d.text("node"), d.number("size"))
            for d in manifest.tables("disks", [])
        ),
        complete=end is not None,
        devices=manifest.values.get("devices") is True,
        instructions=instructions,
        steps=steps,
        slices=slices,
        crossings=end.number("crossings") if end and "crossings" in end.values else None,
        chunks=len(chunks),
        ram_digest=end.text("ram_digest") if end and "ram_digest" in end.values else "",
        file_size=archive.size,
        state_bytes=sum(m.packed for m in archive.members if m.name == "state"),
        ram_bytes=sum(m.packed for m in archive.under("ram")),
        log_bytes=sum(m.packed for m in chunks),
    )


def _reached(archive: Archive, chunks: Sequence[Member]) -> tuple[int, int, int]:
    """Where a recording that was cut off ends: instructions, steps and slices."""
    slices = 0
    last: Chunk | None = None
    for member in chunks:
        last = read_chunk(archive, member)
        slices += last.count_slices()
    return (last.end_count, last.end_steps, slices) if last else (0, 0, 0)


def check_version(archive: Archive, manifest: _Reader) -> tuple[int, int]:
    """The version of the format; RecordingError if it cannot be read here."""
    values = manifest.values
    version = values.get("version")
    if (
        values.get("format") != FORMAT
        or not isinstance(version, list)
        or len(version) != 2
        or not all(type(n) is int for n in version)
    ):
        raise RecordingError(f"{archive.path} is no recording of pandalite")
    if version[0] > MAJOR:
        made_by = values.get("core_version")
        raise RecordingError(
            f"the recording {archive.path} has format {version[0]}.{version[1]}, this version of "
            f"pandalite reads up to {MAJOR}: it was made by pandalite {made_by}; install that "
            "version or a newer one"
        )
    return version[0], version[1]


class _Reader:
    """A table of facts, read from JSON: what is not as it should be is damage."""

    def __init__(self, archive: Archive, name: str, values: dict[str, Any] | None = None) -> None:
        self._archive = archive
        self._member = archive.find(name)
        self._name = name
        if values is not None:
            self.values = values
            return
        if self._member is None:
            if name == MANIFEST:
                raise RecordingError(f"{archive.path} is no recording of pandalite")
            raise archive.damage(None, f"there is no {name}", archive.members[-1].end)
        try:
            found = json.loads(archive.read(self._member))
        except (ValueError, RecursionError) as error:
            raise archive.damage(self._member, f"it is no JSON ({error})") from None
        if not isinstance(found, dict):
            raise archive.damage(self._member, "it is no table of facts")
        self.values = found

    def _get(self, key: str, kind: type, default: Any = None) -> Any:
        value = self.values.get(key, default)
        if type(value) is not kind:
            raise self._archive.damage(self._member, f"{key} is {value!r}")
        return value

    def text(self, key: str) -> str:
        return str(self._get(key, str))

    def number(self, key: str) -> int:
        value = int(self._get(key, int))
        if value < 0:
            raise self._archive.damage(self._member, f"{key} is {value}")
        return value

    def texts(self, key: str) -> list[str]:
        values = self._get(key, list)
        if not all(isinstance(v, str) for v in values):
            raise self._archive.damage(self._member, f"{key} is {values!r}")
        return list(values)

    def tables(self, key: str, default: Any = None) -> list[_Reader]:
        values = self._get(key, list, default)
        if not all(isinstance(v, dict) for v in values):
            raise self._archive.damage(self._member, f"{key} is {values!r}")
        return [_Reader(self._archive, self._name, v) for v in values]
