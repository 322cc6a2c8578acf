"""Events of the guest's system on all Linux guests; with ``make test-guests``."""

from __future__ import annotations

from typing import Any

import pytest
from guest import boot, built, in_guest, run_case
from linux_guests import MACHINES
from test_os_events_guest import (
    case_memory_and_files,
    case_processes,
    case_signals,
    check_memory_and_files,
    check_processes,
    check_signals,
)


@pytest.fixture(params=MACHINES)
def arch(request: Any) -> str:
    return built(str(request.param))


def test_processes(arch: str) -> None:
    check_processes(run_case(case_processes, arch, timeout=300))


def test_memory_and_files(arch: str) -> None:
    check_memory_and_files(run_case(case_memory_and_files, arch, timeout=300))


def test_signals(arch: str) -> None:
    check_signals(run_case(case_signals, arch, timeout=300))


def case_names(arch: str) -> dict[str, int]:
    """Blocks in user mode, by the name of the process."""
    panda = boot(arch)

    def work() -> dict[str, int]:
        panda.run_serial_cmd("true")
        names = ("sleep", "nobody")
        counters = {n: panda.counter("block", procname=n, kernel=False) for n in names}
        panda.run_serial_cmd("sleep 1; sleep 0")
        return {name: counter.value for name, counter in counters.items()}

    return dict(in_guest(panda, work))


def test_names(arch: str) -> None:
    out = run_case(case_names, arch, timeout=300)
    assert out["sleep"] > 1000 and out["nobody"] == 0
