/*
 * Record and replay: what is x86's own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "arch/x86.h"
#include "hw/i386/apic.h"
#include "hw/i386/x86.h"
#include "hw/irq.h"

enum {
    CROSS_TSC = PANDA_CROSS_ARCH,
    CROSS_VECTOR,
    CROSS_POLL,
    CROSS_GET_TPR,
    CROSS_SET_TPR,
    CROSS_GET_BASE,
    CROSS_SET_BASE,
    CROSS_MSR_READ,
    CROSS_MSR_WRITE,
    CROSS_INIT,
    CROSS_SIPI,
    CROSS_TPR_REPORT,
};

PANDA_RR_VALUE(uint64_t, cpu_get_tsc, CROSS_TSC, 0, (CPUX86State *env), (env))
PANDA_RR_VOID(apic_poll_irq, CROSS_POLL, 0, (DeviceState *dev), (dev))
PANDA_RR_VALUE(uint8_t, cpu_get_apic_tpr, CROSS_GET_TPR, 0,
               (DeviceState *dev), (dev))
PANDA_RR_VOID(cpu_set_apic_tpr, CROSS_SET_TPR, value,
              (DeviceState *dev, uint8_t value), (dev, value))
PANDA_RR_VALUE(uint64_t, cpu_get_apic_base, CROSS_GET_BASE, 0,
               (DeviceState *dev), (dev))
PANDA_RR_VALUE(int, cpu_set_apic_base, CROSS_SET_BASE, base,
               (DeviceState *dev, uint64_t base), (dev, base))
PANDA_RR_VALUE(int, apic_msr_write, CROSS_MSR_WRITE, index ^ what << 16,
               (int index, uint64_t what), (index, what))
PANDA_RR_VOID(apic_init_reset, CROSS_INIT, 0, (DeviceState *dev), (dev))
PANDA_RR_VOID(apic_sipi, CROSS_SIPI, 0, (DeviceState *dev), (dev))
PANDA_RR_VOID(apic_handle_tpr_access_report, CROSS_TPR_REPORT, ip,
              (DeviceState *dev, target_ulong ip, TPRAccess access),
              (dev, ip, access))

/* x86_events.c wraps it. */
int __real_cpu_get_pic_interrupt(CPUX86State *env);

int panda_rr_get_pic_interrupt(CPUX86State *env)
{
    uint64_t number;

    if (!panda_rr_crosses()) {
        return __real_cpu_get_pic_interrupt(env);
    }
    if (!panda_rr_answer(CROSS_VECTOR, 0, &number)) {
        number = __real_cpu_get_pic_interrupt(env);
        panda_rr_crossed(CROSS_VECTOR, 0, number);
    }
    return number;
}

/* Its value comes through a pointer. */
int __real_apic_msr_read(int index, uint64_t *what);
int __wrap_apic_msr_read(int index, uint64_t *what);
int __wrap_apic_msr_read(int index, uint64_t *what)
{
    struct {
        int status;
        uint64_t what;
    } QEMU_PACKED answer;

    if (!panda_rr_crosses()) {
        return __real_apic_msr_read(index, what);
    }
    if (!panda_rr_answer_bytes(CROSS_MSR_READ, &answer, sizeof(answer))) {
        answer.status = __real_apic_msr_read(index, what);
        answer.what = *what;
        panda_rr_crossed_bytes(CROSS_MSR_READ, &answer, sizeof(answer));
    }
    *what = answer.what;
    return answer.status;
}

static void apply_a20(CPUState *cs, uint64_t mask)
{
    x86_cpu_set_a20(X86_CPU(cs), (mask >> 20) & 1);
}

unsigned panda_arch_lines(CPUState *cs, PandaLine *table)
{
    CPUX86State *env = cpu_env(cs);

    /* Before interrupt_request would be overwritten by what it raises. */
    table[0] = (PandaLine) { "hflags2", &env->hflags2, 4 };
    table[1] = (PandaLine) { "a20_mask", &env->a20_mask, 4, apply_a20 };
    return 2;
}

const char *panda_arch_rr_refusal(CPUState *cs)
{
    return NULL;
}

uint64_t panda_arch_rr_digest(CPUState *cs, bool at_rest)
{
    CPUX86State *env = cpu_env(cs);
    uint64_t h = panda_rr_mix_bytes(0, env->regs, sizeof(env->regs));

    if (!at_rest) {
        return h;
    }
    h = panda_rr_mix(h, env->eip);
    h = panda_rr_mix(h, env->eflags);
    h = panda_rr_mix(h, env->hflags);
    h = panda_rr_mix(h, env->hflags2);
    h = panda_rr_mix_bytes(h, env->cr, sizeof(env->cr));
    h = panda_rr_mix_bytes(h, env->segs, sizeof(env->segs));
    h = panda_rr_mix(h, env->fpstt | env->fpus << 4);
    h = panda_rr_mix_bytes(h, env->xmm_regs, sizeof(env->xmm_regs));
    return panda_rr_mix(h, cs->halted);
}
