"""The machines and devices that PANDA's users need are in the core libraries."""

from __future__ import annotations

import pytest
from guest import run_case

#: Machines by architecture, with a CPU where there is no default or another is meant.
MACHINES = [
    *[(arch, f"-M {m}") for arch in ("x86_64", "i386") for m in ("pc", "q35", "microvm", "isapc")],
    *[("arm", f"-M {m}") for m in ("virt", "versatilepb", "vexpress-a9", "vexpress-a15")],
    *[("arm", f"-M {m}") for m in ("realview-eb", "raspi0", "raspi1ap")],
    *[("aarch64", f"-M {m}") for m in ("virt -cpu cortex-a57", "raspi0", "versatilepb")],
    *[(arch, "-M malta") for arch in ("mips", "mipsel", "mips64", "mips64el")],
    *[("ppc", f"-M {m}") for m in ("g3beige", "mac99", "ppce500")],
    *[("ppc64", f"-M {m}") for m in ("pseries,x-vof=on", "mac99", "ppce500 -cpu e5500")],
    ("riscv64", "-M virt"),
]

#: Boards with a fixed amount of RAM.
RAM = {"raspi0": "512M", "raspi1ap": "512M", "versatilepb": "256M", "pseries": "256M"}

PCI_DEVICES = (
    *("e1000", "rtl8139", "pcnet", "ne2k_pci", "virtio-net-pci", "ahci", "lsi53c895a"),
    *("virtio-blk-pci", "virtio-scsi-pci", "virtio-rng-pci", "virtio-serial-pci"),
    *("VGA", "cirrus-vga", "sdhci-pci", "pci-serial", "qemu-xhci", "usb-ehci", "pci-ohci"),
    "piix3-usb-uhci",
)

#: A machine with a free PCI bus for each architecture.
WITH_PCI = {
    "x86_64": "-M q35",
    "i386": "-M pc",
    "arm": "-M virt",
    "aarch64": "-M virt",
    **dict.fromkeys(("mips", "mipsel", "mips64", "mips64el"), "-M malta"),
    "ppc": "-M mac99",
    "ppc64": "-M pseries,x-vof=on",
    "riscv64": "-M virt",
}

#: Their machines have no interrupt controller for MSI, which NVMe wants.
WITHOUT_MSI = ("mips", "mipsel", "mips64", "mips64el", "ppc")


def case_create(arch: str, words: str, mem: str) -> bool:
    """Create a machine, and end before it runs."""
    from pandalite import Panda

    panda = Panda(arch=arch, mem=mem, extra_args=f"{words} -display none -S")
    created = []

    @panda.cb_after_machine_init
    def done(cpu: object) -> None:
        created.append(True)
        panda.end_analysis()

    panda.run()
    return created == [True]


@pytest.mark.parametrize(("arch", "machine"), MACHINES, ids=lambda v: v.replace("-M ", ""))
def test_machine(arch: str, machine: str) -> None:
    name = machine.split()[1].split(",")[0]
    # Without defaults the older ARM boards have no host for their sound chip.
    defaults = "" if arch in ("arm", "aarch64") and name != "virt" else " -nodefaults"
    assert run_case(case_create, arch, machine + defaults, RAM.get(name, "128M"))


# In two parts: Malta's bus is full with all of them.
@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("arch", WITH_PCI)
def test_devices(arch: str, part: int) -> None:
    block = "-drive if=none,id=d0,driver=null-co,read-zeroes=on"
    block += " -drive if=none,id=d1,driver=null-co,read-zeroes=on"
    names = [*PCI_DEVICES, *(["nvme"] if arch not in WITHOUT_MSI else [])][part::2]
    if "qemu-xhci" not in names:
        names.append("qemu-xhci")
    devices = " ".join(f"-device {_device(name)}" for name in names)
    usb = " ".join(f"-device {d},bus=xhci.0" for d in ("usb-kbd", "usb-tablet", "usb-hub"))
    words = f"{WITH_PCI[arch]} -nodefaults {block} {devices} {usb}"
    assert run_case(case_create, arch, words, "256M")


def _device(name: str) -> str:
    extra = {
        "virtio-blk-pci": ",drive=d0",
        "nvme": ",serial=1,drive=d1",
        "qemu-xhci": ",id=xhci",
    }
    return name + extra.get(name, "")
