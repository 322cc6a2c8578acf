"""The guest images pandalite knows, by name.

The facts are in ``catalogue.json``. Under ``tiny`` are our own guests, by
architecture: how each is run. ``machine`` are QEMU's arguments besides the
kernel, the RAM and the disk; ``append`` is the kernel command line; ``prompt``
is the literal prompt of the root shell, chosen so that it is a regular
expression for itself. ``aliases`` are further names of images.

A tiny guest's files are looked for when it is used, so its ``extra_args`` here
hold ``{kernel}`` and ``{initrd}``; ``Qcows.get_qcow_info`` fills them in.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ImageError

__all__ = ["SNAPSHOT", "SUPPORTED_IMAGES", "Image", "tiny_architectures", "tiny_facts"]

#: Name of the snapshot at the shell prompt that every image has.
SNAPSHOT = "root"


class Image(NamedTuple):
    """What is known about a guest image. The fields are PyPANDA's.

    ``prompt`` is a regular expression, ``cdrom`` the block device that the
    monitor's ``change`` takes, ``default_mem`` the value of ``-m``,
    ``extra_args`` a command line in shell syntax, ``hashes`` maps a file name
    to its SHA-1 in hexadecimal.
    """

    arch: str | None = None
    os: str | None = None
    prompt: str | None = None
    cdrom: str | None = None
    snapshot: str | None = None
    url: str | None = None
    alternate_urls: list[str] | None = None
    extra_files: list[str] | None = None
    qcow: str | None = None
    default_mem: str | None = None
    extra_args: str | None = None
    hashes: dict[str, str] | None = None


_DATA: dict[str, Any] = json.loads(
    (Path(__file__).parent / "catalogue.json").read_text(encoding="utf-8")
)


def tiny_architectures() -> list[str]:
    """Architectures that have a tiny guest."""
    return sorted(_DATA["tiny"])


def tiny_facts(arch: str) -> dict[str, Any]:
    """How the tiny guest of an architecture is run; ImageError if it has none."""
    try:
        facts: dict[str, Any] = _DATA["tiny"][arch]
    except KeyError:
        raise ImageError(
            f"there is no tiny guest for {arch!r}; there is one for: "
            + ", ".join(tiny_architectures())
        ) from None
    return facts


def kernel_args(facts: dict[str, Any], kernel: str, initrd: str) -> list[str]:
    """QEMU's arguments for a tiny guest, besides the RAM, the disk and the serial port."""
    return [*facts["machine"], "-kernel", kernel, "-initrd", initrd, "-append", facts["append"]]


def tiny_image(arch: str, facts: dict[str, Any], release: str, kernel: str, initrd: str) -> Image:
    """The catalogue entry of a tiny guest."""
    return Image(
        arch=arch,
        os=facts["os"].format(release=release),
        prompt=facts["prompt"],
        cdrom=facts["cdrom"],
        snapshot=SNAPSHOT,
        qcow=f"{arch}_tiny.qcow2",
        default_mem=facts["mem"],
        extra_args=shlex.join(kernel_args(facts, kernel, initrd)),
    )


def _build() -> dict[str, Image]:
    images = {
        f"{arch}_tiny": tiny_image(arch, facts, "tiny", "{kernel}", "{initrd}")
        for arch, facts in _DATA["tiny"].items()
    }
    for alias, name in _DATA["aliases"].items():
        images[alias] = images[name]
    return images


#: Every image by name.
SUPPORTED_IMAGES: dict[str, Image] = _build()
