/*
 * Where the fields of the ARM register state are, as the compiler sees it.
 *
 * The fields are those of tools/gen_env_layout.py, family arm; a test compares
 * the two, so that neither can drift from the other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/layout_table.h"

static const PandaLayoutEntry entries[] = {
    { "", 0, sizeof(CPUArchState) },
    ENTRY(regs),
    ENTRY(regs[1]),
    ENTRY(xregs),
    ENTRY(xregs[1]),
    ENTRY(pc),
    ENTRY(pstate),
    ENTRY(aarch64),
    ENTRY(thumb),
    ENTRY(uncached_cpsr),
    ENTRY(spsr),
    ENTRY(banked_spsr),
    ENTRY(banked_r13),
    ENTRY(banked_r14),
    ENTRY(usr_regs),
    ENTRY(fiq_regs),
    ENTRY(CF),
    ENTRY(VF),
    ENTRY(NF),
    ENTRY(ZF),
    ENTRY(QF),
    ENTRY(GE),
    ENTRY(condexec_bits),
    ENTRY(btype),
    ENTRY(daif),
    ENTRY(elr_el),
    ENTRY(sp_el),
};

const PandaLayoutEntry *panda_env_layout(size_t *count)
{
    *count = ARRAY_SIZE(entries);
    return entries;
}
