"""copy_to_guest against a machine that records, and whose "guest" is a real shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest

from pandalite import copy_to_guest as module
from pandalite.copy_to_guest import copy_to_guest
from pandalite.errors import ImageError, MachineError, TimeoutExpired


class Machine:
    """Runs the guest's commands in a host directory; mounting is faked."""

    cdrom: str | None = None

    def __init__(self, root: Path, source: Path, mount_after: int = 1) -> None:
        self.root, self.source = root, source
        self.mount_after = mount_after
        self.commands: list[str] = []
        self.monitor: list[str] = []
        self.answers: dict[str, list[str]] = {}
        self.timeouts: set[float | None] = set()
        self.broken = ""
        self.image: bytes = b""

    def run_serial_cmd(self, cmd: str, *, timeout: float | None = 30) -> str | None:
        self.commands.append(cmd)
        self.timeouts.add(timeout)
        if self.broken and self.broken in cmd:
            return f"{self.broken}: broken"
        if "mount -t iso9660" in cmd:
            self.mount_after -= 1
            if self.mount_after:
                return "mount: no medium"
            quoted = cmd.split("-o ro $d ")[1].split(" && m=1")[0]
            mounted = self.root / shlex.split(quoted)[0]
            subprocess.run(["cp", "-a", f"{self.source}/.", str(mounted)], check=True)
            return "mount_ok"
        if "umount" in cmd:
            return ""
        run = subprocess.run(
            ["sh", "-c", cmd], cwd=self.root, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return run.stdout.rstrip("\n")

    def run_monitor_cmd(self, cmd: str) -> str | None:
        self.monitor.append(cmd)
        if cmd.startswith("change"):
            name = re.sub(r"\\(.)", r"\1", cmd.split(" ", 2)[2][1:-1])
            self.image = Path(name).read_bytes()
        answers = self.answers.get(cmd.split()[0], [])
        return answers.pop(0) if answers else ""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(module, "_MOUNT_DELAY", 0.0)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    source = tmp_path / 'it\'s a "dir" $HOME'
    source.mkdir()
    (source / "data").write_text("data")
    (source / "setup.sh").write_text('#!/bin/sh\necho "ran $0"\n')
    (source / "setup.sh").chmod(0o755)
    root = tmp_path / "guest"
    root.mkdir()
    return Machine(root, source)


def test_all_goes_well(machine: Machine, tmp_path: Path) -> None:
    machine.mount_after = 3
    output = copy_to_guest(machine, machine.source, timeout=7)
    name = machine.source.name
    assert output == f"ran ./{name}/setup.sh"
    assert (machine.root / name / "data").read_text() == "data"
    assert machine.image[32769:32774] == b"CD001"
    assert machine.monitor[0].startswith('change ide1-cd0 "')
    assert machine.monitor[-1] == "eject -f ide1-cd0"
    assert any("umount" in command for command in machine.commands)
    assert machine.timeouts == {7}
    assert os.listdir(tmp_path / "tmp") == [], "no temporary image is left"


def test_options(machine: Machine, tmp_path: Path) -> None:
    kept = tmp_path / 'kept "x" \\.iso'
    machine.cdrom = "cd7"
    (machine.source / "setup.sh").chmod(0o644)
    assert copy_to_guest(machine, machine.source, kept) is not None  # run by sh
    assert kept.exists() and machine.image == kept.read_bytes()
    assert machine.monitor[-1] == "eject -f cd7"
    machine.mount_after = 1
    assert copy_to_guest(machine, machine.source, setup_script="none", cdrom="cd8") is None
    assert machine.monitor[-1] == "eject -f cd8"


def test_absolute_paths(machine: Machine) -> None:
    machine.broken = "mkdir"
    with pytest.raises(RuntimeError, match="mkdir: broken"):
        copy_to_guest(machine, machine.source, absolute_paths=True)
    assert str(machine.source.parent) in machine.commands[0]
    assert machine.monitor == []


def test_host_errors(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        copy_to_guest(machine, tmp_path / "missing")
    assert machine.commands == [] and os.listdir(tmp_path / "tmp") == []


@pytest.mark.parametrize("what", ["mount -t", "cp -a"])
def test_guest_errors_still_clean_up(machine: Machine, tmp_path: Path, what: str) -> None:
    machine.broken = what
    with pytest.raises(RuntimeError, match=f"{what}: broken"):
        copy_to_guest(machine, machine.source)
    assert machine.monitor[-1] == "eject -f ide1-cd0"
    assert os.listdir(tmp_path / "tmp") == []


def test_no_such_drive(machine: Machine) -> None:
    machine.answers = {
        "change": ["Error: Device 'ide1-cd0' not found\r\n"],
        "info": ["cd5: [not inserted]\n    Removable device: not locked\n\nhd0: x.qcow2\n    a: b"],
    }
    with pytest.raises(MachineError, match=r"'ide1-cd0' not found.*one of: cd5$"):
        copy_to_guest(machine, machine.source)


def test_locked_drive_is_opened(machine: Machine) -> None:
    machine.answers = {"change": ["Error: Device 'ide1-cd0' is locked and force was not specified"]}
    copy_to_guest(machine, machine.source)
    assert [command.split()[0] for command in machine.monitor[:3]] == ["change", "eject", "change"]


def test_timeout_is_not_hidden_by_cleaning_up(machine: Machine) -> None:
    def out_of_time(cmd: str, *, timeout: float | None = 30) -> str | None:
        if "mkdir" in cmd:
            return "mkdir_ok"
        raise TimeoutExpired(f"no prompt after {cmd}")

    machine.run_serial_cmd = out_of_time  # type: ignore[method-assign]
    with pytest.raises(TimeoutExpired, match="mount"):
        copy_to_guest(machine, machine.source)


def test_aborted_run(machine: Machine) -> None:
    machine.run_serial_cmd = lambda cmd, *, timeout=30: None  # type: ignore[method-assign]
    assert copy_to_guest(machine, machine.source) is None
