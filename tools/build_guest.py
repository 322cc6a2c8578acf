#!/usr/bin/env python3
"""Build the tiny Linux guest of an architecture from Debian packages.

    python tools/build_guest.py [ARCH...] [--output DIR] [--cache DIR] [--refresh]

Makes in the output directory: ``kernel``, ``initrd.gz``, the packages'
copyright files in ``copyright/``, and ``manifest.json``, which says where
everything came from and how the guest is run. Equal packages give equal bytes.

``x86_64_debian`` and ``aarch64_debian`` are fuller guests with a disk, made by
:mod:`debianguest`; ``--with`` and ``--with-gcc`` add packages to them.

A finished guest stays in the build cache. As long as the recipe and this
builder do not change it is taken from there, without a look at the archive;
``--refresh`` asks the archive for newer packages.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import posixpath
import re
import shutil
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from debian import Archive, ArchiveError
from guestkit import cpio, kernel, source
from guestkit.deb import Package, PackageError
from guestkit.elf import Elf, ElfError
from guestkit.modules import Kernel, ModuleError, index_files, normal
from project import LIB, ROOT, BuildError, cache_dir, digest, file_sha256, load_toml, locked

RECIPES = ROOT / "tools" / "guest_recipes.toml"
CATALOGUE = ROOT / "pandalite" / "qcows" / "catalogue.json"
ROOTFS = ROOT / "tools" / "guestkit" / "rootfs"
FORMAT = 1  # of manifest.json


def architectures() -> list[str]:
    """The architectures that have a recipe."""
    return sorted(name for name in load_toml(RECIPES) if name != "common")


def recipe_of(arch: str) -> dict[str, Any]:
    """The recipe of an architecture: what is built, and under ``run`` how it is run."""
    recipes = load_toml(RECIPES)
    if arch not in recipes or arch == "common":
        raise BuildError(f"no guest recipe for {arch!r}; there is: {', '.join(architectures())}")
    catalogue = json.loads(CATALOGUE.read_text())
    return {**recipes["common"], **recipes[arch], "arch": arch, "run": catalogue["tiny"][arch]}


def recipe_key(recipe: dict[str, Any]) -> str:
    """A name for all that decides the guest besides the packages' versions."""
    code = [Path(__file__), *sorted((ROOT / "tools" / "guestkit").glob("*.py"))]
    code += sorted((ROOT / "tools" / "guestkit" / "kconfig").glob("*.config"))
    files = [p for p in sorted(ROOTFS.rglob("*")) if p.is_file()]
    names = "\n".join(str(p.relative_to(ROOTFS)) for p in files)
    # Another zlib may compress to other bytes.
    parts = (json.dumps(recipe, sort_keys=True), names, zlib.ZLIB_RUNTIME_VERSION)
    return digest(*parts, *code, *files)


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts version 9 before version 50."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


# What the archive has


def choose_packages(archive: Archive, recipe: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The index entries of the packages the recipe asks for, the kernel first."""
    kernels = archive.package_names(recipe["kernel"])
    if not kernels:
        raise BuildError(
            f"{archive.suite}/{archive.architecture} has no kernel package that matches "
            f"{recipe['kernel']!r}"
        )
    chosen = max(kernels, key=_natural)
    match = re.fullmatch(recipe["kernel"], chosen)
    parts = [p.format(*match.groups()) for p in recipe.get("parts", [])] if match else []
    programs = [*recipe["packages"], *recipe.get("more_packages", [])]
    return archive.show_all([chosen, *parts, *programs])


def open_archive(recipe: dict[str, Any], cache: Path) -> tuple[Archive, dict[str, Any]]:
    """The archive of a recipe, and the recipe.

    A mirror whose index of the suite cannot be used (one that is being updated
    does not fit its signature) is given up for the recipe's fallback.
    """
    archive = Archive(recipe["suite"], recipe["debian"], cache)
    if "fallback" not in recipe:
        return archive, recipe
    try:
        archive.update()
    except ArchiveError as error:
        other = {**recipe, **recipe["fallback"]}
        print(f"  {error}".splitlines()[0], f"using {other['suite']}", sep="; ", flush=True)
        return Archive(other["suite"], other["debian"], cache), other
    return archive, recipe


def fetch(archive: Archive, entries: dict[str, dict[str, str]]) -> list[Path]:
    """Download the packages, and check them once more against the index."""
    debs = []
    for name, entry in entries.items():
        deb = archive.binary(name)
        if file_sha256(deb) != entry["SHA256"]:
            raise BuildError(f"{deb} is damaged (wrong SHA-256): delete it and build again")
        debs.append(deb)
    return debs


# The initial RAM file system


def add_skeleton(tree: cpio.Tree, values: dict[str, str]) -> None:
    """Directories, configuration and scripts; ``@NAME@`` in files is filled in."""
    for path in ("bin", "sbin", "lib", "lib32", "lib64"):
        tree.directory(f"usr/{path}")
        tree.symlink(path, f"usr/{path}")
    for path in ("proc", "sys", "dev", "run", "mnt", "media", "home", "var/log", "usr/local/bin"):
        tree.directory(path)
    tree.directory("tmp", 0o1777)
    tree.directory("root", 0o700)
    tree.directory("home/user", 0o755, owner=1000)
    tree.symlink("etc/mtab", "../proc/self/mounts")
    tree.symlink("init", "bin/busybox")
    # The kernel opens the console before anything is mounted on /dev.
    tree.device("dev/console", 5, 1)
    for file in sorted(p for p in ROOTFS.rglob("*") if p.is_file()):
        text = file.read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        if left := re.search(r"@[A-Z]+@", text):
            raise BuildError(f"{file}: nothing is known to replace {left.group()}")
        mode = 0o755 if text.startswith("#!") else 0o644
        tree.file(str(file.relative_to(ROOTFS)), text.encode(), mode)


def add_modules(tree: cpio.Tree, modules: Kernel, recipe: dict[str, Any]) -> list[str]:
    """The kernel modules and their index; returns their names in load order."""
    wanted = recipe["modules"]
    optional = [m for m in wanted["optional"] if modules.has(m)]
    needed = [m for m in wanted["load"] + wanted["include"] if not modules.is_builtin(m)]
    chosen = modules.closure(needed + optional)
    base = f"usr/lib/modules/{modules.release}"
    for module in chosen:
        tree.file(f"{base}/{module.path}", module.data)
    for name, data in index_files(chosen, modules.builtin_list).items():
        tree.file(f"{base}/{name}", data)
    load = [normal(m) for m in wanted["load"]]
    tree.file("etc/modules", "".join(f"{m}\n" for m in load).encode())
    return [m.name for m in chosen]


def add_programs(tree: cpio.Tree, packages: list[Package], recipe: dict[str, Any]) -> list[str]:
    """Busybox, the programs, and the libraries they need; returns the programs' paths."""
    by_name = {p.name: p for p in packages}
    busybox = by_name["busybox-static"].read("usr/bin/busybox")
    if Elf(busybox).interpreter():
        raise BuildError("busybox is not statically linked")
    tree.file("usr/bin/busybox", busybox, 0o755)
    todo: list[tuple[str, str]] = []  # (file name or path, who needs it)
    programs = []
    for name, paths in sorted(recipe["programs"].items()):
        for path in (p for p in paths if p not in recipe.get("without", [])):
            data = by_name[name].read(path)
            tree.file(path, data, 0o755)
            programs.append(f"/{path}")
            todo += [(need, path) for need in _needs(data)]
    libraries = _libraries(packages)
    while todo:
        library, user = todo.pop(0)
        soname = posixpath.basename(library)
        if soname not in libraries:
            raise BuildError(
                f"{user} needs {library}, which is in none of the packages of the recipe"
            )
        package, path = libraries[soname]
        if library.startswith("/"):  # the dynamic linker, by its full path
            _add_interpreter_link(tree, library, path)
        if path in tree.entries:
            continue
        data = _add_library(tree, package, path)
        todo += [(need, path) for need in _needs(data)]
    tree.symlink("usr/bin/sh", "dash")
    return programs


def _needs(data: bytes) -> list[str]:
    elf = Elf(data)
    interpreter = elf.interpreter()
    return elf.needed() + ([interpreter] if interpreter else [])


def _libraries(packages: list[Package]) -> dict[str, tuple[Package, str]]:
    """Where each shared library is: file name -> (package, path).

    Debian's dynamic linker looks in the multiarch directory first; a file of
    the same name elsewhere is for another kind of CPU.
    """
    found: dict[str, tuple[Package, str]] = {}
    for package in packages:
        for path in package.paths(r"usr/lib(/[^/]+-linux-[^/]+)?/[^/]+\.so(\.[^/]+)?$"):
            name = posixpath.basename(path)
            if name not in found or path.count("/") > found[name][1].count("/"):
                found[name] = (package, path)
    return found


def _add_library(tree: cpio.Tree, package: Package, path: str) -> bytes:
    """Add a library with the links that lead to it; returns its contents."""
    for _ in range(8):
        file = package.file(path)
        if file.link is None:
            data = package.read(path)
            if path not in tree.entries:
                tree.file(path, data, 0o755)
            return data
        tree.symlink(path, file.link)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), file.link)).lstrip("/")
    raise BuildError(f"too many links at {path} in {package.deb.name}")


def _add_interpreter_link(tree: cpio.Tree, interpreter: str, path: str) -> None:
    """Make the dynamic linker reachable under the path the programs ask for."""
    place = "usr" + interpreter if not interpreter.startswith("/usr/") else interpreter[1:]
    if place != path:
        tree.symlink(place, posixpath.relpath(path, posixpath.dirname(place)))


# The guest


def build(recipe: dict[str, Any], key: str, debs: list[Path], scratch: Path, out: Path) -> None:
    """Make the files of a guest of binary packages in the empty directory ``out``."""
    with contextlib.ExitStack() as stack:
        packages = [stack.enter_context(Package(deb, scratch)) for deb in debs]
        modules = Kernel(*packages[: 1 + len(recipe.get("parts", []))])
        image = packages[0].read(_kernel_path(packages[0]))
        tree = cpio.Tree()
        add_skeleton(tree, _values(recipe, "/bin/bash"))
        module_names = add_modules(tree, modules, recipe)
        programs = add_programs(tree, packages, recipe)
        (out / "copyright").mkdir()
        owners = {package.name: package for package in packages}
        for package in packages:
            if package.notice_of == package.name:
                (out / package.notice_path).write_bytes(package.copyright())
        about = {
            "release": modules.release,
            "modules": module_names,
            "programs": programs,
            "packages": [p.describe(owners[p.notice_of]) for p in packages],
        }
        _finish(recipe, key, image, tree, about, out)


def build_from_source(
    recipe: dict[str, Any], key: str, built: source.SourceGuest, out: Path
) -> None:
    """Make the files of a guest that was compiled in the empty directory ``out``."""
    tree = cpio.Tree()
    add_skeleton(tree, _values(recipe, "/bin/sh"))
    tree.file("etc/modules", b"")
    tree.file("usr/bin/busybox", built.busybox, 0o755)
    tree.file("usr/bin/busybox-shared", built.shared_busybox, 0o755)
    programs = []
    for name in ["sh", *(posixpath.basename(p) for p in recipe["programs"]["coreutils"])]:
        tree.symlink(f"usr/bin/{name}", "busybox-shared")
        programs.append(f"/usr/bin/{name}")
    for path, data in built.libraries():
        tree.file(path, data, 0o755)
    _place_interpreter(tree, Elf(built.shared_busybox))
    (out / "copyright").mkdir()
    for name, notice in built.notices():
        (out / "copyright" / name).write_bytes(notice)
    about = {
        "release": built.release,
        "modules": [],
        "programs": programs,
        "packages": built.packages,
        "compiler": built.compiler,
    }
    _finish(recipe, key, built.kernel, tree, about, out)


def _place_interpreter(tree: cpio.Tree, program: Elf) -> None:
    """Make the dynamic linker, and with it the libraries, be where the program looks."""
    interpreter = program.interpreter()
    if interpreter is None:
        raise BuildError("the shared busybox is statically linked")
    name = posixpath.basename(interpreter)
    if f"usr/lib/{name}" not in tree.entries:
        raise BuildError(f"the C library's package has no {name}")
    if interpreter != f"/lib/{name}":
        _add_interpreter_link(tree, interpreter, f"usr/lib/{name}")
    for need in program.needed():
        if f"usr/lib/{need}" not in tree.entries:
            raise BuildError(f"the shared busybox needs {need}, which is not there")


def _values(recipe: dict[str, Any], shell: str) -> dict[str, str]:
    """What is filled in to the files of the skeleton."""
    run = recipe["run"]
    return {
        "ARCH": recipe["arch"],
        "SUITE": recipe["suite"],
        "HOSTNAME": run["hostname"],
        "CONSOLE": run["console"],
        "PROMPT": run["prompt"],
        "SHELL": shell,
    }


def _finish(
    recipe: dict[str, Any],
    key: str,
    image: bytes,
    tree: cpio.Tree,
    about: dict[str, Any],
    out: Path,
) -> None:
    """Write kernel, initial RAM file system and manifest."""
    vmlinux = kernel.vmlinux(image)
    (out / "kernel").write_bytes(cpio.gzip(image) if recipe.get("compress_kernel") else image)
    (out / "initrd.gz").write_bytes(cpio.gzip(cpio.write(tree)))
    manifest = {
        "format": FORMAT,
        "arch": recipe["arch"],
        "flavour": "tiny",
        "suite": recipe["suite"],
        "recipe_key": key,
        "kernel": {
            "release": about["release"],
            "banner": kernel.banner(vmlinux),
            "build_id": kernel.build_id(vmlinux),
            "modules": about["modules"],
        },
        "programs": about["programs"],
        "libraries": _library_files(tree),
        "run": recipe["run"],
        "packages": about["packages"],
        "files": _outputs(out),
    }
    if "compiler" in about:
        manifest["compiler"] = about["compiler"]
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (out / "manifest.json").write_text(text, encoding="utf-8")


def _kernel_path(package: Package) -> str:
    found = package.paths(r"boot/vmlinu[xz]-|usr/lib/modules/[^/]+/vmlinuz$")
    if len(found) != 1:
        raise BuildError(f"{package.deb.name} has {len(found)} kernel images, not one")
    return found[0]


def _library_files(tree: cpio.Tree) -> list[str]:
    return sorted(f"/{p}" for p in tree.entries if re.match(r"usr/lib.*\.so[.\d]*$", p))


def _outputs(out: Path) -> dict[str, dict[str, Any]]:
    return {
        str(p.relative_to(out)): {
            "size": p.stat().st_size,
            "sha256": file_sha256(p),
        }
        for p in sorted(out.rglob("*"))
        if p.is_file()
    }


# The cache


def ensure(arch: str, cache: Path, refresh: bool = False) -> Path:
    """The guest of an architecture in the cache, built if it has to be."""
    recipe = recipe_of(arch)
    key = recipe_key(recipe)
    guests = cache / "guests"
    guests.mkdir(parents=True, exist_ok=True)
    current = guests / f"{arch}-{key}.current"
    with locked(guests / f"{arch}.lock"):
        if not refresh and current.exists():
            done = guests / current.read_text().strip()
            if (done / "manifest.json").exists():
                return done
        archive, recipe = open_archive(recipe, cache)
        if "source" in recipe:
            built = source.ensure(recipe, archive, cache)
            done = guests / f"{arch}-{digest(key, built.name)}"

            def make(scratch: Path, out: Path) -> None:
                build_from_source(recipe, key, built, out)
        else:
            entries = choose_packages(archive, recipe)
            versions = [f"{n} {e['Version']} {e['SHA256']}" for n, e in sorted(entries.items())]
            done = guests / f"{arch}-{digest(key, *versions)}"

            def make(scratch: Path, out: Path) -> None:
                build(recipe, key, fetch(archive, entries), scratch, out)

        if not (done / "manifest.json").exists():
            with tempfile.TemporaryDirectory(dir=guests, prefix=f".{arch}-") as folder:
                out = Path(folder) / "out"
                out.mkdir()
                make(Path(folder), out)
                shutil.rmtree(done, ignore_errors=True)
                out.rename(done)
        _write_atomically(current, done.name.encode())
        return done


def _write_atomically(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(path)


def publish(built: Path, output: Path) -> bool:
    """Copy a built guest to where it is used; False if it was there already."""
    text = (built / "manifest.json").read_bytes()
    files: dict[str, dict[str, Any]] = json.loads(text)["files"]
    there = output / "manifest.json"
    if there.exists() and there.read_bytes() == text and _same_sizes(output, files):
        return False
    # The manifest goes first and comes last: a guest without one is not used.
    there.unlink(missing_ok=True)
    for name in files:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(output / name, (built / name).read_bytes())
    for old in (output / "copyright").iterdir():
        if f"copyright/{old.name}" not in files:
            old.unlink()
    _write_atomically(there, text)
    return True


def _same_sizes(output: Path, files: dict[str, dict[str, Any]]) -> bool:
    try:
        return all((output / n).stat().st_size == f["size"] for n, f in files.items())
    except OSError:
        return False


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    from debianguest import build as debian_build  # which needs this module

    known = [*architectures(), *debian_build.names()]
    about = f"of: {', '.join(known)}; if none, all but those with a disk (..._debian)"
    parser.add_argument("arch", nargs="*", help=about)
    parser.add_argument("--output", type=Path, help="default: pandalite/_lib/guests/ARCH")
    parser.add_argument("--cache", type=Path, help="default: $PANDALITE_CACHE or the user's cache")
    parser.add_argument("--refresh", action="store_true", help="look for newer packages")
    more = parser.add_argument_group("for guests with a disk")
    more.add_argument("--with", dest="packages", metavar="PACKAGE", action="append", default=[])
    more.add_argument("--with-gcc", action="store_true", help="gcc, libc6-dev and make")
    given = parser.parse_args(arguments)
    if given.output and len(given.arch) != 1:
        parser.error("--output is for one architecture")
    return max(_make(arch, given) for arch in given.arch or architectures())


def _make(arch: str, given: argparse.Namespace) -> int:
    output = given.output or LIB / "guests" / arch
    begin = time.monotonic()
    try:
        built = _ensure_named(arch, given)
        changed = publish(built, output)
    except (
        *(ArchiveError, BuildError, ElfError, ModuleError, PackageError, kernel.KernelError),
        OSError,
    ) as error:
        print(f"build_guest: {arch}: {error}", file=sys.stderr)
        return 1
    parts = (output / name for name in ("kernel", "initrd.gz", "disk.qcow2"))
    size = sum(p.stat().st_size for p in parts if p.exists())
    print(
        f"guest {arch}: {output} ({'written' if changed else 'up to date'}, "
        f"{size / 1e6:.1f} MB, {time.monotonic() - begin:.1f} s)",
        flush=True,
    )
    return 0


def _ensure_named(name: str, given: argparse.Namespace) -> Path:
    """The guest of any flavour in the cache, built if it has to be."""
    from debianguest import build as debian_build

    cache = given.cache or cache_dir()
    if name in debian_build.names():
        recipe = debian_build.recipe_of(name, given.packages, given.with_gcc)
        return debian_build.ensure(recipe, cache, given.refresh)
    if given.packages or given.with_gcc:
        raise BuildError("packages can be added only to guests with a disk (..._debian)")
    return ensure(name, cache, given.refresh)


if __name__ == "__main__":
    # Other modules are to get this one when they import it.
    sys.modules["build_guest"] = sys.modules["__main__"]
    sys.exit(main())
