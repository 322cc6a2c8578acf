/*
 * Filters: which events a callback, a stream or a counter is there for.
 *
 * They are decided in C or in the generated code, so an event that is filtered
 * out costs next to nothing. Where the answer is known when guest code is
 * translated (addresses of code, kernel or user mode), nothing is emitted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_FILTER_H
#define PANDA_FILTER_H

#include "panda/types.h"

/** Size of a process' short name, with its end. */
#define PANDA_NAME_SIZE 16

/** Privilege of the code an event is from. */
typedef enum PandaMode {
    PANDA_MODE_ANY = 0,
    PANDA_MODE_KERNEL = 1,
    PANDA_MODE_USER = 2,
} PandaMode;

/** Addresses from first to last, both included. */
typedef struct PandaRange {
    uint64_t first;
    uint64_t last;
} PandaRange;

/**
 * A filter; one of zeros lets everything pass.
 *
 * All conditions must hold. The counting ones (once_per_block, every, first, in
 * this order) look only at events that the others let pass.
 */
typedef struct PandaFilter {
    /** Where the code is: of a block its start, else the instruction. */
    const PandaRange *pc;
    /** Which addresses are accessed; for memory events only. */
    const PandaRange *addr;
    /** Address spaces, as panda_current_asid() has them. */
    const uint64_t *asid;
    uint32_t n_pc;
    uint32_t n_addr;
    uint32_t n_asid;
    /** A PandaMode. */
    uint32_t mode;
    /** One event in so many; 0 and 1: all. */
    uint64_t every;
    /** No more than so many events until it is enabled again; 0: all. */
    uint64_t first;
    /** A flag that must be set (panda_flag_new()); 0: none. */
    uint32_t flag;
    /** Nonzero: only the first event of each block of code. */
    uint32_t once_per_block;
    /**
     * Short name of the process that runs (of Linux 15 bytes, what is longer
     * is cut); NULL: any. Nothing passes until the guest's kernel is found.
     */
    const char *procname;
} PandaFilter;

/**
 * Give an owner a filter, for what it registers from now on.
 *
 * NULL takes it away. PANDA_ERR_ARGUMENT if the filter makes no sense,
 * PANDA_ERR_STATE if there are too many at a time (55), PANDA_ERR_OS if it has
 * a procname and the guest's kernel, which is found, does not show which process
 * runs.
 */
int panda_set_filter(void *plugin, const PandaFilter *filter);

/** Make a flag for filters; 0 if there are too many (65535). */
uint32_t panda_flag_new(bool set);

/**
 * Set or clear a flag; takes effect at the next event, from any thread.
 *
 * Never blocks.
 */
void panda_flag_set(uint32_t flag, bool set);

/**
 * Whether a flag is set.
 *
 * Never blocks.
 */
bool panda_flag_get(uint32_t flag);

#endif
