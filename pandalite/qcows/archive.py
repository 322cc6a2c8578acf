"""Guests in one file, for hosts without a network: ``export`` and ``import``.

The file is a plain tar. Its first member, ``manifest.json``, lists the others
with size and SHA-256; nothing else may be in it. On import all is unpacked in a
directory of its own and checked; only then it is put where it belongs.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ImageError
from . import cache, lookup, store, tiny, user_images
from .catalogue import Entry, builtin

__all__ = ["export", "import_file"]

_FORMAT = 1
_MANIFEST = "manifest.json"
_MANIFEST_MAX = 4 << 20
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+~:-]{0,199}"
_PATH = re.compile(rf"(images|guests)/({_PART})/{_PART}(/{_PART}){{0,7}}")
_CHUNK = 1 << 20


class _Member(NamedTuple):
    """A file that goes into an archive."""

    path: str
    source: Path
    size: int
    sha256: str


# Export


def export(file: Path, names: list[str]) -> list[str]:
    """Write images and guests into an archive; returns its members.

    It appears under its name when it is complete. ImageError if an image is
    unknown or not on this host.
    """
    members: dict[str, _Member] = {}
    items: list[dict[str, Any]] = []
    for entry in {e.name: e for e in map(lookup.entry, names)}.values():
        item: dict[str, Any] = {"name": entry.name, "kind": entry.kind}
        if entry.kind == "tiny":
            found = _guest_files(entry.guest)
        else:
            found = _image_files(entry)
            if entry.kind == "user":
                item["table"] = _portable_table(entry)
        members.update({member.path: member for member in found})
        item["files"] = [member.path for member in found]
        items.append(item)
    facts = {m.path: {"size": m.size, "sha256": m.sha256} for m in members.values()}
    manifest = json.dumps({"format": _FORMAT, "items": items, "files": facts}, indent=1).encode()
    cache.check_space(
        file.absolute().parent, sum(m.size for m in members.values()), f"the archive {file}"
    )
    with (
        cache.atomic_file(file.absolute()) as partial,
        tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar,
    ):
        tar.addfile(_info(_MANIFEST, len(manifest)), io.BytesIO(manifest))
        for member in members.values():
            with member.source.open("rb") as source:
                tar.addfile(_info(member.path, member.size), source)
    return list(members)


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info


def _member(path: str, source: Path) -> _Member:
    if not _PATH.fullmatch(path):
        raise ImageError(f"{source} cannot be exported: its name would not be accepted: rename it")
    return _Member(path, source, source.stat().st_size, cache.file_sha256(source))


def _guest_files(arch: str) -> list[_Member]:
    guest = tiny.find_guest(arch)
    found = sorted(p for p in guest.directory.rglob("*") if p.is_file())
    return [_member(f"guests/{arch}/{p.relative_to(guest.directory).as_posix()}", p) for p in found]


def _image_files(entry: Entry) -> list[_Member]:
    files = store.present(entry)
    if files is None:
        raise ImageError(
            f"{entry.name} is not on this host: run `python -m pandalite.qcows fetch {entry.name}` "
            "first"
        )
    return [_member(f"images/{entry.name}/{name}", path) for name, path in files.by_name.items()]


def _portable_table(entry: Entry) -> dict[str, Any]:
    """The table of a user's image for another host, where the file is in the store."""
    image = entry.image
    disk = entry.files[0]
    path = store.locate(entry, disk)
    assert path is not None  # as present() said
    # Where there is no address, one that says what to do stands for it.
    url = image.url or f"file:///imported/{entry.name}/{disk.name}"
    table: dict[str, Any] = {
        **{k: v for k, v in image._asdict().items() if v is not None and k != "hashes"},
        "qcow": disk.name,
        "url": url,
        "sha256": cache.file_sha256(path),
        "hashes": image.hashes,
        "flavour": entry.flavour,
        "description": entry.description or None,
        "disk": entry.disk or None,
        "login": list(entry.login) if entry.login else None,
    }
    return {key: value for key, value in table.items() if value is not None}


# Import


def import_file(file: Path) -> list[str]:
    """Put what is in an archive into the cache; returns the names of the images.

    ImageError if anything in it is not as it must be; then nothing is changed.
    """
    try:
        with file.open("rb") as raw:
            return _import(file, raw)
    except OSError as error:
        raise ImageError(f"cannot import {file}: {error.strerror or error}") from error


def _import(file: Path, raw: Any) -> list[str]:
    try:
        with tarfile.open(fileobj=raw, mode="r:") as tar:
            manifest, items = _read_manifest(file, tar)
            with _staging() as staging:
                needed = sum(facts["size"] for facts in manifest.values())
                cache.check_space(staging, needed, f"what is in {file.name}")
                _unpack(file, tar, manifest, staging)
                entries = [_check_item(file, item, manifest, staging) for item in items]
                for entry, item in entries:
                    _install(entry, item, manifest, staging)
    except (tarfile.TarError, EOFError, UnicodeError, RecursionError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise _wrong(file, f"it is no whole tar file: {error}") from error
    return [entry.name for entry, _ in entries]


def _wrong(file: Path, what: str) -> ImageError:
    return ImageError(
        f"{file} is not imported ({what}): export it again with `python -m pandalite.qcows export` "
        "and check that it was copied whole"
    )


def _members(file: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while True:
        member = tar.next()
        if member is None:
            return
        if not member.isreg() or member.sparse is not None:
            raise _wrong(file, f"{member.name!r} is not a plain file")
        yield member


def _read_manifest(
    file: Path, tar: tarfile.TarFile
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    first = next(_members(file, tar), None)
    if first is None or first.name != _MANIFEST or first.size > _MANIFEST_MAX:
        raise _wrong(file, f"it does not begin with {_MANIFEST}")
    stream = tar.extractfile(first)
    assert stream is not None
    try:
        data = json.loads(stream.read().decode("utf-8"))
        version, items, files = data["format"], data["items"], data["files"]
        listed = [path for item in items for path in item["files"]]
        shape = (
            all(isinstance(item["name"], str) and isinstance(item["kind"], str) for item in items)
            and len({item["name"] for item in items}) == len(items)
            and sorted(listed) == sorted(files)
            and all(
                type(f["size"]) is int
                and f["size"] >= 0
                and re.fullmatch("[0-9a-f]{64}", f["sha256"])
                for f in files.values()
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _wrong(file, f"{_MANIFEST} is damaged: {error!r}") from error
    if version != _FORMAT:
        raise ImageError(
            f"{file} is an archive of format {version!r}, this version of pandalite needs "
            f"{_FORMAT}: import it with the version that exported it"
        )
    if not shape:
        raise _wrong(file, f"{_MANIFEST} is damaged")
    for path in files:
        if not _PATH.fullmatch(path):
            raise _wrong(file, f"it has a file {path!r}, which is not one of a guest")
    return files, items


@contextlib.contextmanager
def _staging() -> Iterator[Path]:
    """A directory to unpack in; those of importers that were killed are swept away."""
    home = cache.make_directory(cache.home())
    for old in home.glob(".import-*"):
        if not cache.is_held(old):
            shutil.rmtree(old, ignore_errors=True)
    try:
        staging = Path(tempfile.mkdtemp(".part", ".import-", home))
    except OSError as error:
        raise ImageError(
            f"cannot write to the cache ({home}: {error.strerror}); set PANDALITE_HOME to a "
            "directory that can be written"
        ) from error
    handle = cache.hold(staging)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _unpack(
    file: Path, tar: tarfile.TarFile, manifest: dict[str, dict[str, Any]], staging: Path
) -> None:
    """Unpack the files, each checked while it is written."""
    done = set()
    for member in _members(file, tar):
        facts = manifest.get(member.name)
        if facts is None or member.name in done:
            raise _wrong(file, f"it has {member.name!r}, which its manifest does not list")
        if member.size != facts["size"]:
            raise _wrong(
                file, f"{member.name} has {member.size} bytes, its manifest says {facts['size']}"
            )
        done.add(member.name)
        target = staging / member.name  # of a shape that cannot lead out
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = tar.extractfile(member)
        assert stream is not None
        total, size = hashlib.sha256(), 0
        with target.open("xb") as out:
            while data := stream.read(_CHUNK):
                size += len(data)
                total.update(data)
                out.write(data)
            out.flush()
            os.fsync(out.fileno())
        if size != facts["size"]:
            raise _wrong(file, f"it ends inside of {member.name}")
        if total.hexdigest() != facts["sha256"]:
            raise _wrong(file, f"the content of {member.name} is not what its manifest says")
    missing = sorted(set(manifest) - done)
    if missing:
        raise _wrong(file, f"{missing[0]} is missing")


def _check_item(
    file: Path, item: dict[str, Any], manifest: dict[str, Any], staging: Path
) -> tuple[Entry, dict[str, Any]]:
    """Find what an item of the manifest is, and check its files as that."""
    name, kind = item["name"], item["kind"]
    known = builtin().get(name)
    if kind == "user":
        entry = user_images.parse_table(
            name, item.get("table"), lambda key: f"{file}, {name} {key}".strip(), staging
        )
        if not entry.files or entry.files[0].path is not None:
            raise _wrong(file, f"the entry of {name} has no url")
        mine = user_images.load_all()[0].get(name)
        if mine is not None and mine.image != entry.image:
            raise ImageError(
                f"{file} has an image {name!r}, and {mine.origin} has another one of that name: "
                "rename yours, or delete it with `python -m pandalite.qcows delete`"
            )
    elif known is not None and known.kind == kind and known.name == name:
        entry = known
    else:
        raise ImageError(
            f"{file} has an image {name!r} ({kind}), which this version of pandalite does not "
            "know: update it"
        )
    if kind == "tiny":
        arch = entry.guest
        prefix = f"guests/{arch}/"
        guest = tiny.load_guest(arch, staging / "guests" / arch)
        for part, facts in guest.manifest["files"].items():
            found = manifest.get(prefix + part, {}).get("sha256")
            if found != facts["sha256"]:
                raise _wrong(file, f"{part} of {name} is not what the guest's own manifest says")
    else:
        prefix = f"images/{name}/"
        wanted = {prefix + facts.name for facts in entry.files}
        if wanted != set(item["files"]):
            raise _wrong(file, f"{name} is to have other files: {', '.join(sorted(wanted))}")
        for facts in entry.files:
            store.check(staging / prefix / facts.name, facts, disk=facts is entry.files[0])
    if not all(path.startswith(prefix) for path in item["files"]):
        raise _wrong(file, f"{name} has files that are not its own")
    return entry, item


def _install(entry: Entry, item: dict[str, Any], manifest: dict[str, Any], staging: Path) -> None:
    """Move the files of an image to their place: renames only."""
    if entry.kind == "tiny":
        arch = entry.guest
        install_guest(arch, staging / "guests" / arch)
        return
    target = cache.make_directory(store.directory(entry))
    for facts in reversed(entry.files):  # the disk last: without it the image is not there
        source = staging / "images" / entry.name / facts.name
        final = target / facts.name
        with cache.lock(final.with_name(f"{facts.name}.lock"), 60):
            source.replace(final)
        cache.remember_digest(
            final, "sha256", manifest[f"images/{entry.name}/{facts.name}"]["sha256"]
        )
    if entry.kind == "user" and entry.name not in user_images.load_all()[0]:
        user_images.write(entry.name, item["table"])


def install_guest(arch: str, source: Path) -> Path:
    """Put the directory of a tiny guest into the user's store; returns its place."""
    final = tiny.store_directory(arch)
    cache.make_directory(final.parent)
    with cache.lock(final.with_name(f"{arch}.lock"), 60):
        old = final.with_name(f".{arch}.{os.getpid()}.old.part")
        with contextlib.suppress(FileNotFoundError):
            final.rename(old)
        source.replace(final)
        shutil.rmtree(old, ignore_errors=True)
    return final
