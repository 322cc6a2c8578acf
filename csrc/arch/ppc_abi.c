/*
 * The calling conventions of PowerPC: System V's of 32 bits, ELF's of 64, in
 * both of its versions.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/abi.h"

#ifdef TARGET_PPC64
#define word(cs) (cpu_env(cs)->msr >> MSR_SF & 1 ? 8 : 4)
/* Version 1, which is the big-endian systems', has two words more. */
#define stack_offset(cs)                                                      \
    (word(cs) == 4 ? 8 : (cpu_env(cs)->msr >> MSR_LE & 1 ? 32 : 48) + 64)
#else
#define word(cs) 4
#define stack_offset(cs) 8
#endif

#define reg(cs, n) (cpu_env(cs)->gpr[n])
#define link(cs) (cpu_env(cs)->lr)
#define FIRST 3
#define RESULT 3
#define HYPERCALL 0
#define in_registers(cs) 8

#include "arch/abi_registers.h"
