"""Filters of callbacks: decided in C, compared with what all events say.

The user mode part of each architecture's self-test guest, which goes the same way each
time, runs twice: once with callbacks that get everything beside those with filters, once with
the filters alone, where the generated code decides.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from guest import boot, in_guest, run_case
from test_baremetal import build_baremetal, symbols_of

from pandalite import Panda
from pandalite._bindings.arches import ARCHITECTURES
from pandalite.filters import make_filter

KINDS = ("before_block_exec", "after_block_exec", "insn_exec", "virt_mem_after_write")


def filters_of(symbols: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Filters to try, some of which combine conditions."""
    user = (symbols["user_begin"], symbols["user_end"])
    trap = symbols["trap_entry"]
    return {
        "pc": {"pc": user},
        "two": {"pc": [(trap, trap + 64), user]},
        "nothing": {"pc": 0x123456},
        "kernel": {"kernel": True},
        "user": {"kernel": False},
        "every": {"every": 7},
        "user every": {"kernel": False, "every": 10},
        "first": {"first": 5},
        "every first": {"every": 3, "first": 4, "kernel": True},
        "once": {"once_per_block": True},
        "once every": {"once_per_block": True, "every": 2},
        "other asid": {"asid": 0x7777777},
    }


def expected(name: str, spec: dict[str, Any], events: list[Any]) -> list[Any]:
    """The same decision in Python, for a list of [pc, kernel, block pc, index]."""
    out = []
    blocks = set()
    count = 0
    for event in events:
        pc, kernel, block = event[:3]
        ranges = spec.get("pc")
        if isinstance(ranges, int):
            ranges = [(ranges, ranges + 1)]
        elif isinstance(ranges, tuple):
            ranges = [ranges]
        if ranges and not any(low <= pc < high for low, high in ranges):
            continue
        if "kernel" in spec and spec["kernel"] != kernel:
            continue
        if "asid" in spec:
            continue
        if spec.get("once_per_block"):
            if block in blocks:
                continue
            blocks.add(block)
        count += 1
        if count % spec.get("every", 1):
            continue
        if "first" in spec and len(out) >= spec["first"]:
            continue
        out.append(event[0])
    return out


def case_filters(arch: str, elf_path: str, with_all: bool) -> dict[str, Any]:
    """Run the guest with all filters on all kinds; returns what each of them got."""
    elf = Path(elf_path)
    symbols = symbols_of(elf)
    got: dict[str, list[Any]] = {}
    block = [0]
    # The guest runs on for a moment after the end is asked for.
    stopped: list[bool] = []
    with tempfile.NamedTemporaryFile() as serial:
        words = [*build_baremetal.machine_words(arch, elf), "-serial", f"file:{serial.name}"]
        panda = Panda(arch=arch, mem="64M", extra_args=words)

        def register(kind: str, name: str, spec: dict[str, Any]) -> None:
            key = f"{kind} {name}"
            got[key] = []

            def note(event: Any) -> None:
                if not stopped:
                    got[key].append(event)

            if kind == "before_block_exec":

                def function(cpu: Any, tb: Any) -> None:
                    if name == "all":
                        block[0] = tb.pc
                        note((tb.pc, panda.in_kernel(cpu), tb.pc))
                    else:
                        note(tb.pc)
            elif kind == "after_block_exec":

                def function(cpu: Any, tb: Any, exit_code: int) -> None:
                    note((tb.pc, None, tb.pc) if name == "all" else tb.pc)
            elif kind == "insn_exec":

                def function(cpu: Any, pc: int) -> None:
                    note((pc, panda.in_kernel(cpu), block[0]) if name == "all" else pc)
            else:

                def function(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
                    note((pc, panda.in_kernel(cpu), block[0]) if name == "all" else pc)

            panda_kind = getattr(panda, f"cb_{kind}")
            panda_kind(function, name=key, enabled=False, **spec)

        @panda.cb_insn_translate
        def select(cpu: Any, pc: int) -> bool:
            return True

        for kind in KINDS:
            if with_all:
                register(kind, "all", {})
            for name, spec in filters_of(symbols).items():
                register(kind, name, spec)

        @panda.cb_before_block_translate
        def start(cpu: Any, pc: int) -> None:
            # After the timer's test: when a timer of QEMU's is served is not exact.
            if pc == symbols["self_test_user"]:
                panda.enable_all_callbacks()
                panda.disable_callback("start")

        @panda.cb_before_block_exec(name="stop", enabled=False, pc=symbols["power_off"])
        def stop(cpu: Any, tb: Any) -> None:
            stopped.append(True)
            panda.end_analysis()

        panda.run()
        text = serial.read().decode()
    return {"got": got, "text": text}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_filters(arch):
    elf = build_baremetal.build(arch)
    whole = run_case(case_filters, arch, str(elf), True)
    alone = run_case(case_filters, arch, str(elf), False)
    assert whole["text"].endswith("user ok\ndone\n"), whole["text"]
    symbols = symbols_of(elf)
    for kind in KINDS:
        events = whole["got"][f"{kind} all"]
        if kind == "after_block_exec":
            # The mode is that of the block, which its start has told.
            modes = iter(whole["got"]["before_block_exec all"])
            events = [[*next(modes)[:3]] for _ in events]
        assert len(events) > 150
        for name, spec in filters_of(symbols).items():
            wanted = expected(name, spec, events)
            assert whole["got"][f"{kind} {name}"] == wanted, f"{kind} {name}"
            assert alone["got"][f"{kind} {name}"] == wanted, f"{kind} {name} alone"
            assert bool(wanted) == (name not in ("nothing", "other asid")), f"{kind} {name}"


#: One callback of each kind, so that generated code decides all of its filter itself.
MEMORY_KINDS = (
    "virt_mem_before_read",
    "virt_mem_after_read",
    "virt_mem_before_write",
    "virt_mem_after_write",
)

#: The range of `addr` is filled in: it depends on the guest.
MEMORY_FILTERS: tuple[dict[str, Any], ...] = (
    {"addr": ()},
    {"every": 3},
    {"once_per_block": True},
    {"addr": (), "every": 2},
)


def case_memory_filters(
    arch: str, elf_path: str, turn: int | None, middle: int
) -> dict[str, list[Any]]:
    """Accesses a callback of each kind gets: unfiltered, or each with another filter."""
    elf = Path(elf_path)
    symbols = symbols_of(elf)
    got: dict[str, list[Any]] = {}
    block = [0]
    stopped: list[bool] = []
    with tempfile.NamedTemporaryFile() as serial:
        words = [*build_baremetal.machine_words(arch, elf), "-serial", f"file:{serial.name}"]
        panda = Panda(arch=arch, mem="64M", extra_args=words)

        def register(kind: str, spec: dict[str, Any]) -> None:
            got[kind] = []

            def note(pc: int, addr: int) -> None:
                if not stopped:
                    got[kind].append([pc, addr, block[0]])

            if kind == "virt_mem_before_read":

                def function(cpu: Any, pc: int, addr: int, size: int) -> None:
                    note(pc, addr)
            else:

                def function(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
                    note(pc, addr)

            getattr(panda, f"cb_{kind}")(function, name=kind, enabled=False, **spec)

        @panda.cb_before_block_exec(enabled=False)
        def begin(cpu: Any, tb: Any) -> None:
            block[0] = tb.pc

        for number, kind in enumerate(MEMORY_KINDS):
            spec: dict[str, Any] = {}
            if turn is not None:
                spec = dict(MEMORY_FILTERS[(number + turn) % len(MEMORY_FILTERS)])
                if "addr" in spec:
                    spec["addr"] = (0, middle)
            register(kind, spec)

        @panda.cb_before_block_translate
        def start(cpu: Any, pc: int) -> None:
            if pc == symbols["self_test_user"]:
                panda.enable_all_callbacks()
                panda.disable_callback("start")

        @panda.cb_before_block_exec(name="stop", enabled=False, pc=symbols["power_off"])
        def stop(cpu: Any, tb: Any) -> None:
            stopped.append(True)
            panda.end_analysis()

        panda.run()
        got["text"] = [serial.read().decode()]
    return got


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_filters_of_memory(arch):
    elf = str(build_baremetal.build(arch))
    whole = run_case(case_memory_filters, arch, elf, None, 0)
    addresses = sorted(addr for kind in MEMORY_KINDS for _, addr, _ in whole[kind])
    middle = addresses[len(addresses) // 2]
    for turn in range(len(MEMORY_FILTERS)):
        found = run_case(case_memory_filters, arch, elf, turn, middle)
        assert found["text"][0].endswith("user ok\ndone\n"), found["text"]
        for number, kind in enumerate(MEMORY_KINDS):
            spec = MEMORY_FILTERS[(number + turn) % len(MEMORY_FILTERS)]
            wanted = [e for e in whole[kind] if "addr" not in spec or e[1] < middle]
            if "once_per_block" in spec:
                first = {e[2]: e for e in reversed(wanted)}
                wanted = [e for e in wanted if first.get(e[2]) is e]
            every = spec.get("every", 1)
            wanted = wanted[every - 1 :: every]
            assert found[kind] == wanted, f"{kind} {spec}"
            assert 0 < len(wanted) < len(whole[kind]), f"{kind} {spec}"


def case_linux(arch: str) -> dict[str, Any]:
    """Address spaces, accessed addresses and flags, in a guest with processes."""
    panda = boot(arch)
    out: dict[str, Any] = {"asid": [0, 0], "addr": [0, 0], "flag": [], "asids": []}
    flag = panda.flag(False)
    spaces: list[int] = []

    @panda.cb_before_block_exec(name="look", enabled=False, kernel=False)
    def look(cpu: Any, tb: Any) -> None:
        asid = panda.current_asid(cpu)
        if asid not in spaces:
            spaces.append(asid)
            out["sp"] = panda.current_sp(cpu)

    def work() -> Any:
        panda.enable_callback("look")
        panda.run_serial_cmd("echo look")
        panda.delete_callback("look")
        # The shell; its page tables stay where they are.
        shell = spaces[0]
        page = out["sp"] & ~0xFFF

        @panda.cb_before_block_exec(asid=[shell, 0x1234000])
        def in_shell(cpu: Any, tb: Any) -> None:
            out["asid"][panda.current_asid(cpu) != shell] += 1

        @panda.cb_before_block_exec
        def everywhere(cpu: Any, tb: Any) -> None:
            out["asids"].append(panda.current_asid(cpu) == shell)

        @panda.cb_virt_mem_before_write(addr=(page, page + 4096))
        def to_stack(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
            out["addr"][not page <= addr < page + 4096] += 1

        @panda.cb_before_block_exec(name="switch", when=flag)
        def switch(cpu: Any, tb: Any) -> None:
            out["flag"].append(bool(flag))
            if len(out["flag"]) == 10:
                flag.clear()

        panda.run_serial_cmd("cat /proc/version | wc -c")
        assert not out["flag"]
        with flag:
            panda.run_serial_cmd("echo again")
        panda.run_serial_cmd("echo and again")
        panda.delete_callbacks()
        counts = {"few": 0}

        @panda.cb_before_block_exec(first=3)
        def few(cpu: Any, tb: Any) -> None:
            counts["few"] += 1

        panda.run_serial_cmd("echo few")
        counts["then"] = panda.libpanda.panda_callback_count(
            panda.callback_dictionary[panda.callback.before_block_exec].number
        )
        panda.enable_callback("few")
        panda.run_serial_cmd("echo more")
        return counts

    out["few"] = in_guest(panda, work)
    out["asids"] = [out["asids"].count(True), out["asids"].count(False)]
    return out


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_in_linux(arch):
    out = run_case(case_linux, arch)
    right, wrong = out["asid"]
    assert right > 100 and wrong == 0
    # What no filter sees says the same, but for the block in which it began.
    assert right == pytest.approx(out["asids"][0], abs=300)
    assert out["asids"][1] > 100
    right, wrong = out["addr"]
    assert right > 10 and wrong == 0
    assert out["flag"] == [True] * 10
    # Nothing is left that slows the guest once there were enough.
    assert out["few"] == {"few": 6, "then": 0}


def case_wrong() -> dict[str, str]:
    """What is said about filters that make no sense."""
    panda = Panda(arch="x86_64", extra_args=["-S"])
    said: dict[str, str] = {}

    def function(cpu: Any, tb: Any) -> None:
        pass

    tries: dict[str, dict[str, Any]] = {
        "empty": {"pc": []},
        "backwards": {"pc": (20, 10)},
        "far": {"pc": (0, 1 << 65)},
        "word": {"pc": "main"},
        "odd": {"pc": [(1, 2, 3)]},
        "zero": {"every": 0},
        "bool": {"first": True},
        "flag": {"when": True},
        "name": {"pid": 1},
        "addr": {"addr": 4},
        "procname": {"procname": 5},
        "asid": {"asid": []},
    }
    for name, spec in tries.items():
        try:
            panda.cb_before_block_exec(function, name=name, **spec)
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
    count = 0
    try:
        while count < 100:
            panda.cb_before_block_exec(function, name=f"n{count}", pc=count)
            count += 1
    except Exception as error:
        said["many"] = f"{type(error).__name__}: {error}"
    said["count"] = str(count)
    said["left"] = str(len(panda.registered_callbacks))
    panda.delete_callback("n0")
    panda.cb_before_block_exec(function, name="in its place", pc=1)
    return said


def test_wrong_filters():
    said = run_case(case_wrong)
    kinds = {name: text.split(":")[0] for name, text in said.items()}
    for name in ("empty", "backwards", "far", "zero", "addr", "asid"):
        assert kinds[name] == "ValueError", said[name]
    for name in ("word", "odd", "bool", "flag", "name"):
        assert kinds[name] == "TypeError", said[name]
    assert kinds["procname"] == "TypeError" and "name of a process" in said["procname"]
    assert "once_per_block" in said["name"]
    assert kinds["many"] == "StateError" and said["count"] == said["left"] == "55"


def test_ranges():
    made = make_filter(pc=[range(16, 32), (64, 1 << 64), 5], addr=(1, 2), kernel=False)
    assert [(made.pc[i].first, made.pc[i].last) for i in range(made.n_pc)] == [
        (16, 31),
        (64, (1 << 64) - 1),
        (5, 5),
    ]
    assert (made.n_addr, made.mode) == (1, 2)
    assert make_filter() is None and make_filter(every=1) is None
