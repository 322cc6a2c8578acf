"""Build a guest of the debian flavour: a kernel, a small RAM disk, and a disk.

1. apt resolves and downloads the packages.
2. The essential ones are unpacked, as debootstrap does, into a disk image that has
   all packages in /debs besides.
3. The guest itself, run by our core library, lets dpkg install them. So it needs
   neither root nor a way to run the guest's programs on this host. It writes the
   result as a tar archive to a second disk.
4. What differs from run to run is taken out of it, our configuration is added, and
   the disk is made of that.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import build_guest
import host_packages
from debian import Archive
from guestkit import cpio, kernel
from guestkit.deb import Package
from guestkit.modules import Kernel
from project import ROOT, BuildError, digest, load_toml, locked

from debianguest import disk, files

HERE = Path(__file__).resolve().parent
CATALOGUE = ROOT / "pandalite" / "qcows" / "catalogue.json"

#: Seconds the guest may take to configure its packages: minutes, but the host may
#: be busy.
CONFIGURE_TIMEOUT = 3600.0

#: Files of the tiny guests that are the same here.
_SHARED = (
    "etc/hostname",
    "etc/hosts",
    "etc/inittab",
    "etc/inputrc",
    "etc/resolv.conf",
    "usr/sbin/console-shell",
)

#: Directories that others are mounted on when the guest runs.
_MOUNT_POINTS = {"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "tmp": 0o1777}

#: What is not taken over from the guest that was configured: traces of the build,
#: caches, and what would differ from build to build.
_LEFT_OUT = re.compile(
    r"(debs|dev|proc|sys|run|tmp|lost\+found)/.*|"
    r"var/(log|tmp|cache/apt|cache/ldconfig|lib/apt/lists)/.*|"
    r"var/(cache/debconf|lib/dpkg)/[^/]*-old|"
    r"etc/(passwd|group|shadow|gshadow|subuid|subgid)-|"
    r"etc/(machine-id|\.pwd\.lock|hostname|mtab)|"
    r"(debs|lost\+found|var/lib/dpkg/lock.*|var/lib/dpkg/triggers/Lock)"
)

#: Programs of busybox that a system without an init system lacks.
_APPLETS = ("usr/sbin/init", "usr/sbin/poweroff", "usr/sbin/halt", "usr/sbin/reboot")


def names() -> list[str]:
    """The guests of this flavour."""
    return sorted(name for name in load_toml(HERE / "recipe.toml") if name != "common")


def recipe_of(name: str, more: list[str], gcc: bool = False) -> dict[str, Any]:
    """The recipe of a guest, with further packages."""
    table = load_toml(HERE / "recipe.toml")
    recipe = {**table["common"], **table[name], "name": name}
    base = build_guest.recipe_of(recipe["base"])
    recipe["packages"] = sorted({*recipe["packages"], *more, *(recipe["gcc"] if gcc else [])})
    for key in ("suite", "debian", "kernel", "modules"):
        recipe[key] = base[key]
    recipe["compress_kernel"] = base.get("compress_kernel", False)
    recipe["arch"] = recipe["base"]
    recipe["run"] = json.loads(CATALOGUE.read_text())["debian"][name]
    return recipe


def recipe_key(recipe: dict[str, Any]) -> str:
    """A name for all that decides the guest besides the packages' versions."""
    code = [Path(build_guest.__file__), *sorted((ROOT / "tools" / "guestkit").glob("*.py"))]
    code += sorted(HERE.glob("*.py")) + sorted((HERE / "stages").iterdir())
    skeleton = [p for p in sorted((HERE / "rootfs").rglob("*")) if p.is_file()]
    places = "\n".join(str(p.relative_to(HERE)) for p in skeleton)
    shared = [build_guest.ROOTFS / path for path in _SHARED]
    parts = (json.dumps(recipe, sort_keys=True), places, zlib.ZLIB_RUNTIME_VERSION)
    return digest(*parts, *code, *skeleton, *shared)


# Packages


@dataclass(frozen=True)
class Choice:
    """The packages of a guest, in the order apt unpacks them.

    ``kernel`` stays outside of the guest; ``first`` are the essential ones.
    """

    kernel: str
    first: list[str]
    second: list[str]


def choose(archive: Archive, recipe: dict[str, Any]) -> Choice:
    """Resolve what the guest needs."""
    image = next(iter(build_guest.choose_packages(archive, {**recipe, "packages": []})))
    # Without it, apt would take the package that merges /usr, with all of perl.
    first = archive.closure(["?essential", "usr-is-merged"])
    everything = archive.closure(["?essential", *recipe["packages"]])
    return Choice(image, first, [p for p in everything if p not in first])


def uncompressed(deb: Path, target: Path) -> None:
    """Write a package with its parts unpacked, so that the guest need not unpack them."""
    with target.open("xb") as out:
        out.write(b"!<arch>\n")
        for name, command in (("control.tar", "--ctrl-tarfile"), ("data.tar", "--fsys-tarfile")):
            if name == "control.tar":
                _ar_member(out, "debian-binary", b"2.0\n")
            done = subprocess.run(["dpkg-deb", command, str(deb)], stdout=subprocess.PIPE)
            if done.returncode:
                raise BuildError(f"cannot unpack {deb}: delete it and build again")
            _ar_member(out, name, done.stdout)


def _ar_member(out: Any, name: str, data: bytes) -> None:
    out.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
    out.write(data + b"\n" * (len(data) % 2))


# The two systems: the one that installs the packages, and the result


def _newest(debs: list[Path]) -> int:
    """The newest time of any file in the packages: that of the build, as far as it knows."""
    newest = 0
    for deb in debs:
        with _tar_of(deb) as tar:
            newest = max(newest, *(int(m.mtime) for m in tar))
    return newest


@contextlib.contextmanager
def _tar_of(deb: Path) -> Any:
    process = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    with process, tarfile.open(fileobj=process.stdout, mode="r|") as tar:
        yield tar
        while process.stdout.read(1 << 16):
            pass
    if process.returncode:
        raise BuildError(f"cannot unpack {deb}: delete it and build again")


def _links(debian: str) -> files.Files:
    """The directories that are links into /usr."""
    found = {}
    for name in ("bin", "sbin", "lib", *(["lib64"] if debian == "amd64" else [])):
        found[name] = files.symlink(f"usr/{name}")
        found[f"usr/{name}"] = files.directory()
    return found


def first_system(
    recipe: dict[str, Any],
    choice: Choice,
    debs: dict[str, Path],
    modules: Kernel,
    now: int,
    scratch: Path,
) -> files.Files:
    """The disk of the guest that installs the packages."""
    tree = _links(recipe["debian"])
    for path, entry in _modules(recipe, modules).entries.items():
        if path.startswith("usr/lib/modules/") and entry.data:
            tree[path] = files.file(entry.data)
    for package in [*choice.first, "busybox-static"]:
        place = scratch / f"unpacked-{package}"
        place.mkdir()
        with _tar_of(debs[package]) as tar:
            for path, node in files.from_tar(tar, place):
                if path not in tree or not tree[path].link:
                    tree[path] = node
    for path, mode in _MOUNT_POINTS.items():
        tree[path] = files.directory(mode)
    for package in [*choice.first, *choice.second]:
        target = scratch / f"{package}.deb"
        uncompressed(debs[package], target)
        tree[f"debs/{package}.deb"] = files.file(target)
    tree["debs/first"] = files.file("".join(f"{p}\n" for p in choice.first).encode())
    tree["debs/second"] = files.file("".join(f"{p}\n" for p in choice.second).encode())
    script = (HERE / "stages" / "configure").read_text().replace("@EPOCH@", str(now))
    tree["debs/configure"] = files.file(script.encode(), 0o755)
    tree.update(_dpkg_configuration(recipe))
    return tree


def _dpkg_configuration(recipe: dict[str, Any]) -> files.Files:
    rules = [f"path-exclude={p}" for p in recipe["exclude"]]
    rules += [f"path-include={p}" for p in recipe["include"]]
    path = "etc/dpkg/dpkg.cfg.d/pandalite"
    text = _filled((HERE / "rootfs" / path).read_text(), {"EXCLUDE": "\n".join(rules)})
    return {path: files.file(text.encode())}


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def final_system(recipe: dict[str, Any], made: files.Files) -> files.Files:
    """The guest's disk: what dpkg made of the packages, with our configuration."""
    tree = {path: node for path, node in made.items() if not _LEFT_OUT.fullmatch(path)}
    tree.update({p: node for p, node in _links(recipe["debian"]).items() if node.link})
    # They stay, empty.
    for path, mode in {
        **_MOUNT_POINTS,
        "var/tmp": 0o1777,
        "var/log/apt": 0o755,
        "var/cache/apt/archives/partial": 0o755,
        "var/lib/apt/lists/partial": 0o755,
        "media/cdrom": 0o755,
    }.items():
        tree[path] = files.directory(mode)
    values = {
        **build_guest._values(recipe, "/bin/bash"),
        "EXCLUDE": "",
        "ARCH": recipe["base"],
    }
    sources = {p: build_guest.ROOTFS / p for p in _SHARED}
    rootfs = HERE / "rootfs"
    sources.update({str(p.relative_to(rootfs)): p for p in rootfs.rglob("*") if p.is_file()})
    for path, source in sorted(sources.items()):
        text = _filled(source.read_text(), values)
        tree[path] = files.file(text.encode(), 0o755 if text.startswith("#!") else 0o644)
    tree.update(_dpkg_configuration(recipe))
    tree["etc/mtab"] = files.symlink("../proc/self/mounts")
    tree["etc/machine-id"] = files.file(b"")
    for path in _APPLETS:
        tree.setdefault(path, files.symlink("../bin/busybox"))
    return tree


def _modules(recipe: dict[str, Any], modules: Kernel) -> cpio.Tree:
    tree = cpio.Tree()
    build_guest.add_modules(tree, modules, recipe)
    return tree


def initrd(recipe: dict[str, Any], modules: Kernel, busybox: Package) -> bytes:
    """The RAM disk: busybox, the drivers, and the script that mounts the disk."""
    tree = _modules(recipe, modules)
    for path in ("bin", "sbin", "lib"):
        tree.directory(f"usr/{path}")
        tree.symlink(path, f"usr/{path}")
    for path in ("proc", "sys", "dev", "newroot"):
        tree.directory(path)
    tree.device("dev/console", 5, 1)
    tree.file("usr/bin/busybox", busybox.read("usr/bin/busybox"), 0o755)
    tree.file("init", (HERE / "stages" / "init").read_bytes(), 0o755)
    return cpio.gzip(cpio.write(tree))


# Running the guest


def configure(recipe: dict[str, Any], place: Path, image: Path, result: Path) -> None:
    """Have the guest on the disk ``image`` install its packages, and write to ``result``.

    BuildError, with the last lines it printed, if it does not get done.
    """
    run = recipe["run"]
    log = place / "configure.log"
    words = [*run["machine"], "-serial", f"file:{log}"]
    for drive in (image, result):
        file = str(drive).replace(",", ",,")
        words += ["-drive", f"file={file},format=raw,if=virtio,cache=unsafe"]
    append = f"{run['append']} pandalite.init=/debs/configure"
    words += ["-kernel", str(place / "kernel"), "-initrd", str(place / "initrd.gz")]
    request = {
        "arch": run.get("library", recipe["arch"]),
        "mem": "1G",
        "extra_args": [*words, "-append", append],
    }
    command = [sys.executable, str(HERE / "run.py"), json.dumps(request)]
    said = ""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=CONFIGURE_TIMEOUT,
        )
        said = done.stdout[-1000:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"it was not done after {CONFIGURE_TIMEOUT:.0f} s"
    text = log.read_text(errors="replace").replace("\r", "") if log.exists() else ""
    if not re.search(r"^pandalite: done$", text, re.MULTILINE):
        raise BuildError(
            f"the guest could not install its packages. {said}\nIts last lines:\n"
            + "\n".join(text.splitlines()[-25:])
        )


# All of it


def build(
    recipe: dict[str, Any],
    key: str,
    choice: Choice,
    debs: dict[str, Path],
    scratch: Path,
    out: Path,
) -> None:
    """Make the files of a guest in the empty directory ``out``."""
    everything = sorted([choice.kernel, *choice.first, *choice.second])
    now = _newest([debs[p] for p in everything if p != choice.kernel])
    size, inodes = recipe["disk_size"], recipe["inodes"]
    packages = _notices(everything, debs, scratch, out)
    with contextlib.ExitStack() as stack:
        image = stack.enter_context(Package(debs[choice.kernel], scratch))
        busybox = stack.enter_context(Package(debs["busybox-static"], scratch))
        modules = Kernel(image)
        data = image.read(build_guest._kernel_path(image))
        (out / "kernel").write_bytes(cpio.gzip(data) if recipe["compress_kernel"] else data)
        (out / "initrd.gz").write_bytes(initrd(recipe, modules, busybox))
        for name in ("kernel", "initrd.gz"):
            shutil.copyfile(out / name, scratch / name)

        first, result = scratch / "first.img", scratch / "result.tar"
        tree = first_system(recipe, choice, debs, modules, now, scratch)
        files.write_ext4(first, tree, size=size, inodes=inodes, label="build", time=now)
        with result.open("xb") as file:
            file.truncate(size)
        _say("packages unpacked; the guest installs them, which takes minutes")
        configure(recipe, scratch, first, result)
        first.unlink()

        unpacked = scratch / "result"
        unpacked.mkdir()
        with tarfile.open(result, "r:") as tar:
            made = dict(files.from_tar(tar, unpacked))
        tree = files.clamped(files.with_parents(final_system(recipe, made), now), now)
        final = scratch / "final.img"
        label = recipe["name"][:16]
        files.write_ext4(final, tree, size=size, inodes=inodes, label=label, time=now)
        disk.compress(final, out / "disk.qcow2")
        about = {"release": modules.release, "modules": sorted(_module_names(recipe, modules))}
    _write_manifest(recipe, key, kernel.vmlinux(data), about, packages, out)


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


def _module_names(recipe: dict[str, Any], modules: Kernel) -> list[str]:
    return build_guest.add_modules(cpio.Tree(), modules, recipe)


def _notices(
    everything: list[str], debs: dict[str, Path], scratch: Path, out: Path
) -> list[dict[str, Any]]:
    """Write the packages' copyright files; returns their entries of the manifest."""
    (out / "copyright").mkdir()
    with contextlib.ExitStack() as stack:
        opened = {n: stack.enter_context(Package(debs[n], scratch)) for n in everything}
        found = []
        for package in opened.values():
            notice = notice_of(package, opened)
            (out / notice.notice_path).write_bytes(notice.copyright())
            found.append(package.describe(notice))
        return found


def notice_of(package: Package, packages: dict[str, Package]) -> Package:
    """The package that has the copyright file of a package: one it depends on, or itself.

    BuildError if none of ``packages`` has it.
    """
    notice = package
    for _ in range(8):  # gcc's documents are cpp's, libctf0's are libbinutils', and so on
        if notice.notice_of == notice.name:
            if f"usr/share/doc/{notice.name}/copyright" in notice:
                return notice
            break
        if notice.notice_of not in packages:
            break
        notice = packages[notice.notice_of]
    raise BuildError(f"the package {package.name} has no copyright file, and cannot be used")


def _write_manifest(
    recipe: dict[str, Any],
    key: str,
    vmlinux: bytes,
    about: dict[str, Any],
    packages: list[dict[str, Any]],
    out: Path,
) -> None:
    manifest = {
        "format": build_guest.FORMAT,
        "arch": recipe["name"],
        "flavour": "debian",
        "suite": recipe["suite"],
        "recipe_key": key,
        "recipe": {"packages": recipe["packages"], "exclude": recipe["exclude"]},
        "kernel": {
            **about,
            "banner": kernel.banner(vmlinux),
            "build_id": kernel.build_id(vmlinux),
        },
        "run": recipe["run"],
        "packages": packages,
        "files": build_guest._outputs(out),
    }
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (out / "manifest.json").write_text(text, encoding="utf-8")


def ensure(recipe: dict[str, Any], cache: Path, refresh: bool = False) -> Path:
    """The guest in the build cache, built if it has to be."""
    name, key = recipe["name"], recipe_key(recipe)
    guests = cache / "guests"
    guests.mkdir(parents=True, exist_ok=True)
    current = guests / f"{name}-{key}.current"
    with locked(guests / f"{name}.lock"):
        if not refresh and current.exists():
            done = guests / current.read_text().strip()
            if (done / "manifest.json").exists():
                return done
        _need_tools()
        begin = time.monotonic()
        archive = Archive(recipe["suite"], recipe["debian"], cache)
        choice = choose(archive, recipe)
        everything = [choice.kernel, *choice.first, *choice.second]
        entries = archive.show_all(everything)
        versions = [f"{n} {e['Version']} {e['SHA256']}" for n, e in sorted(entries.items())]
        done = guests / f"{name}-{digest(key, *versions)}"
        if not (done / "manifest.json").exists():
            debs = dict(zip(entries, build_guest.fetch(archive, entries)))
            _say(f"{len(debs)} packages are here after {time.monotonic() - begin:.0f} s")
            with tempfile.TemporaryDirectory(dir=guests, prefix=f".{name}-") as folder:
                out = Path(folder) / "out"
                out.mkdir()
                build(recipe, key, choice, debs, Path(folder), out)
                shutil.rmtree(done, ignore_errors=True)
                out.rename(done)
        build_guest._write_atomically(current, done.name.encode())
        return done


def _need_tools() -> None:
    """Have mke2fs, debugfs and e2fsck here, installed if that can be done."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where they are; not in a user's path
    missing = [tool for tool in ("mke2fs", "debugfs", "e2fsck") if not shutil.which(tool)]
    if missing and not host_packages.install(["e2fsprogs"]):
        command = " ".join(host_packages.install_command(["e2fsprogs"]))
        raise BuildError(f"{' and '.join(missing)} are missing; type: sudo {command}")
