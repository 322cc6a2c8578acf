"""Collect firmware from Debian's packages into pandalite/_lib/firmware/.

What is fetched stays in the build cache; the manifest names for every file its
package, source package, version, licence and SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from debian import Archive, ArchiveError
from project import CSRC, LIB, BuildError, cache_dir, digest, load_toml, locked

TABLE = CSRC / "qemu" / "firmware.toml"
RECIPE = "2"  # to be raised when collect() changes


def _field(deb: Path, name: str) -> str:
    done = subprocess.run(["dpkg-deb", "-f", deb, name], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _collect_package(deb: Path, entry: dict[str, object], out: Path) -> list[dict[str, str]]:
    files = entry["files"]
    names = entry.get("names", {})
    assert isinstance(files, list) and isinstance(names, dict)
    package = _field(deb, "Package")
    source = _field(deb, "Source").split()
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["dpkg-deb", "-x", deb, scratch], check=True)
        for name in files:
            origin = Path(scratch) / name
            if not origin.is_file():
                raise BuildError(f"package {package} has no {name} any more: see {TABLE}")
            made = out / names.get(origin.name, origin.name)
            shutil.copyfile(origin, made)
            records.append(
                {
                    "file": made.name,
                    "package": package,
                    "source": source[0] if source else package,
                    "version": _field(deb, "Version"),
                    "licence": str(entry["licence"]),
                    "sha256": hashlib.sha256(made.read_bytes()).hexdigest(),
                }
            )
        notice = Path(scratch) / "usr/share/doc" / package / "copyright"
        if not notice.is_file():
            raise BuildError(f"package {package} has no copyright file any more")
        shutil.copyfile(notice, out / f"LICENSE.{package}")
    return records


def collect() -> Path:
    """Collect all firmware; returns the directory."""
    table = load_toml(TABLE)
    suite = table.pop("suite")
    made = cache_dir() / f"firmware-{digest(RECIPE, TABLE)}"
    with locked(made.with_suffix(".lock")):
        if not (made / "manifest.json").exists():
            part = made.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            archive = Archive(suite, "amd64", cache_dir())
            records = []
            for package, entry in table.items():
                records += _collect_package(archive.binary(package), entry, part)
            records.sort(key=lambda r: r["file"])
            (part / "manifest.json").write_text(json.dumps(records, indent=1) + "\n")
            shutil.rmtree(made, ignore_errors=True)
            part.rename(made)
    target = LIB / "firmware"
    LIB.mkdir(exist_ok=True)
    shutil.copytree(made, target, dirs_exist_ok=True)
    return target


if __name__ == "__main__":
    try:
        folder = collect()
    except (BuildError, ArchiveError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"  firmware: {len(list(folder.iterdir()))} files in {folder}")
