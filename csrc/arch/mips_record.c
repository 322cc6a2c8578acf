/*
 * Record and replay: what is MIPS's own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/log.h"
#include "internal.h"

enum {
    CROSS_GET_COUNT = PANDA_CROSS_ARCH,
    CROSS_STORE_COUNT,
    CROSS_STORE_COMPARE,
    CROSS_START_COUNT,
    CROSS_STOP_COUNT,
    CROSS_RANDOM,
};

/*
 * The timer is the CPU's, but it looks at when the host's timers are due: it
 * counts as a device, and the registers it has as its lines.
 */
PANDA_RR_VALUE(uint32_t, cpu_mips_get_count, CROSS_GET_COUNT, 0,
               (CPUMIPSState *env), (env))
PANDA_RR_VOID(cpu_mips_store_count, CROSS_STORE_COUNT, count,
              (CPUMIPSState *env, uint32_t count), (env, count))
PANDA_RR_VOID(cpu_mips_store_compare, CROSS_STORE_COMPARE, compare,
              (CPUMIPSState *env, uint32_t compare), (env, compare))
PANDA_RR_VOID(cpu_mips_start_count, CROSS_START_COUNT, 0,
              (CPUMIPSState *env), (env))
PANDA_RR_VOID(cpu_mips_stop_count, CROSS_STOP_COUNT, 0, (CPUMIPSState *env),
              (env))

/* It keeps its seed where no snapshot finds it. */
PANDA_RR_VALUE(uint32_t, cpu_mips_get_random, CROSS_RANDOM, 0,
               (CPUMIPSState *env), (env))

unsigned panda_arch_lines(CPUState *cs, PandaLine *table)
{
    CPUMIPSState *env = cpu_env(cs);

    table[0] = (PandaLine) { "CP0_Cause", &env->CP0_Cause, 4 };
    table[1] = (PandaLine) { "CP0_Count", &env->CP0_Count, 4 };
    table[2] = (PandaLine) { "CP0_Compare", &env->CP0_Compare, 4 };
    return 3;
}

/*
 * The branch whose delay slot is next, and what LL has read for SC to compare;
 * and the cache attributes of the TLB's entries, of which QEMU loads two bits
 * of three.
 */
void panda_arch_cpu_save(PandaBytes *out)
{
    CPUMIPSState *env = cpu_env(panda_vcpu.cs);

    panda_bytes_number(out, env->hflags);
    panda_bytes_number(out, env->llval);
    panda_bytes_number(out, env->llval_wp);
    panda_bytes_number(out, env->llnewval_wp);
    for (unsigned i = 0; i < MIPS_TLB_MAX; i++) {
        const r4k_tlb_t *tlb = &env->tlb->mmu.r4k.tlb[i];

        panda_bytes_number(out, tlb->C0 | tlb->C1 << 3);
    }
}

bool panda_arch_cpu_load(PandaLogCursor *c)
{
    CPUMIPSState *env = cpu_env(panda_vcpu.cs);

    if (panda_log_at_end(c)) {
        /* Format 1. */
        return true;
    }
    env->hflags = panda_log_get(c);
    env->llval = panda_log_get(c);
    env->llval_wp = panda_log_get(c);
    env->llnewval_wp = panda_log_get(c);
    for (unsigned i = 0; i < MIPS_TLB_MAX; i++) {
        r4k_tlb_t *tlb = &env->tlb->mmu.r4k.tlb[i];
        unsigned attributes = panda_log_get(c);

        tlb->C0 = attributes & 7;
        tlb->C1 = attributes >> 3 & 7;
    }
    return !c->bad;
}

const char *panda_arch_rr_refusal(CPUState *cs)
{
    return NULL;
}

uint64_t panda_arch_rr_digest(CPUState *cs, bool at_rest)
{
    CPUMIPSState *env = cpu_env(cs);
    uint64_t h = panda_rr_mix_bytes(0, env->active_tc.gpr,
                                    sizeof(env->active_tc.gpr));

    if (!at_rest) {
        return h;
    }
    h = panda_rr_mix(h, env->active_tc.PC);
    h = panda_rr_mix_bytes(h, env->active_tc.HI, sizeof(env->active_tc.HI));
    h = panda_rr_mix_bytes(h, env->active_tc.LO, sizeof(env->active_tc.LO));
    h = panda_rr_mix_bytes(h, env->active_fpu.fpr,
                           sizeof(env->active_fpu.fpr));
    h = panda_rr_mix(h, env->CP0_Status);
    h = panda_rr_mix(h, env->CP0_Cause);
    h = panda_rr_mix(h, env->CP0_EPC);
    h = panda_rr_mix(h, env->CP0_EntryHi);
    return panda_rr_mix(h, cs->halted);
}
