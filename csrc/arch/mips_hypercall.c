/*
 * The hypercall of the MIPS family: a move whose destination is register 0,
 * movz, movn or mfc0, of which nothing is left.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/hypercall.h"

static uint32_t code_of(const PandaCode *code)
{
    return TARGET_BIG_ENDIAN ? panda_code_be(code) : panda_code_le(code);
}

/* Instructions are aligned, so all of it is on one page. */
bool panda_arch_hypercall_begins(const DisasContextBase *db,
                                 const PandaCode *code)
{
    return !(db->tb->flags & MIPS_HFLAG_M16);
}

bool panda_arch_is_hypercall(const DisasContextBase *db,
                             const PandaCode *code)
{
    uint32_t insn = code_of(code);

    return (insn & 0xfc00fffe) == 0x0000000a
        || (insn & 0xffff07f8) == 0x40000000;
}

bool panda_arch_hypercall_next(CPUState *cs, uint64_t pc,
                               const uint64_t *words, uint64_t *next)
{
    CPUMIPSState *env = cpu_env(cs);
    uint32_t hflags = words[1];

    *next = pc + 4;
    switch (hflags & MIPS_HFLAG_BMASK_BASE) {
    case 0:
        break;
    case MIPS_HFLAG_BC:
        /* In the delay slot of a branch: is it taken? */
        if (env->bcond) {
            *next = (target_ulong)words[2];
        }
        break;
    case MIPS_HFLAG_BR:
        *next = env->btarget;
        break;
    default:
        *next = (target_ulong)words[2];
        break;
    }
    return true;
}
