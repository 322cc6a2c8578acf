/*
 * Which instrumentation the CPU runs with.
 *
 * Blocks are looked up by their compile flags, so a plain and an instrumented
 * translation of the same guest code live side by side in the code cache, and
 * switching between them needs no flush. See docs/architecture.md.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/listeners.h"
#include "core/limit.h"
#include "core/machine.h"
#include "hooks/hooks.h"
#include "exec/exec-all.h"
#include "exec/translation-block.h"
#include "hw/core/cpu.h"

QEMU_BUILD_BUG_ON(PANDA_CF_ALL
                  & (CF_COUNT_MASK | CF_NO_GOTO_TB | CF_NO_GOTO_PTR
                     | CF_SINGLE_STEP | CF_MEMI_ONLY | CF_USE_ICOUNT
                     | CF_INVALID | CF_PARALLEL | CF_NOIRQ | CF_PCREL
                     | CF_BP_PAGE | CF_CLUSTER_MASK));

/*
 * A block that may run at several addresses cannot be translated for one of
 * them. Not a flag of QEMU's: it stands for CF_PCREL being clear.
 */
#define FIXED_PC 0x80000000u

#define CHAINING_OFF (CF_NO_GOTO_TB | CF_NO_GOTO_PTR)

#define BLOCK_POINTS                                                          \
    (BIT(PANDA_POINT_BLOCK) | BIT(PANDA_POINT_BLOCK_END)                      \
     | BIT(PANDA_POINT_BRANCH) | BIT(PANDA_POINT_SYSCALL))
#define INSN_POINTS (BIT(PANDA_POINT_INSN) | BIT(PANDA_POINT_AFTER_INSN))
#define LOAD_POINTS                                                           \
    (BIT(PANDA_POINT_BEFORE_LOAD) | BIT(PANDA_POINT_AFTER_LOAD))
#define STORE_POINTS                                                          \
    (BIT(PANDA_POINT_BEFORE_STORE) | BIT(PANDA_POINT_AFTER_STORE))

static uint32_t wanted_bits;
/* What the CPU was last asked to use. */
static uint32_t asked_bits;
static bool chaining_off;
static bool memcb;

static const uint8_t block_kinds[] = {
    PANDA_CB_BEFORE_BLOCK_EXEC_INVALIDATE_OPT, PANDA_CB_BEFORE_BLOCK_EXEC,
    PANDA_CB_AFTER_BLOCK_EXEC, PANDA_CB_START_BLOCK_EXEC,
    PANDA_CB_END_BLOCK_EXEC,
};

static const uint8_t insn_kinds[] = {
    PANDA_CB_INSN_TRANSLATE, PANDA_CB_INSN_EXEC,
    PANDA_CB_AFTER_INSN_TRANSLATE, PANDA_CB_AFTER_INSN_EXEC,
#ifndef TARGET_I386
    /* x86 has a helper for it. */
    PANDA_CB_GUEST_HYPERCALL,
#endif
};

static const uint8_t load_kinds[] = {
    PANDA_CB_VIRT_MEM_BEFORE_READ, PANDA_CB_VIRT_MEM_AFTER_READ,
    PANDA_CB_PHYS_MEM_BEFORE_READ, PANDA_CB_PHYS_MEM_AFTER_READ,
};

static const uint8_t store_kinds[] = {
    PANDA_CB_VIRT_MEM_BEFORE_WRITE, PANDA_CB_VIRT_MEM_AFTER_WRITE,
    PANDA_CB_PHYS_MEM_BEFORE_WRITE, PANDA_CB_PHYS_MEM_AFTER_WRITE,
};

static bool any_wanted(const uint8_t *kinds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (panda_wanted(kinds[i])) {
            return true;
        }
    }
    return false;
}

/* On the CPU thread, outside of the execution loop: no block is linked. */
static void apply(CPUState *cs, run_on_cpu_data data)
{
    static uint32_t pcrel;
    uint32_t bits = qatomic_read(&wanted_bits);

    pcrel |= cs->tcg_cflags & CF_PCREL;
    cs->tcg_cflags = (cs->tcg_cflags & ~(PANDA_CF_ALL | CHAINING_OFF))
        | (bits & ~FIXED_PC);
    if (bits & FIXED_PC) {
        cs->tcg_cflags &= ~CF_PCREL;
    } else {
        cs->tcg_cflags |= pcrel;
    }
}

void panda_variants_update(void)
{
    CPUState *cs = panda_vcpu.cs;
    uint32_t points = panda_listeners_points();
    uint32_t bits = 0;

    if (any_wanted(block_kinds, ARRAY_SIZE(block_kinds))
        || (points & BLOCK_POINTS)) {
        bits |= PANDA_CF_BLOCK;
    }
    if (any_wanted(insn_kinds, ARRAY_SIZE(insn_kinds))
        || (points & INSN_POINTS)) {
        bits |= PANDA_CF_INSN;
    }
    if (memcb || any_wanted(load_kinds, ARRAY_SIZE(load_kinds))
        || (points & LOAD_POINTS)) {
        bits |= PANDA_CF_LOAD;
    }
    if (memcb || any_wanted(store_kinds, ARRAY_SIZE(store_kinds))
        || (points & STORE_POINTS)) {
        bits |= PANDA_CF_STORE;
    }
    if (panda_limit_active()) {
        bits |= PANDA_CF_LIMIT;
    }
    if (chaining_off) {
        bits |= CHAINING_OFF;
    }
    if (panda_listeners_fix_pc() || panda_hooks_fix_pc()) {
        bits |= FIXED_PC;
    }
    qatomic_set(&wanted_bits, bits);
    if (cs && qatomic_xchg(&asked_bits, bits) != bits && !panda_dead()) {
        async_run_on_cpu(cs, apply, RUN_ON_CPU_NULL);
    }
}

void panda_enable_memcb(void)
{
    memcb = true;
    panda_variants_update();
}

void panda_disable_memcb(void)
{
    memcb = false;
    panda_variants_update();
}

void panda_enable_tb_chaining(void)
{
    chaining_off = false;
    panda_variants_update();
}

void panda_disable_tb_chaining(void)
{
    chaining_off = true;
    panda_variants_update();
}
