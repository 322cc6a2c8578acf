/*
 * The replay, as the border and the effects see it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_PLAYER_H
#define PANDA_RECORD_PLAYER_H

#include "record/log.h"
#include "record/regions.h"

/* The slice that runs: its calls across the border. */
extern PandaLogCursor panda_player_calls;

/* The replay has failed: what follows means nothing any more. */
extern bool panda_player_failed;

/*
 * The execution differs from the recording. The replay ends at the next block;
 * the first difference counts.
 */
void panda_player_diverged(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/* Devices stand still: the machine replays (replay.c). */
bool panda_player_frozen(void);

/* A replay begins, at the recording's beginning; it ends. */
void panda_player_begin(void);
void panda_player_end(void);
/* It is to stop when so many instructions are executed. */
void panda_player_stop_at(uint64_t count);
/* Does the block that runs end here, while in the recording it went on to a place? */
bool panda_player_cuts_short(uint64_t count);
/* Where the slice that is played began. */
uint64_t panda_player_slice_begin(void);

/* What is still to be played of the chunk at hand. */
typedef struct PandaPlayerRest {
    PandaLogCursor slices;
    unsigned check;
    uint64_t digest;
    /* The chunk after it. */
    unsigned next_chunk;
} PandaPlayerRest;

/* False if it is not at the beginning of a slice. */
bool panda_player_rest(PandaPlayerRest *rest);

/* An interrupt or exception was delivered. */
void panda_player_step(CPUState *cs);

/* A device has written to memory: none should run. */
void panda_player_stray_write(MemoryRegion *mr);

/* The machine's blocks, in the recording's order; host NULL: it has none. */
PandaRam *panda_player_rams(unsigned *count);

/* Where in the log the replay is, at rest before a slice. */
typedef struct PandaPosition {
    unsigned chunk;
    size_t this_slice, next_slice, calls, calls_end, pause, pause_end;
    uint64_t slice_count, slice_steps;
    uint32_t slice_digest;
    bool slice_ran, slice_interrupted, slice_written;
} PandaPosition;

void panda_player_position(PandaPosition *position);
void panda_player_go_to(const PandaPosition *position);

/* Memory of a recorded transfer, before and after it is written. */
void panda_player_memory(unsigned block, uint64_t offset, const uint8_t *bytes,
                         size_t n, bool done);

#endif
