/*
 * Where the fields of the PowerPC register state are, as the compiler sees it.
 *
 * The fields are those of tools/gen_env_layout.py, family ppc; a test compares
 * the two, so that neither can drift from the other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/layout_table.h"

static const PandaLayoutEntry entries[] = {
    { "", 0, sizeof(CPUArchState) },
    ENTRY(gpr),
    ENTRY(gpr[1]),
    ENTRY(lr),
    ENTRY(ctr),
    ENTRY(crf),
    ENTRY(crf[1]),
    ENTRY(xer),
    ENTRY(so),
    ENTRY(ov),
    ENTRY(ca),
    ENTRY(msr),
    ENTRY(nip),
    ENTRY(sr),
    ENTRY(spr),
    ENTRY(spr[1]),
    ENTRY(fpscr),
};

const PandaLayoutEntry *panda_env_layout(size_t *count)
{
    *count = ARRAY_SIZE(entries);
    return entries;
}
