/*
 * hooks2: hooks of blocks by process, library and range, and callbacks of
 * processes, threads and mappings.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "plugins/plugins.h"
#include "plugins/ppp.h"
#include "panda/filter.h"
#include "panda/os_events.h"
#include "panda/plugins/hooks.h"
#include "panda/plugins/hooks2.h"

typedef struct Hook2 {
    struct rcu_head rcu;
    hooks2_func_t function;
    void *cb_data;
    char *libname;
    char procname[PANDA_NAME_SIZE];
    /* By the user; by where the program has come to. */
    bool enabled, traced;
    /* Where tracing begins and ends; NULL: nowhere. */
    hook *begin, *end;
    /* Where that is; 0: nowhere. Of which blocks; 0 and 0: of all. */
    target_ptr_t trace_start, trace_stop, range_begin, range_end;
    /* What is mapped where it was last asked for, until something is. */
    struct {
        bool known, fits;
        target_ptr_t mm, start, end;
    } last;
} Hook2;

/* All there ever were, by number; each owns its callback. */
static GPtrArray *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* While a hook asks for a library. */
static int64_t follows;

static void listeners_changed(void);

#define POINT(name)                                                           \
    static PandaPppPoint name = PANDA_PPP_POINT("hooks2", #name,              \
                                                listeners_changed)
POINT(on_process_start);
POINT(on_process_end);
POINT(on_thread_start);
POINT(on_thread_end);
POINT(on_mmap_updated);

static PandaPppPoint *const points[] = {
    &on_process_start, &on_process_end, &on_thread_start, &on_thread_end,
    &on_mmap_updated,
};

/* ---- hooks ---- */

static bool is_mapped_from(Hook2 *h, target_ptr_t pc)
{
    PandaMapping m;
    PandaTask t;
    char path[4096];

    if (panda_os_current(&t) != PANDA_OK) {
        return false;
    }
    if (h->last.known && h->last.mm == t.mm && pc >= h->last.start
        && pc < h->last.end) {
        return h->last.fits;
    }
    h->last.known = panda_os_mapping_at(t.task, pc, &m) == PANDA_OK;
    if (!h->last.known) {
        return false;
    }
    h->last.mm = t.mm;
    h->last.start = m.start;
    h->last.end = m.end;
    h->last.fits = m.file
        && panda_os_file_path(m.file, path, sizeof(path)) > 0
        && strstr(path, h->libname);
    return h->last.fits;
}

static void block(void *context, PandaCPU *cpu, PandaTB *tb)
{
    Hook2 *h = context;

    /* The hook that ends it comes behind this. */
    if ((!h->trace_stop || tb->pc != h->trace_stop)
        && (!h->libname || is_mapped_from(h, tb->pc))) {
        h->function(cpu, tb, h->cb_data);
    }
}

static void update(Hook2 *h)
{
    if (h->enabled && h->traced) {
        panda_enable_plugin(h);
    } else {
        panda_disable_plugin(h);
    }
}

/* True if it was not so before. */
static bool trace(Hook2 *h, bool traced)
{
    PandaTask t;

    if (h->traced == traced
        || (*h->procname && (panda_os_current(&t) != PANDA_OK
                             || strcmp(t.name, h->procname)))) {
        return false;
    }
    h->traced = traced;
    update(h);
    return true;
}

static bool is_in_range(const Hook2 *h, target_ptr_t pc)
{
    return (!h->range_begin && !h->range_end)
        || (pc >= h->range_begin && pc <= h->range_end);
}

static void trace_begins(PandaCPU *cpu, PandaTB *tb, hook *at)
{
    Hook2 *h = at->context;

    /* From the next block on it is called by itself. */
    if (trace(h, true) && h->enabled && tb->pc == h->trace_start
        && is_in_range(h, tb->pc)) {
        block(h, cpu, tb);
    }
}

static void trace_ends(PandaCPU *cpu, PandaTB *tb, hook *at)
{
    trace(at->context, false);
}

static hook *put(Hook2 *h, target_ptr_t address, bool is_kernel,
                 void (*function)(PandaCPU *, PandaTB *, hook *))
{
    hook at = {
        .addr = address,
        .type = PANDA_CB_START_BLOCK_EXEC,
        .cb.start_block_exec = function,
        .km = is_kernel ? MODE_KERNEL_ONLY : MODE_USER_ONLY,
        .enabled = true,
        .context = h,
    };

    return address ? panda_hooks_add_hook(&at) : NULL;
}

static int maps_change(PandaCPU *cpu, const PandaOsEvent *e, void *context)
{
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; all && i < all->len; i++) {
        Hook2 *h = g_ptr_array_index(all, i);

        h->last.known = false;
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

static int watch(Hook2 *h, bool is_kernel)
{
    PandaRange range = { h->range_begin, h->range_end };
    PandaFilter filter = {
        .mode = is_kernel ? PANDA_MODE_KERNEL : PANDA_MODE_USER,
        .procname = *h->procname ? h->procname : NULL,
    };
    panda_cb_with_context cb = { .start_block_exec = block };
    int status;

    if (h->range_begin || h->range_end) {
        filter.pc = &range;
        filter.n_pc = 1;
    }
    status = panda_set_filter(h, &filter);
    return status != PANDA_OK ? status
        : panda_register_callback_with_context(h, PANDA_CB_START_BLOCK_EXEC,
                                               cb, h);
}

static int follow_maps(void)
{
    PandaOsListenerSpec spec = {
        .kind = PANDA_OS_MMAP, .function = maps_change,
    };

    if (follows <= 0) {
        follows = panda_os_events_add(&spec);
    }
    return MIN(follows, 0);
}

int panda_hooks2_add_hooks2(hooks2_func_t hook, void *cb_data, bool is_kernel,
                            const char *procname, const char *libname,
                            target_ptr_t trace_start, target_ptr_t trace_stop,
                            target_ptr_t range_begin, target_ptr_t range_end)
{
    Hook2 *h;
    int status;

    if (!hook || !all || range_begin > range_end) {
        return panda_fail(PANDA_ERR_ARGUMENT, !hook ? "a hook needs a function"
                          : !all ? "the plugin hooks2 is not loaded"
                          : "a range ends before it begins");
    }
    if (libname && *libname && (status = follow_maps()) < 0) {
        return status;
    }
    h = g_new0(Hook2, 1);
    h->function = hook;
    h->cb_data = cb_data;
    h->libname = libname && *libname ? g_strdup(libname) : NULL;
    g_strlcpy(h->procname, procname ?: "", sizeof(h->procname));
    h->enabled = true;
    h->traced = !trace_start;
    h->trace_start = trace_start;
    h->trace_stop = trace_stop;
    h->range_begin = range_begin;
    h->range_end = range_end;
    status = watch(h, is_kernel);
    if (status != PANDA_OK) {
        panda_unregister_callbacks(h);
        g_free(h->libname);
        g_free(h);
        return status;
    }
    update(h);
    h->begin = put(h, trace_start, is_kernel, trace_begins);
    h->end = put(h, trace_stop, is_kernel, trace_ends);
    pthread_mutex_lock(&lock);
    g_ptr_array_add(all, h);
    status = all->len;
    pthread_mutex_unlock(&lock);
    return status;
}

static int set_enabled(int id, bool enabled)
{
    Hook2 *h = NULL;

    pthread_mutex_lock(&lock);
    if (all && id > 0 && id <= all->len) {
        h = g_ptr_array_index(all, id - 1);
        h->enabled = enabled;
    }
    pthread_mutex_unlock(&lock);
    if (!h) {
        return panda_fail(PANDA_ERR_ARGUMENT, "there is no hook %d", id);
    }
    update(h);
    return PANDA_OK;
}

int panda_hooks2_enable_hooks2(int id)
{
    return set_enabled(id, true);
}

int panda_hooks2_disable_hooks2(int id)
{
    return set_enabled(id, false);
}

/* ---- callbacks ---- */

static int forked(PandaCPU *cpu, const PandaOsEvent *e, void *context)
{
    const PandaTask *t = &e->other;

    if (t->pid == t->tid) {
        PANDA_PPP_RUN(&on_process_start, on_process_start_t, cpu, t->name,
                      t->asid, t->pid);
    } else {
        PANDA_PPP_RUN(&on_thread_start, on_thread_start_t, cpu, t->name,
                      t->asid, t->pid, t->tid);
    }
    return 0;
}

static int executed(PandaCPU *cpu, const PandaOsEvent *e, void *context)
{
    PANDA_PPP_RUN(&on_process_start, on_process_start_t, cpu, e->task.name,
                  e->task.asid, e->task.pid);
    return 0;
}

static int ended(PandaCPU *cpu, const PandaOsEvent *e, void *context)
{
    const PandaTask *t = &e->task;

    if (e->flag) {
        PANDA_PPP_RUN(&on_process_end, on_process_end_t, cpu, t->name,
                      t->asid, t->pid);
    } else {
        PANDA_PPP_RUN(&on_thread_end, on_thread_end_t, cpu, t->name, t->asid,
                      t->pid, t->tid);
    }
    return 0;
}

static int mapped(PandaCPU *cpu, const PandaOsEvent *e, void *context)
{
    char path[4096];

    if (e->file && panda_os_file_path(e->file, path, sizeof(path)) > 0) {
        PANDA_PPP_RUN(&on_mmap_updated, on_mmap_updated_t, cpu, path,
                      e->mapping.start, e->mapping.end - e->mapping.start);
    }
    return 0;
}

/* Which events are listened to, while somebody wants them. */
static struct {
    PandaOsEventKind kind;
    PandaOsEventFunction function;
    int64_t number;
} events[] = {
    { PANDA_OS_FORK, forked },
    { PANDA_OS_EXEC, executed },
    { PANDA_OS_EXIT, ended },
    { PANDA_OS_MMAP, mapped },
};

static bool is_wanted(PandaOsEventKind kind)
{
    switch (kind) {
    case PANDA_OS_FORK:
        return on_process_start.n || on_thread_start.n;
    case PANDA_OS_EXEC:
        return on_process_start.n;
    case PANDA_OS_EXIT:
        return on_process_end.n || on_thread_end.n;
    default:
        return on_mmap_updated.n;
    }
}

static void listeners_changed(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(events); i++) {
        PandaOsListenerSpec spec = {
            .kind = events[i].kind, .function = events[i].function,
            .missing = panda_plugin_misses, .context = (void *)"hooks2",
        };
        bool wanted = is_wanted(events[i].kind);

        if (wanted && events[i].number <= 0) {
            events[i].number = panda_os_events_add(&spec);
            if (events[i].number < 0) {
                panda_plugin_misses(panda_last_error(), spec.context);
            }
        } else if (!wanted && events[i].number > 0) {
            panda_os_events_remove(events[i].number);
            events[i].number = 0;
        }
    }
}

static bool init(PandaPlugin *self)
{
    for (unsigned i = 0; i < ARRAY_SIZE(points); i++) {
        panda_ppp_define(points[i]);
    }
    all = g_ptr_array_new();
    return true;
}

static void free_hook(Hook2 *h)
{
    g_free(h->libname);
    g_free(h);
}

static void uninit(PandaPlugin *self)
{
    GPtrArray *old = all;

    for (unsigned i = 0; i < ARRAY_SIZE(points); i++) {
        panda_ppp_undefine(points[i]);
    }
    listeners_changed();
    if (follows > 0) {
        panda_os_events_remove(follows);
    }
    follows = 0;
    pthread_mutex_lock(&lock);
    all = NULL;
    pthread_mutex_unlock(&lock);
    for (unsigned i = 0; i < old->len; i++) {
        Hook2 *h = g_ptr_array_index(old, i);

        if (h->begin) {
            panda_hooks_remove_hook(h->begin);
        }
        if (h->end) {
            panda_hooks_remove_hook(h->end);
        }
        panda_unregister_callbacks(h);
        PANDA_FREE_LATER(h, free_hook);
    }
    g_ptr_array_free(old, true);
}

PANDA_PLUGIN(hooks2, "PANDA's older hooks, and callbacks of processes, "
             "threads and mappings", init, uninit);
