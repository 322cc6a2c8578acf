"""A recording is replayed with nothing but its file, on a machine made from its facts."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from guest import ROOT, TIMEOUT, boot, run_case
from recording_files import pack, unpack

from pandalite.qcows import qcow2
from pandalite.recordings.facts import Disk, Recording
from pandalite.recordings.machine import machine_of

#: Guests, of which not all need be here.
GUESTS = (
    *("x86_64", "i386", "arm", "aarch64", "mips", "mipsel", "mips64", "mips64el"),
    *("ppc", "ppc64", "ppc64el", "riscv64"),
)
NOTHING = "driver=null-co,size={},read-zeroes=on"


def machine(args: str, disks: tuple[Disk, ...] = (), **facts: Any) -> str:
    """QEMU's words for a replay of a machine with these."""
    values: dict[str, Any] = dict.fromkeys(Recording.__dataclass_fields__)
    values.update(arch="x86_64", machine="pc-i440fx-10.0", blocks=(), disks=disks)
    values.update(args=("pandalite", *shlex.split(args)), **facts)
    return shlex.join(machine_of(Recording(**values)).extra_args)


DISKS = (Disk("ide0-hd0", "#block1", 1000), Disk("x", "n", 2000), Disk("", "node", 3000))


@pytest.mark.parametrize(
    ("recorded", "replayed"),
    [
        ("-M pc -cpu max -m 1G -S -nodefaults", "-M pc -cpu max -nodefaults"),
        ("-L /x -kernel k -initrd i -append 'a b' -dtb d -loadvm root", ""),
        ("-display gtk -monitor stdio -qmp tcp:x -gdb tcp::1 -s -d int -D log -trace x", ""),
        ("-nographic", "-machine graphics=off"),
        ("-serial stdio -serial none -parallel file:x", "-serial null -serial none -parallel null"),
        (
            "-chardev socket,id=pandalite-serial,fd=7 -serial chardev:pandalite-serial",
            "-serial null",
        ),
        ("-chardev file,id=c,path=x -device x,chardev=c", "-chardev null,id=c -device x,chardev=c"),
        (
            "-netdev tap,id=n,vhost=on -device e1000,netdev=n",
            "-netdev user,id=n -device e1000,netdev=n",
        ),
        ("-nic user,model=e1000,hostfwd=tcp::1-:2 -nic none", "-nic user,model=e1000 -nic none"),
        ("-net nic,model=ne2k_pci -net user", "-net nic,model=ne2k_pci -net user"),
        ("-object filter-dump,id=f,file=x -object rng-builtin,id=r", "-object rng-builtin,id=r"),
        ("-audiodev alsa,id=a,x=y", "-audiodev none,id=a"),
        ("-bios none", "-bios none"),
        ("disk.img", f"-drive index=0,media=disk,{NOTHING.format(1000)}"),
        ("-cdrom x.iso", f"-drive index=2,media=cdrom,{NOTHING.format(1000)}"),
        (
            "-drive file=a,,b,format=qcow2,index=0,media=disk,cache=unsafe "
            "-drive if=none,id=x,file=y,readonly=on",
            f"-drive index=0,media=disk,{NOTHING.format(1000)} "
            f"-drive if=none,id=x,{NOTHING.format(2000)},read-only=on",
        ),
        ("-drive if=ide,index=2,media=cdrom", "-drive if=ide,index=2,media=cdrom"),
        (
            "-blockdev driver=file,node-name=n,filename=f "
            """-blockdev '{"driver": "qcow2", "node-name": "node", "file": "n"}'""",
            f"-blockdev node-name=n,{NOTHING.format(2000)} "
            f"-blockdev node-name=node,{NOTHING.format(3000)}",
        ),
    ],
)
def test_words(recorded: str, replayed: str) -> None:
    assert machine(recorded, DISKS) == replayed


def test_malta_has_flash() -> None:
    made = machine("-M malta -kernel k", machine="malta")
    assert made == f"-M malta -drive if=pflash,{NOTHING.format(4 << 20)}"


# --- with guests ---


def case_record_guest(name: str, path: str) -> int:
    panda = boot(name)

    @panda.queue_blocking
    def record() -> None:
        panda.record_cmd("ls -l /proc/self/", recording_name=path)
        panda.end_analysis()

    panda.run()
    return int(panda.record_report().instructions)


def case_record_firmware(path: str, args: list[str]) -> int:
    """A second of a machine's firmware."""
    import time

    from pandalite import Panda

    panda = Panda("x86_64", extra_args=args)

    @panda.queue_blocking
    def record() -> None:
        panda.record(path)
        time.sleep(0.5)
        panda.end_record()
        panda.end_analysis()

    panda.run()
    return int(panda.record_report().instructions)


def case_replay(path: str) -> list[Any]:
    from pandalite import Panda

    panda = Panda.from_recording(path)
    panda.run_replay(path)
    report = panda.record_report()
    return [report.instructions, panda.panda_args, panda.endianness]


@pytest.mark.parametrize("name", GUESTS)
def test_guest(name: str, tmp_path: Path) -> None:
    """Without its kernel and its disk, which is gone already."""
    if not (ROOT / "pandalite" / "_lib" / "guests" / name).is_dir():
        pytest.skip("this guest was not built")
    path = str(tmp_path / "x")
    recorded = run_case(case_record_guest, name, path)
    instructions, args, order = run_case(case_replay, path, env={"PANDALITE_GUESTS": "/nowhere"})
    assert instructions == recorded
    assert not [word for word in args if "guests" in word or ".qcow2" in word]
    assert (order == "big") == (name in ("mips", "mips64", "ppc", "ppc64"))


def test_files_are_gone(tmp_path: Path) -> None:
    """Disks, firmware and sockets of every sort are named, and none is there any more."""
    files = tmp_path / "files"
    files.mkdir()
    for name in ("disk.qcow2", "other.qcow2"):
        qcow2.create(files / name, 64 << 20)
    for name, size in {"raw": 32 << 20, "iso": 3 << 20, "bios": 512 << 10}.items():
        with (files / name).open("wb") as file:
            file.truncate(size)
    args = [
        *("-nodefaults", "-nographic", "-hda", f"{files}/disk.qcow2", "-cdrom", f"{files}/iso"),
        *("-drive", f"if=none,id=d,file={files}/raw,format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=d", "-bios", f"{files}/bios"),
        *("-blockdev", f"driver=file,node-name=f,filename={files}/other.qcow2,read-only=on"),
        *("-blockdev", "driver=qcow2,node-name=q,file=f,read-only=on"),
        *("-device", "virtio-blk-pci,drive=q", "-serial", f"file:{files}/serial"),
        *("-netdev", "socket,id=n,listen=127.0.0.1:0"),
        *("-device", "virtio-net-pci,netdev=n,romfile="),
    ]
    path = str(tmp_path / "x")
    recorded = run_case(case_record_firmware, path, args)
    for file in files.iterdir():
        file.unlink()
    left = set(Path("/tmp").glob("pandalite-*"))
    instructions, words, _ = run_case(case_replay, path)
    assert instructions == recorded
    assert not [word for word in words if str(files) in word]
    assert set(Path("/tmp").glob("pandalite-*")) <= left


def case_arguments(path: str) -> list[str]:
    from pandalite import Panda

    said = []
    for name, value in {"mem": "1G", "generic": "x86_64"}.items():
        try:
            Panda.from_recording(path, **{name: value})
        except ValueError as error:
            said.append(str(error))
    return said


def run_command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pandalite", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_command(tmp_path: Path) -> None:
    """Record, look at, check and replay; then change what is recorded."""
    path = tmp_path / "x.plrec"
    done = run_command("record", str(path), "--generic", "x86_64", "echo", "-n", "a; uname -m")
    assert done.returncode == 0, done.stderr
    assert "ax86_64" in done.stdout
    facts = json.loads(run_command("info", "--json", str(path)).stdout)
    assert f"{facts['instructions']} instructions" in done.stdout
    assert run_command("verify", str(path)).returncode == 0
    done = run_command("replay", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{facts['instructions']} instructions in ")
    assert "digest of RAM ok" in done.stdout
    said = run_case(case_arguments, str(path))
    assert len(said) == 2
    assert "leave mem out" in said[0]

    _change_a_digest(path)
    assert run_command("verify", str(path)).returncode == 0
    done = run_command("replay", str(path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "pandalite replay: the replay differs from the recording after "
    )
    path.write_bytes(path.read_bytes()[:1000])
    done = run_command("replay", str(path))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def _change_a_digest(path: Path) -> None:
    """Make a recording that is well-formed but not true: its end is another."""
    parts = unpack(path)
    end = json.loads(parts["end.json"])
    end["ram_digest"] = f"{int(end['ram_digest'], 16) ^ 1:016x}"
    parts["end.json"] = json.dumps(end).encode()
    path.write_bytes(pack(parts))
