"""A replay is left, and the machine lives on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from guest import boot, run_case

from pandalite import StateError
from pandalite.recordings import read_log, read_recording, verify

#: Finds the disk, and writes to it, to a file and to a variable of the shell.
BEFORE = (
    "D=/dev/sda; [ -b /dev/vda ] && D=/dev/vda; echo hello > /tmp/before; x=41; "
    "echo on the disk | dd of=$D bs=512 seek=4100 conv=sync 2>/dev/null; sync; sleep 0.5"
)
AFTER = "sleep 0.3; echo later > /tmp/after; x=99; sleep 0.5"


def case_record(arch: str, path: str, complete: bool) -> None:
    panda = boot(arch)

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        if complete:
            panda.set_complete_rr_snapshot()
        panda.record(path)
        panda.run_serial_cmd(BEFORE, timeout=100)
        panda.run_serial_cmd(AFTER, timeout=100)
        panda.end_record()
        panda.end_analysis()

    panda.run()


def between(path: str) -> int:
    """A place after the first command, and before the second one was typed."""
    typed = b""
    for entry in read_log(path):
        if entry.kind == "serial":
            # It comes in pieces, of whatever size.
            typed += entry.facts["bytes"]
            if b"sleep 0.3" in typed:
                return entry.instructions
    raise AssertionError(typed)


def revert(panda: Any) -> None:
    """Have the disk as it was when the recording began."""

    @panda.queue_blocking
    def body() -> None:
        panda.revert_sync("root")
        panda.end_analysis()

    panda.run()


def case_live(arch: str, path: str) -> dict[str, Any]:
    panda = boot(arch)
    revert(panda)
    found: dict[str, Any] = {}
    with panda.replay(path) as replay:
        replay.run_to(between(path))
        found["here"] = replay.instructions
        found["live"] = replay.go_live()

    @panda.queue_blocking
    def work() -> None:
        # Its shell waits for the second command, which was not typed yet.
        panda.run_serial_cmd("", timeout=60)
        found["files"] = panda.run_serial_cmd("ls /tmp; echo $x", timeout=60)
        found["disk"] = panda.run_serial_cmd(
            "dd if=$D bs=512 skip=4100 count=1 2>/dev/null | head -1", timeout=60
        )
        found["network"] = panda.run_serial_cmd("ping -c 1 -W 5 10.0.2.2", timeout=60)
        found["clock"] = panda.run_serial_cmd("sleep 0.2; echo awake", timeout=60)
        panda.end_analysis()

    panda.run()
    # It can replay again, and again, and live on.
    for _ in range(2):
        panda.run_replay(path)
    found["again"] = panda.record_report().instructions
    revert(panda)
    return found


@pytest.mark.parametrize("arch", ("x86_64", "arm"))
def test_go_live(arch: str, tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    run_case(case_record, arch, path, True)
    facts = read_recording(path)
    assert facts.devices
    assert verify(path).recording == facts
    found = run_case(case_live, arch, path)
    assert 0 < found["live"] <= found["here"]
    assert found["files"].split() == ["before", "41"]
    assert found["disk"] == "on the disk"
    assert " 0% packet loss" in found["network"]
    assert found["clock"] == "awake"
    assert found["again"] == facts.instructions


def case_refused(path: str, how: str) -> str:
    from pandalite import Panda

    panda = Panda.from_recording(path) if how == "no disk" else boot("x86_64")
    if how != "no disk":
        revert(panda)
    if how == "other disk":

        @panda.queue_blocking
        def write() -> None:
            panda.run_serial_cmd("echo x | dd of=/dev/sda bs=512 seek=3 conv=sync; sync")
            panda.end_analysis()

        panda.run()
    with panda.replay(path) as replay:
        replay.run_to(0 if how == "begin" else replay.total // 2)
        try:
            replay.go_live()
        except StateError as error:
            return str(error)
    return ""


def test_refused(tmp_path: Path) -> None:
    complete, plain = str(tmp_path / "complete"), str(tmp_path / "plain")
    run_case(case_record, "x86_64", complete, True)
    run_case(case_record, "x86_64", plain, False)
    assert not read_recording(plain).devices
    assert "set_complete_rr_snapshot" in run_case(case_refused, plain, "plain")
    assert "is not the one that was recorded" in run_case(case_refused, complete, "no disk")
    assert "is not the one that was recorded" in run_case(case_refused, complete, "other disk")
    assert "not recorded before this place" in run_case(case_refused, complete, "begin")
