/*
 * Buffers of streams: chunks that go round between the CPU thread, which fills
 * them, and a reader.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/guest_clock.h"
#include "core/machine.h"
#include "core/stream.h"
#include "introspect/events.h"
#include "syscalls/syscalls.h"
#include "qemu/main-loop.h"

/* How often a guest that waits looks whether it has to do something else. */
#define LOOK_UP_MS 10
/* A guest that waits so long is worth a word. */
#define WARN_AFTER_MS 10000

struct PandaChunk {
    PandaChunk *next;
    uint64_t words;
    uint64_t data[];
};

static struct timespec in_ms(uint32_t ms)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (ms % 1000) * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

static void init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* ---- the CPU thread's side; the stream's lock is held ---- */

static void set_free(PandaStream *s, PandaChunk *chunk)
{
    chunk->next = s->free_chunks;
    s->free_chunks = chunk;
    s->n_free++;
}

static void hand_over(PandaStream *s)
{
    PandaChunk *chunk = s->filling;

    if (!chunk) {
        return;
    }
    chunk->words = s->cursor - chunk->data;
    s->filling = NULL;
    s->cursor = s->end = NULL;
    chunk->next = NULL;
    if (chunk->words) {
        *s->full_tail = chunk;
        s->full_tail = &chunk->next;
        pthread_cond_signal(&s->filled);
    } else {
        set_free(s, chunk);
    }
}

static void take_chunk(PandaStream *s)
{
    PandaChunk *chunk = s->free_chunks;

    if (chunk) {
        s->free_chunks = chunk->next;
        s->n_free--;
    } else {
        chunk = g_malloc(sizeof(*chunk)
                         + s->chunk_words * sizeof(chunk->data[0]));
        s->n_chunks++;
    }
    s->filling = chunk;
    s->cursor = chunk->data;
}

/* May one more record be stored, or is it the reader's turn? */
static bool has_room(const PandaStream *s)
{
    unsigned in_use = s->n_chunks - s->n_free;

    return s->filling ? in_use <= s->max_chunks : in_use < s->max_chunks;
}

/* Has the CPU thread to leave the guest's code for something else? */
static bool has_to_go(PandaStream *s)
{
    CPUState *cs = panda_vcpu.cs;

    /* With the big lock it must not wait for anybody. */
    return s->stopped || panda_dead() || bql_locked()
        || qatomic_read(&cs->stop) || qatomic_read(&cs->exit_request)
        || qatomic_read(&panda_gate_closed);
}

static void wait_for_room(PandaStream *s)
{
    /* An access to a device may be interrupted, as callbacks do it. */
    bool unlock = s->kind == PANDA_STREAM_IO && bql_locked();
    int64_t warn_at = g_get_monotonic_time() + WARN_AFTER_MS * 1000LL;

    if (unlock) {
        bql_unlock();
    }
    if (!has_to_go(s)) {
        s->stats.waits++;
        panda_guest_clock_hold();
        do {
            struct timespec until = in_ms(LOOK_UP_MS);

            pthread_cond_timedwait(&s->freed, &s->lock, &until);
            if (!s->warned && g_get_monotonic_time() > warn_at) {
                s->warned = true;
                fprintf(stderr, "[pandalite] the guest waits for somebody to "
                        "read a stream: iterate over it, or open it with "
                        "when_full=\"drop\"\n");
            }
        } while (!has_room(s) && !has_to_go(s));
        panda_guest_clock_release();
    }
    if (unlock) {
        pthread_mutex_unlock(&s->lock);
        bql_lock();
        pthread_mutex_lock(&s->lock);
    }
}

uint64_t *panda_stream_turn(PandaStream *s)
{
    uint64_t *record = NULL;

    pthread_mutex_lock(&s->lock);
    if (s->filling && s->cursor == s->filling->data + s->chunk_words) {
        hand_over(s);
    }
    if (!has_room(s) && !s->drop) {
        wait_for_room(s);
    }
    if (has_room(s)) {
        if (!s->filling) {
            take_chunk(s);
        }
        s->end = s->filling->data + s->chunk_words;
        record = s->cursor;
    } else if (s->drop) {
        s->stats.dropped++;
    } else {
        /*
         * The CPU thread has to go. What comes until it has gone must not be
         * lost; then it is to wait again, so there is room for one record.
         */
        if (!s->filling) {
            take_chunk(s);
        }
        s->end = s->cursor + s->n_fields;
        record = s->cursor;
    }
    pthread_mutex_unlock(&s->lock);
    return record;
}

static void flush_on_cpu(CPUState *cs, run_on_cpu_data data)
{
    PandaStream *s = data.host_ptr;

    pthread_mutex_lock(&s->lock);
    hand_over(s);
    pthread_mutex_unlock(&s->lock);
}

/* ---- for everybody else ---- */

#define HAS(name) BIT_ULL(PANDA_FIELD_##name)

static bool check_spec(const PandaStreamSpec *spec)
{
    static const uint64_t has[PANDA_STREAM_KINDS] = {
        [PANDA_STREAM_BLOCK] = HAS(PC) | HAS(ASID) | HAS(KERNEL)
            | HAS(SIZE) | HAS(ICOUNT),
        [PANDA_STREAM_EDGE] = HAS(SOURCE) | HAS(PC) | HAS(ASID)
            | HAS(KERNEL),
        [PANDA_STREAM_INSN] = HAS(PC) | HAS(ASID) | HAS(KERNEL)
            | HAS(BLOCK),
        [PANDA_STREAM_MEM] = HAS(PC) | HAS(ASID) | HAS(KERNEL)
            | HAS(ADDR) | HAS(SIZE) | HAS(VALUE) | HAS(WRITE),
        [PANDA_STREAM_ASID] = HAS(PC) | HAS(OLD) | HAS(NEW),
        [PANDA_STREAM_EXCEPTION] = HAS(PC) | HAS(ASID) | HAS(KERNEL)
            | HAS(NUMBER) | HAS(INTERRUPT),
        [PANDA_STREAM_IO] = HAS(PC) | HAS(ASID) | HAS(KERNEL)
            | HAS(ADDR) | HAS(SIZE) | HAS(VALUE) | HAS(WRITE)
            | HAS(PORT),
        [PANDA_STREAM_CALL] = HAS(PC) | HAS(ASID) | HAS(KERNEL)
            | HAS(TARGET) | HAS(SP) | HAS(DEPTH) | HAS(RETURNS),
        [PANDA_STREAM_SYSCALL] = HAS(PC) | HAS(ASID) | HAS(NUMBER)
            | HAS(THREAD) | MAKE_64BIT_MASK(PANDA_FIELD_ARG0, 6)
            | HAS(RESULT) | HAS(PHASE) | HAS(ABI),
        [PANDA_STREAM_OS] = HAS(EVENT) | HAS(COUNT) | HAS(PID)
            | HAS(TID) | HAS(THREAD) | HAS(ASID) | HAS(VALUE)
            | HAS(OTHER) | HAS(ADDR) | HAS(SIZE) | HAS(NAME0)
            | HAS(NAME1),
    };

    if (spec->kind >= PANDA_STREAM_KINDS) {
        panda_fail(PANDA_ERR_ARGUMENT, "there is no stream of kind %u",
                   spec->kind);
        return false;
    }
    if (!spec->n_fields || spec->n_fields > PANDA_MAX_FIELDS) {
        panda_fail(PANDA_ERR_ARGUMENT, "a stream has 1 to %d fields",
                   PANDA_MAX_FIELDS);
        return false;
    }
    for (unsigned i = 0; i < spec->n_fields; i++) {
        if (spec->fields[i] >= PANDA_STREAM_FIELDS
            || !(has[spec->kind] & BIT_ULL(spec->fields[i]))) {
            panda_fail(PANDA_ERR_ARGUMENT, "streams of kind %u have no field "
                       "%u", spec->kind, spec->fields[i]);
            return false;
        }
    }
    if (!spec->batch || spec->batch > (1u << 24) || spec->batches < 2
        || spec->batches > 65536) {
        panda_fail(PANDA_ERR_ARGUMENT, "a batch has 1 to %d records, and "
                   "there are 2 to 65536 batches", 1 << 24);
        return false;
    }
    return true;
}

static void free_chunks(PandaChunk *chunk)
{
    while (chunk) {
        PandaChunk *next = chunk->next;

        g_free(chunk);
        chunk = next;
    }
}

static void drop_reference(PandaStream *s)
{
    if (qatomic_fetch_dec(&s->refs) > 1) {
        return;
    }
    free_chunks(s->full_head);
    free_chunks(s->free_chunks);
    g_free(s->filling);
    g_free(s->lent);
    pthread_cond_destroy(&s->filled);
    pthread_cond_destroy(&s->freed);
    pthread_mutex_destroy(&s->lock);
    g_free(s);
}

/* No generated code refers to it any more. */
static void free_stream(PandaListener *listener)
{
    drop_reference(container_of(listener, PandaStream, listener));
}

PandaStream *panda_stream_of(PandaListener *listener)
{
    return listener->free == free_stream
        ? container_of(listener, PandaStream, listener) : NULL;
}

static void recount_kinds(void)
{
    uint32_t kinds = 0, os_events = 0;
    PandaListener *l;

    pthread_mutex_lock(&panda_registry_lock);
    PANDA_FOR_EACH_LISTENER(l) {
        PandaStream *s = panda_stream_of(l);

        kinds |= s ? BIT(s->kind) : 0;
        os_events |= s ? s->os_events : 0;
    }
    qatomic_set(&panda_streamed_kinds, kinds);
    qatomic_set(&panda_streamed_os, os_events);
    pthread_mutex_unlock(&panda_registry_lock);
    panda_syscalls_recount();
    panda_os_events_recount();
}

PandaStream *panda_stream_open(const PandaStreamSpec *spec,
                               const PandaFilter *filter)
{
    PandaStream *s;

    if (!check_spec(spec)) {
        return NULL;
    }
    s = g_new0(PandaStream, 1);
    s->kind = spec->kind;
    s->n_fields = spec->n_fields;
    for (unsigned i = 0; i < spec->n_fields; i++) {
        s->fields[i] = spec->fields[i];
        s->wants_asid |= spec->fields[i] == PANDA_FIELD_ASID;
    }
    s->chunk_words = spec->batch * spec->n_fields;
    s->max_chunks = spec->batches;
    s->drop = spec->drop;
    s->full_tail = &s->full_head;
    pthread_mutex_init(&s->lock, NULL);
    init_cond(&s->filled);
    init_cond(&s->freed);
    s->listener.free = free_stream;
    s->refs = 1;
    s->filter_is_static = panda_filter_is_static(filter);
    panda_stream_prepare(s, spec->accesses);
    if (panda_listener_open(&s->listener, filter) != PANDA_OK) {
        drop_reference(s);
        return NULL;
    }
    s->refs++;
    s->listening = true;
    recount_kinds();
    return s;
}

void panda_stream_enable(PandaStream *s, bool enabled)
{
    panda_listener_set_enabled(&s->listener, enabled);
}

int panda_stream_next(PandaStream *s, uint32_t timeout_ms, PandaBatch *batch)
{
    struct timespec until = in_ms(timeout_ms);
    int status = PANDA_OK;
    PandaChunk *chunk;

    *batch = (PandaBatch) { 0 };
    pthread_mutex_lock(&s->lock);
    if (s->lent) {
        set_free(s, s->lent);
        s->lent = NULL;
        pthread_cond_signal(&s->freed);
    }
    while (!s->full_head && !s->stopped) {
        if (pthread_cond_timedwait(&s->filled, &s->lock, &until)) {
            break;
        }
    }
    chunk = s->full_head;
    if (chunk) {
        s->full_head = chunk->next;
        if (!s->full_head) {
            s->full_tail = &s->full_head;
        }
        s->lent = chunk;
        batch->records = chunk->data;
        batch->count = chunk->words / s->n_fields;
        s->stats.delivered += batch->count;
    } else if (!s->stopped) {
        status = panda_fail(PANDA_ERR_TIMEOUT, "no batch in time");
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

void panda_stream_flush(PandaStream *s)
{
    if (panda_check_usable() == PANDA_OK) {
        async_run_on_cpu(panda_vcpu.cs, flush_on_cpu,
                         RUN_ON_CPU_HOST_PTR(s));
    }
}

void panda_stream_stats(PandaStream *s, PandaStreamStats *stats)
{
    pthread_mutex_lock(&s->lock);
    *stats = s->stats;
    pthread_mutex_unlock(&s->lock);
}

static void remove_listener(PandaStream *s)
{
    if (qatomic_xchg(&s->listening, false)) {
        panda_listener_close(&s->listener);
        recount_kinds();
    }
}

/* Hand over what is left; the end follows it. */
static void finish(PandaStream *s)
{
    pthread_mutex_lock(&s->lock);
    hand_over(s);
    s->stopped = true;
    pthread_cond_broadcast(&s->freed);
    pthread_cond_broadcast(&s->filled);
    pthread_mutex_unlock(&s->lock);
}

static void finish_on_cpu(CPUState *cs, run_on_cpu_data data)
{
    finish(data.host_ptr);
}

void panda_stream_stop(PandaStream *s)
{
    panda_stream_enable(s, false);
    if (panda_in_run() && !panda_dead() && !panda_in_vcpu_thread()) {
        async_run_on_cpu(panda_vcpu.cs, finish_on_cpu,
                         RUN_ON_CPU_HOST_PTR(s));
    } else {
        finish(s);
    }
}

void panda_stream_finish(PandaStream *s)
{
    remove_listener(s);
    finish(s);
}

static void drop_reference_on_cpu(CPUState *cs, run_on_cpu_data data)
{
    drop_reference(data.host_ptr);
}

void panda_stream_close(PandaStream *s, bool keep_batches)
{
    pthread_mutex_lock(&s->lock);
    s->stopped = true;
    pthread_cond_broadcast(&s->freed);
    pthread_cond_broadcast(&s->filled);
    pthread_mutex_unlock(&s->lock);
    /* Generated code is rid of it at the next flush of the code cache. */
    remove_listener(s);
    panda_do_flush_tb();
    if (keep_batches) {
        return;
    }
    if (panda_check_usable() == PANDA_OK) {
        /* After what was queued for it before. */
        async_run_on_cpu(panda_vcpu.cs, drop_reference_on_cpu,
                         RUN_ON_CPU_HOST_PTR(s));
    } else if (!panda_dead()) {
        drop_reference(s);
    }
}
