"""Functions of programs and libraries that are hooked by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from guest import boot, built, in_guest, run_case
from test_os_guest import at_rest
from test_plugins import build
from test_user_symbols import compile_program

#: All guests that have programs linked dynamically.
ARCHES = (
    *("x86_64", "i386", "arm", "aarch64", "mips", "mipsel", "mips64", "mips64el"),
    *("ppc", "ppc64", "ppc64el", "riscv64"),
)


def case_hooks(arch: str) -> dict[str, Any]:
    panda = boot(arch)
    calls: list[list[Any]] = []
    results: list[int] = []

    @panda.hook_symbol("/libc.so", "getuid", name="uid")
    def getuid(cpu: Any, tb: Any, hook: Any) -> None:
        calls.append([panda.get_process_name(cpu), hook.sym.name.decode(), hook.addr])
        hook.skip(4242)

    @panda.hook_symbol("/libc.so", "geteuid")
    def geteuid(cpu: Any, tb: Any, hook: Any) -> None:
        hook.on_return(lambda cpu, result: results.append(result))

    def work() -> dict[str, Any]:
        found: dict[str, Any] = {}
        found["hooked"] = panda.run_serial_cmd("id -ru")
        found["twice"] = panda.run_serial_cmd("id -ru; id -u")
        found["left"] = len(panda.named_hooks["uid"].hooks)
        panda.named_hooks["uid"].disable()
        before = len(calls)
        found["disabled"] = panda.run_serial_cmd("id -ru")
        found["quiet"] = len(calls) == before
        panda.named_hooks["uid"].enable()
        found["enabled"] = panda.run_serial_cmd("id -ru")
        panda.delete_callbacks()
        found["deleted"] = panda.run_serial_cmd("id -ru")
        return found

    found = in_guest(panda, work)
    return {**found, "calls": calls, "results": results}


@pytest.mark.parametrize("arch", ARCHES)
def test_hooks(arch: str) -> None:
    found = run_case(case_hooks, built(arch))
    assert found["hooked"].split()[-1] == "4242"
    # Busybox asks for both, and says the first.
    assert found["twice"].split() in (["4242", "0"], ["4242", "4242"])
    assert found["disabled"].split()[-1] == "0"
    assert found["quiet"]
    assert found["enabled"].split()[-1] == "4242"
    assert found["deleted"].split()[-1] == "0"
    assert {call[1] for call in found["calls"]} == {"getuid"}
    assert "id" in {call[0] for call in found["calls"]}
    # Hooks of processes that have ended are gone: the shell's is left.
    assert found["left"] <= 3
    assert found["results"] and set(found["results"]) == {0}


def case_resolution() -> dict[str, Any]:
    panda = boot()
    seen: list[list[Any]] = []
    offsets: list[int] = []
    functions: set[str] = set()
    best: list[list[str]] = []

    def work() -> dict[str, Any]:
        panda.run_serial_cmd("cat /dev/zero > /dev/null & sleep 0.2")

        # There is a process already that has it, and there will be others.
        @panda.hook_symbol_resolution("/libc.so", "strtol")
        def resolved(resolve: Any, symbol: Any, asid: int) -> None:
            seen.append([symbol.name.decode(), symbol.section.decode(), symbol.address, asid])

        @panda.hook_symbol_resolution("/bin/cat", 64)
        def at_offset(resolve: Any, symbol: Any, asid: int) -> None:
            offsets.append(symbol.address)

        @panda.hook_symbol_resolution("libtinfo", None)
        def any_function(resolve: Any, symbol: Any, asid: int) -> None:
            functions.add(symbol.name.decode())

        panda.run_serial_cmd("cat /etc/passwd > /dev/null; sleep 0.2; bash -c 'echo x; sleep 0.1'")
        truth, start = at_rest(panda, look)
        count = len(seen)
        panda.delete_callbacks()

        @panda.cb_before_block_exec(procname="cat", kernel=False)
        def before_block_exec(cpu: Any, tb: Any) -> None:
            if len(best) < 200:
                symbol = panda.get_best_matching_symbol(cpu)
                at = panda.os.current.symbol_at(panda.current_pc(cpu))
                best.append([symbol.name.decode(), at.name if at else ""])

        panda.run_serial_cmd("cat /etc/passwd > /dev/null; sleep 0.2")
        return {"truth": truth, "start": start, "count": count}

    def look(cpu: Any) -> tuple[list[Any], int]:
        # The shell, and what it has in the background.
        processes = [p for p in panda.os.processes() if p.name in ("bash", "cat")]
        truth = [
            [p.asid, p.symbol("strtol", "/libc.so").address, f"{p.pid} {p.name}"] for p in processes
        ]
        cat = next(p for p in processes if p.name == "cat")
        return truth, next(lib.start for lib in cat.libraries() if lib.path.endswith("/cat"))

    found = in_guest(panda, work)
    return {
        **found,
        "seen": seen,
        "offsets": offsets,
        "functions": sorted(functions),
        "best": best,
    }


def test_resolution() -> None:
    found = run_case(case_resolution)
    assert {s[0] for s in found["seen"]} == {"strtol"}
    assert all(s[1].endswith("/libc.so.6") for s in found["seen"])
    told = {asid: address for _, _, address, asid in found["seen"]}
    for asid, address, who in found["truth"]:
        assert told.get(asid) == address, who
    # Each process is told once.
    assert len(found["seen"]) == found["count"] >= len(found["truth"])
    assert found["start"] + 64 in found["offsets"]
    assert "tgetent" in found["functions"]
    named = [pair for pair in found["best"] if pair[1]]
    assert named
    assert all(best == at for best, at in named)


def case_callstack(arch: str, folder: str) -> dict[str, Any]:
    panda = boot(arch)
    stacks: list[list[str]] = []
    kernel: list[list[str]] = []

    def work() -> None:
        panda.copy_to_guest(folder)
        panda.load_plugin("callstack_instr")
        address = panda.os.symbol("vfs_write").address

        @panda.hook(address, kernel=True)
        def vfs_write(cpu: Any, tb: Any, hook: Any) -> None:
            if panda.get_process_name(cpu) == "cat":
                kernel.append([str(frame.symbol) for frame in panda.callstack(cpu)])

        panda.run_serial_cmd("cat /etc/passwd > /dev/null")

        @panda.hook_symbol("/lingers", "hidden_loop")
        def hidden_loop(cpu: Any, tb: Any, hook: Any) -> None:
            stacks.append([str(frame.symbol) for frame in panda.callstack(cpu)])

        panda.run_serial_cmd(f"./{Path(folder).name}/lingers & sleep 1")

    in_guest(panda, work)
    return {"stacks": stacks, "kernel": kernel}


@pytest.mark.parametrize(
    ("arch", "triple"), (("x86_64", "x86_64-linux-gnu.2.28"), ("i386", "x86-linux-gnu.2.28"))
)
def test_callstack(arch: str, triple: str, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    compile_program(folder, triple)
    found = run_case(case_callstack, arch, str(folder))
    assert len(found["stacks"]) == 1
    assert found["stacks"][0][:2] == ["lingers!hidden_loop", "lingers!outer_function"]
    assert found["kernel"][0][0] == "vfs_write"
    assert any("sys_" in name for name in found["kernel"][0])


def case_errors() -> dict[str, Any]:
    panda = boot()
    errors: list[str] = []
    try:
        panda.hook_symbol("x" * 300, "y")(lambda cpu, tb, hook: None)
    except ValueError as error:
        errors.append(str(error))
    raised = ""

    @panda.hook_symbol("/libc.so", "getuid")
    def getuid(cpu: Any, tb: Any, hook: Any) -> None:
        raise KeyError("mine")

    try:
        in_guest(panda, lambda: panda.run_serial_cmd("id -ru"))
    except KeyError as error:
        raised = str(error)
    return {"errors": errors, "raised": raised}


def test_errors() -> None:
    found = run_case(case_errors)
    assert "255 bytes" in found["errors"][0]
    assert "mine" in found["raised"]


#: A plugin in C that counts calls of a function, by its name.
COUNTER = """
#include "panda/plugin.h"
#include "panda/plugins/dynamic_symbols.h"
#include "panda/plugins/hooks.h"

static uint64_t calls, found;
static int number;

static void called(CPUState *cpu, TranslationBlock *tb, hook *h)
{
    calls += !strcmp(h->sym.name, "getuid") && panda_current_pc(cpu) == h->addr;
}

static void resolved(hook_symbol_resolve *r, const symbol *s, target_ptr_t asid)
{
    found += s->address != 0 && asid != 0;
    r->enabled = false;
}

PANDA_EXPORT uint64_t get(int what);
uint64_t get(int what)
{
    if (what == 2) {
        return panda_hooks_remove_symbol_hook(number);
    }
    return what ? found : calls;
}

bool init_plugin(void *self)
{
    symbol_hook h = {
        .name = "getuid", .section = "/libc.so", .type = PANDA_CB_START_BLOCK_EXEC,
        .cb.start_block_exec = called,
    };
    hook_symbol_resolve r = { .name = "getuid", .cb = resolved, .enabled = true };

    number = panda_hooks_add_symbol_hook(&h);
    h.type = PANDA_CB_MONITOR;
    return number > 0 && panda_hooks_add_symbol_hook(&h) == PANDA_ERR_ARGUMENT
        && panda_dynamic_symbols_hook_symbol_resolution(&r) > 0;
}

void uninit_plugin(void *self)
{
}
"""


def case_c_plugin(folder: str) -> dict[str, int]:
    panda = boot(plugin_path=folder)
    panda.load_plugin("uidcount")
    get = panda.plugins["uidcount"].get

    def work() -> dict[str, int]:
        # At its first command the shell asks too.
        panda.run_serial_cmd("id -ru")
        first = get(0)
        panda.run_serial_cmd("id -ru; id -ru")
        found = {"calls": get(0) - first, "found": get(1)}
        first = get(0)
        panda.run_serial_cmd("id -ru")
        found["more"] = get(0) - first
        found["removed"] = get(2)
        before = get(0)
        panda.run_serial_cmd("id -ru")
        found["after"] = get(0) - before
        return found

    return in_guest(panda, work)


def test_c_plugin(tmp_path: Path) -> None:
    build(COUNTER, tmp_path, "uidcount", "-Wno-unused-parameter")
    found = run_case(case_c_plugin, str(tmp_path))
    assert found["more"] > 0
    assert found["calls"] == 2 * found["more"]
    # The function has said that it has seen enough.
    assert found["found"] == 1
    assert found["removed"] == found["after"] == 0
