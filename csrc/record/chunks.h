/*
 * Chunks and slices of a recording's log, as they are written and read.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_CHUNKS_H
#define PANDA_RECORD_CHUNKS_H

#include "record/log.h"

/* Flags of a slice's record. */
#define PANDA_SLICE_RAN         1
/* It ended as an interrupt was delivered, which is its last step. */
#define PANDA_SLICE_INTERRUPTED 2
/* At its end the host program wrote registers; the digest is of after that. */
#define PANDA_SLICE_WRITTEN     4

/* A chunk's header: where it begins, its length, what RAM is compared with. */
typedef struct PandaChunkHead {
    uint64_t count, steps, n_count, n_steps;
    /* The part of RAM, from 1, that was digested at its end; 0: none. */
    unsigned check;
    uint64_t digest;
} PandaChunkHead;

void panda_chunk_put_head(PandaBytes *out, const PandaChunkHead *head);
PandaChunkHead panda_chunk_get_head(PandaLogCursor *c);

/* A slice: its length, how it ended, what happened in it and after it. */
typedef struct PandaSlice {
    uint64_t n_count, n_steps;
    unsigned flags;
    uint32_t digest;
    PandaLogCursor calls, pause;
} PandaSlice;

void panda_slice_put(PandaBytes *out, const PandaSlice *slice);
/* False if it is malformed. */
bool panda_slice_get(PandaLogCursor *c, PandaSlice *slice);

#endif
