"""Install the Debian packages the build needs, or name them.

As root missing packages are installed; else the command to type is printed and
the exit status is 1. Runs before there is a virtual environment, so standard
library only. On systems without dpkg it only looks for the commands.

With ``--tests`` those too that only tests need; tests that miss one are skipped,
so these are only named where they cannot be installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys

#: Package -> a command it brings (None: looked up with dpkg).
PACKAGES = {
    "bison": "bison",
    "bzip2": "bzip2",
    "debian-archive-keyring": None,
    "dpkg-dev": "dpkg-source",
    "flex": "flex",
    "gcc": "gcc",
    "libc6-dev": None,
    "make": "make",
    "patch": "patch",
    "pkg-config": "pkg-config",
    "xz-utils": "xz",
}

#: The same, for tests: clients that debug, and tools whose results are compared with ours.
TEST_PACKAGES = {
    "busybox": "busybox",
    "e2fsprogs": None,
    "gdb-multiarch": "gdb-multiarch",
    "genisoimage": "isoinfo",
    "openssl": "openssl",
    "qemu-utils": "qemu-img",
    "xorriso": "xorriso",
    "zstd": "zstd",
}


def installed(package: str, command: str | None = None) -> bool:
    """Whether a package is there; where a command tells, by that."""
    if command is not None:
        return shutil.which(command) is not None
    if shutil.which("dpkg-query") is None:
        return True
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True
    )
    return done.stdout.endswith("install ok installed")


def missing() -> list[str]:
    """Packages that are not there."""
    names = [p for p, command in PACKAGES.items() if not installed(p, command)]
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        names.append("python3-venv")
    return names


def install_command(names: list[str]) -> list[str]:
    """The command that installs packages."""
    # Others may be installing at the moment.
    waiting = ["-o", "DPkg::Lock::Timeout=300"]
    return ["apt-get", *waiting, "install", "-y", "--no-install-recommends", *names]


def install(names: list[str]) -> bool:
    """Install packages; False if that cannot be done, for instance by who is not root."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    command = install_command(names)
    print(f"installing Debian packages: {' '.join(names)}", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run([*command, "-qq"], env=env, stdout=subprocess.DEVNULL).returncode == 0:
        return True
    # The index may be missing or old.
    subprocess.run(["apt-get", "update", "-qq"], env=env, check=False)
    return subprocess.run(command, env=env).returncode == 0


def install_for_tests() -> None:
    """Install what only tests need, as far as that can be done."""
    names = [p for p, command in TEST_PACKAGES.items() if not installed(p, command)]
    if names and not install(names):
        print(
            f"some tests will be skipped: type sudo {' '.join(install_command(names))}",
            file=sys.stderr,
        )


def main() -> int:
    """Install what is missing."""
    names = missing()
    if not names or install(names):
        if "--tests" in sys.argv[1:]:
            install_for_tests()
        return 0
    print(f"these Debian packages are missing: {' '.join(names)}", file=sys.stderr)
    print(f"type: sudo {' '.join(install_command(names))}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
