/*
 * The calling convention of RISC-V.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/abi.h"

#define reg(cs, n) (cpu_env(cs)->gpr[n])
#define link(cs) reg(cs, 1)
#define FIRST 10
#define RESULT 10
#define HYPERCALL 17
#define in_registers(cs) 8
#define stack_offset(cs) 0
#define word(cs) (cpu_env(cs)->xl == MXL_RV32 ? 4 : 8)

#include "arch/abi_registers.h"
