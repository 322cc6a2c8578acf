/*
 * The guest's kernel is found, and asked which thread runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "introspect/btf.h"
#include "introspect/events.h"
#include "qemu/timer.h"

/* Between attempts: it costs a look at all of RAM. */
#define FIRST_PAUSE_NS (50 * SCALE_MS)
#define LONGEST_PAUSE_NS (2000 * SCALE_MS)

/* Looks at a kernel that runs programs until no more is expected of it. */
#define ENOUGH_LOOKS 4

#define SMALLEST_PAGE (4 * KiB)
#define LARGEST_PAGE (1 * MiB)

static bool found;
/* The guest may be another one since: look before anything is believed. */
static bool doubtful;
/* All that processes and their maps need is known. */
static bool complete;
/* How often it was looked for again since the kernel was found. */
static unsigned looks;
static int64_t next_try, pause_ns;
static const char *missing = "";
/* CPU time that finding the kernel took. */
static int64_t attach_ns;
static char release[256];
static char *report;

QemuRecMutex os_lock;

static void __attribute__((constructor)) init_lock(void)
{
    qemu_rec_mutex_init(&os_lock);
}

uint64_t os_page_size(void)
{
    uint64_t size;

    /* The text may be anybody's. */
    if (os_vmcoreinfo_number("PAGESIZE", &size) && is_power_of_2(size)
        && size >= SMALLEST_PAGE && size <= LARGEST_PAGE) {
        return size;
    }
    return os_layout.page_shift ? 1ull << os_layout.page_shift : 4096;
}

static void find_release(void)
{
    static const char banner[] = "Linux version ";

    release[0] = 0;
    if (os_vmcoreinfo_text("OSRELEASE", release, sizeof(release))) {
        return;
    }
    for (unsigned i = 0; i < os_memory.n_segments && !release[0]; i++) {
        const OsSegment *s = &os_memory.segment[i];
        const uint8_t *hit = memmem(s->host, s->size, banner, strlen(banner));

        if (hit && hit + sizeof(release) < s->host + s->size) {
            size_t len = strcspn((const char *)hit + strlen(banner), " \n");

            snprintf(release, sizeof(release), "%.*s", (int)MIN(len, 64),
                     hit + strlen(banner));
        }
    }
}

/* Where the kernel's half begins and its tables are. */
static void find_kernel(CPUState *cs)
{
    uint64_t va;

    if (os_memory.word == 4) {
        os_memory.kernel_start = 0xc0000000;
        if (os_vmcoreinfo_hex("SYMBOL(_stext)", &va)) {
            os_memory.kernel_start = va & 0xc0000000;
        }
        os_memory.kernel_start = panda_arch_os_kernel_start(
            os_memory.kernel_start);
    }
    if (os_memory.has_image_delta
        && os_vmcoreinfo_hex("SYMBOL(swapper_pg_dir)", &va)
        && os_ram(va - os_memory.image_delta, 8)) {
        os_memory.kernel_root = va - os_memory.image_delta;
    } else {
        os_memory.kernel_root = panda_arch_os_kernel_root(cs);
    }
}

static const char *attach(CPUState *cs)
{
    uint64_t va;

    os_memory_init(cs);
    os_layout_clear();
    os_forget_stacks();
    os_forget_modules();
    os_forget_clock();
    if (!os_memory.n_segments) {
        return "the machine has no RAM";
    }
    os_vmcoreinfo_find(cs);
    find_kernel(cs);
    find_release();
    os_kallsyms_find();
    if (os_memory.kernel_root == OS_NOWHERE
        && os_symbol("swapper_pg_dir", &va)) {
        os_memory.kernel_root = os_kernel_to_physical(va);
        os_memory_forget();
    }
    if (os_profile_given()) {
        complete = true;
        return os_profile_apply(cs, release);
    }
    if (os_layout_from_btf()) {
        complete = true;
        if (!os_find_init_task()) {
            return "the first process (swapper) is not in memory: the guest "
                "is still booting, or no Linux";
        }
    } else {
        complete = os_layout_infer(cs);
        if (!os_knows(OS_TASK_PID) || !os_knows(OS_TASK_REAL_PARENT)
            || !os_find_init_task()) {
            return "the kernel has no type information (BTF) and its "
                "structures cannot be made out yet: let it boot to its first "
                "programs, or it is no Linux";
        }
    }
    return NULL;
}

static int64_t thread_time(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
}

static bool is_still_there(void)
{
    os_memory_forget();
    os_forget_stacks();
    return os_is_init_task(os_init_task);
}

bool panda_os_ready(CPUState *cs)
{
    OS_LOCK_GUARD();
    int64_t now;

    if (likely(found && !doubtful && complete)) {
        return true;
    }
    if (found && doubtful) {
        doubtful = false;
        found = is_still_there();
    }
    if (found && complete) {
        return true;
    }
    now = get_clock();
    if (now < next_try) {
        return found;
    }
    if (found) {
        /* More runs than did then: perhaps it shows the rest. */
        os_memory_forget();
        complete = os_layout_infer(cs);
        looks++;
        /* What was waited for may be known, or given up. */
        qatomic_set(&panda_os_events_due, true);
    } else {
        looks = 0;
        attach_ns = -thread_time();
        doubtful = false;
        missing = attach(cs);
        if (!missing) {
            panda_arch_os_prepare(cs, os_is_task);
        }
        attach_ns += thread_time();
        found = !missing;
    }
    pause_ns = MIN(MAX(pause_ns * 2, FIRST_PAUSE_NS), LONGEST_PAUSE_NS);
    next_try = get_clock() + pause_ns;
    return found;
}

bool panda_os_is_found(void)
{
    OS_LOCK_GUARD();
    return found && !doubtful;
}

void panda_os_doubt(void)
{
    OS_LOCK_GUARD();
    doubtful = true;
    qatomic_set(&panda_os_events_due, true);
    next_try = 0;
    pause_ns = 0;
}

void os_detach(void)
{
    found = false;
    missing = "it was not looked for again yet";
    next_try = 0;
    pause_ns = 0;
    qatomic_set(&panda_os_events_due, true);
}

int os_require(void)
{
    int status = panda_check_usable();

    if (status != PANDA_OK) {
        return status;
    }
    if (!panda_vcpu.cs) {
        return panda_fail(PANDA_ERR_OS, "there is no machine yet: the guest's "
                          "system can be asked while it runs");
    }
    if (!panda_os_ready(panda_vcpu.cs)) {
        return panda_fail(PANDA_ERR_OS, "the guest's kernel is not found: %s",
                          missing);
    }
    os_memory_forget();
    return PANDA_OK;
}

uint64_t panda_os_current_task(CPUState *cs)
{
    OS_LOCK_GUARD();
    uint64_t value = 0;

    if (!panda_os_ready(cs)) {
        return 0;
    }
    switch (panda_arch_os_current(cs, &value)) {
    case OS_CLUE_TASK:
        return value;
    case OS_CLUE_STACK:
        return os_task_of_stack(value);
    case OS_CLUE_INSIDE:
        return os_task_around(value);
    default:
        return 0;
    }
}

static bool is_first_process(uint64_t task, void *opaque)
{
    uint32_t pid;
    char comm[PANDA_OS_COMM];

    if (!os_get_u32(task, OS_TASK_PID, &pid) || pid != 1) {
        return true;
    }
    /* It has the first task's name until it runs a program. */
    *(bool *)opaque = os_read(task + os_offset(OS_TASK_COMM), comm,
                              sizeof(comm))
        && strncmp(comm, "swapper", 7) && comm[0];
    return false;
}

bool panda_os_is_settled(void)
{
    OS_LOCK_GUARD();
    bool runs_programs = false;

    if (!complete && looks >= ENOUGH_LOOKS) {
        os_memory_forget();
        os_for_each_process(is_first_process, &runs_programs);
    }
    return complete || runs_programs;
}

const char *panda_os_current_lacks(CPUState *cs)
{
    OS_LOCK_GUARD();
    const char *lacks;

    if (!found || doubtful) {
        return NULL;
    }
    lacks = panda_arch_os_current_lacks(cs, os_knows(OS_TASK_STACK));
    return lacks && panda_os_is_settled() ? lacks : NULL;
}

bool panda_os_current_thread(CPUState *cs, PandaOsThread *thread)
{
    OS_LOCK_GUARD();
    uint64_t task = panda_os_current_task(cs);
    uint32_t value;

    *thread = (PandaOsThread) { .task = task };
    if (!task || !os_get_u32(task, OS_TASK_PID, &value)
        || !os_read(task + os_offset(OS_TASK_COMM), thread->comm,
                    PANDA_OS_COMM)) {
        return false;
    }
    thread->tid = value;
    os_get_u32(task, OS_TASK_TGID, &value);
    thread->pid = value;
    os_get_word(task, OS_TASK_MM, &thread->mm);
    thread->comm[PANDA_OS_COMM - 1] = 0;
    return true;
}

/* ---- the public part that is about the kernel itself ---- */

int panda_os_attach(void)
{
    OS_LOCK_GUARD();
    next_try = 0;
    return os_require();
}

const char *panda_os_release(void)
{
    OS_LOCK_GUARD();
    return os_require() == PANDA_OK ? release : "";
}

static const char *source_name(OsSource source)
{
    static const char *const name[] = {
        "unknown", "BTF", "inferred", "profile", "constant",
    };

    return name[source];
}

const char *panda_os_report(void)
{
    OS_LOCK_GUARD();
    GString *text = g_string_new(NULL);

    if (os_require() != PANDA_OK) {
        g_string_printf(text, "%s\n", panda_last_error());
    } else {
        g_string_append_printf(text, "release: %s\n", release);
        g_string_append_printf(text, "found in: %.3f s of CPU time\n",
                               attach_ns / 1e9);
        g_string_append_printf(text, "VMCOREINFO: %s\n",
                               os_vmcoreinfo() ? "yes" : "no");
        g_string_append_printf(text, "kallsyms: %" PRIu64 " symbols (%s)\n",
                               os_kallsyms_count(), os_kallsyms_how());
        g_string_append_printf(text, "BTF: %" PRIu64 " types\n",
                               os_btf_types());
        g_string_append_printf(text, "first task: 0x%" PRIx64 "\n",
                               os_init_task);
        for (OsField f = 0; f < OS_FIELDS_COUNT; f++) {
            const OsOffset *o = &os_layout.field[f];

            if (o->source != OS_UNKNOWN) {
                g_string_append_printf(text, "%s.%s: %d (%s%s%s)\n",
                                       os_field_structure(f),
                                       os_field_name(f), o->offset,
                                       source_name(o->source),
                                       o->evidence ? ": " : "",
                                       o->evidence ?: "");
            }
        }
    }
    g_free(report);
    report = g_string_free(text, FALSE);
    return report;
}

int panda_os_symbol(const char *name, uint64_t *address)
{
    OS_LOCK_GUARD();
    int status = os_require();

    if (status != PANDA_OK) {
        return status;
    }
    return os_symbol(name, address) || os_module_symbol(name, address)
        ? PANDA_OK
        : panda_fail(PANDA_ERR_OS, "the guest's kernel has no symbol '%s'%s",
                     name, os_kallsyms_count()
                     ? "" : ": its table of symbols was not found");
}

const char *panda_os_symbol_at(uint64_t address, uint64_t *offset)
{
    /* The table may be another one when the caller looks at it. */
    static __thread char text[640];
    OS_LOCK_GUARD();
    const char *name;
    uint64_t start, end;
    char type;

    if (os_require() != PANDA_OK) {
        return NULL;
    }
    if (!(os_symbol("_stext", &start)
          && (os_symbol("_end", &end) || os_symbol("_etext", &end))
          && address >= start && address < end)
        && os_module_symbol_at(address, offset, text, sizeof(text))) {
        return text;
    }
    name = os_symbol_at(address, offset, &type);
    if (!name) {
        return NULL;
    }
    g_strlcpy(text, name, sizeof(text));
    return text;
}
