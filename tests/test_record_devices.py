"""Recordings of devices that the guests of the catalogue do not have.

The i386 guest's kernel is Debian's, whose package has drivers for them all. It is in the
build cache if the guest was built here; else there is nothing to test with.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from guest import ROOT, boot, built, run_case
from replays import report_of

from pandalite.recordings import devices

sys.path.insert(0, str(ROOT / "tools"))

from project import cache_dir

#: Drivers in the order they are loaded in.
DRIVERS = (*("mii", "8139cp", "pcnet32", "mmc_core", "mmc_block", "cqhci", "sdhci", "sdhci-pci"),)

NETWORKS = {"rtl8139": "10.0.8", "pcnet": "10.0.9"}


def case_record_cards(path: str, drivers: str, image: str) -> dict[str, Any]:
    args = ["-device", "sdhci-pci", "-device", "sd-card,drive=card,id=card"]
    args += ["-drive", f"if=none,id=card,format=raw,file={image}"]
    for card, net in NETWORKS.items():
        args += ["-netdev", f"user,id={card},net={net}.0/24"]
        args += ["-device", f"{card},netdev={card},romfile="]
    panda = boot("i386", extra_args=args)
    found: dict[str, Any] = {}

    @panda.queue_blocking
    def work() -> None:
        panda.serial_console.expect(timeout=150)
        panda.copy_to_guest(drivers)
        panda.record(path)
        folder = Path(drivers).name
        for driver in DRIVERS:
            said = panda.run_serial_cmd(f"insmod {folder}/{driver}.ko", timeout=60)
            assert "insmod" not in (said or ""), said
        for number, net in enumerate(NETWORKS.values(), 1):
            panda.run_serial_cmd(f"ifconfig eth{number} {net}.15 netmask 255.255.255.0", timeout=60)
            found[net] = panda.run_serial_cmd(f"ping -c 2 -W 9 -s 900 {net}.2", timeout=60)
        panda.run_serial_cmd(
            "for i in 1 2 3 4 5 6 7 8 9; do [ -b /dev/mmcblk0 ] || sleep 1; done", timeout=60
        )
        panda.run_serial_cmd("dd if=/bin/busybox of=/dev/mmcblk0 bs=4k count=20; sync", timeout=60)
        panda.run_serial_cmd("echo 3 > /proc/sys/vm/drop_caches", timeout=60)
        found["card"] = panda.run_serial_cmd("head -c 80k /dev/mmcblk0 | md5sum", timeout=60)
        found["file"] = panda.run_serial_cmd("head -c 80k /bin/busybox | md5sum", timeout=60)
        panda.end_record()
        panda.end_analysis()

    panda.run()
    return {**found, "report": report_of(panda)}


def case_replay(path: str) -> dict[str, Any]:
    from pandalite import Panda

    panda = Panda.from_recording(path)
    panda.run_replay(path)
    return report_of(panda)


def test_network_cards_and_sd_card(tmp_path: Path) -> None:
    built("i386")
    manifest = ROOT / "pandalite" / "_lib" / "guests" / "i386" / "manifest.json"
    release = json.loads(manifest.read_text())["kernel"]["banner"].split()[2]
    # There may be packages of other kernels, which tests of introspection boot.
    cache = cache_dir() / "debian" / "bookworm-i386"
    packages = list(cache.glob(f"linux-image-{release}-unsigned_*_i386.deb"))
    if not packages:
        pytest.skip("the i386 guest's kernel package is not in the build cache")
    subprocess.run(["dpkg-deb", "-x", packages[0], tmp_path / "kernel"], check=True)
    drivers = tmp_path / "drivers"
    drivers.mkdir()
    for driver in DRIVERS:
        (found,) = (tmp_path / "kernel").rglob(f"{driver}.ko")
        found.rename(drivers / found.name)
    image = tmp_path / "card.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    path = str(tmp_path / "x")
    recorded = run_case(case_record_cards, path, str(drivers), str(image), timeout=400)
    for net in NETWORKS.values():
        assert " 0% packet loss" in recorded[net]
    assert recorded["card"] == recorded["file"]
    by_name = {d.name: d for d in devices(path)}
    for card in NETWORKS:
        name = next(n for n in by_name if n.startswith(card))
        assert by_name[name].sent_bytes > 1800
        assert by_name[name].received_bytes > 1800
    assert by_name["card"].sent_bytes >= 80 << 10
    assert by_name["card"].received_bytes >= 80 << 10
    assert "" not in by_name
    # Three cards write to memory, and the disk and network the guest has anyway may.
    assert sum(bool(d.memory_writes) and bool(d.name) for d in by_name.values()) >= 3
    image.unlink()
    for _ in range(2):
        assert run_case(case_replay, path, timeout=400) == recorded["report"]


def case_record_gicv3(path: str) -> dict[str, Any]:
    panda = boot("aarch64", extra_args=["-M", "virt,gic-version=3"])
    found: dict[str, Any] = {}

    @panda.cb_after_machine_init
    def begin(cpu: Any) -> None:
        panda.record(path)

    @panda.queue_blocking
    def work() -> None:
        panda.serial_console.expect(timeout=300)
        found["interrupts"] = panda.run_serial_cmd("cat /proc/interrupts", timeout=60)
        panda.run_serial_cmd("ping -c 1 -W 5 10.0.2.2; sleep 0.2", timeout=60)
        panda.end_record()
        panda.end_analysis()

    panda.run()
    return {**found, "report": report_of(panda)}


def test_gicv3(tmp_path: Path) -> None:
    """From the first instruction on: the kernel sets the controller up."""
    built("aarch64")
    path = str(tmp_path / "x")
    recorded = run_case(case_record_gicv3, path, timeout=400)
    assert "GICv3" in recorded["interrupts"]
    for _ in range(2):
        assert run_case(case_replay, path, timeout=400) == recorded["report"]
