"""Memory hooks, hypercalls, breakpoints, PyPANDA's hooks2: on machines without devices."""

from __future__ import annotations

from collections import Counter
from typing import Any

import bare_programs as programs
import pytest
from bare_programs import CODE, DATA
from guest import boot, in_guest, run_case
from test_bare_machine import machine, restart

from pandalite._bindings.arches import ARCHITECTURES
from pandalite._bindings.enums import PandaMachineState

#: The hypercall's bytes in the order of a little-endian guest, and its register.
HYPERCALL = {
    **dict.fromkeys(("i386", "x86_64"), ("0fa2", "EAX")),
    "arm": ("100700ee", "R7"),
    "aarch64": ("1f5000d5", "X8"),
    **dict.fromkeys(("mips", "mipsel", "mips64", "mips64el"), ("0a000000", "V0")),
    **dict.fromkeys(("ppc", "ppc64"), ("00004a69", "R0")),
    "riscv64": ("13200000", "A7"),
}


def case_memory(program: str) -> dict[str, Any]:
    panda = machine(program)
    want = programs.expected(program, panda.register_size)
    width = panda.register_size
    seen: dict[str, list[Any]] = {}
    last = DATA + 0x40 + width  # the second sum

    def note(name: str) -> Any:
        def function(cpu: Any, access: Any) -> None:
            value = int.from_bytes(bytes(access.buf[0:width]), "little") if access.buf else None
            seen.setdefault(name, []).append([access.pc, access.addr, access.size, value])

        return function

    panda.hook_virt_mem_read(DATA, DATA)(note("before read"))
    panda.hook_virt_mem_read(DATA, DATA, on_before=False, on_after=True)(note("after read"))
    panda.hook_phys_mem_read(DATA + width, DATA + 2 * width)(note("phys read"))
    # One byte in the middle of what is written.
    panda.hook_phys_mem_write(last + 1, last + 1)(note("phys write"))
    panda.hook_virt_mem_write(last + width, last + width, on_after=True)(note("both"))
    panda.hook_virt_mem_write(last - 1, last - 1, enabled=False)(note("disabled"))

    @panda.hook_mem(DATA, DATA + 0x100, True, True, True, True, True, True, True)
    def once(cpu: Any, access: Any) -> None:
        seen.setdefault("once", []).append(access.on_before)
        access.hook.contents.enabled = False

    panda.run_until(address=want.end, timeout=30)
    found: dict[str, Any] = {"seen": dict(seen), "kept": len(panda.mem_hooks)}
    panda.delete_callbacks()
    seen.clear()

    @panda.hook_virt_mem_write(last, last)
    def change(cpu: Any, access: Any) -> None:
        access.buf[0] ^= 0xFF

    restart(panda, program)
    panda.run_until(address=want.end, timeout=30)
    found["quiet"] = seen
    value = panda.physical_memory_read(last, width, fmt="int")
    found["changed"] = value == want.sums[1] ^ 0xFF
    errors = []
    for begin, end, kinds in ((5, 4, [True] * 6), (4, 5, [False] * 6)):
        try:
            panda.hook_mem(begin, end, *kinds, True)(note("never"))
        except ValueError as error:
            errors.append(str(error))
    found["errors"] = errors
    return found


@pytest.mark.parametrize("program", ["x86_64", "arm", "mips", "ppc64"])
def test_memory(program: str) -> None:
    found = run_case(case_memory, program)
    width = ARCHITECTURES[program].register_size
    want = programs.expected(program, width)
    reads = [[pc, addr, size, value] for pc, kind, addr, size, value in want.accesses
             if kind == "r" and int(str(addr)) < DATA + 0x40]  # fmt: skip
    writes = [[pc, addr, size, value] for pc, kind, addr, size, value in want.accesses
              if kind == "w"]  # fmt: skip
    seen = found["seen"]
    assert seen["before read"] == [[*reads[0][:3], None]]
    assert seen["after read"] == [reads[0]]
    assert seen["phys read"] == [[*r[:3], None] for r in reads[1:3]]
    second, third = (next(w for w in writes if w[1] == DATA + 0x40 + n * width) for n in (1, 2))
    assert seen["phys write"] == [second]
    assert seen["both"] == [third, third]
    assert "disabled" not in seen
    assert seen["once"] == [True]
    assert found["kept"] == 7
    assert found["quiet"] == {}
    assert found["changed"]
    assert found["errors"] == [
        "a memory hook ends before it begins",
        "a memory hook needs before or after, reads or writes, virtual or physical addresses",
    ]


def case_hypercall(arch: str) -> dict[str, Any]:
    panda = machine(arch)
    code, register = HYPERCALL[arch]
    raw = bytes.fromhex(code)
    if panda.endianness == "big":
        raw = raw[::-1]
    # In place of the first instruction; a handled call counts for none, so one more.
    stop = CODE + len(raw) + len(programs.PROGRAMS[arch][1][1]) // 2
    calls: list[Any] = []

    @panda.cb_after_machine_init
    def ready(cpu: Any) -> None:
        panda.physical_memory_write(CODE, raw)
        restart(panda, arch)
        panda.arch.set_reg(cpu, register, 0x3333)

    def call(magic: int) -> None:
        restart(panda, arch)
        panda.arch.set_reg(panda.cpu, register, magic)
        panda.run_until(address=stop, timeout=30)
        calls.append(panda.arch.get_pc(panda.cpu) - CODE)

    @panda.hypercall([0x1111, 0x2222])
    def first(cpu: Any) -> None:
        calls.append(["first", panda.arch.get_reg(cpu, register)])

    @panda.hypercall(0x3333)
    def second(cpu: Any) -> None:
        calls.append(["second", panda.arch.get_reg(cpu, register)])

    panda.run_until(address=stop, timeout=30)
    for magic in (0x1111, 0x2222, 0x3333):
        call(magic)
    panda.disable_hypercall(first)
    call(0x3333)
    if arch not in ("arm", "aarch64"):
        # There it is an undefined instruction, if nobody handles it.
        call(0x1111)
    errors = []
    for wrong in ("a", [1, "b"], 0x3333):
        try:
            panda.hypercall(wrong)(first)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            errors.append(f"{type(error).__name__}: {error}")
    return {"calls": calls, "length": stop - CODE, "errors": errors, "left": len(panda.hypercalls)}


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_hypercall(arch: str) -> None:
    found = run_case(case_hypercall, arch)
    n = found["length"]
    quiet = [] if arch in ("arm", "aarch64") else [n]
    assert found["calls"] == [
        ["second", 0x3333],
        *(["first", 0x1111], n, ["first", 0x2222], n, ["second", 0x3333], n),
        *(["second", 0x3333], n, *quiet),
    ]
    assert found["errors"] == [
        "TypeError: a hypercall's magic is an int or a list of ints, not 'a'",
        "TypeError: a hypercall's magic is an int or a list of ints, not [1, 'b']",
        "ValueError: there is a function for hypercall 0x3333 already",
    ]
    assert found["left"] == 1


def case_breakpoint(program: str) -> list[Any]:
    import time

    panda = machine(program)
    rest = programs.label(program, "rest")
    end = programs.label(program, "end")
    seen: list[Any] = []

    @panda.cb_after_machine_init(name="place")
    def place(cpu: Any) -> None:
        panda.set_breakpoint(cpu, rest)

    @panda.queue_blocking
    def work() -> None:
        deadline = time.monotonic() + 30
        while panda.libpanda.panda_machine_state() != PandaMachineState.PAUSED:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        seen.append(panda.arch.get_pc(panda.cpu) == rest)
        panda.clear_breakpoint(panda.cpu, rest)
        reached = []

        @panda.hook(end)
        def at_end(cpu: Any, tb: Any, hook: Any) -> None:
            hook.enabled = False
            reached.append(True)

        panda.cont()
        while not reached:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        seen.append(panda.libpanda.panda_machine_state() == PandaMachineState.RUNNING)
        panda.end_analysis()

    panda.run()
    return seen


def test_breakpoint() -> None:
    assert run_case(case_breakpoint, "x86_64") == [True, True]


def case_hook2(program: str) -> dict[str, Any]:
    panda = machine(program)
    want = programs.expected(program, panda.register_size)
    at = {name: programs.label(program, name) for name in ("loop", "rest", "func")}
    seen: dict[str, list[int]] = {}

    def note(name: str) -> Any:
        def function(cpu: Any, tb: Any, nothing: Any) -> None:
            assert nothing is None
            seen.setdefault(name, []).append(panda.current_pc(cpu))

        return function

    panda.hook2("all")(note("all"))
    panda.hook2("user", kernel=False)(note("user"))
    panda.hook2("range", range_begin=at["loop"], range_end=at["loop"])(note("range"))
    panda.hook2("trace", trace_start=at["func"], trace_stop=at["rest"])(note("trace"))
    panda.hook2_single_insn("insn", want.trace[1], kernel=True)(note("insn"))
    panda.hook2_single_insn("off", want.trace[1], kernel=True)(note("off"))
    panda.disable_hook2("off")
    panda.run_until(address=want.end, timeout=30)
    counts = {name: len(pcs) for name, pcs in seen.items()}
    panda.disable_hook2("insn")
    panda.delete_callback("all")
    panda.enable_hook2("off")
    seen.clear()
    restart(panda, program)
    panda.run_until(address=want.end, timeout=30)
    return {"first": counts, "second": {name: len(pcs) for name, pcs in seen.items()}}


def test_hook2() -> None:
    found = run_case(case_hook2, "x86_64")
    want = programs.expected("x86_64", 8)
    loops = sum(pc == programs.label("x86_64", "loop") for pc, *_ in want.blocks)
    # The block at `rest` begins as the trace ends.
    assert found["first"].pop("trace") in (0, 1)
    found["second"].pop("trace", None)
    assert found["first"] == {"all": len(want.blocks), "range": loops, "insn": 1}
    assert found["second"] == {"range": loops, "off": 1}


#: A function of the kernel that `uname` calls.
KERNEL = {"x86_64": "__x64_sys_newuname", "arm": "sys_newuname"}


def case_processes(arch: str) -> dict[str, int]:
    panda = boot(arch)
    count: Counter[str] = Counter()

    def note(name: str) -> Any:
        return lambda cpu, tb, nothing: count.update([name])

    def work() -> None:
        line = panda.run_serial_cmd(f"grep ' {KERNEL[arch]}$' /proc/kallsyms")
        address = int(line.split()[0], 16)
        for process in ("uname", "cat"):
            where = {"range_begin": address, "range_end": address}
            panda.hook2(f"block {process}", procname=process, **where)(note(f"block {process}"))
            panda.hook2_single_insn(f"insn {process}", address, kernel=True, procname=process)(
                note(f"insn {process}")
            )
        for library in ("libc.so", "nonsense"):
            panda.hook2(library, kernel=False, procname="uname", libname=library)(note(library))
        for _ in range(3):
            panda.run_serial_cmd("uname -s; cat /dev/null")

    in_guest(panda, work)
    return dict(count)


@pytest.mark.parametrize("arch", list(KERNEL))
def test_hook2_of_processes(arch: str) -> None:
    count = run_case(case_processes, arch)
    assert count.pop("libc.so") > 100
    assert count == {"block uname": 3, "insn uname": 3}
