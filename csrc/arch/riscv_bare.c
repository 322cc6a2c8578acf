/*
 * The RISC-V CPU of a machine without devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/bare.h"

/* Where nothing is mapped: the handlers, until the program moves them. */
#define HANDLERS 0x00fffffffffff000ull

const char panda_arch_bare_cpu[] = TYPE_RISCV_CPU_MAX;

void panda_arch_bare_prepare(Object *cpu)
{
}

void panda_arch_bare_wire(CPUState *cs)
{
}

/* Machine mode; floating point and vectors are of use at once. */
bool panda_arch_bare_start(CPUState *cs, const char *mode)
{
    CPURISCVState *env = cpu_env(cs);

    if (mode) {
        return false;
    }
    env->pc = 0;
    env->mtvec = HANDLERS;
    if (riscv_has_ext(env, RVF)) {
        env->mstatus |= MSTATUS_FS;
    }
    if (riscv_has_ext(env, RVV)) {
        env->mstatus |= MSTATUS_VS;
    }
    return true;
}

bool panda_arch_bare_vector(CPUState *cs, int exception)
{
    return true;
}

void panda_arch_bare_drop(CPUState *cs, int exception)
{
}

const char *panda_arch_exception_name(int exception)
{
    static const char *const names[] = {
        [RISCV_EXCP_INST_ADDR_MIS] = "instruction address misaligned",
        [RISCV_EXCP_INST_ACCESS_FAULT] = "instruction access fault",
        [RISCV_EXCP_ILLEGAL_INST] = "illegal instruction",
        [RISCV_EXCP_BREAKPOINT] = "breakpoint",
        [RISCV_EXCP_LOAD_ADDR_MIS] = "load address misaligned",
        [RISCV_EXCP_LOAD_ACCESS_FAULT] = "load access fault",
        [RISCV_EXCP_STORE_AMO_ADDR_MIS] = "store address misaligned",
        [RISCV_EXCP_STORE_AMO_ACCESS_FAULT] = "store access fault",
        /* Of which mode is decided later. */
        [RISCV_EXCP_U_ECALL] = "environment call",
        [RISCV_EXCP_INST_PAGE_FAULT] = "instruction page fault",
        [RISCV_EXCP_LOAD_PAGE_FAULT] = "load page fault",
        [RISCV_EXCP_STORE_PAGE_FAULT] = "store page fault",
    };

    return PANDA_NAME_OF(names, exception);
}
