/*
 * Where the fields of the RISC-V register state are, as the compiler sees it.
 *
 * The fields are those of tools/gen_env_layout.py, family riscv; a test
 * compares the two, so that neither can drift from the other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/layout_table.h"

static const PandaLayoutEntry entries[] = {
    { "", 0, sizeof(CPUArchState) },
    ENTRY(gpr),
    ENTRY(gpr[1]),
    ENTRY(pc),
    ENTRY(fpr),
    ENTRY(frm),
    ENTRY(priv),
    ENTRY(mhartid),
    ENTRY(mstatus),
    ENTRY(mip),
    ENTRY(mie),
    ENTRY(mideleg),
    ENTRY(satp),
    ENTRY(stval),
    ENTRY(medeleg),
    ENTRY(stvec),
    ENTRY(sepc),
    ENTRY(scause),
    ENTRY(mtvec),
    ENTRY(mepc),
    ENTRY(mcause),
    ENTRY(mtval),
    ENTRY(sscratch),
    ENTRY(mscratch),
};

const PandaLayoutEntry *panda_env_layout(size_t *count)
{
    *count = ARRAY_SIZE(entries);
    return entries;
}
