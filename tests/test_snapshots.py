"""Snapshots: saved, loaded, deleted, unknown, of another machine, on a full disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from guest import boot, in_guest, run_case

from pandalite import errors


def failure(function):
    try:
        function()
    except Exception as error:
        return [c.__name__ for c in type(error).__mro__], str(error)
    return None


def case_snapshots():
    panda = boot()
    found = {}

    def work():
        panda.run_serial_cmd("echo first > /tmp/state")
        panda.snap_sync("one")
        panda.run_serial_cmd("echo second > /tmp/state")
        panda.snap("two")
        # Asked for, not waited for.
        for _ in range(100):
            if "two" in panda.snapshot_names():
                break
            time.sleep(0.1)
        found["after"] = panda.run_serial_cmd("echo alive")
        found["names"] = panda.snapshot_names()
        assert panda.revert_sync("one") == ""
        found["one"] = panda.run_serial_cmd("cat /tmp/state")
        panda.revert_sync("two")
        found["two"] = panda.run_serial_cmd("cat /tmp/state")
        panda.revert_sync("root")
        found["root"] = panda.run_serial_cmd("cat /tmp/state 2>/dev/null; echo none")
        found["unknown"] = failure(lambda: panda.revert_sync("nosuch"))
        found["alive"] = panda.run_serial_cmd("echo $((6 * 7))")
        panda.delvm_sync("one")
        found["deleted"] = panda.snapshot_names()
        found["delete unknown"] = failure(lambda: panda.delvm_sync("nosuch"))
        found["info"] = panda.run_monitor_cmd("info snapshots")

    in_guest(panda, work)
    return found


def test_snapshots():
    found = run_case(case_snapshots)
    assert found["after"] == "alive"
    assert set(found["names"]) == {"root", "one", "two"}
    assert (found["one"], found["two"], found["root"]) == ("first", "second", "none")
    for name in ("unknown", "delete unknown"):
        bases, message = found[name]
        assert "UnknownSnapshotError" in bases and "ValueError" in bases
        assert "nosuch" in message and "root" in message
    assert found["alive"] == "42"
    assert set(found["deleted"]) == {"root", "two"}
    assert "two" in found["info"]


def case_many_reverts():
    """The same RAM every time, no memory lost, quickly enough."""
    panda = boot()
    digests = set()
    sizes = []

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def work():
        panda.vm_stop()
        panda.run_monitor_cmd("info status")
        for _ in range(20):
            panda.revert_sync("root")
            total = hashlib.sha256()
            for addr in range(0x100000, 128 << 20, 1 << 20):
                total.update(panda.physical_memory_read(addr, 1 << 20))
            digests.add(total.hexdigest())
            sizes.append(resident())

    in_guest(panda, work)
    return {"digests": len(digests), "growth": sizes[-1] - sizes[4]}


def test_many_reverts():
    result = run_case(case_many_reverts)
    assert result["digests"] == 1
    assert result["growth"] < 16 << 20


def case_other_ram(image, extra):
    from pandalite import Panda

    panda = Panda(arch="x86_64", mem="96M", qcow=image, expect_prompt="# ", extra_args=extra)
    found = []

    @panda.queue_blocking
    def work():
        found.append(failure(lambda: panda.revert_sync("root")))
        panda.end_analysis()

    panda.run()
    return found[0]


def test_other_ram(tmp_path):
    from pandalite.qcows import Qcows

    image = tmp_path / "copy.qcow2"
    shutil.copy(Qcows.get_qcow("x86_64"), image)
    extra = Qcows.get_qcow_info("x86_64").extra_args
    bases, message = run_case(case_other_ram, str(image), extra)
    assert "SnapshotMismatchError" in bases and "RuntimeError" in bases
    assert "96M" in message


def case_no_disk():
    from pandalite import Panda

    panda = Panda(arch="x86_64", mem="16M", extra_args="-M pc -nodefaults")
    found = []

    @panda.queue_blocking
    def work():
        found.append(failure(lambda: panda.snap_sync("x")))
        panda.end_analysis()

    panda.run()
    return found[0]


def test_no_disk():
    bases, message = run_case(case_no_disk)
    assert "SnapshotError" in bases
    assert "qcow2" in message


def case_full_disk(folder):
    """The image grows into a full file system; the guest goes on."""
    from pandalite import Panda
    from pandalite.qcows import Qcows, qcow2

    image = Path(folder) / "disk.qcow2"
    qcow2.create(image, 1 << 30)
    info = Qcows.get_qcow_info("x86_64")
    panda = Panda(
        arch="x86_64",
        mem="128M",
        qcow=image,
        expect_prompt=info.prompt,
        extra_args=info.extra_args,
    )
    found = {}

    @panda.queue_blocking
    def work():
        panda.serial_console.expect(timeout=150)
        found["save"] = failure(lambda: panda.snap_sync("big"))
        found["alive"] = panda.run_serial_cmd("echo $((6 * 7))")
        panda.end_analysis()

    panda.run()
    return found


def test_full_disk():
    folder = tempfile.mkdtemp()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        os.rmdir(folder)
        pytest.skip("mounting a small file system needs root")
    try:
        found = run_case(case_full_disk, folder)
    finally:
        subprocess.run(["umount", folder], check=True)
        os.rmdir(folder)
    bases, message = found["save"]
    assert "SnapshotError" in bases
    assert "room" in message
    assert found["alive"] == "42"


def case_shared_image():
    return in_guest(boot(), lambda: None)


def test_processes_share_a_guest():
    """Several processes run the same guest at once; its image stays as it is."""
    import sys

    from guest import ROOT, case_command

    from pandalite.qcows import Qcows

    image = Path(Qcows.get_qcow("x86_64"))
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    children = [
        subprocess.Popen(case_command(case_shared_image), cwd=ROOT, stdout=subprocess.DEVNULL)
        for _ in range(3)
    ]
    assert [child.wait(120) for child in children] == [0, 0, 0], sys.executable
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before


def test_errors_are_exported():
    assert issubclass(errors.UnknownSnapshotError, errors.SnapshotError)
