/*
 * A second jump cache, where instructions are counted.
 *
 * QEMU's has 64 places for a page of code, too few for a busy one; blocks that
 * do not fit are looked up among all, which takes a tenth of a busy loop's
 * time. What is found here is put in its place again instead.
 *
 * Recordings and replays do it alike: to look a block up among all may walk
 * page tables, and that shows in their accessed bits. It was not so in
 * recordings of formats 1 and 2.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "exec/cpu-common.h"
#include "exec/exec-all.h"
#include "exec/helper-proto-common.h"
#include "exec/log.h"
#include "exec/tb-flush.h"
#include "internal-common.h"
#include "tb-hash.h"
#include "tb-jmp-cache.h"
#include "tcg/helper-info.h"
#include "tcg/tcg.h"

#define CACHE_BITS 14
/* Places that pages of code share, and the least that a page has of bits. */
#define PAGES 1024
#define PAGE_BITS 12

typedef struct Entry {
    vaddr pc;
    TranslationBlock *tb;
    uint64_t stamp;
} Entry;

static Entry cache[1 << CACHE_BITS];

/*
 * Neither ever goes back, so their sum is another one after all has been
 * forgotten, and after the page has.
 */
static uint64_t era = 1, page_era[PAGES];

static bool is_used = true;

/* What translated code calls; read when a call is translated. */
extern TCGHelperInfo helper_info_lookup_tb_ptr;

void __real_tcg_flush_jmp_cache(CPUState *cs);
void __wrap_tcg_flush_jmp_cache(CPUState *cs);
void __wrap_tcg_flush_jmp_cache(CPUState *cs)
{
    era++;
    __real_tcg_flush_jmp_cache(cs);
}

static uint64_t *era_of(vaddr pc)
{
    return &page_era[(pc >> PAGE_BITS) % PAGES];
}

/* Declared in patch 0006. */
void panda_jump_cache_clear_page(vaddr page);
void panda_jump_cache_clear_page(vaddr page)
{
    ++*era_of(page);
}

static bool is_block(const TranslationBlock *tb, uint64_t cs_base,
                     uint32_t flags, uint32_t cflags)
{
    return tb->cs_base == cs_base && tb->flags == flags
        && tb_cflags(tb) == cflags;
}

/* As HELPER(lookup_tb_ptr), which has the last word. */
static const void *look_up(CPUArchState *env)
{
    CPUState *cs = env_cpu(env);
    CPUJumpCache *jc = cs->tb_jmp_cache;
    uint32_t flags, cflags, hash;
    uint64_t cs_base, stamp;
    TranslationBlock *tb;
    const void *code;
    Entry *e;
    vaddr pc;

    if (unlikely(cs->singlestep_enabled || !QTAILQ_EMPTY(&cs->breakpoints)
                 || qemu_loglevel_mask(CPU_LOG_TB_CPU | CPU_LOG_EXEC))) {
        return HELPER(lookup_tb_ptr)(env);
    }
    cpu_get_tb_cpu_state(env, &pc, &cs_base, &flags);
    cflags = curr_cflags(cs);

    hash = tb_jmp_cache_hash_func(pc);
    tb = qatomic_read(&jc->array[hash].tb);
    if (likely(tb && jc->array[hash].pc == pc
               && is_block(tb, cs_base, flags, cflags))) {
        cs->neg.can_do_io = true;
        return tb->tc.ptr;
    }

    e = &cache[(pc * 0x9e3779b97f4a7c15ull) >> (64 - CACHE_BITS)];
    stamp = era + *era_of(pc);
    if (e->pc == pc && e->stamp == stamp
        && is_block(e->tb, cs_base, flags, cflags)) {
        cs->neg.can_do_io = true;
        jc->array[hash].pc = pc;
        qatomic_set(&jc->array[hash].tb, e->tb);
        return e->tb->tc.ptr;
    }

    code = HELPER(lookup_tb_ptr)(env);
    if (code != tcg_code_gen_epilogue) {
        *e = (Entry) { pc, jc->array[hash].tb, stamp };
    }
    return code;
}

void panda_lookup_use(bool second)
{
    is_used = second;
}

void panda_lookup_switch(bool on)
{
    helper_info_lookup_tb_ptr.func = on && is_used
        ? (void *)look_up : (void *)HELPER(lookup_tb_ptr);
}
