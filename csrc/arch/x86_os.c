/*
 * What the introspection must know of x86.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/guest_memory.h"
#include "introspect/kallsyms.h"

#define PRESENT 1
#define LARGE 0x80
#define PHYSICAL 0x000ffffffffff000ull
/* The kernel's tables and the user's may be halves of a pair of pages. */
#define PTI_USER_BIT 0x1000ull
#define TSS_SP1 12

/* Offset of the running task's address in the memory of a CPU. */
static uint64_t percpu_current;
static bool has_percpu_current;

bool panda_arch_os_big_endian(CPUState *cs)
{
    return false;
}

uint64_t panda_arch_os_kernel_root(CPUState *cs)
{
    CPUX86State *env = cpu_env(cs);

    if (!(env->cr[0] & CR0_PG_MASK)) {
        return OS_NOWHERE;
    }
    return env->cr[3] & (env->cr[4] & CR4_PAE_MASK
                         && !(env->hflags & HF_LMA_MASK)
                         ? ~0x1full : PHYSICAL & ~PTI_USER_BIT);
}

uint64_t panda_arch_os_kernel_start(uint64_t linear)
{
    return linear;
}

uint64_t panda_arch_os_linear(uint64_t va)
{
    return OS_NOWHERE;
}

static uint64_t walk_legacy(uint64_t root, uint64_t va)
{
    uint32_t e;

    if (!os_physical_u32((root & ~0xfffull) + (va >> 22) * 4, &e)
        || !(e & PRESENT)) {
        return OS_NOWHERE;
    }
    if (e & LARGE) {
        return (e & 0xffc00000) | (uint64_t)(e & 0x1fe000) << 19
            | (va & 0x3fffff);
    }
    if (!os_physical_u32((e & ~0xfffu) + ((va >> 12) & 1023) * 4, &e)
        || !(e & PRESENT)) {
        return OS_NOWHERE;
    }
    return (e & ~0xfffu) | (va & 0xfff);
}

/* Levels of 512 entries of 8 bytes; PAE's top one has 4 and no flags. */
static uint64_t walk_long(uint64_t root, uint64_t va, int levels)
{
    uint64_t table = root & (PHYSICAL | 0xfe0);

    for (int level = levels - 1; level >= 0; level--) {
        unsigned shift = 12 + 9 * level;
        uint64_t mask = (1ull << shift) - 1;
        uint64_t e;

        if (!os_physical_u64(table + ((va >> shift) & 511) * 8, &e)
            || !(e & PRESENT)) {
            return OS_NOWHERE;
        }
        table = e & PHYSICAL;
        if (level == 0 || (level < 3 && e & LARGE)) {
            return (table & ~mask) | (va & mask);
        }
    }
    return OS_NOWHERE;
}

uint64_t panda_arch_os_walk(CPUState *cs, uint64_t root, uint64_t va,
                            bool kernel)
{
    CPUX86State *env = cpu_env(cs);

    if (env->efer & MSR_EFER_LMA) {
        return walk_long(root & PHYSICAL, va,
                         env->cr[4] & CR4_LA57_MASK ? 5 : 4);
    }
    va = (uint32_t)va;
    return env->cr[4] & CR4_PAE_MASK ? walk_long(root, va, 3)
                                     : walk_legacy(root, va);
}

uint64_t panda_arch_os_asid(CPUState *cs, uint64_t pgd_physical)
{
    return pgd_physical;
}

uint64_t panda_arch_os_stack_size(void)
{
    return os_memory.word == 8 ? 16 * KiB : 8 * KiB;
}

void panda_arch_os_prepare(CPUState *cs, bool (*is_task)(uint64_t address))
{
    has_percpu_current = os_symbol("pcpu_hot", &percpu_current)
        || os_symbol("current_task", &percpu_current);
}

const char *panda_arch_os_current_lacks(CPUState *cs, bool knows_stacks)
{
    if (TARGET_LONG_BITS == 64 && has_percpu_current
        && os_memory.word == 8) {
        return NULL;
    }
    return knows_stacks ? NULL : OS_LACKS_STACKS;
}

#ifdef TARGET_X86_64
OsClue panda_arch_os_current(CPUState *cs, uint64_t *value)
{
    CPUX86State *env = cpu_env(cs);
    uint64_t base = env->segs[R_GS].base;

    if (has_percpu_current && os_memory.word == 8) {
        /* In user mode, and just past the border, the other one is it. */
        if (!os_is_kernel(base)) {
            base = env->kernelgsbase;
        }
        return os_is_kernel(base) && os_read_word(base + percpu_current, value)
            ? OS_CLUE_TASK : OS_CLUE_NONE;
    }
    *value = env->regs[R_ESP] - 1;
    return (env->hflags & HF_CPL_MASK) == 0 ? OS_CLUE_STACK : OS_CLUE_NONE;
}
#else
OsClue panda_arch_os_current(CPUState *cs, uint64_t *value)
{
    CPUX86State *env = cpu_env(cs);
    uint32_t top;

    /* sp0 is where entries land; Linux keeps the thread's stack in sp1. */
    if (!os_read_u32(env->tr.base + TSS_SP1, &top) || !os_is_kernel(top)) {
        return OS_CLUE_NONE;
    }
    *value = top - 1;
    return OS_CLUE_STACK;
}
#endif
