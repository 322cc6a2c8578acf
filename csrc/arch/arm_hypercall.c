/*
 * The hypercall of the ARM family.
 *
 * arm: MCR to coprocessor 7, unconditional; aarch64: a system register of the
 * range that no instruction has, written with xzr.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/hypercall.h"
#include "tcg/translate.h"

static bool is_a64_code(CPUARMTBFlags flags)
{
    return EX_TBFLAG_ANY(flags, AARCH64_STATE);
}

/* Two half-words, the first of which is the upper half. */
static uint32_t thumb_code(const PandaCode *code)
{
    return (uint32_t)lduw_le_p(code->byte) << 16 | lduw_le_p(code->byte + 2);
}

static bool is_thumb_code(CPUARMTBFlags flags)
{
    return !is_a64_code(flags) && EX_TBFLAG_AM32(flags, THUMB);
}

bool panda_arch_hypercall_begins(const DisasContextBase *db,
                                 const PandaCode *code)
{
    CPUARMTBFlags flags = arm_tbflags_from_tb(db->tb);

    if (is_a64_code(flags)) {
        return lduw_le_p(code->byte) == 0x501f;
    }
    if (is_thumb_code(flags)) {
        return (thumb_code(code) & 0xff100000) == 0xee000000;
    }
    return (lduw_le_p(code->byte) & 0x0f10) == 0x0710;
}

bool panda_arch_is_hypercall(const DisasContextBase *db,
                             const PandaCode *code)
{
    CPUARMTBFlags flags = arm_tbflags_from_tb(db->tb);

    if (is_a64_code(flags)) {
        return panda_code_le(code) == 0xd500501f;
    }
    return ((is_thumb_code(flags) ? thumb_code(code) : panda_code_le(code))
            & 0xff100f10) == 0xee000710;
}

bool panda_arch_hypercall_next(CPUState *cs, uint64_t pc,
                               const uint64_t *words, uint64_t *next)
{
    *next = pc + 4;
    /* Conditional (Thumb): the second word has the conditions to come. */
    return is_a64(cpu_env(cs)) || !words[1];
}
