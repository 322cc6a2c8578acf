"""The file of a recording: a zip archive that was written front to back.

It is read as the core reads it (``csrc/record/archive.c``): from member to
member, so that one that was cut off can be read as well.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType

from ..errors import DamagedRecordingError, RecordingError

__all__ = ["Archive", "Member"]

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_LOCAL_MAGIC = 0x04034B50
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_CENTRAL_MAGIC = 0x02014B50
_END64 = struct.Struct("<IQHHIIQQQQIIQIIHHHHIIH")
_END_MAGIC = b"PK\x05\x06"
_END_SIZE = 22
#: Of all members: version, flags, method, time and date.
_ALWAYS = (45, 0, 8, 0, 0x21)
_MEMBER_MAX = 1 << 30
_NAME_MAX = 64


@dataclass(frozen=True)
class Member:
    """A part of the file."""

    name: str
    #: Where its header is in the file.
    offset: int
    crc: int
    #: Its size in the file, and unpacked.
    packed: int
    size: int

    @property
    def begin(self) -> int:
        """Where its data is in the file."""
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.begin + self.packed


class Archive:
    """An archive that is open for reading.

    Raises:
        RecordingError: the file cannot be read, or is no archive of this kind.
        DamagedRecordingError: it was finished, and has been changed since.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file = self.path.open("rb")
        except OSError as error:
            raise RecordingError(
                f"cannot read the recording {self.path}: {error.strerror}"
            ) from error
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self.members = self._find_members()
            #: The writer did not come to the end of the directory.
            self.cut_off = not self._check_end()
        except OSError as error:
            self._file.close()
            raise RecordingError(
                f"cannot read the recording {self.path}: {error.strerror}"
            ) from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def find(self, name: str) -> Member | None:
        """The member of that name."""
        return next((m for m in self.members if m.name == name), None)

    def under(self, directory: str) -> list[Member]:
        """The members whose names begin with ``directory/``."""
        return [m for m in self.members if m.name.startswith(directory + "/")]

    def read(self, member: Member) -> bytes:
        """Unpack a member, and check it.

        Raises:
            DamagedRecordingError: it is not what was written.
        """
        packed = self._at(member.begin, member.packed)
        stream = zlib.decompressobj(-15)
        try:
            data = stream.decompress(packed, member.size + 1)
        except zlib.error as error:
            raise self.damage(member, f"it cannot be unpacked ({error})") from None
        if len(data) != member.size or not stream.eof or stream.unused_data:
            raise self.damage(member, "it has another size than its header says")
        if zlib.crc32(data) != member.crc:
            raise self.damage(member, "its checksum is wrong")
        return data

    def damage(self, member: Member | None, problem: str, offset: int = 0) -> DamagedRecordingError:
        """The error for a member, or for a place that is none's."""
        if member is None:
            return DamagedRecordingError(str(self.path), "", offset, problem)
        return DamagedRecordingError(str(self.path), member.name, member.offset, problem)

    def _at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

    def _find_members(self) -> list[Member]:
        members: list[Member] = []
        at = 0
        while True:
            member = self._header(at)
            if member is None:
                break
            members.append(member)
            at = member.end
        if not members:
            raise RecordingError(f"{self.path} is no recording of pandalite")
        return members

    def _header(self, at: int) -> Member | None:
        header = self._at(at, _LOCAL.size)
        if len(header) < _LOCAL.size:
            return None
        magic, *always, crc, packed, size, name_size, extra = _LOCAL.unpack(header)
        if magic != _LOCAL_MAGIC or tuple(always) != _ALWAYS or extra or name_size > _NAME_MAX:
            return None
        if max(packed, size) >= _MEMBER_MAX or at + _LOCAL.size + name_size + packed > self.size:
            return None
        try:
            name = self._at(at + _LOCAL.size, name_size).decode("ascii")
        except UnicodeDecodeError:
            return None
        if "\0" in name:
            return None
        return Member(name, at, crc, packed, size)

    def _check_end(self) -> bool:
        """Whether the archive was finished: its directory is what its members say."""
        at = self.members[-1].end
        expected = directory(self.members)
        rest = self._at(at, len(expected) + 1)
        if rest == expected:
            return True
        ended = self._at(max(0, self.size - _END_SIZE), 4) == _END_MAGIC
        if ended and rest[:4] != expected[:4]:
            raise self.damage(None, f"what follows {self.members[-1].name} is no member", at)
        if ended or (self.find("end.json") and not expected.startswith(rest)):
            raise self.damage(None, "its directory is not the one of its members", at)
        return False


def directory(members: list[Member]) -> bytes:
    """What follows the members of an archive that was finished."""
    out = bytearray()
    for m in members:
        name = m.name.encode("ascii")
        facts = (m.crc, m.packed, m.size, len(name), 12)
        out += _CENTRAL.pack(_CENTRAL_MAGIC, 45, *_ALWAYS, *facts, 0, 0, 0, 0, 0xFFFFFFFF)
        out += name + struct.pack("<HHQ", 1, 8, m.offset)
    begin = members[-1].end if members else 0
    size = len(out)
    out += _END64.pack(
        *(0x06064B50, 44, 45, 45, 0, 0, len(members), len(members), size, begin),
        *(0x07064B50, 0, begin + size, 1),
        *(0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0),
    )
    return bytes(out)
