/*
 * Where the fields of the MIPS register state are, as the compiler sees it.
 *
 * The fields are those of tools/gen_env_layout.py, family mips; a test
 * compares the two, so that neither can drift from the other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/layout_table.h"

static const PandaLayoutEntry entries[] = {
    { "", 0, sizeof(CPUArchState) },
    ENTRY(active_tc),
    ENTRY(active_tc.gpr),
    ENTRY(active_tc.gpr[1]),
    ENTRY(active_tc.PC),
    ENTRY(active_tc.HI),
    ENTRY(active_tc.LO),
    ENTRY(active_tc.ACX),
    ENTRY(active_tc.DSPControl),
    ENTRY(active_tc.CP0_UserLocal),
    ENTRY(CP0_Index),
    ENTRY(CP0_EntryLo0),
    ENTRY(CP0_EntryLo1),
    ENTRY(CP0_Context),
    ENTRY(CP0_PageMask),
    ENTRY(CP0_Wired),
    ENTRY(CP0_BadVAddr),
    ENTRY(CP0_Count),
    ENTRY(CP0_EntryHi),
    ENTRY(CP0_EntryHi_ASID_mask),
    ENTRY(CP0_Compare),
    ENTRY(CP0_Status),
    ENTRY(CP0_Cause),
    ENTRY(CP0_EPC),
    ENTRY(CP0_PRid),
    ENTRY(CP0_EBase),
    ENTRY(CP0_Config0),
    ENTRY(CP0_ErrorEPC),
    ENTRY(hflags),
    ENTRY(btarget),
    ENTRY(bcond),
};

const PandaLayoutEntry *panda_env_layout(size_t *count)
{
    *count = ARRAY_SIZE(entries);
    return entries;
}
