"""Run the measurements and print them as Markdown tables."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import cases, stock

#: Sizes that take about a second.
SIZES = {"shell loop": 40000, "sha256sum": 24_000_000}


#: Architectures to compare with stock QEMU.
AGAINST_STOCK = ("x86_64", "i386", "arm", "aarch64", "mips", "ppc64", "riscv64")


def built_guests() -> list[str]:
    """Names of the tiny guests of this checkout."""
    guests = Path(__file__).resolve().parent.parent / "pandalite" / "_lib" / "guests"
    return [p.parent.name for p in guests.glob("*/manifest.json")]


def child(name: str, *args: Any) -> Any:
    """Run a case in a process of its own."""
    # Byte code is what users have; a setting of the developer's must not spoil imports.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, json.dumps(args)],
        capture_output=True,
        text=True,
        env=env,
    )
    if done.returncode:
        sys.exit(f"{name}{args} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def against_stock(pairs: int, rounds: int) -> None:
    """Un-instrumented speed, A and B in turn."""
    print("\n| guest command, nothing registered | pandalite CPU s | stock QEMU CPU s | ratio |")
    print("|---|---|---|---|")
    for arch, command in [("x86_64", "sha256sum"), *((a, "shell loop") for a in AGAINST_STOCK)]:
        if arch not in built_guests():
            print(f"| {arch}: its guest is not built (make test-guests) | | | |", flush=True)
            continue
        emulator = str(stock.build(arch))
        size = SIZES[command]
        ours, theirs, ratios = [], [], []
        for _ in range(pairs):
            a = min(child("plain", command, size, rounds, arch))
            b = min(child("stock", command, size, rounds, emulator, arch))
            ours.append(a)
            theirs.append(b)
            ratios.append(a / b)
        print(
            f"| {arch}, {command} "
            f"| {statistics.median(ours):.3f} | {statistics.median(theirs):.3f} "
            f"| {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}) |",
            flush=True,
        )


def events(rounds: int) -> None:
    """Cost of events that reach a Python function."""
    print("\n| event, counting Python function | ns per event, best | median |")
    print("|---|---|---|")
    for kind in ("before_block_exec", "virt_mem_after_read", "virt_mem_after_write"):
        result = child("event_cost", kind, 150, rounds)
        print(f"| {kind} | {result['ns']:.0f} | {result['median']:.0f} |", flush=True)
    ratios = child("disabled_cost", SIZES["shell loop"], rounds)
    print("\n| guest CPU time, registered but disabled / nothing registered | ratio |")
    print("|---|---|")
    spread = f"{min(ratios):.3f}-{max(ratios):.3f}"
    print(f"| shell loop | {statistics.median(ratios):.3f} ({spread}) |", flush=True)


def filters(rounds: int) -> None:
    """Filters that let nothing pass."""
    print("\n| callback, filter that lets nothing pass | CPU time / without it |")
    print("|---|---|")
    for kind in ("before_block_exec", "virt_mem_after_read"):
        for which in cases.FILTERS:
            if which == "addr elsewhere" and kind == "before_block_exec":
                continue
            ratios = child("filtered_cost", kind, which, SIZES["shell loop"], rounds)
            spread = f"{min(ratios):.3f}-{max(ratios):.3f}"
            print(f"| {kind}, {which} | {statistics.median(ratios):.3f} ({spread}) |", flush=True)


def listeners(rounds: int) -> None:
    """Streams, counters and coverage."""
    print("\n| stream, counter, coverage | CPU time / without it | ns per event |")
    print("|---|---|---|")
    for which in cases.LISTENERS:
        r = child("listener_cost", which, SIZES["shell loop"], rounds)
        each = f"{r['ns']:.1f} (best {r['least_ns']:.1f})" if "ns" in r else ""
        spread = f"{r['least']:.3f}-{r['most']:.3f}"
        print(f"| {which} | {r['ratio']:.3f} ({spread}) | {each} |", flush=True)


def hooks(rounds: int) -> None:
    """Hooks that never act."""
    print("\n| guest command, 10,000 hooks that never act | CPU time / without | adding, s |")
    print("|---|---|---|")
    for load in ("shell loop", "200 programs"):
        for where in ("kernel", "user"):
            r = child("hooks_cost", load, where, rounds)
            ratios = r["ratios"]
            spread = f"{min(ratios):.3f}-{max(ratios):.3f}"
            print(
                f"| {load}, {r['hooks']} in the {where}'s code "
                f"| {statistics.median(ratios):.3f} ({spread}) | {r['adding']:.2f} |",
                flush=True,
            )


def introspection(rounds: int) -> None:
    """The guest's system: finding it, lists, who runs."""
    print("\n| guest | finding the kernel, s | all processes, ms | who runs, us | its name, us |")
    print("|---|---|---|---|---|")
    for arch in built_guests():
        r = child("os_cost", arch, 2000)
        print(
            f"| {arch} | {r['attach']:.3f} | {r['list'] * 1e3:.2f} (of {r['processes']}) "
            f"| {r['process'] * 1e6:.2f} | {r['name'] * 1e6:.2f} |",
            flush=True,
        )
    ratios = child("procname_cost", 20000, rounds)
    spread = f"{min(ratios):.3f}-{max(ratios):.3f}"
    print(f"\nprocname= of a process that is not there: {statistics.median(ratios):.3f} ({spread})")


def watched(title: str, case: str, watchers: tuple[str, ...], size: int, rounds: int) -> None:
    """A table of what watches a command, and what it costs."""
    print(f"\n| {title} |")
    print("|---|---|")
    for which in watchers:
        ratios = child(case, which, size, rounds)
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(f"| {which} | {statistics.median(ratios):.2f} ({spread}) |", flush=True)


def syscalls(rounds: int) -> None:
    """System calls that are watched."""
    title = "`dd bs=1`, watched by | CPU time / without it, median (range)"
    watched(title, "syscall_cost", cases.WATCHERS, 300000, rounds)


def os_events(rounds: int) -> None:
    """Events of the guest's system that are listened to."""
    title = "a shell starts programs, listened to by | CPU time / without, median (range)"
    watched(title, "os_event_cost", cases.OS_LISTENERS, 300, rounds)


def calls(rounds: int) -> None:
    """Cost of calls made in a callback."""
    print("\n| call in a callback | ns |")
    print("|---|---|")
    for name, ns in child("calls", rounds).items():
        print(f"| {name} | {ns:.0f} |", flush=True)


def start_up(rounds: int) -> None:
    """Import, construction, revert."""
    print("\n| start | ms |")
    print("|---|---|")
    for name, ms in child("start_up", rounds).items():
        print(f"| {name} | {ms:.1f} |", flush=True)


def second_start(rounds: int) -> None:
    """A new process, from the snapshot to the first answer of the shell."""
    print("\n| second start, whole process, to the first answer | wall s, best | worst |")
    print("|---|---|---|")
    for name in sorted(built_guests()):
        times = child("second_start", name, rounds)
        print(f"| {name} | {min(times):.2f} | {max(times):.2f} |", flush=True)


def recordings(rounds: int) -> None:
    """Tables of recordings and replays."""
    import tempfile

    from .recordings import COMMANDS, measure

    print(
        "\n| recorded command | live CPU s | recorded / live | replayed / live |"
        " replayed / live, wall | file MB | log bytes per 1,000 instructions | stall ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for arch in ("x86_64", "arm"):
        for command in COMMANDS:
            with tempfile.TemporaryDirectory() as folder:
                r = measure(command, rounds, folder, arch)

            def over_live(what: str, wall: str = "", r: dict[str, Any] = r) -> str:
                pairs = zip(r[what + wall], r["live" + wall])
                return f"{statistics.median(a / b for a, b in pairs):.2f}"

            print(
                f"| {arch}, {command} | {statistics.median(r['live']):.2f} "
                f"| {over_live('recorded')} | {over_live('replayed')} "
                f"| {over_live('replayed', '_wall')} | {r['size'] / 1e6:.1f} "
                f"| {r['log'] * 1000 / r['instructions']:.3f} | {r['stall'] * 1000:.0f} |",
                flush=True,
            )
    with tempfile.TemporaryDirectory() as folder:
        r = child("seeking", 180000, folder)
    print(
        f"\nSeek in a replay of {r['instructions']:.2e} instructions (first pass "
        f"{r['first']:.1f} s): median {statistics.median(r['times']):.2f} s, worst "
        f"{max(r['times']):.2f} s"
    )


def main() -> int:
    """Run a child's case, or everything."""
    if len(sys.argv) == 3:
        print(json.dumps(getattr(cases, sys.argv[1])(*json.loads(sys.argv[2]))))
        return 0
    if len(sys.argv) == 2 and sys.argv[1] == "recordings":
        recordings(7)
        return 0
    if len(sys.argv) == 2 and sys.argv[1] == "hooks":
        hooks(5)
        return 0
    if len(sys.argv) == 2 and sys.argv[1] == "introspection":
        introspection(5)
        return 0
    if len(sys.argv) == 2 and sys.argv[1] == "syscalls":
        syscalls(5)
        return 0
    if len(sys.argv) == 2 and sys.argv[1] == "os-events":
        os_events(5)
        return 0
    start_up(7)
    second_start(5)
    calls(7)
    events(5)
    filters(5)
    listeners(5)
    hooks(5)
    syscalls(5)
    introspection(5)
    os_events(5)
    against_stock(pairs=5, rounds=3)
    recordings(7)
    return 0


if __name__ == "__main__":
    sys.exit(main())
