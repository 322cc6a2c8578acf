/*
 * Events of the guest's operating system, with all that is known of them, for
 * whoever listens: functions and streams.
 *
 * Which function of the kernel shows an event is decided in events.c. Whom an
 * event is for is decided here before it is looked at more closely.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/events.h"
#include "introspect/internal.h"
#include "core/stream.h"
#include "panda/os_events.h"
#include "panda/record.h"

#define PF_EXITING 0x4

static const struct {
    const char *name;
    OsEvent event;
} kinds[PANDA_OS_EVENT_KINDS] = {
    [PANDA_OS_START] = { "start", OS_EVENT_EXEC },
    [PANDA_OS_EXEC] = { "exec", OS_EVENT_EXEC },
    [PANDA_OS_FORK] = { "fork", OS_EVENT_FORK },
    [PANDA_OS_EXIT] = { "exit", OS_EVENT_EXIT },
    [PANDA_OS_SWITCH] = { "switch", OS_EVENT_SWITCH },
    [PANDA_OS_MMAP] = { "mmap", OS_EVENT_MMAP },
    [PANDA_OS_OPEN] = { "open", OS_EVENT_OPEN },
    [PANDA_OS_CLOSE] = { "close", OS_EVENT_CLOSE },
    [PANDA_OS_SIGNAL] = { "signal", OS_EVENT_SIGNAL },
    [PANDA_OS_DELIVER] = { "deliver", OS_EVENT_DELIVER },
};

typedef struct Listener {
    struct rcu_head rcu;
    PandaOsListenerSpec spec;
    /* As the kernel cuts it; empty: any. */
    char procname[PANDA_OS_COMM];
    int64_t number;
    bool removed;
    /* Its events cannot be had, and it knows. */
    bool told;
} Listener;

/* Never changed once published; replaced as a whole, freed by RCU. */
typedef struct List {
    struct rcu_head rcu;
    unsigned n;
    Listener *item[];
} List;

static List *listeners;
static int64_t last_number;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

uint32_t panda_os_raised;
/* Bits of PandaOsEventKind: what streams were told that they will not get. */
static uint32_t streams_told;

/* ---- what is known of an event; os_lock is held ---- */

static bool fill_mapping(PandaOsEvent *e, uint64_t vma)
{
    PandaMapping *m = &e->mapping;
    uint64_t pages = 0;

    m->vma = vma;
    if (!os_get_word(vma, OS_VMA_START, &m->start)
        || !os_get_word(vma, OS_VMA_END, &m->end) || m->start >= m->end) {
        return false;
    }
    os_get_word(vma, OS_VMA_FLAGS, &m->flags);
    os_get_word(vma, OS_VMA_FILE, &m->file);
    if (m->file) {
        os_get_word(vma, OS_VMA_PGOFF, &pages);
        m->offset = pages * os_page_size();
    }
    e->file = m->file;
    return true;
}

typedef struct Others {
    uint64_t task;
    bool any;
} Others;

static bool see_other(uint64_t task, void *opaque)
{
    Others *others = opaque;
    uint32_t flags;

    others->any = task != others->task
        && !(os_get_u32(task, OS_TASK_FLAGS, &flags) && flags & PF_EXITING);
    return !others->any;
}

static bool is_last_thread(const PandaOsEvent *e)
{
    Others others = { e->task.task };

    if (!os_knows(OS_TASK_THREAD_NODE) || !os_knows(OS_SIGNAL_THREAD_HEAD)
        || !os_knows(OS_TASK_FLAGS)) {
        return e->task.tid == e->task.pid;
    }
    os_for_each_thread(e->task.task, see_other, &others);
    return !others.any;
}

static bool fill(PandaOsEvent *e, CPUState *cs, OsEvent event, uint64_t task,
                 uint64_t argument, uint64_t other)
{
    *e = (PandaOsEvent) { .count = panda_rr_count() };
    if (!os_fill_task(task, &e->task)) {
        return false;
    }
    switch (event) {
    case OS_EVENT_FORK:
        return os_fill_task(argument, &e->other);
    case OS_EVENT_EXIT:
        e->value = (uint32_t)argument;
        e->flag = is_last_thread(e);
        return true;
    case OS_EVENT_MMAP:
        e->flag = other;
        return fill_mapping(e, argument);
    case OS_EVENT_OPEN:
    case OS_EVENT_CLOSE:
        e->value = (int32_t)argument;
        e->file = other;
        return true;
    case OS_EVENT_SIGNAL:
        e->value = argument;
        task = panda_os_current_task(cs);
        if (task) {
            os_fill_task(task, &e->other);
        }
        return argument && argument <= OS_LAST_SIGNAL;
    case OS_EVENT_DELIVER:
        e->value = argument;
        return true;
    default:
        return true;
    }
}

/* ---- whom it is for ---- */

/* As little as filters need; os_lock is held. */
static bool who_is(uint64_t task, int32_t *pid, char *comm)
{
    uint32_t value;

    if (!os_get_u32(task, OS_TASK_TGID, &value)
        || !os_read(task + os_offset(OS_TASK_COMM), comm, PANDA_OS_COMM)) {
        return false;
    }
    comm[PANDA_OS_COMM - 1] = 0;
    *pid = value;
    return true;
}

static bool wants(const Listener *l, OsEvent event, int32_t pid,
                  const char *comm)
{
    return kinds[l->spec.kind].event == event && !qatomic_read(&l->removed)
        && (!l->spec.pid || l->spec.pid == pid)
        && (!*l->procname || !strcmp(l->procname, comm));
}

/* The event's kinds, in the order they are told in. */
static const uint8_t order[PANDA_OS_EVENT_KINDS] = {
    PANDA_OS_EXEC, PANDA_OS_START, PANDA_OS_FORK, PANDA_OS_EXIT,
    PANDA_OS_SWITCH, PANDA_OS_MMAP, PANDA_OS_OPEN, PANDA_OS_CLOSE,
    PANDA_OS_SIGNAL, PANDA_OS_DELIVER,
};

bool panda_os_raise(CPUState *cs, OsEvent event, uint64_t task,
                    uint64_t argument, uint64_t other)
{
    const List *list = qatomic_rcu_read(&listeners);
    uint32_t streamed = qatomic_read(&panda_streamed_os);
    bool any = false, suppressed = false;
    char comm[PANDA_OS_COMM];
    PandaOsEvent e;
    int32_t pid;

    if (event == OS_EVENT_FORK) {
        task = panda_os_current_task(cs);
    }
    WITH_QEMU_LOCK_GUARD(&os_lock) {
        if (os_require() != PANDA_OK || !who_is(task, &pid, comm)) {
            return false;
        }
        for (unsigned k = 0; k < PANDA_OS_EVENT_KINDS; k++) {
            any |= kinds[k].event == event && (streamed & BIT(k));
        }
        for (unsigned i = 0; list && i < list->n && !any; i++) {
            any = wants(list->item[i], event, pid, comm);
        }
        if (!any || !fill(&e, cs, event, task, argument, other)) {
            return false;
        }
    }
    /* From here on nothing is held: Python and plugins are called. */
    for (unsigned o = 0; o < PANDA_OS_EVENT_KINDS; o++) {
        e.kind = order[o];
        if (kinds[e.kind].event != event) {
            continue;
        }
        if (streamed & BIT(e.kind)) {
            panda_stream_os(&e);
        }
        for (unsigned i = 0; list && i < list->n; i++) {
            const Listener *l = list->item[i];

            if (l->spec.kind == e.kind && wants(l, event, pid, comm)
                && !qatomic_read(&panda_gate_closed)) {
                suppressed |= l->spec.function(&panda_vcpu.pub, &e,
                                               l->spec.context) != 0;
            }
        }
    }
    return suppressed;
}

/* ---- who listens ---- */

static void free_list(List *list)
{
    g_free(list);
}

static void free_listener(Listener *l)
{
    g_free(l);
}

/* Replace the list; the lock is held. */
static void publish(Listener *in, const Listener *out)
{
    List *old = listeners;
    unsigned n = old ? old->n : 0;
    List *list = g_malloc0(sizeof(*list) + (n + 1) * sizeof(list->item[0]));

    for (unsigned i = 0; i < n; i++) {
        if (old->item[i] != out) {
            list->item[list->n++] = old->item[i];
        }
    }
    if (in) {
        list->item[list->n++] = in;
    }
    qatomic_rcu_set(&listeners, list);
    if (old) {
        PANDA_FREE_LATER(old, free_list);
    }
}

void panda_os_events_recount(void)
{
    uint32_t streamed = qatomic_read(&panda_streamed_os), raised = 0;

    pthread_mutex_lock(&lock);
    for (unsigned k = 0; k < PANDA_OS_EVENT_KINDS; k++) {
        raised |= streamed & BIT(k) ? BIT(kinds[k].event) : 0;
    }
    for (unsigned i = 0; listeners && i < listeners->n; i++) {
        raised |= BIT(kinds[listeners->item[i]->spec.kind].event);
    }
    streams_told &= streamed;
    pthread_mutex_unlock(&lock);
    qatomic_set(&panda_os_raised, raised);
    qatomic_set(&panda_os_events_due, true);
}

int64_t panda_os_events_add(const PandaOsListenerSpec *spec)
{
    const char *reason;
    Listener *l;

    if (spec->kind >= PANDA_OS_EVENT_KINDS || !spec->function) {
        return panda_fail(PANDA_ERR_ARGUMENT, spec->function
                          ? "there is no event of the guest's system of kind "
                            "%u" : "an event (%u) needs a function",
                          spec->kind);
    }
    reason = panda_os_event_reason(spec->kind);
    if (reason) {
        return panda_fail(PANDA_ERR_OS, "%s", reason);
    }
    l = g_new0(Listener, 1);
    l->spec = *spec;
    if (spec->procname) {
        g_strlcpy(l->procname, spec->procname, sizeof(l->procname));
    }
    l->spec.procname = l->procname;
    pthread_mutex_lock(&lock);
    l->number = ++last_number;
    publish(l, NULL);
    pthread_mutex_unlock(&lock);
    panda_os_events_recount();
    return l->number;
}

int panda_os_events_remove(int64_t number)
{
    Listener *found = NULL;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; listeners && i < listeners->n; i++) {
        if (listeners->item[i]->number == number) {
            found = listeners->item[i];
        }
    }
    if (found) {
        /* An event that walks the old list passes over it. */
        qatomic_set(&found->removed, true);
        publish(NULL, found);
        PANDA_FREE_LATER(found, free_listener);
    }
    pthread_mutex_unlock(&lock);
    if (!found) {
        return panda_fail(PANDA_ERR_ARGUMENT, "nobody listens to events under "
                          "the number %" PRId64, number);
    }
    panda_os_events_recount();
    return PANDA_OK;
}

const char *panda_os_event_name(uint32_t kind)
{
    return kind < PANDA_OS_EVENT_KINDS ? kinds[kind].name : NULL;
}

/* ---- kernels that do not show them ---- */

/* Fields without which an event would pass unseen. */
static bool lacks_fields(uint32_t kind, char *text, size_t size)
{
    static const OsField of_all[] = { OS_TASK_TGID, OS_TASK_COMM };
    static const OsField of_mmap[] = { OS_VMA_START, OS_VMA_END };
    const OsField *field = kind == PANDA_OS_MMAP ? of_mmap : of_all;

    for (unsigned i = 0; i < 2; i++) {
        if (!os_knows(field[i])) {
            snprintf(text, size, "where a %s has its %.*s",
                     os_field_structure(field[i]),
                     (int)strcspn(os_field_name(field[i]), "|"),
                     os_field_name(field[i]));
            return true;
        }
    }
    return false;
}

const char *panda_os_event_reason(uint32_t kind)
{
    /* Another thread may ask for another one. */
    static __thread char text[384];
    char field[64];
    const char *functions = kind < PANDA_OS_EVENT_KINDS
        ? panda_os_event_missing(kinds[kind].event) : NULL;
    const char *lacks = NULL;

    if (functions) {
        g_auto(GStrv) names = g_strsplit(functions, "|", 0);
        g_autofree char *all = g_strjoinv(" or ", names);

        snprintf(text, sizeof(text), "events '%s' of the guest's system "
                 "cannot be had: its kernel has no function %s%s",
                 kinds[kind].name, all, os_kallsyms_count() ? ""
                 : " that could be found, as its table of symbols was not");
        return text;
    }
    if (kind >= PANDA_OS_EVENT_KINDS || !panda_os_is_found()) {
        return NULL;
    }
    WITH_QEMU_LOCK_GUARD(&os_lock) {
        /* A signal is of whom the kernel's function is called for. */
        if (kind != PANDA_OS_SIGNAL) {
            lacks = panda_os_current_lacks(panda_vcpu.cs);
        }
        if (!lacks && panda_os_is_settled()
            && lacks_fields(kind, field, sizeof(field))) {
            lacks = field;
        }
    }
    if (!lacks) {
        return NULL;
    }
    snprintf(text, sizeof(text), "events '%s' of the guest's system cannot be "
             "had: of its kernel, which has no type information, it is not "
             "known %s; a profile of the kernel can say it "
             "(panda.os.use_profile())", kinds[kind].name, lacks);
    return text;
}

static Listener *next_to_tell(void)
{
    Listener *found = NULL;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; listeners && i < listeners->n && !found; i++) {
        Listener *l = listeners->item[i];

        if (!l->told && panda_os_event_reason(l->spec.kind)) {
            l->told = true;
            found = l;
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

void panda_os_tell_missing(void)
{
    uint32_t streamed = qatomic_read(&panda_streamed_os);
    Listener *l;

    RCU_READ_LOCK_GUARD();
    while ((l = next_to_tell())) {
        if (l->spec.missing && !qatomic_read(&l->removed)
            && !qatomic_read(&panda_gate_closed)) {
            l->spec.missing(panda_os_event_reason(l->spec.kind),
                            l->spec.context);
        }
    }
    for (unsigned k = 0; k < PANDA_OS_EVENT_KINDS; k++) {
        const char *reason = streamed & BIT(k) & ~streams_told
            ? panda_os_event_reason(k) : NULL;

        if (reason) {
            streams_told |= BIT(k);
            fprintf(stderr, "[pandalite] a stream of the guest's events: "
                    "%s\n", reason);
        }
    }
}
