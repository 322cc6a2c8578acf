"""Write a profile of a guest's kernel: ``python -m pandalite.kernelinfo x86_64``.

Boots a guest of the catalogue to its prompt, finds its kernel in memory, and writes what
was found in the format of PANDA's ``kernelinfo.conf``. For a guest of one's own,
``panda.os.profile()`` gives the same text.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def profile_of(guest: str, group: str | None = None) -> str:
    """The profile of a catalogue guest's kernel.

    Args:
        guest: its name, e.g. ``"x86_64"``.
        group: name of the group; the kernel's release if none is given.
    """
    from .panda import Panda

    panda = Panda(generic=guest)
    found: list[str] = []

    @panda.queue_blocking
    def work() -> None:
        try:
            panda.revert_sync("root")
            panda.stop_run()
            found.append(panda.os.profile(group))
        finally:
            panda.end_analysis()

    panda.run()
    return found[0]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pandalite.kernelinfo", description=__doc__)
    parser.add_argument("guest", help="name of a guest, e.g. x86_64")
    parser.add_argument("-g", "--group", help="name of the group; default: the kernel's release")
    parser.add_argument("-o", "--output", type=Path, help="file to write; default: standard output")
    given = parser.parse_args(arguments)
    try:
        text = profile_of(given.guest, given.group)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if given.output is None:
        sys.stdout.write(text)
    else:
        given.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
