/*
 * Events that only the PowerPC helpers know of.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"

void __real_helper_store_sr(CPUPPCState *env, target_ulong n, target_ulong v);
void __wrap_helper_store_sr(CPUPPCState *env, target_ulong n, target_ulong v);
void __wrap_helper_store_sr(CPUPPCState *env, target_ulong n, target_ulong v)
{
    /* Of the sixteen that a switch of processes writes, the first counts. */
    if (n == 0
        && panda_raise_asid_changed(env_cpu(env),
                                    panda_arch_get_asid(env_cpu(env)), v,
                                    GETPC())) {
        return;
    }
    __real_helper_store_sr(env, n, v);
}

void __real_helper_booke_setpid(CPUPPCState *env, uint32_t n, target_ulong v);
void __wrap_helper_booke_setpid(CPUPPCState *env, uint32_t n, target_ulong v);
void __wrap_helper_booke_setpid(CPUPPCState *env, uint32_t n, target_ulong v)
{
    if (n == SPR_BOOKE_PID
        && panda_raise_asid_changed(env_cpu(env), env->spr[n], v, GETPC())) {
        return;
    }
    __real_helper_booke_setpid(env, n, v);
}

void __real_helper_store_pidr(CPUPPCState *env, target_ulong value);
void __wrap_helper_store_pidr(CPUPPCState *env, target_ulong value);
void __wrap_helper_store_pidr(CPUPPCState *env, target_ulong value)
{
    if (!panda_raise_asid_changed(env_cpu(env), env->spr[SPR_BOOKS_PID],
                                  (uint32_t)value, GETPC())) {
        __real_helper_store_pidr(env, value);
    }
}
