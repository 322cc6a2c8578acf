"""Kernel and busybox compiled from Debian's sources with Debian's cross compilers.

For architectures for which Debian has no binary packages any more. It takes
minutes, so the result is kept in the build cache, named by all that decides it:
the packages' checksums, the compiler, the configurations and the recipe's number.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import host_packages
from debian import Archive
from project import BuildError, digest, file_sha256, jobs, locked
from toolchain import run

from guestkit.deb import Package

KCONFIG = Path(__file__).parent / "kconfig"

#: To be raised when _Build changes what comes out of it.
KERNEL_RECIPE, PROGRAMS_RECIPE = "2", "2"

#: Seconds since 1970 that builds believe it is, so that they are repeatable.
_DATE = "1700000000"
_KERNEL_DATE = "2023-11-14 22:13:20 +0000"


class SourceGuest:
    """What was built for an architecture: a directory with the kernel, one with the rest."""

    def __init__(self, kernel: Path, programs: Path) -> None:
        self._kernel = kernel
        self._programs = programs
        self._facts = [json.loads((p / "facts.json").read_text()) for p in (kernel, programs)]

    @property
    def name(self) -> str:
        """Changes when anything in it changes."""
        return f"{self._kernel.name} {self._programs.name}"

    @property
    def kernel(self) -> bytes:
        """The kernel image."""
        return (self._kernel / "kernel").read_bytes()

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` prints it."""
        return str(self._facts[0]["release"])

    @property
    def compiler(self) -> str:
        """The compiler's name and version."""
        return str(self._facts[0]["compiler"])

    @property
    def busybox(self) -> bytes:
        """Busybox, statically linked."""
        return (self._programs / "busybox.static").read_bytes()

    @property
    def shared_busybox(self) -> bytes:
        """Busybox, dynamically linked."""
        return (self._programs / "busybox.shared").read_bytes()

    @property
    def packages(self) -> list[dict[str, Any]]:
        """Manifest entries of the packages it was built from."""
        return [entry for facts in self._facts for entry in facts["packages"]]

    def notices(self) -> Iterator[tuple[str, bytes]]:
        """The packages' copyright files: name and contents."""
        for folder in (self._kernel, self._programs):
            for file in sorted((folder / "copyright").iterdir()):
                yield file.name, file.read_bytes()

    def libraries(self) -> Iterator[tuple[str, bytes]]:
        """Shared libraries: path in the guest, and contents."""
        for file in sorted((self._programs / "lib").iterdir()):
            yield f"usr/lib/{file.name}", file.read_bytes()


def compilers(recipe: dict[str, Any]) -> list[str]:
    """Debian packages the host must have to build the guest of a recipe."""
    headers = recipe["libc"].replace("libc6-", "libc6-dev-", 1)
    return [f"gcc-{recipe['toolchain']}", headers, "bc", "bison", "flex", "make", "xz-utils"]


def ensure(recipe: dict[str, Any], archive: Archive, cache: Path) -> SourceGuest:
    """Build kernel and busybox, or take them from the cache."""
    _require(recipe)
    libc = recipe["libc"]
    entries = archive.show_all([recipe["source"], libc])
    tarballs = archive.source("busybox")
    common = (_toolchain_version(recipe), recipe["toolchain"], recipe["kernel_arch"])
    kernel = (KERNEL_RECIPE, entries[recipe["source"]]["SHA256"], *_configs(recipe))
    programs = (
        *(PROGRAMS_RECIPE, entries[libc]["SHA256"]),
        *(*map(file_sha256, tarballs), KCONFIG / "busybox.config"),
    )
    base = cache / "guest-source"
    base.mkdir(parents=True, exist_ok=True)
    kernel_done = base / f"{recipe['arch']}-kernel-{digest(*common, *kernel)}"
    programs_done = base / f"{recipe['arch']}-programs-{digest(*common, *programs)}"

    _part(recipe, kernel_done, lambda build: build.kernel(archive.binary(recipe["source"])))
    _part(recipe, programs_done, lambda build: build.programs(tarballs, archive.binary(libc)))
    return SourceGuest(kernel_done, programs_done)


def _part(recipe: dict[str, Any], done: Path, make: Callable[[_Build], dict[str, Any]]) -> None:
    """Make one of the two parts in its own directory of the cache."""
    with locked(done.with_suffix(".lock")):
        if (done / "facts.json").exists():
            return
        with tempfile.TemporaryDirectory(dir=done.parent, prefix=".build-") as scratch:
            out = Path(scratch) / "out"
            (out / "copyright").mkdir(parents=True)
            facts = make(_Build(recipe, Path(scratch), out, done.with_suffix(".log")))
            text = json.dumps(facts, indent=1, sort_keys=True) + "\n"
            (out / "facts.json").write_text(text)
            shutil.rmtree(done, ignore_errors=True)
            out.rename(done)


def _require(recipe: dict[str, Any]) -> None:
    """Install the cross compiler if it is missing."""
    missing = [p for p in compilers(recipe) if not host_packages.installed(p)]
    if missing and not host_packages.install(missing):
        raise BuildError(
            f"the {recipe['arch']} guest is compiled from source and needs: "
            f"{' '.join(missing)}; type: sudo {' '.join(host_packages.install_command(missing))}"
        )


def _toolchain_version(recipe: dict[str, Any]) -> str:
    command = [f"{recipe['toolchain']}-gcc", "-v"]
    return subprocess.run(command, capture_output=True, text=True).stderr.splitlines()[-1]


def placeless_compiler(toolchain: str, tree: Path) -> str:
    """A compiler's command that writes "." for the directory of the source tree.

    MIPS's vDSOs are compiled with ``-g``: the directory is in their debug
    information, and so decides their build ids, which stay in the kernel. kbuild
    passes none of KCFLAGS on to them, but it does use CC.
    """
    return f"{toolchain}-gcc -ffile-prefix-map={tree.resolve()}=."


def _configs(recipe: dict[str, Any]) -> list[Path]:
    return [KCONFIG / "common.config", KCONFIG / f"{recipe['arch']}.config"]


class _Build:
    """One build, in a scratch directory."""

    def __init__(self, recipe: dict[str, Any], scratch: Path, out: Path, log: Path) -> None:
        self.recipe = recipe
        self.scratch = scratch
        self.out = out
        self.log = log
        self.prefix = f"{recipe['toolchain']}-"
        self.env = {
            k: v for k, v in os.environ.items() if k not in ("CFLAGS", "LDFLAGS", "MAKEFLAGS")
        }
        self.env.update(
            LC_ALL="C",
            TZ="UTC",
            SOURCE_DATE_EPOCH=_DATE,
            KBUILD_BUILD_TIMESTAMP=_KERNEL_DATE,
            KBUILD_BUILD_USER="pandalite",
            KBUILD_BUILD_HOST="pandalite",
            KBUILD_BUILD_VERSION="1",
        )
        log.unlink(missing_ok=True)

    def kernel(self, deb: Path) -> dict[str, Any]:
        """Compile the kernel of a package with its source; returns what is to be noted."""
        return {
            "packages": [self._record(deb)],
            "release": self._kernel(deb),
            "compiler": _toolchain_version(self.recipe),
        }

    def programs(self, tarballs: list[Path], libc: Path) -> dict[str, Any]:
        """Compile busybox and take the C library; returns what is to be noted."""
        (self.out / "lib").mkdir()
        self._busybox(tarballs)
        self._libc(libc)
        return {"packages": [self._record(libc), self._record_busybox(tarballs)]}

    def _make(self, tree: Path, *words: str) -> None:
        run(["make", f"-j{jobs()}", *words], tree, self.env, self.log)

    def _kernel(self, deb: Path) -> str:
        print(f"  compiling a kernel for {self.recipe['arch']} ({deb.name})", flush=True)
        unpacked = self.scratch / "kernel"
        subprocess.run(["dpkg-deb", "-x", str(deb), str(unpacked)], check=True)
        (tarball,) = unpacked.glob("usr/src/linux-source-*.tar.xz")
        subprocess.run(["tar", "-xf", str(tarball), "-C", str(unpacked)], check=True)
        tarball.unlink()
        (tree,) = unpacked.glob("linux-source-*")
        fragment = self.scratch / "kernel.config"
        fragment.write_text("".join(p.read_text() for p in _configs(self.recipe)))
        words = [f"ARCH={self.recipe['kernel_arch']}", f"CROSS_COMPILE={self.prefix}"]
        words.append(f"CC={placeless_compiler(self.recipe['toolchain'], tree)}")
        self._make(tree, *words, f"KCONFIG_ALLCONFIG={fragment}", "allnoconfig")
        self._check_config(tree / ".config", fragment)
        self._make(tree, *words, "vmlinux")
        subprocess.run(
            [f"{self.prefix}strip", "-o", str(self.out / "kernel"), str(tree / "vmlinux")],
            check=True,
        )
        release = (tree / "include/config/kernel.release").read_text().strip()
        shutil.copy(tree / ".config", self.out / "config")
        shutil.rmtree(unpacked)
        return release

    def _check_config(self, config: Path, fragment: Path) -> None:
        """An option that did not survive was misspelt, or lacks what it needs."""
        got = set(config.read_text().splitlines())
        lost = [
            line
            for line in fragment.read_text().splitlines()
            if re.match(r"CONFIG_\w+=(?!n$)", line) and line not in got
        ]
        if lost:
            raise BuildError(f"the kernel of {self.recipe['arch']} does not take {', '.join(lost)}")

    def _busybox(self, tarballs: list[Path]) -> None:
        print(f"  compiling busybox for {self.recipe['arch']}", flush=True)
        (orig,) = [t for t in tarballs if ".orig.tar." in t.name]
        folder = self.scratch / "busybox"
        folder.mkdir()
        subprocess.run(["tar", "-xf", str(orig), "-C", str(folder)], check=True)
        (tree,) = folder.iterdir()
        options = (KCONFIG / "busybox.config").read_text().splitlines()
        words = [f"CROSS_COMPILE={self.prefix}", f"ARCH={self.recipe['kernel_arch']}"]
        for kind in ("static", "shared"):
            with contextlib.suppress(FileNotFoundError):
                (tree / ".config").unlink()
            self._make(tree, *words, "defconfig")
            chosen = [*options, f"CONFIG_STATIC={'y' if kind == 'static' else 'n'}"]
            names = {o.split("=")[0] for o in chosen if o.startswith("CONFIG_")}
            kept = [
                line
                for line in (tree / ".config").read_text().splitlines()
                if not names & set(re.findall(r"CONFIG_\w+", line)[:1])
            ]
            (tree / ".config").write_text("\n".join([*kept, *chosen]) + "\n")
            # The questions that these options open are answered with the default.
            subprocess.run(
                ["make", "oldconfig"],
                cwd=tree,
                env=self.env,
                input=b"\n" * 1000,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            self._make(tree, *words, "clean")
            self._make(tree, *words, "busybox")
            shutil.copy(tree / "busybox", self.out / f"busybox.{kind}")
        shutil.copy(tree / "LICENSE", self.out / "copyright" / "busybox.txt")
        shutil.rmtree(folder)

    def _libc(self, deb: Path) -> None:
        """The shared libraries that busybox needs."""
        wanted = r"usr/[^/]+/lib(64)?/(libc|libm|libresolv|ld[^/]*)\.so\.\d+$"
        with Package(deb, self.scratch) as package:
            for path in package.paths(wanted):
                (self.out / "lib" / Path(path).name).write_bytes(package.read(path))

    def _record(self, deb: Path) -> dict[str, Any]:
        with Package(deb, self.scratch) as package:
            (self.out / package.notice_path).write_bytes(package.copyright())
            return package.describe(package)

    def _record_busybox(self, tarballs: list[Path]) -> dict[str, Any]:
        orig = next(t for t in tarballs if ".orig.tar." in t.name)
        version = orig.name.split("_", 1)[1].split(".orig.", 1)[0]
        return {
            "package": "busybox",
            "file": orig.name,
            "version": version,
            "architecture": "source",
            "source": "busybox",
            "source_version": version,
            "licences": ["GPL-2"],
            "copyright": "copyright/busybox.txt",
            "sha256": file_sha256(orig),
        }


__all__ = ["SourceGuest", "compilers", "ensure", "placeless_compiler"]
