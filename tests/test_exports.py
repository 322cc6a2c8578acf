"""The built core libraries as files: what they export, need and give away.

And that two of them, for different architectures, get along in one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ctools import INCLUDE, ROOT, load_tool
from elftools.elf.elffile import ELFFile
from guest import boot, in_guest, run_case

from pandalite import __version__
from pandalite._bindings import functions, loader
from pandalite._bindings.arches import ARCHITECTURES

ARCHES = list(ARCHITECTURES)

#: Libraries of glibc that every Linux system has; the last is the loader of this host.
SYSTEM_LIBRARIES = {
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
    "ld-linux-x86-64.so.2",
}

#: The glibc the build targets: Debian 10, RHEL 8 and everything later have it.
NEWEST_GLIBC = (2, 28)


@pytest.fixture(scope="module", params=ARCHES)
def library(request: pytest.FixtureRequest) -> Path:
    """The file of an architecture's core library."""
    return loader.LIBRARY_DIR / loader.library_name(request.param)


@pytest.fixture(scope="module")
def elf(library: Path) -> Iterator[ELFFile]:
    """The same, parsed."""
    with library.open("rb") as file:
        yield ELFFile(file)


def dynamic(elf: ELFFile, tag: str) -> list[Any]:
    """The entries of the dynamic section that have a tag."""
    return [e for e in elf.get_section_by_name(".dynamic").iter_tags() if e.entry.d_tag == tag]


def flags(elf: ELFFile, tag: str) -> int:
    """The value of DT_FLAGS or DT_FLAGS_1."""
    return sum(entry.entry.d_val for entry in dynamic(elf, tag))


def test_exports_the_public_functions(elf: ELFFile) -> None:
    table = elf.get_section_by_name(".dynsym")
    exported = {
        s.name: s["st_info"]["type"]
        for s in table.iter_symbols()
        if s.name and s["st_shndx"] != "SHN_UNDEF"
    }
    api = load_tool("gen_ctypes").read_headers(INCLUDE)
    assert set(exported) == set(api.functions)
    assert set(functions.PROTOTYPES) <= set(exported)
    assert set(exported.values()) == {"STT_FUNC"}


def test_needs_only_the_system(library: Path, elf: ELFFile) -> None:
    assert {entry.needed for entry in dynamic(elf, "DT_NEEDED")} <= SYSTEM_LIBRARIES
    assert [entry.soname for entry in dynamic(elf, "DT_SONAME")] == [library.name]


def test_old_glibc_suffices(elf: ELFFile) -> None:
    section = elf.get_section_by_name(".gnu.version_r")
    names = {entry.name for _, entries in section.iter_versions() for entry in entries}
    assert names
    for name in names:
        kind, _, number = name.partition("_")
        assert kind == "GLIBC", name
        assert tuple(map(int, number.split("."))) <= NEWEST_GLIBC, name


def test_hardened(elf: ELFFile) -> None:
    df_textrel, df_bind_now, df_1_now = 4, 8, 1
    kinds = {segment["p_type"]: segment for segment in elf.iter_segments()}
    assert "PT_GNU_RELRO" in kinds
    assert not kinds["PT_GNU_STACK"]["p_flags"] & 1, "executable stack"
    assert flags(elf, "DT_FLAGS") & df_bind_now or flags(elf, "DT_FLAGS_1") & df_1_now
    assert not dynamic(elf, "DT_TEXTREL")
    assert not flags(elf, "DT_FLAGS") & df_textrel
    for segment in elf.iter_segments("PT_LOAD"):
        assert segment["p_flags"] & 3 != 3, "a segment is writable and executable"


def test_own_symbols_first(elf: ELFFile) -> None:
    df_symbolic = 2
    assert dynamic(elf, "DT_SYMBOLIC") or flags(elf, "DT_FLAGS") & df_symbolic


def test_relocatable(library: Path, elf: ELFFile) -> None:
    assert not dynamic(elf, "DT_RPATH")
    assert not dynamic(elf, "DT_RUNPATH")
    data = library.read_bytes()
    cache = load_tool("project").cache_dir()
    for path in {ROOT, cache, cache.resolve(), Path.home() / ".cache"}:
        where = data.find(str(path).encode())
        assert where < 0, data[max(0, where - 40) : where + 120]


def test_stripped(elf: ELFFile) -> None:
    names = {section.name for section in elf.iter_sections()}
    assert ".symtab" not in names
    assert not {name for name in names if name.startswith((".debug", ".zdebug"))}


def case_all_libraries() -> dict[str, Any]:
    """Load all, then run a machine in the first; the others must not notice."""
    cores = {arch: loader.load(arch) for arch in ARCHES}
    result: dict[str, Any] = {
        arch: [
            core.panda_arch_name().decode(),
            core.panda_version().decode(),
            core.panda_qemu_version().decode(),
        ]
        for arch, core in cores.items()
    }
    other = cores["i386"]
    refused = other.panda_run()
    text = (other.panda_last_error() or b"").decode()
    assert not cores["x86_64"].panda_last_error()  # each has an error text of its own

    panda = boot("x86_64")
    blocks = 0

    @panda.cb_before_block_exec
    def count(cpu: Any, tb: Any) -> None:
        nonlocal blocks
        blocks += 1

    states = []

    def work() -> Any:
        states.append([core.panda_machine_state() for core in cores.values()])
        return panda.run_serial_cmd("uname -m")

    result["output"] = in_guest(panda, work)
    states.append([core.panda_machine_state() for core in cores.values()])
    cpus = {bool(core.panda_get_cpu().contents.env_ptr) for core in cores.values()}
    return {
        **result,
        "refused": [refused, text],
        "blocks": blocks,
        "states": states,
        "cpus": sorted(cpus),
        "registered": [core.panda_callback_count(4) for core in cores.values()],
    }


def test_all_libraries_in_one_process() -> None:
    from pandalite._bindings.enums import PandaMachineState as State
    from pandalite._bindings.enums import PandaStatus

    result = run_case(case_all_libraries)
    for arch in ARCHES:
        name, version, qemu = result[arch]
        assert (name, version) == (arch, __version__)
        assert qemu.startswith("10.0.")
    assert result["refused"] == [PandaStatus.ERR_STATE, "there is no machine"]
    assert result["output"] == "x86_64"
    assert result["blocks"] > 1000
    # The state of x86_64, and of the others, in the run and after it.
    others = [State.NONE] * (len(ARCHES) - 1)
    assert result["states"] == [[State.RUNNING, *others], [State.PAUSED, *others]]
    # The machine's CPU has registers, the other library's has none.
    assert result["cpus"] == [False, True]
    assert result["registered"] == [0] * len(ARCHES)
