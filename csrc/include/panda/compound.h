/*
 * Several reads in one call: registers, arguments, pointers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_COMPOUND_H
#define PANDA_COMPOUND_H

#include "panda/cpu.h"
#include "panda/types.h"

/**
 * What panda_read_values() can read, besides general registers.
 *
 * Numbers below 256 are general registers in the architecture's own order, as
 * in panda.arch.registers of the Python package.
 */
typedef enum PandaValue {
    /** Program counter, as panda_current_pc(). */
    PANDA_VALUE_PC = 256,
    /** Stack pointer. */
    PANDA_VALUE_SP = 257,
    /** Address space identifier, as panda_current_asid(). */
    PANDA_VALUE_ASID = 258,
    /** 1 at the kernel's privilege level, else 0. */
    PANDA_VALUE_IN_KERNEL = 259,
    /** Plus n: word n of the stack, counted upward from the stack pointer. */
    PANDA_VALUE_STACK = 1024,
} PandaValue;

/**
 * Read n values into out, as the CPU has them at this moment.
 *
 * Words of the stack have the guest's size and byte order. PANDA_ERR_MEMORY
 * if one of them cannot be read, PANDA_ERR_ARGUMENT for a number that stands
 * for nothing; out is then not complete.
 */
int panda_read_values(PandaCPU *cpu, const uint16_t *what, uint32_t n,
                      uint64_t *out);

/**
 * Read up to n pointers, of the guest's size and byte order, that lie in a row.
 *
 * With until_null the first that is 0 ends the list and is not part of it.
 * Returns how many there are, fewer than n also where memory that is not
 * mapped follows; PANDA_ERR_MEMORY if not even the first can be read.
 */
int64_t panda_read_pointers(PandaCPU *cpu, target_ptr_t addr, uint32_t n,
                            bool until_null, uint64_t *out);

/** Bytes in a register and a word of the stack in the CPU's present mode. */
uint32_t panda_word_size(PandaCPU *cpu);

#endif
