"""PPP among plugins in C: two of a user's, and theirs with those that are built in."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import pytest
from guest import boot, run_case
from test_plugins import build

from pandalite.ppp import Signature, declare

#: Follows system calls, task switches, calls and the start of programs; tells what was opened.
WATCHER = r"""
#include "panda/plugin.h"
#include "panda/plugins/osi.h"
#include "panda/plugins/proc_start_linux.h"
#include "panda/plugins/syscalls2.h"

PPP_CB_TYPEDEF(void, on_opened, CPUState *cpu, const char *path, int64_t result);
PPP_PROT_REG_CB(on_opened);
PPP_CB_BOILERPLATE(on_opened)

static char text[1 << 20];
static size_t used;
static uint64_t calls, enters;
static char last[256];

#define SAY(...) (used += snprintf(text + used, sizeof(text) - used, __VA_ARGS__))

static void openat_enter(CPUState *cpu, target_ulong pc, int32_t dfd, uint64_t filename,
                         int32_t flags, uint32_t mode)
{
    int64_t n = panda_read_string(cpu, filename, (uint8_t *)last, sizeof(last) - 1);

    last[n < 0 ? 0 : n] = 0;
    SAY("enter %s %d %x\n", last, dfd, flags);
}

static void openat_return(CPUState *cpu, target_ulong pc, int32_t dfd, uint64_t filename,
                          int32_t flags, uint32_t mode)
{
    SAY("return %s %" PRId64 "\n", last, panda_syscalls2_get_syscall_retval(cpu));
    PPP_RUN_CB(on_opened, cpu, last, panda_syscalls2_get_syscall_retval(cpu));
}

static void all_enter(CPUState *cpu, target_ulong pc, const syscall_info_t *info,
                      const syscall_ctx_t *ctx)
{
    enters++;
    if (info && !strcmp(info->name, "sys_uname")) {
        SAY("other uname\n");
    } else if (info && !strcmp(info->name, "sys_newuname")) {
        SAY("call %s %d arguments\n", info->name, info->nargs);
    }
}

static void task_change(CPUState *cpu)
{
    OsiProc *p = panda_osi_get_current_process(cpu);

    SAY("task %s\n", p ? p->name : "none");
    panda_osi_free_osiproc(p);
}

static void called(CPUState *cpu, target_ulong func)
{
    calls++;
}

static void starts(CPUState *cpu, TranslationBlock *tb, auxv_values *av)
{
    SAY("start %s %s %s\n", av->execfn, av->argv[0], av->argv[av->argc - 1]);
}

PANDA_EXPORT const char *said(void);
const char *said(void)
{
    return text;
}

PANDA_EXPORT uint64_t count(int what);
uint64_t count(int what)
{
    return what ? enters : calls;
}

PANDA_EXPORT void clear(void);
void clear(void)
{
    used = calls = enters = 0;
    text[0] = 0;
}

bool init_plugin(void *self)
{
    clear();
    return panda_add_arg("syscalls2", "load-info=yes") && panda_require("syscalls2")
        && panda_require("osi") && panda_require("callstack_instr")
        && panda_require("proc_start_linux")
        && PPP_REG_CB("syscalls2", on_sys_openat_enter, openat_enter)
        && PPP_REG_CB("syscalls2", on_sys_openat_return, openat_return)
        && PPP_REG_CB("syscalls2", on_all_sys_enter2, all_enter)
        && PPP_REG_CB("osi", on_task_change, task_change)
        && PPP_REG_CB("callstack_instr", on_call, called)
        && PPP_REG_CB("proc_start_linux", on_rec_auxv, starts);
}

void uninit_plugin(void *self)
{
}
"""

#: Hears of it by the watcher's functions, as PANDA's plugins find them, and by the macros.
HEARER = r"""
#include "panda/plugin.h"

typedef void (*on_opened_t)(CPUState *cpu, const char *path, int64_t result);
typedef void (*on_opened_with_context)(void *context, CPUState *cpu, const char *path,
                                       int64_t result);

static int heard[3];
static char first[256];

static void opened(CPUState *cpu, const char *path, int64_t result)
{
    if (!heard[0]++) {
        snprintf(first, sizeof(first), "%s", path);
    }
}

static void also(void *context, CPUState *cpu, const char *path, int64_t result)
{
    ++*(int *)context;
}

static bool (*end)(on_opened_with_context fn, void *context);

PANDA_EXPORT int get(int what);
int get(int what)
{
    return heard[what];
}

PANDA_EXPORT const char *text(void);
const char *text(void)
{
    return first;
}

PANDA_EXPORT bool stop(void);
bool stop(void)
{
    return end(also, &heard[1]);
}

bool init_plugin(void *self)
{
    void (*begin)(on_opened_with_context, void *) = (void (*)(on_opened_with_context, void *))
        panda_plugin_symbol("watcher", "ppp_add_cb_on_opened_with_context");
    void (*plain)(on_opened_t) = (void (*)(on_opened_t))
        panda_plugin_symbol("watcher", "ppp_add_cb_on_opened");

    end = (bool (*)(on_opened_with_context, void *))
        panda_plugin_symbol("watcher", "ppp_remove_cb_on_opened_with_context");
    if (!begin || !plain || !end || panda_plugin_symbol("watcher", "nothing")) {
        return false;
    }
    begin(also, &heard[1]);
    plain(opened);
    return PPP_REG_CB_WITH_CONTEXT("watcher", on_opened, also, &heard[2])
        && !PPP_REG_CB("watcher", on_nothing, opened);
}

void uninit_plugin(void *self)
{
}
"""


def plugins(folder: Path) -> str:
    for name, source in (("watcher", WATCHER), ("hearer", HEARER)):
        build(source, folder, name, "-Wno-unused-parameter")
    return str(folder)


def functions_of(panda: Any) -> tuple[Any, Any]:
    watcher, hearer = panda.plugins["watcher"], panda.plugins["hearer"]
    watcher.said.restype = hearer.text.restype = ctypes.c_char_p
    watcher.count.restype = ctypes.c_uint64
    hearer.stop.restype = ctypes.c_bool
    return watcher, hearer


def case_watch(arch: str, folder: str) -> dict[str, Any]:
    """Both plugins and Python hear the same, in a recording and in its replay."""
    panda = boot(arch, plugin_path=folder)
    declare(
        "watcher",
        {"on_opened": Signature((("cpu", "cpu"), ("path", "str"), ("result", "s64")))},
    )
    out: dict[str, Any] = {}
    opened: list[Any] = []
    path = f"{folder}/recording"

    def listen() -> None:
        panda.load_plugin("watcher")
        panda.load_plugin("hearer")

        @panda.ppp("watcher", "on_opened")
        def told(cpu: Any, what: bytes, result: int) -> None:
            opened.append([what.decode(), result])

        @panda.ppp("syscalls2", "on_all_sys_enter")
        def every(cpu: Any, pc: int, number: int) -> None:
            out["enters"] = out.get("enters", 0) + 1

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        listen()
        watcher, hearer = functions_of(panda)
        panda.record(path)
        opened.clear()
        watcher.clear()
        out["enters"] = 0
        before = [hearer.get(i) for i in range(3)]
        panda.run_serial_cmd("uname -a; cat /etc/hostname /nothing")
        out["live"] = watcher.said().decode()
        out["counts"] = [watcher.count(0), watcher.count(1), out["enters"]]
        out["opened"] = list(opened)
        out["heard"] = [hearer.get(i) - b for i, b in enumerate(before)]
        out["first"] = hearer.text().decode()
        panda.end_record()
        out["stopped"] = [hearer.stop(), hearer.stop()]
        before = [hearer.get(i) for i in range(3)]
        panda.run_serial_cmd("cat /etc/hostname")
        out["later"] = [hearer.get(i) > b for i, b in enumerate(before)]
        panda.end_analysis()

    panda.run()
    out["after"] = list(panda.plugins)
    listen()
    watcher, _ = functions_of(panda)
    watcher.clear()
    opened.clear()
    panda.run_replay(path)
    out["replayed"] = watcher.said().decode()
    out["opened again"] = list(opened)
    return out


@pytest.mark.parametrize("arch", ["x86_64", "i386", "arm"])
def test_plugins_hear_each_other(arch: str, tmp_path: Path) -> None:
    out = run_case(case_watch, arch, plugins(tmp_path), timeout=300)
    live = out["live"].splitlines()
    assert out["replayed"].startswith(out["live"])
    assert out["opened again"][: len(out["opened"])] == out["opened"]
    calls, enters, python = out["counts"]
    assert calls > 1000 and enters == python > 50
    opened = dict(map(tuple, out["opened"]))
    assert opened["/etc/hostname"] == 3 and opened["/nothing"] == -2
    assert [line.split()[1] for line in live if line.startswith("return")] == [
        name for name, _ in out["opened"]
    ]
    assert "enter /etc/hostname -100" in " ".join(line[:24] for line in live)
    assert "call sys_newuname 1 arguments" in live
    starts = [line.split()[1:] for line in live if line.startswith("start")]
    assert [s[1:] for s in starts] == [["uname", "-a"], ["cat", "/nothing"]]
    assert all(s[0].endswith(s[1]) for s in starts)
    tasks = {line[5:] for line in live if line.startswith("task ")}
    assert {"bash", "cat", "uname"} <= tasks and "none" not in tasks
    n = len(out["opened"])
    assert out["heard"] == [n, n, n] and out["first"]
    assert out["stopped"] == [True, False] and out["later"] == [True, False, True]
    assert out["after"] == []


def test_in_cplusplus(tmp_path: Path) -> None:
    for name, source in (("watcher", WATCHER), ("hearer", HEARER)):
        options = ["-x", "c++", "-std=gnu++17", "-Wno-unused-parameter", "-Wno-error"]
        file = build(source, tmp_path, name, *options)
        # Functions of plugins are C's, or they would not be found when it is loaded.
        assert re.search(rb"panda_ppp_add\0", file.read_bytes())
        assert not re.search(rb"_Z\d*panda_", file.read_bytes())
