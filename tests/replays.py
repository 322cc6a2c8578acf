"""Make recordings of guests at work, and replay them; for tests and the soak."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

from guest import boot

#: Shell commands a guest can be recorded at; {n} is a small number.
COMMANDS = (
    "ls -l /bin | sort | md5sum",
    "i=0; while [ $i -lt {n}00 ]; do i=$((i+1)); done",
    "i=0; while [ $i -lt {n} ]; do /bin/busybox true; i=$((i+1)); done",
    "dd if=/dev/urandom bs=4k count={n} 2>/dev/null | md5sum",
    "cat /proc/interrupts; date; cat /proc/uptime",
    "sleep 0.{n}",
    "dd if=$DISK of=/dev/null bs=64k count={n} 2>/dev/null",
    "dd if=/dev/zero of=$DISK bs=4k seek={n} count={n} 2>/dev/null; sync",
    "ping -c 1 -W 1 10.0.2.2 > /dev/null",
    "(sleep 0.1; kill -9 $$) & sh -c 'kill -TERM $$'; wait",
    "mount -t tmpfs none /mnt; cp /bin/busybox /mnt; md5sum /mnt/busybox; umount /mnt",
    "dmesg | tail -{n}; ps | head -{n}",
    "for i in 1 2 3; do echo $i | sed s/1/2/ | grep 2; done",
    "trap : USR1; kill -USR1 $$; ulimit -a > /dev/null",
)

#: Finds a disk that may be written to.
FIND_DISK = "DISK=/dev/null; for d in /dev/sda /dev/vda /dev/mmcblk0; do [ -b $d ] && DISK=$d; done"


def report_of(panda: Any) -> dict[str, Any]:
    """The facts that a recording and its replays must agree in."""
    facts = panda.record_report()
    return {
        "instructions": facts.instructions,
        "crossings": facts.crossings,
        "ram_digest": facts.ram_digest,
    }


class Trace:
    """A digest of all blocks that are executed, in order."""

    def __init__(self, panda: Any) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.blocks = 0
        self.stream = panda.stream("block", fields=("pc",), on_batch=self._take)

    def _take(self, batch: Any) -> None:
        self._hash.update(batch.tobytes())
        self.blocks += len(batch)

    def result(self) -> list[Any]:
        """Number of blocks, and the digest."""
        return [self.blocks, self._hash.hexdigest()]


def record_commands(arch: str, path: str, commands: list[str]) -> dict[str, Any]:
    """Record commands in a guest's shell, from the middle of its life."""
    panda = boot(arch)

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        panda.run_serial_cmd(FIND_DISK)
        panda.record(path)
        for command in commands:
            panda.run_serial_cmd(command, timeout=100)
        panda.end_record()
        panda.end_analysis()

    panda.run()
    return report_of(panda)


def replay(arch: str, path: str, trace: bool = False) -> dict[str, Any]:
    """Replay it; what the facts of the replay are."""
    panda = boot(arch)
    traced = Trace(panda) if trace else None
    panda.run_replay(path)
    found = report_of(panda)
    if traced is not None:
        traced.stream.close()
        found["trace"] = traced.result()
    return found


def record_from_snapshot(arch: str, path: str, command: str) -> dict[str, Any]:
    """Record from a snapshot's first instruction on, and trace all blocks."""
    panda = boot(arch, extra_args=["-loadvm", "root"])
    traced: list[Trace] = []

    @panda.cb_after_machine_init
    def begin(cpu: Any) -> None:
        traced.append(Trace(panda))
        panda.record(path)

    @panda.queue_blocking
    def work() -> None:
        panda.run_serial_cmd(command, timeout=100)
        panda.end_analysis()

    panda.run()
    panda.end_record()
    found = report_of(panda)
    traced[0].stream.close()
    found["trace"] = traced[0].result()
    return found


def random_commands(rng: random.Random) -> list[str]:
    """Some of COMMANDS, in any order."""
    count = rng.randint(1, 4)
    return [c.replace("{n}", str(rng.randint(1, 9))) for c in rng.choices(COMMANDS, k=count)]


def size_of(path: str) -> int:
    """Bytes of a recording's file."""
    return Path(path).stat().st_size
