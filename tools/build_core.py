"""Build libpanda-<arch>.so: QEMU's objects and csrc/ in one shared object.

    python tools/build_core.py [ARCH ...]

Everything that takes long is kept in the build cache, keyed by content; see
CONTRIBUTING.md for what is where.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import build_qemu
import gen_env_layout
from build_qemu import QemuBuild
from debian import ArchiveError
from project import (
    CSRC,
    ROOT,
    BuildError,
    cache_dir,
    digest,
    host,
    jobs,
    library_dir,
    locked,
    native,
)
from toolchain import FLAGS, toolchain

OPTIMISE = ["-O2", "-ffunction-sections", "-fdata-sections", "-Wall", "-Werror", "-Wno-unused"]

#: The directories of ``csrc/`` that are the same for all architectures.
PARTS = ("core", "record", "introspect", "syscalls", "hooks", "plugins")

#: Headers that are compiled into plugins, and declare nothing of the library's.
FOR_PLUGINS = ("plugin.h", "plugin_plugin.h")

#: Functions that not all architectures call.
OPTIONAL_WRAPS = {"qemu_guest_getrandom", "tlb_flush_all_cpus_synced", "fma", "fmaf"}

LINK = [
    "-shared",
    "-O2",
    "-g0",
    "-Wl,-Bsymbolic",
    "-Wl,-z,noexecstack",
    "-Wl,-z,relro",
    "-Wl,-z,now",
    "-Wl,--gc-sections",
    "-Wl,--build-id=sha1",
]


def version() -> str:
    """The project's version."""
    text = (ROOT / "pandalite" / "_version.py").read_text()
    found = re.search(r'__version__ = "(.+)"', text)
    assert found
    return found.group(1)


def exported() -> list[str]:
    """The functions of the public headers: all that a library exports."""
    names: set[str] = set()
    for header in sorted((CSRC / "include/panda").rglob("*.h")):
        if header.name in FOR_PLUGINS:
            continue
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
        names.update(re.findall(r"^[\w\s*]*?\b(panda_\w+)\(", text, flags=re.MULTILINE))
    return sorted(names)


def sources(family: str) -> list[Path]:
    """The C files of the core for a family of architectures."""
    common = [path for part in PARTS for path in (CSRC / part).glob("*.c")]
    return sorted([*common, *(CSRC / "arch").glob(f"{family}*.c")])


def wrapped(objects: list[Path]) -> list[str]:
    """The functions of QEMU's that a file of ours replaces: it defines ``__wrap_<name>``."""
    from elftools.elf.elffile import ELFFile

    names: set[str] = set()
    for path in objects:
        with path.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".symtab")
            names.update(
                symbol.name.removeprefix("__wrap_")
                for symbol in table.iter_symbols()
                if symbol.name.startswith("__wrap_") and symbol["st_shndx"] != "SHN_UNDEF"
            )
    return sorted(names)


class CoreBuild:
    """Builds the library of one architecture."""

    def __init__(self, qemu: QemuBuild, arch: str) -> None:
        self.qemu = qemu
        self.arch = arch
        self.family = build_qemu.arches()[arch]["family"]
        self.env = qemu.tools.environment()
        self.cache = cache_dir() / "core"
        self.cache.mkdir(parents=True, exist_ok=True)
        headers = sorted(CSRC.rglob("*.h"))
        self.compile = [
            *qemu.compile_line(arch),
            *FLAGS,
            *OPTIMISE,
            f"-I{CSRC}",
            f"-I{CSRC}/include",
            f"-I{qemu.src}",
            f"-I{qemu.src}/accel/tcg",
            f"-ffile-prefix-map={ROOT}/=",
            f'-DPANDALITE_ARCH="{arch}"',
            f'-DPANDALITE_VERSION="{version()}"',
        ]
        portable = " ".join(self.compile).replace(str(ROOT), "")
        self.key = digest(qemu.base.name, portable, *headers)

    def _object(self, source: Path, *options: str) -> Path:
        """Compile one file, or find its object in the cache."""
        made = self.cache / f"{source.stem}-{digest(self.key, source, *options)}.o"
        if not made.exists():
            part = made.with_suffix(f".{os.getpid()}.part.o")
            command = [*self.compile, *options, "-o", str(part), "-c", str(source)]
            done = subprocess.run(
                command, cwd=self.qemu.dir, env=self.env, capture_output=True, text=True
            )
            if done.returncode:
                raise BuildError(f"{source.relative_to(ROOT)}:\n{done.stderr}")
            part.rename(made)
        return made

    def _link(self, objects: list[Path], wraps: list[str], out: Path, *options: str) -> None:
        script = out.with_suffix(".map")
        names = "".join(f"    {name};\n" for name in exported())
        script.write_text("{\nglobal:\n" + names + "local:\n    *;\n};\n")
        words = [
            *LINK,
            *options,
            f"-Wl,-soname,libpanda-{self.arch}.so",
            f"-Wl,--version-script={script}",
            *(f"-Wl,--wrap={name}" for name in wraps),
            "-o",
            str(out),
            *map(str, objects),
            *self.qemu.link_line(self.arch),
        ]
        response = out.with_suffix(".rsp")
        response.write_text("\n".join(f'"{w}"' for w in words))
        done = subprocess.run(
            ["zcc", f"@{response}"],
            cwd=self.qemu.dir,
            env=self.env,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise BuildError(f"linking libpanda-{self.arch}.so:\n{done.stderr[-6000:]}")

    def _check_wraps(self, wraps: list[str], unstripped: Path) -> None:
        """A replaced function that nothing calls has been dropped: QEMU moved it."""
        from elftools.elf.elffile import ELFFile

        with unstripped.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".symtab")
            present = {symbol.name for symbol in table.iter_symbols()}
        lost = [
            name for name in wraps if f"__wrap_{name}" not in present and name not in OPTIONAL_WRAPS
        ]
        if lost:
            raise BuildError(
                "QEMU does not call these functions across files any more, so they cannot "
                f"be wrapped: {', '.join(lost)}"
            )

    def build(self) -> Path:
        """Build the library into pandalite/_lib, or build/ if it is for another host.

        Returns its path.
        """
        files = sources(self.family)
        with ThreadPoolExecutor(jobs()) as pool:
            objects = list(pool.map(self._object, files))
        key = digest(*(o.name for o in objects), *exported(), " ".join(LINK), self.arch)
        folder = self.cache / f"{self.arch}-{key}"
        library = folder / f"libpanda-{self.arch}.so"
        with locked(folder.with_suffix(".lock")):
            if not (folder / ".complete").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                unstripped = folder / f"libpanda-{self.arch}.debug.so"
                wraps = wrapped(objects)
                self._link(objects, wraps, unstripped)
                self._check_wraps(wraps, unstripped)
                self._link(objects, wraps, library, "-s")
                (folder / ".complete").touch()
        place = library_dir(self.qemu.tools.host)
        place.mkdir(parents=True, exist_ok=True)
        target = place / library.name
        part = target.with_suffix(".part")
        shutil.copy(library, part)
        part.rename(target)
        return target

    def layouts(self, check: bool) -> int:
        """Write or check the register state's layout in the bindings."""
        probe = CSRC / "arch" / "layout_probe.c"
        made = self._object(probe, "-g", "-gdwarf-4", "-fstandalone-debug")
        words = [self.arch, str(made), *(["--check"] if check else [])]
        # The bindings are made on one host, and are the same in all wheels.
        if check and self.qemu.tools.host != native():
            words.append("--public")
        return gen_env_layout.main(words)


def main() -> int:
    """Build the libraries named on the command line, or all."""
    known = list(build_qemu.arches())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arch", nargs="*", metavar="ARCH", help=f"one of {', '.join(known)}")
    parser.add_argument(
        "--layouts",
        action="store_true",
        help="only write pandalite/_bindings/env_<arch>.py, from the debug information",
    )
    parser.add_argument("--check", action="store_true", help="with --layouts: compare only")
    options = parser.parse_args()
    names = options.arch or known
    unknown = [n for n in names if n not in known]
    if unknown:
        print(f"no such architecture: {', '.join(unknown)} (there are {', '.join(known)})")
        return 2
    start = time.monotonic()
    try:
        qemu = build_qemu.build(toolchain(host()), names)
        if options.layouts:
            return max(CoreBuild(qemu, name).layouts(options.check) for name in names)
        for name in names:
            library = CoreBuild(qemu, name).build()
            size = library.stat().st_size / 1e6
            print(f"  {library.relative_to(ROOT)} {size:.1f} MB", flush=True)
    except (BuildError, ArchiveError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"  core built in {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
