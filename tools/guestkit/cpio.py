"""Initial RAM file systems: the "newc" cpio format, written reproducibly."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

#: Times in the image: fixed, so that equal contents give equal bytes.
MTIME = 1_700_000_000

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """A file, directory, symbolic link or device node of the image.

    ``mode`` holds the type bits as well; ``data`` is a file's contents or a
    link's target; ``device`` is (major, minor). Everything belongs to root
    unless ``owner`` (both user and group) says otherwise.
    """

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    owner: int = 0


class Tree:
    """The files of an image by path, without a leading slash."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def _add(self, path: str, entry: Entry) -> None:
        path = path.strip("/")
        old = self.entries.get(path)
        if old is not None and old != entry:
            raise ValueError(f"two different files for /{path}")
        parent = path.rpartition("/")[0]
        if parent:
            holder = self.entries.get(parent)
            if holder is None:
                self.directory(parent)
            elif not stat.S_ISDIR(holder.mode):
                raise ValueError(f"/{parent} is not a directory, but /{path} needs it to be")
        self.entries[path] = entry

    def directory(self, path: str, mode: int = 0o755, owner: int = 0) -> None:
        """Add a directory, and those above it."""
        self._add(path, Entry(stat.S_IFDIR | mode, owner=owner))

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(path, Entry(stat.S_IFREG | mode, data))

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device node."""
        self._add(path, Entry(stat.S_IFCHR | mode, device=(major, minor)))


def write(tree: Tree) -> bytes:
    """The tree as a cpio archive; parents come before what they hold."""
    out = bytearray()
    for number, (path, entry) in enumerate(sorted(tree.entries.items()), start=1):
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        _record(out, path, entry, number, links, MTIME)
    _record(out, _TRAILER, Entry(0), 0, 1, 0)
    out += bytes(-len(out) % 512)
    return bytes(out)


def _record(out: bytearray, path: str, entry: Entry, inode: int, links: int, mtime: int) -> None:
    name = path.encode() + b"\0"
    fields = (
        *(inode, entry.mode, entry.owner, entry.owner, links, mtime, len(entry.data)),
        *(0, 0, *entry.device, len(name), 0),
    )
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += entry.data
    out += bytes(-len(out) % 4)


def read(archive: bytes) -> Iterator[tuple[str, Entry]]:
    """The entries of a newc archive, as (path, entry)."""
    offset = 0
    while True:
        if archive[offset : offset + 6] != b"070701":
            raise ValueError(f"no cpio header at byte {offset}")
        text = archive[offset + 6 : offset + 110]
        field = [int(text[i : i + 8], 16) for i in range(0, 104, 8)]
        size, name_size = field[6], field[11]
        path = archive[offset + 110 : offset + 109 + name_size].decode()
        start = offset + 110 + name_size + 3 & ~3
        if path == _TRAILER:
            return
        data = archive[start : start + size]
        yield path, Entry(field[1], data, (field[9], field[10]), field[2])
        offset = start + size + 3 & ~3


def gzip(data: bytes) -> bytes:
    """Compress with gzip, without a name or a time in the header.

    The bytes depend on the version of zlib that this Python uses.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()
