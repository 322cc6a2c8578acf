"""Registers of a running guest; the guests are in registers_child.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import registers_child

from pandalite._bindings import loader

CHILD = Path(__file__).with_name("registers_child.py")

#: Far above what any scenario takes; a hang must not stop the suite.
TIMEOUT = 180

#: x86_64 must always be there; i386 is tested where it is built.
ARCHES = ["x86_64", *(name for name in loader.available() if name == "i386")]


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("scenario", registers_child.SCENARIOS)
def test_scenario(scenario: str, arch: str) -> None:
    done = subprocess.run(
        [sys.executable, str(CHILD), scenario, arch],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=CHILD.parent.parent,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert done.stdout.endswith("passed\n"), output
