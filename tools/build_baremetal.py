#!/usr/bin/env python3
"""Build the bare-metal self-test guest of each architecture.

    python tools/build_baremetal.py [ARCH...] [--output DIR] [--cache DIR]

Makes ``build/baremetal/ARCH.elf`` from the sources in ``tools/baremetal/`` with
the assemblers and linkers of Debian's cross binutils packages. The packages are
unpacked into the build cache, not installed. docs/baremetal.md says what the
guests do and how to run them.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from debian import Archive, ArchiveError
from project import ROOT, BuildError, cache_dir, digest, load_toml, locked

SOURCES = ROOT / "tools" / "baremetal"
TABLE = SOURCES / "guests.toml"
ARCHES = ROOT / "csrc" / "qemu" / "arches.toml"
OUTPUT = ROOT / "build" / "baremetal"

#: Timer interrupts a guest waits for, and system calls of its user program.
TICKS = 10
CALLS = 200

#: Debian's names of the machines the cross tools may run on.
DEBIAN_HOSTS = {"x86_64": "amd64", "aarch64": "arm64"}


def architectures() -> list[str]:
    """The architectures that have a self-test guest."""
    return list(load_toml(TABLE)["guests"])


def machine_words(arch: str, elf: Path) -> list[str]:
    """QEMU's options to run a guest; where its serial port leads to is left open."""
    machine: list[str] = _guest(arch)["machine"]
    return [*machine, "-nodefaults", "-display", "none", "-kernel", str(elf)]


def _guest(arch: str) -> dict[str, Any]:
    guests: dict[str, dict[str, Any]] = load_toml(TABLE)["guests"]
    if arch not in guests:
        raise BuildError(f"no self-test guest for {arch!r}; there is: {', '.join(guests)}")
    return guests[arch]


# What the guest is told


def checksum() -> int:
    """What the branch test must arrive at; the constants are those of common.inc."""
    full = 0xFFFFFFFF
    value = 0x1234
    for count in range(1, 1001):
        value = (value + count) & full if count & 1 else value ^ count
        if count & 3 == 0:
            value = (value + (value << 5)) & full
        elif count & 3 == 1:
            value ^= full
        elif count & 3 == 2:
            value = (value - 7) & full
        else:
            value ^= value >> 3
        if value < 0x9E3779B9:
            value = (value + 0x3039) & full
        if (value ^ 1 << 31) - (1 << 31) < -100000:
            value ^= 0x55
    return value


def configuration(arch: str) -> str:
    """The text of config.inc."""
    properties = load_toml(ARCHES)[arch]
    values = {
        "BITS": properties["bits"],
        "BIG": int(properties["endian"] == "big"),
        "TICKS": TICKS,
        "CALLS": CALLS,
        "CHECKSUM": f"{checksum():#x}",
    }
    lines = [f".set {name}, {value}\n" for name, value in values.items()]
    return "".join(lines) + f'.macro arch_name\n.ascii "{arch}"\n.endm\n'


# Assembler and linker


@functools.cache
def _archive(suite: str, host: str, cache: Path) -> Archive:
    """The archive, whose index is fetched once for all packages."""
    return Archive(suite, host, cache)


def tools(package: str, cache: Path) -> Path:
    """A cross binutils package and its libraries, unpacked in the cache."""
    table = load_toml(TABLE)
    suite, packages = table["suite"], [package, *table["libraries"]]
    machine = platform.machine()
    if machine not in DEBIAN_HOSTS:
        raise BuildError(f"no cross binutils for a {machine} host, only for {list(DEBIAN_HOSTS)}")
    host = DEBIAN_HOSTS[machine]
    folder = cache / "baremetal" / f"{package}-{digest(suite, host, *packages)}"
    stamp = folder / ".complete"
    with locked(cache / "baremetal" / "tools.lock"):
        if not stamp.exists():
            archive = _archive(suite, host, cache)
            archive.show_all(packages)  # one call of apt for all
            for name in packages:
                _run(["dpkg-deb", "-x", archive.binary(name), folder])
            stamp.touch()
    return folder


def _environment(folder: Path) -> dict[str, str]:
    libraries = [*folder.glob("usr/lib/*-linux-gnu"), *folder.glob("lib/*-linux-gnu")]
    return {
        "PATH": os.environ.get("PATH", ""),
        "LD_LIBRARY_PATH": ":".join(sorted(str(p) for p in libraries)),
        "LC_ALL": "C",
    }


def _run(command: Iterable[str | Path], env: dict[str, str] | None = None) -> None:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, env=env, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BuildError(f"{words[0]} was not found: this step needs a Debian system") from error
    if done.returncode:
        raise BuildError(f"{' '.join(words)} failed:\n{(done.stdout + done.stderr).strip()}")


# The guest


def ensure(arch: str, cache: Path | None = None) -> Path:
    """The self-test guest of an architecture in the cache, built if it has to be."""
    guest = _guest(arch)
    cache = cache or cache_dir()
    suite: str = load_toml(TABLE)["suite"]
    files = [Path(__file__), SOURCES / "common.inc", SOURCES / "link.ld", SOURCES / guest["source"]]
    bits = load_toml(ARCHES)[arch]["bits"]
    key = digest(suite, repr(sorted(guest.items())), configuration(arch), *files)
    done = cache / "baremetal" / f"{arch}-{key}.elf"
    if done.exists():
        return done
    folder = tools(guest["package"], cache)
    program = f"{folder}/usr/bin/{guest['prefix']}"
    env = _environment(folder)
    with tempfile.TemporaryDirectory(dir=done.parent, prefix=f".{arch}-") as name:
        scratch = Path(name)
        (scratch / "config.inc").write_text(configuration(arch))
        _run(
            [
                *(f"{program}-as", *guest["as"], "--fatal-warnings", "-I", scratch),
                *("-I", SOURCES, "-o", scratch / "guest.o", SOURCES / guest["source"]),
            ],
            env,
        )
        _run(
            [
                *(f"{program}-ld", *guest["ld"], "-static", "-z", "max-page-size=4096"),
                *("--no-warn-rwx-segments", f"--defsym=BASE={guest['base']:#x}"),
                f"--defsym=USER_MASK={guest.get('user_mask', (1 << bits) - 1):#x}",
                *("-T", SOURCES / "link.ld", "-o", scratch / "guest.elf", scratch / "guest.o"),
            ],
            env,
        )
        (scratch / "guest.elf").chmod(0o644)
        (scratch / "guest.elf").replace(done)
    return done


def build(arch: str, output: Path = OUTPUT, cache: Path | None = None) -> Path:
    """The self-test guest of an architecture where it is used; returns the ELF file."""
    made = ensure(arch, cache)
    file = output / f"{arch}.elf"
    if not file.exists() or file.read_bytes() != made.read_bytes():
        output.mkdir(parents=True, exist_ok=True)
        partial = output / f".{arch}.{os.getpid()}"
        partial.write_bytes(made.read_bytes())
        partial.replace(file)
    return file


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("arch", nargs="*", help=f"default: all of {', '.join(architectures())}")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: build/baremetal")
    parser.add_argument("--cache", type=Path, help="default: $PANDALITE_CACHE or the user's cache")
    given = parser.parse_args(arguments)
    for arch in given.arch or architectures():
        begin = time.monotonic()
        try:
            file = build(arch, given.output, given.cache)
        except (ArchiveError, BuildError, OSError) as error:
            print(f"build_baremetal: {arch}: {error}", file=sys.stderr)
            return 1
        print(f"self-test guest {arch}: {file} ({time.monotonic() - begin:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
