"""Introspection of other kernels than the guests' own: Debian's suites, and KASLR.

Not collected by default, because it downloads kernels: ``make test-guests``. Each kernel
is booted with the tiny guest's own initial RAM file system, behind which is another one
with some of the kernel's own modules. Prints the table in docs/introspection.md.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ctools import ROOT
from guest import run_case
from test_os_guest import _plain, check_processes, look_at
from test_os_kernel_guest import check_kernel, look_at_kernel
from test_os_sockets_guest import check_sockets, look_at_sockets

sys.path.insert(0, str(ROOT / "tools"))

from debian import Archive, ArchiveError
from guestkit import cpio
from guestkit.deb import Package
from guestkit.modules import Kernel as Modules
from project import cache_dir


class Kernel(NamedTuple):
    """A kernel: whose guest, which suite and package; what is different in its options."""

    arch: str
    suite: str
    debian: str
    pattern: str
    without: tuple[str, ...] = ()
    #: Where its modules are if not in the same package: by what the group matched.
    parts: tuple[str, ...] = ()


#: Modules to load, and all that they need; of each kernel those that it has.
MODULES = (
    *("dummy", "loop", "crc7", "vfat", "nls_utf8", "nls_ascii", "isofs", "overlay", "squashfs"),
    *("veth", "tun", "ext4", "fuse", "sr_mod"),
)

_CLOUD = "linux-image-[0-9.]+-[0-9]+-cloud-amd64-unsigned"
_CLOUD_ARM = "linux-image-[0-9.]+-[0-9]+-cloud-arm64-unsigned"
_TRIXIE = "linux-image-[0-9.]+[+]deb13-cloud-amd64-unsigned"
_PARTS = ("linux-base-{}", "linux-modules-{}")
_TRIXIE_ARM = "linux-image-[0-9.]+[+]deb13-cloud-arm64-unsigned"

KERNELS = {
    "x86_64 bullseye": Kernel("x86_64", "bullseye", "amd64", _CLOUD),
    "x86_64 bookworm, KASLR and PTI": Kernel(
        "x86_64", "bookworm", "amd64", _CLOUD, ("nokaslr", "norandmaps", "mitigations=off")
    ),
    "x86_64 trixie": Kernel("x86_64", "trixie", "amd64", _TRIXIE),
    "x86_64 trixie, KASLR": Kernel("x86_64", "trixie", "amd64", _TRIXIE, ("nokaslr", "norandmaps")),
    "i386 bullseye": Kernel("i386", "bullseye", "i386", "linux-image-[0-9.]+-[0-9]+-686-unsigned"),
    "i386 bookworm, PAE": Kernel(
        "i386", "bookworm", "i386", "linux-image-[0-9.]+-[0-9]+-686-pae-unsigned"
    ),
    "arm bullseye": Kernel("arm", "bullseye", "armhf", "linux-image-[0-9.]+-[0-9]+-armmp"),
    "arm bookworm, LPAE": Kernel(
        "arm", "bookworm", "armhf", "linux-image-[0-9.]+-[0-9]+-armmp-lpae"
    ),
    "arm trixie": Kernel("arm", "trixie", "armhf", "linux-image-[0-9.]+[+]deb13-armmp"),
    "aarch64 bullseye": Kernel("aarch64", "bullseye", "arm64", _CLOUD_ARM),
    "aarch64 bookworm, KASLR": Kernel(
        "aarch64", "bookworm", "arm64", _CLOUD_ARM, ("nokaslr", "norandmaps")
    ),
    "aarch64 trixie": Kernel("aarch64", "trixie", "arm64", _TRIXIE_ARM),
    "x86_64 sid, KASLR": Kernel(
        "x86_64",
        "sid",
        "amd64",
        "linux-binary-([0-9.]+[+]deb14-cloud-amd64)",
        ("nokaslr", "norandmaps"),
        _PARTS,
    ),
    "arm sid": Kernel("arm", "sid", "armhf", "linux-binary-([0-9.]+[+]deb14-armmp)", (), _PARTS),
    "aarch64 sid": Kernel(
        "aarch64", "sid", "arm64", "linux-binary-([0-9.]+[+]deb14-cloud-arm64)", (), _PARTS
    ),
    "riscv64 sid": Kernel(
        "riscv64", "sid", "riscv64", "linux-binary-([0-9.]+[+]deb14-riscv64)", (), _PARTS
    ),
    "ppc64el sid": Kernel(
        "ppc64el", "sid", "ppc64el", "linux-binary-([0-9.]+[+]deb14-powerpc64le)", (), _PARTS
    ),
    "ppc64el sid, pages of 64 KB": Kernel(
        "ppc64el", "sid", "ppc64el", "linux-binary-([0-9.]+[+]deb14-powerpc64le-64k)", (), _PARTS
    ),
    "riscv64 trixie": Kernel("riscv64", "trixie", "riscv64", "linux-image-[0-9.]+[+]deb13-riscv64"),
    "ppc64el bookworm": Kernel(
        "ppc64el", "bookworm", "ppc64el", "linux-image-[0-9.]+-[0-9]+-powerpc64le"
    ),
    "ppc64el trixie": Kernel(
        "ppc64el", "trixie", "ppc64el", "linux-image-[0-9.]+[+]deb13-powerpc64le"
    ),
}

_ROWS: list[str] = []


def packages_of(kernel: Kernel) -> list[Path]:
    """The newest package that fits and can be had, and those that its modules are in."""
    archive = Archive(kernel.suite, kernel.debian, cache_dir())
    archive.update()
    names = archive.package_names(kernel.pattern)
    if not names:
        pytest.skip(f"the mirror has no {kernel.pattern} in {kernel.suite}")
    refused = ""
    for name in sorted(names, key=_numbers, reverse=True):
        found = re.fullmatch(kernel.pattern, name)
        assert found
        all_of_it = [name, *(part.format(found[1]) for part in kernel.parts)]
        try:
            return [archive.binary(one) for one in all_of_it]
        except ArchiveError as error:
            refused = f"the mirror does not give {name}: {error}".splitlines()[0]
    pytest.skip(refused)


def _numbers(name: str) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", name)]


def image_of(kernel: Kernel) -> Path:
    """The kernel's image; next to it, ``.modules``, the initial RAM file system with modules."""
    debs = packages_of(kernel)
    out = cache_dir() / "test-kernels" / debs[0].name
    modules = Path(f"{out}.modules")
    if not out.exists() or not modules.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
            packages = [stack.enter_context(Package(deb, Path(scratch))) for deb in debs]
            (path,) = packages[0].paths(r"boot/vmlinu[xz]-|usr/lib/modules/[^/]+/vmlinuz$")
            _write(out, packages[0].read(path))
            _write(modules, cpio.gzip(cpio.write(modules_of(Modules(*packages)))))
    return out


def modules_of(modules: Modules) -> cpio.Tree:
    """Modules of a kernel, named so that each comes behind what it needs."""
    tree = cpio.Tree()
    wanted = [name for name in MODULES if modules.has(name)]
    for number, module in enumerate(modules.closure(wanted)):
        tree.file(f"modules/{number:02}-{module.name}.ko", module.data)
    return tree


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.rename(path)


def on_kernel(name: str, image: str, look: Callable[[Any], Any]) -> Any:
    """Boot a kernel to its guest's prompt, and call look(panda)."""
    from pandalite import Panda
    from pandalite.arguments import split_extra_args
    from pandalite.qcows import Qcows
    from pandalite.qcows.make_root import reach_prompt

    kernel = KERNELS[name]
    guest = Qcows.get_qcow_info(kernel.arch)
    words = split_extra_args(guest.extra_args)
    words[words.index("-kernel") + 1] = image
    at = words.index("-initrd") + 1
    # The kernel unpacks one behind the other; each begins at a multiple of 4 bytes.
    first = Path(words[at]).read_bytes()
    both = tempfile.NamedTemporaryFile(prefix="initrd-")  # noqa: SIM115
    both.write(first + bytes(-len(first) % 4) + Path(f"{image}.modules").read_bytes())
    both.flush()
    words[at] = both.name
    at = words.index("-append") + 1
    words[at] = " ".join(w for w in words[at].split() if w not in kernel.without)
    panda = Panda(arch=guest.arch, mem="256M", expect_prompt=guest.prompt, extra_args=words)
    out: list[Any] = []

    @panda.queue_blocking
    def work() -> None:
        reach_prompt(panda.serial_console, {"prompt": guest.prompt, "timeout": 300})
        panda.run_serial_cmd("for m in /modules/*; do insmod $m; done 2>/dev/null", timeout=120)
        out.append(look(panda))
        panda.end_analysis()

    panda.run()
    return out[0]


def case_kernel(name: str, image: str) -> Any:
    def look(panda: Any) -> Any:
        out = {**_plain(look_at(panda)), "kernel": look_at_kernel(panda)}
        out["sockets"] = look_at_sockets(panda)
        return out

    return on_kernel(name, image, look)


@pytest.fixture(scope="module", autouse=True)
def report() -> Any:
    yield
    print(
        "\n| guest and kernel | release | layout | processes, maps, files, credentials | sockets "
        "| modules | mounts | log | time |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(_ROWS))


@pytest.mark.parametrize("name", KERNELS)
def test_kernel(name: str) -> None:
    kernel = KERNELS[name]
    guests = ROOT / "pandalite" / "_lib" / "guests" / kernel.arch
    if not guests.exists():
        pytest.skip(f"the tiny guest {kernel.arch} was not built")
    out = run_case(case_kernel, name, str(image_of(kernel)), timeout=900)
    check_processes(out)
    sockets = check_sockets(out["sockets"])
    users = len(out["seen"])
    without = "" if out["knows_positions"] else ", no positions"
    modules = f"{len(out['modules'])} equal" if isinstance(out["modules"], list) else "not shown"
    assert len(out["proc_modules"]) > 3, "none of the kernel's own modules was loaded"
    row = (
        f"| {name} | {out['release']} | {out['layout']} "
        f"| {len(out['found'])} and {users} equal{without} "
        f"| {sockets} | {modules} | {' | '.join(check_kernel(out['kernel']))} |"
    )
    _ROWS.append(row)
    # Of all kernels here all of it can be found.
    assert "not shown" not in row and "no positions" not in row, row
