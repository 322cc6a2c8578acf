"""As much of the ELF format as building a guest needs, read-only.

Written here rather than taken from a package so that the builder runs on a
bare Debian system: it has to find out which shared libraries a program needs,
what a kernel module says about itself, and the build id of a kernel.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_PT_DYNAMIC = 2
_PT_INTERP = 3
_PT_LOAD = 1
_PT_NOTE = 4
_SHT_NOTE = 7
_SHT_NOBITS = 8
_DT_NULL = 0
_DT_NEEDED = 1
_DT_STRTAB = 5
_DT_SONAME = 14
_NT_GNU_BUILD_ID = 3


class ElfError(ValueError):
    """The bytes are not an ELF file, or not a whole one."""


@dataclass(frozen=True)
class Section:
    """A section header: its name, type, and where its bytes are in the file."""

    name: str
    type: int
    offset: int
    size: int


@dataclass(frozen=True)
class Segment:
    """A program header: its type, and its place in the file and in memory."""

    type: int
    offset: int
    address: int
    size: int


class Elf:
    """One ELF file of either class and byte order, held in memory."""

    def __init__(self, data: bytes) -> None:
        if data[:4] != b"\x7fELF":
            raise ElfError("not an ELF file")
        self.data = data
        try:
            self._wide = {1: False, 2: True}[data[4]]
            self._order = {1: "<", 2: ">"}[data[5]]
            self._read_headers()
        except (KeyError, IndexError, struct.error) as error:
            raise ElfError("damaged ELF header") from error

    def _read_headers(self) -> None:
        if self._wide:
            header, offset = "QQIHHHHHH", 32
            section, segment = "IIQQQQIIQQ", "IIQQQQQQ"
        else:
            header, offset = "IIIHHHHHH", 28
            section, segment = "IIIIIIIIII", "IIIIIIII"
        phoff, shoff, _, _, phsize, phnum, shsize, shnum, shstr = struct.unpack_from(
            self._order + header, self.data, offset
        )
        self.segments: list[Segment] = []
        for i in range(phnum):
            f = struct.unpack_from(self._order + segment, self.data, phoff + i * phsize)
            kind, place, address, size = (
                (f[0], f[2], f[3], f[5]) if self._wide else (f[0], f[1], f[2], f[4])
            )
            self.segments.append(Segment(kind, place, address, size))
        raw = [
            struct.unpack_from(self._order + section, self.data, shoff + i * shsize)
            for i in range(shnum if shoff else 0)
        ]
        names = raw[shstr][4] if raw else 0
        self.sections = [Section(self._string(names + f[0]), f[1], f[4], f[5]) for f in raw]

    def _string(self, offset: int) -> str:
        end = self.data.find(b"\0", offset)
        if end < 0:
            raise ElfError("unterminated string")
        return self.data[offset:end].decode("utf-8", "replace")

    def section(self, name: str) -> bytes:
        """The contents of a section; empty when there is none of that name."""
        for found in self.sections:
            if found.name == name and found.type != _SHT_NOBITS:
                return self.data[found.offset : found.offset + found.size]
        return b""

    def modinfo(self) -> list[tuple[str, str]]:
        """What a kernel module says about itself, as (key, value), in order."""
        pairs = []
        for item in self.section(".modinfo").split(b"\0"):
            key, equals, value = item.decode("utf-8", "replace").partition("=")
            if equals:
                pairs.append((key, value))
        return pairs

    def _dynamic(self) -> list[tuple[int, int]]:
        step = struct.Struct(self._order + ("qQ" if self._wide else "iI"))
        entries: list[tuple[int, int]] = []
        for segment in self.segments:
            if segment.type == _PT_DYNAMIC:
                area = self.data[segment.offset : segment.offset + segment.size]
                usable = len(area) - len(area) % step.size
                for tag, value in step.iter_unpack(area[:usable]):
                    if tag == _DT_NULL:
                        break
                    entries.append((tag, value))
        return entries

    def _file_offset(self, address: int) -> int:
        for s in self.segments:
            if s.type == _PT_LOAD and s.address <= address < s.address + s.size:
                return address - s.address + s.offset
        raise ElfError(f"address {address:#x} is in no segment")

    def _dynamic_strings(self, wanted: int) -> list[str]:
        entries = self._dynamic()
        tables = [value for tag, value in entries if tag == _DT_STRTAB]
        if not tables:
            return []
        base = self._file_offset(tables[0])
        return [self._string(base + value) for tag, value in entries if tag == wanted]

    def needed(self) -> list[str]:
        """Names of the shared libraries the program or library asks for."""
        return self._dynamic_strings(_DT_NEEDED)

    def soname(self) -> str | None:
        """The name a shared library gives itself."""
        return next(iter(self._dynamic_strings(_DT_SONAME)), None)

    def interpreter(self) -> str | None:
        """Path of the dynamic linker; None for a static program or a library."""
        for segment in self.segments:
            if segment.type == _PT_INTERP:
                return self._string(segment.offset)
        return None

    def build_id(self) -> str | None:
        """The GNU build id in hexadecimal, if there is one."""
        areas = [(s.offset, s.size) for s in self.segments if s.type == _PT_NOTE]
        areas += [(s.offset, s.size) for s in self.sections if s.type == _SHT_NOTE]
        for offset, size in areas:
            end = min(offset + size, len(self.data))
            while offset + 12 <= end:
                namesz, descsz, kind = struct.unpack_from(self._order + "III", self.data, offset)
                name = self.data[offset + 12 : offset + 12 + namesz]
                start = offset + 12 + (namesz + 3 & ~3)
                if kind == _NT_GNU_BUILD_ID and name == b"GNU\0":
                    return self.data[start : start + descsz].hex()
                offset = start + (descsz + 3 & ~3)
        return None
