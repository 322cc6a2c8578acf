"""tools/gen_env_layout.py on small objects made for the purpose."""

from __future__ import annotations

import ctypes
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from ctools import compile_c, load_tool

tool = load_tool("gen_env_layout")

STATE = """
#include <stdint.h>
#include <stdbool.h>
typedef uint64_t target_ulong;
typedef struct Segment { uint32_t selector; target_ulong base; } Segment;
typedef union Vector { uint8_t b[16]; uint64_t q[2]; float f[4]; } Vector;
typedef struct CPUArchState {
    target_ulong regs[4];
    uint8_t secret[5];
    int32_t df;
    Segment segs[2];
    bool on;
    uint16_t grid[2][3];
    Vector vectors[2] __attribute__((aligned(16)));
    unsigned bits : 3;
    void *pointer;
    char tail;
} CPUArchState;
CPUArchState probe;
"""

FAMILY = tool.Family(
    fields={
        "CPUArchState": ("regs", "df", "segs", "on", "grid", "vectors", "pointer", "gone"),
        "Segment": ("selector", "base"),
        "Vector": ("b", "q", "f"),
    },
    optional=frozenset({"gone"}),
    aliases={"Vector": {"q": "_q"}},
)


@pytest.fixture
def arches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of architectures with one toy in it."""
    monkeypatch.setitem(tool.FAMILIES, "toy", FAMILY)
    path = tmp_path / "arches.toml"
    path.write_text('[toy]\nfamily = "toy"\n[other]\nfamily = "none"\n')
    return path


def build(tmp_path: Path, source: str, *options: str) -> Path:
    """Compile a source text to an object."""
    target = tmp_path / "probe.o"
    result = compile_c(source, tmp_path, "-c", "-o", str(target), *options)
    assert result.returncode == 0, result.stderr
    return target


@pytest.mark.parametrize("options", [("-g", "-gdwarf-4"), ("-g", "-gdwarf-5")])
def test_layout(tmp_path: Path, arches: Path, options: tuple[str, ...]) -> None:
    text = tool.generate("toy", build(tmp_path, STATE, *options), arches)
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    state = namespace["CPUArchState"]
    places = {
        name: (getattr(state, name).offset, getattr(state, name).size)
        for name, _ in state._fields_
        if not name.startswith("_pad")
    }
    assert places == {
        "regs": (0, 32),
        "df": (40, 4),
        "segs": (48, 32),
        "on": (80, 1),
        "grid": (82, 12),
        "vectors": (96, 32),
        "pointer": (136, 8),
    }
    assert ctypes.sizeof(state) == 160
    value = state()
    value.vectors[1]._q[0] = 0x0102
    assert value.vectors[1].b[0] == 2 and value.vectors[1].q[0] == 0x0102
    value.grid[1][2] = 7
    assert bytes(value)[92:94] == b"\7\0"
    assert max(map(len, text.split("\n"))) <= 100


def test_missing_member(tmp_path: Path, arches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = dataclasses.replace(FAMILY, optional=frozenset())
    monkeypatch.setitem(tool.FAMILIES, "toy", strict)
    with pytest.raises(tool.LayoutError, match="CPUArchState has no member gone in this QEMU"):
        tool.generate("toy", build(tmp_path, STATE, "-g", "-gdwarf-4"), arches)


def test_bit_field(tmp_path: Path, arches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wants = dataclasses.replace(FAMILY, fields={"CPUArchState": ("bits",)}, aliases={})
    monkeypatch.setitem(tool.FAMILIES, "toy", wants)
    with pytest.raises(tool.LayoutError, match=r"CPUArchState\.bits is a bit-field"):
        tool.generate("toy", build(tmp_path, STATE, "-g", "-gdwarf-4"), arches)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (STATE, ("-g0",), "has no debug information; compile it with -g"),
        ("struct CPUArchState *x; int y;", ("-g", "-gdwarf-4"), "does not describe struct"),
    ],
)
def test_unusable_object(
    tmp_path: Path, arches: Path, source: str, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(tool.LayoutError, match=message):
        tool.generate("toy", build(tmp_path, source, *options), arches)


def test_bad_arguments(tmp_path: Path, arches: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no object")
    with pytest.raises(tool.LayoutError, match="not a usable ELF object"):
        tool.generate("toy", text, arches)
    with pytest.raises(tool.LayoutError, match="cannot be read: No such file"):
        tool.generate("toy", tmp_path / "absent", arches)
    with pytest.raises(tool.LayoutError, match=r"vax is not in arches\.toml: toy, other"):
        tool.generate("vax", text, arches)
    with pytest.raises(tool.LayoutError, match="family 'none' of other"):
        tool.generate("other", text, arches)


def test_check(tmp_path: Path, arches: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    common = ["toy", str(build(tmp_path, STATE, "-g", "-gdwarf-4")), "--arches", str(arches)]
    common += ["--output", str(out)]
    assert tool.main([*common, "--check"]) == 1
    assert tool.main(common) == 0
    assert tool.main([*common, "--check"]) == 0
    file = out / "env_toy.py"
    file.write_text(file.read_text().replace("c_uint64 * 4", "c_uint64 * 3"))
    capsys.readouterr()
    assert tool.main([*common, "--check"]) == 1
    assert "c_uint64 * 3" in capsys.readouterr().out


def test_check_of_another_host(
    tmp_path: Path, arches: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All public members have to be where they are; what comes after them may differ."""
    out = tmp_path / "out"
    common = ["toy", str(build(tmp_path, STATE, "-g", "-gdwarf-4")), "--arches", str(arches)]
    common += ["--output", str(out)]
    assert tool.main(common) == 0
    file = out / "env_toy.py"
    text = file.read_text()
    tail = re.findall(r"_pad_\w+\", c_uint8 \* \d+", text)[-1]
    file.write_text(text.replace(tail, tail + "7"))
    assert tool.main([*common, "--check"]) == 1
    assert tool.main([*common, "--check", "--public"]) == 0
    for pad in re.findall(r"_pad_\w+\", c_uint8 \* \d+", text)[:-1]:
        file.write_text(text.replace(pad, pad + "7"))
        assert tool.main([*common, "--check", "--public"]) == 1
