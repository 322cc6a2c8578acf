"""Guest memory: reading, writing, mapping (C: ``panda/memory.h``)."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, Union

from ._bindings.enums import PandaStatus
from ._core import Cpu, PandaCore
from .errors import GuestMemoryError

_Value = Union[bytes, int, "list[int]"]

_PAGE = 4096

_FORMATS = "'bytearray', 'int', 'str', 'ptrlist'"

#: What bad addresses and lengths end in.
_BAD_ARGUMENTS = (TypeError, ValueError, OverflowError, MemoryError, ctypes.ArgumentError)


def _new_bytes(length: int) -> bytes:
    """A bytes object nobody else has, of at least ``length``, for the core to fill.

    Saves a buffer and a copy per read. Shorter ones than two bytes are shared by
    everybody in CPython, so there are none.
    """
    if length < 0:
        raise ValueError(length)
    return bytes(length) if length > 1 else bytes(2)


class Memory(PandaCore):
    """The part of Panda that accesses guest memory."""

    _address_mask: int
    _core_knows_python: bool
    _peek: Callable[[int, int], bytes | None]
    _peek_text: Callable[[int, int], bytes | None]

    def _init_memory(self) -> None:
        if self._core_knows_python:
            make: Any = self.libpanda.panda_python_make_peek
            address = ctypes.cast(make, ctypes.c_void_p).value or 0
            self._peek = ctypes.PYFUNCTYPE(ctypes.py_object)(address)()
        else:
            self._peek = lambda at, length: None

    def virtual_memory_read(self, cpu: Cpu, addr: int, length: int, fmt: str = "bytearray") -> Any:
        """Read guest memory at a virtual address of the current address space.

        Args:
            cpu: the CPU whose page tables count.
            addr: guest virtual address; wrapped to the guest's width.
            length: bytes.
            fmt: ``'bytearray'`` gives bytes, ``'int'`` an unsigned int in guest
                byte order, ``'str'`` the bytes before the first NUL,
                ``'ptrlist'`` a list of ints of the guest's pointer size.

        Raises:
            GuestMemoryError: not mapped, or not RAM (a ValueError).
            ValueError: a bad address, length or format.
        """
        status = 0
        try:
            at = addr & self._address_mask
            # Quick, if the TLB leads there: no buffer, Python's lock is kept.
            data = self._peek(at, length)
            if data is None:
                data = _new_bytes(length)
                status = self.libpanda.panda_virtual_memory_read(cpu, at, data, length)
        except _BAD_ARGUMENTS as error:
            raise self._bad_access(addr, length) from error
        if status:
            raise self._read_error(addr, status)
        if len(data) != length:
            data = data[:length]
        return data if fmt == "bytearray" else self._convert(data, fmt)

    def physical_memory_read(self, addr: int, length: int, fmt: str = "bytearray") -> Any:
        """Read guest RAM at a physical address; ``fmt`` as in virtual_memory_read.

        Raises:
            GuestMemoryError: not RAM; device memory is never touched.
            ValueError: a bad address, length or format.
        """
        try:
            data = _new_bytes(length)
            status = self.libpanda.panda_physical_memory_read(addr, data, length)
        except _BAD_ARGUMENTS as error:
            raise self._bad_access(addr, length) from error
        if status:
            raise self._read_error(addr, status)
        if length < 2:
            data = data[:length]
        return data if fmt == "bytearray" else self._convert(data, fmt)

    def virtual_memory_write(self, cpu: Cpu, addr: int, buf: bytes) -> None:
        """Write bytes at a guest virtual address; page protection is ignored.

        Raises:
            GuestMemoryError: not mapped, or not RAM.
            StateError: called while a block is being translated.
        """
        data = self._writable(addr, buf)
        status = self.libpanda.panda_virtual_memory_write(
            cpu, addr & self._address_mask, data, len(data)
        )
        if status:
            raise self._write_error(addr, status)

    def physical_memory_write(self, addr: int, buf: bytes) -> None:
        """Write bytes to guest RAM (or ROM) at a physical address.

        Raises:
            GuestMemoryError: not RAM.
            StateError: called while a block is being translated.
        """
        data = self._writable(addr, buf)
        status = self.libpanda.panda_physical_memory_write(addr, data, len(data))
        if status:
            raise self._write_error(addr, status)

    def read_str(self, cpu: Cpu, ptr: int, max_length: int | None = None) -> str:
        """Read a NUL-terminated string; invalid UTF-8 is left out.

        Args:
            cpu: the CPU whose page tables count.
            ptr: guest virtual address.
            max_length: bytes at most; None for no limit.

        Raises:
            GuestMemoryError: the string runs into memory that is not mapped.
        """
        if max_length is not None and max_length <= 0:
            return ""
        text = self._peek_text(ptr & self._address_mask, max_length or _PAGE + 1)
        if text is not None:
            return text.decode("utf-8", "ignore")
        found = bytearray()
        while max_length is None or len(found) < max_length:
            size = _PAGE if max_length is None else min(_PAGE, max_length - len(found))
            buf = ctypes.create_string_buffer(size)
            at = (ptr + len(found)) & self._address_mask
            length = self.libpanda.panda_read_string(cpu, at, buf, size)
            if length < 0:
                raise self._read_error(at, length)
            found += buf.raw[:length]
            if length < size:
                break
        # A shorter result than asked for is a NUL or the end of mapped memory.
        if max_length is None or len(found) < max_length:
            end = (ptr + len(found)) & self._address_mask
            self.virtual_memory_read(cpu, end, 1)
        return found.decode("utf-8", "ignore")

    def virt_to_phys(self, cpu: Cpu, addr: int) -> int:
        """Physical address of a virtual one; all ones if it is not mapped."""
        phys = self.libpanda.panda_virt_to_phys(cpu, addr & self._address_mask)
        return phys

    def address_to_ram_offset(self, hwaddr: int, is_write: bool) -> int:
        """Offset in RAM of a physical address.

        Raises:
            ValueError: it is not RAM, or (``is_write``) not writable.
        """
        offset = ctypes.c_uint64()
        status = self.libpanda.panda_physical_to_ram_offset(hwaddr, is_write, offset)
        self._check(status)
        return offset.value

    def map_memory(self, name: str, size: int, address: int) -> None:
        """Add RAM to the machine.

        Args:
            name: of the region, for ``info mtree`` and snapshots.
            size: bytes, rounded up to a page.
            address: guest physical address.

        Raises:
            StateError: there is no machine yet; call it in or after
                ``after_machine_init``.
            ValueError: there is something at that address already.
        """
        status = self.libpanda.panda_map_memory(name.encode(), size, address)
        if status == PandaStatus.ERR_ARGUMENT:
            raise GuestMemoryError(f"cannot map {name!r}: {self._error(status)}")
        self._check(status)

    def memsavep(self, file_out: BinaryIO) -> None:
        """Write all of the guest's main memory to an open binary file."""
        size = self.libpanda.panda_ram_size()
        for addr in range(0, size, 1 << 20):
            length = min(1 << 20, size - addr)
            try:
                data = self.physical_memory_read(addr, length)
            except GuestMemoryError:
                # Holes for devices read as zero.
                data = b"".join(self._page_or_zero(a) for a in range(addr, addr + length, _PAGE))
            file_out.write(data)

    def to_unsigned_guest(self, x: int) -> int:
        """Wrap an int to the guest's register width."""
        return x & ((1 << self.bits) - 1)

    def from_unsigned_guest(self, x: int, bits: int | None = None) -> int:
        """Read an int of the guest's width (or ``bits``) as two's complement."""
        width = self.bits if bits is None else bits
        x &= (1 << width) - 1
        return x - (1 << width) if x >> (width - 1) else x

    # --- helpers ---

    def _page_or_zero(self, addr: int) -> bytes:
        try:
            data: bytes = self.physical_memory_read(addr, _PAGE)
        except GuestMemoryError:
            return bytes(_PAGE)
        return data

    def _convert(self, data: bytes, fmt: str) -> _Value:
        order = "<" if self.endianness == "little" else ">"
        if fmt == "int":
            return int.from_bytes(data, "little" if order == "<" else "big")
        if fmt == "str":
            return data.split(b"\0", 1)[0]
        if fmt == "ptrlist":
            size = self.bits // 8
            if len(data) % size:
                raise ValueError(
                    f"ptrlist: {len(data)} bytes are no multiple of the pointer size, {size}"
                )
            return list(
                struct.unpack(f"{order}{len(data) // size}{'Q' if size == 8 else 'I'}", data)
            )
        raise ValueError(f"unknown fmt {fmt!r}: use one of {_FORMATS}")

    def _bad_access(self, addr: object, length: object) -> ValueError:
        if not isinstance(addr, int):
            return ValueError(f"a guest address is an int, not {addr!r}")
        return ValueError(f"cannot access {length!r} bytes at {addr:#x}")

    def _writable(self, addr: object, buf: object) -> bytes:
        if not isinstance(addr, int):
            raise ValueError(f"a guest address is an int, not {addr!r}")
        if not isinstance(buf, (bytes, bytearray, memoryview)):
            raise ValueError(f"guest memory is written with bytes, not {type(buf).__name__}")
        return bytes(buf)

    def _read_error(self, addr: int, status: int) -> Exception:
        return self._access_error("read", addr, status)

    def _write_error(self, addr: int, status: int) -> Exception:
        return self._access_error("write", addr, status)

    def _access_error(self, verb: str, addr: int, status: int) -> Exception:
        error = self._error(status)
        if isinstance(error, GuestMemoryError):
            return GuestMemoryError(
                f"Failed to {verb} guest memory at {addr:#x} got err={status}: {error}"
            )
        return error
