"""tools/build_guest.py: what is in the guests, and that equal input gives equal bytes."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import posixpath
import re
import shutil
import stat
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from ctools import ROOT
from elftools.elf.elffile import ELFFile

sys.path.insert(0, str(ROOT / "tools"))

import build_guest
from debian import Archive
from guestkit import cpio, kernel, source
from guestkit.modules import Module, index_files
from project import LIB, BuildError, cache_dir

#: Those that `make guests` builds, and what others are built in this checkout.
ARCHES = [
    arch
    for arch in build_guest.architectures()
    if arch in ("x86_64", "i386") or (LIB / "guests" / arch / "manifest.json").exists()
]

#: The cross compilers of the guests that are compiled from source.
TOOLCHAINS = [
    recipe["toolchain"]
    for recipe in map(build_guest.recipe_of, build_guest.architectures())
    if "source" in recipe
]


@pytest.fixture(scope="module", params=ARCHES)
def built(request: pytest.FixtureRequest) -> Path:
    """A guest from the build cache, built if it is not there."""
    return build_guest.ensure(request.param, cache_dir())


@pytest.fixture(scope="module")
def manifest(built: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((built / "manifest.json").read_text())
    return result


@pytest.fixture(scope="module")
def files(built: Path) -> dict[str, cpio.Entry]:
    """The files of the guest by path."""
    archive = zlib.decompress((built / "initrd.gz").read_bytes(), 31)
    return dict(cpio.read(archive))


def follow(files: dict[str, cpio.Entry], path: str) -> cpio.Entry:
    """What is at a path in the guest, through all links; KeyError if nothing is."""
    place = ""
    parts = path.strip("/").split("/")
    for _ in range(40):
        if not parts:
            return files[place]
        here = posixpath.join(place, parts.pop(0))
        entry = files[here]
        if stat.S_ISLNK(entry.mode):
            target = entry.data.decode()
            base = "" if target.startswith("/") else place
            parts = posixpath.normpath(posixpath.join(base, target)).strip("/").split("/") + parts
            place = ""
        else:
            place = here
    raise AssertionError(f"too many links at {path}")


# The builder


def deb_files(manifest: dict[str, Any], recipe: dict[str, Any]) -> list[Path]:
    """The packages a guest was built from, in the build cache."""
    if manifest["suite"] != recipe["suite"]:
        recipe = {**recipe, **recipe["fallback"]}
    folder = cache_dir() / "debian" / f"{recipe['suite']}-{recipe['debian']}"
    debs = {d["package"]: folder / d["file"] for d in manifest["packages"]}
    if not all(deb.exists() for deb in debs.values()):
        build_guest.fetch(*_archive(recipe))
    return list(debs.values())


def _archive(recipe: dict[str, Any]) -> tuple[Any, dict[str, dict[str, str]]]:
    archive = Archive(recipe["suite"], recipe["debian"], cache_dir())
    return archive, build_guest.choose_packages(archive, recipe)


BUILD_AGAIN = """
import json, sys, os
from pathlib import Path
sys.path.insert(0, sys.argv[1])
os.umask(0o077)
import build_guest
job = json.loads(sys.stdin.read())
out = Path(job["out"])
build_guest.build(job["recipe"], job["key"], [Path(d) for d in job["debs"]], out.parent, out)
"""


def test_two_builds_are_equal(tmp_path: Path) -> None:
    # Compare with what is in the cache a build by another process, elsewhere,
    # with another hash seed, time zone and umask. (The smaller guest, to be
    # done sooner.)
    recipe = build_guest.recipe_of("i386")
    done = build_guest.ensure("i386", cache_dir())
    manifest = json.loads((done / "manifest.json").read_text())
    out = tmp_path / "place" / "out"
    out.mkdir(parents=True)
    job = {
        "recipe": recipe,
        "key": manifest["recipe_key"],
        "debs": list(map(str, deb_files(manifest, recipe))),
        "out": str(out),
    }
    subprocess.run(
        [sys.executable, "-c", BUILD_AGAIN, str(ROOT / "tools")],
        input=json.dumps(job),
        cwd=out.parent,
        env={**os.environ, "PYTHONHASHSEED": "4711", "TZ": "Asia/Kathmandu"},
        text=True,
        check=True,
    )
    first, second = (
        {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}
        for top in (done, out)
    )
    assert sorted(first) == sorted(second)
    assert "initrd.gz" in first
    for name, data in first.items():
        assert data == second[name], f"{name} differs"


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_compiled_code_does_not_tell_its_place(toolchain: str, tmp_path: Path) -> None:
    # As kbuild compiles the vDSOs of MIPS, where a link leads to the build cache.
    if shutil.which(f"{toolchain}-gcc") is None:
        pytest.skip(f"{toolchain}-gcc is not installed")
    made = []
    for place in ("one", "an/other"):
        (tmp_path / place / "tree").mkdir(parents=True)
        tree = tmp_path / f"link{len(made)}" / "tree"
        tree.parent.symlink_to(tmp_path / place)
        (tree / "code.c").write_text("const char *file(void) { return __FILE__; }\n")
        (tree / "code.S").write_text(".text\n.globl code\ncode: nop\n")
        command = source.placeless_compiler(toolchain, tree).split()
        for name, option in (("code.c", "-g"), ("code.S", "-Wa,-gdwarf-2")):
            words = [*command, option, "-c", name, "-o", f"{name}.o"]
            subprocess.run(words, cwd=tree, check=True)
        made.append([(tree / f"code.{kind}.o").read_bytes() for kind in "cS"])
    assert made[0] == made[1]
    assert not any(str(tmp_path).encode() in data for data in made[0])


def test_second_run_uses_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_guest.ensure("i386", cache_dir())

    def no_archive(*_: object) -> None:
        raise AssertionError("looked at the archive")

    monkeypatch.setattr(build_guest, "Archive", no_archive)
    out = tmp_path / "out"
    assert build_guest.main(["i386", "--output", str(out)]) == 0
    before = (out / "kernel").stat()
    assert build_guest.main(["i386", "--output", str(out)]) == 0
    after = (out / "kernel").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    # A damaged copy is put right.
    (out / "initrd.gz").write_bytes(b"cut off")
    assert build_guest.main(["i386", "--output", str(out)]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert (out / "initrd.gz").stat().st_size == manifest["files"]["initrd.gz"]["size"]


def test_key_depends_on_the_recipe() -> None:
    recipe = build_guest.recipe_of("i386")
    key = build_guest.recipe_key(recipe)
    assert key == build_guest.recipe_key(build_guest.recipe_of("i386"))
    assert key != build_guest.recipe_key({**recipe, "run": {**recipe["run"], "mem": "1G"}})
    assert key != build_guest.recipe_key(build_guest.recipe_of("x86_64"))


def test_unknown_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BuildError, match=r"vax.*i386"):
        build_guest.recipe_of("vax")
    with pytest.raises(BuildError):
        build_guest.recipe_of("common")
    assert build_guest.main(["vax"]) == 1
    assert "vax" in capsys.readouterr().err


# What was built


def test_manifest(built: Path, manifest: dict[str, Any]) -> None:
    for name, facts in manifest["files"].items():
        data = (built / name).read_bytes()
        assert facts == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    there = {str(p.relative_to(built)) for p in built.rglob("*") if p.is_file()}
    assert there == {*manifest["files"], "manifest.json"}
    for package in manifest["packages"]:
        assert re.fullmatch(r"[0-9a-f]{64}", package["sha256"])
        assert package["version"] and package["source"] and package["source_version"]
        assert (built / package["copyright"]).stat().st_size > 200
    assert any("GPL-2" in name for name in manifest["packages"][0]["licences"])
    assert manifest["run"] == build_guest.recipe_of(manifest["arch"])["run"]


def test_input_hashes(manifest: dict[str, Any]) -> None:
    debs = deb_files(manifest, build_guest.recipe_of(manifest["arch"]))
    for deb, package in zip(debs, manifest["packages"]):
        assert hashlib.sha256(deb.read_bytes()).hexdigest() == package["sha256"]


def test_kernel_facts(built: Path, manifest: dict[str, Any]) -> None:
    image = (built / "kernel").read_bytes()
    facts = manifest["kernel"]
    assert re.fullmatch(r"[0-9a-f]{40}", facts["build_id"])
    assert facts["release"] in facts["banner"]
    if image[0x202:0x206] == b"HdrS":
        # The boot protocol's own version string, which is not compressed.
        at = int.from_bytes(image[0x20E:0x210], "little") + 0x200
        assert image[at:].startswith(facts["release"].encode())
    assert kernel.build_id(kernel.vmlinux(image)) == facts["build_id"]


def test_programs_find_their_libraries(
    manifest: dict[str, Any], files: dict[str, cpio.Entry]
) -> None:
    dynamic = 0
    for path, entry in files.items():
        if not entry.data.startswith(b"\x7fELF") or path.endswith(".ko"):
            continue
        elf: Any = ELFFile(io.BytesIO(entry.data))
        interpreter = [s.get_interp_name() for s in elf.iter_segments("PT_INTERP")]
        if interpreter:
            dynamic += 1
            found = follow(files, interpreter[0])
            assert found.data.startswith(b"\x7fELF") and found.mode & 0o111
        section = elf.get_section_by_name(".dynamic")
        for tag in section.iter_tags("DT_NEEDED") if section is not None else ():
            place = [p for p in manifest["libraries"] if posixpath.basename(p) == tag.needed]
            assert place, f"{path} needs {tag.needed}"
            library = ELFFile(io.BytesIO(follow(files, place[0]).data))
            assert library["e_machine"] == elf["e_machine"]
    # Compiled guests have one program with many names.
    assert dynamic >= (1 if "compiler" in manifest else len(manifest["programs"]))
    assert len(manifest["programs"]) > 10
    for program in manifest["programs"]:
        assert follow(files, program).mode & 0o111


def test_kernel_modules(manifest: dict[str, Any], files: dict[str, cpio.Entry]) -> None:
    if "compiler" in manifest:
        assert not [p for p in files if p.endswith(".ko")] and not files["etc/modules"].data
        return
    release = manifest["kernel"]["release"]
    base = f"usr/lib/modules/{release}"
    dep = dict(
        line.split(":", 1) for line in files[f"{base}/modules.dep"].data.decode().splitlines()
    )
    modules = {p for p in files if p.endswith(".ko")}
    assert {f"{base}/{p}" for p in dep} == modules
    by_name = {posixpath.basename(p)[:-3].replace("-", "_"): p for p in dep}
    builtin = {
        posixpath.basename(line)[:-3].replace("-", "_")
        for line in files[f"{base}/modules.builtin"].data.decode().split()
    }
    for name, path in by_name.items():
        elf: Any = ELFFile(io.BytesIO(files[f"{base}/{path}"].data))
        info = elf.get_section_by_name(".modinfo")
        pairs = [item.partition(b"=") for item in info.data().split(b"\0")]
        (depends,) = (value.decode() for key, _, value in pairs if key == b"depends")
        wanted = {d.replace("-", "_") for d in depends.split(",") if d} - builtin
        listed = dep[path].split()
        assert {by_name[d] for d in wanted} <= set(listed), name
        assert all(f"{base}/{d}" in modules for d in listed)
    own = "ata_piix" if manifest["arch"] in ("x86_64", "i386") else "virtio_scsi"
    for name in ("virtio_net", "virtio_blk", own, "isofs", "sr_mod", "sd_mod"):
        assert name in by_name or name in builtin
    if manifest["arch"] == "i386":
        assert "e1000" in by_name
    aliases = files[f"{base}/modules.alias"].data.decode()
    if "virtio_pci" in by_name:
        assert re.search(r"^alias pci:v00001AF4\S* virtio_pci$", aliases, re.MULTILINE)
    assert set(files["etc/modules"].data.decode().split()) <= set(by_name) | builtin


def test_system_files(manifest: dict[str, Any], files: dict[str, cpio.Entry]) -> None:
    run = manifest["run"]
    assert follow(files, "init").data.startswith(b"\x7fELF")
    assert f"{run['console']}::respawn:" in files["etc/inittab"].data.decode()
    assert f"PS1='{run['prompt']}'" in files["usr/sbin/console-shell"].data.decode()
    assert files["etc/hostname"].data.decode().strip() == run["hostname"]
    users = {
        f[0]: (f[2], f[6])
        for f in (line.split(":") for line in files["etc/passwd"].data.decode().splitlines())
    }
    assert users["root"][0] == "0" and users["user"][0] == "1000"
    follow(files, users["user"][1])
    assert files["home/user"].owner == 1000
    assert stat.S_ISCHR(files["dev/console"].mode) and files["dev/console"].device == (5, 1)
    assert files["tmp"].mode & 0o7777 == 0o1777
    for path, entry in files.items():
        if stat.S_ISREG(entry.mode) and entry.data.startswith(b"#!"):
            assert entry.mode & 0o111, f"{path} cannot be executed"
            follow(files, entry.data.split()[0][2:].decode())
            assert not re.search(rb"@[A-Z]+@", entry.data)


# The parts


def test_cpio_round_trip() -> None:
    tree = cpio.Tree()
    tree.file("a/b/file", b"odd length!", 0o750)
    tree.symlink("a/link", "b/file")
    tree.device("dev/console", 5, 1)
    tree.directory("home/user", owner=1000)
    assert dict(cpio.read(cpio.write(tree))) == tree.entries
    assert list(tree.entries) == ["a", "a/b", "a/b/file", "a/link", "dev", *list(tree.entries)[5:]]
    tree.file("a/b/file", b"odd length!", 0o750)  # the same again
    with pytest.raises(ValueError, match="two different"):
        tree.file("a/b/file", b"other", 0o750)
    with pytest.raises(ValueError, match="not a directory"):
        tree.file("a/link/file", b"")


def test_module_index() -> None:
    def module(name: str, *depends: str) -> Module:
        return Module(name, f"kernel/{name}.ko", b"", depends, (f"x:{name}*",))

    index = index_files([module("a"), module("b", "a"), module("c", "b", "a")], b"kernel/z.ko\n")
    assert index["modules.dep"] == (
        b"kernel/a.ko:\nkernel/b.ko: kernel/a.ko\nkernel/c.ko: kernel/b.ko kernel/a.ko\n"
    )
    assert index["modules.alias"] == b"alias x:a* a\nalias x:b* b\nalias x:c* c\n"


def test_kernel_compressions() -> None:
    elf = b"\x7fELF" + bytes(range(256)) * 40
    # One LZ4 block: 4 literals, a match that overlaps itself, and literals.
    block = bytes([0x4F]) + b"abcd" + b"\x02\x00" + bytes([5]) + bytes([0x30]) + b"xyz"
    legacy = b"\x02\x21\x4c\x18" + len(block).to_bytes(4, "little") + block + b"\0\0\0\1"
    assert kernel._decompress(legacy) == b"abcd" + b"cd" * 12 + b"xyz"
    for packed in (lzma.compress(elf), lzma.compress(elf, lzma.FORMAT_ALONE), cpio.gzip(elf)):
        assert kernel._decompress(packed + b"rest of the image") == elf
    with pytest.raises(kernel.KernelError, match="unknown compression"):
        kernel._decompress(b"????")
    with pytest.raises(kernel.KernelError, match="no kind"):
        kernel.vmlinux(bytes(4096))
