"""Plugins that answer osi's questions instead of the core."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest
from guest import boot, in_guest, run_case
from test_os_guest import at_rest
from test_plugins import build

from pandalite._bindings import structs
from pandalite.errors import PluginError

#: A system with two processes, as a plugin of PANDA's would have it.
FAKE = r"""
#include "panda/plugin.h"
#include "panda/plugins/osi.h"

static OsiProc made(int pid)
{
    OsiProc p = { .taskd = 0x1000 * pid, .pgd = 0x2000 * pid, .asid = 0x3000 * pid, .pid = pid,
                  .ppid = pid - 1, .name = strdup(pid == 7 ? "seven" : "eight"),
                  .create_time = 100 * pid };
    return p;
}

static OsiModule area(int n, const char *file, const char *name)
{
    OsiModule m = { .modd = n, .base = 0x10000 * n, .size = 0x1000,
                    .file = file ? strdup(file) : NULL, .name = strdup(name), .offset = 0x2000,
                    .flags = 5 };
    return m;
}

static void processes(CPUState *cpu, GArray **out)
{
    *out = g_array_new(false, false, sizeof(OsiProc));
    for (int pid = 7; pid <= 8; pid++) {
        OsiProc p = made(pid);

        g_array_append_val(*out, p);
    }
}

static void current(CPUState *cpu, OsiProc **out)
{
    *out = malloc(sizeof(OsiProc));
    **out = made(8);
}

static void mappings(CPUState *cpu, OsiProc *p, GArray **out)
{
    OsiModule all[] = { area(1, "/bin/fake", "fake"), area(2, NULL, "[heap]"),
                        area(3, "/lib/libfake.so", "libfake.so"), area(4, NULL, "[stack]"),
                        area(5, NULL, "[???]") };

    if (p->pid != 8) {
        return;
    }
    *out = g_array_sized_new(false, false, sizeof(OsiModule), 5);
    for (int i = 0; i < 5; i++) {
        g_array_append_val(*out, all[i]);
    }
}

static void process(CPUState *cpu, const OsiProcHandle *h, OsiProc **out)
{
    if (h->taskd == 0x7000 || h->taskd == 0x8000) {
        *out = malloc(sizeof(OsiProc));
        **out = made(h->taskd / 0x1000);
    }
}

static void handles(CPUState *cpu, GArray **out)
{
    OsiProcHandle h = { .taskd = 0x7000, .asid = 1 };

    *out = g_array_new(false, false, sizeof(OsiProcHandle));
    g_array_append_val(*out, h);
}

static void current_handle(CPUState *cpu, OsiProcHandle **out)
{
    *out = malloc(sizeof(OsiProcHandle));
    (*out)->taskd = 0x7000;
    (*out)->asid = 2;
}

static void proc_mem(CPUState *cpu, const OsiProc *p, OsiProcMem **out)
{
    *out = malloc(sizeof(OsiProcMem));
    (*out)->start_brk = p->pid;
    (*out)->brk = 3;
}

static void modules(CPUState *cpu, GArray **out)
{
    OsiModule m = area(6, NULL, "fakemod");

    *out = g_array_new(false, false, sizeof(OsiModule));
    g_array_append_val(*out, m);
}

#define SOME(what)                                                          \
    static void what(CPUState *cpu, OsiProc *p, GArray **out)               \
    {                                                                       \
        OsiModule m = area(9, NULL, #what);                                 \
                                                                            \
        *out = g_array_new(false, false, sizeof(OsiModule));                \
        g_array_append_val(*out, m);                                        \
    }
SOME(file)
SOME(heap)
SOME(stack)
SOME(unknown)

static void by_addr(CPUState *cpu, OsiProc *p, target_ulong addr, OsiModule **out)
{
    *out = malloc(sizeof(OsiModule));
    **out = area(addr, "by", "address");
}

static void base(CPUState *cpu, OsiProc *p, const char *name, target_ulong *out)
{
    *out = strlen(name);
}

static void prefix(CPUState *cpu, OsiProc *p, const char *text, bool *out)
{
    *out = !strcmp(text, "yes");
}

static void thread(CPUState *cpu, OsiThread **out)
{
    *out = malloc(sizeof(OsiThread));
    (*out)->pid = 8;
    (*out)->tid = 9;
}

static void pid(CPUState *cpu, const OsiProcHandle *h, target_pid_t *out)
{
    *out = h->taskd + 1;
}

static void ppid(CPUState *cpu, const OsiProcHandle *h, target_pid_t *out)
{
    *out = h->taskd + 2;
}

bool init_plugin(void *self)
{
    panda_arg_list *args = panda_get_args("fake");
    bool all = panda_parse_bool(args, "all");

    panda_free_args(args);
    if (!panda_require("osi") || !PPP_REG_CB("osi", on_get_processes, processes)
        || !PPP_REG_CB("osi", on_get_current_process, current)
        || !PPP_REG_CB("osi", on_get_mappings, mappings)
        || !PPP_REG_CB("osi", on_get_process, process)) {
        return false;
    }
    return !all || (PPP_REG_CB("osi", on_get_process_handles, handles)
        && PPP_REG_CB("osi", on_get_current_process_handle, current_handle)
        && PPP_REG_CB("osi", on_get_proc_mem, proc_mem)
        && PPP_REG_CB("osi", on_get_modules, modules)
        && PPP_REG_CB("osi", on_get_file_mappings, file)
        && PPP_REG_CB("osi", on_get_heap_mappings, heap)
        && PPP_REG_CB("osi", on_get_stack_mappings, stack)
        && PPP_REG_CB("osi", on_get_unknown_mappings, unknown)
        && PPP_REG_CB("osi", on_get_mapping_by_addr, by_addr)
        && PPP_REG_CB("osi", on_get_mapping_base_address_by_name, base)
        && PPP_REG_CB("osi", on_has_mapping_prefix, prefix)
        && PPP_REG_CB("osi", on_get_current_thread, thread)
        && PPP_REG_CB("osi", on_get_process_pid, pid)
        && PPP_REG_CB("osi", on_get_process_ppid, ppid));
}

void uninit_plugin(void *self)
{
}
"""


def ask(panda: Any, cpu: Any) -> dict[str, Any]:
    """All of osi's questions, and PyPANDA's."""
    osi = panda.plugins["osi"]
    out: dict[str, Any] = {}

    def names(listed: Any) -> list[str] | None:
        if not listed:
            return None
        found = []
        for i in range(osi.garray_len(listed)):
            one = osi.get_one_module(listed, i)
            found.append(ctypes.string_at(one.contents.name).decode())
        osi.cleanup_garray(listed)
        return found

    p = osi.get_current_process(cpu)
    out["current"] = [p.contents.pid, ctypes.string_at(p.contents.name).decode()] if p else None
    listed = osi.get_processes(cpu)
    out["count"] = osi.garray_len(listed)
    first = osi.get_one_proc(listed, 0)
    out["first"] = [first.contents.pid, first.contents.create_time] if first else None
    osi.cleanup_garray(listed)
    handles = osi.get_process_handles(cpu)
    out["handles"] = osi.garray_len(handles)
    osi.cleanup_garray(handles)
    h = osi.get_current_process_handle(cpu)
    out["handle"] = h.contents.taskd if h else None
    out["pids"] = [osi.get_process_pid(cpu, h), osi.get_process_ppid(cpu, h)]
    again = osi.get_process(cpu, h)
    out["process"] = again.contents.pid if again else None
    osi.free_osiproc(again)
    osi.free_osiprochandle(h)
    for kind in ("", "file_", "heap_", "stack_", "unknown_"):
        out[f"{kind}mappings"] = names(getattr(osi, f"get_{kind}mappings")(cpu, p))
    out["modules"] = names(osi.get_modules(cpu))
    memory = osi.get_proc_mem(cpu, p)
    bounds = memory.contents if memory else None
    out["memory"] = bounds and [bounds.start_brk, bounds.brk]
    osi.free_osiprocmem(memory)
    m = osi.get_mapping_by_addr(cpu, p, 0x30010)
    out["by address"] = ctypes.string_at(m.contents.name).decode() if m else None
    osi.free_osimodule(m)
    out["base"] = osi.get_mapping_base_address_by_name(cpu, p, b"[stack]")
    out["prefix"] = [osi.has_mapping_prefix(cpu, p, text) for text in (b"yes", b"libf")]
    t = osi.get_current_thread(cpu)
    out["thread"] = [t.contents.pid, t.contents.tid] if t else None
    osi.free_osithread(t)
    osi.free_osiproc(p)
    one = panda.get_current_process(cpu)
    listed = panda.get_mappings(cpu)
    there = panda.get_mapping_by_addr(cpu, 0x30010)
    out["python"] = {
        "current": one and [one.pid, one.name.decode(), one.taskd, one.asid],
        "name": panda.get_process_name(cpu),
        "all": {n: [v["name"], v["parent_pid"]] for n, v in panda.get_processes_dict(cpu).items()},
        "mappings": [[m.base, m.file and m.file.decode(), m.name.decode()] for m in listed],
        "there": there and [there.file, there.name, there.offset],
        "file": panda.get_file_name(cpu, 0) is not None,
    }
    return out


def case_fake(folder: str, *args: str) -> list[Any]:
    panda = boot(plugin_path=folder)

    def work() -> list[Any]:
        panda.run_serial_cmd("true")
        own = at_rest(panda, lambda cpu: ask(panda, cpu))
        panda.load_plugin("fake", list(args))
        rounds = [at_rest(panda, lambda cpu: ask(panda, cpu)) for _ in range(3)]
        panda.unload_plugin("fake")
        return [own, rounds, at_rest(panda, lambda cpu: ask(panda, cpu))]

    return in_guest(panda, work)


def is_core(said: dict[str, Any]) -> bool:
    """It is what the core says of a guest at its prompt."""
    assert said["count"] > 20 and said["handles"] == said["count"]
    assert said["first"][0] == 0 and len(said["python"]["all"]) == said["count"]
    assert said["modules"] and said["base"] != 7 and not said["prefix"][0]
    assert said["process"] == said["current"][0] == said["pids"][0] == said["thread"][0]
    return True


#: What the plugin says to PyPANDA's functions, whichever questions it answers.
PYTHON = {
    "current": [8, "eight", 0x8000, 0x18000],
    "name": "eight",
    "all": {"7": ["seven", 6], "8": ["eight", 7]},
    "mappings": [
        [0x10000, "/bin/fake", "fake"],
        [0x20000, None, "[heap]"],
        [0x30000, "/lib/libfake.so", "libfake.so"],
        [0x40000, None, "[stack]"],
        [0x50000, None, "[???]"],
    ],
    "there": ["/lib/libfake.so", "libfake.so", 0x2000],
    "file": False,
}


def test_some_questions(tmp_path: Path) -> None:
    """What the plugin does not answer follows from what it does."""
    build(FAKE, tmp_path, "fake", "-Wno-unused-parameter")
    own, rounds, after = run_case(case_fake, str(tmp_path))
    assert is_core(own) and is_core(after)
    for said in rounds:
        assert said["current"] == [8, "eight"] and said["count"] == 2
        assert said["first"] == [7, 700] and said["handles"] == 2
        assert said["handle"] == 0x8000 and said["process"] == 8 and said["pids"] == [8, 7]
        assert said["mappings"] == ["fake", "[heap]", "libfake.so", "[stack]", "[???]"]
        assert said["file_mappings"] == ["fake", "libfake.so"]
        assert said["heap_mappings"] == ["[heap]"] and said["stack_mappings"] == ["[stack]"]
        assert said["unknown_mappings"] == ["[???]"]
        assert said["by address"] == "libfake.so" and said["base"] == 0x40000
        assert said["prefix"] == [False, True]
        # Nobody else knows of the plugin's processes; the modules are the guest's.
        assert said["memory"] is None and said["modules"] == own["modules"]
        assert said["python"] == PYTHON


def test_all_questions(tmp_path: Path) -> None:
    build(FAKE, tmp_path, "fake", "-Wno-unused-parameter")
    own, rounds, after = run_case(case_fake, str(tmp_path), "all=yes")
    assert is_core(own) and is_core(after)
    for said in rounds:
        assert said["handles"] == 1 and said["handle"] == 0x7000
        assert said["pids"] == [0x7001, 0x7002] and said["process"] == 7
        for kind in ("file", "heap", "stack", "unknown"):
            assert said[f"{kind}_mappings"] == [kind]
        assert said["modules"] == ["fakemod"] and said["memory"] == [8, 3]
        assert said["by address"] == "address" and said["base"] == len("[stack]")
        assert said["prefix"] == [True, False] and said["thread"] == [8, 9]
        assert said["python"] == {**PYTHON, "there": ["by", "address", 0x2000]}


def case_python() -> dict[str, Any]:
    """A provider in Python; the core is silent, then it is not."""
    panda = boot()
    out: dict[str, Any] = {}
    try:
        panda.load_plugin("osi", {"disable-autoload": "perhaps"})
    except PluginError as error:
        out["error"] = str(error)
    panda.load_plugin("osi", {"disable-autoload": True})

    def look(cpu: Any) -> list[Any]:
        one = panda.get_current_process(cpu)
        return [
            one and [one.pid, one.name.decode()],
            len(panda.get_processes(cpu)),
            panda.get_process_name(cpu),
            len(panda.get_mappings(cpu)),
        ]

    def work() -> dict[str, Any]:
        panda.run_serial_cmd("true")
        out["silent"] = at_rest(panda, look)
        out["os"] = at_rest(panda, lambda cpu: len(panda.os.processes()))
        osi = panda.plugins["osi"]
        mine = structs.OsiProc(pid=5, ppid=4, taskd=1)
        mine.name = ctypes.cast(ctypes.c_char_p(b"a name longer than Linux has"), type(mine.name))

        @panda.ppp("osi", "on_get_current_process")
        def current(cpu: Any, where: Any) -> None:
            where[0] = osi.copy_osiproc(mine)

        @panda.ppp("osi", "on_get_processes")
        def processes(cpu: Any, where: Any) -> None:
            where[0] = osi.new_garray(ctypes.sizeof(mine))
            for pid in range(40):
                mine.pid = pid
                osi.append_proc(where[0], mine)
            mine.pid = 5

        out["given"] = at_rest(panda, look)
        panda.disable_ppp("current")
        panda.disable_ppp("processes")
        out["silent again"] = at_rest(panda, look)
        panda.unload_plugin("osi")
        out["core"] = at_rest(panda, look)
        return out

    return in_guest(panda, work)


def test_providers_in_python() -> None:
    out = run_case(case_python)
    assert "disable-autoload=perhaps" in out["error"]
    silent = [None, 0, None, 0]
    assert out["silent"] == silent and out["silent again"] == silent
    assert out["os"] > 20
    assert out["given"] == [[5, "a name longer t"], 40, "a name longer t", 0]
    assert out["core"][1] == out["os"]


@pytest.mark.parametrize("arch", ["x86_64", "i386", "arm"])
def test_layouts_in_c_and_python(arch: str, tmp_path: Path) -> None:
    """One compiled provider is that of guests of any architecture."""
    build(FAKE, tmp_path, "fake", "-Wno-unused-parameter")
    assert run_case(case_current, arch, str(tmp_path)) == PYTHON["current"]


def case_current(arch: str, folder: str) -> list[Any]:
    panda = boot(arch, plugin_path=folder)
    panda.load_plugin("fake")

    def look(cpu: Any) -> list[Any]:
        one = panda.get_current_process(cpu)
        return [one.pid, one.name.decode(), one.taskd, one.asid]

    return in_guest(panda, lambda: at_rest(panda, look))
