/*
 * Record and replay: what is RISC-V's own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"

enum {
    CROSS_TIME = PANDA_CROSS_ARCH,
    CROSS_COUNTER,
};

/* The timer device gives the CPU a function to read it. */
static uint64_t (*real_time)(void *opaque);

static uint64_t read_time(void *opaque)
{
    uint64_t value;

    if (!panda_rr_crosses()) {
        return real_time(opaque);
    }
    if (!panda_rr_answer(CROSS_TIME, 0, &value)) {
        value = real_time(opaque);
        panda_rr_crossed(CROSS_TIME, 0, value);
    }
    return value;
}

void __real_riscv_cpu_set_rdtime_fn(CPURISCVState *env,
                                    uint64_t (*fn)(void *), void *arg);
void __wrap_riscv_cpu_set_rdtime_fn(CPURISCVState *env,
                                    uint64_t (*fn)(void *), void *arg);
void __wrap_riscv_cpu_set_rdtime_fn(CPURISCVState *env,
                                    uint64_t (*fn)(void *), void *arg)
{
    real_time = fn;
    __real_riscv_cpu_set_rdtime_fn(env, fn ? read_time : NULL, arg);
}

/* Counters of cycles and events show the host's cycle counter. */
static bool shows_host(int number)
{
    switch (number) {
    case CSR_CYCLE ... CSR_HPMCOUNTER31:
    case CSR_CYCLEH ... CSR_HPMCOUNTER31H:
    case CSR_MCYCLE ... CSR_MHPMCOUNTER31:
    case CSR_MCYCLEH ... CSR_MHPMCOUNTER31H:
        return number != CSR_TIME && number != CSR_TIMEH;
    default:
        return false;
    }
}

RISCVException __real_riscv_csrr(CPURISCVState *env, int number,
                                 target_ulong *value);
RISCVException __wrap_riscv_csrr(CPURISCVState *env, int number,
                                 target_ulong *value);
RISCVException __wrap_riscv_csrr(CPURISCVState *env, int number,
                                 target_ulong *value)
{
    struct {
        int32_t result;
        uint64_t value;
    } QEMU_PACKED answer;

    if (!panda_rr_crosses() || !shows_host(number)) {
        return __real_riscv_csrr(env, number, value);
    }
    if (!panda_rr_answer_bytes(CROSS_COUNTER, &answer, sizeof(answer))) {
        answer.result = __real_riscv_csrr(env, number, value);
        answer.value = *value;
        panda_rr_crossed_bytes(CROSS_COUNTER, &answer, sizeof(answer));
    }
    *value = answer.value;
    return answer.result;
}

unsigned panda_arch_lines(CPUState *cs, PandaLine *table)
{
    CPURISCVState *env = cpu_env(cs);

    table[0] = (PandaLine) { "mip", &env->mip, 8 };
    table[1] = (PandaLine) { "external_seip", &env->external_seip, 1 };
    table[2] = (PandaLine) { "vstime_irq", &env->vstime_irq, 1 };
    table[3] = (PandaLine) { "hgeip", &env->hgeip, sizeof(env->hgeip) };
    return 4;
}

const char *panda_arch_rr_refusal(CPUState *cs)
{
    CPURISCVState *env = cpu_env(cs);

    for (unsigned i = 0; i < ARRAY_SIZE(env->aia_ireg_rmw_fn); i++) {
        if (env->aia_ireg_rmw_fn[i]) {
            return "its interrupt controller is an IMSIC: remove aia=";
        }
    }
    return NULL;
}

uint64_t panda_arch_rr_digest(CPUState *cs, bool at_rest)
{
    CPURISCVState *env = cpu_env(cs);
    uint64_t h = panda_rr_mix_bytes(0, env->gpr, sizeof(env->gpr));

    if (!at_rest) {
        return h;
    }
    h = panda_rr_mix(h, env->pc);
    h = panda_rr_mix_bytes(h, env->fpr, sizeof(env->fpr));
    h = panda_rr_mix(h, env->priv);
    h = panda_rr_mix(h, env->mstatus);
    h = panda_rr_mix(h, env->mip);
    h = panda_rr_mix(h, env->mie);
    h = panda_rr_mix(h, env->satp);
    h = panda_rr_mix(h, env->sepc);
    return panda_rr_mix(h, cs->halted);
}
