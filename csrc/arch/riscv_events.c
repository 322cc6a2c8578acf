/*
 * Events that only the RISC-V helpers know of.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"

/* In user mode the write will fail, and there is no event. */
static bool is_vetoed(CPURISCVState *env, int csr, target_ulong value,
                      uintptr_t ra)
{
    return csr == CSR_SATP && env->priv != PRV_U
        && panda_raise_asid_changed(env_cpu(env), env->satp, value, ra);
}

void __real_helper_csrw(CPURISCVState *env, int csr, target_ulong value);
void __wrap_helper_csrw(CPURISCVState *env, int csr, target_ulong value);
void __wrap_helper_csrw(CPURISCVState *env, int csr, target_ulong value)
{
    if (!is_vetoed(env, csr, value, GETPC())) {
        /* It uses its own return address: the generated code's. */
        __attribute__((musttail)) return __real_helper_csrw(env, csr, value);
    }
}

target_ulong __real_helper_csrrw(CPURISCVState *env, int csr,
                                 target_ulong value, target_ulong mask);
target_ulong __wrap_helper_csrrw(CPURISCVState *env, int csr,
                                 target_ulong value, target_ulong mask);
target_ulong __wrap_helper_csrrw(CPURISCVState *env, int csr,
                                 target_ulong value, target_ulong mask)
{
    if (csr == CSR_SATP
        && is_vetoed(env, csr, (env->satp & ~mask) | (value & mask),
                     GETPC())) {
        return env->satp;
    }
    __attribute__((musttail)) return __real_helper_csrrw(env, csr, value,
                                                         mask);
}
