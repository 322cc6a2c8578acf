"""Write an ISO 9660 image with Rock Ridge names, as Linux guests mount it.

Only what is needed to hand a directory to a guest: level 1 names for the
standard, Rock Ridge (IEEE P1282, version 1.10) for the real names, modes,
symbolic links and times. Directories deeper than the eight levels of the
standard stay where they are (as ``genisoimage -D`` does); Linux reads them.
The same directory gives the same bytes: entries are sorted, owners are root,
times are those of the files.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import time
from collections.abc import Iterator
from typing import BinaryIO, Union

from .errors import ImageError

__all__ = ["make_iso"]

_SECTOR = 2048
_FIRST_FREE = 18  # 16 system sectors, primary volume descriptor, terminator
_MAX_FILE = 2**32 - 1
_MAX_NAME = 253  # fs/isofs/rock.c drops what is longer
_MAX_LINK = 4095
_MAX_DIRS = 0xFFFF  # the path table numbers directories with 16 bits
_MAX_RECORD = 254
_CHUNK = 1 << 20

_StrPath = Union[str, "os.PathLike[str]"]


def _both16(value: int) -> bytes:
    return struct.pack("<H", value) + struct.pack(">H", value)


def _both32(value: int) -> bytes:
    return struct.pack("<I", value) + struct.pack(">I", value)


def _sectors(size: int) -> int:
    return -(-size // _SECTOR)


class _Node:
    """A file, directory or symbolic link to be written."""

    def __init__(self, path: bytes, name: bytes, info: os.stat_result) -> None:
        self.path = path
        self.name = name
        self.mode = info.st_mode
        self.mtime = int(info.st_mtime)
        self.identity = (info.st_dev, info.st_ino)
        self.size = info.st_size
        self.target = b""
        self.iso_name = b"\0"
        self.children: list[_Node] = []
        self.parent: _Node | None = None
        self.extent = 0
        self.number = 0  # in the path table
        # Directories: the records of ".", ".." and the children, and the number
        # of sectors for the records and for the continuation areas.
        self.slots: list[_Slot] = []
        self.record_sectors = 0
        self.spill: list[bytearray] = []

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)


class _Slot:
    """A directory record: whom it describes and its Rock Ridge entries."""

    def __init__(self, name: bytes, node: _Node, entries: list[bytes]) -> None:
        self.name = name
        self.node = node
        base = 33 + len(name) + (1 - len(name) % 2)
        self.inline, self.rest = _split(entries, _MAX_RECORD - base)
        self.length = base + sum(map(len, self.inline)) + (28 if self.rest else 0)
        self.length += self.length % 2
        # (block index within the directory's continuation areas, offset, size)
        self.area: tuple[int, int, int] | None = None


def _split(entries: list[bytes], room: int) -> tuple[list[bytes], list[bytes]]:
    """Split entries into those that fit and the rest, keeping room for a CE."""
    if sum(map(len, entries)) <= room:
        return entries, []
    used = 0
    for index, entry in enumerate(entries):
        if used + len(entry) > room - 28:
            return entries[:index], entries[index:]
        used += len(entry)
    return entries, []


# --- Rock Ridge entries ---------------------------------------------------------


def _susp(tag: bytes, payload: bytes) -> bytes:
    return tag + bytes((4 + len(payload), 1)) + payload


def _stamp(mtime: int) -> bytes:
    """Seven-byte time of a directory record, in UTC."""
    try:
        t = time.gmtime(mtime)
    except (OverflowError, OSError, ValueError):
        t = time.gmtime(0)
    year = min(max(t.tm_year, 1900), 2155) - 1900
    return bytes((year, t.tm_mon, t.tm_mday, t.tm_hour, t.tm_min, min(t.tm_sec, 59), 0))


def _px(node: _Node) -> bytes:
    links = 1
    if node.is_dir:
        links = 2 + sum(child.is_dir for child in node.children)
    return _susp(b"PX", _both32(node.mode) + _both32(links) + _both32(0) + _both32(0))


def _tf(node: _Node) -> bytes:
    # Modification, access and attribute change; only the first is stable.
    return _susp(b"TF", b"\x0e" + _stamp(node.mtime) * 3)


def _nm(name: bytes) -> Iterator[bytes]:
    limit = 250
    for start in range(0, len(name), limit):
        more = start + limit < len(name)
        yield _susp(b"NM", bytes((1 if more else 0,)) + name[start : start + limit])


def _sl(target: bytes) -> Iterator[bytes]:
    """The components of a link's target, as many SL entries as it takes."""
    parts: list[bytes] = []
    pieces = target.split(b"/")
    if target.startswith(b"/"):
        parts.append(b"\x08\0")  # the root
        pieces = pieces[1:]
    for piece in pieces:
        if piece == b".":
            parts.append(b"\x02\0")
        elif piece == b"..":
            parts.append(b"\x04\0")
        else:
            limit = 240
            chunks = [piece[i : i + limit] for i in range(0, len(piece), limit)] or [b""]
            for index, chunk in enumerate(chunks):
                more = index + 1 < len(chunks)
                parts.append(bytes((1 if more else 0, len(chunk))) + chunk)
    record = b""
    for part in parts:
        if record and 5 + len(record) + len(part) > 255:
            yield _susp(b"SL", b"\x01" + record)
            record = b""
        record += part
    yield _susp(b"SL", b"\0" + record)


def _extension_record() -> bytes:
    ident = b"RRIP_1991A"
    text = b"THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS"
    source = (
        b"PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.  SEE PUBLISHER IDENTIFIER IN "
        b"PRIMARY VOLUME DESCRIPTOR FOR CONTACT INFORMATION."
    )
    sizes = bytes((len(ident), len(text), len(source), 1))
    return _susp(b"ER", sizes + ident + text + source)


_SP = _susp(b"SP", b"\xbe\xef\0")
_RR_PX, _RR_SL, _RR_NM, _RR_TF = 0x01, 0x04, 0x08, 0x80


def _rr(flags: int) -> bytes:
    return _susp(b"RR", bytes((flags,)))


# --- reading the directory --------------------------------------------------------


def _show(path: bytes) -> str:
    return repr(os.fsdecode(path))


def _reason(exc: OSError) -> str:
    return exc.strerror or str(exc)


def _scan(root_path: bytes, skip: set[tuple[int, int]]) -> tuple[_Node, list[_Node]]:
    """Read the tree; return the root and all directories in path-table order."""
    try:
        info = os.stat(root_path)
    except OSError as exc:
        raise ImageError(f"cannot make an ISO image of {_show(root_path)}: {_reason(exc)}") from exc
    if not stat.S_ISDIR(info.st_mode):
        raise ImageError(f"cannot make an ISO image of {_show(root_path)}: not a directory")
    root = _Node(root_path, b"", info)
    root.parent = root
    root.number = 1
    level, directories = [root], [root]
    while level:
        below: list[_Node] = []
        for directory in level:
            _scan_one(directory, skip)
            below.extend(child for child in directory.children if child.is_dir)
        # ECMA-119 6.9.1: by level, then parent, then identifier; children are
        # sorted by identifier and parents come in order already.
        for node in below:
            node.number = len(directories) + 1
            directories.append(node)
        if len(directories) > _MAX_DIRS:
            raise ImageError(
                f"{_show(root_path)} holds more than {_MAX_DIRS} directories, which an ISO image "
                "cannot: pack them into an archive first"
            )
        level = below
    return root, directories


def _scan_one(directory: _Node, skip: set[tuple[int, int]]) -> None:
    try:
        with os.scandir(directory.path) as entries:
            names = sorted(os.fsencode(entry.name) for entry in entries)
    except OSError as exc:
        raise ImageError(f"cannot read directory {_show(directory.path)}: {_reason(exc)}") from exc
    for name in names:
        path = os.path.join(directory.path, name)
        try:
            info = os.lstat(path)
            target = os.readlink(path) if stat.S_ISLNK(info.st_mode) else b""
        except OSError as exc:
            raise ImageError(f"cannot read {_show(path)}: {_reason(exc)}") from exc
        if (info.st_dev, info.st_ino) in skip:
            continue  # the image itself lies in the directory
        if len(name) > _MAX_NAME:
            raise ImageError(
                f"the name of {_show(path)} has {len(name)} bytes; an ISO image holds "
                f"{_MAX_NAME} at most: rename the file"
            )
        node = _Node(path, name, info)
        node.parent = directory
        if stat.S_ISREG(info.st_mode):
            if info.st_size > _MAX_FILE:
                raise ImageError(
                    f"{_show(path)} has {info.st_size} bytes; a file in an ISO image has "
                    f"{_MAX_FILE} (4 GiB - 1) at most: split it, or give the guest a disk image"
                )
        elif stat.S_ISLNK(info.st_mode):
            if len(target) > _MAX_LINK:
                raise ImageError(f"the target of the link {_show(path)} is too long")
            node.target, node.size = target, 0
        elif not stat.S_ISDIR(info.st_mode):
            raise ImageError(
                f"{_show(path)} is a socket, pipe or device, which cannot be copied to the guest: "
                "remove it from the directory"
            )
        directory.children.append(node)
    _assign_names(directory)
    directory.children.sort(key=lambda node: node.iso_name)


_NOT_D = re.compile(rb"[^A-Z0-9_]")


def _assign_names(directory: _Node) -> None:
    """Give every child a level 1 name that is unique in the directory."""
    used: set[bytes] = set()
    counters: dict[bytes, int] = {}
    for node in directory.children:
        upper = node.name.upper()
        if node.is_dir:
            stem, ext = upper, b""
        else:
            stem, dot, ext = upper.rpartition(b".")
            if not dot or not stem:
                stem, ext = upper, b""
        stem = _NOT_D.sub(b"_", stem)[:8] or b"_"
        ext = _NOT_D.sub(b"_", ext)[:3]
        name = b"%s.%s" % (stem, ext) if not node.is_dir else stem
        while name in used:
            count = counters[stem[:2] + ext] = counters.get(stem[:2] + ext, -1) + 1
            suffix = b"%03d" % count
            short = stem[: 8 - len(suffix)] + suffix
            name = b"%s.%s" % (short, ext) if not node.is_dir else short
        used.add(name)
        node.iso_name = name if node.is_dir else name + b";1"


# --- layout -----------------------------------------------------------------------


def _plan_directory(directory: _Node, is_root: bool) -> None:
    """Decide size and place of every record and continuation area."""
    assert directory.parent is not None
    rr = _rr(_RR_PX | _RR_TF)
    own = [rr, _px(directory), _tf(directory)]
    if is_root:
        own = [_SP, *own, _extension_record()]
    slots = [
        _Slot(b"\0", directory, own),
        _Slot(b"\1", directory.parent, [rr, _px(directory.parent), _tf(directory.parent)]),
    ]
    for node in directory.children:
        flags = _RR_PX | _RR_NM | _RR_TF | (_RR_SL if node.target else 0)
        entries = [_rr(flags), *_nm(node.name), _px(node), _tf(node)]
        if stat.S_ISLNK(node.mode):
            entries.extend(_sl(node.target))
        slots.append(_Slot(node.iso_name, node, entries))
    position = 0
    for slot in slots:
        if position % _SECTOR + slot.length > _SECTOR:  # a record never crosses a sector
            position += _SECTOR - position % _SECTOR
        position += slot.length
    directory.slots = slots
    directory.record_sectors = _sectors(position)
    directory.size = directory.record_sectors * _SECTOR


def _place_spill(directory: _Node) -> None:
    """Fill the continuation areas; each lies within one sector, as Linux wants."""
    first = directory.extent + directory.record_sectors
    for slot in directory.slots:
        rest = slot.rest
        pending: tuple[int, int] | None = None  # where the previous area's CE is
        while rest:
            if sum(map(len, rest)) <= _SECTOR:
                here, later = rest, list[bytes]()
            else:
                here, later = _split(rest, _SECTOR)
            size = sum(map(len, here)) + (28 if later else 0)
            if not directory.spill or len(directory.spill[-1]) + size > _SECTOR:
                directory.spill.append(bytearray())
            index = len(directory.spill) - 1
            block = directory.spill[-1]
            offset = len(block)
            if pending is None:
                slot.area = (index, offset, size)
            else:
                earlier, at = pending
                directory.spill[earlier][at : at + 28] = _ce(first + index, offset, size)
            block += b"".join(here)
            if later:
                pending = (index, len(block))
                block += bytes(28)
            rest = later


def _ce(block: int, offset: int, size: int) -> bytes:
    return _susp(b"CE", _both32(block) + _both32(offset) + _both32(size))


def _record(slot: _Slot, spill_start: int) -> bytes:
    node = slot.node
    body = b"".join(
        (
            _both32(node.extent),
            _both32(node.size),
            _stamp(node.mtime),
            bytes((2 if node.is_dir else 0, 0, 0)),
            _both16(1),
            bytes((len(slot.name),)),
            slot.name,
            b"" if len(slot.name) % 2 else b"\0",
            *slot.inline,
        )
    )
    if slot.area is not None:
        index, offset, size = slot.area
        body += _ce(spill_start + index, offset, size)
    body += bytes(slot.length - 2 - len(body))
    return bytes((slot.length, 0)) + body


def _path_table(directories: list[_Node], order: str) -> bytes:
    out = bytearray()
    for node in directories:
        assert node.parent is not None
        name = node.iso_name
        out += struct.pack(f"{order}BBIH", len(name), 0, node.extent, node.parent.number)
        out += name + (b"\0" if len(name) % 2 else b"")
    return bytes(out)


def _volume_descriptor(
    root: _Node, total: int, table_size: int, table_l: int, table_m: int, volume: bytes
) -> bytes:
    t = time.gmtime(max(0, root.mtime))
    date = time.strftime("%Y%m%d%H%M%S00", t).encode() + b"\0"
    never = b"0" * 16 + b"\0"
    root_record = _record_of_root(root)
    out = b"".join(
        (
            b"\x01CD001\x01\0",
            b"LINUX".ljust(32),
            volume.ljust(32),
            bytes(8),
            _both32(total),
            bytes(32),
            _both16(1),
            _both16(1),
            _both16(_SECTOR),
            _both32(table_size),
            struct.pack("<II", table_l, 0),
            struct.pack(">II", table_m, 0),
            root_record,
            b"".ljust(128) * 3,
            b"PANDALITE".ljust(128),
            b"".ljust(37) * 3,
            date,
            date,
            never,
            never,
            b"\x01\0",
        )
    )
    return out.ljust(_SECTOR, b"\0")


def _record_of_root(root: _Node) -> bytes:
    return b"".join(
        (
            b"\x22\0",
            _both32(root.extent),
            _both32(root.size),
            _stamp(root.mtime),
            b"\x02\0\0",
            _both16(1),
            b"\x01\0",
        )
    )


# --- writing ----------------------------------------------------------------------


def _copy_file(node: _Node, out: BinaryIO) -> None:
    """Append a file's contents, padded to whole sectors."""
    left = node.size
    try:
        source = open(node.path, "rb", buffering=0)  # noqa: SIM115 (closed below)
    except OSError as exc:
        raise ImageError(f"cannot read {_show(node.path)}: {_reason(exc)}") from exc
    with source:
        while left:
            try:
                data = source.read(min(left, _CHUNK))
            except OSError as exc:
                raise ImageError(f"cannot read {_show(node.path)}: {_reason(exc)}") from exc
            if not data:
                raise ImageError(f"{_show(node.path)} became shorter while it was being read")
            out.write(data)
            left -= len(data)
    out.write(bytes(-node.size % _SECTOR))


def _write(root: _Node, directories: list[_Node], volume: bytes, out: BinaryIO) -> None:
    for node in directories:
        _plan_directory(node, node is root)
    table_size = len(_path_table(directories, "<"))
    table_l = _FIRST_FREE
    table_m = table_l + _sectors(table_size)
    position = table_m + _sectors(table_size)
    for node in directories:
        node.extent = position
        _place_spill(node)  # knows its place, and now its size
        position += node.record_sectors + len(node.spill)
    contents: list[_Node] = []
    seen: dict[tuple[int, int], int] = {}
    for directory in directories:
        for node in directory.children:
            if not stat.S_ISREG(node.mode):
                continue
            # Names of one file (hard links) share its contents.
            known = seen.get(node.identity)
            if known is not None:
                node.extent = known
                continue
            node.extent = seen[node.identity] = position
            position += _sectors(node.size)
            contents.append(node)
    if position > 0xFFFFFFFF:
        raise ImageError("the directory is too large for an ISO image (8 TiB)")

    out.write(bytes(16 * _SECTOR))
    out.write(_volume_descriptor(root, position, table_size, table_l, table_m, volume))
    out.write(b"\xffCD001\x01".ljust(_SECTOR, b"\0"))
    for order in "<>":
        table = _path_table(directories, order)
        out.write(table + bytes(-len(table) % _SECTOR))
    for node in directories:
        spill_start = node.extent + node.record_sectors
        block = bytearray()
        for slot in node.slots:
            if len(block) % _SECTOR + slot.length > _SECTOR:
                block += bytes(-len(block) % _SECTOR)
            block += _record(slot, spill_start)
        block += bytes(-len(block) % _SECTOR)
        for area in node.spill:
            block += area.ljust(_SECTOR, b"\0")
        out.write(block)
    for node in contents:
        _copy_file(node, out)


def make_iso(directory: _StrPath, iso_path: _StrPath, volume_id: str = "PANDALITE") -> None:
    """Write an ISO 9660 image with the contents of ``directory``.

    Names, modes, symbolic links and modification times are kept (Rock Ridge);
    all files belong to root. The image appears under its name only when it is
    complete; an older file of that name is replaced.

    Args:
        directory: what to pack; the directory itself becomes the image's root.
        iso_path: where to write the image.
        volume_id: the image's label, at most 32 of ``A-Z 0-9 _``.

    Raises:
        ImageError: the directory is missing, a file cannot be read, is too
            large (4 GiB or more), has a name of more than 253 bytes or is no
            file, link or directory, or the image cannot be written (disk full,
            no permission). The message names the file and the reason.
    """
    if not re.fullmatch(r"[A-Z0-9_]{1,32}", volume_id):
        raise ImageError(f"bad volume name {volume_id!r}: use 1 to 32 of A-Z, 0-9 and _")
    target = os.path.abspath(os.fspath(iso_path))
    skip: set[tuple[int, int]] = set()
    try:
        old = os.stat(target)
    except OSError:
        pass  # the usual case: there is none yet
    else:
        if stat.S_ISDIR(old.st_mode):
            raise ImageError(f"cannot write the ISO image {target!r}: it is a directory")
        skip.add((old.st_dev, old.st_ino))
    root, directories = _scan(os.fsencode(os.fspath(directory)), skip)
    temporary = f"{target}.{os.urandom(6).hex()}.part"
    try:
        # O_EXCL and not tempfile: the image gets the permissions the umask says.
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(fd, "wb", buffering=_CHUNK) as out:
            _write(root, directories, volume_id.encode(), out)
        os.replace(temporary, target)
    except OSError as exc:
        # Reading errors are ImageErrors by now; this is about the image.
        raise ImageError(f"cannot write the ISO image {target!r}: {_reason(exc)}") from exc
    finally:
        with contextlib.suppress(OSError):  # renamed, or never created
            os.unlink(temporary)
