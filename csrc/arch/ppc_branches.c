/*
 * Calls and returns of PowerPC.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/branches.h"

#define TO_LR 16
#define TO_CTR 528
#define TO_TAR 560

bool panda_arch_branch(CPUState *cs, const DisasContextBase *db,
                       PandaBranch *branch)
{
    bool little = (db->tb->flags >> HFLAGS_LE) & 1;
    uint32_t insn = panda_code_u32_le(cs, db);
    uint32_t op, extended;
    bool link;

    if (!little) {
        insn = bswap32(insn);
    }
    op = insn >> 26;
    extended = extract32(insn, 1, 10);
    link = insn & 1;
    branch->next = (target_ulong)(db->pc_next + 4);
    branch->conditional = true;
    if (op == 18 || op == 16) {
        return link;
    }
    if (op != 19) {
        return false;
    }
    branch->returns = extended == TO_LR && !link;
    return branch->returns
        || (link && (extended == TO_LR || extended == TO_CTR
                     || extended == TO_TAR));
}
