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


def vmlinux(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage, or the image itself when it is ELF."""
    if image.startswith(b"\x7fELF"):
        return image
    if image[0x202:0x206] == b"HdrS":
        setup_sectors = image[0x1F1] or 4
        offset, length = struct.unpack_from("<II", image, 0x248)
        start = (setup_sectors + 1) * 512 + offset
        return _decompress(image[start : start + length])
    raise KernelError("neither a bzImage nor an ELF kernel")


def build_id(image: bytes) -> str | None:
    """The GNU build id of the kernel, which the guest shows in /sys/kernel/notes."""
    try:
        return Elf(vmlinux(image)).build_id()
    except ElfError as error:
        raise KernelError(f"the kernel image holds no ELF kernel: {error}") from error


def banner(image: bytes) -> str:
    """The "Linux version ..." line of the kernel; empty if it is not found."""
    found = re.search(rb"Linux version \d[^\0\n%]+", vmlinux(image))
    return found.group().decode("ascii", "replace") if found else ""
