/*
 * Counters and coverage, kept by the generated code itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_COUNTER_H
#define PANDA_COUNTER_H

#include "panda/filter.h"
#include "panda/types.h"

/** What is counted. */
typedef enum PandaCounterKind {
    /** Blocks that begin. */
    PANDA_COUNT_BLOCKS = 0,
    /** Instructions that are executed, as QEMU's -icount has them. */
    PANDA_COUNT_INSNS = 1,
} PandaCounterKind;

/** A counter. */
typedef struct PandaCounter {
    /** The count so far; may be set. */
    uint64_t value;
} PandaCounter;

/**
 * Open a counter, enabled, at 0.
 *
 * filter may be NULL; it cannot have every, first and once_per_block. NULL on
 * failure: PANDA_ERR_ARGUMENT or PANDA_ERR_STATE (too many listeners), told by
 * panda_last_error().
 */
PandaCounter *panda_counter_open(PandaCounterKind kind,
                                 const PandaFilter *filter);

/** Go on counting, or stop; takes effect at the next block. */
void panda_counter_enable(PandaCounter *counter, bool enabled);

/** Free a counter. */
void panda_counter_close(PandaCounter *counter);

/**
 * Instructions executed so far, as QEMU's -icount has them; 0 without it.
 *
 * For use while the guest does not run: meanwhile it may be a block behind.
 */
uint64_t panda_icount(void);

/** What coverage records; may be combined. */
typedef enum PandaCoverageKind {
    /** How often each block began. */
    PANDA_COVER_BLOCKS = 1,
    /** How often each block followed each other. */
    PANDA_COVER_EDGES = 2,
    /** The same in a map of bytes, without a call; for fuzzers. */
    PANDA_COVER_EDGE_MAP = 4,
} PandaCoverageKind;

/** A block of code that was met. */
typedef struct PandaCoveredBlock {
    uint64_t pc;
    /** How often it began; 0: it was only translated. */
    uint64_t hits;
    /** Bytes of code. */
    uint32_t size;
    /** Number of instructions. */
    uint32_t icount;
} PandaCoveredBlock;

/** A block that followed another. */
typedef struct PandaCoveredEdge {
    /** Start of the block that ran before. */
    uint64_t source;
    /** Start of the block that followed. */
    uint64_t target;
    uint64_t hits;
} PandaCoveredEdge;

/** Coverage; its members are not public. */
typedef struct PandaCoverage PandaCoverage;

/**
 * Open coverage, enabled.
 *
 * what: PandaCoverageKind; map_bits: the map has two to the power of so many
 * bytes, 8 to 24. filter as for counters. NULL on failure.
 */
PandaCoverage *panda_coverage_open(uint32_t what, uint32_t map_bits,
                                   const PandaFilter *filter);

/** Go on recording, or stop; takes effect at the next block. */
void panda_coverage_enable(PandaCoverage *coverage, bool enabled);

/** Copy at most max blocks, in the order they were met; returns how many there are. */
uint64_t panda_coverage_blocks(PandaCoverage *coverage, PandaCoveredBlock *out,
                               uint64_t max);

/** Copy at most max edges, in no order; returns how many there are. */
uint64_t panda_coverage_edges(PandaCoverage *coverage, PandaCoveredEdge *out,
                              uint64_t max);

/** The map of edges; NULL if there is none. It may be written. */
uint8_t *panda_coverage_map(PandaCoverage *coverage);

/** Forget all hits. */
void panda_coverage_reset(PandaCoverage *coverage);

/** Free coverage; keep_map: its map is still looked at, and left alone. */
void panda_coverage_close(PandaCoverage *coverage, bool keep_map);

#endif
