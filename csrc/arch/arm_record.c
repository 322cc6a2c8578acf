/*
 * Record and replay: what is ARM's own.
 *
 * The generic timers are the CPU's: their code runs in a replay too, with the
 * recorded clock. When they expire, they change their control register.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "cpregs.h"
#include "hw/intc/gicv3_internal.h"

enum {
    CROSS_REGISTER = PANDA_CROSS_ARCH,
    CROSS_EL_CHANGE,
};

/* ---- registers of the GICv3 that the CPU has as its own ---- */

/* What the device gave for a register. */
typedef struct DeviceRegister {
    CPReadFn *read;
    CPWriteFn *write;
} DeviceRegister;

/* The GIC is adding its registers. */
static bool adding;

static uint64_t name_of(const ARMCPRegInfo *ri)
{
    return ri->state << 20 | ri->opc0 << 16 | ri->opc1 << 12 | ri->crn << 8
        | ri->crm << 4 | ri->opc2;
}

static uint64_t read_register(CPUARMState *env, const ARMCPRegInfo *ri)
{
    const DeviceRegister *device = ri->opaque;
    uint64_t value;

    if (!panda_rr_crosses()) {
        return device->read(env, ri);
    }
    if (!panda_rr_answer(CROSS_REGISTER, name_of(ri), &value)) {
        value = device->read(env, ri);
        panda_rr_crossed(CROSS_REGISTER, name_of(ri), value);
    }
    return value;
}

static void write_register(CPUARMState *env, const ARMCPRegInfo *ri,
                           uint64_t what)
{
    const DeviceRegister *device = ri->opaque;
    uint64_t unused;

    if (!panda_rr_crosses()) {
        device->write(env, ri, what);
    } else if (!panda_rr_answer(CROSS_REGISTER, what, &unused)) {
        device->write(env, ri, what);
        panda_rr_crossed(CROSS_REGISTER, what, 0);
    }
}

void __real_gicv3_init_cpuif(GICv3State *s);
void __wrap_gicv3_init_cpuif(GICv3State *s);
void __wrap_gicv3_init_cpuif(GICv3State *s)
{
    adding = true;
    __real_gicv3_init_cpuif(s);
    adding = false;
}

void __real_define_arm_cp_regs_with_opaque_len(ARMCPU *cpu,
                                               const ARMCPRegInfo *regs,
                                               void *opaque, size_t len);
void __wrap_define_arm_cp_regs_with_opaque_len(ARMCPU *cpu,
                                               const ARMCPRegInfo *regs,
                                               void *opaque, size_t len);
void __wrap_define_arm_cp_regs_with_opaque_len(ARMCPU *cpu,
                                               const ARMCPRegInfo *regs,
                                               void *opaque, size_t len)
{
    if (!adding || opaque) {
        __real_define_arm_cp_regs_with_opaque_len(cpu, regs, opaque, len);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        /* It lives as long as the CPU. */
        DeviceRegister *device = g_new(DeviceRegister, 1);
        ARMCPRegInfo ours = regs[i];

        *device = (DeviceRegister) { ours.readfn, ours.writefn };
        ours.readfn = ours.readfn ? read_register : NULL;
        ours.writefn = ours.writefn ? write_register : NULL;
        __real_define_arm_cp_regs_with_opaque_len(cpu, &ours, device, 1);
    }
}

/* It wants to know when the exception level changes, as interrupts depend on it. */
typedef struct DeviceHook {
    ARMELChangeHookFn *hook;
    void *opaque;
} DeviceHook;

static void el_changed(ARMCPU *cpu, void *opaque)
{
    const DeviceHook *device = opaque;
    uint64_t unused;

    if (!panda_rr_crosses()) {
        device->hook(cpu, device->opaque);
    } else if (!panda_rr_answer(CROSS_EL_CHANGE, 0, &unused)) {
        device->hook(cpu, device->opaque);
        panda_rr_crossed(CROSS_EL_CHANGE, 0, 0);
    }
}

void __real_arm_register_el_change_hook(ARMCPU *cpu, ARMELChangeHookFn *hook,
                                        void *opaque);
void __wrap_arm_register_el_change_hook(ARMCPU *cpu, ARMELChangeHookFn *hook,
                                        void *opaque);
void __wrap_arm_register_el_change_hook(ARMCPU *cpu, ARMELChangeHookFn *hook,
                                        void *opaque)
{
    DeviceHook *device;

    if (!adding) {
        /* The CPU's own. */
        __real_arm_register_el_change_hook(cpu, hook, opaque);
        return;
    }
    device = g_new(DeviceHook, 1);
    *device = (DeviceHook) { hook, opaque };
    __real_arm_register_el_change_hook(cpu, el_changed, device);
}

/* ---- lines ---- */

unsigned panda_arch_lines(CPUState *cs, PandaLine *table)
{
    CPUARMState *env = cpu_env(cs);
    unsigned n = 0;

    table[n++] = (PandaLine) { "irq_line_state", &env->irq_line_state, 4 };
    table[n++] = (PandaLine) { "PMOVSR", &env->cp15.c9_pmovsr, 8 };
    for (unsigned i = 0; i < NUM_GTIMERS; i++) {
        table[n++] = (PandaLine) {
            "generic timer", &env->cp15.c14_timer[i].ctl,
            sizeof(env->cp15.c14_timer[i].ctl),
        };
    }
    return n;
}

const char *panda_arch_rr_refusal(CPUState *cs)
{
    if (arm_feature(cpu_env(cs), ARM_FEATURE_M)) {
        return "its interrupt controller is part of the CPU (Cortex-M)";
    }
    return NULL;
}

uint64_t panda_arch_rr_digest(CPUState *cs, bool at_rest)
{
    CPUARMState *env = cpu_env(cs);
    uint64_t h = is_a64(env)
        ? panda_rr_mix_bytes(0, env->xregs, sizeof(env->xregs))
        /* The pc is not kept up to date within a block. */
        : panda_rr_mix_bytes(0, env->regs, 15 * sizeof(env->regs[0]));

    if (!at_rest) {
        return h;
    }
    if (is_a64(env)) {
        h = panda_rr_mix(h, env->pc);
        h = panda_rr_mix(h, pstate_read(env));
        h = panda_rr_mix_bytes(h, env->elr_el, sizeof(env->elr_el));
        h = panda_rr_mix_bytes(h, env->sp_el, sizeof(env->sp_el));
    } else {
        h = panda_rr_mix(h, env->regs[15]);
        h = panda_rr_mix(h, cpsr_read(env));
    }
    for (unsigned i = 0; i < 32; i++) {
        h = panda_rr_mix_bytes(h, env->vfp.zregs[i].d, 16);
    }
    return panda_rr_mix(h, cs->halted);
}
