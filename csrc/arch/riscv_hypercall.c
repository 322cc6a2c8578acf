/*
 * The hypercall of the RISC-V family: slti x0,x0,0, of the hints that the
 * architecture leaves to custom use.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/hypercall.h"

#define HYPERCALL 0x00002013

bool panda_arch_hypercall_begins(const DisasContextBase *db,
                                 const PandaCode *code)
{
    return lduw_le_p(code->byte) == (HYPERCALL & 0xffff);
}

bool panda_arch_is_hypercall(const DisasContextBase *db,
                             const PandaCode *code)
{
    return panda_code_le(code) == HYPERCALL;
}

bool panda_arch_hypercall_next(CPUState *cs, uint64_t pc,
                               const uint64_t *words, uint64_t *next)
{
    *next = pc + 4;
    return true;
}
