/*
 * Calls and returns of x86, without those that change the privilege.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/branches.h"

/* Bytes of what follows the opcode: ModRM, SIB, displacement. */
static unsigned operand_size(CPUState *cs, const DisasContextBase *db,
                             unsigned at, bool address_16, bool code_64)
{
    uint8_t modrm = panda_code_byte(cs, db, at);
    unsigned mod = modrm >> 6, rm = modrm & 7;

    if (mod == 3) {
        return 1;
    }
    if (address_16) {
        return mod == 1 ? 2 : mod == 2 || rm == 6 ? 3 : 1;
    }
    if (rm == 4) {
        uint8_t sib = panda_code_byte(cs, db, at + 1);

        return mod == 1 ? 3 : mod == 2 || (sib & 7) == 5 ? 6 : 2;
    }
    return mod == 1 ? 2 : mod == 2 || rm == 5 ? 5 : 1;
}

bool panda_arch_branch(CPUState *cs, const DisasContextBase *db,
                       PandaBranch *branch)
{
    bool code_64 = db->tb->flags & HF_CS64_MASK;
    bool short_operand = !(db->tb->flags & HF_CS32_MASK) && !code_64;
    bool short_address = short_operand;
    unsigned at, length, kind;
    uint8_t opcode = 0;

    for (at = 0; at < 14; at++) {
        opcode = panda_code_byte(cs, db, at);
        if (opcode == 0x66) {
            short_operand = !short_operand && !code_64;
        } else if (opcode == 0x67) {
            short_address = !short_address && !code_64;
        } else if (!((opcode & 0xe7) == 0x26 || (opcode & 0xfe) == 0x64
                     || opcode == 0xf0 || (opcode & 0xfe) == 0xf2
                     || (code_64 && (opcode & 0xf0) == 0x40))) {
            break;
        }
    }
    length = at + 1;
    switch (opcode) {
    case 0xe8:
        length += short_operand ? 2 : 4;
        break;
    case 0x9a:
        if (code_64) {
            return false;
        }
        length += short_operand ? 4 : 6;
        break;
    case 0xff:
        kind = (panda_code_byte(cs, db, length) >> 3) & 7;
        if (kind != 2 && kind != 3) {
            return false;
        }
        length += operand_size(cs, db, length, short_address, code_64);
        break;
    case 0xc2:
    case 0xca:
        length += 2;
        /* fall through */
    case 0xc3:
    case 0xcb:
        branch->returns = true;
        break;
    default:
        return false;
    }
    branch->next = db->pc_next + length;
    return true;
}
