/*
 * Between limit.c and the files that know where an instruction begins.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_LIMIT_H
#define PANDA_CORE_LIMIT_H

#include "core/internal.h"
#include "exec/translator.h"

/* Is a limit set? */
bool panda_limit_active(void);

/* Translation: a block begins; one of its further instructions begins. */
void panda_limit_block_start(const DisasContextBase *db);
void panda_limit_insn_start(const DisasContextBase *db);

/* The instruction counted last was not executed: it begins anew, or never. */
void panda_limit_retract(void);

/* Ends the run before the instruction at pc: a PandaRunResult; 0: it does not. */
int panda_limit_reached(uint64_t pc);

#endif
