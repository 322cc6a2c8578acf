"""Symbols of the guest's programs, compared with the files they are from."""

from __future__ import annotations

import io
import random
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from ctools import ROOT, compile_for_guest
from elftools.elf.elffile import ELFFile
from guest import boot, built, in_guest, run_case
from hostile import Tally
from test_os_guest import at_rest

from pandalite.errors import IntrospectionError

sys.path.insert(0, str(ROOT / "tools"))

from guestkit import cpio

#: A program with functions that no library's table has; it stays in one of them.
PROGRAM = r"""
#include <unistd.h>
volatile long turns;
/* So much that nobody reads is in front of the table of all symbols. */
__asm__(".pushsection .pad,\"\",@progbits; .zero 3 << 20; .popsection");
static __attribute__((noinline)) int hidden_loop(int n)
{
    for (;;) {
        turns += n;
    }
    return n;
}
__attribute__((noinline)) int outer_function(int n)
{
    return hidden_loop(n) + 1;
}
int main(int argc, char **argv)
{
    return outer_function(argc);
}
"""


#: Guests whose kernel has no VMCOREINFO, or page structures its tables do not lead to.
NO_PAGE_CACHE = ("mips", "mipsel", "mips64", "mips64el", "ppc")


def compile_program(folder: Path, triple: str) -> Path:
    program = folder / "lingers"
    done = compile_for_guest(PROGRAM, folder, triple, "-O1", "-pie", "-o", str(program))
    assert done.returncode == 0, done.stderr
    return program


def symbols_of(file: Any, section: str) -> set[tuple[str, int, int, str]]:
    """What a file's table has that can be somewhere: name, address, size, version."""
    elf = ELFFile(file)
    table = elf.get_section_by_name(section)
    numbers = definitions = None
    if section == ".dynsym" and elf.get_section_by_name(".gnu.version"):
        numbers = elf.get_section_by_name(".gnu.version")
        definitions = elf.get_section_by_name(".gnu.version_d")
    versions = {}
    if definitions is not None:
        for version, names in definitions.iter_versions():
            if not version["vd_flags"] & 1:
                versions[version["vd_ndx"]] = next(iter(names)).name
    found = set()
    for index, symbol in enumerate(table.iter_symbols()):
        kind = symbol["st_info"]["type"]
        if (
            symbol["st_shndx"] in ("SHN_UNDEF", "SHN_ABS")
            or not symbol["st_value"]
            or not symbol.name
            or symbol.name.startswith("$")
            or kind in ("STT_SECTION", "STT_FILE", "STT_TLS")
        ):
            continue
        value = symbol["st_value"]
        if elf["e_machine"] == "EM_ARM" and kind in ("STT_FUNC", "STT_LOOS"):
            value &= ~1
        if elf["e_machine"] == "EM_PPC64" and not elf["e_flags"] & 2 and kind == "STT_FUNC":
            value = 0
        version = ""
        if numbers is not None:
            number = numbers.get_symbol(index)["ndx"]
            version = versions.get(number & 0x7FFF, "") if isinstance(number, int) else ""
        found.add((symbol.name, value, symbol["st_size"], version))
    return found


def case_libc(arch: str, root: str) -> dict[str, Any]:
    panda = boot(arch)

    def work() -> dict[str, Any]:
        # Kernels without VMCOREINFO do not show what they have in memory of files.
        panda.os.set_symbol_directory(root if arch in NO_PAGE_CACHE else None)
        panda.run_serial_cmd("sleep 1000 &")
        return at_rest(panda, look)

    def look(cpu: Any) -> dict[str, Any]:
        process = next(
            p
            for p in panda.os.processes()
            if p.mm and any("/libc.so" in m.path for m in p.mappings())
        )
        libc = next(lib for lib in process.libraries() if "/libc.so" in lib.path)
        symbols = process.symbols("/libc.so")
        inside = process.symbol("malloc", "/libc.so")
        wrong = []
        for s in symbols[::7]:
            at = process.symbol_at(s.address + max(0, s.size - 1))
            # Tables have symbols within others.
            if s.size and (at is None or at.address < s.address):
                wrong.append([s.name, str(at)])
        return {
            "path": libc.path,
            "complete": libc.complete,
            "symbols": [[s.name, s.address - libc.bias, s.size, s.version] for s in symbols],
            "function": inside.function and inside.exported,
            "text": str(process.symbol_at(inside.address + 1)),
            "wrong": wrong,
            "nowhere": process.symbol_at(8) is None,
            "errors": [
                error_of(lambda: process.symbol("no_such_symbol")),
                error_of(lambda: process.symbol("malloc", "libnone")),
                error_of(lambda: process.symbols("libnone")),
            ],
        }

    return in_guest(panda, work)


def error_of(call: Any) -> str:
    try:
        call()
    except IntrospectionError as error:
        return str(error)
    return "none"


@pytest.mark.parametrize(
    "arch",
    (
        *("x86_64", "i386", "arm", "aarch64", "mips", "mipsel", "mips64", "mips64el"),
        *("ppc", "ppc64", "ppc64el", "riscv64"),
    ),
)
def test_libc(arch: str, tmp_path: Path) -> None:
    folder = ROOT / "pandalite" / "_lib" / "guests" / built(arch)
    files = dict(cpio.read(zlib.decompress((folder / "initrd.gz").read_bytes(), 31)))
    for name in files:
        if name.endswith("/libc.so.6"):
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).write_bytes(files[name].data)
    found = run_case(case_libc, arch, str(tmp_path))
    assert found["complete"]
    entry = files[found["path"].lstrip("/")]
    expected = symbols_of(io.BytesIO(entry.data), ".dynsym")
    got = {tuple(s) for s in found["symbols"]}
    if arch == "ppc64":
        # Where a function's code is, its descriptor says.
        got = {(name, 0, size, version) for name, _, size, version in got}
        expected = {(name, 0, size, version) for name, _, size, version in expected}
    assert got == expected
    assert found["function"]
    assert found["text"].endswith("!malloc+0x1") or "malloc" in found["text"]
    assert found["wrong"] == []
    assert found["nowhere"]
    assert "no_such_symbol" in found["errors"][0]
    assert "libnone" in found["errors"][1]
    assert "libnone" in found["errors"][2]


def case_full_table(arch: str, folder: str) -> dict[str, Any]:
    panda = boot(arch)

    def work() -> dict[str, Any]:
        panda.copy_to_guest(folder)
        panda.run_serial_cmd(f"./{Path(folder).name}/lingers & sleep 0.5")
        seen = []

        @panda.cb_before_block_exec(procname="lingers", kernel=False, name="pc")
        def before_block_exec(cpu: Any, tb: Any) -> None:
            if len(seen) < 20:
                seen.append(str(panda.os.current.symbol_at(tb.pc)))

        panda.run_serial_cmd("sleep 1")
        panda.delete_callback("pc")
        found = at_rest(panda, look)
        found["seen"] = sorted(set(seen))
        return found

    def look(cpu: Any) -> dict[str, Any]:
        process = next(p for p in panda.os.processes() if p.name == "lingers")
        own = next(lib for lib in process.libraries() if lib.path.endswith("/lingers"))
        return {
            "complete": own.complete,
            "symbols": [
                [s.name, s.address - own.bias, s.size, ""] for s in process.symbols("/lingers")
            ],
        }

    return in_guest(panda, work)


@pytest.mark.parametrize(
    ("arch", "triple"), (("x86_64", "x86_64-linux-gnu.2.28"), ("i386", "x86-linux-gnu.2.28"))
)
def test_full_table(arch: str, triple: str, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    program = compile_program(folder, triple)
    with program.open("rb") as file:
        expected = symbols_of(file, ".symtab")
    found = run_case(case_full_table, arch, str(folder))
    assert found["complete"]
    got = {tuple(s) for s in found["symbols"]}
    assert expected - got == set()
    assert found["seen"]
    assert {text.split("+")[0] for text in found["seen"]} == {"lingers!hidden_loop"}


def case_directory(folder: str, root: str) -> dict[str, Any]:
    panda = boot("x86_64")

    def work() -> dict[str, Any]:
        from pandalite.iso9660 import make_iso

        image = f"{folder}.iso"
        make_iso(folder, image)
        panda.run_monitor_cmd(f"change {panda.cdrom or 'ide1-cd0'} {image}")
        panda.run_serial_cmd("mkdir -p /tmp/cd; mount /dev/sr0 /tmp/cd; /tmp/cd/lingers & sleep 1")
        return at_rest(panda, look)

    def look(cpu: Any) -> dict[str, Any]:
        process = next(p for p in panda.os.processes() if p.name == "lingers")

        def here() -> list[Any]:
            own = next(lib for lib in process.libraries() if lib.path.endswith("/lingers"))
            try:
                return [own.complete, process.symbol("hidden_loop").address - own.bias]
            except IntrospectionError:
                return [own.complete, None]

        found: dict[str, Any] = {"before": here()}
        panda.os.set_symbol_directory(root)
        found["with"] = here()
        Path(root, "tmp/cd/lingers").write_bytes(b"another file" * 1000)
        panda.os.set_symbol_directory(root)
        found["other"] = here()
        try:
            panda.os.set_symbol_directory(root + "/none")
        except ValueError as error:
            found["error"] = str(error)
        panda.os.set_symbol_directory(None)
        return found

    return in_guest(panda, work)


def test_directory(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    program = compile_program(folder, "x86_64-linux-gnu.2.28")
    (tmp_path / "root/tmp/cd").mkdir(parents=True)
    (tmp_path / "root/tmp/cd/lingers").write_bytes(program.read_bytes())
    with program.open("rb") as file:
        place = next(v for n, v, _, _ in symbols_of(file, ".symtab") if n == "hidden_loop")
    found = run_case(case_directory, str(folder), str(tmp_path / "root"))
    # The far end of the file was never read from the disk.
    assert found["before"] == [False, None]
    assert found["with"] == [True, place]
    assert found["other"] == [False, None]
    assert "none" in found["error"]


def case_hostile(rounds: int) -> dict[str, int]:
    """Files of a program are changed in memory at random, mostly where their tables are."""
    panda = boot()
    rng = random.Random(11)
    tally = Tally()
    out, attempt = tally.counts, tally.attempt

    def look(cpu: Any, process: Any) -> None:
        starts = [lib.start for lib in process.libraries()]
        sizes = [0x40, 0x400, 0x1000, 0x20000]
        pages = {}
        for start in starts:
            for at in range(start, start + 0x20000, 0x1000):
                physical = panda.virt_to_phys(cpu, at)
                if physical not in (-1, 0xFFFFFFFFFFFFFFFF):
                    pages[at] = physical
        names = [s.name for s in process.symbols("/libc.so")][::97]
        addresses = [process.symbol(name, "/libc.so").address for name in names]
        while out["rounds"] < rounds:
            saved = []
            for _ in range(rng.randrange(1, 8)):
                at = rng.choice(starts) + 4 * (rng.randrange(rng.choice(sizes)) // 4)
                if at & ~0xFFF not in pages:
                    continue
                physical = pages[at & ~0xFFF] + (at & 0xFF8)
                new = rng.choice(
                    [
                        rng.randbytes(8),
                        bytes(8),
                        b"\xff" * 8,
                        (1 << rng.randrange(64)).to_bytes(8, "little"),
                        rng.choice(starts).to_bytes(8, "little"),
                        b"\x7fELF\x02\x01\x01\0",
                    ]
                )
                saved.append((physical, panda.physical_memory_read(physical, 8)))
                panda.physical_memory_write(physical, new)
            # Nothing is remembered of what was read before.
            panda.os.set_symbol_directory(None)
            attempt(process.libraries)
            attempt(lambda: process.symbol(rng.choice(names)))
            attempt(lambda: process.symbol_at(rng.choice(addresses)))
            attempt(lambda: process.symbols(rng.choice(["/libc.so", "/cat", "ld-linux"])))
            for physical, old in reversed(saved):
                panda.physical_memory_write(physical, old)
            out["rounds"] += 1
        panda.os.set_symbol_directory(None)
        assert process.symbol(names[0], "/libc.so").address == addresses[0]

    def work() -> None:
        done = []

        @panda.cb_before_block_exec(procname="cat", kernel=False, name="look")
        def before_block_exec(cpu: Any, tb: Any) -> None:
            process = panda.os.current
            if not done and any("/libc.so" in lib.path for lib in process.libraries()):
                done.append(True)
                look(cpu, process)

        panda.run_serial_cmd("cat /etc/passwd > /dev/null")

    in_guest(panda, work)
    return out


def test_hostile() -> None:
    out = run_case(case_hostile, 400)
    assert out["rounds"] == 400
    assert out["answers"] > 400 and out["errors"] > 10


def case_hostile_text() -> dict[str, list[str]]:
    """What the kernel says of itself for crash dumps is changed: sizes that make no sense."""
    panda = boot()
    found: dict[str, list[str]] = {"before": [], "after": []}

    def look(cpu: Any) -> None:
        process = next(p for p in panda.os.processes() if p.name == "bash")

        def answer() -> str:
            panda.os.set_symbol_directory(None)
            try:
                return str(process.symbol("malloc", "/libc.so").address)
            except IntrospectionError as error:
                return type(error).__name__

        memory = panda.physical_memory_read(0, 120 << 20)
        at = next(m.start() for m in re.finditer(b"OSRELEASE=", memory) if not m.start() % 4096)
        text = memory[at : at + 4096]
        for key, value in (
            (b"PAGESIZE=4096", b"PAGESIZE=0000"),
            (b"PAGESIZE=4096", b"PAGESIZE=zero"),
            (b"SIZE(mem_section)=16", b"SIZE(mem_section)=00"),
            (b"SIZE(mem_section)=16\nO", b"SIZE(mem_section)=99999"),
            (b"NUMBER(SECTION_SIZE_BITS)=27", b"NUMBER(SECTION_SIZE_BITS)=00"),
            (b"NUMBER(SECTION_SIZE_BITS)=27", b"NUMBER(SECTION_SIZE_BITS)=13"),
            (b"SIZE(page)=64", b"SIZE(page)=00"),
            (b"OFFSET(page.mapping)=24", b"OFFSET(page.mapping)=99"),
        ):
            assert text.count(key) == 1, key
            found["before"].append(answer())
            panda.physical_memory_write(at, text.replace(key, value)[:4096])
            # It is read when the kernel is looked for.
            panda.os.use_profile(None)
            found["after"].append(answer())
            panda.physical_memory_write(at, text)
            panda.os.use_profile(None)

    in_guest(panda, lambda: at_rest(panda, look))
    return found


def test_hostile_text() -> None:
    found = run_case(case_hostile_text)
    assert len(found["after"]) == 8
    # It is found in what the process has mapped, or it is not: nothing crashes or hangs.
    assert set(found["before"]) == {found["before"][0]}
    assert set(found["after"]) <= {found["before"][0], "IntrospectionError"}
