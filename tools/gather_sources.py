"""Gather the complete corresponding source of a release: `make sources`.

    python tools/gather_sources.py [--output DIR] [--only PART ...] [--guests ARCH ...]

Writes ``pandalite-<version>-sources.tar``: our source distribution, with patches,
recipes and build scripts; the sources of all that is compiled into the core
libraries; Debian's source packages of the firmware and of what is in the guest, in
the versions that the wheel has. To be published with the wheels. ``--guests`` adds
those of guests in the companion package. Equal contents give equal bytes.

A file that the mirror does not have any more is an error, which names it: it is
then to be put into the directory PANDALITE_SOURCES.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import build_core
import build_wheel
import contents
import licences
import sources
from debian import Archive, ArchiveError
from project import CSRC, LIB, ROOT, BuildError, cache_dir, file_sha256, load_toml

PARTS = ("pandalite", "compiled", "firmware", "guest")

#: 2020-02-02, as in the wheels.
_TIME = 1580601600

_README = """\
The complete source of pandalite {version}, for which its wheels are built.

pandalite/   our own: `make wheel` in it builds the wheel (docs/building.md)
compiled/    what is compiled into the core libraries; set PANDALITE_SOURCES to this
             directory, and the build takes it from here
firmware/    Debian's source packages of the firmware; that of qemu is in compiled/
guest/       Debian's source packages of what the guests are made of

The compiler, zig {zig} from PyPI, adds its run-time part (MIT) and glibc's startup
code to each library; their source is in the compiler's package.
SHA256SUMS has the checksums, sources.json says which file belongs to what.
"""


def own() -> Iterator[tuple[str, Path]]:
    """Our source distribution."""
    yield "pandalite", build_wheel.hatchling(ROOT, "sdist", ROOT / "build" / "sdist")


def compiled() -> Iterator[tuple[str, Path]]:
    """The tarballs of what is compiled."""
    for name in licences.compiled():
        if name in licences.COMPILER:
            continue
        for tarball in sources.obtain(name).tarballs:
            yield "compiled", tarball
            # What Debian's patches were applied by, and its signature, if it is there.
            stem = tarball.name.split(".debian.tar.")[0]
            if ".debian.tar." in tarball.name and (tarball.parent / f"{stem}.dsc").exists():
                yield "compiled", tarball.parent / f"{stem}.dsc"


def source_version(binary: str) -> str:
    """The version of the source package of a binary package, rebuilds not counted."""
    return re.sub(r"\+b\d+$", "", binary)


def wanted(guests: list[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Part and suite -> source package -> version, of firmware and guests."""
    suite = load_toml(CSRC / "qemu" / "firmware.toml")["suite"]
    firmware = {r["source"]: source_version(r["version"]) for r in contents.firmware_manifest()}
    found = {("firmware", suite): firmware}
    for name in guests:
        manifest = contents.guest_manifest(LIB / "guests" / name)
        packages = found.setdefault(("guest", manifest["suite"]), {})
        for package in manifest["packages"]:
            packages[package["source"]] = package["source_version"]
            packages.update(built_using(package))
    return found


def built_using(package: dict[str, object]) -> dict[str, str]:
    """The sources that went into a package besides its own, for instance glibc's."""
    text = str(package.get("built_using") or "")
    return dict(re.findall(r"([a-z0-9][a-z0-9+.-]+) \(= ([^)]+)\)", text))


def packages(
    part: str, suite: str, table: dict[str, str], missing: list[str]
) -> Iterator[tuple[str, Path]]:
    """The files of Debian's source packages; names of those that are not to be had."""
    archive = Archive(suite, "amd64", cache_dir())
    for name, version in sorted(table.items()):
        try:
            names = archive.source_names(f"{name}={version}")
        except ArchiveError as error:
            print(f"  {str(error).splitlines()[-1]}", file=sys.stderr)
            # What it would be called.
            names = [f"{name}_{re.sub('^[0-9]+:', '', version)}.dsc"]
        with contextlib.suppress(ArchiveError):  # not even one file: told below
            archive.source(f"{name}={version}")
        for file in sorted(names):
            found = archive.downloads / file
            if found.is_file():
                yield part, found
            elif given := _given(file):
                yield part, given
            else:
                missing.append(file)


def _given(name: str) -> Path | None:
    folder = os.environ.get("PANDALITE_SOURCES")
    file = Path(folder).expanduser() / name if folder else None
    return file if file is not None and file.is_file() else None


def gather(parts: list[str], guests: list[str]) -> tuple[dict[str, Path], list[str]]:
    """The files by their names in the archive, and the names of those not to be had."""
    found: dict[str, Path] = {}
    missing: list[str] = []
    if "pandalite" in parts:
        found.update({f"{part}/{file.name}": file for part, file in own()})
    if "compiled" in parts:
        found.update({f"{part}/{file.name}": file for part, file in compiled()})
    for (part, suite), table in wanted(guests).items():
        if part in parts:
            files = packages(part, suite, table, missing)
            # QEMU's source is that of some of its firmware too: once is enough.
            new = {f"{p}/{file.name}": file for p, file in files}
            have = {file.name for file in found.values()}
            found.update({name: file for name, file in new.items() if file.name not in have})
    return found, missing


def write(target: Path, files: dict[str, Path], missing: list[str]) -> None:
    """Write the archive; everything in it by name, with the same time."""
    version = build_core.version()
    sums = {name: file_sha256(path) for name, path in sorted(files.items())}
    texts = {
        "README": _README.format(version=version, zig=licences.compiler_version()),
        "SHA256SUMS": "".join(f"{total}  {name}\n" for name, total in sums.items()),
        "sources.json": json.dumps(
            {name: {"sha256": sums[name], "size": files[name].stat().st_size} for name in sums},
            indent=1,
        ),
    }
    if missing:
        texts["MISSING"] = "".join(f"{name}\n" for name in missing)
    top = f"pandalite-{version}-sources"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, text in texts.items():
            data = text.encode()
            tar.addfile(_info(f"{top}/{name}", len(data)), io.BytesIO(data))
        for name in sums:
            with files[name].open("rb") as file:
                tar.addfile(_info(f"{top}/{name}", files[name].stat().st_size), file)
    part.rename(target)


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, _TIME, 0o644
    return info


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="default: dist")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--guests", nargs="+", metavar="ARCH", default=[contents.GUEST])
    parser.add_argument(
        "--incomplete", action="store_true", help="leave out what is missing, and list it"
    )
    given = parser.parse_args(arguments)
    target = given.output / f"pandalite-{build_core.version()}-sources.tar"
    try:
        if given.only == list(PARTS):
            contents.make()
        files, missing = gather(given.only, sorted({contents.GUEST, *given.guests}))
        if missing and not given.incomplete:
            raise BuildError(
                f"the mirror does not have {', '.join(missing)}: put them into a directory and "
                "set PANDALITE_SOURCES to it (--incomplete leaves them out, not for a release)"
            )
        write(target, files, missing)
    except (BuildError, ArchiveError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{target} ({target.stat().st_size / 1e6:.0f} MB, {len(files)} files)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
