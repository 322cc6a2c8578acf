"""Events of the guest's system on all Linux guests; with ``make test-guests``."""

from __future__ import annotations

from typing import Any

import pytest
from guest import boot, built, in_guest, run_case
from linux_guests import MACHINES
from linux_kernels import KERNELS, image_of, on_kernel
from test_os_events_guest import (
    case_memory_and_files,
    case_processes,
    case_signals,
    check_memory_and_files,
    check_processes,
    check_signals,
    see_memory_and_files,
    see_processes,
    see_signals,
)

from pandalite.errors import IntrospectionError


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


def case_kernel(name: str, image: str) -> list[Any]:
    """The same on another kernel than the guest's own; or why it cannot be."""

    def look(panda: Any) -> list[Any]:
        return [see_processes(panda), see_memory_and_files(panda), see_signals(panda)]

    try:
        return list(on_kernel(name, image, look))
    except IntrospectionError as error:
        return [str(error)]


@pytest.mark.parametrize("name", KERNELS)
def test_kernels(name: str) -> None:
    built(KERNELS[name].arch)
    found = run_case(case_kernel, name, str(image_of(KERNELS[name])), timeout=900)
    if len(found) == 1 and "table of symbols was not" in found[0]:
        pytest.skip(f"{name}: {found[0]}")
    processes, memory_and_files, signals = found
    check_processes(processes)
    check_memory_and_files(memory_and_files)
    check_signals(signals)
