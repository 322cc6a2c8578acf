"""The commands ``record``, ``replay``, ``info`` and ``verify`` of ``python -m pandalite``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence

from ..errors import PandaError
from .names import recording_path

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Run a command; returns the exit status: 0, 1 for a problem, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog=f"python -m pandalite {command}")
    run = _COMMANDS[command](parser)
    words, typed = _split(arguments) if command == "record" else (arguments, [])
    try:
        given = parser.parse_args(list(words))
        if command == "record":
            if not typed:
                parser.error("the following arguments are required: COMMAND")
            given.command = " ".join(typed)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    try:
        run(given)
    except (PandaError, ValueError, OSError) as error:
        return _fail(command, str(error))
    except KeyboardInterrupt:
        return _fail(command, "interrupted")
    return 0


def _fail(command: str, reason: str) -> int:
    """Say in one line why it did not work."""
    print(f"pandalite {command}: {' '.join(reason.split())}", file=sys.stderr)
    return 1


# --- record ---


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Our own words, up to NAME and its options, and those of the guest's command."""
    at = 0
    named = False
    while at < len(arguments):
        word = arguments[at]
        if word == "--":
            return arguments[:at], arguments[at + 1 :]
        if word.startswith("-"):
            at += 1 if "=" in word or word in ("-h", "--help") else 2
        elif named:
            break
        else:
            named = True
            at += 1
    return arguments[:at], arguments[at:]


def _record(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], None]:
    parser.description = "Record COMMAND, typed in a guest's shell, to NAME.plrec."
    parser.add_argument("name", metavar="NAME", help="file of the recording")
    parser.add_argument(
        "--generic", metavar="GUEST", default="x86_64", help="guest of the catalogue (x86_64)"
    )
    parser.add_argument(
        "--snapshot", metavar="NAME", default="root", help="snapshot to begin from (root)"
    )
    parser.usage = f"{parser.prog} [-h] NAME [--generic GUEST] [--snapshot NAME] COMMAND..."
    return _run_record


def _run_record(given: argparse.Namespace) -> None:
    from ..panda import Panda

    panda = Panda(generic=given.generic)
    said = []

    @panda.queue_blocking
    def record() -> None:
        said.append(
            panda.record_cmd(
                given.command,
                recording_name=given.name,
                snap_name=given.snapshot,
                ignore_errors=True,
            )
        )
        panda.end_analysis()

    panda.run()
    facts = panda.record_report()
    if said[0]:
        print(said[0])
    print(
        f"{recording_path(given.name)}: {facts.instructions} instructions, {facts.slices} slices, "
        f"{facts.crossings} calls of devices, {_megabytes(facts.file_size)}; the guest stood "
        f"still for {facts.stall * 1000:.0f} ms"
    )


# --- replay ---


def _replay(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], None]:
    parser.description = "Replay a recording; status 1 if it does not go as it was recorded."
    parser.add_argument("file", metavar="FILE", help="the recording, with or without .plrec")
    parser.add_argument(
        "--gdb",
        metavar="PORT",
        help="stop at the beginning, and let gdb debug it: a TCP port, 0 for any, or a path",
    )
    return _run_replay


def _run_replay(given: argparse.Namespace) -> None:
    from ..panda import Panda

    panda = Panda.from_recording(given.file)
    if given.gdb is not None:
        port = int(given.gdb) if given.gdb.isdigit() else given.gdb
        with panda.replay(given.file) as replay:
            replay.serve_gdb(port, on_listening=_say_where)
        return
    start = time.monotonic()
    panda.run_replay(given.file)
    seconds = time.monotonic() - start
    facts = panda.record_report()
    end = (
        "to where the recording was cut off; its registers and memory were compared on the way"
        if facts.cut_off
        else f"digest of RAM ok ({facts.ram_digest:016x})"
    )
    print(f"{facts.instructions} instructions in {seconds:.2f} s, {end}")


def _say_where(address: str) -> None:
    print(f"in gdb: target remote {address}", flush=True)


# --- info ---


def _info(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], None]:
    parser.description = "Say what a recording is of."
    parser.add_argument("file", metavar="FILE", help="the recording, with or without .plrec")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true", help="all facts, as JSON")
    what.add_argument("--devices", action="store_true", help="what each device did")
    what.add_argument("--log", action="store_true", help="all entries of the log")
    return _run_info


def _run_info(given: argparse.Namespace) -> None:
    from .facts import read_recording

    if given.devices:
        _print_devices(given.file)
        return
    if given.log:
        _print_log(given.file)
        return
    recording = read_recording(given.file)
    if given.json:
        print(json.dumps(recording.as_dict(), indent=2))
        return
    major, minor = recording.version
    state = "complete" if recording.complete else "cut off: it can be replayed up to its end"
    facts = {
        "recording": f"{recording.path}, format {major}.{minor}, {state}",
        "id": recording.id,
        "created": recording.created,
        "machine": f"{recording.arch} {recording.machine}, CPU {recording.cpu}, "
        f"{recording.ram_size >> 20} MB of RAM",
        "made by": f"pandalite {recording.core_version}, QEMU {recording.qemu_version}",
        "length": f"{recording.instructions} instructions, {recording.slices} slices, "
        f"{recording.chunks} chunks",
        "size": f"{_megabytes(recording.file_size)}: RAM {_megabytes(recording.ram_bytes)}, "
        f"devices {_megabytes(recording.state_bytes)}, log {_megabytes(recording.log_bytes)}",
        "arguments": " ".join(recording.args[1:]),
    }
    for name, text in facts.items():
        print(f"{name + ':':11}{text}")


def _print_devices(file: str) -> None:
    """A table: accesses of the CPU, writes to memory, transfers."""
    from .entries import devices

    print("    reads   writes | to memory        bytes |  from guest  to guest (bytes) | device")
    for d in devices(file):
        print(
            f"{d.reads:9}{d.writes:9} |{d.memory_writes:10}{d.memory_bytes:13} |"
            f"{d.sent_bytes:12}{d.received_bytes:18} | {d.name or 'not known'}"
        )


def _print_log(file: str) -> None:
    """A line for each entry: instructions, kind, device, and the rest."""
    from .entries import read_log

    for entry in read_log(file):
        facts = " ".join(f"{key}={_short(value)}" for key, value in entry.facts.items())
        device = f" {entry.device}" if entry.device else ""
        print(f"{entry.instructions:>12} {entry.kind:6}{device} {facts}".rstrip())


def _short(value: object) -> str:
    if isinstance(value, bytes):
        more = "..." if len(value) > 16 else ""
        return f"{len(value)}:{value[:16].hex()}{more}"
    return f"{value:#x}" if isinstance(value, int) else repr(value) if value == "" else str(value)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


# --- verify ---


def _verify(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], None]:
    parser.description = "Check a recording's file from its first byte to its last."
    parser.add_argument("file", metavar="FILE", help="the recording, with or without .plrec")
    return _run_verify


def _run_verify(given: argparse.Namespace) -> None:
    from .check import verify

    found = verify(given.file)
    recording = found.recording
    end = "" if recording.complete else "; it was cut off there"
    print(
        f"{recording.path} is as it was written: {found.members} members, {found.pages} pages of "
        f"RAM, {found.slices} slices, {found.crossings} calls of devices, "
        f"{recording.instructions} instructions{end}"
    )


_COMMANDS = {"record": _record, "replay": _replay, "info": _info, "verify": _verify}
