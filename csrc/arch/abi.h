/*
 * The calling convention of C on the guest's architecture, as its systems have
 * it, and where a hypercall has its number.
 *
 * For the code that runs now: a 64-bit CPU in 32-bit mode has that of the
 * 32-bit architecture. To be used at the first instruction of a function.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_ARCH_ABI_H
#define PANDA_ARCH_ABI_H

#include "core/internal.h"

/* Bytes of a word: an argument, a return address. */
unsigned panda_abi_word(CPUState *cs);

/* Argument number n, from 0; false if it is on a stack that is not there. */
bool panda_abi_argument(CPUState *cs, unsigned n, uint64_t *value);
bool panda_abi_set_argument(CPUState *cs, unsigned n, uint64_t value);

/* Where the function will return to; false as above. */
bool panda_abi_return_address(CPUState *cs, uint64_t *address);

/* The stack pointer when it has returned. */
uint64_t panda_abi_returned_sp(CPUState *cs);

uint64_t panda_abi_result(CPUState *cs);
void panda_abi_set_result(CPUState *cs, uint64_t value);

/* As if the function had returned: but for the pc. */
void panda_abi_leave(CPUState *cs);

/* The register that says which hypercall it is. */
uint64_t panda_abi_hypercall_number(CPUState *cs);

/* ---- abi.c ---- */

/* A word of the guest's memory, without effects on the guest. */
bool panda_abi_read(CPUState *cs, uint64_t address, unsigned size,
                    uint64_t *value);
bool panda_abi_write(CPUState *cs, uint64_t address, unsigned size,
                     uint64_t value);

#endif
