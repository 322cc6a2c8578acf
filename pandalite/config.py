"""Where the C headers are, for those who compile plugins.

    python -m pandalite.config --cflags

prints the options to give to a C compiler; ``--include`` the directory alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

__all__ = ["cflags", "include_directory", "main"]


def include_directory() -> Path:
    """The directory that holds ``panda/plugin.h``."""
    here = Path(__file__).resolve().parent
    installed = here / "_include"
    # In a checkout they are where they are made.
    return installed if installed.is_dir() else here.parent / "csrc" / "include"


def cflags() -> list[str]:
    """Options of a C compiler that makes a plugin of a source file."""
    return ["-shared", "-fPIC", "-O2", f"-I{include_directory()}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m pandalite.config``."""
    parser = argparse.ArgumentParser(
        prog="python -m pandalite.config",
        description="Print what a C compiler needs to make a plugin.",
    )
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--cflags", action="store_true", help="its options")
    group.add_argument("--include", action="store_true", help="the directory of the headers")
    options = parser.parse_args(arguments)
    print(" ".join(cflags()) if options.cflags else include_directory())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
