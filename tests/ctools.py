"""Helpers of the tests that need a C compiler or the tools of the source tree."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "csrc" / "include"


def load_tool(name: str) -> ModuleType:
    """Import tools/<name>.py, which is no package."""
    module_name = f"tool_{name}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, ROOT / "tools" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look their module up while they are made.
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    return sys.modules[module_name]


def compiler() -> list[str]:
    """The project's own compiler (zig from PyPI) if it is there, else the system's."""
    spec = importlib.util.find_spec("ziglang")
    if spec is not None and spec.origin is not None:
        return [str(Path(spec.origin).parent / "zig"), "cc"]
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and shutil.which(name):
            return [name]
    raise AssertionError("no C compiler: pip install ziglang, or apt-get install gcc")


def compile_c(source: str, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Compile a source text; options say to what. The result holds the messages."""
    file = directory / "source.c"
    file.write_text(source, encoding="utf-8")
    # zig keeps what it compiled: in the build cache, where it has its C library already.
    cache = str(load_tool("project").cache_dir() / "zig")
    return subprocess.run(
        [*compiler(), "-std=gnu11", f"-I{INCLUDE}", *options, str(file)],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache, **os.environ},
    )


def compile_for_guest(
    source: str, directory: Path, triple: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """Compile a program for a guest with the project's compiler, e.g. `arm-linux-musleabi`."""
    sys.path.insert(0, str(ROOT / "tools"))
    tools = load_tool("toolchain").toolchain(load_tool("project").native())
    zig = next(tools.venv.glob("lib/python*/site-packages/ziglang/zig"))
    file = directory / "source.c"
    file.write_text(source, encoding="utf-8")
    return subprocess.run(
        [str(zig), "cc", "-std=gnu11", "-target", triple, *options, str(file)],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=tools.environment(),
    )
