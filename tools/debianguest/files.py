"""A system's files in memory: read from tar archives, written to an ext4 image.

The image is made by mke2fs and filled by debugfs, in an order of our own and with
fixed times: equal files give equal bytes, whoever runs this and on what file
system. ``mke2fs -d`` would take over the order of the host's directories, times
of change, and the owner of the files there; this needs no root.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import stat
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from guestkit.deb import merged
from project import BuildError

#: What mke2fs has in its own configuration would differ from host to host.
_MKE2FS_CONF = "[defaults]\n\tbase_features = none\n[fs_types]\n\text4 = {\n\t}\n"

#: No journal: the disk of a run is thrown away with the run.
_FEATURES = (
    "none,ext_attr,filetype,extent,sparse_super,large_file,huge_file,dir_nlink,extra_isize,"
    "flex_bg,dir_index"
)

#: Entries with the longest possible names that fit into a block of a directory.
_ENTRIES = 4096 // 264

#: Longest command debugfs can read from a file.
_LINE = 8000


@dataclass(frozen=True)
class Node:
    """A file, directory, or symbolic link: ``mode`` has the type bits as well.

    ``data`` is a file's contents, in memory or in a file of the host; ``link`` is
    the target of a symbolic link, ``same`` the path of the file that a hard link
    is another name of.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    data: bytes | Path = b""
    link: str = ""
    same: str = ""


Files = dict[str, Node]  # by path, without a leading slash


def directory(mode: int = 0o755, uid: int = 0, mtime: int = 0) -> Node:
    """A directory that belongs to a user and the group of the same number."""
    return Node(stat.S_IFDIR | mode, uid, uid, mtime)


def file(data: bytes | Path, mode: int = 0o644, mtime: int = 0) -> Node:
    """A file of root's."""
    return Node(stat.S_IFREG | mode, mtime=mtime, data=data)


def symlink(target: str, mtime: int = 0) -> Node:
    """A symbolic link."""
    return Node(stat.S_IFLNK | 0o777, mtime=mtime, link=target)


def from_tar(tar: tarfile.TarFile, scratch: Path) -> Iterator[tuple[str, Node]]:
    """What is in a tar archive; contents are unpacked into the directory ``scratch``.

    Paths are merged into /usr; the links that merge them, devices and the like are
    left out.
    """
    for number, member in enumerate(tar):
        path = merged(member.name)
        facts = (member.uid, member.gid, int(member.mtime))
        own = member.name.strip("./")
        if not path or (member.issym() and "/" not in own and path == f"usr/{own}"):
            continue  # the root directory; /bin and its like
        if member.isdir():
            yield path, Node(stat.S_IFDIR | member.mode & 0o7777, *facts)
        elif member.issym():
            yield path, Node(stat.S_IFLNK | 0o777, *facts, link=member.linkname)
        elif member.islnk():
            mode = stat.S_IFREG | member.mode & 0o7777
            yield path, Node(mode, *facts, same=merged(member.linkname))
        elif member.isreg():
            data: bytes | Path = b""
            stream = tar.extractfile(member)
            if member.size and stream is not None:
                data = scratch / str(number)
                with data.open("wb") as out:
                    shutil.copyfileobj(stream, out)
            yield path, Node(stat.S_IFREG | member.mode & 0o7777, *facts, data=data)


def with_parents(files: Files, mtime: int) -> Files:
    """The files with all directories above them."""
    whole = dict(files)
    for path in files:
        parent = posixpath.dirname(path)
        while parent and parent not in whole:
            whole[parent] = directory(mtime=mtime)
            parent = posixpath.dirname(parent)
    return whole


def clamped(files: Files, newest: int) -> Files:
    """The files, none of them newer than a time, which those without one get."""
    return {p: replace(n, mtime=min(n.mtime or newest, newest)) for p, n in files.items()}


# ext4


def write_ext4(image: Path, files: Files, *, size: int, inodes: int, label: str, time: int) -> None:
    """Write a file system to a new file; only what is used takes room in it.

    BuildError if mke2fs, debugfs or e2fsck is missing or complains.
    """
    scratch = image.with_name(f"{image.name}.scratch")
    scratch.mkdir()
    try:
        config = scratch / "mke2fs.conf"
        config.write_text(_MKE2FS_CONF)
        # What reads a clock asks this first.
        env = {**os.environ, "E2FSPROGS_FAKE_TIME": str(time), "MKE2FS_CONFIG": str(config)}
        number = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{label}.pandalite"))
        with image.open("xb") as out:
            out.truncate(size)
        options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-L", label]
        options += ["-N", str(inodes), "-O", _FEATURES, "-U", number]
        options += ["-E", f"hash_seed={number},root_owner=0:0,nodiscard"]
        _run(["mke2fs", *options, str(image)], env)
        script = scratch / "commands"
        script.write_text("".join(_commands(with_parents(files, time), scratch, time)))
        said = _run(["debugfs", "-w", "-f", str(script), str(image)], env)
        # debugfs goes on after an error, with status 0.
        for line in said.splitlines():
            if not line.startswith(("debugfs", "Allocated inode: ")) and line.strip():
                raise BuildError(f"debugfs: {line}")
        _run(["e2fsck", "-f", "-n", str(image)], env)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(command: list[str], env: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except FileNotFoundError:
        raise BuildError(f"{command[0]} was not found: install e2fsprogs") from None
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stdout[-2000:].strip()}")
    return done.stdout


def _commands(files: Files, scratch: Path, time: int) -> Iterator[str]:
    """What debugfs is told: directories first, parents before what they hold."""
    ordered = sorted(files.items())
    for path, node in ordered:
        if stat.S_ISDIR(node.mode):
            yield _line("mkdir", f"/{path}")
    links: dict[str, int] = {}
    place = ""
    for number, (path, node) in enumerate(ordered):
        parent, name = posixpath.split(path)
        if stat.S_ISDIR(node.mode):
            continue
        if node.same:
            links[node.same] = links.get(node.same, 1) + 1
            continue
        if parent != place:
            yield _line("cd", f"/{parent}")
            place = parent
        if stat.S_ISLNK(node.mode):
            yield _line("symlink", name, node.link)
            continue
        source = node.data
        if isinstance(source, bytes):
            source = scratch / f"file-{number}"
            source.write_bytes(node.data if isinstance(node.data, bytes) else b"")
        yield _line("write", str(source), name)
    yield _line("cd", "/")
    room: dict[str, int] = {}
    for path, node in ordered:
        if node.same:
            # Unlike the other commands, ln does not make a full directory bigger.
            parent = posixpath.dirname(path)
            if room.get(parent, 0) == 0:
                yield _line("expand_dir", f"/{parent}")
                room[parent] = _ENTRIES
            room[parent] -= 1
            if node.same not in files or files[node.same].same:
                raise BuildError(f"/{path} is another name of /{node.same}, which is not there")
            yield _line("ln", f"/{node.same}", f"/{path}")
            continue
        fields = {"mode": f"0{node.mode:o}", "uid": node.uid, "gid": node.gid}
        if node.mtime != time:
            fields["mtime"] = f"@{max(node.mtime, 0)}"
        if path in links:
            fields["links_count"] = links[path]
        for field, value in fields.items():
            if value != 0:
                yield _line("set_inode_field", f"/{path}", field, str(value))


def _line(*words: str) -> str:
    line = " ".join([words[0], *map(_quoted, words[1:])]) + "\n"
    if len(line.encode()) > _LINE or line.count("\n") > 1:
        raise BuildError(f"a file name is not possible here: {words[1:]!r}")
    return line


def _quoted(word: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_@./+:,=~-]+", word):
        return word
    return '"' + word.replace('"', '""') + '"'
