"""The machine a recording can be replayed on, without anything but the recording.

Its devices must be those that were recorded, as their state is loaded; but what
they were connected to - disk images, networks, files, sockets - is replaced by
nothing, and the guest's kernel is in the recorded RAM.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..arguments import CONSOLE
from .facts import Recording

__all__ = ["Machine", "machine_of"]

#: Size of a disk of which nothing is known.
_SOME_SIZE = 1 << 30

#: Options without a value (qemu-options.hx).
_FLAGS = {
    *("S", "enable-sync-profile", "full-screen", "jitdump", "mem-prealloc", "no-fd-bootchk"),
    *("no-reboot", "no-shutdown", "no-user-config", "nodefaults", "nographic", "old-param"),
    *("only-migratable", "perfmap", "preconfig", "s", "semihosting", "snapshot", "usb"),
    "win2k-hack",
}
#: What has no part in a replay. Files of the guest's are in the recorded RAM.
_DROPPED = {
    *("kernel", "initrd", "append", "dtb", "shim", "acpitable", "L", "m", "mem-path"),
    *("S", "s", "gdb", "loadvm", "incoming", "snapshot", "monitor", "mon", "qmp", "qmp-pretty"),
    *("pidfile", "d", "D", "dfilter", "trace", "msg", "plugin", "add-fd", "set", "dump-vmstate"),
    *("display", "vnc", "spice", "full-screen", "enable-sync-profile", "perfmap", "jitdump"),
    *("mem-prealloc", "overcommit", "name", "action", "no-reboot", "no-shutdown", "accel"),
}
#: Short for -drive: what they are there.
_SHORT_DRIVES = {
    "hda": "index=0,media=disk",
    "hdb": "index=1,media=disk",
    "hdc": "index=2,media=disk",
    "hdd": "index=3,media=disk",
    "cdrom": "index=2,media=cdrom",
    "fda": "if=floppy,index=0",
    "fdb": "if=floppy,index=1",
    "sd": "if=sd",
    "mtdblock": "if=mtd",
    "pflash": "if=pflash",
}
#: Of -drive, what is about the place of a drive and not about its image.
_DRIVE_PLACE = {"if", "index", "bus", "unit", "media", "id", "serial", "werror", "rerror"}
_READ_ONLY = {"readonly", "read-only"}
#: Connections of the machine to the host.
_CONNECTIONS = {"serial", "parallel", "debugcon"}


@dataclass
class Machine:
    """Arguments for ``Panda()``."""

    arch: str
    mem: str
    #: QEMU's words.
    extra_args: list[str]
    #: Options whose value is a file of a size, which may have any content: the machine
    #: needs the file only until it exists.
    files: dict[str, int] = field(default_factory=dict)


def machine_of(recording: Recording, console: bool = False) -> Machine:
    """The machine for a replay of a recording.

    Args:
        recording: what is to be replayed.
        console: ``Panda()`` will add the serial port of its console.
    """
    words = recording.args[1:]
    memory = [value for name, value in options(words) if name == "m"]
    machine = Machine(recording.arch, memory[-1] if memory else "", [])
    disks = _Disks(recording)
    for name, value in options(words):
        if console and (name, value) == ("serial", f"chardev:{CONSOLE}"):
            continue
        machine.extra_args += _replaced(name, value, disks)
    _give_firmware(recording, machine)
    return machine


def options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options among the words, without dashes, and their values; "" is an image."""
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            yield "", word
            continue
        name = word.lstrip("-")
        yield name, "" if name in _FLAGS else next(rest, "")


def _replaced(name: str, value: str, disks: _Disks) -> list[str]:
    """The words that stand for an option in a replay."""
    if name in _DROPPED or name == "bios":
        return []
    if name in _FLAGS:
        # It would take the terminal; what else it means stays.
        return ["-machine", "graphics=off"] if name == "nographic" else [f"-{name}"]
    if name == "":
        return ["-drive", disks.drive(_SHORT_DRIVES["hda"] + ",file=" + escape(value))]
    if name in _SHORT_DRIVES:
        return ["-drive", disks.drive(_SHORT_DRIVES[name] + ",file=" + escape(value))]
    if name == "drive":
        return ["-drive", disks.drive(value)]
    if name == "blockdev":
        return ["-blockdev", disks.node(value)]
    if name in _CONNECTIONS:
        return [f"-{name}", "none" if value == "none" else "null"]
    replace = _REPLACED.get(name)
    return [f"-{name}", value] if replace is None else replace(name, value)


# --- values of options ---


def escape(text: str) -> str:
    """A text as the value of a key."""
    return text.replace(",", ",,")


def parse(value: str) -> list[tuple[str, str]]:
    """Keys and values; a word without a key is a key with the value ""."""
    parts = value.replace(",,", "\0").split(",")
    pairs = [part.replace("\0", ",").partition("=") for part in parts if part]
    return [(key, text) for key, _equals, text in pairs]


def join(pairs: Sequence[tuple[str, str]]) -> str:
    """The value of an option that is made of keys and values."""
    return ",".join(f"{key}={escape(text)}" if text else key for key, text in pairs)


def _chardev(name: str, value: str) -> list[str]:
    ids = [text for key, text in parse(value) if key == "id"]
    if ids == [CONSOLE]:
        return []
    return ["-chardev", join([("null", ""), *(("id", i) for i in ids)])]


def _network(name: str, value: str) -> list[str]:
    """Any network of the host becomes one without connections to it."""
    pairs = parse(value)
    if not pairs or pairs[0][0] in ("none", "nic", "hubport"):
        return [f"-{name}", value]
    kept = ("id", "model", "mac", "macaddr", "addr", "netdev", "vectors", "romfile")
    return [f"-{name}", join([("user", ""), *((k, v) for k, v in pairs if k in kept)])]


def _audio(name: str, value: str) -> list[str]:
    return [f"-{name}", join([("none", ""), *((k, v) for k, v in parse(value) if k == "id")])]


def _object(name: str, value: str) -> list[str]:
    if value.startswith("filter-"):
        return []
    if value.startswith(("memory-backend-file", "memory-backend-memfd")):
        kept = ("id", "size")
        pairs = [(k, v) for k, v in parse(value) if k in kept]
        return ["-object", join([("memory-backend-ram", ""), *pairs])]
    return ["-object", value]


def _device(name: str, value: str) -> list[str]:
    # It only puts a file into memory.
    return [] if value.split(",")[0] == "loader" else ["-device", value]


def _fw_cfg(name: str, value: str) -> list[str]:
    pairs = [(k, v) for k, v in parse(value) if k not in ("file", "string", "gen_id")]
    return ["-fw_cfg", join([*pairs, ("string", "x")])]


def _smbios(name: str, value: str) -> list[str]:
    return [] if value.startswith("file=") else ["-smbios", value]


_REPLACED = {
    "chardev": _chardev,
    "netdev": _network,
    "nic": _network,
    "net": _network,
    "audiodev": _audio,
    "audio": _audio,
    "object": _object,
    "device": _device,
    "fw_cfg": _fw_cfg,
    "smbios": _smbios,
}


# --- disks ---


class _Disks:
    """Puts disks that read as zeros in the place of images."""

    def __init__(self, recording: Recording) -> None:
        # QEMU has the drives of the command line first, in their order.
        self._drives = [d for d in recording.disks if d.name]
        self._nodes = {d.node: d.size for d in recording.disks}
        self._next = 0

    def drive(self, value: str) -> str:
        """The value of a -drive."""
        pairs = parse(value)
        known = self._drives[self._next : self._next + 1]
        self._next += 1
        place = [(k, v) for k, v in pairs if k in _DRIVE_PLACE]
        image = [(k, v) for k, v in pairs if k not in _DRIVE_PLACE]
        files = [v for k, v in image if k in ("file", "filename", "file.filename") and v]
        if not files and not any(k in ("driver", "file.driver", "format") for k, _ in image):
            return join(pairs)  # empty: a drive for media
        size = known[0].size if known else _size_of(files)
        return join([*place, *_nothing(size), *_read_only(image)])

    def node(self, value: str) -> str:
        """The value of a -blockdev."""
        if value.startswith("{"):
            facts = json.loads(value)
            pairs = [(k, str(v)) for k, v in facts.items()]
            if facts.get("read-only"):
                pairs.append(("read-only", "on"))
        else:
            pairs = parse(value)
        names = [v for k, v in pairs if k == "node-name"]
        files = [v for k, v in pairs if k in ("filename", "file.filename")]
        size = self._nodes.get(names[0]) if names else None
        if size is None:
            size = _size_of(files)
        kept = [("node-name", n) for n in names]
        return join([*kept, *_nothing(size), *_read_only(pairs)])


def _nothing(size: int) -> list[tuple[str, str]]:
    return [("driver", "null-co"), ("size", str(size)), ("read-zeroes", "on")]


def _read_only(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    wanted = any(key in _READ_ONLY and value in ("on", "") for key, value in pairs)
    return [("read-only", "on")] if wanted else []


def _size_of(files: Sequence[str]) -> int:
    """The size of an image, if it happens to be here: the recording does not know it."""
    from ..errors import ImageError
    from ..qcows import qcow2

    for file in files:
        path = Path(file)
        try:
            return qcow2.validate(path).virtual_size
        except ImageError:
            if path.is_file():
                return path.stat().st_size
    return _SOME_SIZE


# --- firmware ---


def _give_firmware(recording: Recording, machine: Machine) -> None:
    """What has to be there where a kernel was: the recorded ROMs replace its content."""
    given = dict(options(recording.args[1:]))
    if recording.machine.startswith("malta"):
        # It wants a kernel or firmware; flash of the right size is as good.
        if not any("if=pflash" in word for word in machine.extra_args):
            flash = [("if", "pflash"), *_nothing(4 << 20)]
            machine.extra_args += ["-drive", join(flash)]
    elif "bios" in given:
        sizes = [b.size for b in recording.blocks if b.name == "pc.bios"]
        if sizes:
            machine.files["bios"] = sizes[0]
        elif given["bios"] == "none":
            machine.extra_args += ["-bios", "none"]


#: Arguments of Panda() that the recording decides.
_DECIDED = {"arch", "mem", "qcow", "generic", "raw_monitor"}


def check_arguments(given: dict[str, Any]) -> None:
    """Refuse arguments of ``Panda.from_recording()`` that the recording decides.

    Raises:
        ValueError: there is one.
    """
    for name in sorted(_DECIDED & given.keys()):
        raise ValueError(
            f"from_recording({name}=...): the machine is the one that was recorded; leave "
            f"{name} out, or create a Panda() and call its run_replay()"
        )


def stand_ins(machine: Machine) -> tuple[list[str], list[Path]]:
    """Make the files that stand for others: words for QEMU, and what to delete later."""
    words: list[str] = []
    paths = []
    for option, size in machine.files.items():
        handle, name = tempfile.mkstemp(prefix="pandalite-")
        with open(handle, "wb") as file:
            file.truncate(size)
        paths.append(Path(name))
        words += [f"-{option}", name]
    return words, paths
