"""The command ``python -m pandalite.qcows``."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from ..errors import PandaError
from .catalogue import SUPPORTED_IMAGES
from .manager import Qcows

_USAGE = """\
usage: python -m pandalite.qcows NAME         make the image if it is missing, and print a
                                              command line that runs it
       python -m pandalite.qcows delete NAME  delete what is cached of the image

images: {names}
"""


def _program(arch: str) -> str:
    """The QEMU program for an architecture, by its full path if it is installed."""
    for name in (f"panda-system-{arch}", f"qemu-system-{arch}"):
        found = shutil.which(name)
        if found:
            return found
    print(
        f"note: neither panda-system-{arch} nor qemu-system-{arch} is installed; pandalite "
        "itself does not need them",
        file=sys.stderr,
    )
    return f"qemu-system-{arch}"


def command_line(name: str) -> str:
    """A command line that runs an image from its snapshot, on this terminal.

    The snapshot fits the QEMU that pandalite is built from: a QEMU of another
    series may refuse it.
    """
    qcow = Qcows.get_qcow(name)
    image = Qcows.get_qcow_info(name)
    arguments = [_program(str(image.arch)), qcow, "-m", str(image.default_mem)]
    extra = shlex.split(image.extra_args or "")
    at = 0
    while at < len(extra):
        if extra[at] == "-display" and extra[at + 1 : at + 2] == ["none"]:
            arguments.append("-nographic")
            at += 2
        else:
            arguments.append(extra[at])
            at += 1
    arguments += ["-loadvm", str(image.snapshot)]
    text = shlex.join(arguments)
    if sys.stdout.isatty():  # shorter to read; a script needs the whole path
        user = str(Path.home())
        text = text.replace(f" {user}/", " ~/")
    return text


def main(arguments: list[str]) -> int:
    """The command; returns the exit status."""
    try:
        if len(arguments) == 1 and arguments[0].lower() in SUPPORTED_IMAGES:
            print(command_line(arguments[0]))
            return 0
        if len(arguments) == 2 and arguments[0] == "delete":
            Qcows.remove_image(arguments[1])
            return 0
    except PandaError as error:
        print(f"pandalite.qcows: {error}", file=sys.stderr)
        return 1
    print(_USAGE.format(names=", ".join(sorted(SUPPORTED_IMAGES))), file=sys.stderr, end="")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
