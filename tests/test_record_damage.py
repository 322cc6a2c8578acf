"""Damaged recordings are refused or stop with a typed error; none crashes or hangs.

The places are random. ``PANDALITE_DAMAGE`` is how many (60), ``PANDALITE_DAMAGE_SEED``
the seed (1); a failure names both.
"""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guest import SLOWER, boot, case_command, run_case

#: How many places, and the seed.
CASES = int(os.environ.get("PANDALITE_DAMAGE", "60"))
SEED = int(os.environ.get("PANDALITE_DAMAGE_SEED", "1"))
#: Cases in a process, and seconds for them all.
BATCH = 30
TIMEOUT = 600


# --- in the child processes ---


def case_record(path):
    panda = boot()

    @panda.queue_blocking
    def record():
        panda.record_cmd("cat /proc/uptime; ls -l / | head -3", recording_name=path)
        panda.end_analysis()

    panda.run()
    return panda.record_report().instructions


def damaged(whole: bytes, numbers: random.Random) -> tuple[str, bytes]:
    """The bytes of a file with something wrong, and what."""
    at = numbers.randrange(len(whole))
    if numbers.random() < 0.5:
        # Half of all places near the end: the log is small, and RAM is large.
        at = len(whole) - 1 - at % 65536
    size = numbers.choice([1, 7, 4096, 100000])
    kind = numbers.choice(["flip", "flip", "cut", "remove", "repeat", "zero", "move"])
    changed = bytearray(whole)
    if kind == "flip":
        changed[at] ^= 1 << numbers.randrange(8)
    elif kind == "cut":
        del changed[at:]
    elif kind == "remove":
        del changed[at : at + size]
    elif kind == "repeat":
        changed[at:at] = whole[at : at + size]
    elif kind == "zero":
        changed[at : at + size] = bytes(len(whole[at : at + size]))
    else:
        other = numbers.randrange(len(whole))
        changed[at : at + size] = whole[other : other + size]
    return f"{kind} at {at}", bytes(changed)


def mutated(whole: bytes, numbers: random.Random) -> tuple[str, bytes]:
    """Something wrong within a member, whose checksum is right again."""
    from recording_files import with_member

    path = os.environ["PANDALITE_DAMAGE_FILE"]
    members = list(members_of(path).items())
    # What the devices' state is loaded by is QEMU's.
    candidates = [i for i, (name, _) in enumerate(members) if name != "state"]
    logs = [i for i, (name, _) in enumerate(members) if name.startswith("log/")]
    index = numbers.choice(logs if numbers.random() < 0.7 else candidates)
    name, data = members[index]
    at = numbers.randrange(len(data))
    kind = numbers.choice(["flip", "byte", "cut", "remove", "repeat"])
    changed = bytearray(data)
    if kind == "flip":
        changed[at] ^= 1 << numbers.randrange(8)
    elif kind == "byte":
        changed[at] = numbers.randrange(256)
    elif kind == "cut":
        del changed[at:]
    elif kind == "remove":
        del changed[at : at + numbers.choice([1, 2, 50])]
    else:
        changed[at:at] = data[at : at + numbers.choice([1, 2, 50])]
    return f"{kind} at {at} of {name}", with_member(Path(path), name, bytes(changed))


@functools.cache
def members_of(path: str) -> dict[str, bytes]:
    from recording_files import unpack

    return unpack(Path(path))


def case_damage(path, directory, how, seed, count, instructions):
    """Replay damaged copies one after the other, in one machine."""
    from pandalite import Panda, RecordingError, ReplayDivergence
    from pandalite.recordings import read_recording

    os.environ["PANDALITE_DAMAGE_FILE"] = path
    whole = Path(path).read_bytes()
    digest = read_recording(path).ram_digest
    panda = Panda.from_recording(path)
    outcomes: Counter[str] = Counter()
    copy = Path(directory) / f"{how}-{seed}.plrec"
    for number in range(seed, seed + count):
        what, content = globals()[how](whole, random.Random(number))
        copy.write_bytes(content)
        print(f"case {number}: {what}", flush=True)
        try:
            panda.run_replay(copy)
        except ReplayDivergence as error:
            assert error.difference
            outcomes["diverged"] += 1
        except RecordingError as error:
            assert str(error)
            outcomes["refused"] += 1
        else:
            report = panda.record_report()
            if report.cut_off:
                assert report.instructions <= instructions
                outcomes["cut off"] += 1
            else:
                # What it does not need, or what means the same.
                assert report.instructions == instructions, what
                assert f"{report.ram_digest:016x}" == digest, what
                outcomes["harmless"] += 1
    copy.unlink()
    # The machine is as good as before.
    panda.run_replay(path)
    assert panda.record_report().instructions == instructions
    return outcomes


# --- the tests ---


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    path = tmp_path_factory.mktemp("damage") / "whole.plrec"
    instructions = run_case(case_record, str(path))
    yield path, instructions
    path.unlink()


def run_batches(how: str, recording: tuple[Path, int], count: int) -> Counter[str]:
    path, instructions = recording
    outcomes: Counter[str] = Counter()
    for seed in range(SEED * 100000, SEED * 100000 + count, BATCH):
        size = min(BATCH, SEED * 100000 + count - seed)
        args: list[Any] = [str(path), str(path.parent), how, seed, size, instructions]
        outcomes += Counter(run(args))
    return outcomes


def run(args: list[Any]) -> dict[str, int]:
    """A batch; its last line names the case that failed."""
    import json

    try:
        done = subprocess.run(
            case_command(case_damage, *args),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT * SLOWER,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode()
        raise AssertionError(f"a replay hangs: {said.splitlines()[-1:]}") from None
    marked = done.stdout.rsplit("@@result@@", 1)
    if done.returncode or len(marked) < 2:
        cases = [line for line in done.stdout.splitlines() if line.startswith("case ")]
        raise AssertionError(
            f"{cases[-1:]} of seed {SEED}: status {done.returncode}\n{done.stderr[-4000:]}"
        )
    found: dict[str, int] = json.loads(marked[1])
    return found


def test_damaged_files(recording: tuple[Path, int]) -> None:
    outcomes = run_batches("damaged", recording, CASES)
    print(outcomes, file=sys.stderr)
    assert sum(outcomes.values()) == CASES
    assert outcomes["refused"] + outcomes["diverged"] >= CASES // 2


def test_changed_members(recording: tuple[Path, int]) -> None:
    """The same where no checksum is wrong."""
    outcomes = run_batches("mutated", recording, CASES)
    print(outcomes, file=sys.stderr)
    assert sum(outcomes.values()) == CASES
    assert outcomes["refused"] + outcomes["diverged"] >= CASES // 2
