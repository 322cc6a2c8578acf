"""Hooks: at any instruction, of every architecture; in a kernel and in programs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import bare_programs as programs
import pytest
from bare_programs import DATA
from guest import boot, in_guest, run_case
from replays import report_of
from test_bare_machine import machine, restart

from pandalite.errors import GuestMemoryError, StateError


def doubled_at(panda: Any) -> int:
    """Where the program stores what its function has returned."""
    return DATA + programs.WORDS * panda.register_size + 0x80


def case_program(program: str) -> dict[str, Any]:
    panda = machine(program)
    want = programs.expected(program, panda.register_size)
    found: dict[str, Any] = {}
    at = {name: programs.label(program, name) for name in ("loop", "rest", "func", "end")}
    first: list[Any] = []

    def run(name: str) -> int:
        if first:
            restart(panda, program)
            panda.physical_memory_write(doubled_at(panda), bytes(panda.register_size))
        first.append(None)
        reason, pc, _ = panda.run_until(address=want.end, timeout=30)
        assert (reason, pc) == ("address", want.end), name
        value: int = panda.physical_memory_read(doubled_at(panda), panda.register_size, fmt="int")
        return value

    def once(name: str, address: int, function: Any) -> int:
        """A run with a hook that is gone afterwards."""
        hook = panda.add_hook(address, function)
        value = run(name)
        hook.disable()
        return value

    # Every instruction, each by a hook of its own.
    seen: list[int] = []

    def note(cpu: Any, tb: Any, hook: Any) -> None:
        assert panda.current_pc(cpu) == panda.arch.get_pc(cpu) == hook.addr
        assert tb.pc <= hook.addr < tb.pc + tb.size
        seen.append(hook.addr)

    hooks = [panda.add_hook(pc, note) for pc in sorted(set(want.trace))]
    found["all"] = [run("all") == want.sums[-1], seen == want.trace]
    # The second of them in the middle of the loop, with blocks translated already.
    for hook in hooks:
        hook.disable()
    seen.clear()
    found["none"] = [run("none") == want.sums[-1], list(seen)]
    middle = want.trace[want.trace.index(at["loop"]) + 1]
    chosen = next(hook for hook in hooks if hook.addr == middle)
    chosen.enable()
    run("one")
    found["one"] = seen == [middle] * programs.WORDS
    chosen.disable()

    # Out of a handler: once, then again by another one.
    calls: list[str] = []

    def last(cpu: Any, tb: Any, hook: Any) -> None:
        calls.append("once")
        hook.enabled = False

    single = panda.add_hook(middle, last)

    def again(cpu: Any, tb: Any, hook: Any) -> None:
        calls.append("rest")
        single.enable()

    other = panda.add_hook(at["rest"], again)
    run("inside")
    run("inside again")
    found["inside"] = calls
    single.disable()
    other.disable()

    # Cleared and set again by the handler: it stays, once.
    flips: list[int] = []

    def flip(cpu: Any, tb: Any, hook: Any) -> None:
        flips.append(hook.addr)
        hook.enabled = False
        hook.enable()

    flipping = panda.add_hook(middle, flip)
    run("flip")
    found["flip"] = flips == [middle] * programs.WORDS
    flipping.disable()

    # What a handler asks for is done once, and does not call it again.
    breaks: list[int] = []

    def leave(cpu: Any, tb: Any, hook: Any) -> None:
        breaks.append(hook.addr)
        panda.break_exec()

    leaving = panda.add_hook(middle, leave)
    found["break"] = [run("break") == want.sums[-1], breaks == [middle] * programs.WORDS]
    leaving.disable()

    # The function: skipped, its arguments, its return, its result.
    found["skip"] = once("skip", at["func"], lambda cpu, tb, hook: hook.skip(0x1234))
    found["skip too"] = once(
        "skip too", at["func"], lambda cpu, tb, hook: panda.skip_function(cpu, 0x4321)
    )
    arguments: list[Any] = []

    def look(cpu: Any, tb: Any, hook: Any) -> None:
        for n in range(12):
            ours: Any
            try:
                ours = hook.argument(n)
            except GuestMemoryError:
                ours = "fault"
            try:
                theirs: Any = panda.arch.get_arg(cpu, n)
            except (ValueError, NotImplementedError) as error:
                theirs = "none" if isinstance(error, NotImplementedError) else "fault"
            arguments.append([n, ours, theirs])
        arguments.append(["return", hook.return_address(), at["rest"] | (program == "thumb")])
        try:
            hook.set_argument(3, 0x77)
            arguments.append(["changed", hook.argument(3), 0x77])
        except GuestMemoryError:
            # There is nothing above the stack.
            arguments.append(["changed", program, "i386"])

    once("arguments", at["func"], look)
    found["arguments"] = [a for a in arguments if a[1] != a[2] and a[2] != "none"]
    found["places"] = len(arguments)
    returned: list[Any] = []

    def on_return(cpu: Any, result: int) -> None:
        returned.append([panda.current_pc(cpu), result])
        panda.arch.set_retval(cpu, 0x99)

    found["changed"] = once(
        "return", at["func"], lambda cpu, tb, hook: hook.on_return(on_return) and None
    )
    found["returned"] = returned == [[at["rest"], want.sums[-1]]]

    # Elsewhere: the function is never called.
    thumb = program == "thumb"

    def elsewhere(cpu: Any, tb: Any, hook: Any) -> None:
        panda.arch.set_pc(cpu, at["end"] | thumb)

    found["elsewhere"] = once("elsewhere", at["rest"], elsewhere)
    panda.libpanda.panda_hooks_disable_hooking()
    found["disabled"] = once("disabled", at["rest"], elsewhere) == want.sums[-1]
    panda.libpanda.panda_hooks_enable_hooking()
    found["left"] = panda.libpanda.panda_hooks_count()
    return found


def case_without_api(program: str) -> dict[str, Any]:
    """As on a Python whose functions the core cannot call itself."""
    from pandalite import callbacks

    callbacks._python_api = lambda failed: None
    return case_program(program)


@pytest.mark.parametrize("program", [*programs.PROGRAMS, "without the API"])
def test_program(program: str) -> None:
    if program == "without the API":
        found = run_case(case_without_api, "x86_64")
    else:
        found = run_case(case_program, program)
    assert found == {
        "all": [True, True],
        "none": [True, []],
        "one": True,
        "inside": ["once", "rest", "once", "rest"],
        "flip": True,
        "break": [True, True],
        "skip": 0x1234,
        "skip too": 0x4321,
        "arguments": [],
        "places": 14,
        "changed": 0x99,
        "returned": True,
        "elsewhere": 0,
        "disabled": True,
        "left": 0,
    }


def case_types(program: str) -> dict[str, Any]:
    """The other types, and the modes."""
    panda = machine(program)
    want = programs.expected(program, panda.register_size)
    func = programs.label(program, "func")
    middle = want.trace[1]
    seen: Counter[str] = Counter()

    for kind in ("start_block_exec", "before_block_exec", "end_block_exec", "before_tcg_codegen",
                 "after_block_translate"):  # fmt: skip

        @panda.hook(func, cb_type=kind)
        def hooked(cpu: Any, tb: Any, hook: Any) -> None:
            assert tb.pc == func == hook.addr
            seen[hook.cb_type] += 1

    @panda.hook(func, cb_type="before_block_exec_invalidate_opt")
    def again(cpu: Any, tb: Any, hook: Any) -> bool:
        seen["invalidate"] += 1
        hook.enabled = False
        return True

    @panda.hook(func, cb_type="after_block_exec")
    def after(cpu: Any, tb: Any, exit_code: int, hook: Any) -> None:
        assert exit_code <= 1 and hook.addr == tb.pc == func
        seen["after_block_exec"] += 1

    @panda.hook(func, cb_type="before_block_translate")
    def translate(cpu: Any, pc: int, hook: Any) -> None:
        assert pc == func
        seen["before_block_translate"] += 1

    @panda.hook(middle, cb_type="before_tcg_codegen")
    def codegen(cpu: Any, tb: Any, hook: Any) -> None:
        assert tb.pc <= middle < tb.pc + tb.size
        seen["middle"] += 1

    @panda.hook(func, kernel=False)
    def user(cpu: Any, tb: Any, hook: Any) -> None:
        seen["user"] += 1

    @panda.hook(func, kernel=True)
    def kernel(cpu: Any, tb: Any, hook: Any) -> None:
        seen["kernel"] += 1

    @panda.hook(func, asid=0x5555)
    def other(cpu: Any, tb: Any, hook: Any) -> None:
        seen["asid"] += 1

    @panda.hook(func, enabled=False)
    def never(cpu: Any, tb: Any, hook: Any) -> None:
        seen["never"] += 1

    @panda.hook_single_insn("insn", middle)
    def insn(cpu: Any, tb: Any, hook: Any) -> None:
        seen["insn"] += 1

    try:
        panda.hook(func, cb_type="asid_changed")(never)
    except ValueError as error:
        seen[str(error)[:40]] += 1
    panda.run_until(address=want.end, timeout=30)
    return dict(seen)


def test_types() -> None:
    seen = run_case(case_types, "x86_64")
    assert seen.pop("before_tcg_codegen") >= 1
    assert seen.pop("after_block_translate") >= 1
    assert seen.pop("before_block_translate") >= 1
    assert seen.pop("middle") >= 1
    assert seen == {
        "start_block_exec": 1,
        "before_block_exec": 1,
        "end_block_exec": 1,
        "after_block_exec": 1,
        "invalidate": 1,
        "kernel": 1,
        "insn": 1,
        "there are no hooks of type 'asid_changed'"[:40]: 1,
    }


def case_exception() -> list[Any]:
    panda = machine("x86_64")
    calls: list[int] = []

    @panda.hook(programs.label("x86_64", "loop"))
    def failing(cpu: Any, tb: Any, hook: Any) -> None:
        calls.append(hook.addr)
        raise LookupError("as it should")

    try:
        panda.run()
    except LookupError as error:
        return [str(error), len(calls)]
    return []


def test_exception_ends_the_run() -> None:
    assert run_case(case_exception) == ["as it should", 1]


#: A function of the kernel that `uname` calls, by a symbol of each kernel.
KERNEL = {"x86_64": "__x64_sys_newuname", "arm": "sys_newuname"}
#: The number of the error a skipped call is to fail with, and what `uname` says then.
ENOSYS, TEXT = 38, "Function not implemented"


def case_linux(arch: str) -> dict[str, Any]:
    panda = boot(arch)
    found: dict[str, Any] = {}
    seen: list[Any] = []
    translated = 0

    def work() -> None:
        nonlocal translated
        line = panda.run_serial_cmd(f"grep ' {KERNEL[arch]}$' /proc/kallsyms")
        address = int(line.split()[0], 16)
        asids = Counter()

        # Where the shell, which stays, is in its own code: the middle of its blocks.
        pcs: Counter[Any] = Counter()

        @panda.cb_insn_translate(name="translate")
        def translate(cpu: Any, pc: int) -> bool:
            return not panda.in_kernel(cpu)

        @panda.cb_insn_exec(name="insn")
        def insn(cpu: Any, pc: int) -> int:
            asids[panda.current_asid(cpu)] += 1
            pcs[panda.current_asid(cpu), pc] += 1
            return 0

        panda.run_serial_cmd("echo something")
        panda.delete_callback("insn")
        panda.delete_callback("translate")
        shell = max(asids, key=lambda asid: asids[asid])
        choice = sorted(pc for (asid, pc), n in pcs.items() if asid == shell and n == 1)[:400:20]

        @panda.cb_before_block_translate(name="count")
        def count(cpu: Any, pc: int) -> None:
            nonlocal translated
            translated += 1

        for _ in range(3):
            panda.run_serial_cmd("uname -s")
        translated = 0
        panda.run_serial_cmd("uname -s")
        warm = translated
        translated = 0

        hook = panda.add_hook(address, lambda cpu, tb, hook: seen.append(panda.current_pc(cpu)))
        panda.run_serial_cmd("uname -s")
        found["seen"] = [pc == address for pc in seen]
        found["after a hook"] = translated - warm
        translated = 0
        panda.flush_tb()
        panda.run_serial_cmd("uname -s")
        found["after a flush"] = translated - warm
        found["seen then"] = len(seen)
        hook.disable()
        panda.run_serial_cmd("uname -s")
        found["seen at last"] = len(seen)

        skipping = panda.add_hook(address, lambda cpu, tb, hook: hook.skip(-ENOSYS), kernel=True)
        found["skipped"] = panda.run_serial_cmd("uname -s 2>&1")
        skipping.disable()
        found["not skipped"] = panda.run_serial_cmd("uname -s")
        results = []

        def enter(cpu: Any, tb: Any, hook: Any) -> None:
            hook.on_return(lambda cpu, result: results.append(result))

        entering = panda.add_hook(address, enter)
        for _ in range(3):
            panda.run_serial_cmd("uname -s")
        found["results"] = results
        entering.disable()

        user: Counter[str] = Counter()
        for pc in choice:
            panda.add_hook(pc, lambda *_: user.update(["here"]), kernel=False, asid=shell)
            panda.add_hook(pc, lambda *_: user.update(["elsewhere"]), asid=shell ^ 0x1000)
            panda.add_hook(pc, lambda *_: user.update(["kernel"]), kernel=True)
        panda.run_serial_cmd("echo something")
        found["user"] = [user["here"] >= len(choice) // 2, user["elsewhere"], user["kernel"]]
        found["choice"] = len(choice)

        # Ten thousand that do nothing, and one that does.
        many = [panda.add_hook(0x10000000 + 8 * n, lambda *_: user.update(["many"]))
                for n in range(10000)]  # fmt: skip
        one = panda.add_hook(address, lambda *_: user.update(["one"]))
        found["last"] = panda.run_serial_cmd("uname -s")
        found["many"] = [user["many"], user["one"]]
        for hook in [*many, one]:
            hook.disable()

    in_guest(panda, work)
    found["left"] = panda.libpanda.panda_hooks_count()
    return found


@pytest.mark.parametrize("arch", list(KERNEL))
def test_linux(arch: str) -> None:
    found = run_case(case_linux, arch)
    assert found["seen"] == [True]
    assert found["seen then"] == found["seen at last"] == 2
    # Only what is hooked is translated anew.
    assert found["after a hook"] * 10 < found["after a flush"]
    assert TEXT in found["skipped"]
    assert found["not skipped"] == found["last"] == "Linux"
    assert found["results"] == [0, 0, 0]
    assert found["choice"] >= 10
    assert found["user"] == [True, 0, 0]
    assert found["many"] == [0, 1]
    assert found["left"] == 0


def case_record(arch: str, path: str) -> list[Any]:
    panda = boot(arch)
    found: list[Any] = []

    def work() -> None:
        line = panda.run_serial_cmd(f"grep ' {KERNEL[arch]}$' /proc/kallsyms")
        found.append(int(line.split()[0], 16))
        panda.add_hook(found[0], lambda *_: found.append(panda.rr_get_guest_instr_count()))
        panda.record(path)
        for _ in range(3):
            panda.run_serial_cmd("uname -s")
        panda.end_record()

    in_guest(panda, work)
    return [*found, report_of(panda)]


def case_replay(arch: str, path: str, address: int, skip: bool) -> list[Any]:
    panda = boot(arch)
    found: list[Any] = []

    @panda.hook(address)
    def hooked(cpu: Any, tb: Any, hook: Any) -> None:
        found.append(panda.rr_get_guest_instr_count())
        hook.on_return(lambda cpu, result: found.append(result))
        if skip:
            hook.skip(1)

    try:
        panda.run_replay(path)
    except StateError as error:
        return [type(error).__name__]
    return [*found, report_of(panda)]


@pytest.mark.parametrize("arch", list(KERNEL))
def test_replay(arch: str, tmp_path: Path) -> None:
    """Hooks act in recordings and in replays, at the same places, and change nothing."""
    path = str(tmp_path / "uname")
    address, *places, facts = run_case(case_record, arch, path)
    assert len(places) == 3
    *found, replayed = run_case(case_replay, arch, path, address, False)
    assert found == [x for place in places for x in (place, 0)]
    assert replayed == facts
    # A replay cannot do something else.
    assert run_case(case_replay, arch, path, address, True) == ["StateError"]
