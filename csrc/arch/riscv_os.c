/*
 * What the introspection must know of RISC-V.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/guest_memory.h"
#include "introspect/kallsyms.h"

#define VALID 1
#define LEAF 0xe
#define TP 4

bool panda_arch_os_big_endian(CPUState *cs)
{
    return false;
}

/* Levels of 9 bits; 0: no translation. */
static int levels(CPUState *cs)
{
    switch (get_field(cpu_env(cs)->satp, SATP64_MODE)) {
    case VM_1_10_SV39:
        return 3;
    case VM_1_10_SV48:
        return 4;
    case VM_1_10_SV57:
        return 5;
    default:
        return 0;
    }
}

uint64_t panda_arch_os_kernel_root(CPUState *cs)
{
    return levels(cs) ? get_field(cpu_env(cs)->satp, SATP64_PPN) << 12
                      : OS_NOWHERE;
}

uint64_t panda_arch_os_kernel_start(uint64_t linear)
{
    return linear;
}

uint64_t panda_arch_os_linear(uint64_t va)
{
    return OS_NOWHERE;
}

uint64_t panda_arch_os_walk(CPUState *cs, uint64_t root, uint64_t va,
                            bool kernel)
{
    uint64_t table = root;

    for (int level = levels(cs) - 1; level >= 0; level--) {
        unsigned shift = 12 + 9 * level;
        uint64_t mask = (1ull << shift) - 1;
        uint64_t e;

        if (!os_physical_u64(table + ((va >> shift) & 511) * 8, &e)
            || !(e & VALID)) {
            return OS_NOWHERE;
        }
        table = extract64(e, 10, 44) << 12;
        if (e & LEAF) {
            return (table & ~mask) | (va & mask);
        }
    }
    return OS_NOWHERE;
}

uint64_t panda_arch_os_asid(CPUState *cs, uint64_t pgd_physical)
{
    CPURISCVState *env = cpu_env(cs);

    /* The number of the address space stays out if the kernel gives none. */
    return get_field(env->satp, SATP64_ASID) ? 0
        : set_field(env->satp, SATP64_PPN, pgd_physical >> 12);
}

uint64_t panda_arch_os_stack_size(void)
{
    return 16 * KiB;
}

void panda_arch_os_prepare(CPUState *cs, bool (*is_task)(uint64_t address))
{
}

OsClue panda_arch_os_current(CPUState *cs, uint64_t *value)
{
    CPURISCVState *env = cpu_env(cs);

    *value = env->sscratch ? env->sscratch : env->gpr[TP];
    return os_is_kernel(*value) ? OS_CLUE_TASK : OS_CLUE_NONE;
}

const char *panda_arch_os_current_lacks(CPUState *cs, bool knows_stacks)
{
    /* A register has it. */
    return NULL;
}
