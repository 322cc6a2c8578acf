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

enum { PROCESSES, HANDLES, MODULES };

static PandaArray *new_array(uint32_t kind, size_t element, uint64_t n)
{
    PandaArray *list = g_new0(PandaArray, 1);

    list->data = g_malloc0_n(n + 1, element);
    list->kind = kind;
    return list;
}

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
    int64_t n;
    g_autofree PandaTask *tasks = all_tasks(&n);
    PandaArray *list;

    if (!tasks) {
        return NULL;
    }
    list = new_array(PROCESSES, sizeof(OsiProc), n);
    for (int64_t i = 0; i < n; i++) {
        ((OsiProc *)list->data)[list->len++] =
            panda_osi_process_of(&tasks[i]);
    }
    return list;
}

PandaArray *panda_osi_get_process_handles(PandaCPU *cpu)
{
    int64_t n;
    g_autofree PandaTask *tasks = all_tasks(&n);
    PandaArray *list;

    if (!tasks) {
        return NULL;
    }
    list = new_array(HANDLES, sizeof(OsiProcHandle), n);
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

static void empty(OsiModule *m)
{
    g_free(m->file);
    g_free(m->name);
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

/* Those with a name; NULL: of files. The empty name: all. */
static PandaArray *mappings(const OsiProc *p, const char *name)
{
    int64_t n;
    g_autofree PandaMapping *found = all_mappings(p, &n);
    PandaProcessMemory bounds;
    PandaArray *list;

    if (!found || panda_os_memory(p->taskd, &bounds) != PANDA_OK) {
        return NULL;
    }
    list = new_array(MODULES, sizeof(OsiModule), n);
    for (int64_t i = 0; i < n; i++) {
        OsiModule m;

        fill(&m, &found[i], &bounds);
        if (name ? !name[0] || (!m.file && !strcmp(m.name, name)) : !!m.file) {
            ((OsiModule *)list->data)[list->len++] = m;
        } else {
            empty(&m);
        }
    }
    return list;
}

PandaArray *panda_osi_get_mappings(PandaCPU *cpu, OsiProc *p)
{
    return mappings(p, "");
}

PandaArray *panda_osi_get_file_mappings(PandaCPU *cpu, OsiProc *p)
{
    return mappings(p, NULL);
}

PandaArray *panda_osi_get_heap_mappings(PandaCPU *cpu, OsiProc *p)
{
    return mappings(p, "[heap]");
}

PandaArray *panda_osi_get_stack_mappings(PandaCPU *cpu, OsiProc *p)
{
    return mappings(p, "[stack]");
}

PandaArray *panda_osi_get_unknown_mappings(PandaCPU *cpu, OsiProc *p)
{
    return mappings(p, "[???]");
}

OsiProcMem *panda_osi_get_proc_mem(PandaCPU *cpu, const OsiProc *p)
{
    PandaProcessMemory bounds;
    OsiProcMem *m;

    if (!p || panda_os_memory(p->taskd, &bounds) != PANDA_OK) {
        return NULL;
    }
    m = g_new0(OsiProcMem, 1);
    m->start_brk = bounds.start_brk;
    m->brk = bounds.brk;
    return m;
}

OsiModule *panda_osi_get_mapping_by_addr(PandaCPU *cpu, OsiProc *p,
                                         uint64_t addr)
{
    PandaProcessMemory bounds;
    PandaMapping m;
    OsiModule *out;

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
    PandaArray *list = mappings(p, "");
    uint64_t base = 0;

    for (uint32_t i = 0; list && i < list->len && !base; i++) {
        const OsiModule *m = panda_osi_get_one_module(list, i);

        if (!strcmp(m->name, name)) {
            base = m->base;
        }
    }
    panda_osi_cleanup_garray(list);
    return base;
}

bool panda_osi_has_mapping_prefix(PandaCPU *cpu, OsiProc *p,
                                  const char *prefix)
{
    PandaArray *list = mappings(p, "");
    bool hit = false;

    for (uint32_t i = 0; list && i < list->len && !hit; i++) {
        hit = g_str_has_prefix(panda_osi_get_one_module(list, i)->name,
                               prefix);
    }
    panda_osi_cleanup_garray(list);
    return hit;
}

bool panda_osi_in_shared_object(PandaCPU *cpu, OsiProc *p)
{
    OsiModule *m = panda_in_kernel_mode(cpu) ? NULL
        : panda_osi_get_mapping_by_addr(cpu, p, panda_current_pc(cpu));
    bool shared = m && m->file && strstr(m->name, ".so");

    panda_osi_free_osimodule(m);
    return shared;
}

/* ---- the kernel's modules ---- */

PandaArray *panda_osi_get_modules(PandaCPU *cpu)
{
    g_autofree PandaModule *found = NULL;
    uint64_t room = 128;
    PandaArray *list;
    int64_t n = -1;

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
    list = new_array(MODULES, sizeof(OsiModule), n);
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

/* ---- lists ---- */

OsiModule *panda_osi_get_one_module(PandaArray *list, uint32_t index)
{
    return list && list->kind == MODULES && index < list->len
        ? &((OsiModule *)list->data)[index] : NULL;
}

OsiProc *panda_osi_get_one_proc(PandaArray *list, uint32_t index)
{
    return list && list->kind == PROCESSES && index < list->len
        ? &((OsiProc *)list->data)[index] : NULL;
}

uint32_t panda_osi_garray_len(PandaArray *list)
{
    return list ? list->len : 0;
}

void panda_osi_cleanup_garray(PandaArray *list)
{
    if (!list) {
        return;
    }
    for (uint32_t i = 0; i < list->len; i++) {
        if (list->kind == PROCESSES) {
            g_free(((OsiProc *)list->data)[i].name);
        } else if (list->kind == MODULES) {
            empty(&((OsiModule *)list->data)[i]);
        }
    }
    g_free(list->data);
    g_free(list);
}

void panda_osi_free_osimodule(OsiModule *m)
{
    if (m) {
        empty(m);
        g_free(m);
    }
}

void panda_osi_free_osiprocmem(OsiProcMem *m)
{
    g_free(m);
}
