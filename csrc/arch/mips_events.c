/*
 * Events that only the MIPS helpers know of.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"

void __real_helper_mtc0_entryhi(CPUMIPSState *env, target_ulong value);
void __wrap_helper_mtc0_entryhi(CPUMIPSState *env, target_ulong value);
void __wrap_helper_mtc0_entryhi(CPUMIPSState *env, target_ulong value)
{
    target_ulong mask = env->CP0_EntryHi_ASID_mask;
    target_ulong old = env->CP0_EntryHi & mask;

    if (panda_raise_asid_changed(env_cpu(env), old, value & mask, GETPC())) {
        /* The register has a page number too, which is to change. */
        value = (value & ~mask) | old;
    }
    __real_helper_mtc0_entryhi(env, value);
}
