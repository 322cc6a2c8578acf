"""The guest images pandalite knows, by name.

The facts are data. ``catalogue.json`` has our own guests: under ``tiny``, by
architecture, those in a RAM disk, under ``debian``, by name, those that have a
disk with Debian. It says how each is run. ``machine`` are QEMU's arguments
besides the kernel, the RAM and the disk; ``append`` is the kernel command line;
``disk`` is how a disk is attached; ``prompt`` is the literal prompt of the root
shell, chosen so that it is a regular expression for itself. ``aliases`` are
further names of images. ``images.json``
has the images that PANDA publishes: what they are, their files with addresses
and what is known of their content. Users add images of their own
(:mod:`pandalite.qcows.user_images`).

A tiny guest's files are looked for when it is used, so its ``extra_args`` here
hold ``{kernel}`` and ``{initrd}``; in those of PANDA's images the files are in
``~/.panda``, as with PyPANDA. ``Qcows.get_qcow_info`` gives the real places.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ImageError

__all__ = [
    "SNAPSHOT",
    "SUPPORTED_IMAGES",
    "Entry",
    "FileFacts",
    "Image",
    "builtin",
    "debian_guests",
    "tiny_architectures",
    "tiny_facts",
]

#: Name of the snapshot at the shell prompt that every image of the catalogue has.
SNAPSHOT = "root"

#: Where PyPANDA keeps its images; read here, never written.
PANDA_DIRECTORY = "~/.panda"


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


class FileFacts(NamedTuple):
    """One file of an image: its name, where it comes from, what must be in it.

    ``urls`` are addresses in order of preference. ``path`` is set for a file
    that is the user's own and is used where it is.
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None
    sha1: str | None = None
    path: Path | None = None


class Entry(NamedTuple):
    """All that is known about an image.

    ``kind`` is "tiny" (a guest of ours, of whatever flavour), "panda" or "user".
    ``files`` are to be there before it can run, the disk first (a guest of ours has
    none here: its manifest lists them).
    ``words`` are QEMU's arguments, with files named as ``~/.panda/NAME`` or ``{NAME}``.
    ``disk`` is QEMU's ``if=`` for the disk, "" for the machine's default;
    ``login`` the user name and password to give where the guest asks for them.
    """

    name: str
    kind: str
    image: Image
    flavour: str = ""
    description: str = ""
    files: tuple[FileFacts, ...] = ()
    words: tuple[str, ...] = ()
    disk: str = ""
    login: tuple[str, str] | None = None
    origin: Path | None = None

    @property
    def guest(self) -> str:
        """Of a guest of ours: the name its files are kept under.

        A tiny guest's is an architecture or a variant of one.
        """
        if self.kind != "tiny":
            return ""
        return self.name[: -len("_tiny")] if self.name.endswith("_tiny") else self.name

    @property
    def byte_order(self) -> str | None:
        """The guest's byte order, where it is not that of its architecture."""
        order: str | None = tiny_facts(self.guest).get("endian") if self.guest else None
        return order


def _load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return data


_DATA = _load("catalogue.json")
_IMAGES = _load("images.json")


def tiny_architectures() -> list[str]:
    """Architectures that have a tiny guest."""
    return sorted(_DATA["tiny"])


def debian_guests() -> list[str]:
    """Names of the guests that have a disk with Debian."""
    return sorted(_DATA["debian"])


def tiny_facts(arch: str) -> dict[str, Any]:
    """How a guest of ours is run; ImageError if there is none of that name.

    The name is an architecture, or that of a guest with a disk.
    """
    facts: dict[str, Any] | None = _DATA["tiny"].get(arch) or _DATA["debian"].get(arch)
    if facts is None:
        raise ImageError(
            f"there is no tiny guest for {arch!r}; there is one for: "
            + ", ".join([*tiny_architectures(), *debian_guests()])
        )
    return facts


def guest_urls() -> tuple[str, ...]:
    """Directories on the web that have tiny guests, as ``<arch>/<file>``."""
    return tuple(_IMAGES["guests"]["urls"])


def kernel_args(facts: dict[str, Any], kernel: str, initrd: str) -> list[str]:
    """QEMU's arguments for a tiny guest, besides the RAM, the disk and the serial port."""
    return [*facts["machine"], "-kernel", kernel, "-initrd", initrd, "-append", facts["append"]]


def tiny_image(arch: str, facts: dict[str, Any], release: str, kernel: str, initrd: str) -> Image:
    """The catalogue entry of a tiny guest."""
    return Image(
        arch=facts.get("library", arch),
        os=facts["os"].format(release=release),
        prompt=facts["prompt"],
        cdrom=facts["cdrom"],
        snapshot=SNAPSHOT,
        qcow=f"{arch}.qcow2" if "disk" in facts else f"{arch}_tiny.qcow2",
        default_mem=facts["mem"],
        extra_args=shlex.join(kernel_args(facts, kernel, initrd)),
    )


def _tiny_entry(arch: str, facts: dict[str, Any]) -> Entry:
    return Entry(
        name=f"{arch}_tiny",
        kind="tiny",
        image=tiny_image(arch, facts, "tiny", "{kernel}", "{initrd}"),
        flavour="tiny",
        description=facts.get("description", "Linux with busybox in a RAM disk, root shell"),
    )


def _debian_entry(name: str, facts: dict[str, Any]) -> Entry:
    return Entry(
        name=name,
        kind="tiny",
        image=tiny_image(name, facts, "debian", "{kernel}", "{initrd}"),
        flavour="debian",
        description=facts["description"],
        disk=facts["disk"],
    )


def _panda_entry(name: str, facts: dict[str, Any]) -> Entry:
    files = tuple(
        FileFacts(
            *(f["name"], (f["url"], *f["mirrors"]), f["size"], f["sha256"], f["sha1"]),
        )
        for f in facts["files"]
    )
    image = Image(
        arch=facts["arch"],
        os=facts["os"],
        prompt=facts["prompt"],
        cdrom=facts["cdrom"],
        snapshot=SNAPSHOT,
        url=files[0].urls[0],
        alternate_urls=list(files[0].urls[1:]) or None,
        extra_files=[f.name for f in files[1:]] or None,
        qcow=files[0].name,
        default_mem=facts["default_mem"],
        extra_args=facts["extra_args"].replace("~/", shlex.quote(os.path.expanduser("~")) + "/"),
        hashes=facts.get("hashes"),
    )
    login = facts.get("login")
    return Entry(
        name=name,
        kind="panda",
        image=image,
        flavour=facts["flavour"],
        description=facts["description"],
        files=files,
        words=tuple(shlex.split(facts["extra_args"])),
        disk=facts.get("disk", ""),
        login=(login[0], login[1]) if login else None,
    )


def _build() -> dict[str, Entry]:
    tiny = [_tiny_entry(arch, facts) for arch, facts in _DATA["tiny"].items()]
    panda = [_panda_entry(name, facts) for name, facts in _IMAGES["images"].items()]
    debian = [_debian_entry(name, facts) for name, facts in _DATA["debian"].items()]
    entries = {entry.name: entry for entry in [*panda, *tiny, *debian]}
    for alias, name in _DATA["aliases"].items():
        entries[alias] = entries[name]
    return entries


_ENTRIES = _build()


def builtin() -> dict[str, Entry]:
    """What the package's own catalogue has, by name and alias."""
    return dict(_ENTRIES)


#: Every image of the package's own catalogue by name. That of the package,
#: ``pandalite.qcows.SUPPORTED_IMAGES``, has the user's own images too.
SUPPORTED_IMAGES: dict[str, Image] = {name: entry.image for name, entry in _ENTRIES.items()}
