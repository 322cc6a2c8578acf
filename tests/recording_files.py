"""Files of recordings as the core writes them, to change what is in them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from pandalite.recordings.archive import Archive, Member, directory


def pack(parts: dict[str, bytes] | list[tuple[str, bytes]]) -> bytes:
    """The file of a recording with these members."""
    out = bytearray()
    listed = []
    for name, data in parts.items() if isinstance(parts, dict) else parts:
        _add(out, listed, name, data)
    return bytes(out) + directory(listed)


def _add(out: bytearray, listed: list[Member], name: str, data: bytes) -> None:
    stream = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = stream.compress(data) + stream.flush()
    member = Member(name, len(out), zlib.crc32(data), len(packed), len(data))
    listed.append(member)
    facts = (member.crc, member.packed, member.size, len(name), 0)
    out += struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, 8, 0, 0x21, *facts)
    out += name.encode() + packed


def with_member(path: Path, changed: str, data: bytes) -> bytes:
    """The file of a recording of which one member is another."""
    whole = path.read_bytes()
    out = bytearray()
    listed: list[Member] = []
    with Archive(path) as archive:
        for m in archive.members:
            if m.name == changed:
                _add(out, listed, m.name, data)
                continue
            listed.append(Member(m.name, len(out), m.crc, m.packed, m.size))
            out += whole[m.offset : m.offset + 30 + len(m.name) + m.packed]
    return bytes(out) + directory(listed)


def unpack(path: Path) -> dict[str, bytes]:
    """The members of a recording."""
    with Archive(path) as archive:
        return {m.name: archive.read(m) for m in archive.members}
