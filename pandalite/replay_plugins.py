"""Built-in plugins of replays, in Python: network, checkpoint, scissors.

They are loaded like plugins in C, ``panda.load_plugin("network", {"file": ...})``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from .errors import PluginError

if TYPE_CHECKING:
    from .panda import Panda
    from .replay import Replay

#: pcap: nanoseconds, version 2.4, packets of any length, Ethernet.
_PCAP_MAGIC, _VERSION, _MAX_PACKET, _ETHERNET = 0xA1B23C4D, (2, 4), 262144, 1
_SECOND = 1_000_000_000


class PythonPlugin:
    """A plugin in Python.

    Args:
        panda: the machine.
        args: its arguments.
    """

    #: What it is for, in a line.
    purpose = ""
    #: Arguments that must be given, and others.
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def __init__(self, panda: Panda, args: Mapping[str, str]) -> None:
        name = type(self).__name__.lower()
        known = (*self.required, *self.optional)
        unknown = set(args) - set(known)
        if unknown:
            raise PluginError(
                f"plugin {name} has no argument {', '.join(sorted(unknown))}; it has: "
                f"{', '.join(known)}"
            )
        for argument in self.required:
            if not args.get(argument):
                raise PluginError(f"plugin {name} needs the argument {argument}")
        self.panda = panda

    def unload(self) -> None:
        """End its work."""


class Network(PythonPlugin):
    """Writes the packets of a replay to a pcap file.

    A packet's time is its place in the replay: an instruction counts as a nanosecond.
    """

    purpose = "packets of a replay, as a pcap file"
    required = ("file",)

    def __init__(self, panda: Panda, args: Mapping[str, str]) -> None:
        super().__init__(panda, args)
        self._file: BinaryIO | None
        try:
            self._file = open(args["file"], "wb")  # noqa: SIM115
        except OSError as error:
            raise PluginError(
                f"plugin network: {args['file']} cannot be written: {error}"
            ) from None
        words = (*_VERSION, 0, 0, _MAX_PACKET, _ETHERNET)
        sizes = (2, 2, 4, 4, 4, 4)
        head = b"".join(word.to_bytes(size, "little") for word, size in zip(words, sizes))
        self._file.write(_PCAP_MAGIC.to_bytes(4, "little") + head)
        #: Packets written.
        self.packets = 0
        panda.register_callback(
            panda.callback.replay_handle_packet, self._packet, "__network_packet"
        )

    def _packet(self, _cpu: Any, buf: Any, size: int, _direction: int, _where: int) -> None:
        if self._file is None:
            return
        now = self.panda.libpanda.panda_rr_count()
        kept = min(size, _MAX_PACKET)
        for word in (now // _SECOND, now % _SECOND, kept, size):
            self._file.write(word.to_bytes(4, "little"))
        self._file.write(bytes(buf[0:kept]))
        self.packets += 1

    def unload(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if "__network_packet" in self.panda.registered_callbacks:
            self.panda.delete_callback("__network_packet")


class Checkpoint(PythonPlugin):
    """Says how much memory the checkpoints of :meth:`pandalite.Panda.replay` may take."""

    purpose = "how much memory the checkpoints of replays may take"
    optional = ("space",)

    def __init__(self, panda: Panda, args: Mapping[str, str]) -> None:
        super().__init__(panda, args)
        #: A number of bytes, or like ``"6G"``.
        self.space = args.get("space") or "6G"
        if not re.fullmatch(r"\d+[KMG]?B?", self.space.upper()):
            raise PluginError(f"plugin checkpoint: space={self.space} is no size, like 6G")


class Scissors(PythonPlugin):
    """Makes :meth:`pandalite.Panda.run_replay` cut a recording instead of replaying it."""

    purpose = "a new recording of a part of one"
    required = ("name",)
    optional = ("start", "end")

    def __init__(self, panda: Panda, args: Mapping[str, str]) -> None:
        super().__init__(panda, args)
        self.name = args["name"]
        try:
            self.start = int(args.get("start") or "0", 0)
            self.end = int(args["end"], 0) if args.get("end") else None
        except ValueError as error:
            raise PluginError(f"plugin scissors: {error}") from None
        #: Where the part begins and ends, when it is made.
        self.part: tuple[int, int] | None = None

    def cut(self, replay: Replay) -> None:
        """Make the recording; :meth:`pandalite.replay.Replay.cut` says how."""
        end = replay.total if self.end is None else min(self.end, replay.total)
        self.part = replay.cut(self.start, end, self.name)


#: The plugins in Python by name.
PLUGINS: dict[str, type[PythonPlugin]] = {
    "checkpoint": Checkpoint,
    "network": Network,
    "scissors": Scissors,
}
