/*
 * Breakpoints as gdb has them: the machine stops there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_BREAKPOINT_H
#define PANDA_BREAKPOINT_H

#include "panda/cpu.h"
#include "panda/types.h"

/**
 * Stop the machine before the instruction at pc; takes effect at the next block.
 *
 * It is then as it is for a debugger, and goes on when it is continued and
 * the breakpoint is cleared.
 */
int panda_set_breakpoint(PandaCPU *cpu, target_ptr_t pc);

/** Undo it. */
int panda_clear_breakpoint(PandaCPU *cpu, target_ptr_t pc);

#endif
