"""What goes into a wheel: the built files, each because a manifest lists it.

Makes what is missing first. Shared by the build hook, the SBOM and the checks,
so that they cannot disagree.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import build_core
import build_guest
import build_qemu
import collect_firmware
import host_packages
from project import LIB, ROOT, BuildError, cache_dir, host, library_dir, native
from toolchain import GLIBC, toolchain

#: The guest that travels in the package; the others are in the companion package,
#: tools/build_guests_package.py.
GUEST = "x86_64"

#: What the build tools of csrc/qemu/build-requirements.txt want.
BUILD_PYTHON = (3, 10)


def platform_tag(machine: str) -> str:
    """The wheel's platform tag: what the compiler is told to target."""
    return f"manylinux_{GLIBC.replace('.', '_')}_{machine}"


def tag(machine: str) -> str:
    """The wheel's tag: any Python 3, as nothing in it knows Python's ABI."""
    return f"py3-none-{platform_tag(machine)}"


def libraries() -> list[str]:
    """Names of the core libraries' files."""
    return [f"libpanda-{arch}.so" for arch in build_qemu.arches()]


def make() -> float:
    """Build libraries, firmware and guest, as far as the build cache lacks them.

    Returns the seconds it took.
    """
    machine = host()
    if sys.version_info < BUILD_PYTHON:
        raise BuildError(
            "building needs Python 3.10 or newer, which meson wants; a wheel built with it "
            "installs in this Python too"
        )
    start = time.monotonic()
    if host_packages.main():
        raise BuildError("the build needs Debian packages that are missing, see above")
    print(
        "pandalite: building what the build cache does not have; from nothing that takes "
        "about 10 minutes on two cores",
        flush=True,
    )
    names = list(build_qemu.arches())
    qemu = build_qemu.build(toolchain(machine), names)
    for name in names:
        core = build_core.CoreBuild(qemu, name)
        core.build()
        if machine != native() and core.layouts(check=True):
            raise BuildError(f"the register state of {name} has another layout on {machine}")
    collect_firmware.collect()
    build_guest.publish(build_guest.ensure(GUEST, cache_dir()), LIB / "guests" / GUEST)
    took = time.monotonic() - start
    print(f"pandalite: built in {took:.0f} s", flush=True)
    return took


def firmware_manifest() -> list[dict[str, str]]:
    """What is known of each firmware file."""
    records: list[dict[str, str]] = json.loads((LIB / "firmware" / "manifest.json").read_text())
    return records


def guest_manifest(folder: Path) -> dict[str, Any]:
    """What is known of a guest and its files."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def firmware_files(records: list[dict[str, str]]) -> list[str]:
    """Names of all files of the firmware: blobs, copyright files, manifest."""
    blobs = {record["file"] for record in records}
    notices = {f"LICENSE.{record['package']}" for record in records}
    return sorted(blobs | notices | {"manifest.json"})


def built_files() -> dict[Path, str]:
    """The built files of a wheel and their places in it.

    Nothing else that may lie in ``pandalite/_lib`` gets in.
    """
    cores = [library_dir(host()) / name for name in libraries()]
    found = [LIB / "firmware" / name for name in firmware_files(firmware_manifest())]
    guest = LIB / "guests" / GUEST
    found += [guest / name for name in guest_manifest(guest)["files"]]
    found.append(guest / "manifest.json")
    missing = [str(path) for path in [*cores, *found] if not path.is_file()]
    if missing:
        raise BuildError(f"not built: {', '.join(missing)}")
    places = {path: path.relative_to(ROOT).as_posix() for path in found}
    # For those who compile plugins.
    include = ROOT / "csrc" / "include"
    for path in (include / "panda").rglob("*.h"):
        places[path] = f"pandalite/_include/{path.relative_to(include).as_posix()}"
    places.update({path: (LIB / path.name).relative_to(ROOT).as_posix() for path in cores})
    return dict(sorted(places.items(), key=lambda item: item[1]))


def clean_environment() -> None:
    """Drop what a build frontend set for its own Python: it is not meant for the build's."""
    for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE"):
        os.environ.pop(name, None)
