"""A stock qemu-system-x86_64: the same objects and options, without pandalite.

QEMU's own main() and nothing of csrc/ but stubs for the call-outs of patch
0001, which return what they are given.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import build_qemu  # noqa: E402
from build_core import CoreBuild  # noqa: E402
from project import BuildError, digest, native  # noqa: E402
from toolchain import toolchain  # noqa: E402

STUBS = Path(__file__).with_name("stock_stubs.c")


def build(arch: str = "x86_64") -> Path:
    """Link the emulator, or find it in the build cache; returns its path."""
    qemu = build_qemu.build(toolchain(native()), [arch])
    core = CoreBuild(qemu, arch)
    stubs = core._object(STUBS)
    emulator = core.cache / f"stock-{arch}-{digest(qemu.base.name, stubs.name)}"
    if not emulator.exists():
        part = emulator.with_suffix(".part")
        main = f"qemu-system-{arch}.p/system_main.c.o"
        if not (qemu.dir / main).exists():
            main = "libsystem.a.p/system_main.c.o"
        found = sorted(qemu.dir.glob("**/system_main.c.o"))
        if not found:
            raise BuildError("QEMU's build directory has no system_main.c.o")
        words = ["-O2", "-g0", "-s", "-Wl,-z,now", "-Wl,-z,relro", "-Wl,--gc-sections"]
        words += ["-o", str(part), str(found[0]), str(stubs), *qemu.link_line(arch)]
        response = emulator.with_suffix(".rsp")
        response.write_text("\n".join(f'"{w}"' for w in words))
        done = subprocess.run(
            ["zcc", f"@{response}"], cwd=qemu.dir, env=core.env, capture_output=True, text=True
        )
        if done.returncode:
            raise BuildError(f"linking the stock emulator:\n{done.stderr[-3000:]}")
        part.rename(emulator)
    return emulator
