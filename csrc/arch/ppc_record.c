/*
 * Record and replay: what is PowerPC's own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "arch/ppc.h"
#include "helper_regs.h"
#include "hw/ppc/ppc.h"

enum {
    CROSS_LOAD_TBL = PANDA_CROSS_ARCH,
    CROSS_LOAD_TBU,
    CROSS_LOAD_ATBL,
    CROSS_LOAD_ATBU,
    CROSS_LOAD_VTB,
    CROSS_LOAD_PURR,
    CROSS_LOAD_DECR,
    CROSS_LOAD_HDECR,
    CROSS_LOAD_PIT,
    CROSS_STORE_TBL,
    CROSS_STORE_TBU,
    CROSS_STORE_ATBL,
    CROSS_STORE_ATBU,
    CROSS_STORE_VTB,
    CROSS_STORE_TBU40,
    CROSS_STORE_PURR,
    CROSS_STORE_DECR,
    CROSS_STORE_HDECR,
    CROSS_STORE_PIT,
    CROSS_STORE_40X_TCR,
    CROSS_STORE_40X_TSR,
    CROSS_STORE_BOOKE_TCR,
    CROSS_STORE_BOOKE_TSR,
    CROSS_STORE_DBCR0,
    CROSS_SET_IRQ,
    CROSS_DCR_READ,
    CROSS_DCR_WRITE,
};

QEMU_BUILD_BUG_ON(CROSS_DCR_WRITE >= PANDA_CROSS_HYPERCALL);

/* The time base and the decrementer are the board's (hw/ppc/ppc.c). */
#define LOAD(type, name, function)                                            \
    PANDA_RR_VALUE(type, name, function, 0, (CPUPPCState *env), (env))
#define STORE(type, name, function)                                           \
    PANDA_RR_VOID(name, function, what, (CPUPPCState *env, type what),        \
                  (env, what))

LOAD(uint64_t, cpu_ppc_load_tbl, CROSS_LOAD_TBL)
LOAD(uint32_t, cpu_ppc_load_tbu, CROSS_LOAD_TBU)
LOAD(uint64_t, cpu_ppc_load_atbl, CROSS_LOAD_ATBL)
LOAD(uint32_t, cpu_ppc_load_atbu, CROSS_LOAD_ATBU)
LOAD(target_ulong, cpu_ppc_load_decr, CROSS_LOAD_DECR)
LOAD(target_ulong, load_40x_pit, CROSS_LOAD_PIT)
STORE(uint32_t, cpu_ppc_store_tbl, CROSS_STORE_TBL)
STORE(uint32_t, cpu_ppc_store_tbu, CROSS_STORE_TBU)
STORE(uint32_t, cpu_ppc_store_atbl, CROSS_STORE_ATBL)
STORE(uint32_t, cpu_ppc_store_atbu, CROSS_STORE_ATBU)
STORE(target_ulong, cpu_ppc_store_decr, CROSS_STORE_DECR)
STORE(target_ulong, store_40x_pit, CROSS_STORE_PIT)
STORE(target_ulong, store_40x_tcr, CROSS_STORE_40X_TCR)
STORE(target_ulong, store_40x_tsr, CROSS_STORE_40X_TSR)
STORE(target_ulong, store_booke_tcr, CROSS_STORE_BOOKE_TCR)
STORE(target_ulong, store_booke_tsr, CROSS_STORE_BOOKE_TSR)
STORE(uint32_t, store_40x_dbcr0, CROSS_STORE_DBCR0)
#ifdef TARGET_PPC64
LOAD(uint64_t, cpu_ppc_load_vtb, CROSS_LOAD_VTB)
LOAD(uint64_t, cpu_ppc_load_purr, CROSS_LOAD_PURR)
LOAD(target_ulong, cpu_ppc_load_hdecr, CROSS_LOAD_HDECR)
STORE(uint64_t, cpu_ppc_store_vtb, CROSS_STORE_VTB)
STORE(uint64_t, cpu_ppc_store_tbu40, CROSS_STORE_TBU40)
STORE(uint64_t, cpu_ppc_store_purr, CROSS_STORE_PURR)
STORE(target_ulong, cpu_ppc_store_hdecr, CROSS_STORE_HDECR)
#endif

PANDA_RR_VOID(ppc_set_irq, CROSS_SET_IRQ, irq << 1 | !!level,
              (PowerPCCPU *cpu, int irq, int level), (cpu, irq, level))
PANDA_RR_VALUE(int, ppc_dcr_write, CROSS_DCR_WRITE, what,
               (ppc_dcr_t *dcrs, int number, uint32_t what),
               (dcrs, number, what))

int __real_ppc_dcr_read(ppc_dcr_t *dcrs, int number, uint32_t *what);
int __wrap_ppc_dcr_read(ppc_dcr_t *dcrs, int number, uint32_t *what);
int __wrap_ppc_dcr_read(ppc_dcr_t *dcrs, int number, uint32_t *what)
{
    struct {
        int32_t result;
        uint32_t what;
    } answer;

    if (!panda_rr_crosses()) {
        return __real_ppc_dcr_read(dcrs, number, what);
    }
    if (!panda_rr_answer_bytes(CROSS_DCR_READ, &answer, sizeof(answer))) {
        answer.result = __real_ppc_dcr_read(dcrs, number, what);
        answer.what = *what;
        panda_rr_crossed_bytes(CROSS_DCR_READ, &answer, sizeof(answer));
    }
    *what = answer.what;
    return answer.result;
}

/* QEMU does not load it exactly as it was saved. */
static void apply_msr(CPUState *cs, uint64_t msr)
{
    CPUPPCState *env = cpu_env(cs);

    env->msr = msr;
    hreg_compute_hflags(env);
}

static const int timer_registers[] = {
    SPR_40x_TCR, SPR_40x_TSR, SPR_BOOKE_TCR, SPR_BOOKE_TSR,
};

unsigned panda_arch_lines(CPUState *cs, PandaLine *table)
{
    CPUPPCState *env = cpu_env(cs);
    unsigned n = 0;

    table[n++] = (PandaLine) { "pending_interrupts", &env->pending_interrupts,
                               4 };
    table[n++] = (PandaLine) { "irq_input_state", &env->irq_input_state, 4 };
    table[n++] = (PandaLine) { "MSR", &env->msr, sizeof(env->msr),
                               apply_msr };
    for (unsigned i = 0; i < ARRAY_SIZE(timer_registers); i++) {
        table[n++] = (PandaLine) { "timer", &env->spr[timer_registers[i]],
                                   sizeof(target_ulong) };
    }
    return n + panda_pseries_lines(cs, table + n);
}

const char *panda_arch_rr_refusal(CPUState *cs)
{
    return panda_pseries_prepare(cs);
}

uint64_t panda_arch_rr_digest(CPUState *cs, bool at_rest)
{
    CPUPPCState *env = cpu_env(cs);
    uint64_t h = panda_rr_mix_bytes(0, env->gpr, sizeof(env->gpr));

    if (!at_rest) {
        return h;
    }
    h = panda_rr_mix(h, env->nip);
    h = panda_rr_mix(h, env->lr);
    h = panda_rr_mix(h, env->ctr);
    h = panda_rr_mix(h, env->msr);
    h = panda_rr_mix_bytes(h, env->crf, sizeof(env->crf));
    h = panda_rr_mix_bytes(h, env->vsr, sizeof(env->vsr));
    h = panda_rr_mix(h, env->spr[SPR_SRR0]);
    h = panda_rr_mix(h, env->spr[SPR_SRR1]);
    return panda_rr_mix(h, cs->halted);
}
