/*
 * Calls and returns of MIPS; not those of compressed code (MIPS16, microMIPS).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/branches.h"

#define RA 31

bool panda_arch_branch(CPUState *cs, const DisasContextBase *db,
                       PandaBranch *branch)
{
    uint32_t insn, op, rs, rt, rd;

    if (db->tb->flags & MIPS_HFLAG_M16) {
        return false;
    }
    insn = panda_code_u32_le(cs, db);
    if (TARGET_BIG_ENDIAN) {
        insn = bswap32(insn);
    }
    op = insn >> 26;
    rs = extract32(insn, 21, 5);
    rt = extract32(insn, 16, 5);
    rd = extract32(insn, 11, 5);
    /* Behind the delay slot. */
    branch->next = db->pc_next + 8;
    branch->conditional = true;
    if (op == 0 && (insn & 0x3f) == 9 && rd) {
        /* jalr */
        return true;
    }
    if (op == 0 && ((insn & 0x3f) == 8 || (insn & 0x3f) == 9) && rs == RA) {
        /* jr $ra, which later MIPS call jalr $zero, $ra */
        branch->returns = true;
        return true;
    }
    /* jal, jalx; bltzal, bgezal and the likely ones */
    return op == 3 || op == 0x1d || (op == 1 && (rt & 0x1c) == 0x10);
}
