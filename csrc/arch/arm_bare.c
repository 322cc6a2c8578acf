/*
 * The ARM CPU of a machine without devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/bare.h"
#include "internals.h"
#include "qapi/error.h"

/* Where nothing is mapped: the handlers, until the program moves them. */
#define HANDLERS 0x0000fffffffff000ull

const char panda_arch_bare_cpu[] = ARM_CPU_TYPE_NAME("max");

void panda_arch_bare_prepare(Object *cpu)
{
    static const char *const levels[] = { "has_el3", "has_el2" };

    /* As on most boards: the highest level is the kernel's. */
    for (int i = 0; i < ARRAY_SIZE(levels); i++) {
        if (object_property_find(cpu, levels[i])) {
            object_property_set_bool(cpu, levels[i], false, &error_fatal);
        }
    }
}

/*
 * Without an MMU all memory is a device's to these CPUs, and unaligned accesses
 * fault. What is mapped here is memory, so it behaves as memory does.
 */
static void allow_unaligned(CPUARMState *env)
{
    if (panda_bare && !(env->cp15.sctlr_el[1] & (SCTLR_M | SCTLR_A))) {
        DP_TBFLAG_ANY(env->hflags, ALIGN_MEM, 0);
    }
}

void __real_arm_rebuild_hflags(CPUARMState *env);
void __wrap_arm_rebuild_hflags(CPUARMState *env);
void __wrap_arm_rebuild_hflags(CPUARMState *env)
{
    __real_arm_rebuild_hflags(env);
    allow_unaligned(env);
}

void __real_helper_rebuild_hflags_a32_newel(CPUARMState *env);
void __wrap_helper_rebuild_hflags_a32_newel(CPUARMState *env);
void __wrap_helper_rebuild_hflags_a32_newel(CPUARMState *env)
{
    __real_helper_rebuild_hflags_a32_newel(env);
    allow_unaligned(env);
}

void __real_helper_rebuild_hflags_a32(CPUARMState *env, uint32_t el);
void __wrap_helper_rebuild_hflags_a32(CPUARMState *env, uint32_t el);
void __wrap_helper_rebuild_hflags_a32(CPUARMState *env, uint32_t el)
{
    __real_helper_rebuild_hflags_a32(env, el);
    allow_unaligned(env);
}

void __real_helper_rebuild_hflags_a64(CPUARMState *env, uint32_t el);
void __wrap_helper_rebuild_hflags_a64(CPUARMState *env, uint32_t el);
void __wrap_helper_rebuild_hflags_a64(CPUARMState *env, uint32_t el)
{
    __real_helper_rebuild_hflags_a64(env, el);
    allow_unaligned(env);
}

void panda_arch_bare_wire(CPUState *cs)
{
}

bool panda_arch_bare_start(CPUState *cs, const char *mode)
{
    CPUARMState *env = cpu_env(cs);

    if (mode) {
        return false;
    }
    if (is_a64(env)) {
        env->pc = 0;
        env->cp15.vbar_el[1] = HANDLERS;
        /* Floating point, SVE and SME are of use at once. */
        env->cp15.cpacr_el1 |= R_CPACR_EL1_FPEN_MASK | R_CPACR_EL1_ZEN_MASK
                               | R_CPACR_EL1_SMEN_MASK;
    } else {
        env->regs[15] = 0;
        env->cp15.sctlr_el[1] |= SCTLR_V;
        /* Coprocessors 10 and 11, and the switch of the unit itself. */
        env->cp15.cpacr_el1 |= 0xf << 20;
        env->vfp.xregs[ARM_VFP_FPEXC] |= 1 << 30;
    }
    arm_rebuild_hflags(env);
    return true;
}

bool panda_arch_bare_vector(CPUState *cs, int exception)
{
    return true;
}

void panda_arch_bare_drop(CPUState *cs, int exception)
{
    CPUARMState *env = cpu_env(cs);

    switch (exception) {
    case EXCP_SWI:
    case EXCP_HVC:
    case EXCP_SMC:
        break;
    default:
        return;
    }
    /* Calls are raised with the pc behind them. */
    if (is_a64(env)) {
        env->pc -= 4;
    } else {
        env->regs[15] -= env->thumb && exception == EXCP_SWI ? 2 : 4;
    }
}

const char *panda_arch_exception_name(int exception)
{
    static const char *const names[] = {
        [EXCP_UDEF] = "undefined instruction",
        [EXCP_SWI] = "supervisor call",
        [EXCP_PREFETCH_ABORT] = "prefetch abort",
        [EXCP_DATA_ABORT] = "data abort",
        [EXCP_IRQ] = "interrupt",
        [EXCP_FIQ] = "fast interrupt",
        [EXCP_BKPT] = "breakpoint",
        [EXCP_HVC] = "hypervisor call",
        [EXCP_SMC] = "secure monitor call",
        [EXCP_NOCP] = "no coprocessor",
        [EXCP_INVSTATE] = "invalid state",
    };

    return PANDA_NAME_OF(names, exception);
}
