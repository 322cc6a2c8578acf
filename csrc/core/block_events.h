/*
 * What other files need of the block events.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_BLOCK_EVENTS_H
#define PANDA_CORE_BLOCK_EVENTS_H

#include "core/internal.h"
#include "exec/translator.h"
#include "exec/translation-block.h"

/*
 * Our description of an instrumented block. Its address is a constant in the
 * generated code; it lives until the code cache is flushed.
 */
typedef struct PandaBlock {
    PandaTB pub;
    TranslationBlock *tb;
    struct PandaBlock *next;
} PandaBlock;

/* The running block was left from inside an event: it has no end. */
void panda_block_left(void);

/* Deliver after_block_exec of a block that was left early, if there is one. */
void panda_block_finish_early(CPUState *cs);

/* Fill the structure callbacks see from QEMU's. */
void panda_tb_fill(PandaTB *out, const TranslationBlock *tb, uint64_t pc);

/* ---- instruction events (insn_events.c), driven by the block's ---- */

void panda_insn_block_start(const DisasContextBase *db);
/* Before an exit of the block is emitted. */
void panda_insn_block_exit(void);

/* ---- memory events (memory_events.c) ---- */

void panda_mem_block_start(const DisasContextBase *db);
/* An instruction begins in a block of the memory variant. */
void panda_mem_insn_start(uint64_t pc);

#endif
