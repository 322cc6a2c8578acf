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
    bool kernel;
    /* Not one instruction of a block that has begun already. */
    bool whole;
    /* Callbacks that may want its events, by slot. */
    uint64_t mask;
    uint64_t end_mask;
    /* Those of them that want one event of it only. */
    uint64_t once_mask;
    /* Listeners that need no further event of this block, by slot. */
    uint64_t done;
    /* Offsets of its instructions, if they are counted. */
    GArray *insns;
} PandaBlock;

/* The block that is being translated, if it is instrumented. */
PandaBlock *panda_block_translating(void);

/* State was restored to the instruction at pc: the block is being left. */
void panda_block_unwound(const TranslationBlock *tb, uint64_t pc);

/* The running block was left from inside an event: it has no end. */
void panda_block_left(void);

/*
 * The events of a mask were counted before, as the code that met them is run
 * again.
 */
void panda_give_back(uint64_t mask);

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
void panda_mem_insn_start(uint64_t pc, bool kernel);
void panda_mem_flushed(void);

#endif
