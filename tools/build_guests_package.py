"""Make the companion package pandalite-guests: the tiny guests as a wheel.

    python tools/build_guests_package.py [ARCH ...] [--output DIR]

For hosts that reach a package mirror and nothing else. All guests but that of
x86_64, which is in pandalite itself, or those named. Guests that are not built
are built. The wheel has no code: pandalite looks into it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import build_core
import build_guest
import build_wheel
import contents
import licences
import sbom
from project import LIB, ROOT, BuildError

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "pandalite-guests"
version = "{version}"
description = "Tiny Linux guests for pandalite"
requires-python = ">=3.9"
license = "{licence}"
license-files = ["licenses/**/*"]
readme = "README.md"

[tool.hatch.build.targets.wheel]
packages = ["pandalite_guests"]
sbom-files = ["{bill}"]
"""

_BILL = "pandalite-guests.cdx.json"

_README = """\
Tiny Linux guests for [pandalite](https://pypi.org/project/pandalite/): {names}.

Built from Debian's packages by pandalite's `tools/build_guest.py`. Each guest's
`manifest.json` names the packages, with versions, licences and checksums, and
`copyright/` has their licences. The source of each package is in Debian's archive.
"""


def make(names: list[str], output: Path) -> Path:
    """Build the wheel of some guests; returns its path."""
    if build_guest.main(names):
        raise BuildError("not all guests could be built")
    version = build_core.version()
    with tempfile.TemporaryDirectory(prefix="pandalite-guests-") as scratch:
        tree = Path(scratch)
        package = tree / "pandalite_guests"
        guests = [package / "guests" / name for name in names]
        components = []
        for name, guest in zip(names, guests):
            manifest = contents.guest_manifest(LIB / "guests" / name)
            # Nothing else that may lie there.
            for file in [*manifest["files"], "manifest.json"]:
                (guest / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(LIB / "guests" / name / file, guest / file)
            components += sbom.guest(manifest, f"pandalite_guests/guests/{name}")
        licence = " AND ".join(sorted(licences.guest_terms(guests)))
        (package / "__init__.py").write_text('"""Tiny Linux guests for pandalite."""\n')
        shutil.copytree(licences.COMMON, tree / "licenses" / "common")
        sbom.write(tree / _BILL, sbom.document("pandalite-guests", licence, components))
        (tree / "pyproject.toml").write_text(
            _PROJECT.format(version=version, licence=licence, bill=_BILL)
        )
        (tree / "README.md").write_text(_README.format(names=", ".join(names)))
        return build_wheel.hatchling(tree, "wheel", output)


def main() -> int:
    """The command; returns the exit status."""
    known = [name for name in build_guest.architectures() if name != contents.GUEST]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("arch", nargs="*", help=f"of: {', '.join(known)}")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="default: dist")
    given = parser.parse_args()
    try:
        wheel = make(given.arch or known, given.output)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{wheel} ({wheel.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
