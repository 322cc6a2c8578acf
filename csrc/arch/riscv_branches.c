/*
 * Calls and returns of RISC-V: jumps that the manual says to predict as such.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/branches.h"

/* ra, and t0 of the functions that save registers. */
static bool is_link(uint32_t reg)
{
    return reg == 1 || reg == 5;
}

bool panda_arch_branch(CPUState *cs, const DisasContextBase *db,
                       PandaBranch *branch)
{
    uint32_t insn = panda_code_u16_le(cs, db, 0);
    uint32_t rd, rs;

    branch->conditional = true;
    rd = extract32(insn, 7, 5);
    if ((insn & 3) != 3) {
        branch->next = db->pc_next + 2;
        if ((insn & 0xf07f) == 0x8002 && is_link(rd)) {
            /* c.jr */
            branch->returns = true;
            return true;
        }
        /* c.jalr; of register 0 it is c.ebreak */
        return (insn & 0xf07f) == 0x9002 && rd;
    }
    insn |= (uint32_t)panda_code_u16_le(cs, db, 2) << 16;
    branch->next = db->pc_next + 4;
    if ((insn & 0x7f) == 0x6f) {
        return is_link(rd);
    }
    if ((insn & 0x707f) != 0x67) {
        return false;
    }
    rs = extract32(insn, 15, 5);
    branch->returns = !is_link(rd) && is_link(rs);
    return branch->returns || is_link(rd);
}
