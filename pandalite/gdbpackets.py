"""Packets of gdb's remote serial protocol, over a socket."""

from __future__ import annotations

import contextlib
import select
import socket

#: What gdb sends for Ctrl-C.
INTERRUPT = b"\x03"

#: Bytes of a packet's content that we accept and promise to.
PACKET_SIZE = 0x4000


class Disconnected(Exception):
    """The other side has gone."""


def escape(data: bytes) -> bytes:
    """Binary data as the content of a packet."""
    return b"".join(b"}%c" % (c ^ 0x20) if c in b"#$}*" else b"%c" % c for c in data)


def _checksum(content: bytes) -> bytes:
    return b"%02x" % (sum(content) & 0xFF)


class Packets:
    """Sends and receives packets, and acknowledges them while that is wanted."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._pending = b""
        #: Whether each side acknowledges what it receives.
        self.acknowledged = True

    def _more(self) -> None:
        try:
            data = self._socket.recv(4096)
        except ConnectionError:
            data = b""
        if not data:
            raise Disconnected
        self._pending += data

    def receive(self) -> bytes:
        """Wait for the next packet; its content. Ctrl-C is one of its own.

        Raises:
            Disconnected: there will be none.
        """
        while True:
            # Acknowledgements, and what was lost of a packet, are skipped.
            starts = [at for at in map(self._pending.find, (b"$", INTERRUPT)) if at >= 0]
            if not starts:
                self._pending = b""
                self._more()
                continue
            self._pending = self._pending[min(starts) :]
            if self._pending.startswith(INTERRUPT):
                self._pending = self._pending[1:]
                return INTERRUPT
            end = self._pending.find(b"#")
            if end < 0 or len(self._pending) < end + 3:
                self._more()
                continue
            content, sum_ = self._pending[1:end], self._pending[end + 1 : end + 3]
            self._pending = self._pending[end + 3 :]
            if not self.acknowledged:
                return content
            if sum_.lower() == _checksum(content):
                # Who has said his last word may be gone already.
                with contextlib.suppress(Disconnected):
                    self._send(b"+")
                return content
            self._send(b"-")

    def send(self, content: bytes | str) -> None:
        """Send a packet."""
        if isinstance(content, str):
            content = content.encode()
        self._send(b"$" + content + b"#" + _checksum(content))

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except ConnectionError:
            raise Disconnected from None

    def interrupted(self) -> bool:
        """Whether Ctrl-C has come, without waiting.

        Raises:
            Disconnected: the other side has gone.
        """
        while select.select([self._socket], [], [], 0)[0]:
            self._more()
        if INTERRUPT not in self._pending:
            return False
        self._pending = self._pending.replace(INTERRUPT, b"")
        return True
