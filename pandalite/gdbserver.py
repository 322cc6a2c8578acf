"""gdb debugs a replay, forward and back: a server of its remote protocol.

QEMU's own server goes backward only in QEMU's own kind of replay. This one
speaks the protocol over a :class:`~pandalite.replay.Replay`; a replay can be
looked at but not changed.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import GuestMemoryError, PandaError
from .gdbpackets import INTERRUPT, PACKET_SIZE, Disconnected, Packets, escape
from .gdbtargets import RegisterReader, target_of
from .travel import Stop, Traveller, Watch

if TYPE_CHECKING:
    from .replay import Replay

_WATCH_KINDS = {"2": "watch", "3": "rwatch", "4": "awatch"}

#: Errors: bad arguments, EFAULT for memory, and what is refused.
_BAD, _FAULT, _READ_ONLY = "E16", "E0e", "E.a replay is read-only"

_HELP = """\
when               instructions executed so far
rrbreakpoint N...  stop where N instructions have been executed
rrdelete N...      do not
rrlist             list those counts
"""


class _Ended(Exception):
    """The client wants no more."""


class GdbServer:
    """Serves one client."""

    def __init__(self, replay: Replay, packets: Packets) -> None:
        """Serve the replay to who is at the other end of the connection."""
        self._replay = replay
        self._panda: Any = replay._panda
        self._packets = packets
        self._target = target_of(self._panda.arch_name)
        self._registers = RegisterReader(self._target, self._panda)
        self._xml = self._target.xml().encode()
        self._traveller = Traveller(
            replay, packets.interrupted, stops_before_access=self._target.stops_before_access
        )
        #: Breakpoints' addresses by the kind that was asked for.
        self._breakpoints: set[tuple[str, int]] = set()
        self._client: set[str] = set()
        self._last_stop = Stop("step")

    def serve(self) -> None:
        """Answer until the client detaches, kills or goes."""
        with suppress(_Ended, Disconnected):
            while True:
                packet = self._packets.receive()
                if packet == INTERRUPT:
                    # It has stopped already.
                    continue
                try:
                    answer = self._answer(packet.decode("latin-1"))
                except ValueError:
                    answer = _BAD
                self._packets.send(answer)
                if packet == b"QStartNoAckMode":
                    self._packets.acknowledged = False

    def _answer(self, packet: str) -> bytes | str:
        for prefix, method in _COMMANDS:
            if packet.startswith(prefix):
                return method(self, packet[len(prefix) :])
        # Not known: that is what an empty answer means.
        return ""

    # ---- what it is ----

    def _supported(self, rest: str) -> str:
        self._client = {f[:-1] for f in rest.lstrip(":").split(";") if f.endswith("+")}
        return (
            f"PacketSize={PACKET_SIZE:x};ReverseStep+;ReverseContinue+;qXfer:features:read+;"
            "QStartNoAckMode+;swbreak+;hwbreak+"
        )

    def _features(self, rest: str) -> bytes | str:
        name, _, part = rest.partition(":")
        if name != "target.xml":
            return "E00"
        offset, length = (int(n, 16) for n in part.split(","))
        chunk = self._xml[offset : offset + length]
        return (b"m" if offset + length < len(self._xml) else b"l") + escape(chunk)

    def _ok(self, rest: str) -> str:
        return "OK"

    def _current_thread(self, rest: str) -> str:
        return "QC1"

    def _first_threads(self, rest: str) -> str:
        return "m1"

    def _more_threads(self, rest: str) -> str:
        return "l"

    def _attached(self, rest: str) -> str:
        return "1"

    # ---- registers and memory ----

    def _all_registers(self, rest: str) -> str:
        return "".join(self._registers.read(n) for n in range(len(self._registers)))

    def _register(self, rest: str) -> str:
        number = int(rest, 16)
        return self._registers.read(number) if number < len(self._registers) else _BAD

    def _memory(self, rest: str) -> str:
        address, length = (int(n, 16) for n in rest.split(","))
        length = min(length, PACKET_SIZE // 2)
        try:
            data: bytes = self._panda.virtual_memory_read(self._panda.cpu, address, length)
        except GuestMemoryError:
            return _FAULT
        return data.hex()

    def _refuse(self, rest: str) -> str:
        return _READ_ONLY

    # ---- breakpoints ----

    def _insert(self, rest: str) -> str:
        return self._change(rest, True)

    def _remove(self, rest: str) -> str:
        return self._change(rest, False)

    def _change(self, rest: str, insert: bool) -> str:
        kind, address_, size_ = rest.split(";")[0].split(",")
        address = int(address_, 16) & self._panda._address_mask
        if kind in ("0", "1"):
            one = (kind, address)
            (self._breakpoints.add if insert else self._breakpoints.discard)(one)
            self._traveller.breakpoints = {at for _, at in self._breakpoints}
        elif kind in _WATCH_KINDS:
            watch = Watch(_WATCH_KINDS[kind], address, int(size_, 16))
            watches = self._traveller.watches
            (watches.add if insert else watches.discard)(watch)
        else:
            return ""
        return "OK"

    # ---- moving ----

    def _why(self, rest: str) -> str:
        return self._report(self._last_stop)

    def _continue(self, rest: str) -> str:
        return self._moved(self._traveller.forward)

    def _step(self, rest: str) -> str:
        return self._moved(self._traveller.step)

    def _back(self, rest: str) -> str:
        return self._moved(self._traveller.back)

    def _step_back(self, rest: str) -> str:
        return self._moved(self._traveller.step_back)

    def _resume(self, rest: str) -> str:
        """``vCont;ACTION[:thread][;...]``: there is one thread."""
        if rest[:1] == "r":
            first, _, last = rest[1:].partition(";")[0].partition(":")[0].partition(",")
            begin, end = int(first, 16), int(last, 16)
            return self._moved(lambda: self._traveller.step_range(begin, end))
        return self._step(rest) if rest[:1] in "sS" else self._continue(rest)

    def _actions(self, rest: str) -> str:
        return "vCont;c;C;s;S;r"

    def _moved(self, move: Callable[[], Stop]) -> str:
        try:
            self._last_stop = move()
        except PandaError as error:
            # The user is told before it ends.
            with suppress(Disconnected):
                self._packets.send("O" + f"{error}\n".encode().hex())
            raise
        return self._report(self._last_stop)

    def _report(self, stop: Stop) -> str:
        signal = "02" if stop.reason == "interrupt" else "05"
        what = ""
        if stop.reason in ("begin", "end"):
            what = f"replaylog:{stop.reason};"
        elif stop.watch is not None:
            what = f"{stop.watch.kind}:{stop.watch.address:x};"
        elif stop.reason == "break":
            kind = "swbreak" if ("0", self._replay.pc) in self._breakpoints else "hwbreak"
            what = f"{kind}:;" if kind in self._client else ""
        return f"T{signal}{what}thread:1;"

    # ---- counts of instructions ----

    def _monitor(self, rest: str) -> str:
        return self._count_command(bytes.fromhex(rest).decode("utf-8", "replace"))

    def _count_command(self, text: str) -> str:
        """``when``, ``rrbreakpoint``, ``rrdelete`` and ``rrlist``."""
        words = re.split(r"[\s:]+", text.strip())
        name, arguments = words[0], words[1:]
        counts = self._traveller.counts
        try:
            numbers = {int(word, 0) for word in arguments}
        except ValueError:
            return f"{text}: a count of instructions is a number\n".encode().hex()
        if name == "when":
            out = f"{self._replay.instructions}\n"
        elif name == "rrbreakpoint" and numbers:
            counts |= numbers
            out = "".join(f"breakpoint at instruction {n}\n" for n in sorted(numbers))
        elif name == "rrdelete" and numbers:
            unknown = sorted(numbers - counts)
            counts -= numbers
            out = "".join(f"there is no breakpoint at instruction {n}\n" for n in unknown)
        elif name == "rrlist":
            out = "".join(f"{n}\n" for n in sorted(counts)) or "no breakpoints\n"
        else:
            out = _HELP
        return out.encode().hex() or "OK"

    # ---- the end ----

    def _detach(self, rest: str) -> str:
        self._packets.send("OK")
        raise _Ended

    def _kill(self, rest: str) -> str:
        raise _Ended


def _raw(name: str) -> Callable[[GdbServer, str], str]:
    """The packet of PANDA's gdb scripts: a monitor command as it is."""
    return lambda server, rest: server._count_command(name + rest)


#: What packets begin with, and who answers; the longer of two first.
_COMMANDS: tuple[tuple[str, Callable[[GdbServer, str], bytes | str]], ...] = (
    ("qSupported", GdbServer._supported),
    ("QStartNoAckMode", GdbServer._ok),
    ("qXfer:features:read:", GdbServer._features),
    ("qAttached", GdbServer._attached),
    ("qfThreadInfo", GdbServer._first_threads),
    ("qsThreadInfo", GdbServer._more_threads),
    ("qRcmd,", GdbServer._monitor),
    ("qC", GdbServer._current_thread),
    ("vCont?", GdbServer._actions),
    ("vCont;", GdbServer._resume),
    ("when", _raw("when")),
    ("rrbreakpoint", _raw("rrbreakpoint")),
    ("rrdelete", _raw("rrdelete")),
    ("rrlist", _raw("rrlist")),
    ("?", GdbServer._why),
    ("g", GdbServer._all_registers),
    ("p", GdbServer._register),
    ("m", GdbServer._memory),
    ("G", GdbServer._refuse),
    ("P", GdbServer._refuse),
    ("M", GdbServer._refuse),
    ("X", GdbServer._refuse),
    ("H", GdbServer._ok),
    ("T", GdbServer._ok),
    ("Z", GdbServer._insert),
    ("z", GdbServer._remove),
    ("bs", GdbServer._step_back),
    ("bc", GdbServer._back),
    ("s", GdbServer._step),
    ("c", GdbServer._continue),
    ("D", GdbServer._detach),
    ("k", GdbServer._kill),
)


def serve(
    replay: Replay,
    port: int | str | PathLike[str],
    host: str,
    on_listening: Callable[[str], object] | None,
) -> None:
    """Listen, and serve the first client; see :meth:`Replay.serve_gdb`."""
    # Before anybody waits for a connection.
    target_of(replay._panda.arch_name)
    path = None if isinstance(port, int) else os.fspath(port)
    if path is None:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        number = listener.getsockname()[1]
        address = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    else:
        address = path
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
    try:
        with listener:
            if on_listening is not None:
                on_listening(address)
            connection, _ = listener.accept()
    finally:
        if path is not None:
            Path(path).unlink()
    with connection:
        if path is None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        GdbServer(replay, Packets(connection)).serve()
