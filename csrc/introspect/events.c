/*
 * Events of the guest's operating system.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/events.h"
#include "introspect/internal.h"
#include "panda/plugins/hooks.h"

#define LISTENERS 16

/* Where the task of an event is found. */
typedef enum TaskFrom {
    FROM_CURRENT,
    FROM_FIRST_ARGUMENT,
} TaskFrom;

typedef struct Source {
    /* A function of the kernel. The compiler may have split it. */
    const char *function;
    TaskFrom from;
    OsEventFn listener[LISTENERS];
    unsigned n;
    hook *hook;
    uint64_t address;
    bool missing;
} Source;

static Source sources[OS_EVENTS] = {
    /* Both old and new threads pass here, when all is switched. */
    [OS_EVENT_SWITCH] = { "finish_task_switch", FROM_CURRENT },
    /* Memory, name and arguments are the new ones. */
    [OS_EVENT_EXEC] = { "finalize_exec", FROM_CURRENT },
    [OS_EVENT_FORK] = { "wake_up_new_task", FROM_FIRST_ARGUMENT },
    [OS_EVENT_EXIT] = { "do_exit", FROM_CURRENT },
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
bool panda_os_events_due;

/* ---- hooks ---- */

static void hooked(PandaCPU *cpu, PandaTB *tb, hook *h)
{
    Source *s = h->context;
    CPUState *cs = panda_vcpu.cs;
    uint64_t argument = 0, task;

    panda_hooks_get_argument(cpu, 0, &argument);
    task = s->from == FROM_FIRST_ARGUMENT ? argument
                                          : panda_os_current_task(cs);
    if (!task) {
        return;
    }
    for (unsigned i = 0; i < qatomic_read(&s->n); i++) {
        OsEventFn function = qatomic_read(&s->listener[i]);

        if (function) {
            function(cs, task, argument);
        }
    }
}

static bool find_function(const char *name, uint64_t *address)
{
    static const char *const suffix[] = {
        "", ".isra.0", ".constprop.0", ".part.0",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(suffix); i++) {
        g_autofree char *full = g_strconcat(name, suffix[i], NULL);

        OS_LOCK_GUARD();
        if (os_symbol(full, address)) {
            return true;
        }
    }
    return false;
}

static void put_hook(Source *s)
{
    hook h = {
        .type = PANDA_CB_START_BLOCK_EXEC,
        .cb.start_block_exec = hooked,
        .km = MODE_KERNEL_ONLY,
        .enabled = true,
        .context = s,
    };

    if (s->hook) {
        return;
    }
    s->missing = !find_function(s->function, &h.addr);
    if (!s->missing) {
        s->address = h.addr;
        s->hook = panda_hooks_add_hook(&h);
    }
}

static void take_hook(Source *s)
{
    if (s->hook) {
        panda_hooks_remove_hook(s->hook);
        s->hook = NULL;
    }
}

void panda_os_events_poll(CPUState *cs)
{
    bool due = false, wanted = false, ready;

    for (OsEvent e = 0; e < OS_EVENTS; e++) {
        wanted |= qatomic_read(&sources[e].n);
    }
    /* The kernel is looked for only if somebody wants to know. */
    ready = wanted && panda_os_ready(cs);
    pthread_mutex_lock(&lock);
    for (OsEvent e = 0; e < OS_EVENTS; e++) {
        Source *s = &sources[e];
        uint64_t at;

        if (!s->n) {
            take_hook(s);
        } else if (!ready) {
            due = true;
        } else {
            /* Another kernel, or the same one elsewhere. */
            if (s->hook && (!find_function(s->function, &at)
                            || at != s->address)) {
                take_hook(s);
            }
            put_hook(s);
        }
    }
    qatomic_set(&panda_os_events_due, due);
    pthread_mutex_unlock(&lock);
}

/* ---- who wants to know ---- */

void panda_os_subscribe(OsEvent event, OsEventFn function)
{
    Source *s = &sources[event];

    pthread_mutex_lock(&lock);
    if (s->n < LISTENERS) {
        s->listener[s->n] = function;
        qatomic_set(&s->n, s->n + 1);
    }
    qatomic_set(&panda_os_events_due, true);
    pthread_mutex_unlock(&lock);
}

void panda_os_unsubscribe(OsEvent event, OsEventFn function)
{
    Source *s = &sources[event];

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < s->n; i++) {
        if (s->listener[i] == function) {
            qatomic_set(&s->listener[i], s->listener[s->n - 1]);
            qatomic_set(&s->n, s->n - 1);
            break;
        }
    }
    qatomic_set(&panda_os_events_due, true);
    pthread_mutex_unlock(&lock);
}

const char *panda_os_event_missing(OsEvent event)
{
    return sources[event].missing ? sources[event].function : NULL;
}
