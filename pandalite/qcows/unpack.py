"""Unpack .xz, .gz and .zst files piece by piece, in bounded memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Callable, Protocol

__all__ = ["UnpackError", "packing", "unpacked", "why_not"]

#: Most memory an .xz file may ask for; ``xz -9`` needs 65 MiB.
XZ_MEMORY = 512 << 20

_READ = 64 << 10
_STEP = 1 << 20  # about the most that is unpacked at a time
_SUFFIXES = {".xz": "xz", ".gz": "gz", ".zst": "zst"}


class UnpackError(Exception):
    """The packed file is damaged, or this host cannot unpack its kind."""


class _Decoder(Protocol):
    """One stream of a packed file; what the standard library's decoders have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def packing(path: str, name: str) -> str:
    """How a file at ``path`` is packed that is called ``name`` when unpacked.

    ``"xz"``, ``"gz"``, ``"zst"``, or ``""`` for not at all: a file whose own
    name ends so stays as it is.
    """
    for suffix, kind in _SUFFIXES.items():
        if path.lower().endswith(suffix) and not name.lower().endswith(suffix):
            return kind
    return ""


def why_not(kind: str) -> str:
    """Why files of this kind cannot be unpacked on this host, or ``""`` if they can."""
    try:
        if kind == "xz":
            import_module("lzma")
        elif kind == "gz":
            import_module("zlib")
        elif kind == "zst":
            return "" if _zstd_decoder() or _zstd_program() else _NO_ZSTD
    except ImportError as error:
        return f"this Python was built without what unpacks .{kind} files ({error})"
    return ""


def unpacked(path: Path, kind: str) -> Iterator[bytes]:
    """The content of a packed file, in pieces of bounded size.

    Several streams one after the other are one file, as for the programs that
    make them. UnpackError if it is damaged or cut short.
    """
    with path.open("rb") as file:
        if kind == "xz":
            import lzma

            def xz() -> _Decoder:
                return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

            yield from _streams(file, xz, (lzma.LZMAError,))
        elif kind == "gz":
            import zlib

            yield from _streams(file, _Gzip, (zlib.error,))
        elif kind == "zst":
            found = _zstd_decoder()
            if found:
                yield from _streams(file, *found)
            else:
                yield from _by_program(file)
        else:
            raise ValueError(f"unknown packing {kind!r}")


def _streams(
    file: BinaryIO, new: Callable[[], _Decoder], errors: tuple[type[Exception], ...]
) -> Iterator[bytes]:
    decoder: _Decoder | None = None
    data = b""
    streams = 0
    try:
        while True:
            if decoder is None:
                if streams:
                    data = data.lstrip(b"\0")  # padding is allowed after a stream
                if not data:
                    data = file.read(_READ)
                    if not data:
                        break
                    continue
                decoder = new()
                streams += 1
            elif decoder.needs_input:
                data = file.read(_READ)
                if not data:
                    raise UnpackError("the packed file is cut short")
            piece = decoder.decompress(data, _STEP)
            data = b""
            if piece:
                yield piece
            if decoder.eof:
                data = decoder.unused_data
                decoder = None
    except errors as error:
        raise UnpackError(f"the packed file is damaged: {error}") from error
    if not streams:
        raise UnpackError("the packed file is empty")


class _Gzip:
    """zlib's decoder with the interface of lzma's."""

    def __init__(self) -> None:
        import zlib

        self._decoder = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail or data, max_length)


# Zstandard: in the standard library since Python 3.14 only.

_NO_ZSTD = (
    "nothing here unpacks .zst files: use Python 3.14 or newer (its compression.zstd), or "
    "install the Python package zstandard, or the program zstd"
)


class _Zstandard:
    """The decoder of the package ``zstandard`` with the interface of lzma's."""

    # It cannot be told how much to unpack at most. A few bytes can become
    # 128 KiB, so it is fed little at a time: never more than 32 MiB comes out.
    _FEED = 1024

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._data = b""
        self._at = 0

    @property
    def eof(self) -> bool:
        return bool(self._decoder.eof)

    @property
    def needs_input(self) -> bool:
        return self._at >= len(self._data)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._decoder.unused_data) + self._data[self._at :]

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if data:
            self._data, self._at = data, 0
        piece = self._data[self._at : self._at + self._FEED]
        self._at += len(piece)
        return bytes(self._decoder.decompress(piece))


def _zstd_decoder() -> tuple[Callable[[], _Decoder], tuple[type[Exception], ...]] | None:
    with contextlib.suppress(ImportError):
        module: Any = import_module("compression.zstd")
        return module.ZstdDecompressor, (module.ZstdError,)
    with contextlib.suppress(ImportError):
        package: Any = import_module("zstandard")
        if hasattr(package.ZstdDecompressor().decompressobj(), "eof"):  # not in old ones

            def decoder() -> _Decoder:
                # Without a limit a file can ask for gigabytes of memory.
                options = package.ZstdDecompressor(max_window_size=1 << 27)
                return _Zstandard(options.decompressobj())

            return decoder, (package.ZstdError,)
    return None


def _zstd_program() -> str | None:
    import shutil

    return shutil.which("zstd")


def _by_program(file: BinaryIO) -> Iterator[bytes]:
    import subprocess
    import tempfile

    program = _zstd_program()
    if program is None:
        raise UnpackError(_NO_ZSTD)
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            [program, "-d", "-c", "-q"], stdin=file, stdout=subprocess.PIPE, stderr=words
        )
        try:
            assert process.stdout is not None
            while piece := process.stdout.read(_STEP):
                yield piece
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if status != 0:
            words.seek(0)
            reason = words.read(1000).decode(errors="replace").strip()
            raise UnpackError(f"the packed file is damaged: {reason or f'zstd exited {status}'}")
