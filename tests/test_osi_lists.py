"""osi's functions that return lists: from a C plugin, and from Python."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import Any

import pytest
from guest import boot, in_guest, run_case
from test_os_guest import at_rest
from test_plugins import build

from pandalite.errors import IntrospectionError

#: Writes what osi gives of a process, a line for each thing.
LISTER = r"""
#include "panda/plugin.h"
#include "panda/plugins/osi.h"
#include "panda/plugins/osi_linux.h"

static char text[1 << 18];
static size_t used;

#define SAY(...) (used += snprintf(text + used, sizeof(text) - used, __VA_ARGS__))

static void maps(CPUState *cpu, const char *what, GArray *list)
{
    uint32_t i;

    (void)cpu;
    for (i = 0; list && i < list->len; i++) {
        OsiModule *m = &g_array_index(list, OsiModule, i);

        SAY("%s %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " %s %s\n", what, m->modd,
            m->base, m->size, m->offset, m->flags, m->file ? m->file : "-", m->name);
    }
    panda_osi_cleanup_garray(list);
}

static void process(CPUState *cpu, OsiProc *p)
{
    OsiProcMem *mem = panda_osi_get_proc_mem(cpu, p);
    target_ulong base = panda_osi_get_mapping_base_address_by_name(cpu, p, "[stack]");
    OsiModule *m = panda_osi_get_mapping_by_addr(cpu, p, base);
    char *file = panda_osi_linux_osi_linux_fd_to_filename(cpu, p, 6);

    SAY("process %d %d %s %" PRIx64 " %" PRIu64 "\n", p->pid, p->ppid, p->name, p->taskd,
        p->create_time);
    SAY("heap %" PRIx64 " %" PRIx64 "\n", mem ? mem->start_brk : 0, mem ? mem->brk : 0);
    SAY("stack %" PRIx64 " %s\n", base, m ? m->name : "none");
    SAY("prefix %d %d\n", panda_osi_has_mapping_prefix(cpu, p, "[sta"),
        panda_osi_has_mapping_prefix(cpu, p, "none"));
    SAY("file %s %" PRIu64 " %d\n", file ? file : "none",
        panda_osi_linux_osi_linux_fd_to_pos(cpu, p, 6),
        panda_osi_linux_osi_linux_fd_to_filename(cpu, p, 999) == NULL);
    maps(cpu, "all", panda_osi_get_mappings(cpu, p));
    maps(cpu, "files", panda_osi_get_file_mappings(cpu, p));
    maps(cpu, "heaps", panda_osi_get_heap_mappings(cpu, p));
    maps(cpu, "stacks", panda_osi_get_stack_mappings(cpu, p));
    maps(cpu, "unknown", panda_osi_get_unknown_mappings(cpu, p));
    free(file);
    panda_osi_free_osimodule(m);
    panda_osi_free_osiprocmem(mem);
}

PANDA_EXPORT const char *describe(CPUState *cpu, int32_t pid);
const char *describe(CPUState *cpu, int32_t pid)
{
    GArray *list = panda_osi_get_processes(cpu), *handles = panda_osi_get_process_handles(cpu);
    GArray *modules = panda_osi_get_modules(cpu);
    uint32_t i;

    used = 0;
    SAY("count %u %u\n", panda_osi_garray_len(list), handles->len);
    for (i = 0; i < list->len; i++) {
        OsiProc *p = panda_osi_get_one_proc(list, i);
        OsiProcHandle *h = &g_array_index(handles, OsiProcHandle, i);

        if (h->taskd != p->taskd || panda_osi_get_process_pid(cpu, h) != p->pid) {
            SAY("handle %u is another\n", i);
        }
        if (p->pid == pid) {
            process(cpu, p);
        }
    }
    SAY("beyond %d %d %u\n", panda_osi_get_one_proc(list, list->len) == NULL,
        panda_osi_get_one_module(list, 0) == NULL, panda_osi_garray_len(NULL));
    for (i = 0; modules && i < modules->len; i++) {
        SAY("module %s %" PRIx64 "\n", panda_osi_get_one_module(modules, i)->name,
            panda_osi_get_one_module(modules, i)->base);
    }
    panda_osi_cleanup_garray(list);
    panda_osi_cleanup_garray(handles);
    panda_osi_cleanup_garray(modules);
    panda_osi_cleanup_garray(NULL);
    return text;
}

bool init_plugin(void *self)
{
    (void)self;
    return panda_require("osi_linux") != NULL;
}

void uninit_plugin(void *self)
{
    (void)self;
}
"""


def case_lists(arch: str, folder: str) -> dict[str, Any]:
    panda = boot(arch, plugin_path=folder)
    panda.load_plugin("lister")
    describe = panda.plugins["lister"].describe
    describe.restype = ctypes.c_char_p
    describe.argtypes = [ctypes.c_void_p, ctypes.c_int32]

    def expected(pid: int) -> list[str]:
        processes = panda.os.processes()
        (p,) = (p for p in processes if p.pid == pid)
        bounds = panda.os._bounds(p)
        (stack,) = (m for m in p.mappings() if m.path == "[stack]")
        (six,) = (f for f in p.files() if f.fd == 6)
        lines = [
            f"count {len(processes)} {len(processes)}",
            f"process {p.pid} {p.ppid} {p.name} {p.task:x} {p.create_time}",
            f"heap {bounds.start_brk:x} {bounds.brk:x}",
            f"stack {stack.start:x} [stack]",
            "prefix 1 0",
            f"file {six.path} {six.position} 1",
        ]
        rows: dict[str, list[str]] = {"all": [], "files": [], "heap": [], "stack": [], "": []}
        for m in p.mappings():
            file = m.path if m.path.startswith("/") else "-"
            name = m.path.rsplit("/", 1)[-1] or "[???]"
            row = (
                f"{m.vma:x} {m.start:x} {m.end - m.start:x} {m.offset:x} {m.flags:x} {file} {name}"
            )
            rows["all"].append("all " + row)
            if file != "-":
                rows["files"].append("files " + row)
            else:
                kind = m.path.strip("[]")
                rows[kind].append(
                    {"heap": "heaps ", "stack": "stacks "}.get(kind, "unknown ") + row
                )
        for some in rows.values():
            lines += some
        lines.append("beyond 1 1 0")
        with contextlib.suppress(IntrospectionError):
            lines += [f"module {m.name} {m.base:x}" for m in panda.os.modules()]
        return lines

    def look(cpu: Any, pid: int) -> dict[str, Any]:
        said = describe(ctypes.addressof(cpu), pid).decode().splitlines()
        osi = panda.plugins["osi"]
        listed = osi.get_processes(cpu)
        length = panda.garray_len(listed)
        one = osi.get_one_proc(listed, 1).contents
        python = [length == len(panda.os.processes()), ctypes.string_at(one.name).decode(), one.pid]
        current = osi.get_current_process(cpu)
        shared = osi.in_shared_object(cpu, current)
        osi.free_osiproc(current)
        osi.cleanup_garray(listed)
        return {"said": said, "expected": expected(pid), "python": python, "shared": shared}

    def work() -> dict[str, Any]:
        panda.run_serial_cmd("sleep 1000 6</etc/passwd &")
        panda.run_serial_cmd("sleep 1")
        pid = int(panda.run_serial_cmd("pidof sleep").split()[0])
        out = at_rest(panda, lambda cpu: look(cpu, pid))
        out["null"] = panda.garray_len(None)
        return out

    return in_guest(panda, work)


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_lists(arch: str, tmp_path: Path) -> None:
    build(LISTER, tmp_path, "lister")
    out = run_case(case_lists, arch, str(tmp_path))
    assert out["said"] == out["expected"]
    assert sum(line.startswith("files ") and " /" in line for line in out["said"]) >= 2
    assert any(line == "file /etc/passwd 0 1" for line in out["said"])
    assert sum(line.startswith("module ") for line in out["said"]) > (
        10 if arch == "x86_64" else -1
    )
    assert out["python"][0] is True and out["python"][2] == 1
    assert out["null"] == 0


def case_linux_functions(arch: str) -> dict[str, Any]:
    """osi_linux: struct file, dentry, and memory by the kernel's own tables."""
    panda = boot(arch)
    out: dict[str, Any] = {}

    def look(cpu: Any) -> None:
        plugin = panda.plugins["osi_linux"]
        current = panda.os.current
        (six,) = (f for f in current.files() if f.fd == 6)
        nowhere = (1 << 64) - 1
        file = plugin.ext_get_file_struct_ptr(cpu, current.task, 6)
        dentry = plugin.ext_get_file_dentry(cpu, file)
        out["file"] = [file == six.file, plugin.ext_get_file_struct_ptr(cpu, current.task, 99)]
        out["dentry"] = [dentry >= panda.os.symbol("_stext").address & 0xC0000000,
                         plugin.ext_get_file_dentry(cpu, 8)]  # fmt: skip
        stack = next(m for m in current.mappings() if m.path == "[stack]").end - 16
        kernel = current.task
        buf = (ctypes.c_uint8 * 8192)()
        out["read"] = plugin.osi_linux_virtual_memory_read(cpu, kernel, buf, len(buf))
        out["name"] = b"sh\0" in bytes(buf)
        physical = plugin.walk_page_table(cpu, kernel)
        out["same"] = bytes(panda.physical_memory_read(physical, 16)) == bytes(buf[:16])
        physical = plugin.walk_page_table(cpu, stack)
        out["stack"] = [
            physical == plugin.osi_linux_virt_to_phys(cpu, stack) == panda.virt_to_phys(cpu, stack),
            panda.in_kernel(cpu),
        ]
        old = bytes(panda.physical_memory_read(physical, 8))
        text = (ctypes.c_uint8 * 8)(*b"by walk!")
        out["write"] = plugin.osi_linux_virtual_memory_write(cpu, stack, text, 8)
        out["written"] = bytes(panda.virtual_memory_read(cpu, stack, 8)).decode()
        panda.physical_memory_write(physical, old)
        out["none"] = [
            plugin.walk_page_table(cpu, 64) == nowhere,
            plugin.osi_linux_virt_to_phys(cpu, 64) == nowhere,
            plugin.osi_linux_virtual_memory_read(cpu, 64, buf, 8) < 0,
            plugin.osi_linux_virtual_memory_write(cpu, 64, buf, 8) < 0,
            plugin.osi_linux_virtual_memory_read(cpu, stack, buf, -1) < 0,
        ]

    def work() -> dict[str, Any]:
        panda.load_plugin("osi_linux")
        done: list[bool] = []

        @panda.cb_before_block_exec(name="user", procname="sh", kernel=False)
        def user(cpu: Any, tb: Any) -> None:
            if not done and any(f.fd == 6 for f in panda.os.current.files()):
                done.append(True)
                look(cpu)

        panda.run_serial_cmd("sh -c 'while read -r x; do :; done <&6' 6</etc/passwd")
        assert done
        return out

    return in_guest(panda, work)


@pytest.mark.parametrize("arch", ["x86_64", "i386", "arm"])
def test_linux_functions(arch: str) -> None:
    out = run_case(case_linux_functions, arch)
    assert out["file"] == [True, 0] and out["dentry"] == [True, 0]
    assert out["read"] == 0 and out["name"] and out["same"]
    # While a program runs: the CPU would show no memory of the kernel.
    assert out["stack"] == [True, False]
    assert out["write"] == 0 and out["written"] == "by walk!"
    assert out["none"] == [True] * 5
