/*
 * Checkpoints of a replay: places it can go to without playing from the start.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_CHECKPOINT_H
#define PANDA_RECORD_CHECKPOINT_H

#include "record/player.h"

/* Begin to keep them, in so many bytes; before the replay's first slice. */
bool panda_checkpoints_begin(uint64_t budget, Error **errp);
void panda_checkpoints_end(void);
bool panda_checkpoints_kept(void);

/* The CPU is at rest, at the first slice of an epoch. */
void panda_checkpoint_take(CPUState *cs);

/*
 * Go to the checkpoint that is best to come to a count of instructions; false
 * if it is best to play on from here. On the CPU thread, at rest.
 */
bool panda_checkpoint_restore(CPUState *cs, uint64_t count);

/*
 * Log all pages that differ from what they were at the replay's beginning, as
 * memory that a device has written.
 */
void panda_checkpoint_log_pages(void);

/* The last checkpoint before a count: its count; UINT64_MAX if there is none. */
uint64_t panda_checkpoint_before(uint64_t count);

#endif
