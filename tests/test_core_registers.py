"""Registers that only the core knows, of every architecture: read, written, read again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ctools import ROOT
from guest import run_case

from pandalite import Panda
from pandalite._bindings.arches import ARCHITECTURES

sys.path.insert(0, str(ROOT / "tools"))

import build_baremetal

#: Registers to which another value is written, and what it is.
CHANGED = {
    **{arch: {"SPSR": 0x13, "TPIDRURO": 0x1234} for arch in ("arm", "aarch64")},
    **{arch: {"HI": 0x77, "CP0_COMPARE": 0x7000} for arch in ("mips", "mipsel", "mips64")},
    "mips64el": {"LO": 0x77, "F31": 1 << 63 | 5},
    **{
        arch: {"LR": 0x4320, "CR": 0x12345678, "F0": 1 << 62, "SRR0": 4}
        for arch in ("ppc", "ppc64")
    },
    "riscv64": {"SSCRATCH": 0x55, "MSCRATCH": 1 << 63, "F31": 9, "FFLAGS": 0x1F},
    **{arch: {"CR2": 0x1000, "XMM7": 1 << 127 | 3} for arch in ("x86_64", "i386")},
}


def case_registers(arch: str, elf: str, changed: dict[str, int]) -> dict[str, list[Any]]:
    """At the start of a block: write back what is there, then other values."""
    panda = Panda(
        arch=arch,
        mem="64M",
        extra_args=[*build_baremetal.machine_words(arch, Path(elf)), "-serial", "null"],
    )
    found: dict[str, list[Any]] = {}

    @panda.cb_before_block_exec
    def block(cpu: Any, tb: Any) -> None:
        if found:
            return
        for name in panda.arch._core_registers():
            before = panda.arch.get_reg(cpu, name)
            panda.arch.set_reg(cpu, name, before)
            found[name] = [before, panda.arch.get_reg(cpu, name)]
        for name, value in changed.items():
            panda.arch.set_reg(cpu, name, value)
            found[f"new {name}"] = [value, panda.arch.get_reg(cpu, name)]
        panda.end_analysis()

    panda.run()
    return found


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_core_registers(arch: str) -> None:
    elf = build_baremetal.ensure(arch)
    found = run_case(case_registers, arch, str(elf), CHANGED[arch], timeout=60)
    assert len(found) > 35
    wrong = {name: values for name, values in found.items() if values[0] != values[1]}
    assert wrong == {}
