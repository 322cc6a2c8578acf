/*
 * Events that only x86's helpers know of.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"

/* Where a mov to CR3 was called from, for the exact pc. */
static uintptr_t helper_ra;

void __real_helper_write_crN(CPUX86State *env, int reg, target_ulong value);
void __wrap_helper_write_crN(CPUX86State *env, int reg, target_ulong value);
void __wrap_helper_write_crN(CPUX86State *env, int reg, target_ulong value)
{
    if (reg == 3) {
        helper_ra = GETPC();
    }
    /* It uses its own return address, which must stay the generated code. */
    __attribute__((musttail)) return __real_helper_write_crN(env, reg, value);
}

void __real_cpu_x86_update_cr3(CPUX86State *env, target_ulong value);
void __wrap_cpu_x86_update_cr3(CPUX86State *env, target_ulong value);
void __wrap_cpu_x86_update_cr3(CPUX86State *env, target_ulong value)
{
    uintptr_t ra = helper_ra;

    helper_ra = 0;
    if (!panda_raise_asid_changed(env_cpu(env), env->cr[3], value, ra)) {
        __real_cpu_x86_update_cr3(env, value);
    }
}
