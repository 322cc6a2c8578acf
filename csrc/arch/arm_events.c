/*
 * Events that only ARM's helpers know of.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/arm.h"
#include "cpregs.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"

/* Is it one of the registers with the base of the lower half's page tables? */
static bool is_ttbr0(const ARMCPRegInfo *ri)
{
    return ri->fieldoffset == offsetof(CPUARMState, cp15.ttbr0_el[1])
        || ri->fieldoffset == offsetof(CPUARMState, cp15.ttbr0_s);
}

static bool is_vetoed(CPUARMState *env, const ARMCPRegInfo *ri,
                      uint64_t value, uintptr_t ra)
{
    CPUState *cs = env_cpu(env);

    return is_ttbr0(ri)
        && panda_raise_asid_changed(cs, panda_arch_get_asid(cs),
                                    panda_arm_table_base(env, value), ra);
}

void __real_helper_set_cp_reg(CPUARMState *env, const void *ri, uint32_t val);
void __wrap_helper_set_cp_reg(CPUARMState *env, const void *ri, uint32_t val);
void __wrap_helper_set_cp_reg(CPUARMState *env, const void *ri, uint32_t val)
{
    if (!is_vetoed(env, ri, val, GETPC())) {
        __real_helper_set_cp_reg(env, ri, val);
    }
}

void __real_helper_set_cp_reg64(CPUARMState *env, const void *ri,
                                uint64_t val);
void __wrap_helper_set_cp_reg64(CPUARMState *env, const void *ri,
                                uint64_t val);
void __wrap_helper_set_cp_reg64(CPUARMState *env, const void *ri,
                                uint64_t val)
{
    if (!is_vetoed(env, ri, val, GETPC())) {
        __real_helper_set_cp_reg64(env, ri, val);
    }
}
