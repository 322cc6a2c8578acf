"""The command ``python -m pandalite.qcows``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ImageError, PandaError
from . import add, archive, cache, cleanup, guests, lookup, qcow2, roots, store, tiny
from .catalogue import Entry
from .manager import Qcows

__all__ = ["main"]

_EPILOG = """\
`python -m pandalite.qcows NAME` has the image ready and prints a command line that
runs it in QEMU. docs/images.md says where files are kept and looked for.
"""


def _print(data: Any, given: argparse.Namespace, lines: Sequence[str]) -> None:
    if given.json:
        print(json.dumps(data, indent=2, default=str))
    elif lines:
        print("\n".join(lines))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


# Where an image is


def _state(entry: Entry) -> tuple[str, Path | None]:
    """What there is of an image ("here", "missing", "damaged", "not made"), and where."""
    try:
        if entry.kind == "tiny":
            return "here", tiny.find_guest(entry.guest).directory
        files = store.present(entry)
        return ("missing", None) if files is None else ("here", files.disk)
    except ImageError:
        missing = entry.kind == "tiny" and not tiny.is_here(entry.guest)
        gone = entry.files and entry.files[0].path and not entry.files[0].path.exists()
        return ("missing" if missing or gone else "damaged"), None


def _facts(name: str, entry: Entry) -> dict[str, Any]:
    state, place = _state(entry)
    return {
        "name": name,
        "kind": entry.kind,
        "arch": entry.image.arch,
        "flavour": entry.flavour,
        "description": entry.description,
        "state": state,
        "path": place,
        **({"same_as": entry.name} if name != entry.name else {}),
    }


# The commands; each returns the exit status


def _list(given: argparse.Namespace) -> int:
    entries, errors = lookup.everything()
    facts = [_facts(name, entries[name]) for name in sorted(entries)]
    wide = max(len(f["name"]) for f in facts)
    lines = [
        f"{f['name']:{wide}}  {f['arch']:9} {f['kind']:6} {f['state']:8} "
        + (f"same as {f['same_as']}" if "same_as" in f else f["description"])
        for f in facts
    ]
    _print({"home": cache.home(), "images": facts}, given, [line.rstrip() for line in lines])
    for error in errors:
        _complain(error)
    return 1 if errors else 0


def _info(given: argparse.Namespace) -> int:
    entry = lookup.entry(given.name)
    image = Qcows.get_qcow_info(given.name)
    files = []
    for facts in entry.files:
        try:
            place = store.locate(entry, facts)
            state = "missing" if place is None else "here"
        except ImageError as error:
            place, state = None, f"damaged: {error}"
        known = {k: v for k, v in facts._asdict().items() if v and k not in ("name", "path")}
        files.append({"name": facts.name, "state": state, "path": place, **known})
    data = {
        **_facts(given.name.lower(), entry),
        "image": image._asdict(),
        "files": files,
        "origin": entry.origin,
    }
    lines = [f"{k:12} {v}" for k, v in data.items() if k not in ("image", "files") and v]
    lines += [f"{k:12} {v}" for k, v in image._asdict().items() if v and k != "arch"]
    lines += [f"file         {f['name']}: {f['path'] or f['state']}" for f in files]
    _print(data, given, lines)
    return 0


def _fetch(given: argparse.Namespace) -> int:
    done = []
    for name in given.names:
        entry = lookup.entry(name)
        progress = False if given.json else None
        if entry.kind == "tiny":
            place = guests.fetch_guest(entry, progress)
            if given.to:
                guest = tiny.find_guest(entry.guest)
                place = guests.copy_guest(guest, Path(given.to))
            paths = [place]
        elif given.to:
            paths = _fetch_to(entry, Path(given.to), progress)
        else:
            paths = list(store.ensure(entry, progress=progress).by_name.values())
        done.append({"name": entry.name, "paths": paths})
    _print(done, given, [str(path) for item in done for path in item["paths"]])
    return 0


def _fetch_to(entry: Entry, to: Path, progress: bool | None) -> list[Path]:
    """Have the files of an image in a directory: copied from here, or downloaded."""
    from . import download

    to = cache.make_directory(to.absolute())
    paths = []
    for facts in entry.files:
        final = to / facts.name
        here = store.locate(entry, facts)
        if here is not None and not final.exists():
            cache.check_space(to, here.stat().st_size, str(final))
            with cache.atomic_file(final) as partial:
                shutil.copyfile(here, partial)
        elif here is None:
            download.fetch(store.remote_file(facts), to, progress=progress, image=entry.name)
        store.check(final, facts, disk=facts is entry.files[0])
        paths.append(final)
    return paths


def _build(given: argparse.Namespace) -> int:
    arch = given.arch.lower().replace("_tiny", "")
    options = [word for name in given.packages for word in ("--with", name)]
    options += ["--with-gcc"] if given.with_gcc else []
    place = guests.build(arch, options)
    _print({"arch": arch, "path": place}, given, [str(place)])
    return 0


def _verify(given: argparse.Namespace) -> int:
    if given.name:
        entries = [lookup.entry(given.name)]
    else:
        known, errors = lookup.everything()
        for error in errors:
            _complain(error)
        entries = [e for n, e in sorted(known.items()) if n == e.name]
    results = []
    for entry in entries:
        for path, problem in _problems(entry):
            results.append({"name": entry.name, "path": path, "problem": problem})
    if given.name and not results:
        raise ImageError(f"{entries[0].name} is not on this host: there is nothing to verify")
    lines = [f"{r['path'] or r['name']}: {r['problem'] or 'right'}" for r in results]
    _print(results, given, lines)
    bad = [r for r in results if r["problem"]]
    for result in bad:
        _complain(f"{result['name']}: {result['problem']}")
    return 1 if bad or (not given.name and errors) else 0


def _problems(entry: Entry) -> list[tuple[Path | None, str]]:
    """The files of an image that are here, each with what is wrong with it or ""."""
    found: list[tuple[Path | None, str]] = []
    if entry.kind == "tiny":
        arch = entry.guest
        if _state(entry)[0] == "missing":
            return []
        try:
            guest = tiny.find_guest(arch)
        except ImageError as error:
            return [(None, str(error))]
        for name, facts in guest.manifest["files"].items():
            path = guest.directory / name
            right = path.is_file() and cache.file_sha256(path, again=True) == facts["sha256"]
            wrong = f"{path} is not what the guest's manifest says: build or fetch it again"
            found.append((path, "" if right else wrong))
        disks = roots.family_directories(f"tiny-{arch}")
    else:
        for facts in entry.files:
            candidates = [facts.path] if facts.path else [store.directory(entry) / facts.name]
            for path in candidates:
                if path.is_file():
                    found.append((path, _problem(path, facts, facts is entry.files[0])))
        disks = roots.family_directories(f"root-{entry.name}")
    for directory in disks:
        path = directory / "root.qcow2"
        if path.exists():
            found.append((path, _problem(path, None, True)))
    return found


def _problem(path: Path, facts: Any, disk: bool) -> str:
    try:
        if facts is not None:
            store.check(path, facts, disk=disk, again=True)
        else:
            qcow2.validate(path, deep=True)
    except ImageError as error:
        return str(error)
    return ""


def _path(given: argparse.Namespace) -> int:
    entry = lookup.entry(given.name)
    if entry.kind == "tiny":
        from .._bindings.loader import find_library

        guest = tiny.find_guest(entry.guest)
        path = tiny.root_path(guest, find_library(guest.library))
        if not path.exists():
            raise ImageError(
                f"the disk of {entry.name} is not made yet: `python -m pandalite.qcows "
                f"{given.name}` makes it, as does its first use"
            )
    else:
        path = store.ensure(entry, download=False).disk
    _print({"name": entry.name, "path": path}, given, [str(path)])
    return 0


def _delete(given: argparse.Namespace) -> int:
    from .command_line import remove_work_disk

    entry = lookup.entry(given.name)
    Qcows.remove_image(given.name)
    remove_work_disk(entry)
    deleted = [entry.name]
    if entry.kind == "user" and cleanup.delete_entry_file(entry.name):
        deleted.append(str(entry.origin))
    elif entry.kind == "user":
        print(f"note: the entry in {entry.origin} stays, it is not alone there", file=sys.stderr)
    _print({"deleted": deleted}, given, [])
    return 0


def _gc(given: argparse.Namespace) -> int:
    try:
        limit = cleanup.parse_size(given.max_size)
    except ValueError as error:
        given.parser.error(f"--max-size: {error}")
    result = cleanup.clean(limit, dry_run=given.dry_run)
    data = {
        "deleted": [item._asdict() for item in result.deleted],
        "kept": [item._asdict() for item in result.kept],
        "size": result.size,
        "dry_run": given.dry_run,
    }
    word = "would delete" if given.dry_run else "deleted"
    lines = [f"{word} {i.path} ({_megabytes(i.size)})" for i in result.deleted]
    lines += [f"in use: {i.path} ({_megabytes(i.size)})" for i in result.kept]
    _print(data, given, [*lines, f"{_megabytes(result.size)} in {cache.home()}"])
    return 0


def _export(given: argparse.Namespace) -> int:
    members = archive.export(Path(given.file), given.names)
    _print({"file": given.file, "files": members}, given, members)
    return 0


def _import(given: argparse.Namespace) -> int:
    names = archive.import_file(Path(given.file))
    _print({"imported": names}, given, names)
    return 0


def _add(given: argparse.Namespace) -> int:
    if not given.json and given.prompt is None:
        print("booting the image to find its prompt", file=sys.stderr)
    path, table = add.add(
        given.name,
        qcow=Path(given.qcow),
        arch=given.arch,
        mem=given.mem,
        prompt=given.prompt,
        words=given.arg,
        login=tuple(given.login) if given.login else None,
        disk=given.disk,
        libpanda_path=given.libpanda,
        timeout=given.timeout,
    )
    lines = [f"{path}: prompt {table['prompt']!r}"]
    _print({"name": given.name.lower(), "file": path, "entry": table}, given, lines)
    return 0


def _command_line(given: argparse.Namespace) -> int:
    from .command_line import command_line

    text = command_line(given.name)
    _print({"name": given.name.lower(), "command": text}, given, [text])
    return 0


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON")
    parser = argparse.ArgumentParser(
        prog="python -m pandalite.qcows",
        description="Guest images: list, fetch, check, delete them, and carry them elsewhere.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=[shared])
        made.set_defaults(function=function, parser=made)
        return made

    command("list", _list, "what images there are")
    command("info", _info, "what is known of an image").add_argument("name", metavar="NAME")
    fetch = command("fetch", _fetch, "download what is missing of images")
    fetch.add_argument("names", metavar="NAME", nargs="+")
    fetch.add_argument("--to", metavar="DIR", help="put the files there, to carry them elsewhere")
    build = command("build", _build, "build a guest of ours with the tools of this checkout")
    build.add_argument("arch", metavar="NAME", help="an architecture, or e.g. x86_64_debian")
    build.add_argument(
        "--with",
        dest="packages",
        metavar="PACKAGE",
        action="append",
        default=[],
        help="a further package, of a guest with a disk",
    )
    build.add_argument("--with-gcc", action="store_true", help="the same: gcc, libc6-dev, make")
    verify = command("verify", _verify, "read all files of images again and check them")
    verify.add_argument("name", metavar="NAME", nargs="?")
    command("path", _path, "print where an image's disk is").add_argument("name", metavar="NAME")
    delete = command("delete", _delete, "delete what is cached of an image")
    delete.add_argument("name", metavar="NAME")
    gc = command("gc", _gc, "delete what was unused for longest")
    gc.add_argument("--max-size", metavar="SIZE", required=True, help="e.g. 10G; 0 deletes all")
    gc.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    export = command("export", _export, "write images into an archive for another host")
    export.add_argument("file", metavar="FILE.tar")
    export.add_argument("names", metavar="NAME", nargs="+")
    imported = command("import", _import, "put what is in an archive into the cache")
    imported.add_argument("file", metavar="FILE.tar")
    own = command("add", _add, "make an entry for an image of your own")
    own.add_argument("name", metavar="NAME")
    own.add_argument("--qcow", metavar="PATH", required=True, help="the disk image, a qcow2")
    own.add_argument("--arch", required=True)
    own.add_argument("--mem", metavar="SIZE", help="size of RAM; default 128M")
    own.add_argument("--prompt", metavar="REGEX", help="of the shell; default: boot it and look")
    own.add_argument("--arg", metavar="WORD", action="append", help="a word for QEMU: --arg=-M ...")
    own.add_argument("--login", metavar=("USER", "PASSWORD"), nargs=2)
    own.add_argument("--disk", metavar="IF", help="interface of the disk: ide, scsi, sd, virtio")
    own.add_argument("--libpanda", metavar="PATH", help="core library to boot it with")
    own.add_argument("--timeout", metavar="SECONDS", type=float, default=add.PROBE_TIMEOUT)
    run = command("run", _command_line, "print a command line that runs an image in QEMU")
    run.add_argument("name", metavar="NAME")
    return parser


def _complain(error: object) -> None:
    """One line on standard error."""
    print(f"pandalite.qcows: {' '.join(str(error).split())}", file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status: 0, 1 for an error, 2 for wrong usage."""
    words = list(arguments)
    parser = _parser()
    plain = [word for word in words if word != "--json"]
    if not plain or not (plain[0].startswith("-") or plain[0] in _commands(parser)):
        # Not a command: one image's name, or, as in PyPANDA, usage with all names.
        try:
            if len(plain) != 1:
                raise ImageError(f"{plain[0]!r} is no command" if plain else "no command is given")
            lookup.entry(plain[0])
        except ImageError as error:
            _complain(error)
            names = ", ".join(sorted(lookup.everything()[0]))
            print(f"{parser.format_usage()}images: {names}", file=sys.stderr)
            return 1
        words = ["run", *words]
    try:
        given = parser.parse_args(words)
    except SystemExit as end:
        return int(end.code or 0) if isinstance(end.code, (int, type(None))) else 2
    try:
        status: int = given.function(given)
        sys.stdout.flush()
        return status
    except SystemExit as end:
        return int(end.code or 0) if isinstance(end.code, (int, type(None))) else 2
    except PandaError as error:
        _complain(error)
        return 1
    except BrokenPipeError:
        sys.stdout = None
        return 1
    except OSError as error:
        _complain(f"{error.filename or ''}: {error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _commands(parser: argparse.ArgumentParser) -> set[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return set(action.choices)
    return set()
