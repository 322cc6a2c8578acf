/*
 * What the introspection must know of ARM, 32 and 64 bit.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/arm.h"
#include "introspect/guest_memory.h"
#include "introspect/kallsyms.h"
#include "cpregs.h"
#include "internals.h"

#define A64_ADDRESS 0x0000fffffffff000ull

bool panda_arch_os_big_endian(CPUState *cs)
{
    return false;
}

static bool is_64(CPUARMState *env)
{
    return arm_el_is_aa64(env, 1);
}

uint64_t panda_arch_os_kernel_root(CPUState *cs)
{
    CPUARMState *env = cpu_env(cs);

    if (is_64(env)) {
        return env->cp15.ttbr1_el[1] & A64_ADDRESS & ~1ull;
    }
    return panda_arm_table_base(env, A32_BANKED_CURRENT_REG_GET(env, ttbr0));
}

uint64_t panda_arch_os_kernel_start(uint64_t linear)
{
    /* Modules are in the 16 MB in front of it. */
    return linear - 16 * MiB;
}

uint64_t panda_arch_os_linear(uint64_t va)
{
    return OS_NOWHERE;
}

/*
 * Linux has tables of its own, each 2 KB in front of the one for the CPU. The
 * latter's entry is empty while a page has not been accessed for long, so that
 * the next access shows; the former's keeps where the page is (L_PTE_VALID).
 */
#define LINUX_TABLE 2048

static uint64_t aged_page(uint32_t entry_at, uint64_t va)
{
    uint32_t e;

    if (!(entry_at & LINUX_TABLE)
        || !os_physical_u32(entry_at - LINUX_TABLE, &e) || !(e & 1)) {
        return OS_NOWHERE;
    }
    return (e & 0xfffff000) | (va & 0xfff);
}

/* Short descriptors: sections of 1 MB, or pages in tables of 256. */
static uint64_t walk_short(uint64_t root, uint64_t va)
{
    uint32_t e, at;

    if (!os_physical_u32((root & ~0x3fffull) + (va >> 20) * 4, &e)) {
        return OS_NOWHERE;
    }
    if ((e & 3) == 2 || (e & 3) == 3) {
        return e & (1 << 18) ? (e & 0xff000000) | (va & 0xffffff)
                             : (e & 0xfff00000) | (va & 0xfffff);
    }
    at = (e & 0xfffffc00) + ((va >> 12) & 255) * 4;
    if ((e & 3) != 1 || !os_physical_u32(at, &e)) {
        return OS_NOWHERE;
    }
    if (e & 2) {
        return (e & 0xfffff000) | (va & 0xfff);
    }
    return e & 1 ? (e & 0xffff0000) | (va & 0xffff) : aged_page(at, va);
}

/* Descriptors of 8 bytes; the top level has what bits are left. */
static uint64_t walk_long(uint64_t root, uint64_t va, unsigned bits,
                          unsigned page)
{
    unsigned step = page - 3;
    int levels = DIV_ROUND_UP(bits - page, step);
    uint64_t table = root;

    va &= MAKE_64BIT_MASK(0, bits);
    for (int level = levels - 1; level >= 0; level--) {
        unsigned shift = page + step * level;
        uint64_t mask = (1ull << shift) - 1;
        uint64_t index = (va >> shift)
            & (level == levels - 1 ? UINT64_MAX : (1ull << step) - 1);
        uint64_t e;

        if (!os_physical_u64(table + index * 8, &e) || !(e & 1)) {
            return OS_NOWHERE;
        }
        table = e & A64_ADDRESS;
        if (level == 0 || !(e & 2)) {
            return (table & ~mask) | (va & mask);
        }
        table &= ~((1ull << page) - 1);
    }
    return OS_NOWHERE;
}

uint64_t panda_arch_os_walk(CPUState *cs, uint64_t root, uint64_t va,
                            bool kernel)
{
    CPUARMState *env = cpu_env(cs);
    uint64_t tcr = env->cp15.tcr_el[1];
    unsigned page, tg;

    if (!is_64(env)) {
        return tcr & TTBCR_EAE ? walk_long(root, va, 32, 12)
                               : walk_short(root, va);
    }
    if (va >> 63) {
        tg = extract64(tcr, 30, 2);
        page = tg == 1 ? 14 : tg == 3 ? 16 : 12;
        return walk_long(root, va, 64 - extract64(tcr, 16, 6), page);
    }
    tg = extract64(tcr, 14, 2);
    page = tg == 1 ? 16 : tg == 2 ? 14 : 12;
    return walk_long(root, va, 64 - extract64(tcr, 0, 6), page);
}

uint64_t panda_arch_os_asid(CPUState *cs, uint64_t pgd_physical)
{
    return panda_arm_table_base(cpu_env(cs), pgd_physical);
}

uint64_t panda_arch_os_stack_size(void)
{
    return os_memory.word == 8 ? 16 * KiB : 8 * KiB;
}

static bool (*is_a_task)(uint64_t address);
/* This kernel keeps it in a register; if not, it was looked for in there. */
static bool has_seen_register, has_looked;

void panda_arch_os_prepare(CPUState *cs, bool (*is_task)(uint64_t address))
{
    is_a_task = is_task;
    has_seen_register = has_looked = false;
}

/*
 * In the kernel, Linux 5.16 and later keep the task's address where a user's
 * thread area is, from the first instructions of an entry on. Only that tells
 * it while the stack of interrupts is used.
 */
static bool task_in_register(CPUARMState *env, uint64_t *value)
{
    *value = (uint32_t)A32_BANKED_CURRENT_REG_GET(env, tpidruro);
    if (arm_current_el(env) && os_is_kernel(*value) && is_a_task
        && is_a_task(*value)) {
        has_seen_register = true;
        return true;
    }
    return false;
}

OsClue panda_arch_os_current(CPUState *cs, uint64_t *value)
{
    CPUARMState *env = cpu_env(cs);

    if (!is_64(env)) {
        bool svc = (env->uncached_cpsr & CPSR_M) == ARM_CPU_MODE_SVC;

        if (task_in_register(env, value)) {
            return OS_CLUE_TASK;
        }
        /* Interrupts have small stacks of their own for a moment. */
        *value = (svc ? env->regs[13]
                      : env->banked_r13[bank_number(ARM_CPU_MODE_SVC)]) - 1;
        return OS_CLUE_STACK;
    }
    if (arm_current_el(env) >= 1) {
        if (os_is_kernel(env->sp_el[0])) {
            *value = env->sp_el[0];
            return OS_CLUE_TASK;
        }
        *value = env->xregs[31] - 1;
    } else {
        *value = env->sp_el[1] - 1;
    }
    return OS_CLUE_STACK;
}

const char *panda_arch_os_current_lacks(CPUState *cs, bool knows_stacks)
{
    CPUARMState *env = cpu_env(cs);
    uint64_t task;

    /* A register has it in the kernel; of 32 bits, of some kernels. */
    if (knows_stacks || is_64(env) || task_in_register(env, &task)
        || has_seen_register) {
        return NULL;
    }
    has_looked |= arm_current_el(env) != 0;
    return has_looked ? OS_LACKS_STACKS : NULL;
}
