/*
 * Between compound.c, python_reads.c and the architectures.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_COMPOUND_H
#define PANDA_CORE_COMPOUND_H

#include "core/internal.h"

/*
 * A value of panda_read_values(); with quick, only what the TLB leads to.
 * False: it cannot be read, or there is none of that number.
 */
bool panda_read_value(CPUState *cs, unsigned what, bool quick,
                      uint64_t *value);

/* A word of guest memory, likewise. */
bool panda_read_word(CPUState *cs, uint64_t addr, bool quick, uint64_t *value);

/* ---- csrc/arch/<family>.c ---- */

/* General register n in the present mode; false if there is none. */
bool panda_arch_general(CPUState *cs, unsigned n, uint64_t *value);
/* Bytes in one, and in an address. */
unsigned panda_arch_word(CPUState *cs);
/* Do data have the most significant byte first? */
bool panda_arch_big_endian(CPUState *cs);

#endif
