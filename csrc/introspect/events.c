/*
 * Events of the guest's operating system.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/events.h"
#include "introspect/internal.h"
#include "arch/abi.h"
#include "panda/plugins/hooks.h"

#define LISTENERS 16

typedef struct Source Source;

/* A function of the kernel that runs when something happens. */
struct Source {
    OsEvent event;
    /*
     * Its names in versions of the kernel, the innermost first. The compiler
     * may have split it.
     */
    const char *functions;
    void (*arrived)(CPUState *cs, OsEvent event);
    /* Kernels without it show the event by the others. */
    bool optional;
    /* It is for kernels without this one. */
    const char *instead_of;
    hook *hook;
    uint64_t address;
};

static void run_listeners(CPUState *cs, OsEvent e, uint64_t task,
                          uint64_t argument);

/* ---- what happens, by the function it is known from ---- */

/* It was noticed that this kernel does not show which thread runs. */
static bool noticed;

/* The thread that runs; 0: whoever waits for events gets to know why. */
static uint64_t running(CPUState *cs)
{
    uint64_t task = panda_os_current_task(cs);

    if (unlikely(!task) && !noticed && panda_os_current_lacks(cs)) {
        noticed = true;
        qatomic_set(&panda_os_events_due, true);
    }
    return task;
}

static void at_current(CPUState *cs, OsEvent e)
{
    uint64_t task = running(cs), argument = 0;

    panda_os_get_argument(cs, 0, &argument);
    if (task) {
        run_listeners(cs, e, task, argument);
    }
}

static void at_first_argument(CPUState *cs, OsEvent e)
{
    uint64_t task;

    if (panda_os_get_argument(cs, 0, &task) && task) {
        run_listeners(cs, e, task, task);
    }
}

/* Of the kernel's function that called this one. */
static bool caller_is(CPUState *cs, const char *const *parts, unsigned n)
{
    uint64_t from, offset;
    const char *name;
    char type;

    OS_LOCK_GUARD();
    if (!panda_abi_return_address(cs, &from)
        || !(name = os_symbol_at(from, &offset, &type))) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        if (strstr(name, parts[i])) {
            return true;
        }
    }
    return false;
}

/* The kernel tells its profiler of mappings, new ones and changed ones. */
static void mapped(CPUState *cs, OsEvent e)
{
    static const char *const changes[] = {
        "mprotect", "expand", "stack_growth",
    };
    uint64_t vma, task = running(cs);

    if (task && panda_os_get_argument(cs, 0, &vma)) {
        panda_os_raise(cs, e, task, vma,
                       caller_is(cs, changes, ARRAY_SIZE(changes)));
    }
}

/*
 * Where a function returns to that makes mappings: hooked when it is first
 * called from there.
 */
#define RETURNS 8

static struct {
    uint64_t at;
    hook *hook;
} returns[RETURNS];

/* The function has made a mapping, and returns its address. */
static void mapping_made(PandaCPU *cpu, PandaTB *tb, hook *h)
{
    CPUState *cs = panda_vcpu.cs;
    uint64_t task = running(cs);
    PandaMapping m;

    if (task && (qatomic_read(&panda_os_raised) & BIT(OS_EVENT_MMAP))
        && panda_os_mapping_at(task, panda_abi_result(cs), &m) == PANDA_OK) {
        panda_os_raise(cs, OS_EVENT_MMAP, task, m.vma, false);
    }
}

static void makes_mapping(CPUState *cs, OsEvent e)
{
    hook h = {
        .type = PANDA_CB_START_BLOCK_EXEC,
        .cb.start_block_exec = mapping_made,
        .km = MODE_KERNEL_ONLY,
        .enabled = true,
    };

    if (!panda_abi_return_address(cs, &h.addr)) {
        return;
    }
    for (unsigned i = 0; i < RETURNS && returns[i].at != h.addr; i++) {
        if (!returns[i].hook) {
            returns[i].at = h.addr;
            returns[i].hook = panda_hooks_add_hook(&h);
            break;
        }
    }
}

static void take_returns(void)
{
    for (unsigned i = 0; i < RETURNS; i++) {
        if (returns[i].hook) {
            panda_hooks_remove_hook(returns[i].hook);
            returns[i].hook = NULL;
            returns[i].at = 0;
        }
    }
}

static void gets_file(CPUState *cs, OsEvent e, unsigned of_fd,
                      unsigned of_file)
{
    uint64_t fd, file, task = running(cs);

    if (task && panda_os_get_argument(cs, of_fd, &fd)
        && panda_os_get_argument(cs, of_file, &file)) {
        panda_os_raise(cs, e, task, (uint32_t)fd, file);
    }
}

static void opened(CPUState *cs, OsEvent e)
{
    gets_file(cs, e, 0, 1);
}

/* dup2(): the table, the file, the descriptor, which may be in use. */
static void replaced(CPUState *cs, OsEvent e)
{
    gets_file(cs, e, 2, 1);
}

/* A descriptor that is about to be closed. */
static struct {
    uint64_t task;
    uint64_t file;
    uint32_t fd;
} closing;

static void note_descriptor(CPUState *cs, unsigned n)
{
    uint64_t fd, task = running(cs);
    PandaOpenFile file;

    closing.task = 0;
    if (task && panda_os_get_argument(cs, n, &fd)
        && panda_os_file(task, (int32_t)fd, &file) == PANDA_OK) {
        closing.task = task;
        closing.file = file.file;
        closing.fd = fd;
    }
}

static void closes_descriptor(CPUState *cs, OsEvent e)
{
    note_descriptor(cs, 0);
}

/* Before 5.11 the table of files is the first argument. */
static void closes_second(CPUState *cs, OsEvent e)
{
    note_descriptor(cs, 1);
}

static void closes_third(CPUState *cs, OsEvent e)
{
    note_descriptor(cs, 2);
}

static void closed(CPUState *cs, OsEvent e)
{
    uint64_t file, task = running(cs);
    uint32_t fd = -1;

    if (!task || !panda_os_get_argument(cs, 0, &file)) {
        return;
    }
    if (closing.task == task && closing.file == file) {
        closing.task = 0;
        fd = closing.fd;
    }
    panda_os_raise(cs, e, task, fd, file);
}

/* Since 6.6 close() calls this, and so does the other one. */
static void flushed(CPUState *cs, OsEvent e)
{
    static const char *const other[] = { "filp_close" };

    if (!caller_is(cs, other, 1)) {
        closed(cs, e);
    }
}

/* SIGWINCH does nothing where nobody asks for it. */
#ifdef TARGET_MIPS
#define SIGNAL_INSTEAD 20
#else
#define SIGNAL_INSTEAD 28
#endif

static void sent(CPUState *cs, OsEvent e)
{
    uint64_t number, task;

    if (panda_os_get_argument(cs, 0, &number)
        && panda_os_get_argument(cs, 2, &task)
        && panda_os_raise(cs, e, task, (uint32_t)number, 0)) {
        panda_os_set_argument(cs, 0, SIGNAL_INSTEAD);
    }
}

/*
 * The kernel's copy of what a handler is called for: an action, information
 * that begins with the signal's number, and the number again. The sizes of the
 * first two are the ABI's; the number has to be in both places.
 */
static uint32_t delivered_number(uint64_t ksignal)
{
    static const uint8_t action[] = { 20, 24, 32 };
    unsigned info = os_memory.word == 8 ? 48 : 32;
    uint32_t number, again;

    for (unsigned i = os_memory.word == 8; i < ARRAY_SIZE(action); i++) {
        if (os_read_u32(ksignal + action[i], &number) && number
            && number <= OS_LAST_SIGNAL
            && os_read_u32(ksignal + action[i] + info, &again)
            && again == number) {
            return number;
        }
    }
    return 0;
}

static void delivered(CPUState *cs, OsEvent e)
{
    uint64_t failed, ksignal, task = running(cs);
    uint32_t number;

    if (!task || !panda_os_get_argument(cs, 0, &failed) || (uint32_t)failed
        || !panda_os_get_argument(cs, 1, &ksignal)) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&os_lock) {
        os_memory_forget();
        number = delivered_number(ksignal);
    }
    if (number) {
        panda_os_raise(cs, e, task, number, 0);
    }
}

static Source sources[] = {
    /* Both old and new threads pass here, when all is switched. */
    { OS_EVENT_SWITCH, "finish_task_switch", at_current },
    /* Memory, name and arguments are the new ones. */
    { OS_EVENT_EXEC, "finalize_exec", at_current },
    { OS_EVENT_FORK, "wake_up_new_task", at_first_argument },
    { OS_EVENT_EXIT, "do_exit", at_current },
    { OS_EVENT_MMAP, "perf_event_mmap", mapped, .optional = true },
    { OS_EVENT_MMAP, "mmap_region", makes_mapping,
      .instead_of = "perf_event_mmap" },
    { OS_EVENT_OPEN, "fd_install", opened },
    { OS_EVENT_OPEN, "do_dup2", replaced, .optional = true },
    { OS_EVENT_CLOSE, "filp_close", closed },
    { OS_EVENT_CLOSE, "filp_flush", flushed, .optional = true },
    { OS_EVENT_CLOSE, "file_close_fd|close_fd", closes_descriptor,
      .optional = true },
    { OS_EVENT_CLOSE, "__close_fd", closes_second, .optional = true },
    { OS_EVENT_CLOSE, "do_dup2", closes_third, .optional = true },
    { OS_EVENT_SIGNAL, "__send_signal_locked|send_signal_locked|__send_signal"
      "|send_signal", sent },
    { OS_EVENT_DELIVER, "signal_setup_done", delivered },
};

static struct {
    OsEventFn listener[LISTENERS];
    unsigned n;
} subscribed[OS_EVENTS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
bool panda_os_events_due;

static bool is_wanted(OsEvent e)
{
    return qatomic_read(&subscribed[e].n)
        || (qatomic_read(&panda_os_raised) & BIT(e));
}

static void run_listeners(CPUState *cs, OsEvent e, uint64_t task,
                          uint64_t argument)
{
    for (unsigned i = 0; i < qatomic_read(&subscribed[e].n); i++) {
        OsEventFn function = qatomic_read(&subscribed[e].listener[i]);

        if (function) {
            function(cs, task, argument);
        }
    }
    if (qatomic_read(&panda_os_raised) & BIT(e)) {
        panda_os_raise(cs, e, task, argument, 0);
    }
}

/* ---- hooks ---- */

static void hooked(PandaCPU *cpu, PandaTB *tb, hook *h)
{
    const Source *s = h->context;

    s->arrived(panda_vcpu.cs, s->event);
}

/* Version 1 of PowerPC's ABI: the code's name; the other is a descriptor's. */
#ifdef TARGET_PPC64
#define CODE_PREFIXES ".", ""
#else
#define CODE_PREFIXES ""
#endif

#ifdef TARGET_PPC64

/* Callers in the kernel enter behind what finds the table of constants. */
static uint64_t local_entry(uint64_t address)
{
    uint32_t first, second;

    return os_read_u32(address, &first) && os_read_u32(address + 4, &second)
        /* addis r2,r12,... or lis r2,...; addi r2,r2,... */
        && (first >> 16 == 0x3c4c || first >> 16 == 0x3c40)
        && second >> 16 == 0x3842 ? address + 8 : address;
}

#else

static uint64_t local_entry(uint64_t address)
{
    return address;
}

#endif

static bool find_one(const char *name, uint64_t *address)
{
    static const char *const prefix[] = { CODE_PREFIXES };
    static const char *const suffix[] = {
        "", ".isra.0", ".constprop.0", ".part.0",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(prefix); i++) {
        for (unsigned j = 0; j < ARRAY_SIZE(suffix); j++) {
            g_autofree char *full = g_strconcat(prefix[i], name, suffix[j],
                                                NULL);

            if (os_symbol(full, address)) {
                *address = local_entry(*address);
                return true;
            }
        }
    }
    return false;
}

static bool find_function(const char *names, uint64_t *address)
{
    g_auto(GStrv) name = g_strsplit(names, "|", 0);

    OS_LOCK_GUARD();
    for (unsigned i = 0; name[i]; i++) {
        if (find_one(name[i], address)) {
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

    if (s->hook || (s->instead_of
                    && find_function(s->instead_of, &h.addr))) {
        return;
    }
    if (find_function(s->functions, &h.addr)) {
        s->address = h.addr;
        s->hook = panda_hooks_add_hook(&h);
    }
}

static void take_hook(Source *s)
{
    if (s->hook) {
        panda_hooks_remove_hook(s->hook);
        s->hook = NULL;
        if (s->arrived == makes_mapping) {
            take_returns();
        }
    }
}

void panda_os_events_poll(CPUState *cs)
{
    bool due = false, wanted = false, ready;

    for (OsEvent e = 0; e < OS_EVENTS; e++) {
        wanted |= is_wanted(e);
    }
    /* The kernel is looked for only if somebody wants to know. */
    ready = wanted && panda_os_ready(cs);
    noticed &= ready;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < ARRAY_SIZE(sources); i++) {
        Source *s = &sources[i];
        uint64_t at;

        if (!is_wanted(s->event)) {
            take_hook(s);
        } else if (!ready) {
            due = true;
        } else {
            /* Another kernel, or the same one elsewhere. */
            if (s->hook && (!find_function(s->functions, &at)
                            || at != s->address)) {
                take_hook(s);
            }
            put_hook(s);
        }
    }
    qatomic_set(&panda_os_events_due, due);
    pthread_mutex_unlock(&lock);
    if (ready) {
        panda_os_tell_missing();
    }
}

/* ---- who wants to know ---- */

void panda_os_subscribe(OsEvent event, OsEventFn function)
{
    pthread_mutex_lock(&lock);
    if (subscribed[event].n < LISTENERS) {
        unsigned n = subscribed[event].n;

        subscribed[event].listener[n] = function;
        qatomic_set(&subscribed[event].n, n + 1);
    }
    qatomic_set(&panda_os_events_due, true);
    pthread_mutex_unlock(&lock);
}

void panda_os_unsubscribe(OsEvent event, OsEventFn function)
{
    unsigned n;

    pthread_mutex_lock(&lock);
    n = subscribed[event].n;
    for (unsigned i = 0; i < n; i++) {
        OsEventFn *listener = subscribed[event].listener;

        if (listener[i] == function) {
            qatomic_set(&listener[i], listener[n - 1]);
            qatomic_set(&subscribed[event].n, n - 1);
            break;
        }
    }
    qatomic_set(&panda_os_events_due, true);
    pthread_mutex_unlock(&lock);
}

const char *panda_os_event_missing(OsEvent event)
{
    uint64_t address;

    if (!panda_os_is_found()) {
        return NULL;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(sources); i++) {
        const Source *s = &sources[i];

        if (s->event == event && !s->optional
            && !find_function(s->functions, &address)) {
            return s->functions;
        }
    }
    return NULL;
}
