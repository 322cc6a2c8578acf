"""The bare-metal self-test guests: one of each architecture runs, and is watched.

docs/baremetal.md says what they do. Each is built from the sources in
tools/baremetal/, needs no disk and no firmware but the PC's, and ends within a
second, so every architecture is tested whenever the tests run.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ctools import ROOT
from elftools.elf.elffile import ELFFile
from guest import run_case
from snippets import symbols_of

from pandalite import Panda
from pandalite._bindings.arches import ARCHITECTURES
from pandalite.errors import GuestReset, GuestShutdown

sys.path.insert(0, str(ROOT / "tools"))

import build_baremetal
from build_baremetal import CALLS, TICKS
from project import BuildError, cache_dir

TESTS = ("self_test_memory", "self_test_branches", "self_test_timer", "self_test_user")


def bytes_at(elf: Path, address: int, size: int) -> bytes:
    """What the file has for an address of the guest."""
    with elf.open("rb") as file:
        for segment in ELFFile(file).iter_segments():
            offset = address - segment["p_vaddr"]
            if offset >= 0 and offset + size <= segment["p_filesz"]:
                data: bytes = segment.data()[offset : offset + size]
                return data
    raise AssertionError(f"{address:#x} is in no segment")


def case_self_test(arch: str, elf_path: str) -> dict[str, Any]:
    """Run a guest up to its power-off; report what it printed and what was seen."""
    elf = Path(elf_path)
    symbols = symbols_of(elf)
    names = {symbols[name]: name for name in (*TESTS, "_start", "trap_entry", "user_entry")}
    end = symbols["power_off"]
    user = range(symbols["user_begin"], symbols["user_end"])
    seen: Counter[str] = Counter()
    stacks: dict[str, int] = {}
    bad: list[str] = []
    report: dict[str, Any] = {}

    with tempfile.NamedTemporaryFile() as serial:
        words = [*build_baremetal.machine_words(arch, elf), "-serial", f"file:{serial.name}"]
        panda = Panda(arch=arch, mem="64M", extra_args=words)

        @panda.cb_before_block_exec
        def block(cpu: Any, tb: Any) -> None:
            pc = tb.pc
            kernel = panda.in_kernel_mode(cpu)
            seen["kernel" if kernel else "user"] += 1
            if kernel == (pc in user):
                bad.append(f"mode at {pc:#x}")
            sp = panda.arch.get_reg(cpu, panda.arch.reg_sp)
            if sp != panda.current_sp(cpu) or pc != panda.arch.get_pc(cpu):
                bad.append(f"registers at {pc:#x}")
            name = names.get(pc)
            if name is not None:
                seen[name] += 1
                stacks.setdefault(name, sp)
            if pc == symbols["user_entry"]:
                code = panda.virtual_memory_read(cpu, pc, tb.size)
                if code != bytes_at(elf, pc, tb.size):
                    bad.append(f"code at {pc:#x}: {code.hex()}")
            if pc == end:
                report["counter"] = panda.virtual_memory_read(cpu, symbols["counter"], 4).hex()
                report["as int"] = panda.virtual_memory_read(cpu, symbols["counter"], 4, fmt="int")
                report["final stack"] = sp
                panda.end_analysis()

        panda.run()
        text = serial.read().decode()

    return {**report, "text": text, "seen": seen, "stacks": stacks, "bad": bad[:10]}


def case_sabotage(arch: str, elf_path: str, kind: str) -> tuple[str, str]:
    """Make one of a guest's tests fail; returns what it printed and how the run ended."""
    elf = Path(elf_path)
    symbols = symbols_of(elf)
    done: list[int] = []

    with tempfile.NamedTemporaryFile() as serial:
        words = [*build_baremetal.machine_words(arch, elf), "-serial", f"file:{serial.name}"]
        panda = Panda(arch=arch, mem="64M", extra_args=words)

        @panda.cb_virt_mem_before_write(name="memory", enabled=False)
        def memory(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
            if addr == symbols["buffer"] + 3 and size == 1:
                buf[0] ^= 1
                done.append(pc)

        @panda.cb_before_block_exec(name="branches", enabled=False)
        def branches(cpu: Any, tb: Any) -> None:
            if tb.pc == symbols["function_1"]:
                panda.arch.set_pc(cpu, symbols["function_2"])
                done.append(tb.pc)

        @panda.cb_before_block_exec(name="user", enabled=False)
        def user(cpu: Any, tb: Any) -> None:
            if tb.pc == symbols["call_trap"] and not done:
                panda.virtual_memory_write(cpu, symbols["user_sum"], b"\x55" * 4)
                done.append(tb.pc)

        @panda.cb_before_block_exec(name="trap", enabled=False)
        def trap(cpu: Any, tb: Any) -> None:
            if not panda.in_kernel_mode(cpu) and not done:
                # What only the kernel may execute.
                panda.arch.set_pc(cpu, symbols["halt"])
                done.append(tb.pc)

        # Not before: firmware of the PC would be watched for seconds.
        @panda.cb_before_block_translate
        def start(cpu: Any, pc: int) -> None:
            if pc == symbols["_start"]:
                panda.enable_callback(kind)

        panda.enable_memcb()
        try:
            panda.run()
            end = "nothing"
        except (GuestReset, GuestShutdown) as error:
            end = type(error).__name__
        text = serial.read().decode()
    assert done, "it was not sabotaged"
    return text, end


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_self_test(arch: str) -> None:
    elf = build_baremetal.build(arch)
    symbols = symbols_of(elf)
    report = run_case(case_self_test, arch, str(elf), timeout=60)

    assert report["text"].splitlines() == [
        f"pandalite self-test {arch}",
        "memory ok",
        "branches ok",
        f"timer {report['as int']} ok",
        "user ok",
        "done",
    ]
    order = "little" if ARCHITECTURES[arch].little_endian else "big"
    assert report["as int"] >= TICKS >= 5
    assert int.from_bytes(bytes.fromhex(report["counter"]), order) == report["as int"]

    assert report["bad"] == []
    seen = report["seen"]
    assert [seen.get(name) for name in (*TESTS, "_start", "user_entry")] == [1] * 6
    # The interrupts, the calls, and the call that ends the user program.
    assert seen["trap_entry"] == report["as int"] + CALLS + 1
    # The user program goes on in a new block after each call.
    assert seen["user"] > CALLS
    assert seen["kernel"] > seen["trap_entry"]

    stack = range(symbols["stack_bottom"] + 1, symbols["stack_top"] + 1)
    for name in (*TESTS, "trap_entry"):
        assert report["stacks"][name] in stack, name
    assert report["final stack"] == symbols["stack_top"]
    assert report["stacks"]["user_entry"] == symbols["user_stack_top"]


@pytest.mark.parametrize("kind", ["memory", "branches", "user", "trap"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_guest_notices_what_is_wrong(arch: str, kind: str) -> None:
    elf = build_baremetal.build(arch)
    text, end = run_case(case_sabotage, arch, str(elf), kind, timeout=60)
    assert text.splitlines()[-1] == f"FAIL {kind}"
    # malta has no power switch.
    assert end == ("GuestReset" if arch.startswith("mips") else "GuestShutdown")


def test_every_architecture_has_a_guest() -> None:
    assert set(build_baremetal.architectures()) == set(ARCHITECTURES)


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(BuildError, match=r"no self-test guest for 'vax'; there is: i386, x86_64"):
        build_baremetal.build("vax")


def test_guests_are_reproducible(tmp_path: Path) -> None:
    """Two builds in different places give equal bytes; then the cache is used."""
    first = build_baremetal.ensure("riscv64")
    tools = build_baremetal.tools("binutils-riscv64-linux-gnu", cache_dir())
    cache = tmp_path / "cache"
    (cache / "baremetal").mkdir(parents=True)
    (cache / "baremetal" / tools.name).symlink_to(tools)
    second = build_baremetal.ensure("riscv64", cache)
    assert second.name == first.name and second.read_bytes() == first.read_bytes()
    stamp = second.stat().st_mtime_ns
    copy = build_baremetal.build("riscv64", tmp_path / "out", cache)
    assert copy.read_bytes() == first.read_bytes()
    assert second.stat().st_mtime_ns == stamp


def case_run_until(arch: str, elf_path: str, count: int | None) -> list[Any]:
    """From one test of the guest to the next, by address or by count."""
    symbols = symbols_of(Path(elf_path))
    words = [*build_baremetal.machine_words(arch, Path(elf_path)), "-serial", "null"]
    panda = Panda(arch=arch, mem="64M", extra_args=words)
    first = panda.run_until(address=symbols["self_test_memory"], timeout=60)
    if count is None:
        end = panda.run_until(address=symbols["self_test_branches"], timeout=60)
    else:
        end = panda.run_until(count=count, timeout=60)
    return [first.reason, first.pc == symbols["self_test_memory"], *end]


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_run_until(arch: str) -> None:
    elf = build_baremetal.ensure(arch)
    at = symbols_of(elf)["self_test_branches"]
    first = run_case(case_run_until, arch, str(elf), None, timeout=90)
    assert first[:4] == ["address", True, "address", at]
    # No interrupt comes between them: the same number leads to the same place.
    count = first[4]
    assert count > 20
    again = run_case(case_run_until, arch, str(elf), count, timeout=90)
    assert again == ["address", True, "count", at, count]


def case_pc_after_blocks(arch: str, elf_path: str) -> dict[str, int]:
    """What the pc is after a block, compared with where the next one begins."""
    elf = Path(elf_path)
    symbols = symbols_of(elf)
    seen: Counter[str] = Counter()
    after: list[int] = []
    words = [*build_baremetal.machine_words(arch, elf), "-serial", "null"]
    panda = Panda(arch=arch, mem="64M", extra_args=words)

    @panda.cb_before_block_exec(enabled=False)
    def before(cpu: Any, tb: Any) -> None:
        for pc in after:
            seen["next" if pc == tb.pc else "elsewhere"] += 1
        after.clear()
        if tb.pc == symbols["power_off"]:
            panda.end_analysis()

    @panda.cb_after_block_exec(enabled=False)
    def behind(cpu: Any, tb: Any, exit_code: int) -> None:
        if exit_code <= 1:
            pc = panda.current_pc(cpu)
            seen["registers"] += pc == panda.arch.get_pc(cpu)
            after.append(pc)

    @panda.cb_before_block_translate
    def start(cpu: Any, pc: int) -> None:
        if pc == symbols["_start"]:
            panda.enable_all_callbacks()

    panda.run()
    return dict(seen)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_pc_after_blocks(arch: str) -> None:
    seen = run_case(case_pc_after_blocks, arch, str(build_baremetal.build(arch)), timeout=60)
    assert seen["next"] > 5000
    assert seen["registers"] >= seen["next"]
    # Exceptions and interrupts come between.
    assert seen.get("elsewhere", 0) < CALLS + 100
