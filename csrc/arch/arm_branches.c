/*
 * Calls and returns of ARM: A64, A32 and T32 code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/branches.h"
#include "tcg/translate.h"

typedef enum Kind { OTHER, CALL, RETURN } Kind;

static Kind a64_kind(uint32_t insn)
{
    if ((insn & 0xfc000000) == 0x94000000          /* bl */
        || (insn & 0xfffffc1f) == 0xd63f0000       /* blr */
        || (insn & 0xfefff800) == 0xd63f0800) {    /* blraa and others */
        return CALL;
    }
    return (insn & 0xfffffc1f) == 0xd65f0000       /* ret */
        || (insn & 0xfffffbff) == 0xd65f0bff       /* retaa, retab */
        ? RETURN : OTHER;
}

static Kind a32_kind(uint32_t insn)
{
    uint32_t always = insn & 0x0fffffff;

    if (insn >> 28 == 0xf) {
        return (insn & 0xfe000000) == 0xfa000000 ? CALL : OTHER; /* blx */
    }
    if ((insn & 0x0f000000) == 0x0b000000          /* bl */
        || (insn & 0x0ffffff0) == 0x012fff30) {    /* blx */
        return CALL;
    }
    return always == 0x012fff1e                    /* bx lr */
        || always == 0x01a0f00e                    /* mov pc, lr */
        || always == 0x049df004                    /* pop {pc} */
        || (always & 0xffff8000) == 0x08bd8000     /* pop {.. pc} */
        || (always & 0xffff8000) == 0x089d8000     /* ldm sp, {.. pc} */
        || (always & 0xffff8000) == 0x091b8000     /* ldmdb fp, {.. pc} */
        ? RETURN : OTHER;
}

static Kind t32_kind(uint16_t first, uint16_t second)
{
    if ((first & 0xf800) == 0xf000) {
        return (second & 0xd000) == 0xd000         /* bl */
            || (second & 0xd001) == 0xc000         /* blx */
            ? CALL : OTHER;
    }
    return (first == 0xe8bd && (second & 0x8000))  /* pop {.. pc} */
        || (first == 0xf85d && second == 0xfb04)   /* pop {pc} */
        ? RETURN : OTHER;
}

static Kind t16_kind(uint16_t insn)
{
    if ((insn & 0xff87) == 0x4780) {               /* blx */
        return CALL;
    }
    return insn == 0x4770                          /* bx lr */
        || insn == 0x46f7                          /* mov pc, lr */
        || (insn & 0xff00) == 0xbd00               /* pop {.. pc} */
        ? RETURN : OTHER;
}

bool panda_arch_branch(CPUState *cs, const DisasContextBase *db,
                       PandaBranch *branch)
{
    CPUARMTBFlags flags = arm_tbflags_from_tb(db->tb);
    unsigned length = 4;
    Kind kind;

    if (EX_TBFLAG_ANY(flags, AARCH64_STATE)) {
        kind = a64_kind(panda_code_u32_le(cs, db));
    } else if (!EX_TBFLAG_AM32(flags, THUMB)) {
        kind = a32_kind(panda_code_u32_le(cs, db));
    } else {
        uint16_t first = panda_code_u16_le(cs, db, 0);

        if (first >= 0xe800) {
            kind = t32_kind(first, panda_code_u16_le(cs, db, 2));
        } else {
            kind = t16_kind(first);
            length = 2;
        }
    }
    branch->next = db->pc_next + length;
    branch->returns = kind == RETURN;
    branch->conditional = true;
    return kind != OTHER;
}
