"""Guest images: ``python -m pandalite.qcows`` lists them.

``Qcows`` finds, makes and downloads them by name, ``SUPPORTED_IMAGES`` says what
there is (the user's own images too), ``VM_DIR`` is the directory where they are
kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalogue import SUPPORTED_IMAGES, Image
    from .manager import Qcows

    #: The cache directory, as text. It is created when it is first needed.
    VM_DIR: str

__all__ = ["SUPPORTED_IMAGES", "VM_DIR", "Image", "Qcows", "Qcows_cli"]


def __getattr__(name: str) -> Any:
    # On demand, so that a Panda without a catalogue image does not pay for it.
    if name == "SUPPORTED_IMAGES":
        from .lookup import supported

        return supported()
    if name == "Image":
        from .catalogue import Image

        return Image
    if name == "Qcows":
        from .manager import Qcows

        return Qcows
    if name == "VM_DIR":
        from .cache import home

        return str(home())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Qcows_cli:
    """What ``python -m pandalite.qcows`` does, to be called from Python."""

    @staticmethod
    def remove_image(target: str) -> None:
        """Delete what is cached of an image."""
        from .manager import Qcows

        Qcows.remove_image(target)

    @staticmethod
    def cli(target: str) -> None:
        """Make an image if it is missing, and print a command line that runs it."""
        from .command_line import command_line

        print(command_line(target))
