/*
 * Between the buffers of streams (stream.c) and those who fill them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_STREAM_H
#define PANDA_CORE_STREAM_H

#include "core/internal.h"
#include "core/listeners.h"

#define PANDA_MAX_FIELDS PANDA_STREAM_FIELDS

typedef struct PandaChunk PandaChunk;

struct PandaStream {
    PandaListener listener;
    PandaStreamKind kind;
    unsigned n_fields;
    uint8_t fields[PANDA_MAX_FIELDS];
    bool wants_asid;
    /* Bits of PandaOsEventKind. */
    uint32_t os_events;
    bool filter_is_static;
    /* It is among the listeners. */
    bool listening;

    /* The chunk that is filled; the CPU thread's. */
    PandaChunk *filling;
    uint64_t *cursor, *end;

    /* All that follows is under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t filled, freed;
    uint64_t chunk_words;
    /* How many there are, how many of them are free, and may be in use. */
    unsigned n_chunks, n_free, max_chunks;
    bool drop;
    PandaChunk *full_head, **full_tail;
    PandaChunk *free_chunks;
    /* With the reader. */
    PandaChunk *lent;
    bool stopped;
    bool warned;
    PandaStreamStats stats;
    /* The owner's handle, and what generated code may refer to. */
    int refs;
};

/* Space for one more record; NULL if it is to be dropped. On the CPU thread. */
uint64_t *panda_stream_turn(PandaStream *s);

static inline uint64_t *panda_stream_reserve(PandaStream *s)
{
    uint64_t *record = s->cursor;

    if (unlikely(record == s->end)) {
        record = panda_stream_turn(s);
        if (!record) {
            return NULL;
        }
    }
    s->cursor = record + s->n_fields;
    return record;
}

/* all: words by PandaStreamField, those the kind has. */
static inline void panda_stream_put(PandaStream *s, const uint64_t *all)
{
    uint64_t *record = panda_stream_reserve(s);

    if (likely(record)) {
        for (unsigned i = 0; i < s->n_fields; i++) {
            record[i] = all[s->fields[i]];
        }
    }
}

/* The stream a listener is; NULL if it is something else. */
PandaStream *panda_stream_of(PandaListener *listener);

/* Set the points and the code of a new stream (stream_events.c). */
void panda_stream_prepare(PandaStream *s, uint32_t accesses);

/* ---- events that have no code of their own ---- */

/* Bits of PandaStreamKind: what is there a stream of? */
extern uint32_t panda_streamed_kinds;

void panda_stream_asid(uint64_t pc, uint64_t old_value, uint64_t new_value);
void panda_stream_exception(uint64_t pc, bool kernel, uint64_t number,
                            bool interrupt);
void panda_stream_call(uint64_t pc, bool kernel, uint64_t target, uint64_t sp,
                       uint64_t depth, bool returns);
struct PandaSyscallCall;
void panda_stream_syscall(const struct PandaSyscallCall *call,
                          const uint64_t *args, unsigned n, int64_t result,
                          unsigned phase);
/* Which events of the guest's system are streamed, bits of their kinds. */
extern uint32_t panda_streamed_os;
struct PandaOsEvent;
void panda_stream_os(const struct PandaOsEvent *event);
void panda_stream_io(uint64_t pc, bool port, uint64_t addr, unsigned size,
                     bool write, uint64_t value);

#endif
