"""Try the wheel for aarch64 on another machine, in emulated systems.

    python tools/try_aarch64.py [--wheel FILE] [--suite SUITE ...] [--guest NAME ...]
                                [--tests] [--only smoke|guests|tests]

- arm64 Pythons, Debian's, with all they need, unpacked from packages: no root, no
  chroot. They run under QEMU's user-mode emulator, Debian's too, which is unpacked
  as well: nothing is installed on this machine.
- In each, pip installs the wheel from files (its tag has to suit an aarch64 system of
  that glibc), the doctor is asked, all core libraries are loaded, and a Linux guest is
  booted and used.
- In the first, further tiny guests are booted, from the companion package.
- With ``--tests`` a part of the test suite runs there: machines without devices and
  the self-test guests, so code for every guest architecture is generated.

Everything is emulated twice, so no time says anything about a real machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import build_baremetal
import build_guests_package
import try_wheel
from debian import Archive, ArchiveError
from project import ROOT, BuildError, cache_dir, digest, locked, native

MACHINE = "aarch64"
TOOLS = ROOT / "tools"

#: Debian suite -> packages. The oldest with a Python that is new enough, and a new one.
SUITES = {
    # pip needs distutils there, which Debian has in a package of its own.
    "bullseye": ["python3", "python3-distutils"],
    "trixie": ["python3"],
}
#: The suite of the emulator.
EMULATOR_SUITE = "trixie"

#: Tiny guests that are booted besides that of the wheel.
GUESTS = ("aarch64",)

#: What of the suite is run: those of every architecture that need no Linux guest. Each is
#: in a process of its own, whose start takes some ten seconds.
TESTS = {
    "test_bare_machine.py": ("test_program", "test_faults", "test_x86_modes"),
    "test_baremetal.py": ("test_self_test",),
    "test_streams.py": ("test_same_events", "test_calls"),
}
#: The packages they need: without an ABI, and, as pip looks at the Python it runs in,
#: with what an older one needs.
TEST_PACKAGES = ("pytest", "pyelftools", "exceptiongroup", "tomli", "typing_extensions")

#: Seconds a step may take. Ten times what they take here.
PATIENCE = 3600

RECIPE = "1"  # to be raised when a system is put together in another way


# Systems


def emulator() -> Path:
    """QEMU's user-mode emulator, unpacked in the build cache."""
    deb = Archive(EMULATOR_SUITE, "amd64", cache_dir()).binary("qemu-user")
    folder = cache_dir() / "roots" / f"qemu-user-{digest(RECIPE, deb.name)}"
    with locked(folder.with_suffix(".lock")):
        if not (folder / ".complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try_wheel.run(["dpkg-deb", "-x", deb, folder])
            (folder / ".complete").touch()
    return folder / "usr/bin" / f"qemu-{MACHINE}"


def system(suite: str) -> Path:
    """Debian's Python for arm64 with what it depends on; returns the directory."""
    archive = Archive(suite, "arm64", cache_dir())
    debs = archive.binaries(archive.closure(SUITES[suite]))
    qemu = emulator()
    key = digest(RECIPE, str(qemu), *sorted(deb.name for deb in debs.values()))
    root = cache_dir() / "roots" / f"arm64-{suite}-{key}"
    with locked(root.with_suffix(".lock")):
        if not (root / ".complete").exists():
            shutil.rmtree(root, ignore_errors=True)
            for name in ("bin", "lib", "sbin"):
                (root / "usr" / name).mkdir(parents=True)
                (root / name).symlink_to(f"usr/{name}")
            for deb in debs.values():
                try_wheel.run(["dpkg-deb", "-x", deb, root])
            _wrap((root / "usr/bin/python3").resolve(), root, qemu)
            (root / ".complete").touch()
    return root


def _wrap(python: Path, root: Path, qemu: Path) -> None:
    """Put a script in the interpreter's place that runs it in the emulator.

    The interpreter gets the script's name as its own, so what it starts as itself
    is the script again, in a virtual environment too.
    """
    real = python.with_name(f"{python.name}.{MACHINE}")
    python.rename(real)
    python.write_text(f'#!/bin/sh\nexec "{qemu}" -L "{root}" -0 "$0" "{real}" "$@"\n')
    python.chmod(0o755)


# Trying


def step(what: str, command: Sequence[str | Path], cwd: Path, env: dict[str, str]) -> str:
    """Run a step; returns its output, BuildError with it if it fails."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{what} took more than {PATIENCE} s") from error
    if done.returncode:
        raise BuildError(f"{what} failed ({done.returncode}):\n{done.stdout[-6000:]}")
    print(f"  {what} ({time.monotonic() - start:.0f} s)", flush=True)
    return done.stdout


class Installation:
    """A wheel installed in an emulated system."""

    def __init__(
        self, suite: str, scratch: Path, house: Path, pips: dict[str, Path], *more: str
    ) -> None:
        self.suite = suite
        self.scratch = scratch / suite
        self.scratch.mkdir()
        root = system(suite)
        self.env = try_wheel.clean_environment(
            PANDALITE_HOME=str(self.scratch / "home"), PANDALITE_OFFLINE="1", LANG="C.UTF-8"
        )
        python = root / "usr/bin/python3"
        code = (
            "import os, platform; "
            "print(platform.python_version(), platform.machine(), os.confstr(2))"
        )
        said = step(f"{suite}: starts", [python, "-c", code], self.scratch, self.env)
        self.python_version, machine, self.libc = said.strip().split(" ", 2)
        if machine != MACHINE:
            raise BuildError(f"the Python of {root} says that it runs on {machine}")
        venv = self.scratch / "venv"
        pip = try_wheel.pip_for(pips, self.python_version)
        words: list[str | Path] = [
            python,
            TOOLS / "wheel_bare.py",
            "install",
            venv,
            pip,
            house,
            *more,
        ]
        step(
            f"{suite}: Python {self.python_version}, {self.libc}: installed",
            words,
            self.scratch,
            self.env,
        )
        self.python = venv / "bin/python"

    def doctor(self) -> None:
        """What the package says of the system: files, libraries, a machine that runs code."""
        words: list[str | Path] = [self.python, "-m", "pandalite", "doctor"]
        said = step(f"{self.suite}: doctor", words, self.scratch, self.env)
        print("".join(f"    {line}\n" for line in said.splitlines()), end="", flush=True)

    def smoke(self, guest: str) -> dict[str, Any]:
        """Load all libraries, boot and use a guest."""
        words: list[str | Path] = [self.python, TOOLS / "wheel_smoke.py", "--guest", guest]
        found = try_wheel.last_json(
            step(f"{self.suite}: guest {guest}", words, self.scratch, self.env)
        )
        if not found["place"].startswith(str(self.scratch)):
            raise BuildError(f"the pandalite of {found['place']} was used")
        print(f"    {json.dumps(found)}", flush=True)
        return found

    def tests(self, packages: Path) -> None:
        """Run the part of the test suite."""
        tree = self.scratch / "tree"
        for name in ("tests", "tools", "csrc/qemu"):
            shutil.copytree(ROOT / name, tree / name)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        target = self.scratch / "packages"
        step("test packages", [*pip, "--target", target, *packages.iterdir()], tree, self.env)
        # The guests are in the cache, so that no assembler is needed there.
        for arch in build_baremetal.architectures():
            build_baremetal.ensure(arch)
        env = {**self.env, "PANDALITE_CACHE": str(cache_dir()), "PYTHONPATH": str(target)}
        env["TESTS_SLOWER"] = "20"
        options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(tree), "-c", os.devnull]
        chosen = [f"{tree}/tests/{file}::{name}" for file, names in TESTS.items() for name in names]
        said = step("tests", [self.python, "-m", "pytest", *options, *chosen], tree, env)
        print(f"    {said.strip().splitlines()[-1]}", flush=True)


def test_packages(folder: Path) -> Path:
    """Download what the tests need."""
    get = [sys.executable, "-m", "pip", "download", "-q", "--no-input", "-d", str(folder)]
    pure = ["--only-binary=:all:", "--platform", "any", "--implementation", "py", "--abi", "none"]
    try_wheel.run([*get, "--python-version", "3.9", *pure, *TEST_PACKAGES])
    return folder


def everything(given: argparse.Namespace) -> None:
    """Do what is asked for; BuildError if something does not work."""
    wheel = given.wheel or try_wheel.newest_wheel(MACHINE)
    print(wheel.name, flush=True)
    if native() == MACHINE:
        raise BuildError("this machine needs no emulator: use tools/try_wheel.py")
    with tempfile.TemporaryDirectory(prefix="pandalite-aarch64-") as folder:
        scratch = Path(folder)
        house, pips = try_wheel.wheelhouse(wheel, scratch)
        for number, suite in enumerate(given.suite or SUITES):
            names, companion = [], []
            if not number and given.only in (None, "guests"):
                names, companion = list(given.guest or GUESTS), ["pandalite-guests"]
                build_guests_package.make(names, house)
            at = Installation(suite, scratch, house, pips, *companion)
            if given.only in (None, "smoke"):
                at.doctor()
                at.smoke("x86_64")
            for name in names:
                at.smoke(name)
            if not number and (given.tests or given.only == "tests"):
                at.tests(test_packages(scratch / "test-packages"))
            shutil.rmtree(at.scratch)


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="default: the one in dist")
    parser.add_argument("--suite", action="append", choices=list(SUITES))
    parser.add_argument("--guest", action="append", help=f"default: {', '.join(GUESTS)}")
    parser.add_argument("--tests", action="store_true", help="run a part of the test suite too")
    parser.add_argument("--only", choices=["smoke", "guests", "tests"])
    given = parser.parse_args()
    try:
        everything(given)
    except (BuildError, ArchiveError) as error:
        print(f"try_aarch64: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
