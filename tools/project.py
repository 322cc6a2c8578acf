"""Where things are: the checkout, the build cache, the data tables."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same module under its name before it joined the standard library
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
LIB = ROOT / "pandalite" / "_lib"

#: Host architectures there are core libraries and wheels for.
HOSTS = ("x86_64", "aarch64")


class BuildError(Exception):
    """A build step failed; the message names the step and the log."""


def native() -> str:
    """The architecture of this machine."""
    return platform.machine()


def host() -> str:
    """The host architecture to build for: ``PANDALITE_HOST``, else that of this machine."""
    machine = os.environ.get("PANDALITE_HOST") or native()
    if sys.platform != "linux" or machine not in HOSTS:
        raise BuildError(
            f"pandalite is built on Linux for {', '.join(HOSTS)}; this is {sys.platform} {machine}"
        )
    return machine


def library_dir(machine: str) -> Path:
    """Where the core libraries of a host architecture are put.

    Those that this machine can load are where the checkout's package looks for them.
    """
    return LIB if machine == native() else ROOT / "build" / f"lib-{machine}"


def cache_dir() -> Path:
    """The build cache: ``PANDALITE_CACHE``, else the user's cache directory."""
    given = os.environ.get("PANDALITE_CACHE")
    if given:
        return Path(given).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pandalite" / "build"


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file."""
    with path.open("rb") as file:
        return tomllib.load(file)


def digest(*parts: str | bytes | Path) -> str:
    """A short name for content: strings and the bytes of files, in order."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            data = part.name.encode() + b"\0" + part.read_bytes()
        elif isinstance(part, str):
            data = part.encode()
        else:
            data = part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()[:16]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, so that two builds do not collide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            total.update(block)
    return total.hexdigest()


def jobs() -> int:
    """How many compilers to run at once: ``PANDALITE_JOBS``, else the cores."""
    return int(os.environ.get("PANDALITE_JOBS") or len(os.sched_getaffinity(0)))
