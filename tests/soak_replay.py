"""Record random work and replay it, for as long as it takes to trust it.

``make soak-replay`` runs it; not part of ``make test``. Each round takes an
architecture, some devices, and makes up to six recordings in one life of the guest: of
random commands, from random moments to random moments, some traced or complete. Each is
replayed in processes of its own: with the file alone; with a trace of all blocks, twice,
whose digests have to be equal, to that taken while recording too; and with callbacks and streams
that come and go while it is sought forward and back. Instructions, crossings and the
digest of RAM have to be equal always. The seed of a round is printed with it:
``--seed N --rounds 1 --arch A`` repeats its choices.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from guest import run_case  # noqa: E402
from soak_pieces import (  # noqa: E402
    plan_of,
    record_pieces,
    replay_alone,
    replay_disturbed,
    replay_traced,
)

from pandalite._bindings.arches import ARCHITECTURES  # noqa: E402

#: Seconds a process may take.
TIMEOUT = 1500

#: Most instructions of a replay with callbacks in Python.
DISTURBED_MAX = 3_000_000_000


def replays_of(path: str, recorded: dict[str, Any], seed: int) -> int:
    """Replay a recording in all ways; how many times it was."""
    facts = {k: v for k, v in recorded.items() if k != "trace"}
    found = run_case(replay_alone, path, timeout=TIMEOUT)
    assert found == facts, f"{path}: {found} is not {facts}"
    traces = [run_case(replay_traced, path, timeout=TIMEOUT) for _ in range(2)]
    assert traces[0] == traces[1], f"{path}: traces differ: {traces}"
    for key, value in recorded.items():
        assert traces[0][key] == value, f"{path}: {traces[0]} is not {recorded}"
    if recorded["instructions"] > DISTURBED_MAX:
        return 3
    found = run_case(replay_disturbed, path, seed, timeout=TIMEOUT)
    assert found == facts, f"{path}, disturbed: {found} is not {facts}"
    return 4


def one_round(seed: int, arches: list[str], folder: str) -> tuple[int, int, int]:
    """Record and replay; recordings, instructions recorded and replayed."""
    arch = random.Random(seed).choice(arches)
    plan = plan_of(seed, arch)
    began = time.monotonic()
    recordings = run_case(record_pieces, arch, folder, plan, timeout=TIMEOUT)
    recorded = replayed = 0
    for number, facts in enumerate(recordings):
        path = f"{folder}/{number}"
        recorded += facts["instructions"]
        replayed += facts["instructions"] * replays_of(path, facts, seed)
        Path(path + ".plrec").unlink()
    print(
        f"seed {seed} {arch}{' with ' + ' '.join(plan['devices']) if plan['devices'] else ''}: "
        f"{len(recordings)} recordings, {recorded} instructions, all replays equal, "
        f"{time.monotonic() - began:.0f} s",
        flush=True,
    )
    return len(recordings), recorded, replayed


def main() -> int:
    """Run rounds until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES)
    options = parser.parse_args()
    arches = options.arch or list(ARCHITECTURES)
    end = time.monotonic() + options.minutes * 60
    recordings = recorded = replayed = failed = 0
    for seed in range(options.seed, options.seed + options.rounds):
        if time.monotonic() > end:
            break
        with tempfile.TemporaryDirectory() as folder:
            try:
                made, a, b = one_round(seed, arches, folder)
            except (AssertionError, OSError) as error:
                failed += 1
                print(f"seed {seed} FAILED: {error}", flush=True)
                continue
        recordings += made
        recorded += a
        replayed += b
    print(
        f"{recordings} recordings, {failed} rounds failed; {recorded:.3e} instructions "
        f"recorded, {replayed:.3e} replayed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
