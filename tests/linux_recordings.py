"""Recordings of all Linux guests; with ``make test-guests``, which builds them.

The disk, the network, processes, signals, timers and random numbers, recorded in the
middle of a guest's life and from a snapshot on, and replayed in other processes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from guest import built, run_case
from linux_guests import MACHINES
from replays import record_commands, record_from_snapshot, replay
from test_record import WORK
from test_seek import WORK as LONGER
from test_seek import case_seek


@pytest.mark.parametrize("arch", MACHINES)
def test_replays_equal_the_recording(arch: str, tmp_path: Path) -> None:
    path = str(tmp_path / "work")
    recorded = run_case(record_commands, built(arch), path, WORK, timeout=400)
    assert recorded["instructions"] > 1_000_000
    for _ in range(2):
        assert run_case(replay, arch, path, timeout=400) == recorded


@pytest.mark.parametrize("arch", MACHINES)
def test_traces_are_equal(arch: str, tmp_path: Path) -> None:
    path = str(tmp_path / "traced")
    recorded = run_case(record_from_snapshot, built(arch), path, "ls -l /bin | md5sum")
    assert recorded["trace"][0] > 100_000
    for _ in range(3):
        assert run_case(replay, arch, path, True, timeout=400) == recorded


@pytest.mark.parametrize("arch", MACHINES)
def test_seek(arch: str, tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    recorded = run_case(record_commands, built(arch), path, LONGER, timeout=400)
    found = run_case(case_seek, arch, path, "2G", timeout=400)
    assert found["wrong"] == []
    assert found["first"] == found["again"] == found["after"] == recorded
