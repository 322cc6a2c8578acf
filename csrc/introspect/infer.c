/*
 * The layout of a kernel without type information, worked out from memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer.h"

static const void *place(const OsInference *in, unsigned row, int at, int len)
{
    static const uint8_t nothing[8];

    return at < -OS_BEFORE || at + len > OS_BEHIND
        ? nothing : in->window[row] + OS_BEFORE + at;
}

uint64_t os_cell(const OsInference *in, unsigned row, int at)
{
    return os_word_at(place(in, row, at, os_memory.word));
}

uint32_t os_cell_u32(const OsInference *in, unsigned row, int at)
{
    return os_u32_at(place(in, row, at, 4));
}

uint64_t os_cell_u64(const OsInference *in, unsigned row, int at)
{
    const void *p = place(in, row, at, 8);

    return os_memory.big_endian ? ldq_be_p(p) : ldq_le_p(p);
}

void os_infer_task_field(const OsInference *in, OsField field, int at,
                         const char *evidence)
{
    os_layout_set(field, at - in->start, OS_INFERRED, evidence);
}

bool os_is_pointer(uint64_t va)
{
    uint64_t pa;

    if (!os_is_kernel(va)) {
        return false;
    }
    pa = os_kernel_to_physical(va);
    return pa != OS_NOWHERE && os_ram(pa, 1);
}

bool os_is_user(uint64_t va)
{
    return va >= 4096 && (os_memory.word == 8 ? va < 1ull << 56
                                              : va < os_memory.kernel_start);
}

void os_infer_again(void)
{
    if (os_layout.field[OS_TASK_TASKS].source == OS_INFERRED) {
        os_layout_infer(panda_vcpu.cs);
    }
}

static bool knows_maps(void)
{
    return os_knows(OS_TASK_MM) && os_knows(OS_MM_PGD)
        && (os_knows(OS_MM_ROOT) || os_knows(OS_MM_MMAP))
        && os_knows(OS_VMA_FLAGS) && os_knows(OS_VMA_FILE)
        && os_knows(OS_FILE_DENTRY) && os_knows(OS_DENTRY_PARENT);
}

bool os_layout_infer(CPUState *cs)
{
    OsInference *in = g_new0(OsInference, 1);

    if (os_infer_tasks(in)) {
        os_infer_threads(in);
        os_infer_mm(in);
        os_infer_files(in);
        os_infer_mounts(in);
    }
    g_free(in->window);
    g_free(in);
    return knows_maps();
}
