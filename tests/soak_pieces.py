"""What the soak of recordings does in its processes: record pieces of a life, and replay them.

All is decided by a plan, which :func:`plan_of` makes of a seed.
"""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path
from typing import Any

from guest import boot
from pages import serve
from replays import FIND_DISK, Trace, random_commands, report_of

from pandalite.recordings import read_log

#: Work besides that of ``replays.COMMANDS``.
MORE = (
    "wget -q -O - http://10.0.2.2:{port}/{n}0000 | md5sum",
    "wget -q -O /dev/null http://10.0.2.2:{port}/{n}000000",
    "for e in /sys/class/net/eth*; do ifconfig ${e##*/} | grep X; done; ping -c 2 -W 1 10.0.2.2",
    "for s in 8 9; do ping -c 1 -W 1 -s {n}00 10.0.$s.2; done",
    "for d in /dev/[svn]d[ab] /dev/vd[ab]; do [ -b $d ] && head -c {n}00k $d | md5sum; done",
    "cat /proc/self/maps /proc/meminfo; uname -a; od -An -N{n}0 /dev/random",
)

#: So many entries of a log are looked at for calls to devices.
CALLS_MAX = 50_000

#: Devices besides the guest's own, by the buses of its machine.
PCI = (
    ("-netdev", "user,id=n8,net=10.0.8.0/24", "-device", "e1000,netdev=n8,romfile="),
    ("-netdev", "user,id=n9,net=10.0.9.0/24", "-device", "virtio-net-pci,netdev=n9,romfile="),
    ("-device", "virtio-rng-pci"),
    ("-drive", "if=none,id=d8,format=raw,file={image}", "-device", "virtio-blk-pci,drive=d8"),
    ("-device", "pcnet"),
    ("-device", "rtl8139"),
    ("-device", "virtio-serial-pci"),
)
#: Machines of which one was seen to take such devices.
WITH_PCI = ("x86_64", "i386", "arm", "aarch64", "riscv64", "mips", "mipsel", "mips64", "mips64el")


def plan_of(seed: int, arch: str) -> dict[str, Any]:
    """What a seed stands for: devices, and pieces with their commands and moments."""
    rng = random.Random(f"{seed} {arch}")
    devices: list[str] = []
    if arch in WITH_PCI and rng.random() < 0.2:
        for group in rng.sample(PCI, k=rng.randint(1, 3)):
            devices += group
    pieces = []
    for _ in range(rng.randint(1, 6)):
        commands = random_commands(rng)
        commands += [c.replace("{n}", str(rng.randint(1, 9))) for c in rng.choices(MORE, k=1)]
        rng.shuffle(commands)
        piece: dict[str, Any] = {"commands": commands[: rng.randint(1, 3)]}
        # Seconds from the typing of the commands to the begin, and from there to the end.
        piece["begin"] = rng.choice((0, 0, rng.uniform(0, 0.5)))
        piece["length"] = rng.choice((None, None, rng.uniform(0, 1)))
        piece["traced"] = rng.random() < 0.3
        piece["complete"] = rng.random() < 0.2
        pieces.append(piece)
    return {"seed": seed, "devices": devices, "pieces": pieces}


def page(path: str) -> bytes:
    """As many bytes as the path says."""
    size = int(path[1:])
    return random.Random(size).randbytes(size)


def record_pieces(arch: str, folder: str, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Record them, one after the other in one life of the guest; the facts of each."""
    image = Path(folder) / "disk"
    image.write_bytes(random.Random(plan["seed"]).randbytes(1 << 20) * 4)
    devices = [word.replace("{image}", str(image)) for word in plan["devices"]]
    panda = boot(arch, extra_args=devices or None)
    found = []

    def record(number: int, piece: dict[str, Any], port: int) -> dict[str, Any]:
        panda.libpanda.panda_record_complete(piece["complete"])
        line = "; ".join(piece["commands"]).replace("{port}", str(port))
        panda.serial_console.sendline(line.encode())
        time.sleep(piece["begin"])
        traced = None
        if piece["traced"]:
            panda.run_monitor_cmd("stop")
            traced = Trace(panda)
        panda.record(f"{folder}/{number}")
        if traced is not None:
            panda.run_monitor_cmd("cont")
        if piece["length"] is None:
            panda.serial_console.expect(timeout=300)
        else:
            time.sleep(piece["length"])
        if traced is not None:
            panda.run_monitor_cmd("stop")
        panda.end_record()
        facts = report_of(panda)
        if traced is not None:
            traced.stream.close()
            facts["trace"] = traced.result()
            panda.run_monitor_cmd("cont")
        if piece["length"] is not None:
            panda.serial_console.expect(timeout=300)
        return facts

    port = serve(page)

    @panda.queue_blocking
    def work() -> None:
        if devices:
            panda.serial_console.expect(timeout=300)
            # Any of them may be the one in either network.
            for net, device in itertools.product((8, 9), (1, 2, 3)):
                panda.run_serial_cmd(
                    f"[ -e /sys/class/net/eth{device} ] && "
                    f"ifconfig eth{device}:{net} 10.0.{net}.15{device}",
                    timeout=60,
                )
        else:
            panda.revert_sync("root")
        panda.run_serial_cmd(FIND_DISK, timeout=60)
        for number, piece in enumerate(plan["pieces"]):
            found.append(record(number, piece, port))
        panda.end_analysis()

    panda.run()
    return found


def replay_alone(path: str) -> dict[str, Any]:
    """Replay with nothing but the file, and nothing that watches."""
    from pandalite import Panda

    panda = Panda.from_recording(path)
    panda.run_replay(path)
    return report_of(panda)


def replay_traced(path: str) -> dict[str, Any]:
    """Replay with a trace of all blocks."""
    from pandalite import Panda

    panda = Panda.from_recording(path)
    traced = Trace(panda)
    panda.run_replay(path)
    found = report_of(panda)
    traced.stream.close()
    return {**found, "trace": traced.result()}


def replay_disturbed(path: str, seed: int) -> dict[str, Any]:
    """Replay with callbacks and streams that come and go, forward and back."""
    from pandalite import Panda

    panda = Panda.from_recording(path)
    rng = random.Random(seed)
    watching: list[Any] = []
    calls = [entry.instructions for entry in itertools.islice(read_log(path), CALLS_MAX)]
    with panda.replay(path, checkpoints="300M") as replay:
        places = [rng.randrange(replay.total + 1) for _ in range(8)]
        # In front of what crosses the border to devices, or in its block.
        places += [max(0, rng.choice(calls) - rng.randrange(4)) for _ in range(8) if calls]
        for place in sorted(places):
            if rng.random() < 0.3:
                replay.seek(rng.randrange(replay.total + 1))
            replay.seek(place)
            while watching and rng.random() < 0.5:
                watching.pop(rng.randrange(len(watching)))()
            watching.append(_watch(panda, rng))
            replay.run_to(min(replay.total, place + rng.randrange(2_000_000)))
        for end in watching:
            end()
        replay.run()
        return report_of(panda)


def _watch(panda: Any, rng: random.Random) -> Any:
    """Begin to watch something; what ends it."""
    name = f"watch{rng.random()}"
    what = rng.choice(("block", "insn", "read", "write", "stream", "counter", "coverage"))
    pages = rng.randrange(1 << 20) << 12
    if what == "block":
        panda.cb_before_block_exec(name=name, every=97)(lambda cpu, tb: None)
    elif what == "insn":
        panda.cb_insn_translate(name=name + "t")(lambda cpu, pc: pc % 61 == 0)
        panda.cb_insn_exec(name=name)(lambda cpu, pc: 0)
    elif what == "read":
        panda.cb_virt_mem_after_read(name=name, every=211)(lambda cpu, pc, at, size, data: None)
    elif what == "write":
        panda.cb_phys_mem_after_write(name=name, addr=(pages, pages + (1 << 20)))(
            lambda cpu, pc, at, size, data: None
        )
    elif what == "stream":
        return panda.stream(rng.choice(("block", "mem", "insn")), on_batch=len).close
    elif what == "counter":
        return panda.counter(rng.choice(("block", "insn"))).close
    else:
        return panda.coverage().close

    def end() -> None:
        panda.delete_callback(name)
        if what == "insn":
            panda.delete_callback(name + "t")

    return end
