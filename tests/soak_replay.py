"""Record random work and replay it, for as long as it takes to trust it.

``make soak-replay`` runs it; not part of ``make test``. Each round takes an
architecture, some random commands and a length; records them in a process of its own,
and replays them in others, without and with a trace of all blocks, whose digests have
to be equal, as the digests of RAM at the ends are. The seed of a round is printed with
it: ``--seed N --rounds 1`` repeats its choices.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from guest import run_case  # noqa: E402
from replays import random_commands, record_commands, replay  # noqa: E402

from pandalite._bindings.arches import ARCHITECTURES  # noqa: E402


def one_round(seed: int, arches: list[str], folder: str) -> tuple[int, int]:
    """Record and replay once; instructions recorded and replayed."""
    rng = random.Random(seed)
    arch = rng.choice(arches)
    commands = random_commands(rng)
    traced = rng.random() < 0.3
    path = f"{folder}/{seed}"
    began = time.monotonic()
    recorded = run_case(record_commands, arch, path, commands, timeout=600)
    replays = [run_case(replay, arch, path, timeout=600) for _ in range(2)]
    if traced:
        traces = [run_case(replay, arch, path, True, timeout=900) for _ in range(2)]
        assert traces[0] == traces[1], f"traces differ: {traces}"
        assert {k: traces[0][k] for k in recorded} == recorded
        replays += traces
    for found in replays[:2]:
        assert found == recorded, f"{found} is not {recorded}"
    Path(path + ".plrec").unlink()
    instructions = recorded["instructions"]
    print(
        f"seed {seed} {arch}: {instructions} instructions, {len(replays)} replays equal, "
        f"{time.monotonic() - began:.0f} s",
        flush=True,
    )
    return instructions, instructions * len(replays)


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
    recorded = replayed = failed = rounds = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seed, options.seed + options.rounds):
            if time.monotonic() > end:
                break
            rounds += 1
            try:
                a, b = one_round(seed, arches, folder)
            except AssertionError as error:
                failed += 1
                print(f"seed {seed} FAILED: {error}", flush=True)
                continue
            recorded += a
            replayed += b
    print(
        f"{rounds} recordings, {failed} failed; {recorded:.3e} instructions recorded, "
        f"{replayed:.3e} replayed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
