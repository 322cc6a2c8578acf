"""The generated bindings agree with what the C compiler says.

The public structures, constants and prototypes are checked by compiling
assertions made from the generated modules; the CPU's register state, whose
layout comes from debug information, against the table of offsets that the
compiler put into each core library.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ctools import INCLUDE, ROOT, compile_c, compiler, load_tool

from pandalite._bindings import callbacks, constants, functions, loader, structs

#: Those of the bindings.
HEADERS = sorted(
    path.relative_to(INCLUDE / "panda").as_posix()
    for path in (INCLUDE / "panda").rglob("*.h")
    if path.name not in ("plugin.h", "plugin_plugin.h")
)
PROLOGUE = "".join(f'#include "panda/{name}"\n' for name in HEADERS)

#: x86_64 must always be there; the others are tested where they are built.
ARCHES = ["x86_64", *(name for name in loader.available() if name != "x86_64")]

#: With zig the bindings are checked for both host architectures we ship for.
HOSTS: list[list[str]] = (
    [["-target", "x86_64-linux-gnu.2.28"], ["-target", "aarch64-linux-gnu.2.28"]]
    if compiler()[-1:] == ["cc"] and "zig" in compiler()[0]
    else [[]]
)


def records() -> Iterator[tuple[str, Any]]:
    """All generated Structures and Unions."""
    for module in (structs, callbacks):
        for name, value in sorted(vars(module).items()):
            if (
                isinstance(value, type)
                and issubclass(value, (ctypes.Structure, ctypes.Union))
                and value.__module__ == module.__name__
            ):
                yield name, value


def check(condition: str, what: str) -> str:
    """An assertion for the compiler."""
    return f"_Static_assert({condition}, {json.dumps(what)});\n"


def check_scalar(ctype: str, made: Any, what: str) -> str:
    """Size and, of integers, signedness of a C type against a ctypes type."""
    text = check(f"sizeof({ctype}) == {ctypes.sizeof(made)}", f"size of {what}")
    code = getattr(made, "_type_", None)
    if isinstance(code, str) and code in "bhilqBHILQ":
        signed = int(code.islower())
        text += check(f"(({ctype})-1 < ({ctype})1) == {signed}", f"sign of {what}")
    return text


def assert_compiles(source: str, tmp_path: Path, host: list[str]) -> None:
    result = compile_c(PROLOGUE + source, tmp_path, *host, "-c", "-o", "out.o")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host[-1] if host else "host")
def test_records(tmp_path: Path, host: list[str]) -> None:
    source = ""
    seen = []
    for name, record in records():
        seen.append(name)
        source += check(f"sizeof({name}) == {ctypes.sizeof(record)}", f"size of {name}")
        # Alignment decides how a struct is laid out inside others.
        source += check(f"_Alignof({name}) == {ctypes.alignment(record)}", f"alignment of {name}")
        end = 0
        for field, made in record._fields_:
            place = getattr(record, field)
            where = f"{name}.{field}"
            source += check(f"offsetof({name}, {field}) == {place.offset}", f"offset of {where}")
            source += check_scalar(f"__typeof__((({name} *)0)->{field})", made, where)
            end = max(end, place.offset + place.size)
    assert {"PandaCPU", "PandaTB", "PandaSegment", "PandaLayoutEntry", "panda_cb"} <= set(seen)
    assert_compiles(source, tmp_path, host)


def test_the_check_notices_a_wrong_offset(tmp_path: Path) -> None:
    source = check("offsetof(PandaCPU, cpu_index) == 4", "offset of PandaCPU.cpu_index")
    with pytest.raises(AssertionError, match=r"offset of PandaCPU\.cpu_index"):
        assert_compiles(source, tmp_path, [])


def test_no_member_is_missing(tmp_path: Path) -> None:
    """A struct made of the generated members alone is as the one of the header."""
    api = load_tool("gen_ctypes").read_headers(INCLUDE)
    made = {name: [field for field, _ in record._fields_] for name, record in records()}
    assert made == {name: [f.name for f in record.fields] for name, record in api.records.items()}
    # Positional initialisers: one more value than members is an error.
    source = ""
    for name, record in records():
        if issubclass(record, ctypes.Structure):
            values = ", ".join("{0}" for _ in record._fields_)
            source += f"{name} fill_{name} = {{ {values} }};\n"
            text = (INCLUDE / "panda").rglob("*.h")
            body = re.search(
                rf"struct {name} {{(.*?)\n}}", "".join(p.read_text() for p in text), re.DOTALL
            )
            assert body is not None
            code = re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL)
            assert code.count(";") == len(record._fields_), name
    assert_compiles(source, tmp_path, ["-Wno-braced-scalar-init"])


def test_constants(tmp_path: Path) -> None:
    source = ""
    for name, value in sorted(vars(constants).items()):
        if isinstance(value, int) and not name.startswith("_"):
            source += check(f"{name} == {value}", name)
    assert "PANDA_CB_END_BLOCK_EXEC" in source
    assert_compiles(source, tmp_path, [])


def test_callback_types(tmp_path: Path) -> None:
    source = ""
    for name, kind in callbacks.KINDS.items():
        arguments = ", ".join(kind.argtypes) or "void"
        source += f"typedef {kind.restype} fn_{name}({arguments});\n"
        source += check(
            f"__builtin_types_compatible_p(fn_{name} *, __typeof__(((panda_cb *)0)->{name}))",
            f"type of {name}",
        )
        functype: Any = kind.functype
        assert len(functype._argtypes_) == len(kind.argtypes) == len(kind.argnames)
        for ctype, made in zip(kind.argtypes, functype._argtypes_):
            source += check_scalar(ctype, made, f"argument {ctype} of {name}")
        if kind.restype == "void":
            assert functype._restype_ is None
        else:
            source += check_scalar(kind.restype, functype._restype_, f"result of {name}")
    assert_compiles(source, tmp_path, [])


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host[-1] if host else "host")
def test_prototypes(tmp_path: Path, host: list[str]) -> None:
    api = load_tool("gen_ctypes").read_headers(INCLUDE)
    source = ""
    for name, (restype, argtypes) in functions.PROTOTYPES.items():
        function = api.functions[name]
        spellings = [param.type.spelling for param in function.params]
        source += (
            f"typedef {function.result.spelling} fn_{name}({', '.join(spellings) or 'void'});\n"
        )
        source += check(
            f"__builtin_types_compatible_p(fn_{name}, __typeof__({name}))", f"type of {name}"
        )
        assert len(argtypes) == len(spellings)
        for ctype, made in zip(spellings, argtypes):
            source += check_scalar(ctype, made, f"argument {ctype} of {name}")
        if function.result.kind == "void":
            assert restype is None
        else:
            source += check_scalar(function.result.spelling, restype, f"result of {name}")
    assert "fn_panda_init" in source
    assert_compiles(source, tmp_path, host)


# The register state behind PandaCPU.env_ptr

READ_TABLE = """
import ctypes, json, sys
from pandalite._bindings import loader
core = loader.load(sys.argv[1])
count = ctypes.c_size_t()
table = core.panda_env_layout(ctypes.byref(count))
print(json.dumps([(e.path.decode(), e.offset, e.size) for e in table[: count.value]]))
"""


def compiled_layout(arch: str) -> list[tuple[str, int, int]]:
    """The table inside a core library, read in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", READ_TABLE, arch],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return [(path, offset, size) for path, offset, size in json.loads(result.stdout)]


def place(record: Any, path: str) -> tuple[int, int]:
    """Offset and size of a path such as segs[1].base in a ctypes type."""
    offset, kind = 0, record
    for name, index in re.findall(r"(\w+)|\[(\d+)\]", path):
        if name:
            offset += getattr(kind, name).offset
            kind = dict(kind._fields_)[name]
        else:
            kind = kind._type_
            offset += int(index) * ctypes.sizeof(kind)
    return offset, ctypes.sizeof(kind)


def paths(record: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all members, without indices; padding and aliases left out."""
    seen: set[tuple[int, int, Any]] = set()
    for name, kind in record._fields_:
        spot = getattr(record, name)
        key = (spot.offset, spot.size, kind)
        if name.startswith("_pad_") or key in seen:
            continue
        seen.add(key)
        yield prefix + name
        while hasattr(kind, "_length_"):
            kind = kind._type_
        if hasattr(kind, "_fields_"):
            yield from paths(kind, f"{prefix}{name}.")


def compare(record: Any, table: list[tuple[str, int, int]]) -> None:
    """Both must know the same members, at the same places."""
    assert len(table) == len({path for path, _, _ in table})
    wrong = [
        f"{path}: {place(record, path)} in ctypes, {(offset, size)} in C"
        for path, offset, size in table
        if place(record, path) != (offset, size)
    ]
    assert not wrong, "\n".join(wrong)
    assert {re.sub(r"\[\d+\]", "", path) for path, _, _ in table} == {"", *paths(record)}


@pytest.mark.parametrize("arch", ARCHES)
def test_register_state(arch: str) -> None:
    compare(loader.env_struct(arch), compiled_layout(arch))


def test_comparison_notices_differences() -> None:
    class Inner(ctypes.Structure):
        _fields_ = (("x", ctypes.c_uint32), ("_pad_0x4", ctypes.c_uint8 * 4))

    class Outer(ctypes.Structure):
        _fields_ = (("pc", ctypes.c_uint64), ("items", Inner * 2))

    table = [("", 0, 24), ("pc", 0, 8), ("items", 8, 16), ("items[1].x", 16, 4)]
    compare(Outer, table)
    with pytest.raises(AssertionError, match=r"items\[1\]\.x: \(16, 4\) in ctypes"):
        compare(Outer, [*table[:3], ("items[1].x", 20, 4)])
    with pytest.raises(AssertionError):
        compare(Outer, table[:3])
