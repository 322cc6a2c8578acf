"""Make the wheel, the source distribution, or the wheel twice.

    python tools/build_wheel.py [--output DIR] [--sdist] [--twice]

``--twice`` makes the wheel a second time: from a copy of this checkout's files in
another directory, with a build cache in another directory that has no more than
the downloads. Everything is compiled again. The two have to be equal byte for
byte.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from project import ROOT, BuildError, cache_dir, file_sha256

#: What of the build cache is a download. All else is made again.
DOWNLOADS = ("debian", "upstream", "guests")


def hatchling(tree: Path, target: str, output: Path, cache: Path | None = None) -> Path:
    """Have hatchling make a wheel or an sdist of a tree; returns the file."""
    with tempfile.TemporaryDirectory(prefix="pandalite-wheel-") as scratch:
        command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", scratch]
        env = {**os.environ}
        # An archive's times are hatchling's own fixed ones, whatever the clock says.
        env.pop("SOURCE_DATE_EPOCH", None)
        if cache is not None:
            env["PANDALITE_CACHE"] = str(cache)
        if subprocess.run(command, cwd=tree, env=env).returncode:
            raise BuildError(f"hatchling could not make the {target}; its message is above")
        (made,) = Path(scratch).iterdir()
        output.mkdir(parents=True, exist_ok=True)
        final = output / made.name
        part = output / f".{made.name}.{os.getpid()}"
        shutil.copyfile(made, part)
        part.rename(final)
    return final


def copy_tree(target: Path) -> None:
    """Copy what git has, and what it would take, of this checkout to another place."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in done.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def seed_cache(target: Path) -> None:
    """Make a build cache that has downloads only."""
    for name in DOWNLOADS:
        if (cache_dir() / name).is_dir():
            shutil.copytree(cache_dir() / name, target / name, symlinks=True)


def difference(first: Path, second: Path) -> list[str]:
    """In what two wheels differ; empty if they are the same bytes."""
    if file_sha256(first) == file_sha256(second):
        return []
    found = []
    with zipfile.ZipFile(first) as a, zipfile.ZipFile(second) as b:
        names = sorted({*a.namelist(), *b.namelist()})
        for name in names:
            if name not in a.namelist() or name not in b.namelist():
                found.append(f"{name}: only in one")
            elif a.read(name) != b.read(name):
                found.append(f"{name}: other bytes")
        if not found:
            found.append("the same files, packed in another way")
    return found


def twice(wheel: Path) -> None:
    """Build the wheel again from nothing, elsewhere; BuildError if it differs."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pandalite-again-") as scratch:
        tree, cache = Path(scratch) / "elsewhere", Path(scratch) / "cache"
        copy_tree(tree)
        seed_cache(cache)
        again = hatchling(tree, "wheel", Path(scratch) / "out", cache)
        found = difference(wheel, again)
        if found:
            kept = wheel.with_suffix(".second")
            shutil.copyfile(again, kept)
            raise BuildError(f"the second wheel, {kept}, differs:\n  " + "\n  ".join(found))
    took = time.monotonic() - start
    print(f"built again from sources in {took:.0f} s: equal, SHA-256 {file_sha256(wheel)}")


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="default: dist")
    parser.add_argument("--sdist", action="store_true", help="make the source distribution")
    parser.add_argument("--twice", action="store_true", help="make the wheel twice and compare")
    given = parser.parse_args()
    try:
        made = hatchling(ROOT, "sdist" if given.sdist else "wheel", given.output)
        print(f"{made} ({made.stat().st_size / 1e6:.1f} MB)", flush=True)
        if given.twice:
            twice(made)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
