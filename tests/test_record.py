"""Recordings are replayed exactly, on every architecture."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from guest import ROOT, boot, run_case
from recording_files import pack, unpack, with_member
from replays import Trace, record_commands, record_from_snapshot, replay, report_of

from pandalite._bindings.arches import ARCHITECTURES
from pandalite.errors import GuestReset, GuestShutdown
from pandalite.recordings import devices, read_log, verify

sys.path.insert(0, str(ROOT / "tools"))

import build_baremetal

#: Processes, signals, a timer, page faults, random numbers, the disk, the network.
WORK = [
    "i=0; while [ $i -lt 5 ]; do /bin/busybox true; i=$((i+1)); done; sleep 0.2; date",
    "dd if=/dev/urandom bs=4k count=4 2>/dev/null | md5sum; cat /proc/interrupts",
    "dd if=/dev/zero of=$DISK bs=4k seek=9 count=9 2>/dev/null; sync; "
    "dd if=$DISK of=/dev/null bs=64k count=4 2>/dev/null; ping -c 1 -W 1 10.0.2.2 > /dev/null",
]


@pytest.mark.parametrize("arch", ("x86_64", "i386"))
def test_replays_equal_the_recording(arch: str, tmp_path: Path) -> None:
    path = str(tmp_path / "work")
    recorded = run_case(record_commands, arch, path, WORK)
    assert recorded["instructions"] > 1_000_000
    assert recorded["ram_digest"] != 0
    for _ in range(2):
        assert run_case(replay, arch, path) == recorded


@pytest.mark.parametrize("arch", ("x86_64", "i386"))
def test_traces_are_equal(arch: str, tmp_path: Path) -> None:
    path = str(tmp_path / "traced")
    recorded = run_case(record_from_snapshot, arch, path, "ls -l /bin | sort | md5sum")
    assert recorded["trace"][0] > 100_000
    for _ in range(3):
        assert run_case(replay, arch, path, True) == recorded


# --- the self-test guests: a timer, a user program, traps, on every architecture ---


def bare_panda(arch: str, elf: str, serial: str) -> Any:
    from pandalite import Panda

    words = [*build_baremetal.machine_words(arch, Path(elf)), "-serial", f"file:{serial}"]
    return Panda(arch=arch, mem="64M", extra_args=words)


def case_record_bare(arch: str, elf: str, path: str) -> dict[str, Any]:
    panda = bare_panda(arch, elf, path + ".serial")
    traced: list[Trace] = []

    @panda.cb_after_machine_init
    def begin(cpu: Any) -> None:
        traced.append(Trace(panda))
        panda.record(path)

    with contextlib.suppress(GuestReset, GuestShutdown):
        panda.run()
    panda.end_record()
    traced[0].stream.close()
    return {**report_of(panda), "trace": traced[0].result()}


def case_replay_bare(arch: str, elf: str, path: str) -> dict[str, Any]:
    panda = bare_panda(arch, elf, path + ".replay")
    traced = Trace(panda)
    panda.run_replay(path)
    traced.stream.close()
    return {**report_of(panda), "trace": traced.result()}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture(arch: str, tmp_path: Path) -> None:
    path = str(tmp_path / "bare")
    elf = str(build_baremetal.build(arch))
    recorded = run_case(case_record_bare, arch, elf, path)
    assert "user ok" in Path(path + ".serial").read_text()
    assert recorded["trace"][0] > 1000
    for _ in range(3):
        assert run_case(case_replay_bare, arch, elf, path) == recorded
    # Devices did not run.
    assert Path(path + ".replay").read_text() == ""


# --- a boot, with the firmware, and a reset ---


def case_record_boot_and_reset(path: str) -> dict[str, Any]:
    panda = boot()

    @panda.cb_after_machine_init
    def begin(cpu: Any) -> None:
        panda.record(path)

    @panda.queue_blocking
    def work() -> None:
        panda.serial_console.expect(timeout=120)
        panda.serial_console.send(b"reboot -f\n")
        panda.serial_console.expect(timeout=120)
        panda.end_record()
        panda.end_analysis()

    panda.run()
    return report_of(panda)


def test_boot_and_reset(tmp_path: Path) -> None:
    path = str(tmp_path / "boot")
    recorded = run_case(case_record_boot_and_reset, path)
    assert recorded["instructions"] > 500_000_000
    assert run_case(replay, "x86_64", path) == recorded


# --- several in one run, and the guest in between ---


def case_several(folder: str) -> list[Any]:
    panda = boot()
    found: list[Any] = []

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        for i in range(3):
            panda.run_serial_cmd(f"echo {i}")
            panda.record(f"{folder}/{i}")
            panda.run_serial_cmd(f"echo {i} | md5sum")
            panda.end_record()
            found.append(report_of(panda))
        panda.end_analysis()

    panda.run()
    # The same process, the same Panda.
    for i in range(3):
        panda.run_replay(f"{folder}/{i}")
        found.append(report_of(panda))

    # And it lives again.
    @panda.queue_blocking
    def after() -> None:
        panda.revert_sync("root")
        found.append(panda.run_serial_cmd("echo alive"))
        panda.end_analysis()

    panda.run()
    return found


def test_several_recordings_and_replays_in_one_process(tmp_path: Path) -> None:
    found = run_case(case_several, str(tmp_path))
    assert found[:3] == found[3:6]
    assert found[6] == "alive"


# --- callbacks in a replay ---


def case_callbacks_in_replay(path: str) -> list[int]:
    panda = boot()
    seen = {"blocks": 0, "reads": 0, "order": 0}
    last = [0]

    @panda.cb_before_block_exec
    def block(cpu: Any, tb: Any) -> None:
        seen["blocks"] += 1
        count = panda.rr_get_guest_instr_count()
        if count < last[0]:
            seen["order"] += 1
        last[0] = count

    @panda.cb_virt_mem_after_read
    def read(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        seen["reads"] += 1

    panda.run_replay(path)
    facts = report_of(panda)
    return [seen["blocks"], seen["reads"], seen["order"], facts["instructions"], last[0]]


def test_callbacks_in_replay(tmp_path: Path) -> None:
    path = str(tmp_path / "short")
    recorded = run_case(record_commands, "x86_64", path, ["echo hello"])
    first = run_case(case_callbacks_in_replay, path)
    assert first == run_case(case_callbacks_in_replay, path)
    blocks, reads, disorder, instructions, last = first
    assert blocks > 10_000
    assert reads > 10_000
    assert disorder == 0
    assert instructions == recorded["instructions"]
    assert 0 <= instructions - last < 1000


# --- refusals ---


def case_refusals(folder: str) -> dict[str, str]:
    panda = boot()
    found: dict[str, str] = {}

    def refused(name: str, call: Any) -> None:
        try:
            call()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
        else:
            found[name] = "accepted"

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        refused("end", panda.end_record)
        refused("folder", lambda: panda.record(f"{folder}/no/such/folder"))
        refused("snapshot", lambda: panda.record(f"{folder}/a", "nonesuch"))
        panda.record(f"{folder}/b")
        refused("twice", lambda: panda.record(f"{folder}/c"))
        refused("revert", lambda: panda.revert_sync("root"))
        panda.end_record()
        found["lives"] = panda.run_serial_cmd("echo alive")
        panda.end_analysis()

    refused("early", lambda: panda.run_replay(f"{folder}/nonesuch"))
    panda.run()
    refused("end_replay", panda.end_replay)
    found["files"] = " ".join(sorted(os.listdir(folder)))
    return found


def test_refusals(tmp_path: Path) -> None:
    found = run_case(case_refusals, str(tmp_path))
    assert found["end"].startswith("StateError: nothing is being recorded")
    assert found["folder"].startswith("RecordingError: cannot write")
    assert found["snapshot"].startswith("UnknownSnapshotError")
    assert found["twice"].startswith("StateError: the machine is recorded already")
    assert found["revert"].startswith("StateError")
    assert found["early"].startswith("ValueError: there is no recording")
    assert found["end_replay"].startswith("StateError")
    assert found["lives"] == "alive"
    assert found["files"] == "b.plrec"


def case_icount(path: str) -> str:
    panda = boot(extra_args=["-icount", "shift=4"])
    said: list[str] = []

    @panda.cb_after_machine_init
    def begin(cpu: Any) -> None:
        try:
            panda.record(path)
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
        panda.end_analysis()

    panda.run()
    return said[0]


def test_icount_is_refused(tmp_path: Path) -> None:
    said = run_case(case_icount, str(tmp_path / "x"))
    assert said.startswith("RecordingError: this machine cannot be recorded")
    assert "-icount" in said


def case_other_machine(path: str) -> str:
    from pandalite import Panda

    panda = Panda("x86_64", mem="128M", extra_args=["-display", "none"])
    try:
        panda.run_replay(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def test_other_machine(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    run_case(record_commands, "x86_64", path, ["true"])
    said = run_case(case_other_machine, path)
    assert said.startswith("RecordingError: ")
    assert "another" in said


# --- recordings that end before their time ---


def case_full_disk(path: str) -> list[str]:
    panda = boot()
    said: list[str] = []

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        # The start takes 23 MB of it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (24 << 20, resource.RLIM_INFINITY))
        panda.record(path)
        panda.run_serial_cmd("while :; do md5sum /dev/sda; done", timeout=100)

    try:
        panda.run()
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
    return said


def test_disk_full_while_recording(tmp_path: Path) -> None:
    path = tmp_path / "big"
    said = run_case(case_full_disk, str(path))
    assert said
    assert said[0].startswith("RecordingError: ")
    assert os.strerror(errno.EFBIG) in said[0]
    assert os.listdir(tmp_path) == ["big.plrec.part"]
    # What there is of it can be replayed.
    part = str(tmp_path / "big.plrec.part")
    assert run_case(replay, "x86_64", part)["instructions"] > 0


def case_killed(path: str) -> None:
    panda = boot()

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        panda.record(path)
        for _ in range(8):
            panda.run_serial_cmd("ls -l /bin | md5sum; sleep 0.5")
        os._exit(9)

    panda.run()


def case_replay_cut(path: str) -> list[Any]:
    panda = boot()
    panda.run_replay(path)
    facts = panda.record_report()
    return [facts.instructions, facts.cut_off]


def test_killed_while_recording(tmp_path: Path) -> None:
    from guest import run_case_process

    path = tmp_path / "killed"
    assert run_case_process(case_killed, str(path)).returncode == 9
    assert os.listdir(tmp_path) == ["killed.plrec.part"]
    instructions, cut_off = run_case(case_replay_cut, f"{path}.plrec.part")
    assert instructions > 1_000_000
    assert cut_off


# --- a recording that says something else than happened ---


def test_divergence_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    run_case(record_commands, "x86_64", path, ["date; ls"])
    rewrite_log(Path(path + ".plrec"))
    said = run_case(case_divergence, path)
    assert said[0] == "ReplayDivergence"
    assert said[1] > 0
    assert "differs from the recording after" in said[3]


def case_divergence(path: str) -> list[Any]:
    panda = boot()
    try:
        panda.run_replay(path)
    except Exception as error:
        return [type(error).__name__, error.instructions, error.pc, str(error)]
    return ["none"]


def rewrite_log(path: Path) -> None:
    """Change a byte in the middle of the log, with checksums that are right."""
    parts = unpack(path)
    data = parts["log/000000"]
    middle = len(data) // 2
    parts["log/000000"] = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    path.write_bytes(pack(parts))


def test_manifest(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    recorded = run_case(record_commands, "x86_64", path, ["true"])
    with zipfile.ZipFile(path + ".plrec") as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("manifest.json"))
        end = json.loads(archive.read("end.json"))
    assert manifest["format"] == "pandalite-recording"
    assert manifest["arch"] == "x86_64"
    assert manifest["version"][0] == 3
    assert end["instructions"] == recorded["instructions"]
    assert int(end["ram_digest"], 16) == recorded["ram_digest"]


def test_format_before_the_second_jump_cache(tmp_path: Path) -> None:
    """Blocks are looked up as it was done then."""
    path = tmp_path / "x.plrec"
    recorded = run_case(record_commands, "x86_64", str(path), ["true"])
    manifest = json.loads(unpack(path)["manifest.json"])
    manifest["version"] = [2, 0]
    path.write_bytes(with_member(path, "manifest.json", json.dumps(manifest).encode()))
    assert run_case(replay, "x86_64", str(path)) == recorded


def case_stops(arch: str, elf: str, path: str) -> int:
    """Stop in front of calls to devices, and in the block that makes them."""
    panda = bare_panda(arch, elf, path + ".stops")
    places = {entry.instructions for entry in read_log(path) if entry.kind == "call"}
    with panda.replay(path) as replay:
        for place in sorted(places):
            for stop in range(max(0, place - 3), place + 1):
                assert replay.seek(stop) == stop
        replay.run()
    return len(places)


@pytest.mark.parametrize("arch", ("x86_64", "arm", "mips", "mipsel", "mips64", "mips64el", "ppc"))
def test_stops_at_calls_to_devices(arch: str, tmp_path: Path) -> None:
    """Some are made in the middle of a block, which is counted as a whole."""
    path = str(tmp_path / "bare")
    elf = str(build_baremetal.build(arch))
    run_case(case_record_bare, arch, elf, path)
    assert run_case(case_stops, arch, elf, path) > 0


# --- what a replay tells of devices ---


def case_transfers(path: str) -> dict[str, Any]:
    panda = boot()
    found: dict[str, Any] = {"disk": [], "packets": [], "sent": b"", "typed": b"", "written": b""}
    found.update(dma=0, dma_bytes=0, read=b"")

    @panda.cb_replay_hd_transfer
    def disk(cpu: Any, kind: int, source: int, target: int, size: int) -> None:
        found["disk"].append((kind, source, target, size))

    @panda.cb_replay_handle_packet
    def packet(cpu: Any, buf: Any, size: int, direction: int, where: int) -> None:
        found["packets"].append((direction, bytes(buf[:size])))

    @panda.cb_replay_serial_send
    def sent(cpu: Any, fifo: int, value: int) -> None:
        found["sent"] += bytes([value])

    @panda.cb_replay_serial_receive
    def typed(cpu: Any, fifo: int, value: int) -> None:
        found["typed"] += bytes([value])

    @panda.cb_replay_serial_write
    def written(cpu: Any, fifo: int, port: int, value: int) -> None:
        found["written"] += bytes([value])

    @panda.cb_replay_serial_read
    def read(cpu: Any, fifo: int, port: int, value: int) -> None:
        found["read"] += bytes([value])

    @panda.cb_replay_before_dma
    def before(cpu: Any, buf: Any, address: int, size: int, is_write: bool) -> None:
        found["before"] = (address, panda.physical_memory_read(address, min(size, 16)))

    @panda.cb_replay_after_dma
    def after(cpu: Any, buf: Any, address: int, size: int, is_write: bool) -> None:
        found["dma"] += 1
        found["dma_bytes"] += size
        assert found["before"][0] == address
        if size <= 4096 and address != (1 << 64) - 1:
            assert panda.physical_memory_read(address, size) == bytes(buf[:size])

    panda.run_replay(path)
    packets = found["packets"]
    return {
        "reads": [d for d in found["disk"] if d[0] == 4],
        "writes": [d for d in found["disk"] if d[0] == 5],
        "asked": [p.hex() for way, p in packets if way == 1],
        "answered": [p.hex() for way, p in packets if way == 0],
        "sent": found["sent"].decode("latin1"),
        "typed": found["typed"].decode("latin1"),
        "written": found["written"].decode("latin1"),
        "read": found["read"].decode("latin1"),
        "dma": [found["dma"], found["dma_bytes"]],
    }


def test_transfers(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    work = "dd if=/dev/sda of=/dev/null bs=4k skip=16 count=1; ping -c 1 10.0.2.2; echo fi''sh"
    recorded = run_case(record_commands, "x86_64", path, [work])
    found = run_case(case_transfers, path)
    by_name = {d.name: d for d in devices(path)}
    # Who wrote to memory is known of all of it: the disk, and the network card.
    assert "" not in by_name or not by_name[""].memory_writes
    wrote = [d.memory_bytes for d in by_name.values() if d.memory_writes]
    assert len(wrote) >= 2 and max(wrote) >= 4096
    assert sum(d.memory_bytes for d in by_name.values()) == found["dma"][1]
    assert by_name["pandalite-serial"].sent > 0
    assert recorded["instructions"] > 0
    assert any(source == 16 * 4096 for _, source, _, _ in found["reads"])
    assert found["dma"][0] > 10
    assert found["dma"][1] >= 4096
    # ICMP over IPv4: the request and the answer.
    assert any(p[24:28] == "0800" and p[46:48] == "01" for p in found["asked"])
    assert any(p[24:28] == "0800" and p[46:48] == "01" for p in found["answered"])
    assert work in found["typed"]
    assert "fish" in found["sent"]
    assert "fish" in found["written"]
    assert work in found["read"]


# --- commands of the monitor ---


def case_monitor(path: str) -> dict[str, Any]:
    panda = boot()
    found: dict[str, Any] = {}

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        found["none"] = panda.run_monitor_cmd("end_record")
        found["begin"] = panda.run_monitor_cmd(f"begin_record {path}")
        panda.run_serial_cmd("date")
        found["end"] = panda.run_monitor_cmd("end_record")
        found["recorded"] = report_of(panda)
        found["from"] = panda.run_monitor_cmd(f"begin_record_from root {path}2")
        panda.run_monitor_cmd("end_record")
        found["bad"] = panda.run_monitor_cmd(f"begin_replay {path}3")
        found["replay"] = panda.run_monitor_cmd(f"begin_replay {path}")

    panda.run()
    found["replayed"] = report_of(panda)
    panda.libpanda.panda_replay_end()
    return found


def test_monitor_commands(tmp_path: Path) -> None:
    found = run_case(case_monitor, str(tmp_path / "x"))
    assert found["none"] == "Error: nothing is being recorded"
    assert found["begin"] == found["end"] == found["from"] == found["replay"] == ""
    assert found["bad"].startswith("Error: cannot read the recording")
    assert found["recorded"] == found["replayed"]
    assert sorted(os.listdir(tmp_path)) == ["x.plrec", "x2.plrec"]


# --- writing guest state ---


def case_writes(path: str, allow: bool, how: str) -> str:
    panda = boot()
    blocks: list[int] = []

    @panda.cb_before_block_exec
    def block(cpu: Any, tb: Any) -> None:
        # What one block finds there may be of no use to it.
        blocks.append(tb.pc)
        if len(blocks) == 20:
            panda.disable_callback("block")
        if how == "api":
            value = panda.arch.get_reg(cpu, "RAX") ^ 1 << len(blocks)
            panda.arch.set_reg(cpu, "RAX", value)
            panda.virtual_memory_write(cpu, panda.current_sp(cpu), b"12345678")
        else:
            # Past all functions, where nothing can refuse it.
            for number in (3, 5, 12, 13, 14, 15):
                cpu.env_ptr.regs[number] ^= 8 << len(blocks)

    try:
        panda.run_replay(path, allow_writes=allow)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "equal"


def test_writing_in_a_replay(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    run_case(record_commands, "x86_64", path, ["date"])
    refused = run_case(case_writes, path, False, "api")
    assert refused.startswith("StateError: the guest's state cannot be changed in a replay")
    assert run_case(case_writes, path, True, "api").startswith("ReplayDivergence")
    assert run_case(case_writes, path, False, "env").startswith("ReplayDivergence")


def case_writes_while_recorded(path: str) -> dict[str, Any]:
    panda = boot()
    found: dict[str, Any] = {"said": [], "changed": 0}

    @panda.cb_insn_translate
    def is_syscall(cpu: Any, pc: int) -> bool:
        return panda.virtual_memory_read(cpu, pc, 2) == b"\x0f\x05"

    @panda.cb_insn_exec
    def syscall(cpu: Any, pc: int) -> int:
        number, file, buffer, size = (
            panda.arch.get_reg(cpu, r) for r in ("RAX", "RDI", "RSI", "RDX")
        )
        if number != 1 or file != 1 or size != 6 or panda.in_kernel(cpu):
            return 0
        if panda.virtual_memory_read(cpu, buffer, size) == b"hello\n":
            # Another text, and less of it: the shell writes the rest then.
            panda.virtual_memory_write(cpu, buffer, b"j")
            panda.arch.set_reg(cpu, "RDX", 4)
            found["changed"] += 1
        return 0

    @panda.cb_asid_changed(enabled=False, name="elsewhere")
    def elsewhere(cpu: Any, old: int, new: int) -> int:
        panda.disable_callback("elsewhere")
        for write in (
            lambda: panda.arch.set_reg(cpu, "RAX", 1),
            lambda: panda.physical_memory_write(0x500, b"12345678"),
        ):
            try:
                write()
            except Exception as error:
                found["said"].append(f"{type(error).__name__}: {error}")
        return 0

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        panda.record(path)
        found["output"] = panda.run_serial_cmd("for i in 1 2 3 4 5 6 7 8 9; do echo hello; done")
        panda.enable_callback("elsewhere")
        panda.run_serial_cmd("/bin/busybox date")
        panda.end_analysis()

    panda.run()
    # It stands still: this is in the recording.
    panda.physical_memory_write(0x500, b"between two runs")

    @panda.queue_blocking
    def more() -> None:
        panda.run_serial_cmd("date")
        panda.end_record()
        panda.end_analysis()

    panda.run()
    found["recorded"] = report_of(panda)
    # Without these callbacks.
    panda.run_replay(path)
    found["replayed"] = report_of(panda)
    return found


def test_writing_while_recorded(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    found = run_case(case_writes_while_recorded, path)
    assert found["changed"] == 9
    assert found["output"].split() == ["jello"] * 9
    assert len(found["said"]) == 2
    assert all(
        s.startswith("StateError: ") and "cannot be written here" in s for s in found["said"]
    )
    assert found["replayed"] == found["recorded"]
    assert verify(path).recording.instructions == found["recorded"]["instructions"]
    assert run_case(replay, "x86_64", path) == found["recorded"]
    # Back and forth over what was written.
    assert run_case(case_seek_over_writes, path) == found["recorded"]


def case_seek_over_writes(path: str) -> dict[str, Any]:
    panda = boot()
    with panda.replay(path) as control:
        control.run_to(control.total // 3)
        control.run()
        control.seek(control.total // 4)
        control.run()
        return report_of(panda)


def case_counts(path: str) -> list[int]:
    panda = boot()
    wrong = [0]
    seen = [0]

    def check(cpu: Any) -> None:
        seen[0] += 1
        wrong[0] += cpu.rr_guest_instr_count != panda.rr_get_guest_instr_count()

    @panda.cb_before_block_exec
    def block(cpu: Any, tb: Any) -> None:
        check(cpu)

    @panda.cb_virt_mem_after_write
    def write(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        check(cpu)

    panda.run_replay(path)
    return [seen[0], wrong[0], panda.cpu.rr_mode]


def test_count_of_the_cpu(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    run_case(record_commands, "x86_64", path, ["true"])
    seen, wrong, mode = run_case(case_counts, path)
    assert seen > 10_000
    assert wrong == 0
    assert mode == 0


# --- firmware: real mode, option ROMs, a display, interrupts that wait ---


def case_firmware(path: str) -> list[dict[str, Any]]:
    import time

    from pandalite import Panda

    panda = Panda("x86_64", mem="128M", extra_args=["-vga", "std", "-display", "none"])

    @panda.queue_blocking
    def work() -> None:
        time.sleep(0.3)
        panda.record(path)
        time.sleep(1)
        panda.end_record()
        panda.end_analysis()

    panda.run()
    recorded = report_of(panda)
    panda.run_replay(path)
    return [recorded, report_of(panda)]


def test_firmware(tmp_path: Path) -> None:
    for i in range(2):
        recorded, replayed = run_case(case_firmware, str(tmp_path / str(i)))
        assert recorded["instructions"] > 1_000_000
        assert recorded == replayed


def case_run_to_everywhere(path: str) -> list[int]:
    panda = boot()
    wrong = 0
    with panda.replay(path, checkpoints="200M") as replay:
        total = replay.total
        # Stops between any two instructions change nothing.
        for place in range(1, total, max(1, total // 1500)):
            wrong += replay.run_to(place) != place
        replay.run()
        return [wrong, panda.record_report().ram_digest]


def test_stops_change_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    recorded = run_case(record_commands, "x86_64", path, ["date; ls"])
    wrong, digest = run_case(case_run_to_everywhere, path)
    assert wrong == 0
    assert digest == recorded["ram_digest"]
