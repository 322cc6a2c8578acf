"""Follow a chain of pointers in guest memory, for people to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._bindings.structs import PandaCPU
    from .arch.base import ArchHost

__all__ = ["telescope"]

#: Most links that are followed.
LINKS = 5
#: Bytes that are looked at for text.
WINDOW = 16
#: Text shorter than this is more likely a number.
SHORTEST_TEXT = 3


def _leading_text(data: bytes) -> str:
    length = 0
    while length < len(data) and 0x20 <= data[length] < 0x7F:
        length += 1
    return data[:length].decode("ascii")


def telescope(panda: ArchHost, cpu: PandaCPU, value: int) -> str:
    """Return what ``value`` points to, e.g. `` -> 0x7ffe1000 -> "/bin/sh"``.

    Up to five links; a chain ends at 0, at memory that cannot be read, or at
    text: more than two printable characters. The result is empty if ``value``
    is no pointer.
    """
    chain = ""
    for _ in range(LINKS):
        if value == 0:
            break
        try:
            data: bytes = panda.virtual_memory_read(cpu, value, WINDOW)
        except ValueError:
            # The end of a mapping may be less than a window away.
            try:
                data = panda.virtual_memory_read(cpu, value, panda.register_size)
            except ValueError:
                break
        text = _leading_text(data)
        if len(text) >= SHORTEST_TEXT:
            return f'{chain} -> "{text}"'
        value = int.from_bytes(
            data[: panda.register_size], "big" if panda.endianness == "big" else "little"
        )
        chain += f" -> {value:#x}"
    return chain
