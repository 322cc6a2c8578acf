"""The compiler: zig's clang, targeting an old glibc, as ordinary command names.

One recipe builds what is tested and what ships: wherever it runs, the result
needs glibc 2.28 at most. Compiler and build tools come from PyPI and live in
the build cache, so that every checkout shares them and no build directory
points into a checkout that may be gone tomorrow.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from project import CSRC, BuildError, cache_dir, digest, locked

REQUIREMENTS = CSRC / "qemu" / "build-requirements.txt"
GLIBC = "2.28"

FLAGS = [
    "-g0",
    "-fPIC",
    # Without -O2 (meson's probes) zig turns the sanitizer on.
    "-fno-sanitize=undefined",
    # With -O2 zig defines NDEBUG, which QEMU refuses and libslirp must not have.
    "-UNDEBUG",
    "-fomit-frame-pointer",
]

WRAPPERS = {
    "zcc": "cc -target {target}",
    "zc++": "c++ -target {target}",
    "zar": "ar",
    "zranlib": "ranlib",
    "zobjcopy": "objcopy",
}


@dataclass(frozen=True)
class Toolchain:
    """Compiler and build tools for one host architecture."""

    host: str
    bin: Path
    """Directory of the compiler wrappers (named in WRAPPERS)."""
    venv: Path
    """Python environment with meson, ninja and zig."""

    @property
    def key(self) -> str:
        """Text that changes when the compiler or its flags change."""
        return f"{REQUIREMENTS.read_text()} {self.host} glibc {GLIBC} {' '.join(FLAGS)}"

    @property
    def triple(self) -> str:
        """The GNU name of the host architecture."""
        return f"{self.host}-linux-gnu"

    @property
    def python(self) -> Path:
        """The interpreter QEMU's build system is to use."""
        return self.venv / "bin" / "python3"

    def environment(self) -> dict[str, str]:
        """The process environment for the wrappers and the build tools."""
        unwanted = {"CFLAGS", "CPPFLAGS", "CXXFLAGS", "LDFLAGS", "CC", "CXX", "MAKEFLAGS"}
        env = {k: v for k, v in os.environ.items() if k not in unwanted}
        env.update(
            PATH=f"{self.bin}:{self.venv}/bin:{os.environ['PATH']}",
            ZIG_GLOBAL_CACHE_DIR=str(cache_dir() / "zig"),
            ZIG_LOCAL_CACHE_DIR=str(cache_dir() / "zig"),
            # QEMU's decodetree.py writes functions in the order of a set.
            PYTHONHASHSEED="0",
            LC_ALL="C",
        )
        return env


def run(command: list[str | Path], cwd: Path, env: dict[str, str], log: Path) -> None:
    """Run a build step with its output in a log; the error quotes the log's end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as out:
        out.write(f"\n$ {' '.join(map(str, command))}\n")
        out.flush()
        code = subprocess.run(command, cwd=cwd, env=env, stdout=out, stderr=out).returncode
    if code:
        lines = log.read_text(errors="replace").splitlines()
        failed = [i for i, line in enumerate(lines) if re.search(r"FAILED|[Ee]rror", line)]
        start = max(len(lines) - 30, failed[-1] - 5 if failed else 0)
        raise BuildError(
            f"{Path(str(command[0])).name} failed ({code}), full log: {log}\n"
            + "\n".join(lines[start:])
        )


def toolchain(host: str) -> Toolchain:
    """Install the build tools into the cache (once) and return them."""
    if not shutil.which("pkg-config"):
        raise BuildError("pkg-config is missing: apt-get install pkg-config")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    env = cache_dir() / f"tools-{digest(REQUIREMENTS, version, sys.base_prefix)}"
    stamp = env / ".complete"
    with locked(cache_dir() / "tools.lock"):
        if not stamp.exists() or not (env / "bin" / "python3").exists():
            venv.create(env, with_pip=True, clear=True)
            run(
                [env / "bin/pip", "install", "-q", "--no-input", "-r", REQUIREMENTS],
                cwd=env,
                env=dict(os.environ),
                log=env / "pip.log",
            )
            stamp.touch()
        zig = next(env.glob("lib/python*/site-packages/ziglang/zig"))
        folder = env / f"cc-{host}"
        folder.mkdir(exist_ok=True)
        for name, command in WRAPPERS.items():
            arguments = command.format(target=f"{host}-linux-gnu.{GLIBC}")
            script = folder / name
            text = f'#!/bin/sh\nexec "{zig}" {arguments} "$@"\n'
            if not script.exists() or script.read_text() != text:
                script.write_text(text)
                script.chmod(0o755)
    return Toolchain(host, folder, env)
