/*
 * The calling conventions of MIPS: o32, and n64 on CPUs of 64 bits.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/abi.h"

#ifdef TARGET_MIPS64
/* A program of n64 has addresses of 64 bits switched on, as the kernel has. */
#define word(cs) (cpu_env(cs)->hflags & MIPS_HFLAG_64 ? 8 : 4)
#else
#define word(cs) 4
#endif

#define reg(cs, n) (cpu_env(cs)->active_tc.gpr[n])
#define link(cs) reg(cs, 31)
#define FIRST 4
#define RESULT 2
#define HYPERCALL 2
#define in_registers(cs) (word(cs) == 8 ? 8u : 4u)
#define stack_offset(cs) (word(cs) == 8 ? 0 : 16)

#include "arch/abi_registers.h"
