/*
 * The hypercall of the PowerPC family: xori 10,10,0, one of the many
 * no-operations, which no compiler makes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/hypercall.h"

#define HYPERCALL 0x694a0000

/* Instructions are aligned, so all of it is on one page. */
bool panda_arch_hypercall_begins(const DisasContextBase *db,
                                 const PandaCode *code)
{
    return true;
}

bool panda_arch_is_hypercall(const DisasContextBase *db,
                             const PandaCode *code)
{
    bool little = (db->tb->flags >> HFLAGS_LE) & 1;

    return (little ? panda_code_le(code) : panda_code_be(code)) == HYPERCALL;
}

bool panda_arch_hypercall_next(CPUState *cs, uint64_t pc,
                               const uint64_t *words, uint64_t *next)
{
    *next = (target_ulong)(pc + 4);
    return true;
}
