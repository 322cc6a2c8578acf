#!/usr/bin/env python3
"""Turn the public C headers into ctypes modules.

Reads ``csrc/include/panda/*.h`` and ``csrc/include/panda/plugins/*.h`` (the one
source of truth of the C boundary) and ``csrc/qemu/arches.toml``, writes
``pandalite/_bindings/``. The output
depends on nothing but the input: no time, no paths, no tool versions.

    tools/gen_ctypes.py            write the modules
    tools/gen_ctypes.py --check    compare, print a diff, exit 1 on a difference

What the headers may contain is deliberately little: includes of each other
and of stdbool.h, stddef.h, stdint.h; object-like constants; enums, structs and
unions with a tag; typedefs; function prototypes. Documentation is a
``/** ... */`` comment in front of what it documents. Everything else is an
error with file and line: better a build that stops than a binding that lies.

``plugins/<name>.h`` is what the plugin of that name offers: functions
``panda_<name>_<function>()``, and for each of its PPP callbacks a typedef
``on_<event>_t`` of a pointer to a function.

A line ``Never blocks.`` in the documentation of a function promises that it
returns at once and takes no lock: bindings may call it without releasing
Python's global lock.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycparser import c_ast, c_parser  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "csrc" / "include"
ARCHES = ROOT / "csrc" / "qemu" / "arches.toml"
OUTPUT = ROOT / "pandalite" / "_bindings"

#: Files of the output directory that other hands write.
FOREIGN = re.compile(r"loader\.py|env_(?P<arch>\w+)\.py|py\.typed")

#: Headers that are compiled into plugins, and declare nothing of the library's.
FOR_PLUGINS = ("plugin.h", "plugin_plugin.h")

#: The union that lists the callback kinds, and its twin with a context.
CALLBACK_UNION = "panda_cb"
CONTEXT_UNION = "panda_cb_with_context"
CALLBACK_ENUM = "panda_cb_type"
CALLBACK_PREFIX = "PANDA_CB_"
#: Member of the callback unions that is not a kind; enum member likewise.
NOT_A_KIND = "cbaddr"
KIND_COUNT = "PANDA_CB_LAST"

NEVER_BLOCKS = "Never blocks."

WIDTH = 100

#: What each system header declares: C name -> ctypes name.
SYSTEM_HEADERS: dict[str, dict[str, str]] = {
    "stdbool.h": {"bool": "c_bool"},
    "stddef.h": {"size_t": "c_size_t", "ptrdiff_t": "c_ssize_t"},
    "stdint.h": {
        **{f"{u}int{n}_t": f"c_{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)},
        "intptr_t": "c_ssize_t",
        "uintptr_t": "c_size_t",
    },
}

#: C's own arithmetic types -> ctypes name.
BASIC_TYPES: dict[str, str] = {
    "_Bool": "c_bool",
    "char": "c_char",
    "signed char": "c_byte",
    "unsigned char": "c_ubyte",
    "short": "c_short",
    "unsigned short": "c_ushort",
    "int": "c_int",
    "unsigned int": "c_uint",
    "unsigned": "c_uint",
    "long": "c_long",
    "unsigned long": "c_ulong",
    "long long": "c_longlong",
    "unsigned long long": "c_ulonglong",
    "float": "c_float",
    "double": "c_double",
}


class HeaderError(Exception):
    """A header holds something this tool does not understand."""

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}")


# --------------------------------------------------------------------------
# Preprocessing


@dataclass
class Doc:
    """A documentation comment and the stretch of code it stands in front of."""

    file: str
    line: int
    text: str
    #: Lines and identifiers of the declaration that follows.
    first_line: int = 0
    last_line: int = 0
    names: frozenset[str] = frozenset()
    used: bool = False


@dataclass
class Constant:
    """An object-like macro with a value."""

    name: str
    value: int | float | str | bytes
    doc: str


@dataclass
class Preprocessed:
    """One translation unit made of all headers."""

    text: str = ""
    docs: list[Doc] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    typedefs: dict[str, str] = field(default_factory=dict)


_COMMENT = re.compile(
    r"""(?P<block>/\*.*?\*/)|(?P<line>//[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*")"""
    r"""|(?P<char>'(?:\\.|[^'\\\n])+')|(?P<open>/\*)""",
    re.DOTALL,
)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_TOKEN = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])+'|[A-Za-z_]\w*|\d\w*""")
_DIRECTIVE = re.compile(r"\s*#\s*(?P<name>\w*)\s*(?P<rest>.*)", re.DOTALL)
_INTEGER = re.compile(r"\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]*\b")


def _comment_text(comment: str) -> str:
    """The words of a ``/** */`` comment without its stars."""
    lines = comment[3:-2].split("\n")
    lines = [lines[0].strip(), *(re.sub(r"^\s*\* ?", "", line).rstrip() for line in lines[1:])]
    return "\n".join(lines).strip()


class Preprocessor:
    """Just enough of a C preprocessor for headers that keep to the rules."""

    def __init__(self, include: Path, base: Path | None = None) -> None:
        """Resolve ``#include "panda/x.h"`` in include; show paths relative to base."""
        self._include = include
        self._base = base
        self._seen: set[Path] = set()
        self._macros: dict[str, str] = {}
        self._out: list[str] = []
        self.result = Preprocessed()

    def run(self, headers: list[Path]) -> Preprocessed:
        """Preprocess the headers, each once, in the order they need each other."""
        for header in headers:
            self._file(header)
        self.result.text = "\n".join(self._out) + "\n"
        return self.result

    def _name(self, path: Path) -> str:
        if self._base is not None:
            try:
                return path.resolve().relative_to(self._base.resolve()).as_posix()
            except ValueError:
                pass
        return path.as_posix()

    def _file(self, path: Path) -> None:
        path = path.resolve()
        if path in self._seen:
            return
        self._seen.add(path)
        name = self._name(path)
        clean, docs = self._strip_comments(path.read_text(encoding="utf-8"), name)
        lines = clean.split("\n")
        active = [True] * (len(lines) + 2)
        self._out.append(f'# 1 "{name}"')
        conditions: list[bool] = []
        opened: list[int] = []
        index = 0
        while index < len(lines):
            number = index + 1
            text = lines[index]
            live = all(conditions)
            active[number] = live
            if not text.lstrip().startswith("#"):
                if text.rstrip().endswith("\\") and live:
                    raise HeaderError(name, number, "line continuation outside of a directive")
                self._out.append(self._expand(text) if live else "")
                index += 1
                continue
            while text.endswith("\\") and index + 1 < len(lines):
                index += 1
                active[index + 1] = live
                text = text[:-1] + " " + lines[index]
                self._out.append("")
            self._out.append("")
            index += 1
            match = _DIRECTIVE.match(text)
            assert match is not None
            directive, rest = match["name"], match["rest"].strip()
            if directive in ("ifdef", "ifndef"):
                if not _IDENTIFIER.fullmatch(rest):
                    raise HeaderError(name, number, f"#{directive} needs one name, not {rest!r}")
                conditions.append((rest in self._macros) == (directive == "ifdef"))
                opened.append(number)
            elif directive == "else":
                if not conditions:
                    raise HeaderError(name, number, "#else without #ifdef or #ifndef")
                conditions[-1] = not conditions[-1]
            elif directive == "endif":
                if not conditions:
                    raise HeaderError(name, number, "#endif without #ifdef or #ifndef")
                conditions.pop()
                opened.pop()
            elif directive in ("if", "elif"):
                raise HeaderError(
                    name, number, f"#{directive} is not supported; use #ifdef or #ifndef"
                )
            elif not live:
                pass
            elif directive == "include":
                self._include_directive(path, name, number, rest)
                self._out.append(f'# {index + 1} "{name}"')
            elif directive == "define":
                self._define(name, number, rest, docs)
            elif directive == "pragma" and rest == "once":
                pass  # every file is read once anyway
            elif directive:
                raise HeaderError(name, number, f"directive #{directive} is not supported")
        if conditions:
            raise HeaderError(name, opened[-1], "#ifdef or #ifndef without #endif")
        self.result.docs += [doc for doc in docs if active[doc.line]]

    def _include_directive(self, path: Path, name: str, number: int, rest: str) -> None:
        system = re.fullmatch(r"<([^>]+)>", rest)
        if system is not None:
            known = SYSTEM_HEADERS.get(system[1])
            if known is None:
                allowed = ", ".join(f"<{header}>" for header in SYSTEM_HEADERS)
                raise HeaderError(name, number, f"#include {rest}: only {allowed} are allowed")
            new = {key: value for key, value in known.items() if key not in self.result.typedefs}
            self.result.typedefs.update(new)
            # The types behind the names do not matter here: the parser only
            # has to know that they are types.
            self._out += ['# 1 "<builtin>"', *(f"typedef int {key};" for key in new)]
            return
        own = re.fullmatch(r'"([^"]+)"', rest)
        if own is None:
            raise HeaderError(name, number, f"#include {rest} is not understood")
        target = self._include / own[1]
        if not target.is_file():
            target = path.parent / own[1]
        if not target.is_file():
            raise HeaderError(name, number, f"#include {rest}: no such header")
        self._file(target)

    def _define(self, name: str, number: int, rest: str, docs: list[Doc]) -> None:
        match = re.match(r"([A-Za-z_]\w*)(.?)", rest)
        if match is None:
            raise HeaderError(name, number, f"#define {rest} is not understood")
        macro = match[1]
        if match[2] == "(":
            raise HeaderError(
                name, number, f"function-like macro {macro} cannot be translated; use a function"
            )
        body = self._expand(rest[len(macro) :].strip())
        if macro in self._macros and self._macros[macro] != body:
            raise HeaderError(name, number, f"{macro} is defined twice with different values")
        self._macros[macro] = body
        doc = _find_doc(docs, macro, name, number)
        if body:
            value = _constant_value(body)
            if value is None:
                raise HeaderError(name, number, f"value of {macro} is not a constant: {body}")
            self.result.constants[macro] = Constant(macro, value, doc)

    def _expand(self, text: str) -> str:
        """Replace object-like macros; strings and characters stay."""
        return _TOKEN.sub(lambda match: self._macros.get(match[0], match[0]), text)

    @staticmethod
    def _strip_comments(text: str, name: str) -> tuple[str, list[Doc]]:
        """Blank all comments, keep line numbers, and collect the documentation."""
        docs: list[tuple[Doc, int]] = []

        def replace(match: re.Match[str]) -> str:
            found = match[0]
            line = text.count("\n", 0, match.start()) + 1
            if match.lastgroup == "open":
                raise HeaderError(name, line, "comment is not closed")
            if match.lastgroup in ("string", "char"):
                return found
            if found.startswith(("/**<", "///", "//!", "/*!")):
                raise HeaderError(
                    name, line, "write documentation as /** ... */ in front of the declaration"
                )
            if found.startswith("/**") and len(found) > 4:
                docs.append((Doc(name, line, _comment_text(found)), match.end()))
            return re.sub(r"[^\n]", " ", found)

        clean = _COMMENT.sub(replace, text)
        previous = -1
        for doc, end in docs:
            start = end + len(clean[end:]) - len(clean[end:].lstrip())
            if start == previous:
                raise HeaderError(name, doc.line, "two documentation comments in a row")
            previous = start
            stop = _declaration_end(clean, start)
            doc.first_line = clean.count("\n", 0, start) + 1
            doc.last_line = clean.count("\n", 0, stop) + 1
            doc.names = frozenset(_IDENTIFIER.findall(clean[start:stop]))
            if not doc.names:
                raise HeaderError(name, doc.line, "documentation comment in front of nothing")
        return clean, [doc for doc, _ in docs]


def _declaration_end(text: str, start: int) -> int:
    """Where the declaration (or directive line) that begins at start ends."""
    if text.startswith("#", start):
        end = text.find("\n", start)
        return len(text) if end < 0 else end
    depth = 0
    for index in range(start, len(text)):
        char = text[index]
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char in ";,{}" and depth == 0:
            return index
    return len(text)


def _find_doc(docs: list[Doc], name: str, file: str, line: int) -> str:
    """The documentation of the thing of that name declared at that line."""
    for doc in docs:
        if doc.file == file and doc.first_line <= line <= doc.last_line and name in doc.names:
            doc.used = True
            return doc.text
    return ""


def _constant_value(body: str) -> int | float | str | None:
    """Value of a constant expression of C, None if it is none."""
    if re.fullmatch(r'"(?:\\.|[^"\\])*"', body):
        return str(ast.literal_eval(body))
    # C integers without suffixes and leading-zero octals are Python's, and so
    # are the operators that make sense in a constant.
    source = _INTEGER.sub(
        lambda match: str(int(match[1], 8 if re.fullmatch(r"0\d+", match[1]) else 0)), body
    )
    try:
        tree = ast.parse(source, mode="eval")
        return _evaluate(tree.body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.LShift: lambda a, b: a << b,
    ast.RShift: lambda a, b: a >> b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitAnd: lambda a, b: a & b,
    ast.BitXor: lambda a, b: a ^ b,
}


def _evaluate(node: ast.expr) -> int | float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        return ~int(_evaluate(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        result: int | float = _BINARY[type(node.op)](_evaluate(node.left), _evaluate(node.right))
        return result
    raise ValueError(ast.dump(node))


# --------------------------------------------------------------------------
# The model: what the headers declare


@dataclass(frozen=True)
class CType:
    """A C type.

    kind is one of: void, scalar, enum, opaque, record, pointer, array,
    function. name is the spelling for the first five; target what a pointer
    points to, an array is made of, or a function returns.
    """

    kind: str
    name: str = ""
    const: bool = False
    target: CType | None = None
    length: int = 0
    args: tuple[CType, ...] = ()
    #: ctypes name of a scalar.
    ctypes: str = ""

    @property
    def spelling(self) -> str:
        """The type as C source."""
        return _spell(self, "")


def _spell(ctype: CType, inner: str) -> str:
    if ctype.kind == "pointer":
        assert ctype.target is not None
        star = "*" + ("const " if ctype.const else "") + inner
        if ctype.target.kind in ("function", "array"):
            star = f"({star})"
        return _spell(ctype.target, star)
    if ctype.kind == "array":
        assert ctype.target is not None
        return _spell(ctype.target, f"{inner}[{ctype.length}]")
    if ctype.kind == "function":
        assert ctype.target is not None
        args = ", ".join(arg.spelling for arg in ctype.args) or "void"
        return _spell(ctype.target, f"{inner}({args})")
    base = ("const " if ctype.const else "") + ctype.name
    return f"{base} {inner}" if inner else base


@dataclass
class Variable:
    """A parameter, a field or a union member."""

    name: str
    type: CType
    doc: str = ""


@dataclass
class Enum:
    """An enum type."""

    name: str
    doc: str
    members: list[tuple[str, int, str]]

    def prefix(self) -> str:
        """The longest common prefix of the members that ends in an underscore."""
        names = [name for name, _, _ in self.members]
        if len(names) < 2:
            return ""
        first, last = min(names), max(names)
        common = 0
        while common < min(len(first), len(last)) and first[common] == last[common]:
            common += 1
        cut = first[:common].rfind("_") + 1
        if all(name[cut:].isidentifier() for name in names):
            return first[:cut]
        return ""


@dataclass
class Record:
    """A struct or union type."""

    name: str
    doc: str
    union: bool
    fields: list[Variable]


@dataclass
class Function:
    """A function prototype."""

    name: str
    doc: str
    result: CType
    params: list[Variable]
    #: The plugin whose header declares it.
    plugin: str = ""

    @property
    def nonblocking(self) -> bool:
        """Whether the documentation promises that it returns at once."""
        return any(line.strip() == NEVER_BLOCKS for line in self.doc.split("\n"))


@dataclass
class PppCallback:
    """A PPP callback of a plugin."""

    plugin: str
    name: str
    doc: str
    type: CType
    params: list[str]


@dataclass
class Kind:
    """A callback kind."""

    name: str
    number: int
    doc: str
    type: CType
    params: list[str]


@dataclass
class Api:
    """Everything the headers declare, in order of appearance."""

    constants: list[Constant] = field(default_factory=list)
    enums: dict[str, Enum] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    opaque: dict[str, str] = field(default_factory=dict)
    scalars: dict[str, CType] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    kinds: list[Kind] = field(default_factory=list)
    #: Plugins that have a header, and what they call.
    plugins: dict[str, list[PppCallback]] = field(default_factory=dict)


class Reader:
    """Turns pycparser's tree into an Api."""

    def __init__(self, source: Preprocessed) -> None:
        """Read a preprocessed translation unit."""
        self._source = source
        self._enumerators: dict[str, int] = {}
        self._aliases: dict[str, CType] = {}
        self._incomplete: dict[str, tuple[str, int, str]] = {}
        #: Names of parameters of function-pointer members, by record.
        self._param_names: dict[tuple[str, str], list[str]] = {}
        self._positions: dict[str, tuple[str, int]] = {}
        self.api = Api(constants=list(source.constants.values()))

    def read(self) -> Api:
        """Parse, check, and return what was declared."""
        for name, ctypes_name in self._source.typedefs.items():
            self._aliases[name] = CType("scalar", name, ctypes=ctypes_name)
        try:
            tree = c_parser.CParser().parse(self._source.text, "<headers>")
        except c_parser.ParseError as error:
            raise self._parse_error(error) from None
        for node in tree.ext:
            if _position(node)[0] == "<builtin>":
                continue
            self._external(node)
        self._finish()
        return self.api

    @staticmethod
    def _parse_error(error: Exception) -> HeaderError:
        match = re.match(r"(.*?):(\d+)(?::\d+)?: (.*)", str(error), re.DOTALL)
        if match is None:
            return HeaderError("<headers>", 0, str(error))
        return HeaderError(match[1], int(match[2]), f"not understood as C: {match[3]}")

    def _doc(self, name: str, node: c_ast.Node, *, required: bool = False) -> str:
        file, line = _position(node)
        doc = _find_doc(self._source.docs, name, file, line)
        if required and not doc:
            raise HeaderError(file, line, f"{name} has no documentation comment /** ... */")
        return doc

    # Declarations

    def _external(self, node: c_ast.Node) -> None:
        if isinstance(node, c_ast.Typedef):
            self._typedef(node)
        elif isinstance(node, c_ast.Decl):
            if "static" in node.storage or "inline" in (node.funcspec or []):
                raise _error(node, f"{node.name}: only plain prototypes are allowed")
            if isinstance(node.type, c_ast.FuncDecl):
                self._function(node)
            elif isinstance(node.type, (c_ast.Struct, c_ast.Union, c_ast.Enum)):
                self._tagged(node.type)
            else:
                raise _error(node, f"variable {node.name}: export a function that returns it")
        elif isinstance(node, c_ast.FuncDef):
            raise _error(node, f"function {node.decl.name} has a body")
        else:
            raise _error(node, f"{type(node).__name__} is not supported here")

    def _typedef(self, node: c_ast.Typedef) -> None:
        name = node.name
        inner = node.type
        if isinstance(inner, c_ast.TypeDecl) and isinstance(
            inner.type, (c_ast.Struct, c_ast.Union, c_ast.Enum)
        ):
            tagged = inner.type
            kind = type(tagged).__name__.lower()
            if tagged.name is None:
                raise _error(node, f"{kind} without a tag; write 'typedef {kind} {name}'")
            if tagged.name != name:
                raise _error(node, f"typedef {name} and tag {tagged.name} must be the same name")
            self._tagged(tagged, node)
            return
        self._aliases[name] = self._type(inner, name)
        doc = self._doc(name, node, required=True)
        resolved = self._aliases[name]
        plugin = self._plugin(node)
        if plugin and name.startswith("on_") and name.endswith("_t"):
            self._ppp(plugin, name[:-2], doc, resolved, node)
        if resolved.kind == "scalar":
            resolved = CType("scalar", name, ctypes=resolved.ctypes)
            self._aliases[name] = resolved
            self.api.scalars[name] = resolved

    def _plugin(self, node: c_ast.Node) -> str:
        """The plugin whose header a declaration is in, or an empty string."""
        folder, _, file = _position(node)[0].rpartition("/")
        if not folder.endswith("panda/plugins"):
            return ""
        plugin = file.removesuffix(".h")
        self.api.plugins.setdefault(plugin, [])
        return plugin

    def _ppp(self, plugin: str, name: str, doc: str, ctype: CType, node: c_ast.Typedef) -> None:
        names = _function_param_names(node.type)
        if ctype.kind != "pointer" or ctype.target is None or names is None:
            raise _error(node, f"{node.name} is not a pointer to a function")
        if not all(names):
            raise _error(node, f"{node.name}: a parameter has no name")
        self.api.plugins[plugin].append(PppCallback(plugin, name, doc, ctype.target, names))

    def _tagged(self, node: c_ast.Node, typedef: c_ast.Node | None = None) -> None:
        name = node.name
        if isinstance(node, c_ast.Enum):
            if node.values is None:
                if name not in self.api.enums:
                    raise _error(node, f"enum {name} is not defined")
                return
            self._enum(node)
            return
        union = isinstance(node, c_ast.Union)
        self._aliases.setdefault(name, CType("record", name))
        if node.decls is None:
            if name not in self.api.records and name not in self._incomplete:
                file, line = _position(node)
                doc = self._doc(name, typedef or node)
                self._incomplete[name] = (file, line, doc)
            return
        if name in self.api.records:
            raise _error(node, f"{name} is defined twice")
        doc = self._doc(name, node)
        if not doc and name in self._incomplete:
            doc = self._incomplete[name][2]
        if not doc:
            raise _error(node, f"{name} has no documentation comment /** ... */")
        record = Record(name, doc, union, [])
        self._positions[name] = _position(node)
        for decl in node.decls:
            if not isinstance(decl, c_ast.Decl) or decl.name is None:
                raise _error(decl, f"{name}: a member without a name is not supported")
            if decl.bitsize is not None:
                raise _error(decl, f"{name}.{decl.name}: bit-fields are not supported")
            where = f"{name}.{decl.name}"
            ctype = self._type(decl.type, where)
            if ctype.kind == "record" and ctype.name not in self.api.records:
                raise _error(decl, f"{where}: {ctype.name} is not defined here")
            record.fields.append(Variable(decl.name, ctype, self._doc(decl.name, decl)))
            names = _function_param_names(decl.type)
            if names is not None:
                self._param_names[name, decl.name] = names
        if not record.fields:
            raise _error(node, f"{name} has no members")
        self.api.records[name] = record

    def _enum(self, node: c_ast.Enum) -> None:
        name = node.name
        if name in self.api.enums:
            raise _error(node, f"{name} is defined twice")
        members: list[tuple[str, int, str]] = []
        next_value = 0
        for item in node.values.enumerators:
            if item.value is not None:
                next_value = self._constant(item.value)
            if item.name in self._enumerators:
                raise _error(item, f"{item.name} is defined twice")
            self._enumerators[item.name] = next_value
            members.append((item.name, next_value, self._doc(item.name, item)))
            next_value += 1
        self.api.enums[name] = Enum(name, self._doc(name, node, required=True), members)
        self._aliases[name] = CType("enum", name)

    def _function(self, node: c_ast.Decl) -> None:
        name = node.name
        if name in self.api.functions:
            raise _error(node, f"{name} is declared twice")
        doc = self._doc(name, node, required=True)
        ctype = self._type(node.type, name)
        assert ctype.target is not None
        names = _function_param_names(node.type) or []
        for number, param in enumerate(names):
            if not param:
                raise _error(node, f"{name}: parameter {number + 1} has no name")
        params = [Variable(param, arg) for param, arg in zip(names, ctype.args)]
        plugin = self._plugin(node)
        if plugin and not name.startswith(f"panda_{plugin}_"):
            raise _error(node, f"{name}: call it panda_{plugin}_..., as it is a plugin's")
        self.api.functions[name] = Function(name, doc, ctype.target, params, plugin)

    # Types

    def _type(self, node: c_ast.Node, where: str) -> CType:
        if isinstance(node, c_ast.TypeDecl):
            return self._type_decl(node, where)
        if isinstance(node, c_ast.PtrDecl):
            target = self._type(node.type, where)
            return CType("pointer", target=target, const="const" in (node.quals or []))
        if isinstance(node, c_ast.ArrayDecl):
            if node.dim is None:
                raise _error(node, f"{where}: array without a length")
            length = self._constant(node.dim)
            if length < 1:
                raise _error(node, f"{where}: array of length {length}")
            return CType("array", target=self._type(node.type, where), length=length)
        if isinstance(node, c_ast.FuncDecl):
            return self._function_type(node, where)
        raise _error(node, f"{where}: {type(node).__name__} is not supported")

    def _type_decl(self, node: c_ast.TypeDecl, where: str) -> CType:
        const = "const" in (node.quals or [])
        inner = node.type
        if isinstance(inner, c_ast.IdentifierType):
            spelling = " ".join(inner.names)
            if spelling == "void":
                return CType("void", "void", const)
            if spelling in self._aliases:
                found = self._aliases[spelling]
                if not const:
                    return found
                if found.kind in ("scalar", "enum", "record"):
                    return CType(found.kind, found.name, True, ctypes=found.ctypes)
                raise _error(node, f"{where}: const {spelling} is not supported")
            if spelling in BASIC_TYPES:
                return CType("scalar", spelling, const, ctypes=BASIC_TYPES[spelling])
            raise _error(node, f"{where}: type {spelling} is not supported")
        if isinstance(inner, (c_ast.Struct, c_ast.Union, c_ast.Enum)):
            if inner.name is None or getattr(inner, "decls", None) is not None:
                raise _error(node, f"{where}: define nested types by themselves, with a tag")
            raise _error(node, f"{where}: use the typedef instead of the tag {inner.name}")
        raise _error(node, f"{where}: {type(inner).__name__} is not supported")

    def _function_type(self, node: c_ast.FuncDecl, where: str) -> CType:
        result = self._type(node.type, where)
        args: list[CType] = []
        if node.args is None:
            raise _error(node, f"{where}: write (void) for a function without parameters")
        for param in node.args.params:
            if isinstance(param, c_ast.EllipsisParam):
                raise _error(node, f"{where}: variable arguments are not supported")
            ctype = self._type(param.type, f"{where}()")
            if ctype.kind == "void" and len(node.args.params) == 1:
                break
            if ctype.kind == "array":
                ctype = CType("pointer", target=ctype.target)
            if ctype.kind in ("void", "function"):
                raise _error(param, f"{where}(): parameter of type {ctype.spelling}")
            args.append(ctype)
        return CType("function", target=result, args=tuple(args))

    def _constant(self, node: c_ast.Node) -> int:
        if isinstance(node, c_ast.Constant):
            value = _constant_value(node.value)
            if isinstance(value, int):
                return value
        elif isinstance(node, c_ast.ID):
            if node.name in self._enumerators:
                return self._enumerators[node.name]
            raise _error(node, f"{node.name} is not a known constant")
        elif isinstance(node, c_ast.UnaryOp) and node.op in ("-", "~", "+"):
            operand = self._constant(node.expr)
            return {"-": -operand, "~": ~operand, "+": operand}[node.op]
        elif isinstance(node, c_ast.BinaryOp):
            value = _constant_value(
                f"{self._constant(node.left)} {node.op} ({self._constant(node.right)})"
            )
            if isinstance(value, int):
                return value
        raise _error(node, "not an integer constant")

    # Checks that need the whole

    def _finish(self) -> None:
        for name, (file, line, doc) in self._incomplete.items():
            if name in self.api.records:
                continue
            if not doc:
                raise HeaderError(file, line, f"{name} has no documentation comment /** ... */")
            self.api.opaque[name] = doc
        for doc_ in self._source.docs:
            if not doc_.used:
                raise HeaderError(
                    doc_.file, doc_.line, "documentation comment belongs to nothing that is known"
                )
        if CALLBACK_UNION in self.api.records:
            self._kinds()

    def _kinds(self) -> None:
        file, line = self._positions[CALLBACK_UNION]
        if CALLBACK_ENUM not in self.api.enums:
            raise HeaderError(file, line, f"{CALLBACK_UNION} needs enum {CALLBACK_ENUM}")
        numbers = {name: value for name, value, _ in self.api.enums[CALLBACK_ENUM].members}
        count = numbers.pop(KIND_COUNT, None)
        for member in self.api.records[CALLBACK_UNION].fields:
            if member.name == NOT_A_KIND:
                continue
            enumerator = CALLBACK_PREFIX + member.name.upper()
            number = numbers.pop(enumerator, None)
            if number is None:
                raise HeaderError(
                    file, line, f"{CALLBACK_UNION}.{member.name}: no enumerator {enumerator}"
                )
            if member.type.kind != "pointer" or member.type.target.kind != "function":  # type: ignore[union-attr]
                raise HeaderError(
                    file, line, f"{CALLBACK_UNION}.{member.name} is not a function pointer"
                )
            if not member.doc:
                raise HeaderError(
                    file, line, f"{CALLBACK_UNION}.{member.name} has no documentation comment"
                )
            assert member.type.target is not None
            names = self._param_names[CALLBACK_UNION, member.name]
            if not all(names):
                raise HeaderError(
                    file, line, f"{CALLBACK_UNION}.{member.name}: a parameter has no name"
                )
            self.api.kinds.append(Kind(member.name, number, member.doc, member.type.target, names))
        if numbers:
            raise HeaderError(
                file, line, f"{CALLBACK_UNION} has no member for {', '.join(sorted(numbers))}"
            )
        self.api.kinds.sort(key=lambda kind: kind.number)
        if [kind.number for kind in self.api.kinds] != list(range(len(self.api.kinds))):
            raise HeaderError(file, line, f"numbers of {CALLBACK_ENUM} are not 0, 1, 2, ...")
        if count is not None and count != len(self.api.kinds):
            raise HeaderError(
                file, line, f"{KIND_COUNT} is {count}, but there are {len(self.api.kinds)} kinds"
            )
        self._context_union()

    def _context_union(self) -> None:
        twin = self.api.records.get(CONTEXT_UNION)
        if twin is None:
            return
        file, line = self._positions[CONTEXT_UNION]
        members = {member.name: member.type.target for member in twin.fields}
        context = CType("pointer", target=CType("void", "void"))
        for kind in self.api.kinds:
            found = members.pop(kind.name, None)
            wanted = CType("function", target=kind.type.target, args=(context, *kind.type.args))
            if found != wanted:
                raise HeaderError(
                    file, line, f"{CONTEXT_UNION}.{kind.name} is not {wanted.spelling}"
                )
        members.pop(NOT_A_KIND, None)
        if members:
            raise HeaderError(file, line, f"{CONTEXT_UNION}: unknown kind {', '.join(members)}")


def _position(node: c_ast.Node) -> tuple[str, int]:
    coord = node.coord
    if coord is None:
        return "<headers>", 0
    return str(coord.file), int(coord.line)


def _error(node: c_ast.Node, reason: str) -> HeaderError:
    file, line = _position(node)
    return HeaderError(file, line, reason)


def _function_param_names(node: c_ast.Node) -> list[str] | None:
    """Parameter names of a function or function pointer, None for other types."""
    if isinstance(node, c_ast.PtrDecl):
        node = node.type
    if not isinstance(node, c_ast.FuncDecl):
        return None
    names: list[str] = []
    for param in node.args.params if node.args is not None else []:
        is_void = (
            isinstance(param.type, c_ast.TypeDecl)
            and isinstance(param.type.type, c_ast.IdentifierType)
            and param.type.type.names == ["void"]
        )
        if not is_void:
            names.append(getattr(param, "name", None) or "")
    return names


def read_headers(include: Path, base: Path | None = None) -> Api:
    """Read ``<include>/panda/`` and its ``plugins/``; messages are relative to base."""
    headers = sorted(h for h in (include / "panda").glob("*.h") if h.name not in FOR_PLUGINS)
    headers += sorted((include / "panda" / "plugins").glob("*.h"))
    if not headers:
        raise HeaderError(str(include / "panda"), 0, "no headers there")
    return Reader(Preprocessor(include, base).run(headers)).read()


# --------------------------------------------------------------------------
# Architectures


@dataclass(frozen=True)
class Arch:
    """One table of arches.toml."""

    name: str
    bits: int
    little_endian: bool


def read_arches(path: Path) -> list[Arch]:
    """Read the list of guest architectures; keys other tools use are ignored."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    with path.open("rb") as stream:
        data: dict[str, Any] = tomllib.load(stream)
    arches: list[Arch] = []
    for name, table in data.items():
        where = f"[{name}]"
        if not isinstance(table, dict):
            raise HeaderError(str(path), 0, f"{name} is not a table")
        if table.get("bits") not in (32, 64):
            raise HeaderError(str(path), 0, f"{where} bits must be 32 or 64")
        if table.get("endian") not in ("little", "big"):
            raise HeaderError(str(path), 0, f"{where} endian must be 'little' or 'big'")
        arches.append(Arch(name, table["bits"], table["endian"] == "little"))
    return arches


# --------------------------------------------------------------------------
# Python source


def natural_key(name: str) -> tuple[Any, ...]:
    """Sort key of imported names as ruff's isort rules want it."""
    group = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    parts = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part.lower())
        for part in re.split(r"(\d+)", name)
        if part
    )
    return (group, parts, name)


def bracketed(indent: int, head: str, items: list[str], tail: str) -> list[str]:
    """Lines ``head items tail`` on one line if it fits, else one item a line."""
    pad = " " * indent
    comma = "," if len(items) == 1 and head.endswith("(") and head[-2:-1] in ("", " ", "(") else ""
    one = f"{pad}{head}{', '.join(items)}{comma}{tail}"
    if len(one) <= WIDTH and not any("\n" in item for item in items):
        return [one]
    lines = [pad + head]
    for item in items:
        lines.append(f"{pad}    {item},")
    return [*lines, pad + tail]


def docstring(text: str, indent: int, extra: list[str] | None = None) -> list[str]:
    """A docstring; extra lines (already without indentation) are appended."""
    pad = " " * indent
    text = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    lines: list[str] = []
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            lines.append("")
        lines += _wrap(paragraph, WIDTH - indent - (3 if number == 0 else 0))
    if extra:
        lines += ["", *extra]
    if len(lines) == 1 and len(pad) + len(lines[0]) + 6 <= WIDTH and not lines[0].endswith('"'):
        return [f'{pad}"""{lines[0]}"""']
    if lines[0].startswith('"'):
        lines[0] = "\\" + lines[0]
    first = f'{pad}"""{lines[0]}'
    return [first, *((pad + line).rstrip() for line in lines[1:]), f'{pad}"""']


def _wrap(paragraph: str, width: int) -> list[str]:
    """Fill a paragraph; lines that begin a list item stay apart."""
    items: list[str] = []
    for line in paragraph.split("\n"):
        if items and not re.match(r"\s*(?:[-*]|\d+\.) ", line) and line.strip() != NEVER_BLOCKS:
            items[-1] += " " + line.strip()
        else:
            items.append(line.strip())
    result: list[str] = []
    for item in items:
        result += textwrap.wrap(item, width, break_long_words=False, break_on_hyphens=False)
    return result


def _member_docs(title: str, members: list[tuple[str, str]]) -> list[str]:
    """The section of a class docstring that tells what the members are."""
    documented = [(name, doc) for name, doc in members if doc]
    if not documented:
        return []
    lines = [f"{title}:"]
    for name, doc in documented:
        text = f"{name}: " + " ".join(doc.replace("\\", "\\\\").split())
        lines += textwrap.wrap(
            text,
            WIDTH - 8,
            initial_indent="    ",
            subsequent_indent="        ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


class Module:
    """Source of one generated module."""

    def __init__(self, source: str, doc: str) -> None:
        """A module generated from source, with a docstring."""
        self._source = source
        self._doc = doc
        self._imports: dict[str, set[str]] = {}
        self._typing_imports: dict[str, set[str]] = {}
        self.body: list[str] = []

    def use(self, module: str, *names: str) -> None:
        """Import names of a module."""
        self._imports.setdefault(module, set()).update(names)

    def use_for_types(self, module: str, *names: str) -> None:
        """Import names that only annotations need."""
        self._typing_imports.setdefault(module, set()).update(names)

    def ctypes(self, expression: str) -> str:
        """Import the names of ctypes an expression uses, and return it."""
        for name in _IDENTIFIER.findall(expression):
            if name in ("POINTER", "CFUNCTYPE") or re.fullmatch(r"c_[a-z0-9_]+", name):
                self.use("ctypes", name)
        return expression

    def annotation(self, expression: str) -> str:
        """Import for type checkers what an annotation uses, and return it."""
        for name in _IDENTIFIER.findall(expression):
            if name in ("Array", "_Pointer", "_CArgObject") or re.fullmatch(r"c_[a-z0-9_]+", name):
                self.use_for_types("ctypes", name)
            elif name == "CFuncPtr":
                self.use_for_types("_ctypes", name)
        return expression

    def render(self) -> str:
        """The whole module."""
        lines = [f"# Generated by tools/gen_ctypes.py from {self._source}: do not edit."]
        lines += docstring(self._doc, 0)
        lines += ["", "from __future__ import annotations", ""]
        typing_only = {
            module: names - self._imports.get(module, set())
            for module, names in self._typing_imports.items()
        }
        typing_only = {module: names for module, names in typing_only.items() if names}
        if typing_only:
            self.use("typing", "TYPE_CHECKING")
        imports = _render_imports(self._imports, 0)
        lines += imports
        if typing_only:
            lines += ["", "if TYPE_CHECKING:", *_render_imports(typing_only, 4)]
        body = list(self.body)
        while body and not body[0]:
            body.pop(0)
        if body:
            compact = not imports and not typing_only
            begins_block = body[0].startswith(("class ", "def ", "@"))
            if begins_block:
                lines += [""] if compact else ["", ""]
            elif not compact:
                lines += [""]
            lines += body
        while lines and not lines[-1]:
            lines.pop()
        return "\n".join(lines) + "\n"


def _render_imports(imports: dict[str, set[str]], indent: int) -> list[str]:
    lines: list[str] = []
    groups = (
        sorted(module for module in imports if not module.startswith(".")),
        sorted(module for module in imports if module.startswith(".")),
    )
    for group in groups:
        if lines and group:
            lines.append("")
        for module in group:
            names = sorted(imports[module], key=natural_key)
            pad = " " * indent
            one = f"{pad}from {module} import {', '.join(names)}"
            if len(one) <= WIDTH:
                lines.append(one)
            else:
                lines += [f"{pad}from {module} import ("]
                lines += [f"{pad}    {name}," for name in names]
                lines += [f"{pad})"]
    return lines


class Translator:
    """Says what a C type is in ctypes and in Python's annotations.

    ``where`` tells the place of a type: "field" and "callback" are exact;
    for "param" and "result" of functions a byte buffer is a plain address
    (c_void_p), which takes bytes, arrays, addresses and byref() alike.
    """

    def __init__(self, api: Api) -> None:
        """Translate types of that Api."""
        self._api = api

    def is_opaque(self, ctype: CType) -> bool:
        """Whether it is a struct whose members are not public."""
        return ctype.kind == "record" and ctype.name not in self._api.records

    def ctypes(self, ctype: CType, where: str) -> str:
        """The ctypes expression for a type."""
        if ctype.kind == "void":
            return "None"
        if ctype.kind == "scalar":
            return ctype.ctypes
        if ctype.kind == "enum":
            # gcc and clang make an enum unsigned unless a member is negative.
            negative = any(value < 0 for _, value, _ in self._api.enums[ctype.name].members)
            return "c_int" if negative else "c_uint"
        if ctype.kind == "record":
            return ctype.name
        target = ctype.target
        assert target is not None
        if ctype.kind == "array":
            return f"{self.ctypes(target, 'field')} * {ctype.length}"
        if ctype.kind == "function":
            args = [self.ctypes(target, "result" if where == "param" else where)]
            args += [self.ctypes(arg, "callback") for arg in ctype.args]
            return f"CFUNCTYPE({', '.join(args)})"
        if target.kind == "function":
            return self.ctypes(target, "callback")
        if target.kind == "void" or self.is_opaque(target):
            return "c_void_p"
        if target.kind == "scalar" and target.ctypes == "c_char":
            # A char * that is returned may have to be freed: keep the address.
            if target.const or where in ("param", "callback"):
                return "c_char_p"
            return "POINTER(c_char)"
        is_byte = target.kind == "scalar" and target.ctypes in ("c_uint8", "c_ubyte")
        if is_byte and where in ("param", "result"):
            return "c_void_p"
        if target.kind == "pointer":
            inner = target.target
            if inner is not None and inner.kind == "scalar" and inner.ctypes == "c_char":
                return "POINTER(c_char_p)"
        return f"POINTER({self.ctypes(target, 'field')})"

    def value(self, ctype: CType, where: str) -> str:
        """Annotation of a value that Python reads."""
        expression = self.ctypes(ctype, where)
        if ctype.kind == "record":
            return ctype.name
        if ctype.kind == "array":
            assert ctype.target is not None
            if ctype.target.ctypes == "c_char":
                return "bytes"
            return f"Array[{_element(self.ctypes(ctype.target, 'field'))}]"
        return _value_annotation(expression)

    def accepted(self, ctype: CType) -> str:
        """Annotation of what a function parameter accepts."""
        expression = self.ctypes(ctype, "param")
        if expression == "c_void_p":
            return "Address"
        if expression == "c_char_p":
            return "CharPointer"
        if expression.startswith("POINTER("):
            inner = _element(expression[len("POINTER(") : -1])
            return f"{inner} | Array[{inner}] | _Pointer[{inner}] | _CArgObject | None"
        if expression.startswith("CFUNCTYPE("):
            return "CFuncPtr | None"
        return _value_annotation(expression)

    def by_value_union(self, ctype: CType) -> bool:
        """Whether passing it by value passes a union, which ctypes cannot."""
        record = self._api.records.get(ctype.name) if ctype.kind == "record" else None
        if record is None:
            return False
        return record.union or any(self.by_value_union(member.type) for member in record.fields)


def _parts(ctype: CType) -> set[str]:
    """The records a type holds, not only refers to."""
    if ctype.kind == "record":
        return {ctype.name}
    return _parts(ctype.target) if ctype.kind == "array" and ctype.target else set()


def _element(expression: str) -> str:
    """Annotation of the ctypes type behind a pointer or in an array."""
    if expression.startswith("POINTER("):
        return f"_Pointer[{_element(expression[len('POINTER(') : -1])}]"
    if expression.startswith("CFUNCTYPE("):
        return "CFuncPtr"
    match = re.fullmatch(r"(.*) \* \d+", expression)
    if match is not None:
        return f"Array[{_element(match[1])}]"
    return expression


def _value_annotation(expression: str) -> str:
    if expression == "None":
        return "None"
    if expression == "c_bool":
        return "bool"
    if expression == "c_char":
        return "bytes"
    if expression == "c_char_p":
        return "bytes | None"
    if expression == "c_void_p":
        return "int | None"
    if expression in ("c_float", "c_double"):
        return "float"
    if expression.startswith("c_"):
        return "int"
    return _element(expression)


class Generator:
    """Writes the modules."""

    SOURCE = "csrc/include/panda/*.h"

    def __init__(self, api: Api, arches: list[Arch]) -> None:
        """Generate from what was read."""
        self._api = api
        self._arches = arches
        self._types = Translator(api)

    def modules(self) -> dict[str, str]:
        """File name -> source of every generated module."""
        result = {
            "enums.py": self._enums(),
            "constants.py": self._constants(),
            "structs.py": self._structs(),
            "callbacks.py": self._callbacks(),
            "functions.py": self._functions(),
            "plugins.py": self._plugins(),
            "arches.py": self._arches_module(),
        }
        result["__init__.py"] = self._init(sorted([*result, "loader.py"]))
        for name, text in result.items():
            ast.parse(text, name, feature_version=(3, 9))
        return result

    def _init(self, files: list[str]) -> str:
        names = [file[:-3] for file in files]
        module = Module(
            "the list of modules",
            "What pandalite knows about the C side of its boundary.\n\n"
            "The modules are imported when they are first used, so that importing this package "
            "costs next to nothing.",
        )
        module.use("importlib", "import_module")
        module.use("typing", "TYPE_CHECKING")
        module.use_for_types("types", "ModuleType")
        module.use_for_types(".", *names)
        body = bracketed(0, "__all__ = [", [f'"{name}"' for name in names], "]")
        body += [
            "",
            "",
            "def __getattr__(name: str) -> ModuleType:",
            '    """Import a module of this package on first use."""',
            '    if name in __all__ or name.startswith("env_"):',
            '        return import_module(f"{__name__}.{name}")',
            '    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")',
        ]
        module.body = body
        return module.render()

    def _enums(self) -> str:
        module = Module(self.SOURCE, "The enumerations of the C API.")
        if self._api.enums:
            module.use("enum", "IntEnum")
        for enum in self._api.enums.values():
            prefix = enum.prefix()
            members = [(name[len(prefix) :], value, doc) for name, value, doc in enum.members]
            section = _member_docs("Members", [(name, doc) for name, _, doc in members])
            module.body += ["", "", f"class {enum.name}(IntEnum):"]
            module.body += docstring(enum.doc, 4, section)
            module.body += [""]
            module.body += [f"    {name} = {value}" for name, value, _ in members]
        return module.render()

    def _constants(self) -> str:
        module = Module(
            self.SOURCE,
            "The constants of the C API under their C names: macros and enumerators.",
        )
        for constant in self._api.constants:
            module.body += [f"#: {line}".rstrip() for line in constant.doc.split("\n") if line]
            module.body += [f"{constant.name} = {_literal(constant.value)}"]
        for enum in self._api.enums.values():
            if module.body:
                module.body += [""]
            module.body += [f"# enum {enum.name}"]
            module.body += [f"{name} = {value}" for name, value, _ in enum.members]
        if module.body:
            module.body.insert(0, "")
        return module.render()

    def _record(self, module: Module, record: Record, exprs: list[str]) -> list[str]:
        base = "Union" if record.union else "Structure"
        module.use("ctypes", base)
        section = _member_docs("Fields", [(item.name, item.doc) for item in record.fields])
        lines = ["", "", f"class {record.name}({base}):"]
        lines += docstring(record.doc, 4, section)
        lines += [""]
        for item, expr in zip(record.fields, exprs):
            annotation = module.annotation(self._types.value(item.type, "field"))
            if expr.startswith("CB_"):
                annotation = module.annotation("CFuncPtr")
            lines += [f"    {item.name}: {annotation}"]
        return lines

    @staticmethod
    def _fields(record: Record, exprs: list[str], indent: int, head: str) -> list[str]:
        pad = " " * indent
        lines = [f"{pad}{head} = ("]
        for item, expr in zip(record.fields, exprs):
            one = f'{pad}    ("{item.name}", {expr}),'
            if len(one) <= WIDTH:
                lines.append(one)
                continue
            lines += [f"{pad}    (", f'{pad}        "{item.name}",']
            lines += _expression_lines(expr, indent + 8, ",")
            lines += [f"{pad}    ),"]
        # A tuple of one that fits on a line stays there, says the formatter.
        if len(lines) == 2 and len(whole := lines[0] + lines[1].strip() + ")") <= WIDTH:
            return [whole]
        return [*lines, f"{pad})"]

    def _structs(self) -> str:
        module = Module(
            self.SOURCE,
            "The structures of the C API.\n\n"
            "Structs whose members are not public have no class here; a pointer to one is a "
            "c_void_p.",
        )
        defined: set[str] = set()
        #: Those whose members are known: they can be parts of others.
        complete: set[str] = set()
        waiting: list[tuple[Record, list[str], set[str], set[str]]] = []
        for record in self._api.records.values():
            if record.name in (CALLBACK_UNION, CONTEXT_UNION):
                continue
            exprs = [module.ctypes(self._types.ctypes(f.type, "field")) for f in record.fields]
            needs = {
                name
                for expr in exprs
                for name in _IDENTIFIER.findall(expr)
                if name in self._api.records
            }
            parts = {name for item in record.fields for name in _parts(item.type)}
            module.body += self._record(module, record, exprs)
            if needs <= defined and parts <= complete:
                module.body += ["", *self._fields(record, exprs, 4, "_fields_")]
                complete.add(record.name)
            else:
                waiting.append((record, exprs, needs, parts))
            defined.add(record.name)
            for item in list(waiting):
                if item[2] <= defined and item[3] <= complete:
                    waiting.remove(item)
                    complete.add(item[0].name)
                    head = f"{item[0].name}._fields_"
                    module.body += ["", "", *self._fields(item[0], item[1], 0, head)]
        if waiting:
            raise HeaderError(
                self.SOURCE, 0, f"{waiting[0][0].name} refers to a type that is never defined"
            )
        return module.render()

    def _import_records(self, module: Module, exprs: list[str]) -> None:
        for expr in exprs:
            for name in _IDENTIFIER.findall(expr):
                if name in (CALLBACK_UNION, CONTEXT_UNION):
                    module.use(".callbacks", name)
                elif name in self._api.records:
                    module.use(".structs", name)

    def _callbacks(self) -> str:
        module = Module(
            self.SOURCE,
            "The callback kinds of the core.\n\n"
            "CB_<name> is the exact type of a kind's C function; KINDS holds everything about "
            "the kinds, by name and in the order of their numbers.",
        )
        module.use("typing", "NamedTuple")
        module.annotation("CFuncPtr")
        body = module.body
        body += [
            "",
            "",
            "class CallbackKind(NamedTuple):",
            *docstring(
                "What there is to know about a callback kind.",
                4,
                _member_docs(
                    "Fields",
                    [
                        ("name", "The name, as in cb_<name>."),
                        ("number", "Its number in enum panda_cb_type."),
                        ("restype", "C type of the result: void, bool, int, ..."),
                        ("argnames", "Names of the arguments."),
                        ("argtypes", "C types of the arguments, as in the header."),
                        ("functype", "The CFUNCTYPE with the exact types."),
                        ("doc", "When it is raised and what the result does."),
                    ],
                ),
            ),
            "",
            "    name: str",
            "    number: int",
            "    restype: str",
            "    argnames: tuple[str, ...]",
            "    argtypes: tuple[str, ...]",
            "    functype: type[CFuncPtr]",
            "    doc: str",
            "",
            "",
        ]
        exprs: dict[str, str] = {}
        for kind in self._api.kinds:
            exprs[kind.name] = module.ctypes(self._types.ctypes(kind.type, "callback"))
            body += _expression_lines(exprs[kind.name], 0, "", f"CB_{kind.name} = ")
        for record_name in (CALLBACK_UNION, CONTEXT_UNION):
            record = self._api.records.get(record_name)
            if record is None:
                continue
            fields: list[str] = []
            for member in record.fields:
                if record_name == CALLBACK_UNION and member.name in exprs:
                    fields.append(f"CB_{member.name}")
                else:
                    fields.append(module.ctypes(self._types.ctypes(member.type, "callback")))
            plain = Record(
                record.name,
                record.doc,
                record.union,
                [Variable(f.name, f.type) for f in record.fields],
            )
            body += self._record(module, plain, fields)
            body += ["", *self._fields(record, fields, 4, "_fields_")]
            self._import_records(module, fields)
        self._import_records(module, list(exprs.values()))
        body += ["", "", "KINDS: dict[str, CallbackKind] = {"]
        for kind in self._api.kinds:
            assert kind.type.target is not None
            body += [f'    "{kind.name}": CallbackKind(']
            body += [f'        "{kind.name}",', f"        {kind.number},"]
            body += [f'        "{kind.type.target.spelling}",']
            body += _joined(_string_tuple(kind.params, 8))
            body += _joined(_string_tuple([arg.spelling for arg in kind.type.args], 8))
            body += [f"        CB_{kind.name},"]
            body += _string_lines(kind.doc, 8)
            body += ["    ),"]
        body += ["}"]
        return module.render()

    def _plugins(self) -> str:
        module = Module(
            "csrc/include/panda/plugins/*.h",
            "What plugins offer: their PPP callbacks and their functions, by plugin.",
        )
        module.use("typing", "NamedTuple")
        module.annotation("CFuncPtr")
        body = module.body
        body += [
            "",
            "",
            "class PppCallback(NamedTuple):",
            *docstring(
                "What there is to know about a PPP callback.",
                4,
                _member_docs(
                    "Fields",
                    [
                        ("name", "Its name, as in ``panda.ppp(plugin, name)``."),
                        ("restype", "C type of the result."),
                        ("argnames", "Names of the arguments."),
                        ("argtypes", "C types of the arguments, as in the header."),
                        ("functype", "The CFUNCTYPE with the exact types."),
                        ("doc", "When it is raised."),
                    ],
                ),
            ),
            "",
            "    name: str",
            "    restype: str",
            "    argnames: tuple[str, ...]",
            "    argtypes: tuple[str, ...]",
            "    functype: type[CFuncPtr]",
            "    doc: str",
            "",
            "",
            "#: Plugin -> name -> PPP callback.",
            "PPP: dict[str, dict[str, PppCallback]] = {",
        ]
        for plugin, callbacks in self._api.plugins.items():
            body += [f'    "{plugin}": {{' + ("" if callbacks else "},")]
            for callback in callbacks:
                assert callback.type.target is not None
                expr = module.ctypes(self._types.ctypes(callback.type, "callback"))
                self._import_records(module, [expr])
                body += [f'        "{callback.name}": PppCallback(']
                body += [f'            "{callback.name}",']
                body += [f'            "{callback.type.target.spelling}",']
                body += _joined(_string_tuple(callback.params, 12))
                body += _joined(_string_tuple([arg.spelling for arg in callback.type.args], 12))
                body += _expression_lines(expr, 12, ",")
                body += _string_lines(callback.doc, 12)
                body += ["        ),"]
            body += ["    },"] if callbacks else []
        body += ["}"]
        body += ["", "#: Plugin -> name without its prefix -> C function."]
        body += ["FUNCTIONS: dict[str, dict[str, str]] = {"]
        for plugin in self._api.plugins:
            names = [f.name for f in self._api.functions.values() if f.plugin == plugin]
            body += [f'    "{plugin}": {{' + ("" if names else "},")]
            short = len(f"panda_{plugin}_")
            body += [f'        "{name[short:]}": "{name}",' for name in names]
            body += ["    },"] if names else []
        body += ["}"]
        return module.render()

    def _functions(self) -> str:
        module = Module(
            self.SOURCE,
            "The functions of the C API.\n\n"
            "declare() gives every function of a loaded library its argument and result types; "
            "Library tells type checkers what the functions take and return. Byte buffers are "
            "plain addresses: bytes, arrays, integers and byref() are accepted.",
        )
        skipped: list[Function] = []
        declared: list[Function] = []
        for function in self._api.functions.values():
            types = [function.result, *(param.type for param in function.params)]
            by_value = any(self._types.by_value_union(ctype) for ctype in types)
            (skipped if by_value else declared).append(function)
        module.use("ctypes", "CDLL")
        module.use("typing", "TYPE_CHECKING", "Any", "Protocol")
        module.use_for_types("typing", "Union")
        module.use_for_types("collections.abc", "Iterable")
        module.annotation("c_void_p c_char_p c_char Array _Pointer _CArgObject CFuncPtr")
        body = module.body
        body += [
            "if TYPE_CHECKING:",
            "    #: What a parameter that is an address accepts.",
            *bracketed(
                4,
                "Address = Union[",
                [
                    "int",
                    "bytes",
                    "c_void_p",
                    "c_char_p",
                    "Array[Any]",
                    "_Pointer[Any]",
                    "_CArgObject",
                    "None",
                ],
                "]",
            ),
            "    #: What a parameter that is a C string accepts.",
            "    CharPointer = Union[bytes, c_char_p, Array[c_char], _Pointer[c_char], None]",
        ]
        rows: list[str] = []
        aliases: list[str] = []
        for function in declared:
            args: list[str] = []
            for param in function.params:
                expr = module.ctypes(self._types.ctypes(param.type, "param"))
                self._import_records(module, [expr])
                if expr.startswith("CFUNCTYPE("):
                    alias = f"FN_{function.name}_{param.name}"
                    aliases += [f"#: Type of {param.name} of {function.name}()."]
                    aliases += _expression_lines(expr, 0, "", f"{alias} = ")
                    expr = alias
                args.append(expr)
            result = module.ctypes(self._types.ctypes(function.result, "result"))
            self._import_records(module, [result])
            comma = "," if len(args) == 1 else ""
            one = f'    "{function.name}": ({result}, ({", ".join(args)}{comma})),'
            if len(one) <= WIDTH:
                rows.append(one)
                continue
            rows += [f'    "{function.name}": (', f"        {result},"]
            rows += _joined(bracketed(8, "(", args, ")"))
            rows += ["    ),"]
        if aliases:
            body += ["", *aliases]
        if skipped:
            body += [
                "",
                "# Not declared, because ctypes cannot pass a union by value (the variants",
            ]
            body += ["# that take a pointer are there):"]
            body += [f"#   {function.name}" for function in skipped]
        body += ["", "#: Function -> (result type, argument types)."]
        body += ["PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {", *rows, "}"]
        nonblocking = [function for function in declared if function.nonblocking]
        body += ["", "#: Functions that return at once: they may be called with the GIL held."]
        if nonblocking:
            body += ["NONBLOCKING: frozenset[str] = frozenset(", "    {"]
            body += [f'        "{function.name}",' for function in nonblocking]
            body += ["    }", ")"]
        else:
            body += ["NONBLOCKING: frozenset[str] = frozenset()"]
        body += [
            "",
            "",
            "def declare(lib: CDLL, names: Iterable[str] = PROTOTYPES) -> None:",
            '    """Set argtypes and restype of the functions of a loaded library.',
            "",
            "    Raises AttributeError if the library does not have one of them.",
            '    """',
            "    for name in names:",
            "        function = getattr(lib, name)",
            "        function.restype, function.argtypes = PROTOTYPES[name]",
        ]
        others = [function for function in declared if not function.nonblocking]
        body += self._protocol(
            module,
            "NonblockingLibrary(Protocol)",
            "The functions of a core library that return at once.",
            nonblocking,
        )
        body += self._protocol(
            module,
            "Library(NonblockingLibrary, Protocol)",
            "The functions of a core library.",
            others,
        )
        return module.render()

    def _protocol(
        self, module: Module, head: str, doc: str, functions: list[Function]
    ) -> list[str]:
        lines = ["", "", f"class {head}:", *docstring(doc, 4)]
        for function in functions:
            params = ["self"]
            for param in function.params:
                annotation = module.annotation(self._types.accepted(param.type))
                self._import_records(module, [annotation])
                entry = f"{param.name}: {annotation}"
                if len(entry) + 9 > WIDTH:
                    # A line each for the alternatives, as formatters do.
                    entry = entry.replace(" | ", "\n        | ")
                params.append(entry)
            if function.params:
                params.append("/")
            result = module.annotation(self._types.value(function.result, "result"))
            lines += ["", *bracketed(4, f"def {function.name}(", params, f") -> {result}:")]
            lines += docstring(function.doc, 8)
        return lines

    def _arches_module(self) -> str:
        module = Module("csrc/qemu/arches.toml", "The guest architectures.")
        module.use("typing", "NamedTuple")
        module.body = [
            "",
            "",
            "class Architecture(NamedTuple):",
            *docstring(
                "A guest architecture.",
                4,
                _member_docs(
                    "Fields",
                    [
                        ("name", "Its name, as in libpanda-<name>.so."),
                        ("bits", "Width of an address, 32 or 64."),
                        ("little_endian", "Byte order of the guest."),
                        ("register_size", "Bytes in a general register."),
                    ],
                ),
            ),
            "",
            "    name: str",
            "    bits: int",
            "    little_endian: bool",
            "    register_size: int",
            "",
            "",
            "#: All architectures there can be a core library for, by name.",
            "ARCHITECTURES: dict[str, Architecture] = {",
            *(
                f'    "{arch.name}": Architecture("{arch.name}", {arch.bits}, '
                f"{arch.little_endian}, {arch.bits // 8}),"
                for arch in self._arches
            ),
            "}",
        ]
        return module.render()


def _literal(value: int | float | str | bytes) -> str:
    if isinstance(value, str):
        return quoted(value)
    return repr(value)


def quoted(text: str) -> str:
    """A string literal in double quotes."""
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    if '"' in escaped and "'" not in escaped:
        return f"'{escaped}'"
    return '"' + escaped.replace('"', '\\"') + '"'


def _joined(lines: list[str]) -> list[str]:
    """The lines of an expression with a comma after the last."""
    return [*lines[:-1], lines[-1] + ","]


def _string_tuple(items: list[str], indent: int) -> list[str]:
    return bracketed(indent, "(", [quoted(item) for item in items], ")")


def _string_lines(text: str, indent: int) -> list[str]:
    """A string argument, as implicitly joined literals if it is long."""
    pad = " " * indent
    flat = "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))
    one = f"{pad}{quoted(flat)},"
    if len(one) <= WIDTH:
        return [one]
    pieces: list[str] = []
    paragraphs = flat.split("\n\n")
    for number, paragraph in enumerate(paragraphs):
        wrapped = textwrap.wrap(
            paragraph, WIDTH - indent - 14, break_long_words=False, break_on_hyphens=False
        )
        wrapped = [line + " " for line in wrapped[:-1]] + [wrapped[-1]]
        if number < len(paragraphs) - 1:
            wrapped[-1] += "\n\n"
        pieces += wrapped
    return [*(f"{pad}{quoted(piece)}" for piece in pieces[:-1]), f"{pad}{quoted(pieces[-1])},"]


def _expression_lines(expr: str, indent: int, tail: str, head: str = "") -> list[str]:
    """An expression such as CFUNCTYPE(a, b), split at its commas if it is long."""
    pad = " " * indent
    one = f"{pad}{head}{expr}{tail}"
    match = re.fullmatch(r"(\w+\()(.*)\)", expr)
    if len(one) <= WIDTH or match is None:
        return [one]
    items: list[str] = []
    depth = 0
    for piece in match[2].split(", "):
        if depth:
            items[-1] += ", " + piece
        else:
            items.append(piece)
        depth += piece.count("(") - piece.count(")")
    lines = bracketed(indent, head + match[1], items, ")")
    return [*lines[:-1], lines[-1] + tail]


# --------------------------------------------------------------------------
# Command line


def generate(include: Path, arches: Path, base: Path | None = None) -> dict[str, str]:
    """File name -> text of everything this tool writes."""
    return Generator(read_headers(include, base), read_arches(arches)).modules()


def differences(wanted: dict[str, str], output: Path, arches: list[Arch]) -> list[str]:
    """Lines that tell how the files in output differ from what they should be."""
    lines: list[str] = []
    for name, text in sorted(wanted.items()):
        path = output / name
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines += difflib.unified_diff(
            old.splitlines(),
            text.splitlines(),
            f"{name} (in the tree)",
            f"{name} (generated)",
            "",
            "",
            3,
            "",
        )
    lines += [
        f"{path.name}: stale, not generated any more" for path in stale(wanted, output, arches)
    ]
    return lines


def stale(wanted: dict[str, str], output: Path, arches: list[Arch]) -> list[Path]:
    """Files in the output directory that nobody writes any more."""
    names = {arch.name for arch in arches}
    result: list[Path] = []
    for path in sorted(output.iterdir()) if output.is_dir() else []:
        foreign = FOREIGN.fullmatch(path.name)
        if path.name in wanted or path.name == "__pycache__":
            continue
        if foreign is not None and (foreign["arch"] is None or foreign["arch"] in names):
            continue
        result.append(path)
    return result


def main(argv: list[str] | None = None) -> int:
    """Write or check the generated modules."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    parser.add_argument("--include", type=Path, default=INCLUDE, help="directory that holds panda/")
    parser.add_argument("--arches", type=Path, default=ARCHES, help="list of architectures")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="directory of the modules")
    options = parser.parse_args(argv)
    try:
        wanted = generate(options.include, options.arches, ROOT)
        arches = read_arches(options.arches)
    except HeaderError as error:
        print(f"gen_ctypes: {error}", file=sys.stderr)
        return 2
    if options.check:
        lines = differences(wanted, options.output, arches)
        if lines:
            print("\n".join(lines))
            print(
                f"gen_ctypes: {options.output} does not match the headers; run tools/gen_ctypes.py",
                file=sys.stderr,
            )
            return 1
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    for name, text in wanted.items():
        path = options.output / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in stale(wanted, options.output, arches):
        # Only modules that this tool wrote may be removed by it.
        if path.is_file() and path.read_text(encoding="utf-8").startswith("# Generated by tools/"):
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
