/*
 * Hooks: what the rest of the core needs to know of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_HOOKS_HOOKS_H
#define PANDA_HOOKS_HOOKS_H

#include "core/block_events.h"
#include "core/internal.h"

/* ---- at translation ---- */

/* May the block that begins at pc have a hook? */
bool panda_hooks_near(uint64_t pc);
/* An instruction begins: call out if it is hooked. */
void panda_hooks_insn_start(const DisasContextBase *db, PandaBlock *block);
/* Are there hooks that need code made for one address? */
bool panda_hooks_fix_pc(void);
/* Nothing that was translated is left. */
void panda_hooks_flushed(void);

#endif
