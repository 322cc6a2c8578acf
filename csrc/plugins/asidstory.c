/*
 * asidstory: which processes ran when, as a chart in the file `asidstory`.
 *
 * Time is the number of instructions since the recording or replay began;
 * without one, the number of changes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "plugins/plugins.h"
#include "plugins/ppp.h"
#include "panda/os_events.h"
#include "panda/plugins/asidstory.h"
#include "panda/record.h"

#define NARROWEST 80
#define WIDEST 10000

/* A process, as it was under one name. */
typedef struct Process {
    PandaTask task;
    /* How often it came to run; for how long; when first and last. */
    uint64_t count, time, first, last;
} Process;

typedef struct Change {
    uint64_t at;
    /* Index of the process that runs from then on. */
    uint32_t process;
} Change;

static PandaPppPoint on_proc_change =
    PANDA_PPP_POINT("asidstory", "on_proc_change", NULL);

static uint64_t width;
static bool summary;
static GArray *processes, *changes;
static int64_t numbers[2];
/* The arrays. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now(const PandaOsEvent *e)
{
    return e->count ?: changes->len;
}

static uint32_t index_of(const PandaTask *t)
{
    Process new = { .task = *t };

    for (uint32_t i = 0; i < processes->len; i++) {
        PandaTask *known = &g_array_index(processes, Process, i).task;

        /* At its end it has no address space. */
        if (known->pid == t->pid && !strcmp(known->name, t->name)) {
            known->asid = known->asid ?: t->asid;
            return i;
        }
    }
    g_array_append_val(processes, new);
    return processes->len - 1;
}

/* Note who runs; false: it is who ran before. The lock is held. */
static bool note(const PandaOsEvent *e)
{
    Change change = { now(e), index_of(&e->task) };
    Process *p = &g_array_index(processes, Process, change.process);
    uint32_t n = changes->len;

    if (n && g_array_index(changes, Change, n - 1).process == change.process) {
        return false;
    }
    if (!p->count++) {
        p->first = change.at;
    }
    g_array_append_val(changes, change);
    return true;
}

static int changed(PandaCPU *cpu, const PandaOsEvent *e, void *context)
{
    OsiProc proc = {
        .taskd = e->task.task, .pgd = e->task.pgd, .asid = e->task.asid,
        .pid = e->task.pid, .ppid = e->task.ppid,
        .name = (char *)e->task.name, .create_time = e->task.create_time,
    };
    bool is_new;

    pthread_mutex_lock(&lock);
    is_new = changes && note(e);
    pthread_mutex_unlock(&lock);
    if (is_new) {
        PANDA_PPP_RUN(&on_proc_change, on_proc_change_t, cpu, e->task.asid,
                      &proc);
    }
    return 0;
}

/* ---- the file ---- */

static gint by_time(gconstpointer a, gconstpointer b)
{
    const Process *const *p = a, *const *q = b;

    return (*p)->time < (*q)->time ? 1 : (*p)->time > (*q)->time ? -1 : 0;
}

static uint64_t end_of(uint32_t i, uint64_t end)
{
    return i + 1 < changes->len
        ? g_array_index(changes, Change, i + 1).at : end;
}

/* When each process ran; rows: a byte for each process and column. */
static void draw(char *rows, uint64_t begin, uint64_t end)
{
    uint64_t span = MAX(end - begin, 1);

    for (uint32_t i = 0; i < changes->len; i++) {
        const Change *c = &g_array_index(changes, Change, i);
        Process *p = &g_array_index(processes, Process, c->process);
        uint64_t until = MAX(end_of(i, end), c->at + 1);
        uint64_t from = MIN((c->at - begin) * (double)width / span, width - 1);
        uint64_t to = MIN((until - 1 - begin) * (double)width / span,
                          width - 1);

        p->last = until - 1;
        p->time += until - c->at;
        memset(rows + c->process * width + from, '#', to - from + 1);
    }
}

static void write_story(FILE *file, uint64_t end)
{
    g_autofree char *rows = g_malloc(processes->len * width + 1);
    g_autoptr(GPtrArray) sorted = g_ptr_array_new();
    uint64_t begin = g_array_index(changes, Change, 0).at;

    memset(rows, ' ', processes->len * width);
    draw(rows, begin, MAX(end, begin + 1));
    for (uint32_t i = 0; i < processes->len; i++) {
        Process *p = &g_array_index(processes, Process, i);

        if (p->count) {
            g_ptr_array_add(sorted, p);
        }
    }
    g_ptr_array_sort(sorted, by_time);
    fprintf(file, "%10s %7s %-15s %16s %18s %18s\n", "Count", "Pid", "Name",
            "Asid", "First", "Last");
    for (uint32_t i = 0; i < sorted->len; i++) {
        const Process *p = g_ptr_array_index(sorted, i);

        fprintf(file, "%10" PRIu64 " %7d %-15s %16" PRIx64 " %18" PRIu64
                " %18" PRIu64 "\n", p->count, p->task.pid, p->task.name,
                p->task.asid, p->first, p->last);
    }
    if (summary) {
        return;
    }
    fputc('\n', file);
    for (uint32_t i = 0; i < sorted->len; i++) {
        const Process *p = g_ptr_array_index(sorted, i);
        uint32_t n = p - &g_array_index(processes, Process, 0);

        fprintf(file, "%15s %7d : [%.*s]\n", p->task.name, p->task.pid,
                (int)width, rows + n * width);
    }
}

static void forget(void)
{
    pthread_mutex_lock(&lock);
    g_array_free(processes, true);
    g_array_free(changes, true);
    processes = changes = NULL;
    pthread_mutex_unlock(&lock);
}

static bool listen_to(PandaOsEventKind kind, int64_t *number)
{
    PandaOsListenerSpec spec = {
        .kind = kind, .function = changed,
        .missing = panda_plugin_misses, .context = (void *)"asidstory",
    };

    *number = panda_os_events_add(&spec);
    return *number > 0;
}

static bool init(PandaPlugin *self)
{
    g_autoptr(panda_arg_list) args = panda_plugin_args(self);

    width = MAX(panda_parse_uint64_opt(args, "width", 100,
                                       "columns of the chart"), NARROWEST);
    summary = panda_parse_bool_opt(args, "summary", "no chart");
    if (width > WIDEST) {
        panda_fail(PANDA_ERR_ARGUMENT, "plugin asidstory: width=%" PRIu64
                   " is more than %d", width, WIDEST);
        return false;
    }
    processes = g_array_new(false, false, sizeof(Process));
    changes = g_array_new(false, false, sizeof(Change));
    if (!listen_to(PANDA_OS_SWITCH, &numbers[0])) {
        forget();
        return false;
    }
    if (!listen_to(PANDA_OS_EXEC, &numbers[1])) {
        panda_os_events_remove(numbers[0]);
        forget();
        return false;
    }
    panda_ppp_define(&on_proc_change);
    return true;
}

static void uninit(PandaPlugin *self)
{
    panda_os_events_remove(numbers[0]);
    panda_os_events_remove(numbers[1]);
    panda_ppp_undefine(&on_proc_change);
    if (changes->len) {
        const Change *last = &g_array_index(changes, Change, changes->len - 1);
        FILE *file = fopen("asidstory", "w");

        if (file) {
            write_story(file, MAX(panda_rr_count(), last->at + 1));
            fclose(file);
        } else {
            fprintf(stderr, "[pandalite] plugin asidstory: the file asidstory "
                    "cannot be written: %s\n", strerror(errno));
        }
    }
    forget();
}

PANDA_PLUGIN(asidstory, "which processes ran when, as a chart", init, uninit);
