"""Introspection of other kernels than the guests' own: Debian's suites, and KASLR.

Not collected by default, because it downloads kernels: ``make test-guests``. Each kernel
is booted with the tiny guest's own initial RAM file system, whose modules do not fit
it, so there is no network; what is looked at needs none. Prints the table in
docs/introspection.md.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ctools import ROOT
from guest import run_case
from test_os_guest import _plain, check_processes, look_at
from test_os_kernel_guest import check_kernel, look_at_kernel

sys.path.insert(0, str(ROOT / "tools"))

from debian import Archive, ArchiveError
from guestkit.deb import Package
from project import cache_dir


class Kernel(NamedTuple):
    """A kernel: whose guest, which suite and package; what is different in its options."""

    arch: str
    suite: str
    debian: str
    pattern: str
    without: tuple[str, ...] = ()


_CLOUD = "linux-image-[0-9.]+-[0-9]+-cloud-amd64-unsigned"
_CLOUD_ARM = "linux-image-[0-9.]+-[0-9]+-cloud-arm64-unsigned"
_TRIXIE = "linux-image-[0-9.]+[+]deb13-cloud-amd64-unsigned"
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
        "linux-binary-[0-9.]+[+]deb14-cloud-amd64",
        ("nokaslr", "norandmaps"),
    ),
    "arm sid": Kernel("arm", "sid", "armhf", "linux-binary-[0-9.]+[+]deb14-armmp"),
    "aarch64 sid": Kernel("aarch64", "sid", "arm64", "linux-binary-[0-9.]+[+]deb14-cloud-arm64"),
    "riscv64 sid": Kernel("riscv64", "sid", "riscv64", "linux-binary-[0-9.]+[+]deb14-riscv64"),
    "ppc64el trixie": Kernel(
        "ppc64el", "trixie", "ppc64el", "linux-image-[0-9.]+[+]deb13-powerpc64le"
    ),
}

_ROWS: list[str] = []


def image_of(kernel: Kernel) -> Path:
    """The kernel's image, from the newest package that fits."""
    archive = Archive(kernel.suite, kernel.debian, cache_dir())
    archive.update()
    names = [n for n in archive.package_names(kernel.pattern) if re.fullmatch(kernel.pattern, n)]
    if not names:
        pytest.skip(f"the mirror has no {kernel.pattern} in {kernel.suite}")
    name = max(names, key=lambda n: [int(x) for x in re.findall(r"\d+", n)])
    try:
        deb = archive.binary(name)
    except ArchiveError as error:
        pytest.skip(f"the mirror does not give {name}: {error}".splitlines()[0])
    out = cache_dir() / "test-kernels" / deb.name
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch, Package(deb, Path(scratch)) as package:
            (path,) = package.paths(r"boot/vmlinu[xz]-|usr/lib/modules/[^/]+/vmlinuz$")
            data = package.read(path)
        part = out.with_suffix(".part")
        part.write_bytes(data)
        part.rename(out)
    return out


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
    at = words.index("-append") + 1
    words[at] = " ".join(w for w in words[at].split() if w not in kernel.without)
    panda = Panda(arch=guest.arch, mem="256M", expect_prompt=guest.prompt, extra_args=words)
    out: list[Any] = []

    @panda.queue_blocking
    def work() -> None:
        reach_prompt(panda.serial_console, {"prompt": guest.prompt, "timeout": 300})
        out.append(look(panda))
        panda.end_analysis()

    panda.run()
    return out[0]


def case_kernel(name: str, image: str) -> Any:
    def look(panda: Any) -> Any:
        return {**_plain(look_at(panda)), "kernel": look_at_kernel(panda)}

    return on_kernel(name, image, look)


@pytest.fixture(scope="module", autouse=True)
def report() -> Any:
    yield
    print(
        "\n| guest and kernel | release | layout | processes, maps, files, credentials | modules "
        "| mounts | log | time |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(_ROWS))


@pytest.mark.parametrize("name", KERNELS)
def test_kernel(name: str) -> None:
    kernel = KERNELS[name]
    guests = ROOT / "pandalite" / "_lib" / "guests" / kernel.arch
    if not guests.exists():
        pytest.skip(f"the tiny guest {kernel.arch} was not built")
    out = run_case(case_kernel, name, str(image_of(kernel)), timeout=900)
    check_processes(out)
    users = len(out["seen"])
    without = "" if out["knows_positions"] else ", no positions"
    modules = f"{len(out['modules'])} equal" if isinstance(out["modules"], list) else "not shown"
    _ROWS.append(
        f"| {name} | {out['release']} | {out['layout']} "
        f"| {len(out['found'])} and {users} equal{without} "
        f"| {modules} | {' | '.join(check_kernel(out['kernel']))} |"
    )
