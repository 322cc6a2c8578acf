/*
 * What counters and coverage share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_COUNTER_H
#define PANDA_CORE_COUNTER_H

#include "core/block_events.h"
#include "core/listeners.h"
#include "tcg/tcg.h"

/* Emit: *where += addend. */
void panda_emit_add(uint64_t *where, TCGv_i64 addend);

/* Fails with PANDA_ERR_ARGUMENT if a filter has to be decided event by event. */
bool panda_counting_filter_is_good(const PandaFilter *filter);

/* A block is left at pc, before that instruction: take back what was added. */
void panda_counters_unwind(const PandaBlock *block, uint64_t pc);

#endif
