#!/usr/bin/env python3
"""Write the ctypes layout of a guest CPU's register state from debug information.

Scripts read ``cpu.env_ptr.regs[...]``, which is QEMU's own CPUArchState. Its
layout differs by architecture and QEMU series, so it is not kept by hand but
taken from the DWARF of csrc/arch/layout_probe.c, compiled like QEMU's own
target objects plus ``-g -gdwarf-4 -fstandalone-debug``:

    tools/gen_env_layout.py ARCH OBJECT            write pandalite/_bindings/env_<arch>.py
    tools/gen_env_layout.py ARCH OBJECT --check    compare, print a diff, exit 1 on a difference

The object may be a relocatable object, a library or a program. Which fields
are taken is the table FAMILIES below; the family of an architecture is said by
csrc/qemu/arches.toml.
"""

from __future__ import annotations

import argparse
import ctypes
import difflib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parent.parent
ARCHES = ROOT / "csrc" / "qemu" / "arches.toml"
OUTPUT = ROOT / "pandalite" / "_bindings"

STATE = "CPUArchState"
WIDTH = 100


@dataclass(frozen=True)
class Family:
    """What to take of the register state of a family of architectures."""

    #: Members, by struct or union; CPUArchState is the one to start from.
    fields: dict[str, tuple[str, ...]]
    #: Members that only some architectures of the family have.
    optional: frozenset[str] = frozenset()
    #: More names for members: struct -> member -> name.
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {
    "x86": Family(
        fields={
            STATE: (
                "regs",
                "eip",
                "eflags",
                "cc_dst",
                "cc_src",
                "cc_src2",
                "cc_op",
                "df",
                "hflags",
                "hflags2",
                "segs",
                "ldt",
                "tr",
                "gdt",
                "idt",
                "cr",
                "a20_mask",
                "efer",
                "mxcsr",
                "xmm_regs",
                "sysenter_cs",
                "sysenter_esp",
                "sysenter_eip",
                "star",
                "lstar",
                "cstar",
                "fmask",
                "kernelgsbase",
                "dr",
            ),
            "SegmentCache": ("selector", "base", "limit", "flags"),
            "ZMMReg": ("_b_ZMMReg", "_w_ZMMReg", "_l_ZMMReg", "_q_ZMMReg"),
        },
        optional=frozenset({"lstar", "cstar", "fmask", "kernelgsbase"}),
        aliases={"ZMMReg": {"_q_ZMMReg": "_q"}},
    ),
    "arm": Family(
        fields={
            STATE: (
                "regs",
                "xregs",
                "pc",
                "pstate",
                "aarch64",
                "thumb",
                "uncached_cpsr",
                "spsr",
                "banked_spsr",
                "banked_r13",
                "banked_r14",
                "usr_regs",
                "fiq_regs",
                "CF",
                "VF",
                "NF",
                "ZF",
                "QF",
                "GE",
                "condexec_bits",
                "btype",
                "daif",
                "elr_el",
                "sp_el",
            ),
        },
    ),
    "mips": Family(
        fields={
            STATE: (
                "active_tc",
                "CP0_Index",
                "CP0_EntryLo0",
                "CP0_EntryLo1",
                "CP0_Context",
                "CP0_PageMask",
                "CP0_Wired",
                "CP0_BadVAddr",
                "CP0_Count",
                "CP0_EntryHi",
                "CP0_EntryHi_ASID_mask",
                "CP0_Compare",
                "CP0_Status",
                "CP0_Cause",
                "CP0_EPC",
                "CP0_PRid",
                "CP0_EBase",
                "CP0_Config0",
                "CP0_ErrorEPC",
                "hflags",
                "btarget",
                "bcond",
            ),
            "TCState": ("gpr", "PC", "HI", "LO", "ACX", "DSPControl", "CP0_UserLocal"),
        },
    ),
    "ppc": Family(
        fields={
            STATE: (
                "gpr",
                "lr",
                "ctr",
                "crf",
                "xer",
                "so",
                "ov",
                "ca",
                "msr",
                "nip",
                "sr",
                "spr",
                "fpscr",
            ),
        },
    ),
    "riscv": Family(
        fields={
            STATE: (
                "gpr",
                "pc",
                "fpr",
                "frm",
                "priv",
                "mhartid",
                "mstatus",
                "mip",
                "mie",
                "mideleg",
                "satp",
                "stval",
                "medeleg",
                "stvec",
                "sepc",
                "scause",
                "mtvec",
                "mepc",
                "mcause",
                "mtval",
                "sscratch",
                "mscratch",
            ),
        },
    ),
}


class LayoutError(Exception):
    """The object does not hold what is needed."""


@dataclass(frozen=True)
class Type:
    """A type as DWARF describes it, reduced to what ctypes needs.

    ctypes is the name for a scalar; name the name of a record; element and
    length describe an array.
    """

    size: int
    ctypes: str = ""
    name: str = ""
    element: Type | None = None
    length: int = 0


@dataclass(frozen=True)
class Member:
    """A member of a record."""

    name: str
    offset: int
    type: Type


@dataclass(frozen=True)
class Record:
    """A struct or union with the members that were asked for."""

    name: str
    size: int
    union: bool
    members: tuple[Member, ...]


class DebugInfo:
    """The types of one object."""

    def __init__(self, path: Path, family: Family) -> None:
        """Open an object; the family says which members to keep."""
        self._path = path
        self._family = family
        #: In the order in which they must be defined.
        self.records: dict[str, Record] = {}

    def read(self) -> dict[str, Record]:
        """Collect CPUArchState and all it needs, the parts before the whole."""
        try:
            with self._path.open("rb") as stream:
                elf = ELFFile(stream)
                if not elf.has_dwarf_info():
                    raise LayoutError(f"{self._path} has no debug information; compile it with -g")
                self._record(self._find(elf.get_dwarf_info()))
        except OSError as error:
            raise LayoutError(f"{self._path} cannot be read: {error.strerror}") from error
        except ELFError as error:
            raise LayoutError(f"{self._path} is not a usable ELF object: {error}") from error
        return self.records

    def _find(self, dwarf: Any) -> Any:
        for unit in dwarf.iter_CUs():
            for die in unit.get_top_DIE().iter_children():
                if (
                    die.tag == "DW_TAG_structure_type"
                    and _name(die) == STATE
                    and "DW_AT_declaration" not in die.attributes
                ):
                    return die
        raise LayoutError(
            f"{self._path} does not describe struct {STATE}; compile csrc/arch/layout_probe.c "
            "with -g -gdwarf-4 -fstandalone-debug"
        )

    def _record(self, die: Any, name: str = "") -> Record:
        name = _name(die) or name
        if name in self.records:
            return self.records[name]
        wanted = self._family.fields.get(name)
        if wanted is None:
            raise LayoutError(f"{name}: no members are selected for it (table FAMILIES)")
        union = die.tag == "DW_TAG_union_type"
        size = _number(die, "DW_AT_byte_size")
        found: dict[str, Member] = {}
        for child in die.iter_children():
            if child.tag != "DW_TAG_member" or _name(child) not in wanted:
                continue
            member = _name(child)
            if "DW_AT_bit_size" in child.attributes:
                raise LayoutError(f"{name}.{member} is a bit-field")
            offset = 0 if union else _number(child, "DW_AT_data_member_location")
            found[member] = Member(member, offset, self._type(child, f"{name}.{member}"))
        missing = [item for item in wanted if item not in found]
        absent = [item for item in missing if item not in self._family.optional]
        if absent:
            raise LayoutError(f"{name} has no member {', '.join(absent)} in this QEMU")
        members = sorted(found.values(), key=lambda item: (item.offset, wanted.index(item.name)))
        for original, alias in self._family.aliases.get(name, {}).items():
            members.append(Member(alias, found[original].offset, found[original].type))
        record = Record(name, size, union, tuple(members))
        self.records[name] = record
        return record

    def _type(self, die: Any, where: str, name: str = "") -> Type:
        target = die.get_DIE_from_attribute("DW_AT_type")
        tag = target.tag
        if tag in ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type"):
            return self._type(target, where, _name(target) or name)
        if tag == "DW_TAG_base_type":
            return _scalar(target, where)
        if tag == "DW_TAG_enumeration_type":
            size = _number(target, "DW_AT_byte_size")
            return Type(size, ctypes=f"c_uint{size * 8}")
        if tag == "DW_TAG_pointer_type":
            return Type(8, ctypes="c_void_p")
        if tag in ("DW_TAG_structure_type", "DW_TAG_union_type"):
            record = self._record(target, name)
            return Type(record.size, name=record.name)
        if tag == "DW_TAG_array_type":
            element = self._type(target, where)
            for child in reversed(list(target.iter_children())):
                length = _array_length(child, where)
                element = Type(element.size * length, element=element, length=length)
            return element
        raise LayoutError(f"{where}: {tag} is not supported")


def _name(die: Any) -> str:
    attribute = die.attributes.get("DW_AT_name")
    return attribute.value.decode() if attribute is not None else ""


def _number(die: Any, attribute: str) -> int:
    value = die.attributes[attribute].value
    if not isinstance(value, int):
        raise LayoutError(f"{_name(die)}: {attribute} is not a plain number (use -gdwarf-4)")
    return value


def _array_length(die: Any, where: str) -> int:
    if "DW_AT_count" in die.attributes:
        return _number(die, "DW_AT_count")
    if "DW_AT_upper_bound" in die.attributes:
        return _number(die, "DW_AT_upper_bound") + 1
    raise LayoutError(f"{where}: array without a length")


def _scalar(die: Any, where: str) -> Type:
    size = _number(die, "DW_AT_byte_size")
    encoding = _number(die, "DW_AT_encoding")
    if encoding == 2:  # DW_ATE_boolean
        return Type(size, ctypes="c_bool")
    if encoding == 4 and size in (4, 8):  # DW_ATE_float
        return Type(size, ctypes="c_float" if size == 4 else "c_double")
    if encoding in (5, 6) and size <= 8:  # DW_ATE_signed, DW_ATE_signed_char
        return Type(size, ctypes=f"c_int{size * 8}")
    if encoding in (7, 8) and size <= 8:  # DW_ATE_unsigned, DW_ATE_unsigned_char
        return Type(size, ctypes=f"c_uint{size * 8}")
    raise LayoutError(f"{where}: no ctypes type for {_name(die)} ({size} bytes)")


# --------------------------------------------------------------------------
# Python source


def _expression(kind: Type) -> str:
    if kind.element is not None:
        inner = _expression(kind.element)
        return f"({inner}) * {kind.length}" if " " in inner else f"{inner} * {kind.length}"
    return kind.name or kind.ctypes


def _annotation(kind: Type) -> str:
    if kind.element is not None:
        return f"Array[{_inner(kind.element)}]"
    if kind.name:
        return kind.name
    if kind.ctypes == "c_bool":
        return "bool"
    if kind.ctypes == "c_void_p":
        return "int | None"
    return "float" if kind.ctypes in ("c_float", "c_double") else "int"


def _inner(kind: Type) -> str:
    return f"Array[{_inner(kind.element)}]" if kind.element is not None else _expression(kind)


def _scalars(kind: Type) -> Iterator[str]:
    if kind.element is not None:
        yield from _scalars(kind.element)
    elif kind.ctypes:
        yield kind.ctypes


def _class(record: Record, arch: str) -> tuple[list[str], set[str]]:
    """Source lines of a class, and the scalar types it uses."""
    used: set[str] = set()
    fields: list[tuple[str, str]] = []
    position = 0
    for member in record.members:
        if not record.union:
            if member.offset > position:
                used.add("c_uint8")
                fields.append((f"_pad_{position:#x}", f"c_uint8 * {member.offset - position}"))
            position = member.offset + member.type.size
        used.update(_scalars(member.type))
        fields.append((member.name, _expression(member.type)))
    if not record.union and record.size > position:
        used.add("c_uint8")
        fields.append((f"_pad_{position:#x}", f"c_uint8 * {record.size - position}"))
    base = "Union" if record.union else "Structure"
    what = "The register state of a virtual CPU" if record.name == STATE else record.name
    lines = ["", "", f"class {record.name}({base}):"]
    lines += [f'    """{what} ({arch}), as far as it is public."""', ""]
    lines += [f"    {member.name}: {_annotation(member.type)}" for member in record.members]
    lines += ["", "    _fields_ = ("]
    lines += [f'        ("{name}", {expression}),' for name, expression in fields]
    lines += ["    )"]
    return lines, used


def source(arch: str, records: dict[str, Record]) -> str:
    """The module for an architecture."""
    body: list[str] = []
    used: set[str] = set()
    for record in records.values():
        lines, scalars = _class(record, arch)
        body += lines
        used |= scalars
    classes = sorted({"Union" if record.union else "Structure" for record in records.values()})
    order = {name: int(name[5:] or 0) for name in used if name.startswith("c_int")}
    order.update({name: int(name[6:]) for name in used if name.startswith("c_uint")})
    scalars_sorted = sorted(used, key=lambda name: (name.rstrip("0123456789"), order.get(name, 0)))
    lines = [
        "# Generated by tools/gen_env_layout.py from QEMU's debug information: do not edit.",
        f'"""The register state of {arch}: what PandaCPU.env_ptr points to."""',
        "",
        "from __future__ import annotations",
        "",
    ]
    names = [*classes, *scalars_sorted]
    one = f"from ctypes import {', '.join(names)}"
    if len(one) <= WIDTH:
        lines += [one]
    else:
        lines += ["from ctypes import (", *(f"    {name}," for name in names), ")"]
    if "Array[" in "\n".join(body):
        lines += ["from typing import TYPE_CHECKING", "", "if TYPE_CHECKING:"]
        lines += ["    from ctypes import Array"]
    text = "\n".join(lines + body) + "\n"
    too_long = [line for line in text.split("\n") if len(line) > WIDTH]
    if too_long:
        raise LayoutError(f"generated line is too long: {too_long[0]}")
    _verify(text, arch, records)
    return text


def _verify(text: str, arch: str, records: dict[str, Record]) -> None:
    """Import the text and compare what ctypes makes of it with the debug information."""
    namespace: dict[str, Any] = {"__name__": f"env_{arch}"}
    exec(compile(text, f"env_{arch}.py", "exec"), namespace)
    for record in records.values():
        made = namespace[record.name]
        if ctypes.sizeof(made) != record.size:
            raise LayoutError(
                f"{record.name}: {ctypes.sizeof(made)} bytes in ctypes, {record.size} in C"
            )
        for member in record.members:
            place = getattr(made, member.name)
            if (place.offset, place.size) != (member.offset, member.type.size):
                raise LayoutError(
                    f"{record.name}.{member.name}: offset {place.offset}, size {place.size} in "
                    f"ctypes, offset {member.offset}, size {member.type.size} in C"
                )


def family_of(arch: str, arches: Path = ARCHES) -> Family:
    """The family of an architecture, as the list of architectures says."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    with arches.open("rb") as stream:
        data = tomllib.load(stream)
    if arch not in data:
        raise LayoutError(f"{arch} is not in {arches.name}: {', '.join(data)}")
    name = data[arch].get("family", "")
    if name not in FAMILIES:
        raise LayoutError(f"no register state is described for family {name!r} of {arch}")
    return FAMILIES[name]


def generate(arch: str, path: Path, arches: Path = ARCHES) -> str:
    """The module for an architecture, from an object with debug information."""
    return source(arch, DebugInfo(path, family_of(arch, arches)).read())


def public(text: str) -> str:
    """A module without what follows the register state's last public member.

    How long that is depends on the host: a mutex has not the same size on all.
    """
    return re.sub(r'        \("_pad_\w+", c_uint8 \* \d+\),\n    \)\n\Z', "    )\n", text)


def main(argv: list[str] | None = None) -> int:
    """Write or check the module of one architecture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("arch", help="guest architecture, e.g. x86_64")
    parser.add_argument("object", type=Path, help="object with debug information")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    parser.add_argument(
        "--public", action="store_true", help="with --check: compare up to the last public member"
    )
    parser.add_argument("--arches", type=Path, default=ARCHES, help="list of architectures")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="directory of the module")
    options = parser.parse_args(argv)
    try:
        text = generate(options.arch, options.object, options.arches)
    except LayoutError as error:
        print(f"gen_env_layout: {error}", file=sys.stderr)
        return 2
    path = options.output / f"env_{options.arch}.py"
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    if options.check:
        if options.public:
            old, text = public(old), public(text)
        diff = list(
            difflib.unified_diff(
                old.splitlines(),
                text.splitlines(),
                f"{path.name} (in the tree)",
                f"{path.name} (generated)",
                lineterm="",
            )
        )
        if diff:
            print("\n".join(diff))
            print(
                f"gen_env_layout: {path} does not match {options.object}; "
                f"run tools/gen_env_layout.py {options.arch} {options.object}",
                file=sys.stderr,
            )
        return 1 if diff else 0
    if old != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
