"""Facts about a kernel image that only its bytes tell: release and build id."""

from __future__ import annotations

import lzma
import re
import struct
import zlib

from guestkit.elf import Elf, ElfError

_LZ4_LEGACY = b"\x02\x21\x4c\x18"


class KernelError(Exception):
    """The file is not a kernel image that is understood."""


def _lz4_block(block: bytes, out: bytearray) -> None:
    """Decompress one LZ4 block to the end of ``out``; raises IndexError when damaged."""
    base = len(out)
    at, end = 0, len(block)
    while at < end:
        token = block[at]
        at += 1
        length = token >> 4
        if length == 15:
            more = 255
            while more == 255:
                more = block[at]
                at += 1
                length += more
        out += block[at : at + length]
        at += length
        if at >= end:
            return
        distance = block[at] | block[at + 1] << 8
        at += 2
        length = token & 15
        if length == 15:
            more = 255
            while more == 255:
                more = block[at]
                at += 1
                length += more
        length += 4
        start = len(out) - distance
        if not distance or start < base:
            raise IndexError("match before the start of the block")
        if distance >= length:
            out += out[start : start + length]
        else:  # the match overlaps its own output: a repeating pattern
            pattern = bytes(out[start:])
            out += (pattern * (length // distance + 1))[:length]


def _lz4_legacy(data: bytes) -> bytes:
    out = bytearray()
    at = len(_LZ4_LEGACY)
    while at + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        # The kernel's build appends the uncompressed size, which is no block.
        if not size or at + size > len(data):
            break
        try:
            _lz4_block(data[at : at + size], out)
        except IndexError as error:
            raise KernelError("damaged LZ4 data in the kernel image") from error
        at += size
    return bytes(out)


def _decompress(data: bytes) -> bytes:
    if data.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)
    if data.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(data)
    if data.startswith(b"\x5d\0\0"):
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data)
    if data.startswith(_LZ4_LEGACY):
        return _lz4_legacy(data)
    raise KernelError(f"unknown compression of the kernel image ({data[:4].hex()})")


#: What the compressed part of a self-extracting image may begin with.
_STREAMS = (b"\x1f\x8b\x08", b"\xfd7zXZ\0", _LZ4_LEGACY, b"\x5d\0\0")


def _embedded(image: bytes) -> bytes:
    """The compressed kernel somewhere in an image (arm's zImage)."""
    for magic in _STREAMS:
        at = image.find(magic, 1)
        while at > 0:
            try:
                found = _decompress(image[at:])
                if b"Linux version " in found:
                    return found
            except (KernelError, zlib.error, lzma.LZMAError, EOFError):
                pass
            at = image.find(magic, at + 1)
    raise KernelError("no compressed kernel found in the image")


def vmlinux(image: bytes) -> bytes:
    """The kernel itself: ELF, or the memory image where there is no ELF.

    Takes a bzImage, an ELF kernel, arm's zImage, and the raw images of arm64 and
    riscv, which may be compressed with gzip.
    """
    if image.startswith(b"\x7fELF"):
        # MIPS: an ELF file that unpacks the kernel it holds.
        return image if b"Linux version " in image else _embedded(image)
    if image.startswith(b"\x1f\x8b"):
        return vmlinux(_decompress(image))
    if image[0x38:0x3C] in (b"ARM\x64", b"RSC\x05"):
        return image
    if image[0x24:0x28] == b"\x18\x28\x6f\x01":
        return _embedded(image)
    if image[0x202:0x206] == b"HdrS":
        setup_sectors = image[0x1F1] or 4
        offset, length = struct.unpack_from("<II", image, 0x248)
        start = (setup_sectors + 1) * 512 + offset
        return _decompress(image[start : start + length])
    raise KernelError("no kind of kernel image that is known")


#: More than a vDSO has before its build id.
_VDSO_SIZE = 1 << 14

#: A note of type 3 from "GNU": 4 + 20 bytes of header and name, then the id.
_GNU_NOTE = re.compile(rb"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0(.{20})", re.DOTALL)


def build_id(kernel: bytes) -> str | None:
    """The GNU build id of what :func:`vmlinux` gave; the guest has it in /sys/kernel/notes."""
    if kernel.startswith(b"\x7fELF"):
        try:
            return Elf(kernel).build_id()
        except ElfError as error:
            raise KernelError(f"the kernel image holds no ELF kernel: {error}") from error
    # A memory image has no headers: the note is found by what it looks like.
    # The programs the image holds (the vDSO) have one of their own, near the
    # start of an ELF file.
    found = [
        match.group(1).hex()
        for match in _GNU_NOTE.finditer(kernel)
        if b"\x7fELF" not in kernel[max(0, match.start() - _VDSO_SIZE) : match.start()]
    ]
    return found[0] if len(set(found)) == 1 else None


def banner(kernel: bytes) -> str:
    """The "Linux version ..." line of what :func:`vmlinux` gave; empty if it has none."""
    found = re.search(rb"Linux version \d[^\0\n%]+", kernel)
    return found.group().decode("ascii", "replace") if found else ""
