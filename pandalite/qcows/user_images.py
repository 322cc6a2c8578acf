"""The user's own images: tables in the files of ``images.d`` in the home directory.

A file is TOML or JSON. Each table in it is an image, with the fields of
``Image`` and a few more (:data:`KEYS`). What is wrong in a file is told with
its place and what is expected there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ImageError
from . import cache
from .catalogue import SNAPSHOT, Entry, FileFacts, Image, builtin

__all__ = [
    "KEYS",
    "check_name",
    "directory",
    "find",
    "load_all",
    "parse_table",
    "read_file",
    "write",
]

#: Names of images: also file names, so nothing that could lead elsewhere.
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~-]{0,199}")

#: Beginnings of directory names in the cache that are not images.
_RESERVED = ("tiny-", "root-")

#: Interfaces a disk can have (``if=`` of QEMU's ``-drive``).
_DISKS = ("ide", "scsi", "sd", "virtio")


def directory() -> Path:
    """Where the files with the user's images are."""
    return cache.home() / "images.d"


def check_name(name: str) -> None:
    """ImageError if an image cannot be called that."""
    if not NAME.fullmatch(name) or name.endswith((".part", ".lock")):
        raise ImageError(
            f"an image cannot be named {name!r}: a name has lower-case letters, digits and "
            "_ . -, begins with a letter or digit, and has at most 64 characters"
        )
    if name.startswith(_RESERVED):
        raise ImageError(f"an image cannot be named {name!r}: tiny- and root- are taken")


# What the keys may be: a function that returns what is expected if a value is wrong


def _text(value: Any) -> str | None:
    if isinstance(value, str) and value and value.isprintable():
        return None
    return "a string of printable characters"


def _regex(value: Any) -> str | None:
    try:
        if isinstance(value, str) and value:
            re.compile(value)
            return None
        return "a regular expression that matches the shell prompt"
    except re.error as error:
        return f"a regular expression that matches the shell prompt ({error})"


def _arch(value: Any) -> str | None:
    from .._bindings import loader
    from ..errors import UnknownArchitectureError

    if isinstance(value, str):
        try:
            loader.architecture(value)
            return None
        except UnknownArchitectureError as error:
            return f"a guest architecture ({error})"
    return "the name of a guest architecture"


def _url(value: Any) -> str | None:
    if isinstance(value, str) and re.fullmatch(r"(https?://[^\s/]+|file://)/\S*[^\s/]", value):
        return None
    return "an http://, https:// or file:// address that ends in a file name"


def _list(check: Callable[[Any], str | None], what: str) -> Callable[[Any], str | None]:
    def checker(value: Any) -> str | None:
        if isinstance(value, list) and all(check(item) is None for item in value):
            return None
        return f"a list of {what}"

    return checker


def _file_name(value: Any) -> str | None:
    if isinstance(value, str) and _FILE_NAME.fullmatch(value):
        return None
    return "the plain name of a file, without a directory"


def _mem(value: Any) -> str | None:
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]*[kKmMgGtT]?", value):
        return None
    return 'a size of RAM as for -m, in quotes, e.g. "512M"'


def _words(value: Any) -> str | None:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return None
    try:
        if isinstance(value, str):
            shlex.split(value)
            return None
    except ValueError as error:
        return f"QEMU's options as a shell would read them ({error})"
    return "QEMU's options, a string or a list of words"


def _hex(digits: int) -> Callable[[Any], str | None]:
    def checker(value: Any) -> str | None:
        if isinstance(value, str) and re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", value):
            return None
        return f"{digits} hexadecimal digits"

    return checker


def _hashes(value: Any) -> str | None:
    if isinstance(value, dict) and all(
        _file_name(k) is None and (_hex(40)(v) is None or _hex(64)(v) is None)
        for k, v in value.items()
    ):
        return None
    return "a table of file names, each with a SHA-1 or SHA-256 in hexadecimal"


def _size(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return None
    return "a number of bytes"


def _disk(value: Any) -> str | None:
    return None if value in _DISKS else f"one of {', '.join(_DISKS)}"


def _login(value: Any) -> str | None:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value):
        return None
    return "a list of the user name and the password"


#: The keys of an image's table, each with the check of its value.
KEYS: dict[str, Callable[[Any], str | None]] = {
    "arch": _arch,
    "os": _text,
    "prompt": _regex,
    "cdrom": _text,
    "snapshot": _text,
    "url": _url,
    "alternate_urls": _list(_url, "addresses"),
    "urls": _list(_url, "addresses"),
    "extra_files": _list(_file_name, "plain file names"),
    "qcow": _text,
    "default_mem": _mem,
    "extra_args": _words,
    "hashes": _hashes,
    "sha256": _hex(64),
    "sha1": _hex(40),
    "size": _size,
    "flavour": _text,
    "description": _text,
    "disk": _disk,
    "login": _login,
}


def _error(where: str, what: str) -> ImageError:
    return ImageError(f"{where}: {what}. docs/images.md has an example.")


def parse_table(name: str, table: Any, where: Callable[[str], str], base: Path) -> Entry:
    """Make a catalogue entry of an image's table.

    ``where`` gives for a key the place in the file, for messages; ``base`` is
    the directory that a relative path is relative to. ImageError if anything is
    wrong.
    """
    try:
        check_name(name)
    except ImageError as error:
        raise ImageError(f"{where('')}: {error}") from None
    if not isinstance(table, dict):
        raise _error(where(""), f"{name!r} must be a table with the facts about an image")
    for key, value in table.items():
        if key not in KEYS:
            raise _error(where(key), f"{name!r} has the unknown key {key!r}{_close(key)}")
        expected = KEYS[key](value)
        if expected:
            raise _error(where(key), f"{key} of {name!r} must be {expected}, not {value!r}")
    if "arch" not in table:
        raise _error(where(""), f"{name!r} has no arch: name the guest architecture")
    entry = _entry(name, table, where, base)
    known = builtin().get(name)
    if known is not None and known.image != entry.image:
        raise _error(
            where(""), f"{name!r} is an image of pandalite's own catalogue: choose another name"
        )
    return entry


def _close(key: str) -> str:
    import difflib

    near = difflib.get_close_matches(key, KEYS, 1)
    if near:
        return f"; do you mean {near[0]!r}?"
    return f"; the keys are: {', '.join(KEYS)}"


def _entry(name: str, table: dict[str, Any], where: Callable[[str], str], base: Path) -> Entry:
    urls = [*([table["url"]] if "url" in table else []), *table.get("urls", [])]
    urls += table.get("alternate_urls", [])
    extra = table.get("extra_files", [])
    qcow = table.get("qcow")
    hashes = {file: digest.lower() for file, digest in table.get("hashes", {}).items()}
    files = []
    if urls:
        there = urls[0].rsplit("/", 1)[1]
        qcow = qcow or re.sub(r"\.(xz|gz|zst)$", "", there)
        if _file_name(qcow):
            raise _error(
                where("qcow"),
                f"qcow of {name!r} must be {_file_name(qcow)}, as the file is downloaded",
            )
        for number, file in enumerate([qcow, *extra]):
            # The disk's hash may be under the name in the address, as PyPANDA has it.
            digest = hashes.get(file) or (None if number else hashes.get(there))
            places = [f"{u.rsplit('/', 1)[0]}/{file}" for u in urls] if number else urls
            files.append(_facts(file, places, digest, table if not number else {}))
        if len({f.name for f in files}) != len(files):
            raise _error(where("extra_files"), f"{name!r} names a file twice")
    elif qcow is not None:
        path = Path(os.path.expanduser(qcow))
        path = path if path.is_absolute() else base / path
        qcow = str(path)
        files.append(_facts(path.name, [], hashes.get(path.name), table)._replace(path=path))
        if extra:
            raise _error(
                where("extra_files"),
                f"extra_files of {name!r} are downloaded from beside its url, and it has none; "
                "write the whole paths of local files into extra_args",
            )
    else:
        raise _error(
            where(""), f"{name!r} has neither qcow (the path of a disk image) nor url (its address)"
        )
    words = table.get("extra_args", "")
    words = list(words) if isinstance(words, list) else shlex.split(words)
    sha1 = {file: digest for file, digest in hashes.items() if len(digest) == 40}
    login = table.get("login")
    image = Image(
        arch=table["arch"],
        os=table.get("os"),
        prompt=table.get("prompt"),
        cdrom=table.get("cdrom"),
        snapshot=table.get("snapshot", SNAPSHOT if "prompt" in table else None),
        url=urls[0] if urls else None,
        alternate_urls=urls[1:] or None,
        extra_files=list(extra) or None,
        qcow=qcow,
        default_mem=table.get("default_mem", "128M"),
        extra_args=shlex.join(map(expand_home, words)) or None,
        hashes=sha1 or None,
    )
    return Entry(
        name=name,
        kind="user",
        image=image,
        flavour=table.get("flavour", "own"),
        description=table.get("description", ""),
        files=tuple(files),
        words=tuple(words),
        disk=table.get("disk", ""),
        login=(login[0], login[1]) if login else None,
    )


def expand_home(word: str) -> str:
    """A word of the command line with ``~/`` at its begin replaced, as a shell does."""
    return os.path.expanduser(word) if word.startswith("~/") else word


def _facts(name: str, urls: list[str], digest: str | None, table: dict[str, Any]) -> FileFacts:
    sha1 = table.get("sha1") or (digest if digest and len(digest) == 40 else None)
    sha256 = table.get("sha256") or (digest if digest and len(digest) == 64 else None)
    return FileFacts(
        name=name,
        urls=tuple(urls),
        size=table.get("size"),
        sha256=sha256.lower() if sha256 else None,
        sha1=sha1.lower() if sha1 else None,
    )


# Files


def _toml() -> Any:
    """A TOML parser, or None: Python 3.11 and newer have one."""
    import importlib

    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _parse(path: Path, text: str) -> Any:
    if path.suffix == ".json":
        try:
            return json.loads(text, object_pairs_hook=_no_duplicates)
        except ValueError as error:
            line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            raise _error(f"{path}{line}", f"this is not JSON ({error})") from error
        except RecursionError:
            raise _error(str(path), "this is not a list of images (nested too deeply)") from None
    parser = _toml()
    if parser is None:
        raise ImageError(
            f"{path} cannot be read: Python {sys.version_info[0]}.{sys.version_info[1]} has no "
            "TOML parser. Install tomli, use Python 3.11 or newer, or write the same as JSON "
            f"into {path.with_suffix('.json').name}"
        )
    try:
        return parser.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        found = re.search(r"at line (\d+)", str(error))
        number = found[1] if found else max(len(text.splitlines()), 1)
        raise _error(f"{path}:{number}", f"this is not TOML ({error})") from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is there twice")
    return table


def _line_of(path: Path, text: str, name: str, key: str) -> str:
    """The place of a key, for messages: the file, and the line if it is found."""
    lines = text.splitlines()
    quoted = f"[\"']?{re.escape(name)}[\"']?"
    header = rf"\s*\[\s*{quoted}\s*[.\]]" if path.suffix != ".json" else rf"\s*\{{?\s*{quoted}\s*:"
    start = next((n for n, line in enumerate(lines) if re.match(header, line)), None)
    if start is None:
        return str(path)
    if key:
        mark = re.compile(rf"[\s{{,]*[\"']?{re.escape(key)}[\"']?\s*[=:]")
        for number in range(start, len(lines)):
            if number > start and re.match(r"\s*\[[^\[]", lines[number]) and path.suffix != ".json":
                break
            if mark.match(lines[number]):
                return f"{path}:{number + 1}"
    return f"{path}:{start + 1}"


def read_file(path: Path) -> dict[str, Entry]:
    """The images of one file; ImageError if anything in it is wrong."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _error(str(path), f"this is not UTF-8 text ({error})") from error
    data = _parse(path, text)
    if not isinstance(data, dict):
        raise _error(str(path), "there must be a table for each image")
    entries = {}
    for name, table in data.items():

        def where(key: str, name: str = name) -> str:
            return _line_of(path, text, name, key)

        entries[name] = parse_table(name, table, where, path.parent)._replace(origin=path)
    return entries


def files() -> list[Path]:
    """The files with the user's images."""
    try:
        found = sorted(directory().iterdir())
    except OSError:
        return []
    return [
        path for path in found if path.suffix in (".toml", ".json") and path.name[:1] not in ".#"
    ]


def load_all() -> tuple[dict[str, Entry], list[ImageError]]:
    """All images of the user, and what is wrong with the files that could not be read."""
    entries: dict[str, Entry] = {}
    errors = []
    for path in files():
        try:
            for name, entry in read_file(path).items():
                if name in entries and entries[name].image != entry.image:
                    raise _error(
                        str(path), f"{name!r} is in {entries[name].origin} too: remove one of them"
                    )
                entries[name] = entry
        except ImageError as error:
            errors.append(error)
    return entries, errors


def find(name: str) -> Entry | None:
    """The user's image of that name; None if there is none.

    ImageError if there is none and a file that might have it cannot be read.
    """
    entries, errors = load_all()
    if name not in entries and errors:
        raise errors[0]
    return entries.get(name)


def write(name: str, table: dict[str, Any]) -> Path:
    """Write an image's table to a file of its own, whole or not at all; returns its path.

    TOML, or JSON where Python has no TOML parser to read it with. ImageError if
    the table is wrong, or the image is in another file.
    """
    parse_table(name, table, lambda key: f"the new entry, {key or name}", Path.cwd())
    ending = "json" if _toml() is None else "toml"
    path = directory() / f"{name}.{ending}"
    for other in files():
        if other.stem == name and other != path:
            raise ImageError(f"{other} has an image {name!r}: delete that file first")
    if ending == "json":
        text = json.dumps({name: table}, indent=2) + "\n"
    else:
        head = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)
        lines = [f"{key} = {_quoted(value)}" for key, value in table.items()]
        text = "\n".join([f"[{head}]", *lines, ""])
    with cache.atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def _quoted(value: Any) -> str:
    """A value as TOML has it: its strings are JSON's, but for one character."""
    if isinstance(value, dict):
        items = ", ".join(f"{_quoted(k)} = {_quoted(v)}" for k, v in value.items())
        return "{" + items + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
