"""Licence texts and the licence of the whole: what a wheel has to carry.

    python tools/licences.py [--check]

Copies the licence texts of all that is compiled into a core library from the
sources to ``licenses/``, which is in git; ``--check`` only compares. Firmware
and guests carry the copyright files of Debian's packages. Those name the usual
licences by their place on a Debian system: ``licenses/common/`` has these.

The expression in pyproject.toml has to be what the tables say.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import sources
from debian import ArchiveError
from project import LIB, ROOT, BuildError, load_toml, native
from toolchain import REQUIREMENTS, toolchain

TEXTS = ROOT / "licenses"
COMMON = TEXTS / "common"
GUEST_TABLE = ROOT / "tools" / "guest_licences.toml"

#: What the compiler adds to each library: its run-time part, and the part of
#: glibc that is always linked statically. Directory in ``licenses/`` -> licence,
#: the file in the compiler's package.
COMPILER = {
    "zig": ("MIT", "LICENSE"),
    "glibc": ("LGPL-2.1-or-later", "lib/libc/glibc/LICENSES"),
}


def compiler_version() -> str:
    """Version of the compiler, from the table it is installed by."""
    found = re.search(r"^ziglang==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    assert found
    return found.group(1)


def compiled() -> dict[str, str]:
    """Licence of each part of a core library."""
    table = load_toml(sources.TABLE)
    parts = {name: str(e["licence"]) for name, e in table.items() if isinstance(e, dict)}
    return {**parts, **{name: licence for name, (licence, _) in COMPILER.items()}}


def of_guest_package(source: str) -> str:
    """Licence of what a guest takes from a source package."""
    table = load_toml(GUEST_TABLE)
    if source not in table:
        raise BuildError(f"{GUEST_TABLE} does not say under what licence {source} is")
    return str(table[source])


def terms(expression: str) -> list[str]:
    """The licences one has to keep: of alternatives, the first."""
    parts = re.split(r" AND ", expression.replace("(", "").replace(")", ""))
    return [part.split(" OR ")[0].strip() for part in parts]


def expression(guests: list[Path]) -> str:
    """The licence of a wheel: our own, then those of all that it has, by name."""
    found: set[str] = set()
    for licence in compiled().values():
        found.update(terms(licence))
    firmware = load_toml(ROOT / "csrc" / "qemu" / "firmware.toml")
    for entry in firmware.values():
        if isinstance(entry, dict):
            found.update(terms(str(entry["licence"])))
    found.update(guest_terms(guests))
    return _joined(found)


def guest_terms(guests: list[Path]) -> set[str]:
    """The licences of what is in some guests."""
    found: set[str] = set()
    for guest in guests:
        for package in json.loads((guest / "manifest.json").read_text())["packages"]:
            found.update(terms(of_guest_package(package["source"])))
    return found


def _joined(found: set[str]) -> str:
    own = "GPL-2.0-only"
    return " AND ".join([own, *sorted(found - {own})])


def declared() -> str:
    """The expression in pyproject.toml."""
    return str(load_toml(ROOT / "pyproject.toml")["project"]["license"])


def common_names(text: str) -> set[str]:
    """The usual licences that a copyright file only names."""
    found = re.findall(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9])", text)
    # Without a version: the newest, as the links on a Debian system have it.
    newest = {"GPL": "GPL-3", "LGPL": "LGPL-3", "GFDL": "GFDL-1.3"}
    # There is no such file; what means it means the newest.
    newest["GFDL-3"] = "GFDL-1.3"
    return {newest.get(name, name) for name in found}


def _from_tarball(tarball: Path, names: list[str]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(tarball) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            if name in names and member.isfile():
                stream = archive.extractfile(member)
                assert stream is not None
                found[name] = stream.read()
                if len(found) == len(names):
                    break
    missing = sorted(set(names) - set(found))
    if missing:
        raise BuildError(f"{tarball.name} has no {', '.join(missing)} any more: {sources.TABLE}")
    return found


@functools.lru_cache(maxsize=1)
def wanted() -> dict[Path, bytes]:
    """The licence texts of what is compiled in, by their place in ``licenses/``."""
    texts: dict[Path, bytes] = {}
    for name, entry in load_toml(sources.TABLE).items():
        if isinstance(entry, dict):
            tarball = sources.obtain(name).tarballs[0]
            for file, data in _from_tarball(tarball, entry["notices"]).items():
                texts[TEXTS / name / Path(file).name] = data
    zig = next(toolchain(native()).venv.glob("lib/python*/site-packages/ziglang"))
    for name, (_, file) in COMPILER.items():
        texts[TEXTS / name / Path(file).name] = (zig / file).read_bytes()
    return texts


def problems() -> list[str]:
    """What is not as it must be; needs the built firmware and guests."""
    found = []
    texts = wanted()
    for path, data in texts.items():
        if not path.is_file():
            found.append(f"{path.relative_to(ROOT)} is missing")
        elif path.read_bytes() != data:
            found.append(f"{path.relative_to(ROOT)} is not the text that the source has")
    for path in sorted(TEXTS.rglob("*")):
        if path.is_file() and path not in texts and path.parent != COMMON:
            found.append(f"{path.relative_to(ROOT)} belongs to no source")
    files = [*LIB.glob("firmware/LICENSE.*"), *LIB.glob("guests/*/copyright/*")]
    for file in sorted(files):
        for name in sorted(common_names(file.read_text(errors="replace"))):
            if not (COMMON / name).is_file():
                found.append(f"{file.relative_to(ROOT)} names {name}: licenses/common lacks it")
    guest = LIB / "guests" / "x86_64"
    if (guest / "manifest.json").is_file() and declared() != expression([guest]):
        found.append(f"license in pyproject.toml should be: {expression([guest])}")
    return found


def write() -> None:
    """Copy the texts; those of the usual licences from this Debian system."""
    for path, data in wanted().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    system = Path("/usr/share/common-licenses")
    COMMON.mkdir(exist_ok=True)
    for file in sorted(system.iterdir()):
        if not file.is_symlink() and file.name not in ("BSD", "MPL-2.0"):
            (COMMON / file.name).write_bytes(file.read_bytes())


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    given = parser.parse_args()
    try:
        if not given.check:
            write()
        found = problems()
    except (BuildError, ArchiveError, OSError, subprocess.CalledProcessError) as error:
        found = [str(error)]
    for line in found:
        print(f"licences: {line}", file=sys.stderr)
    if found and given.check:
        print("licences: `python tools/licences.py` copies the texts", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
