/*
 * The PowerPC CPU of a machine without devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/bare.h"
#include "helper_regs.h"
#include "hw/ppc/ppc.h"

#ifdef TARGET_PPC64
const char panda_arch_bare_cpu[] = POWERPC_CPU_TYPE_NAME("power9_v2.2");
#else
const char panda_arch_bare_cpu[] = POWERPC_CPU_TYPE_NAME("7400_v2.9");
#endif

/* Where nothing is mapped: the handlers, until the program moves them. */
#define HANDLERS 0xfff00000u
/* Of the time base. */
#define FREQUENCY 100000000

void panda_arch_bare_prepare(Object *cpu)
{
}

void panda_arch_bare_wire(CPUState *cs)
{
    cpu_ppc_tb_init(cpu_env(cs), FREQUENCY);
}

/* Addresses are not translated; floating point and vectors are of use. */
bool panda_arch_bare_start(CPUState *cs, const char *mode)
{
    CPUPPCState *env = cpu_env(cs);
    target_ulong msr;

    if (mode) {
        return false;
    }
    /*
     * As hypervisor, where there is one: below it real mode is translated by
     * tables of the hypervisor's. The bit cannot be set by writing the MSR.
     */
    env->msr |= MSR_HVB & env->msr_mask;
    msr = env->msr;
    msr |= (target_ulong)1 << MSR_FP | (target_ulong)1 << MSR_VR
           | (target_ulong)1 << MSR_VSX | (target_ulong)1 << MSR_ME;
#ifdef TARGET_PPC64
    msr |= (target_ulong)1 << MSR_SF;
#endif
    hreg_store_msr(env, msr & env->msr_mask, 1);
    env->excp_prefix = HANDLERS;
    env->nip = 0;
    hreg_compute_hflags(env);
    return true;
}

bool panda_arch_bare_vector(CPUState *cs, int exception)
{
    /* A machine check without a handler stops the CPU, and QEMU. */
    return exception != POWERPC_EXCP_MCHECK;
}

void panda_arch_bare_drop(CPUState *cs, int exception)
{
}

const char *panda_arch_exception_name(int exception)
{
    static const char *const names[] = {
        [POWERPC_EXCP_MCHECK] = "machine check",
        [POWERPC_EXCP_DSI] = "data storage exception",
        [POWERPC_EXCP_ISI] = "instruction storage exception",
        [POWERPC_EXCP_EXTERNAL] = "external interrupt",
        [POWERPC_EXCP_ALIGN] = "alignment exception",
        [POWERPC_EXCP_PROGRAM] = "program exception",
        [POWERPC_EXCP_FPU] = "floating point unavailable",
        [POWERPC_EXCP_SYSCALL] = "system call",
        [POWERPC_EXCP_DECR] = "decrementer",
        [POWERPC_EXCP_TRACE] = "trace",
        [POWERPC_EXCP_VPU] = "vectors unavailable",
        [POWERPC_EXCP_VSXU] = "VSX unavailable",
        [POWERPC_EXCP_FU] = "facility unavailable",
        [POWERPC_EXCP_SYSCALL_VECTORED] = "vectored system call",
        [POWERPC_EXCP_HV_EMU] = "illegal instruction",
    };

    return PANDA_NAME_OF(names, exception);
}
