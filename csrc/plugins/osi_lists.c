/*
 * osi: lists of processes, mappings and modules, in PANDA's structures.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "plugins/osi.h"

#define LONGEST_PATH 4096
/* A guest that changes its lists while they are asked for is given up on. */
#define ATTEMPTS 8

/* ---- processes ---- */

/* All tasks, in an array to be freed; NULL with an error set. */
static PandaTask *all_tasks(int64_t *n)
{
    uint64_t room = 128;

    for (unsigned i = 0; i < ATTEMPTS; i++) {
        PandaTask *tasks = g_new(PandaTask, room);

        *n = panda_os_processes(tasks, room);
        if (*n >= 0 && *n <= room) {
            return tasks;
        }
        g_free(tasks);
        if (*n < 0) {
            break;
        }
        room = *n + *n / 4;
    }
    return NULL;
}

PandaArray *panda_osi_get_processes(PandaCPU *cpu)
{
    g_autofree PandaTask *tasks = NULL;
    PandaArray *list = NULL;
    int64_t n;

    if (OSI_ASK(on_get_processes, cpu, &list)) {
        return panda_osi_given(list, OSI_PROCESSES);
    }
    tasks = all_tasks(&n);
    if (!tasks) {
        return NULL;
    }
    list = panda_osi_new_list(OSI_PROCESSES, n);
    for (int64_t i = 0; i < n; i++) {
        ((OsiProc *)list->data)[list->len++] =
            panda_osi_process_of(&tasks[i]);
    }
    return list;
}

/* Of a list that somebody else has made. */
static PandaArray *handles_of(PandaArray *processes)
{
    PandaArray *list;

    if (!processes) {
        return NULL;
    }
    list = panda_osi_new_list(OSI_HANDLES, processes->len);
    for (uint32_t i = 0; i < processes->len; i++) {
        const OsiProc *p = panda_osi_get_one_proc(processes, i);

        panda_osi_append(list, &(OsiProcHandle) {
            .taskd = p->taskd, .asid = p->asid,
        });
    }
    panda_osi_cleanup_garray(processes);
    return list;
}

PandaArray *panda_osi_get_process_handles(PandaCPU *cpu)
{
    g_autofree PandaTask *tasks = NULL;
    PandaArray *list = NULL;
    int64_t n;

    if (OSI_ASK(on_get_process_handles, cpu, &list)) {
        return panda_osi_given(list, OSI_HANDLES);
    }
    if (OSI_IS_ASKED(on_get_processes)) {
        return handles_of(panda_osi_get_processes(cpu));
    }
    tasks = all_tasks(&n);
    if (!tasks) {
        return NULL;
    }
    list = panda_osi_new_list(OSI_HANDLES, n);
    for (int64_t i = 0; i < n; i++) {
        ((OsiProcHandle *)list->data)[list->len++] =
            panda_osi_handle_of(&tasks[i]);
    }
    return list;
}

/* ---- mappings ---- */

static const char *purpose(const PandaMapping *m, const PandaProcessMemory *b)
{
    if (b->start_brk && m->start <= b->brk && m->end >= b->start_brk) {
        return "[heap]";
    }
    return m->start <= b->start_stack && b->start_stack < m->end
        ? "[stack]" : "[???]";
}

static void fill(OsiModule *out, const PandaMapping *m,
                 const PandaProcessMemory *bounds)
{
    g_autofree char *path = NULL;

    *out = (OsiModule) {
        .modd = m->vma,
        .base = m->start,
        .size = m->end - m->start,
        .offset = m->offset,
        .flags = m->flags,
    };
    if (m->file) {
        path = g_malloc0(LONGEST_PATH);
        if (panda_os_file_path(m->file, path, LONGEST_PATH) < 0) {
            path[0] = 0;
        }
    }
    if (path && path[0]) {
        const char *slash = strrchr(path, '/');

        out->file = g_strdup(path);
        out->name = g_strdup(slash ? slash + 1 : path);
    } else {
        out->name = g_strdup(purpose(m, bounds));
    }
}

static PandaMapping *all_mappings(const OsiProc *p, int64_t *n)
{
    uint64_t room = 64;

    for (unsigned i = 0; p && i < ATTEMPTS; i++) {
        PandaMapping *found = g_new(PandaMapping, room);

        *n = panda_os_mappings(p->taskd, found, room);
        if (*n >= 0 && *n <= room) {
            return found;
        }
        g_free(found);
        if (*n < 0) {
            break;
        }
        room = *n + *n / 4;
    }
    return NULL;
}

static PandaArray *mappings_of(const OsiProc *p)
{
    int64_t n;
    g_autofree PandaMapping *found = all_mappings(p, &n);
    PandaProcessMemory bounds;
    PandaArray *list;

    if (!found || panda_os_memory(p->taskd, &bounds) != PANDA_OK) {
        return NULL;
    }
    list = panda_osi_new_list(OSI_MODULES, n);
    for (int64_t i = 0; i < n; i++) {
        fill((OsiModule *)list->data + list->len++, &found[i], &bounds);
    }
    return list;
}

PandaArray *panda_osi_get_mappings(PandaCPU *cpu, OsiProc *p)
{
    PandaArray *list = NULL;

    return OSI_ASK(on_get_mappings, cpu, p, &list)
        ? panda_osi_given(list, OSI_MODULES) : mappings_of(p);
}

/* Those with a name and no file; NULL: with a file. */
static PandaArray *some_mappings(PandaCPU *cpu, OsiProc *p, const char *name)
{
    PandaArray *list = panda_osi_get_mappings(cpu, p);
    uint32_t kept = 0;

    for (uint32_t i = 0; list && i < list->len; i++) {
        OsiModule *m = panda_osi_get_one_module(list, i);

        if (name ? !m->file && !g_strcmp0(m->name, name) : !!m->file) {
            ((OsiModule *)list->data)[kept++] = *m;
        } else {
            panda_osi_empty_module(m);
        }
    }
    if (list) {
        list->len = kept;
    }
    return list;
}

PandaArray *panda_osi_get_file_mappings(PandaCPU *cpu, OsiProc *p)
{
    PandaArray *list = NULL;

    return OSI_ASK(on_get_file_mappings, cpu, p, &list)
        ? panda_osi_given(list, OSI_MODULES) : some_mappings(cpu, p, NULL);
}

PandaArray *panda_osi_get_heap_mappings(PandaCPU *cpu, OsiProc *p)
{
    PandaArray *list = NULL;

    return OSI_ASK(on_get_heap_mappings, cpu, p, &list)
        ? panda_osi_given(list, OSI_MODULES) : some_mappings(cpu, p, "[heap]");
}

PandaArray *panda_osi_get_stack_mappings(PandaCPU *cpu, OsiProc *p)
{
    PandaArray *list = NULL;

    return OSI_ASK(on_get_stack_mappings, cpu, p, &list)
        ? panda_osi_given(list, OSI_MODULES)
        : some_mappings(cpu, p, "[stack]");
}

PandaArray *panda_osi_get_unknown_mappings(PandaCPU *cpu, OsiProc *p)
{
    PandaArray *list = NULL;

    return OSI_ASK(on_get_unknown_mappings, cpu, p, &list)
        ? panda_osi_given(list, OSI_MODULES) : some_mappings(cpu, p, "[???]");
}

OsiProcMem *panda_osi_get_proc_mem(PandaCPU *cpu, const OsiProc *p)
{
    PandaProcessMemory bounds;
    OsiProcMem *m = NULL;

    if (OSI_ASK(on_get_proc_mem, cpu, p, &m)) {
        return m;
    }
    if (!p || panda_os_memory(p->taskd, &bounds) != PANDA_OK) {
        return NULL;
    }
    m = g_new0(OsiProcMem, 1);
    m->start_brk = bounds.start_brk;
    m->brk = bounds.brk;
    return m;
}

static OsiModule *find_by_addr(PandaArray *list, uint64_t addr)
{
    OsiModule *found = NULL;

    for (uint32_t i = 0; list && i < list->len && !found; i++) {
        const OsiModule *m = panda_osi_get_one_module(list, i);

        if (addr >= m->base && addr - m->base < m->size) {
            found = panda_osi_copy_osimodule(m);
        }
    }
    panda_osi_cleanup_garray(list);
    return found;
}

OsiModule *panda_osi_get_mapping_by_addr(PandaCPU *cpu, OsiProc *p,
                                         uint64_t addr)
{
    PandaProcessMemory bounds;
    OsiModule *out = NULL;
    PandaMapping m;

    if (OSI_ASK(on_get_mapping_by_addr, cpu, p, addr, &out)) {
        return out;
    }
    if (OSI_IS_ASKED(on_get_mappings)) {
        return find_by_addr(panda_osi_get_mappings(cpu, p), addr);
    }
    if (!p || panda_os_mapping_at(p->taskd, addr, &m) != PANDA_OK
        || panda_os_memory(p->taskd, &bounds) != PANDA_OK) {
        return NULL;
    }
    out = g_new(OsiModule, 1);
    fill(out, &m, &bounds);
    return out;
}

uint64_t panda_osi_get_mapping_base_address_by_name(PandaCPU *cpu,
                                                    OsiProc *p,
                                                    const char *name)
{
    PandaArray *list;
    uint64_t base = 0;

    if (OSI_ASK(on_get_mapping_base_address_by_name, cpu, p, name, &base)) {
        return base;
    }
    list = panda_osi_get_mappings(cpu, p);
    for (uint32_t i = 0; list && i < list->len && !base; i++) {
        const OsiModule *m = panda_osi_get_one_module(list, i);

        if (!g_strcmp0(m->name, name)) {
            base = m->base;
        }
    }
    panda_osi_cleanup_garray(list);
    return base;
}

bool panda_osi_has_mapping_prefix(PandaCPU *cpu, OsiProc *p,
                                  const char *prefix)
{
    PandaArray *list;
    bool hit = false;

    if (OSI_ASK(on_has_mapping_prefix, cpu, p, prefix, &hit)) {
        return hit;
    }
    list = panda_osi_get_mappings(cpu, p);
    for (uint32_t i = 0; list && i < list->len && !hit; i++) {
        const OsiModule *m = panda_osi_get_one_module(list, i);

        hit = m->name && g_str_has_prefix(m->name, prefix);
    }
    panda_osi_cleanup_garray(list);
    return hit;
}

bool panda_osi_in_shared_object(PandaCPU *cpu, OsiProc *p)
{
    OsiModule *m = panda_in_kernel_mode(cpu) ? NULL
        : panda_osi_get_mapping_by_addr(cpu, p, panda_current_pc(cpu));
    bool shared = m && m->file && m->name && strstr(m->name, ".so");

    panda_osi_free_osimodule(m);
    return shared;
}

/* ---- the kernel's modules ---- */

PandaArray *panda_osi_get_modules(PandaCPU *cpu)
{
    g_autofree PandaModule *found = NULL;
    uint64_t room = 128;
    PandaArray *list = NULL;
    int64_t n = -1;

    if (OSI_ASK(on_get_modules, cpu, &list)) {
        return panda_osi_given(list, OSI_MODULES);
    }
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        found = g_renew(PandaModule, found, room);
        n = panda_os_modules(found, room);
        if (n <= (int64_t)room) {
            break;
        }
        room = n + n / 4;
    }
    if (n < 0 || n > room) {
        return NULL;
    }
    list = panda_osi_new_list(OSI_MODULES, n);
    for (int64_t i = 0; i < n; i++) {
        ((OsiModule *)list->data)[list->len++] = (OsiModule) {
            .modd = found[i].module,
            .base = found[i].base,
            .size = found[i].size,
            .name = g_strdup(found[i].name),
        };
    }
    return list;
}
