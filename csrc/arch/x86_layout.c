/*
 * Where the fields of the x86 register state are, as the compiler sees it.
 *
 * The fields are those of tools/gen_env_layout.py, family x86; a test compares
 * the two, so that neither can drift from the other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/layout_table.h"

#define SEGMENT_ENTRIES(path) \
    ENTRY(path), ENTRY(path.selector), ENTRY(path.base), ENTRY(path.limit), \
        ENTRY(path.flags)

static const PandaLayoutEntry entries[] = {
    { "", 0, sizeof(CPUArchState) },
    ENTRY(regs),
    ENTRY(regs[1]),
    ENTRY(eip),
    ENTRY(eflags),
    ENTRY(cc_dst),
    ENTRY(cc_src),
    ENTRY(cc_src2),
    ENTRY(cc_op),
    ENTRY(df),
    ENTRY(hflags),
    ENTRY(hflags2),
    ENTRY(segs),
    SEGMENT_ENTRIES(segs[0]),
    SEGMENT_ENTRIES(segs[5]),
    SEGMENT_ENTRIES(ldt),
    SEGMENT_ENTRIES(tr),
    SEGMENT_ENTRIES(gdt),
    SEGMENT_ENTRIES(idt),
    ENTRY(cr),
    ENTRY(cr[1]),
    ENTRY(a20_mask),
    ENTRY(efer),
    ENTRY(mxcsr),
    ENTRY(xmm_regs),
    ENTRY(xmm_regs[1]),
    ENTRY(xmm_regs[1]._b_ZMMReg),
    ENTRY(xmm_regs[1]._w_ZMMReg),
    ENTRY(xmm_regs[1]._l_ZMMReg),
    ENTRY(xmm_regs[1]._q_ZMMReg),
    ENTRY(sysenter_cs),
    ENTRY(sysenter_esp),
    ENTRY(sysenter_eip),
    ENTRY(star),
#ifdef TARGET_X86_64
    ENTRY(lstar),
    ENTRY(cstar),
    ENTRY(fmask),
    ENTRY(kernelgsbase),
#endif
    ENTRY(dr),
};

const PandaLayoutEntry *panda_env_layout(size_t *count)
{
    *count = ARRAY_SIZE(entries);
    return entries;
}
