/*
 * The registry of listeners and the evaluation of their filters.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/listeners.h"
#include "panda/os_events.h"

#define MAX_FLAGS 65535

PandaListenerList *panda_listeners;
PandaWords panda_words;
PandaAccessFilter panda_access_filters[PANDA_SLOTS];
bool panda_asid_watched;
bool panda_names_watched;
pthread_mutex_t panda_registry_lock = PTHREAD_MUTEX_INITIALIZER;

static PandaListener *by_slot[PANDA_SLOTS];
static PandaListener *retired;

/* What has been translated may call out for these; grows until a flush. */
static uint32_t plain_points_compiled;
static uint32_t plain_registered;
static uint32_t plain_enabled;

static uint64_t current_asid;
/* The process that runs; empty: not known. */
static char current_name[PANDA_NAME_SIZE];
static bool any_counts_inline;

static bool *flags;
static unsigned n_flags;

/* ---- filters ---- */

static bool copy_ranges(const PandaRange **out, const PandaRange *in,
                        uint32_t n, const char *what)
{
    for (uint32_t i = 0; i < n; i++) {
        if (in[i].first > in[i].last) {
            panda_fail(PANDA_ERR_ARGUMENT, "an empty range of %s: "
                       "0x%" PRIx64 " to 0x%" PRIx64, what, in[i].first,
                       in[i].last);
            return false;
        }
    }
    *out = n ? g_memdup2(in, n * sizeof(*in)) : NULL;
    return true;
}

bool panda_filter_init(PandaFilterState *state, const PandaFilter *spec)
{
    *state = (PandaFilterState) { 0 };
    if (!spec) {
        return true;
    }
    if (spec->mode > PANDA_MODE_USER) {
        panda_fail(PANDA_ERR_ARGUMENT, "there is no mode %u", spec->mode);
        return false;
    }
    if (spec->flag > n_flags) {
        panda_fail(PANDA_ERR_ARGUMENT, "there is no flag %u", spec->flag);
        return false;
    }
    state->spec = *spec;
    state->spec.pc = NULL;
    state->spec.addr = NULL;
    state->spec.asid = NULL;
    state->spec.procname = NULL;
    if (!copy_ranges(&state->spec.pc, spec->pc, spec->n_pc, "code")
        || !copy_ranges(&state->spec.addr, spec->addr, spec->n_addr,
                        "addresses")) {
        panda_filter_clear(state);
        return false;
    }
    if (spec->n_asid) {
        state->spec.asid =
            g_memdup2(spec->asid, spec->n_asid * sizeof(*spec->asid));
    }
    if (spec->procname) {
        /* The kernel keeps no more of it. */
        state->spec.procname = g_strndup(spec->procname, PANDA_NAME_SIZE - 1);
    }
    if (spec->once_per_block) {
        state->seen = g_hash_table_new_full(g_int64_hash, g_int64_equal,
                                            g_free, NULL);
    }
    return true;
}

void panda_filter_clear(PandaFilterState *state)
{
    g_free((void *)state->spec.pc);
    g_free((void *)state->spec.addr);
    g_free((void *)state->spec.asid);
    g_free((void *)state->spec.procname);
    if (state->seen) {
        g_hash_table_destroy(state->seen);
    }
    *state = (PandaFilterState) { 0 };
}

static bool in_ranges(const PandaRange *ranges, uint32_t n, uint64_t value)
{
    for (uint32_t i = 0; i < n; i++) {
        if (value >= ranges[i].first && value <= ranges[i].last) {
            return true;
        }
    }
    return n == 0;
}

static bool asid_fits(const PandaFilter *spec, uint64_t asid)
{
    for (uint32_t i = 0; i < spec->n_asid; i++) {
        if (spec->asid[i] == asid) {
            return true;
        }
    }
    return spec->n_asid == 0;
}

static bool name_fits(const PandaFilter *spec)
{
    return !spec->procname || !strcmp(spec->procname, current_name);
}

/* ---- who listens ---- */

static bool is_on(const PandaListener *l)
{
    return l->enabled && !l->exhausted
        && (!l->filter.spec.flag || flags[l->filter.spec.flag])
        && asid_fits(&l->filter.spec, current_asid)
        && name_fits(&l->filter.spec);
}

void panda_live_update(void)
{
    uint64_t live = plain_enabled, old;
    bool watched = false, counts = false, names = false;
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        bool on = is_on(l);

        live |= (uint64_t)on << l->slot;
        qatomic_set(&panda_words.on[l->slot], on ? UINT64_MAX : 0);
        watched |= l->filter.spec.n_asid != 0;
        names |= l->filter.spec.procname != NULL;
        counts |= l->counts_inline;
    }
    qatomic_set(&panda_asid_watched, watched);
    qatomic_set(&panda_names_watched, names);
    qatomic_set(&any_counts_inline, counts);
    /* The CPU thread sets and clears this bit without the lock. */
    do {
        old = qatomic_read(&panda_live);
    } while (qatomic_cmpxchg(&panda_live, old, live | (old & PANDA_ASK))
             != old);
}

/*
 * What is taken from the counts of listeners while the next start of a block
 * is to call out: some code looks at nothing but a count.
 */
#define ASK_COUNT (INT64_MAX / 2)

static void start_count(PandaListener *listener)
{
    bool asked = qatomic_read(&panda_live) & PANDA_ASK;

    panda_words.left[listener->slot] = MAX(listener->filter.spec.every, 1)
        - (asked && listener->counts_inline ? ASK_COUNT : 0);
}

void panda_live_ask(bool ask)
{
    PandaListener *l;

    if (ask == !!(qatomic_read(&panda_live) & PANDA_ASK)) {
        return;
    }
    if (ask) {
        qatomic_or(&panda_live, PANDA_ASK);
    } else {
        qatomic_and(&panda_live, ~PANDA_ASK);
    }
    if (!qatomic_read(&any_counts_inline)) {
        return;
    }
    /* start_count() must not come between. */
    pthread_mutex_lock(&panda_registry_lock);
    PANDA_FOR_EACH_LISTENER(l) {
        if (l->counts_inline) {
            panda_words.left[l->slot] += ask ? -ASK_COUNT : ASK_COUNT;
        }
    }
    pthread_mutex_unlock(&panda_registry_lock);
}

void panda_live_asid(uint64_t asid)
{
    if (asid != current_asid) {
        pthread_mutex_lock(&panda_registry_lock);
        current_asid = asid;
        panda_live_update();
        pthread_mutex_unlock(&panda_registry_lock);
    }
}

void panda_live_process(const char *name)
{
    if (strncmp(name, current_name, sizeof(current_name))) {
        pthread_mutex_lock(&panda_registry_lock);
        g_strlcpy(current_name, name, sizeof(current_name));
        panda_live_update();
        pthread_mutex_unlock(&panda_registry_lock);
    }
}

uint32_t panda_listeners_points(void)
{
    uint32_t points = 0;
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        if (l->enabled && !l->exhausted) {
            points |= l->points;
        }
    }
    return points;
}

bool panda_listeners_ask_once(void)
{
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        if (l->points && l->filter.seen) {
            return true;
        }
    }
    return false;
}

bool panda_listeners_fix_pc(void)
{
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        if (l->points && (l->emit || l->emit_access || l->filter.spec.n_pc
                          || l->filter.spec.once_per_block
                          || l->points & BIT(PANDA_POINT_BRANCH))) {
            return true;
        }
    }
    return false;
}

static void free_list(PandaListenerList *list)
{
    g_free(list);
}

static void publish(PandaListenerList *list)
{
    PandaListenerList *old = panda_listeners;

    qatomic_rcu_set(&panda_listeners, list);
    if (old) {
        PANDA_FREE_LATER(old, free_list);
    }
}

static PandaListenerList *copy_list(unsigned n, const PandaListener *without)
{
    PandaListenerList *list =
        g_malloc0(sizeof(*list) + n * sizeof(list->item[0]));
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        if (l != without) {
            list->item[list->n++] = l;
        }
    }
    return list;
}

/* Without what only the closer look knows. */
static void make_access_filter(const PandaListener *l)
{
    PandaAccessFilter *f = &panda_access_filters[l->slot];
    const PandaFilter *spec = &l->filter.spec;
    uint64_t first = UINT64_MAX, last = 0;

    for (uint32_t i = 0; i < spec->n_addr; i++) {
        first = MIN(first, spec->addr[i].first);
        last = MAX(last, spec->addr[i].last);
    }
    if (!spec->n_addr || l->physical) {
        first = 0;
        last = UINT64_MAX;
    }
    f->first = first;
    f->span = last - first;
    f->counts = spec->every > 1 && !spec->once_per_block
        && spec->n_addr <= 1 && !(l->physical && spec->n_addr);
}

int panda_listener_add(PandaListener *listener)
{
    unsigned n = panda_listeners ? panda_listeners->n : 0;
    PandaListenerList *list;
    unsigned slot;

    if (listener->filter.spec.n_addr
        && !(listener->points & PANDA_MEMORY_POINTS)) {
        return panda_fail(PANDA_ERR_ARGUMENT, "addr is a filter of memory "
                          "events only; pc is one of all kinds");
    }
    for (slot = PANDA_FIRST_SLOT; slot < PANDA_SLOTS && by_slot[slot];
         slot++) {
    }
    if (slot == PANDA_SLOTS) {
        return panda_fail(PANDA_ERR_STATE, "there are %d filters, streams and "
                          "counters already, which is the most",
                          PANDA_SLOTS - PANDA_FIRST_SLOT);
    }
    listener->slot = slot;
    listener->enabled = true;
    listener->counts_inline = listener->points
        && !(listener->points & (PANDA_MEMORY_POINTS
                                 | BIT(PANDA_POINT_BRANCH)
                                 | BIT(PANDA_POINT_SYSCALL)))
        && listener->filter.spec.every > 1
        && !listener->filter.spec.once_per_block;
    start_count(listener);
    make_access_filter(listener);
    qatomic_set(&by_slot[slot], listener);
    list = copy_list(n + 1, NULL);
    list->item[list->n++] = listener;
    publish(list);
    panda_live_update();
    if (listener->points) {
        /* What was translated before it came knows nothing of it. */
        panda_do_flush_tb();
    }
    return PANDA_OK;
}

void panda_listener_remove(PandaListener *listener)
{
    publish(copy_list(panda_listeners->n, listener));
    listener->enabled = false;
    qatomic_set(&panda_words.on[listener->slot], 0);
    qatomic_set(&by_slot[listener->slot], NULL);
    /* Generated code has its address until the next flush. */
    listener->next_retired = retired;
    retired = listener;
    panda_live_update();
}

void panda_listener_enable(PandaListener *listener, bool enabled)
{
    if (enabled && (!listener->enabled || listener->exhausted)) {
        listener->exhausted = false;
        listener->filter.taken = 0;
        start_count(listener);
    }
    listener->enabled = enabled;
}

int panda_check_names(const PandaFilter *filter)
{
    const char *reason = filter && filter->procname
        ? panda_os_event_reason(PANDA_OS_SWITCH) : NULL;

    return !reason ? PANDA_OK
        : panda_fail(PANDA_ERR_OS, "procname=%s would never fit: %s",
                     filter->procname, reason);
}

int panda_listener_open(PandaListener *listener, const PandaFilter *filter)
{
    int status = panda_check_names(filter);

    if (status != PANDA_OK) {
        return status;
    }
    status = PANDA_ERR_ARGUMENT;
    pthread_mutex_lock(&panda_registry_lock);
    if (panda_filter_init(&listener->filter, filter)) {
        status = panda_listener_add(listener);
        if (status == PANDA_OK) {
            panda_callbacks_recount();
        } else {
            panda_filter_clear(&listener->filter);
        }
    }
    pthread_mutex_unlock(&panda_registry_lock);
    return status;
}

void panda_listener_set_enabled(PandaListener *listener, bool enabled)
{
    pthread_mutex_lock(&panda_registry_lock);
    panda_listener_enable(listener, enabled);
    panda_callbacks_recount();
    pthread_mutex_unlock(&panda_registry_lock);
}

void panda_listener_close(PandaListener *listener)
{
    pthread_mutex_lock(&panda_registry_lock);
    panda_listener_remove(listener);
    panda_callbacks_recount();
    pthread_mutex_unlock(&panda_registry_lock);
}

PandaListener *panda_listener_of_slot(unsigned slot)
{
    return qatomic_read(&by_slot[slot]);
}

void panda_listeners_count_plain(PandaPoint point, unsigned registered,
                                 unsigned enabled)
{
    uint32_t bit = BIT(point);

    plain_registered = (plain_registered & ~bit) | (registered ? bit : 0);
    plain_enabled = (plain_enabled & ~bit) | (enabled ? bit : 0);
    if ((plain_registered & ~plain_points_compiled)) {
        if (plain_points_compiled || panda_listeners) {
            panda_do_flush_tb();
        }
        plain_points_compiled |= plain_registered;
    }
}

static void free_retired(PandaListener *list)
{
    while (list) {
        PandaListener *next = list->next_retired;

        panda_filter_clear(&list->filter);
        list->free(list);
        list = next;
    }
}

static void free_retired_on_cpu(CPUState *cs, run_on_cpu_data data)
{
    free_retired(data.host_ptr);
}

void panda_listeners_flushed(void)
{
    PandaListener *list;

    pthread_mutex_lock(&panda_registry_lock);
    list = retired;
    retired = NULL;
    plain_points_compiled = plain_registered;
    pthread_mutex_unlock(&panda_registry_lock);
    if (list && panda_vcpu.cs) {
        /* Work that was queued for them before they were closed is first. */
        async_run_on_cpu(panda_vcpu.cs, free_retired_on_cpu,
                         RUN_ON_CPU_HOST_PTR(list));
    } else {
        free_retired(list);
    }
}

/* ---- at translation ---- */

bool panda_listener_fits(const PandaListener *l, uint64_t pc, bool kernel)
{
    const PandaFilter *spec = &l->filter.spec;

    return (spec->mode == PANDA_MODE_ANY
            || (spec->mode == PANDA_MODE_KERNEL) == kernel)
        && in_ranges(spec->pc, spec->n_pc, pc);
}

bool panda_listener_may_want(const PandaListener *l, PandaPoint point,
                             uint64_t pc, bool kernel)
{
    return (l->points & BIT(point)) && panda_listener_fits(l, pc, kernel);
}

uint64_t panda_point_mask(PandaPoint point, uint64_t pc, bool kernel)
{
    uint64_t mask = qatomic_read(&plain_registered) & BIT(point);
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        if (!l->emit && !l->emit_access
            && panda_listener_may_want(l, point, pc, kernel)) {
            mask |= BIT_ULL(l->slot);
        }
    }
    return mask;
}

bool panda_ends_are_watched(void)
{
    uint32_t points = qatomic_read(&plain_registered);
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        points |= l->points;
    }
    return points & BIT(PANDA_POINT_BLOCK_END);
}

/* ---- at an event ---- */

/* It got all it wanted; back to full speed if it was the last. */
static void exhaust(PandaListener *l)
{
    pthread_mutex_lock(&panda_registry_lock);
    l->exhausted = true;
    panda_callbacks_recount();
    pthread_mutex_unlock(&panda_registry_lock);
}

static bool is_first_of_block(PandaListener *l, uint64_t block_pc)
{
    PandaFilterState *f = &l->filter;

    if (panda_vcpu.done && panda_vcpu.block_pc == block_pc) {
        *panda_vcpu.done |= BIT_ULL(l->slot);
    }
    if (g_hash_table_contains(f->seen, &block_pc)) {
        return false;
    }
    g_hash_table_add(f->seen, g_memdup2(&block_pc, sizeof(block_pc)));
    return true;
}

bool panda_listener_counts(PandaListener *l, uint64_t block_pc)
{
    PandaFilterState *f = &l->filter;

    if (f->seen && !is_first_of_block(l, block_pc)) {
        return false;
    }
    if (!l->counts_inline) {
        panda_words.left[l->slot]--;
    }
    if (panda_words.left[l->slot] > 0) {
        return false;
    }
    start_count(l);
    if (f->spec.first && ++f->taken >= f->spec.first) {
        exhaust(l);
    }
    return true;
}

bool panda_listener_wants(PandaListener *l, uint64_t pc, uint64_t addr,
                          uint64_t block_pc)
{
    const PandaFilter *spec = &l->filter.spec;
    bool kernel = spec->mode != PANDA_MODE_ANY
        && panda_arch_in_kernel(panda_vcpu.cs);

    return (qatomic_read(&panda_live) & BIT_ULL(l->slot))
        && panda_listener_fits(l, pc, kernel)
        && in_ranges(spec->addr, spec->n_addr, addr)
        && panda_listener_counts(l, block_pc);
}

uint64_t panda_take(uint64_t mask, uint64_t pc, uint64_t addr,
                    uint64_t block_pc, uint64_t (*physical)(void *opaque),
                    void *opaque)
{
    uint64_t due = qatomic_read(&panda_live) & mask;
    uint64_t pass = due & (BIT_ULL(PANDA_FIRST_SLOT) - 1);

    for (due &= ~pass; due; due &= due - 1) {
        PandaListener *l = panda_listener_of_slot(ctz64(due));
        uint64_t at = addr;

        if (!l) {
            continue;
        }
        if (l->physical && l->filter.spec.n_addr) {
            at = physical(opaque);
        }
        if (panda_listener_wants(l, pc, at, block_pc)) {
            pass |= BIT_ULL(l->slot);
        }
    }
    return pass;
}

/* ---- flags ---- */

uint32_t panda_flag_new(bool set)
{
    uint32_t flag = 0;

    pthread_mutex_lock(&panda_registry_lock);
    if (!flags) {
        flags = g_new0(bool, MAX_FLAGS + 1);
    }
    if (n_flags < MAX_FLAGS) {
        flag = ++n_flags;
        flags[flag] = set;
    }
    pthread_mutex_unlock(&panda_registry_lock);
    return flag;
}

void panda_flag_set(uint32_t flag, bool set)
{
    pthread_mutex_lock(&panda_registry_lock);
    if (flag && flag <= n_flags && flags[flag] != set) {
        qatomic_set(&flags[flag], set);
        panda_live_update();
    }
    pthread_mutex_unlock(&panda_registry_lock);
}

bool panda_flag_get(uint32_t flag)
{
    return flag && flag <= qatomic_read(&n_flags)
        && qatomic_read(&flags[flag]);
}
