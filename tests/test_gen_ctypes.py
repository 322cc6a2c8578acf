"""tools/gen_ctypes.py: what it makes of headers, and what it refuses."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from ctools import ROOT, load_tool

gen = load_tool("gen_ctypes")

BASE = """\
#ifndef PANDA_A_H
#define PANDA_A_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
{body}
#endif
"""


def write(tmp_path: Path, body: str) -> Path:
    """A directory with one header of that body, which begins at line 6."""
    folder = tmp_path / "panda"
    folder.mkdir(exist_ok=True)
    (folder / "a.h").write_text(BASE.replace("{body}", textwrap.dedent(body)))
    return tmp_path


def modules(tmp_path: Path, body: str) -> dict[str, str]:
    """The generated modules of such a header."""
    arches = tmp_path / "arches.toml"
    arches.write_text('[x86_64]\nbits = 64\nendian = "little"\n')
    result: dict[str, str] = gen.generate(write(tmp_path, body), arches)
    return result


def package(tmp_path: Path, body: str) -> dict[str, Any]:
    """Namespaces of the generated modules, imported under a fresh package name."""
    texts = modules(tmp_path, body)
    folder = tmp_path / "generated_bindings"
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    names = [name[:-3] for name in texts if name != "__init__.py"]
    for name in [name for name in sys.modules if name.startswith("generated_bindings")]:
        del sys.modules[name]
    sys.path.insert(0, str(tmp_path))
    try:
        top = __import__("generated_bindings")
        return {name: getattr(top, name) for name in names}
    finally:
        sys.path.remove(str(tmp_path))


def failure(tmp_path: Path, body: str) -> str:
    """The message a header of that body is refused with."""
    with pytest.raises(gen.HeaderError) as caught:
        modules(tmp_path, body)
    return str(caught.value).replace(str(tmp_path) + "/", "")


# What comes out


def test_enum(tmp_path: Path) -> None:
    made = package(
        tmp_path,
        """
        /** Colours. */
        typedef enum Colour {
            /** Like blood. */
            COLOUR_RED,
            COLOUR_GREEN = 1 << 4,
            COLOUR_BLUE,
            COLOUR_NONE = -1,
        } Colour;
        """,
    )
    colour = made["enums"].Colour
    assert {item.name: int(item) for item in colour} == {
        "RED": 0,
        "GREEN": 16,
        "BLUE": 17,
        "NONE": -1,
    }
    assert "Colours." in colour.__doc__ and "RED: Like blood." in colour.__doc__
    assert made["constants"].COLOUR_BLUE == 17


def test_struct_union_array_pointer(tmp_path: Path) -> None:
    made = package(
        tmp_path,
        """
        #define COUNT 3
        /** Not ours. */
        typedef struct Hidden Hidden;
        /** Either. */
        typedef union Either { uint64_t q; uint8_t b[8]; } Either;
        /** A node. */
        typedef struct Node {
            /** The next one. */
            uint64_t *next;
            Hidden *hidden;
            const char *name;
            Either either[COUNT + 1];
            bool flag;
            int16_t (*callback)(Either *e, char *text);
        } Node;
        """,
    )
    node, either = made["structs"].Node, made["structs"].Either
    fields = dict(node._fields_)
    assert fields["next"] is ctypes.POINTER(ctypes.c_uint64)
    assert fields["hidden"] is ctypes.c_void_p
    assert fields["name"] is ctypes.c_char_p
    assert fields["either"]._length_ == 4 and fields["either"]._type_ is either
    assert fields["flag"] is ctypes.c_bool
    assert fields["callback"]._restype_ is ctypes.c_int16
    assert fields["callback"]._argtypes_ == (ctypes.POINTER(either), ctypes.c_char_p)
    assert issubclass(either, ctypes.Union) and ctypes.sizeof(either) == 8
    assert "next: The next one." in node.__doc__
    assert made["constants"].COUNT == 3


def test_struct_that_points_to_a_later_one(tmp_path: Path) -> None:
    made = package(
        tmp_path,
        """
        /** The second. */
        typedef struct B B;
        /** The first. */
        typedef struct A { B *b; uint32_t x; } A;
        /** The second. */
        struct B { A *a; B *next; };
        """,
    )
    a, b = made["structs"].A, made["structs"].B
    assert dict(a._fields_)["b"] is ctypes.POINTER(b)
    assert dict(b._fields_)["next"] is ctypes.POINTER(b)


def test_functions(tmp_path: Path) -> None:
    made = package(
        tmp_path,
        """
        /** A thing. */
        typedef struct Thing { int x; } Thing;
        /** One or the other. */
        typedef union U { int i; float f; } U;
        /**
         * Do it.
         *
         * Never blocks.
         */
        int panda_do(Thing *thing, const uint8_t *buf, size_t size, const char *name);
        /** Call later. */
        void panda_later(void (*fn)(void *opaque), void *opaque);
        /** By value. */
        int panda_union(U u);
        /** A text to be freed. */
        char *panda_text(void);
        """,
    )
    functions, thing = made["functions"], made["structs"].Thing
    assert functions.PROTOTYPES["panda_do"] == (
        ctypes.c_int,
        (ctypes.POINTER(thing), ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p),
    )
    assert {"panda_do"} == functions.NONBLOCKING
    assert "panda_union" not in functions.PROTOTYPES
    assert "#   panda_union" in Path(functions.__file__).read_text()
    restype, (fn, opaque) = functions.PROTOTYPES["panda_later"]
    assert restype is None and opaque is ctypes.c_void_p
    assert fn is functions.FN_panda_later_fn and fn._argtypes_ == (ctypes.c_void_p,)
    assert functions.PROTOTYPES["panda_text"][0] is ctypes.POINTER(ctypes.c_char)
    assert functions.Library.panda_do.__doc__.startswith("Do it.")


def test_kinds(tmp_path: Path) -> None:
    made = package(
        tmp_path,
        """
        /** Kinds. */
        typedef enum panda_cb_type { PANDA_CB_ONE = 0, PANDA_CB_TWO, PANDA_CB_LAST } panda_cb_type;
        /** Functions. */
        typedef union panda_cb {
            /**
             * The second.
             *
             * "Quoted" \\\\ text.
             */
            bool (*two)(void *cpu, uint64_t pc);
            /** The first. */
            void (*one)(void);
            void (*cbaddr)(void);
        } panda_cb;
        """,
    )
    kinds = made["callbacks"].KINDS
    assert list(kinds) == ["one", "two"]
    assert kinds["two"][:5] == ("two", 1, "bool", ("cpu", "pc"), ("void *", "uint64_t"))
    assert kinds["two"].functype is made["callbacks"].CB_two
    assert kinds["two"].doc == 'The second.\n\n"Quoted" \\\\ text.'
    assert kinds["one"].argnames == ()


def test_conditions_and_constants(tmp_path: Path) -> None:
    made = package(
        tmp_path,
        """
        #ifdef __cplusplus
        extern "C" {
        #endif
        /** The mask. */
        #define PANDA_MASK (0xFFul << 8)
        #define PANDA_TEXT "a \\"b\\""
        #define PANDA_MODE 0644
        #ifdef PANDA_MASK
        #define PANDA_YES 1
        #else
        #define PANDA_NO 1
        #endif
        """,
    )
    constants = made["constants"]
    assert constants.PANDA_MASK == 0xFF00
    assert constants.PANDA_TEXT == 'a "b"'
    assert constants.PANDA_MODE == 0o644
    assert constants.PANDA_YES == 1 and not hasattr(constants, "PANDA_NO")


def test_architectures(tmp_path: Path) -> None:
    made = package(tmp_path, "")
    assert made["arches"].ARCHITECTURES["x86_64"] == ("x86_64", 64, True, 8)


# What is refused, and how


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("#include <stdio.h>", "panda/a.h:6: #include <stdio.h>: only"),
        ('#include "panda/b.h"', 'panda/a.h:6: #include "panda/b.h": no such header'),
        ("#define MAX(a, b) a", "panda/a.h:6: function-like macro MAX"),
        ("#define X sizeof(int)", "panda/a.h:6: value of X is not a constant"),
        ("#if X > 3\n#endif", "panda/a.h:6: #if is not supported"),
        ("#undef X", "panda/a.h:6: directive #undef is not supported"),
        ("int x @ 3;", "panda/a.h:6: not understood as C"),
        ("\n\n/* oops", "panda/a.h:8: comment is not closed"),
        ("int f(void);", "panda/a.h:6: f has no documentation comment"),
        ("typedef struct S { int x; } S;", "panda/a.h:6: S has no documentation comment"),
        ("/** S. */\ntypedef struct { int x; } S;", "panda/a.h:7: struct without a tag"),
        ("/** S. */\ntypedef struct T { int x; } S;", "panda/a.h:7: typedef S and tag T"),
        ("/** S. */\ntypedef struct S { int x : 3; } S;", "S.x: bit-fields are not supported"),
        ("/** S. */\ntypedef struct S { int x[]; } S;", "S.x: array without a length"),
        (
            "/** S. */\ntypedef struct S { union { int i; }; } S;",
            "a member without a name is not supported",
        ),
        ("/** F. */\nint f();", "panda/a.h:7: f: write (void)"),
        ("/** F. */\nint f(int x, ...);", "panda/a.h:7: f: variable arguments"),
        ("/** F. */\nint f(int);", "panda/a.h:7: f: parameter 1 has no name"),
        ("/** F. */\nstatic int f(void);", "panda/a.h:7: f: only plain prototypes"),
        ("/** F. */\nint f(void) { return 1; }", "panda/a.h:7: function f has a body"),
        ("/** V. */\nextern int v;", "panda/a.h:7: variable v: export a function"),
        ("/** F. */\nint f(unknown_t x);", "panda/a.h:7: not understood as C"),
        ("/** F. */\nint f(long double x);", "type long double is not supported"),
        ("/** Nothing. */\n", "panda/a.h:6: documentation comment"),
        ("/** One. */\n/** Two. */\nint f(void);", "two documentation comments in a row"),
        ("int f(void); /**< F. */", "panda/a.h:6: write documentation as /** ... */"),
        ("#ifdef X", "panda/a.h:1: #ifdef or #ifndef without #endif"),
    ],
)
def test_refused(tmp_path: Path, body: str, message: str) -> None:
    assert message in failure(tmp_path, body)


def test_kind_without_enumerator(tmp_path: Path) -> None:
    message = failure(
        tmp_path,
        """
        /** Kinds. */
        typedef enum panda_cb_type { PANDA_CB_ONE } panda_cb_type;
        /** Functions. */
        typedef union panda_cb {
            /** One. */
            void (*one)(void);
            /** Two. */
            void (*two)(void);
        } panda_cb;
        """,
    )
    assert message.endswith("panda_cb.two: no enumerator PANDA_CB_TWO")


def test_context_union_must_match(tmp_path: Path) -> None:
    message = failure(
        tmp_path,
        """
        /** Kinds. */
        typedef enum panda_cb_type { PANDA_CB_ONE } panda_cb_type;
        /** Functions. */
        typedef union panda_cb {
            /** One. */
            void (*one)(int x);
        } panda_cb;
        /** With a context. */
        typedef union panda_cb_with_context {
            void (*one)(void *context, unsigned int x);
        } panda_cb_with_context;
        """,
    )
    assert message.endswith("panda_cb_with_context.one is not void (void *, int)")


def test_bad_architecture(tmp_path: Path) -> None:
    arches = tmp_path / "arches.toml"
    arches.write_text('[odd]\nbits = 48\nendian = "little"\n')
    with pytest.raises(gen.HeaderError, match=r"\[odd\] bits must be 32 or 64"):
        gen.read_arches(arches)


# The tree


def run_tool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gen_ctypes.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "random"},
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the generated modules of the tree."""
    target = tmp_path / "_bindings"
    shutil.copytree(
        ROOT / "pandalite" / "_bindings", target, ignore=shutil.ignore_patterns("__pycache__")
    )
    return target


def test_tree_is_up_to_date() -> None:
    result = run_tool("--check")
    assert result.returncode == 0, result.stdout + result.stderr


def test_check_finds_a_change(copy: Path) -> None:
    structs = copy / "structs.py"
    structs.write_text(structs.read_text().replace("c_uint64", "c_uint32", 1))
    result = run_tool("--check", "--output", copy)
    assert result.returncode == 1
    assert "--- structs.py (in the tree)" in result.stdout
    assert "run tools/gen_ctypes.py" in result.stderr


def test_check_finds_missing_and_stale_files(copy: Path) -> None:
    (copy / "enums.py").unlink()
    (copy / "old.py").write_text("# Generated by tools/gen_ctypes.py from nothing\n")
    (copy / "env_vax.py").write_text("")
    result = run_tool("--check", "--output", copy)
    assert result.returncode == 1
    assert "+++ enums.py (generated)" in result.stdout
    assert "old.py: stale" in result.stdout and "env_vax.py: stale" in result.stdout


def test_writing_repairs_and_is_stable(copy: Path) -> None:
    (copy / "enums.py").write_text("")
    (copy / "old.py").write_text("# Generated by tools/gen_ctypes.py from nothing\n")
    assert run_tool("--output", copy).returncode == 0
    assert not (copy / "old.py").exists()
    result = run_tool("--check", "--output", copy)
    assert result.returncode == 0, result.stdout


def test_bad_header_is_named(tmp_path: Path) -> None:
    result = run_tool("--include", write(tmp_path, "#define F(x) x"), "--output", tmp_path / "out")
    assert result.returncode == 2
    assert "panda/a.h:6: function-like macro F" in result.stderr
    assert not (tmp_path / "out").exists()


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys, pandalite._bindings as b; assert 'ctypes' not in sys.modules; "
        "b.enums.PandaStatus.OK; assert 'ctypes' not in sys.modules; b.structs.PandaCPU"
    )
    subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True)
