"""Obtain and unpack the sources named in csrc/qemu/sources.toml."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from debian import Archive, ArchiveError
from project import CSRC, BuildError, cache_dir, digest, file_sha256, load_toml

TABLE = CSRC / "qemu" / "sources.toml"


@dataclass(frozen=True)
class Source:
    """One obtained source: its tarballs and what they are."""

    name: str
    version: str
    licence: str
    origin: str
    tarballs: tuple[Path, ...]
    """The upstream tarball first, then (if any) Debian's patches."""

    @property
    def key(self) -> str:
        """Changes when a byte of the source changes."""
        return digest(self.name, *(file_sha256(t) for t in self.tarballs))


def _version(tarball: Path) -> str:
    pattern = r"(?:[_-]|really)(\d[\d.]*\d)(?:\+ds[\d.]*|\+dfsg[\d.]*)?(?:\.orig)?\.tar\."
    found = re.search(pattern, tarball.name)
    return found.group(1) if found else "unknown"


def _given(name: str, package: str) -> tuple[Path, ...] | None:
    directory = os.environ.get("PANDALITE_SOURCES")
    if not directory:
        return None
    folder = Path(directory).expanduser()
    if not folder.is_dir():
        raise BuildError(f"PANDALITE_SOURCES={directory} is not a directory")
    found = sorted(
        f
        for n in dict.fromkeys((name, package))
        for f in folder.glob(f"{n}[-_][0-9]*.tar.*")
        if "unicode-data" not in f.name
    )
    orig = [f for f in found if ".debian.tar" not in f.name]
    return tuple(orig[-1:] + [f for f in found if ".debian.tar" in f.name][-1:]) if orig else None


def _from_debian(package: str, suite: str) -> tuple[Path, ...]:
    files = Archive(suite, "amd64", cache_dir()).source(package)
    orig = [f for f in files if re.search(r"\.orig\.tar\.\w+$", f.name)]
    patches = [f for f in files if ".debian.tar." in f.name]
    if not orig:
        raise ArchiveError(f"the mirror has no tarball of source package {package}")
    return (*orig, *patches)


def _from_cache(package: str, suite: str) -> tuple[Path, ...] | None:
    """What an earlier call fetched; spares the index download and the network."""
    folder = cache_dir() / "debian" / f"{suite}-amd64"
    orig = sorted(folder.glob(f"{package}_*.orig.tar.*"), key=lambda f: f.stat().st_mtime)
    orig = [f for f in orig if re.search(r"\.orig\.tar\.\w+$", f.name)]
    if not orig:
        return None
    newest = orig[-1]
    stem = newest.name.split(".orig.tar.")[0]
    return (newest, *sorted(folder.glob(f"{stem}-*.debian.tar.*"))[-1:])


def _from_upstream(name: str, url: str, sha256: str) -> tuple[Path, ...]:
    import requests

    file = cache_dir() / "upstream" / url.rsplit("/", 1)[1]
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        with requests.get(url, stream=True, timeout=60) as answer:
            answer.raise_for_status()
            with part.open("wb") as out:
                shutil.copyfileobj(answer.raw, out)
        part.rename(file)
    if file_sha256(file) != sha256:
        raise BuildError(f"{file} does not have the pinned checksum of {name}; delete it")
    return (file,)


def obtain(name: str) -> Source:
    """Find or fetch one source of the table."""
    table = load_toml(TABLE)
    entry = table[name]
    package, suite = entry["package"], table["suite"]
    tarballs = _given(name, package)
    origin = "given by the user"
    if tarballs is None:
        tarballs, origin = _from_cache(package, suite), f"Debian {suite} source package {package}"
    if tarballs is None:
        try:
            tarballs = _from_debian(package, suite)
        except ArchiveError as error:
            if "upstream" not in entry:
                raise BuildError(
                    f"cannot obtain the source of {name}: {error}\n"
                    f"Put its tarball into a directory and set PANDALITE_SOURCES to it."
                ) from error
            tarballs = _from_upstream(name, entry["upstream"], entry["sha256"])
            origin = entry["upstream"]
    version = _version(tarballs[0])
    series = entry.get("series")
    if series and not version.startswith(series + "."):
        raise BuildError(
            f"{tarballs[0]} is {name} {version}; csrc/qemu is written for {series}.x only"
        )
    return Source(name, version, entry["licence"], origin, tarballs)


def patch(tree: Path, patches: list[Path]) -> None:
    """Apply patches to a tree; one that does not apply (fuzz of two lines) is an error."""
    for file in patches:
        with file.open("rb") as text:
            done = subprocess.run(
                ["patch", "-p1", "--no-backup-if-mismatch", "--fuzz=2", "-s"],
                cwd=tree,
                stdin=text,
                capture_output=True,
                text=True,
            )
        if done.returncode:
            raise BuildError(f"{file} does not apply to {tree}:\n{done.stdout}{done.stderr}")


def unpack(source: Source, tree: Path) -> None:
    """Unpack a source to ``tree`` with Debian's patch series applied."""
    staging = tree.with_name(tree.name + ".unpack")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(tree, ignore_errors=True)
    staging.mkdir(parents=True)
    subprocess.run(["tar", "-xf", source.tarballs[0], "-C", staging], check=True)
    inner = [p for p in staging.iterdir() if p.is_dir()]
    if len(inner) != 1:
        raise BuildError(f"{source.tarballs[0]} does not hold exactly one directory")
    for tarball in source.tarballs[1:]:
        with tarfile.open(tarball) as archive:
            if "debian/patches/series" not in archive.getnames():
                continue
        # Not extractall(): its filter argument is missing in Debian 12's Python.
        subprocess.run(["tar", "-xf", tarball, "-C", staging, "debian/patches"], check=True)
        series = (staging / "debian/patches/series").read_text().splitlines()
        names = [line.split("#")[0].strip() for line in series]
        patch(inner[0], [staging / "debian/patches" / n.split()[0] for n in names if n])
    inner[0].rename(tree)
    shutil.rmtree(staging)
