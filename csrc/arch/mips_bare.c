/*
 * The MIPS CPU of a machine without devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/bare.h"
#include "hw/boards.h"
#include "hw/clock.h"
#include "hw/qdev-clock.h"
#include "internal.h"

#ifdef TARGET_MIPS64
const char panda_arch_bare_cpu[] = MIPS_CPU_TYPE_NAME("MIPS64R2-generic");
#else
const char panda_arch_bare_cpu[] = MIPS_CPU_TYPE_NAME("24Kf");
#endif

/* What the CPU has without a clock, and a warning. */
#define FREQUENCY 200000000

void panda_arch_bare_prepare(Object *cpu)
{
    Clock *clock = clock_new(OBJECT(current_machine), "cpu-clock");

    clock_set_hz(clock, FREQUENCY);
    qdev_connect_clock_in(DEVICE(cpu), "clk-in", clock);
}

void panda_arch_bare_wire(CPUState *cs)
{
    /* The counter is read through it. */
    cpu_mips_clock_init(MIPS_CPU(cs));
}

/*
 * As after a reset: at the error level, where the lower half of the address
 * space is not translated and handlers are in the boot ROM, which is not there.
 */
bool panda_arch_bare_start(CPUState *cs, const char *mode)
{
    CPUMIPSState *env = cpu_env(cs);

    if (mode) {
        return false;
    }
    env->active_tc.PC = 0;
    env->CP0_Status = (1 << CP0St_BEV) | (1 << CP0St_ERL);
    if (env->CP0_Config1 & (1 << CP0C1_FP)) {
        env->CP0_Status |= 1 << CP0St_CU1;
    }
    if (env->CP0_Config3 & (1 << CP0C3_DSPP)) {
        env->CP0_Status |= 1 << CP0St_MX;
    }
#ifdef TARGET_MIPS64
    env->CP0_Status |= (1 << CP0St_KX) | (1 << CP0St_SX) | (1 << CP0St_UX)
                       | (1 << CP0St_FR);
#endif
    env->hflags &= ~(MIPS_HFLAG_BMASK | MIPS_HFLAG_M16);
    compute_hflags(env);
    return true;
}

bool panda_arch_bare_vector(CPUState *cs, int exception)
{
    return true;
}

void panda_arch_bare_drop(CPUState *cs, int exception)
{
}

const char *panda_arch_exception_name(int exception)
{
    static const char *const names[] = {
        [EXCP_AdEL] = "address error of a load or fetch",
        [EXCP_AdES] = "address error of a store",
        [EXCP_TLBF] = "TLB refill",
        [EXCP_IBE] = "bus error of a fetch",
        [EXCP_DBE] = "bus error of an access",
        [EXCP_SYSCALL] = "system call",
        [EXCP_BREAK] = "breakpoint",
        [EXCP_CpU] = "coprocessor unusable",
        [EXCP_RI] = "reserved instruction",
        [EXCP_OVERFLOW] = "overflow",
        [EXCP_TRAP] = "trap",
        [EXCP_FPE] = "floating point error",
        [EXCP_LTLBL] = "TLB modification",
        [EXCP_TLBL] = "TLB miss of a load or fetch",
        [EXCP_TLBS] = "TLB miss of a store",
        [EXCP_DSPDIS] = "DSP disabled",
    };

    return PANDA_NAME_OF(names, exception);
}
