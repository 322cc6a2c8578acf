"""The command ``python -m pandalite``: help, and what the commands are."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

#: Command -> what it does. Commands with a module of their own are run by its name.
COMMANDS = {
    "doctor": "check whether pandalite works on this machine, and say what to do if not",
    "record": "record a command in a guest's shell",
    "replay": "replay a recording",
    "info": "say what a recording is of",
    "verify": "check a recording's file",
}
MODULES = {
    "pandalite.qcows": "list, fetch, check and delete guest images",
    "pandalite.kernelinfo": "write a profile of a guest's kernel",
}


def usage() -> str:
    """The help text."""
    from . import __version__

    wide = max(map(len, [*COMMANDS, *MODULES]))
    lines = [
        f"pandalite {__version__}: whole-system dynamic analysis in a Python package",
        "",
        "usage: python -m pandalite COMMAND [-h] ...",
        "",
        "commands:",
        *(f"  {name:{wide}}  {text}" for name, text in COMMANDS.items()),
        "",
        "run by themselves, as `python -m NAME`:",
        *(f"  {name:{wide}}  {text}" for name, text in MODULES.items()),
        "",
        "In Python: `from pandalite import Panda`; the README has an example.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status: 0, 1 for a problem, 2 for wrong usage."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        from . import __version__

        print(f"pandalite {__version__}")
        return 0
    if arguments[0] == "doctor":
        from .doctor import main as doctor

        return doctor(arguments[1:])
    if arguments[0] in COMMANDS:
        from .recordings.cli import main as recordings

        return recordings(arguments[0], arguments[1:])
    print(f"pandalite: {arguments[0]!r} is no command\n\n{usage()}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
