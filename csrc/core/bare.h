/*
 * The machine without devices, and what it asks of an architecture.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_BARE_H
#define PANDA_CORE_BARE_H

#include "core/internal.h"
#include "accel/tcg/cpu-ops.h"

/* Is the machine the one of bare.c? */
extern bool panda_bare;

/* To be called when the CPU's table of functions is put together. */
void panda_bare_install(TCGCPUOps *ops);

/* cpu_exec() has returned that. */
void panda_bare_cpu_left(CPUState *cs, int result);

/* ---- csrc/arch/<family>_bare.c ---- */

/* The CPU there is without -cpu. */
extern const char panda_arch_bare_cpu[];

/* Before the CPU is realized: no interrupt controller, no secure world. */
void panda_arch_bare_prepare(Object *cpu);

/* After it: what a board would add that the CPU cannot be without. */
void panda_arch_bare_wire(CPUState *cs);

/*
 * The state programs begin with, after a reset. mode is the machine's
 * property, NULL without it; false if the architecture has none of that name.
 */
bool panda_arch_bare_start(CPUState *cs, const char *mode);

/* Has the program said where this exception is to be handled? */
bool panda_arch_bare_vector(CPUState *cs, int exception);

/* The exception is not delivered: pc is to be at its instruction. */
void panda_arch_bare_drop(CPUState *cs, int exception);

/* NULL for a number that is not known. */
const char *panda_arch_exception_name(int exception);

/* A table of names, by number, for it. */
#define PANDA_NAME_OF(table, number)                                          \
    ((number) >= 0 && (number) < ARRAY_SIZE(table) ? (table)[number] : NULL)

#endif
