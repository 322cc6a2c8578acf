"""What recordings and replays cost: live, recorded and replayed in turn.

The speed of a shared machine drifts, so three processes do the same command by
turns, and each figure is over that of its neighbour. None has to translate code
any more; starts, snapshots and loading them are no part of it.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .cases import cpu_seconds

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from pages import serve

COMMANDS = {
    "shell loop": "i=0; while [ $i -lt 15000 ]; do i=$((i+1)); done",
    "300 forks and execs": "i=0; while [ $i -lt 300 ]; do /bin/busybox true; i=$((i+1)); done",
    "sha256 of 64 MB from the disk": "sha256sum {disk}",
    "download of 50 MB": "wget -q -O /dev/null http://10.0.2.2:{port}/f",
    "sleep 3": "sleep 3",
}
#: So that the snapshot at the start is compressed.
SETTLED = 4


@functools.cache
def _port() -> int:
    """Where 50 MB are served."""
    data = os.urandom(50_000_000)
    return serve(lambda path: data)


def measure(command: str, rounds: int, folder: str, arch: str) -> dict[str, Any]:
    """CPU and wall seconds of each turn, by what was done, and facts of the recording."""
    disk = {"arm": "/dev/vda", "aarch64": "/dev/vda"}.get(arch, "/dev/sda")
    line = COMMANDS[command].format(disk=disk, port=_port())
    path = f"{folder}/replayed"
    facts = _make(arch, line, path, rounds)
    with ExitStack() as stack:
        turns = {
            "live": _Turns(stack, "guest", arch, line, None),
            "recorded": _Turns(stack, "guest", arch, line, f"{folder}/recorded"),
            "replayed": _Turns(stack, "replay", arch, path, facts["places"]),
        }
        found: dict[str, Any] = {f"{name}{kind}": [] for name in turns for kind in ("", "_wall")}
        for _ in range(rounds):
            for name, one in turns.items():
                cpu, wall = one.turn()
                found[name].append(cpu)
                found[f"{name}_wall"].append(wall)
    return {**found, **facts}


class _Turns:
    """A process that does its work once for each line it is given."""

    def __init__(self, stack: ExitStack, role: str, *args: Any) -> None:
        command = [sys.executable, "-m", "bench.recordings", role, json.dumps(args)]
        self._process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        self._answer()

    def _answer(self) -> list[float]:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("["):
                return list(json.loads(line))
        sys.exit("a process of the measurement failed")

    def turn(self) -> tuple[float, float]:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        cpu, wall = self._answer()
        return cpu, wall


def _make(arch: str, line: str, path: str, rounds: int) -> dict[str, Any]:
    """Record the command many times: between which places it ran, and what the file is."""
    process = subprocess.run(
        [sys.executable, "-m", "bench.recordings", "make", json.dumps([arch, line, path, rounds])],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    facts = dict(json.loads(process.stdout.splitlines()[-1]))
    with zipfile.ZipFile(f"{path}.plrec") as archive:
        members = archive.infolist()
    facts["log"] = sum(i.compress_size for i in members if i.filename.startswith("log/"))
    return facts


# --- what the processes do ---


def make(arch: str, line: str, path: str, rounds: int) -> None:
    """Record, and tell of the recording."""
    from pandalite import Panda

    panda = Panda(generic=arch)
    facts: dict[str, Any] = {"places": []}

    @panda.queue_blocking
    def body() -> None:
        panda.revert_sync("root")
        panda.run_serial_cmd(line, timeout=600)
        panda.record(path)
        for _ in range(rounds + 1):
            panda.run_serial_cmd(line, timeout=600)
            facts["places"].append(panda.rr_get_guest_instr_count())
        panda.end_record()
        report = panda.record_report()
        facts.update(stall=report.stall, instructions=report.instructions, size=report.file_size)
        panda.end_analysis()

    panda.run()
    print(json.dumps(facts), flush=True)


def guest(arch: str, line: str, path: str | None) -> None:
    """Run the command at each turn, perhaps while a recording is made."""
    from pandalite import Panda

    panda = Panda(generic=arch)

    @panda.queue_blocking
    def body() -> None:
        panda.revert_sync("root")
        panda.run_serial_cmd(line, timeout=600)
        if path:
            panda.record(path)
            time.sleep(SETTLED)
        panda.run_serial_cmd(line, timeout=600)
        _by_turns(lambda: panda.run_serial_cmd(line, timeout=600))
        if path:
            panda.end_record()
        panda.end_analysis()

    panda.run()


def replay(arch: str, path: str, places: list[int]) -> None:
    """Replay the command once more at each turn."""
    from pandalite import Panda

    with Panda(generic=arch).replay(path, checkpoints=0) as replayed:
        rest = iter(places)
        replayed.run_to(next(rest))
        _by_turns(lambda: replayed.run_to(next(rest)))


def _by_turns(work: Callable[[], Any]) -> None:
    print("[]", flush=True)
    while sys.stdin.readline():
        cpu, wall = cpu_seconds(), time.monotonic()
        work()
        print(json.dumps([cpu_seconds() - cpu, time.monotonic() - wall]), flush=True)


if __name__ == "__main__":
    {"make": make, "guest": guest, "replay": replay}[sys.argv[1]](*json.loads(sys.argv[2]))
