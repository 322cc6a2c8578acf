"""What a core library must be as an ELF file: the gates of tools/check_wheel.py.

Each gate is a generator of problems, one line each; no line means passed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from elftools.elf.elffile import ELFFile

#: Parts of glibc, which every Linux system has. The loader's name depends on the host.
SYSTEM = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"}
#: Host architecture -> ELF machine, dynamic loader.
MACHINES = {
    "x86_64": ("EM_X86_64", "ld-linux-x86-64.so.2"),
    "aarch64": ("EM_AARCH64", "ld-linux-aarch64.so.1"),
}

#: Host architecture -> the largest pages its kernels may have.
PAGES = {"x86_64": 4 << 10, "aarch64": 64 << 10}

#: Beginnings of names of the libraries that are linked in: none may be seen from
#: outside, nor be expected there.
LINKED_IN = re.compile(
    r"(_?g_|glib_|gmodule_|slirp_|fdt_|pcre2?_|deflate|inflate|crc32|adler32|zlib|gz[a-z]+$)"
)

#: Directories in which things are built. (/tmp/perf-%d.map is a file QEMU writes.)
_BUILT_IN = re.compile(
    rb"(?<![\w.%-])/(?:home|root|work|workspace|builds?|opt|srv|mnt|github|__w|usr/src"
    rb"|var/(?:tmp|cache|lib)|tmp(?!/perf-))/[\w.+-][\w./+-]{2,}"
)

_DF_TEXTREL, _DF_BIND_NOW, _DF_1_NOW = 4, 8, 1


@dataclass
class Library:
    """A core library: its file name, bytes, and what it is meant to be."""

    name: str
    data: bytes
    machine: str
    """Host architecture, as platform tags name it."""
    glibc: tuple[int, ...]
    """The newest glibc it may need."""
    exported: frozenset[str] = field(default_factory=frozenset)
    """The functions it has to export."""

    @cached_property
    def elf(self) -> ELFFile:
        """The file, parsed."""
        return ELFFile(io.BytesIO(self.data))

    def dynamic(self, tag: str) -> list[Any]:
        """The entries of the dynamic section that have a tag."""
        section = self.elf.get_section_by_name(".dynamic")
        return [e for e in section.iter_tags() if e.entry.d_tag == tag] if section else []

    def flags(self, tag: str) -> int:
        """The value of DT_FLAGS or DT_FLAGS_1."""
        return sum(entry.entry.d_val for entry in self.dynamic(tag))

    @cached_property
    def needed(self) -> set[str]:
        """The libraries it needs."""
        return {entry.needed for entry in self.dynamic("DT_NEEDED")}

    @cached_property
    def versions(self) -> set[str]:
        """The symbol versions it needs."""
        section = self.elf.get_section_by_name(".gnu.version_r")
        if section is None:
            return set()
        return {entry.name for _, entries in section.iter_versions() for entry in entries}

    @cached_property
    def newest_glibc(self) -> tuple[int, ...]:
        """The newest glibc version among them."""
        numbers = [v.partition("_")[2] for v in self.versions if v.startswith("GLIBC_")]
        known = [tuple(map(int, n.split("."))) for n in numbers if re.fullmatch(r"[\d.]+", n)]
        return max(known, default=(0,))

    def symbols(self, defined: bool) -> set[str]:
        """Names of the dynamic symbols that are defined here, or elsewhere."""
        table = self.elf.get_section_by_name(".dynsym")
        return {
            s.name
            for s in table.iter_symbols()
            if s.name and (s["st_shndx"] != "SHN_UNDEF") == defined
        }


def machine(library: Library) -> Iterator[str]:
    """The right ELF class and machine."""
    wanted = MACHINES[library.machine][0]
    found = library.elf["e_machine"]
    if found != wanted:
        yield f"is for {found}, not {wanted}"
    if library.elf["e_type"] != "ET_DYN":
        yield f"is no shared object but {library.elf['e_type']}"


def needed(library: Library) -> Iterator[str]:
    """Needs nothing but glibc; its own name is right."""
    extra = library.needed - SYSTEM - {MACHINES[library.machine][1]}
    if extra:
        yield f"needs {', '.join(sorted(extra))}"
    sonames = [entry.soname for entry in library.dynamic("DT_SONAME")]
    if sonames != [library.name]:
        yield f"calls itself {sonames}"


def glibc(library: Library) -> Iterator[str]:
    """An old enough glibc suffices."""
    if library.newest_glibc > library.glibc:
        newest = ".".join(map(str, library.newest_glibc))
        yield f"needs GLIBC_{newest}, newer than {'.'.join(map(str, library.glibc))}"
    others = {v for v in library.versions if not re.fullmatch(r"GLIBC_[\d.]+", v)}
    if others:
        yield f"needs versions of symbols that are not glibc's: {', '.join(sorted(others))}"


def textrel(library: Library) -> Iterator[str]:
    """Nothing in the code is relocated."""
    if library.dynamic("DT_TEXTREL") or library.flags("DT_FLAGS") & _DF_TEXTREL:
        yield "has text relocations"


def stack(library: Library) -> Iterator[str]:
    """No executable stack, nothing both writable and executable."""
    stacks = [s for s in library.elf.iter_segments() if s["p_type"] == "PT_GNU_STACK"]
    if not stacks:
        yield "does not say that its stack is not executable"
    elif stacks[0]["p_flags"] & 1:
        yield "wants an executable stack"
    for segment in library.elf.iter_segments():
        if segment["p_type"] == "PT_LOAD" and segment["p_flags"] & 3 == 3:
            yield "has a segment that is writable and executable"


def pages(library: Library) -> Iterator[str]:
    """Can be loaded whatever the size of the kernel's pages."""
    largest = PAGES[library.machine]
    for segment in library.elf.iter_segments():
        if segment["p_type"] == "PT_LOAD" and segment["p_align"] % largest:
            yield f"cannot be loaded by a kernel with pages of {largest >> 10} KB"
            return


def relro(library: Library) -> Iterator[str]:
    """What the loader fills in is read-only afterwards."""
    if not any(s["p_type"] == "PT_GNU_RELRO" for s in library.elf.iter_segments()):
        yield "has no RELRO segment"


def bind_now(library: Library) -> Iterator[str]:
    """All symbols are bound when it is loaded."""
    now = library.flags("DT_FLAGS") & _DF_BIND_NOW or library.flags("DT_FLAGS_1") & _DF_1_NOW
    if not now and not library.dynamic("DT_BIND_NOW"):
        yield "is not bound when loaded (BIND_NOW)"


def rpath(library: Library) -> Iterator[str]:
    """No library search path of its own."""
    for tag in ("DT_RPATH", "DT_RUNPATH"):
        for _ in library.dynamic(tag):
            yield f"has a {tag}"


def exports(library: Library) -> Iterator[str]:
    """Exports the functions of the public headers, nothing else."""
    found = library.symbols(defined=True)
    if extra := sorted(found - library.exported):
        yield f"exports {_some(extra)}, which no public header has"
    if missing := sorted(library.exported - found):
        yield f"does not export {_some(missing)}"


def hidden(library: Library) -> Iterator[str]:
    """No symbol of glib or another library that is linked in can be seen."""
    both = library.symbols(defined=True) | library.symbols(defined=False)
    if seen := sorted(name for name in both if LINKED_IN.match(name)):
        yield f"shows symbols of a library that is linked in: {_some(seen)}"


def stripped(library: Library) -> Iterator[str]:
    """No symbol table and no debug information."""
    names = {section.name for section in library.elf.iter_sections()}
    for name in sorted(names):
        if name == ".symtab" or name.startswith((".debug", ".zdebug")):
            yield f"is not stripped: it has {name}"


def paths(library: Library) -> Iterator[str]:
    """No path of the machine it was built on."""
    found = sorted({hit.group().decode() for hit in _BUILT_IN.finditer(library.data)})
    if found:
        yield f"has absolute paths of a build: {_some(found)}"


GATES: dict[str, Callable[[Library], Iterator[str]]] = {
    gate.__name__: gate
    for gate in (
        *(machine, needed, glibc, textrel, stack, pages, relro, bind_now, rpath),
        *(exports, hidden, stripped, paths),
    )
}


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
