/*
 * What the patches call, for an emulator without pandalite: nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "exec/memopidx.h"
#include "exec/memory.h"
#include "tcg/tcg.h"

void panda_gen_before_load(TCGTemp *addr, MemOpIdx oi);
void panda_gen_before_load(TCGTemp *addr, MemOpIdx oi)
{
}

TCGv_i32 panda_gen_before_store_i32(TCGv_i32 val, TCGTemp *addr, MemOpIdx oi);
TCGv_i32 panda_gen_before_store_i32(TCGv_i32 val, TCGTemp *addr, MemOpIdx oi)
{
    return val;
}

TCGv_i64 panda_gen_before_store_i64(TCGv_i64 val, TCGTemp *addr, MemOpIdx oi);
TCGv_i64 panda_gen_before_store_i64(TCGv_i64 val, TCGTemp *addr, MemOpIdx oi)
{
    return val;
}

void panda_gen_before_store_i128(TCGv_i128 val, TCGTemp *addr, MemOpIdx oi);
void panda_gen_before_store_i128(TCGv_i128 val, TCGTemp *addr, MemOpIdx oi)
{
}

void panda_gen_after_i32(TCGv_i32 val, MemOpIdx oi, bool store);
void panda_gen_after_i32(TCGv_i32 val, MemOpIdx oi, bool store)
{
}

void panda_gen_after_i64(TCGv_i64 val, MemOpIdx oi, bool store);
void panda_gen_after_i64(TCGv_i64 val, MemOpIdx oi, bool store)
{
}

void panda_gen_after_i128(TCGv_i128 val, MemOpIdx oi, bool store);
void panda_gen_after_i128(TCGv_i128 val, MemOpIdx oi, bool store)
{
}

/* Patches 0002, 0004, 0005 and 0006. */
extern bool panda_counting;
bool panda_counting;

void panda_jump_cache_clear_page(uint64_t page);
void panda_jump_cache_clear_page(uint64_t page)
{
}

int64_t panda_tlb_clock(void);
int64_t panda_tlb_clock(void)
{
    return g_get_real_time() * 1000;
}

void panda_memory_written(MemoryRegion *mr, hwaddr addr, hwaddr length);
void panda_memory_written(MemoryRegion *mr, hwaddr addr, hwaddr length)
{
}
