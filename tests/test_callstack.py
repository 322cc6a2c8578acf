"""callstack_instr: calls, returns and who has called, on every architecture."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from typing import Any

import bare_programs as programs
import pytest
from guest import boot, in_guest, run_case
from test_bare_machine import machine, restart

from pandalite._bindings.structs import prog_point


def case_program(program: str) -> dict[str, Any]:
    panda = machine(program)
    want = programs.expected(program, panda.register_size)
    func, _rest = (programs.label(program, name) for name in ("func", "rest"))
    events: list[Any] = []
    stacks: dict[str, Any] = {}

    @panda.ppp("callstack_instr", "on_call")
    def called(cpu: Any, address: int) -> None:
        events.append(["call", address, panda.current_pc(cpu), panda.arch.get_pc(cpu)])

    @panda.ppp("callstack_instr", "on_ret")
    def returned(cpu: Any, address: int) -> None:
        events.append(["ret", address, panda.current_pc(cpu), panda.arch.get_pc(cpu)])

    plugin = panda.plugins["callstack_instr"]

    def look(name: str) -> Any:
        def function(cpu: Any, *_: Any) -> None:
            functions = (ctypes.c_uint64 * 4)()
            n = plugin.get_functions(functions, 4, cpu)
            point = prog_point()
            plugin.get_prog_point(cpu, point)
            stacks.setdefault(name, []).append(
                [panda.callstack_callers(2, cpu), list(functions[:n]), point.caller, point.pc]
            )

        return function

    for pc in sorted({*want.trace[want.trace.index(func) :], want.trace[0]}):
        panda.add_hook(pc, look("hook"))
    panda.cb_before_block_exec(look("block"), name="block", pc=func)
    panda.run_until(address=want.end, timeout=30)
    found = {"events": list(events), "stacks": dict(stacks)}
    events.clear()
    stacks.clear()
    panda.disable_ppp("called")
    panda.disable_ppp("returned")
    restart(panda, program)
    panda.run_until(address=want.end, timeout=30)
    found["later"] = [len(events), stacks["block"] == found["stacks"]["block"]]
    return found


@pytest.mark.parametrize("program", list(programs.PROGRAMS))
def test_program(program: str) -> None:
    found = run_case(case_program, program)
    func, rest, end = (programs.label(program, name) for name in ("func", "rest", "end"))
    want = programs.expected(program, 8)
    assert found["events"] == [["call", func, func, func], ["ret", func, rest, rest]]
    assert found["stacks"]["block"] == [[[rest, 0], [func], rest, func]]
    for callers, functions, caller, pc in found["stacks"]["hook"]:
        inside = pc not in (want.trace[0], rest)
        assert (callers, functions, caller) == (
            ([rest, 0], [func], rest) if inside else ([0, 0], [], 0)
        )
    assert len(found["stacks"]["hook"]) == 1 + len(want.trace) - want.trace.index(func)
    assert found["later"] == [0, True]
    assert end > 0


def case_linux(arch: str, kind: str) -> dict[str, Any]:
    panda = boot(arch)
    panda.load_plugin("callstack_instr", {"stack_type": kind})
    count: Counter[str] = Counter()
    depths: list[int] = []

    def work() -> None:
        @panda.ppp("callstack_instr", "on_call")
        def called(cpu: Any, address: int) -> None:
            count["calls"] += 1
            if count["calls"] % 50:
                return
            mode = "kernel" if panda.in_kernel(cpu) else "user"
            count[mode] += 1
            count["pc"] += panda.current_pc(cpu) == address
            back = (ctypes.c_uint64 * 1)()
            panda.libpanda.panda_hooks_get_return_address(cpu, back)
            callers = panda.callstack_callers(64, cpu)
            # Bit 0 of a return address says which instruction set.
            count[f"{mode} right"] += callers[0] == back[0] & ~(arch == "arm")
            depths.append(sum(c != 0 for c in callers))

        @panda.ppp("callstack_instr", "on_ret")
        def returned(cpu: Any, address: int) -> None:
            count["returns"] += 1

        for _ in range(3):
            panda.run_serial_cmd("uname -a; echo $((1 + 2))")

    in_guest(panda, work)
    return {**count, "deepest": max(depths)}


@pytest.mark.parametrize(
    ("arch", "kind"), [("x86_64", "heuristic"), ("x86_64", "threaded"), ("arm", "threaded")]
)
def test_linux(arch: str, kind: str) -> None:
    count = run_case(case_linux, arch, kind)
    assert count["calls"] > 20000
    assert count["pc"] == count["kernel"] + count["user"]
    for mode in ("kernel", "user"):
        assert count[mode] > 50
        assert count[f"{mode} right"] == count[mode]
    assert count["deepest"] > 10
    assert 0.9 < count["returns"] / count["calls"] < 1.05


def case_binaries(arch: str) -> dict[str, Any]:
    panda = boot(arch)
    out: dict[str, Any] = {"user": Counter(), "kernel": Counter(), "wrong": []}
    seen = Counter[str]()

    def work() -> None:
        plugin = panda.plugins["callstack_instr"]
        plugin.callstack_enable_binary_tracking()

        def binaries(n: int, cpu: Any) -> list[str]:
            libs = (ctypes.c_char_p * n)()
            found = plugin.get_binaries(libs, n, cpu)
            return [text.decode() for text in libs[:found] if text is not None]

        @panda.ppp("callstack_instr", "on_call")
        def called(cpu: Any, address: int) -> None:
            if panda.get_process_name(cpu) != "ls":
                return
            mode = "kernel" if panda.in_kernel(cpu) else "user"
            seen[mode] += 1
            if seen[mode] % 50:
                return
            names = binaries(16, cpu)
            frames = panda.callstack(cpu, 16)
            out[mode].update(names)
            if len(names) != len([c for c in panda.callstack_callers(16, cpu) if c]):
                out["wrong"].append([len(names), panda.callstack_callers(16, cpu)])
            for frame, name in zip(frames, names):
                # What a symbol is in is found in another way.
                path = getattr(frame.caller_symbol, "path", None) if mode == "user" else None
                if path and path != name:
                    out["wrong"].append([path, name])

        panda.run_serial_cmd("ls -l / /etc", timeout=60)
        panda.disable_ppp("called")
        out["outside"] = binaries(4, panda.cpu)
        out["modules"] = panda.run_serial_cmd("cut -d' ' -f1 /proc/modules").split()

    in_guest(panda, work)
    return {**out, "counts": dict(seen)}


@pytest.mark.parametrize("arch", ["x86_64", "arm"])
def test_binaries(arch: str) -> None:
    out = run_case(case_binaries, arch)
    assert out["wrong"] == [] and out["outside"] == []
    user = out["user"]
    assert any(name.endswith("libc.so.6") for name in user), user
    assert any(re.search("/(ls|busybox-shared)$", name) for name in user), user
    assert "[???]" not in user
    assert out["kernel"]["[kernel]"] > 20
    assert set(out["kernel"]) <= {"[kernel]", *out["modules"]}
