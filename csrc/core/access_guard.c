/*
 * Generated code that finds out whether an access is wanted.
 *
 * It asks what panda_access_may_pass() asks, without a call. A label ends the
 * life of QEMU's short-lived temporaries, which read-modify-write operations
 * hold across their accesses: beside those there is none, and the call is made.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/access_guard.h"
#include "core/block_events.h"
#include "core/listeners.h"
#include "core/memory_events.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"

static bool short_lived_temporary_in_use(void)
{
    for (int i = tcg_ctx->nb_globals; i < tcg_ctx->nb_temps; i++) {
        const TCGTemp *temp = &tcg_ctx->temps[i];

        if (temp->kind == TEMP_EBB && temp->temp_allocated) {
            return true;
        }
    }
    return false;
}

bool panda_access_can_guard(uint64_t mask)
{
    /* Callbacks without a filter get their call at once. */
    return mask >= BIT_ULL(PANDA_FIRST_SLOT)
        /* An access that begins anew was counted. */
        && !(tcg_ctx->gen_tb->cflags & CF_MEMI_ONLY)
        && !short_lived_temporary_in_use();
}

static void load_word(TCGv_i64 value, const void *word)
{
    tcg_gen_ld_i64(value, tcg_constant_ptr((intptr_t)&panda_words),
                   (intptr_t)word - (intptr_t)&panda_words);
}

/* Those of a mask that want one event of each block. */
static uint64_t once_of(uint64_t mask)
{
    uint64_t once = 0;
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        if (l->filter.seen) {
            once |= BIT_ULL(l->slot);
        }
    }
    return once & mask;
}

static void load_address(TCGv_i64 value, TCGTemp *addr)
{
    if (!addr) {
        tcg_gen_ld_i64(value, tcg_env, PANDA_ACCESS_ADDR_OFFSET);
    } else if (tcg_ctx->addr_type == TCG_TYPE_I32) {
        tcg_gen_extu_i32_i64(value, temp_tcgv_i32(addr));
    } else {
        tcg_gen_mov_i64(value, temp_tcgv_i64(addr));
    }
}

static void guard_of_one(unsigned slot, TCGTemp *addr, TCGv_i64 scratch,
                         TCGLabel *skip)
{
    const PandaAccessFilter *f = &panda_access_filters[slot];

    if (f->span != UINT64_MAX) {
        load_address(scratch, addr);
        tcg_gen_subi_i64(scratch, scratch, f->first);
        tcg_gen_brcondi_i64(TCG_COND_GTU, scratch, f->span, skip);
    }
    if (f->counts) {
        TCGLabel *due = gen_new_label();
        int64_t *left = &panda_words.left[slot];

        load_word(scratch, left);
        tcg_gen_brcondi_i64(TCG_COND_LE, scratch, 1, due);
        tcg_gen_subi_i64(scratch, scratch, 1);
        tcg_gen_st_i64(scratch, tcg_constant_ptr((intptr_t)&panda_words),
                       (intptr_t)left - (intptr_t)&panda_words);
        tcg_gen_br(skip);
        gen_set_label(due);
    }
}

TCGLabel *panda_access_guard(uint64_t mask, TCGTemp *addr, MemOpIdx oi)
{
    TCGLabel *skip = gen_new_label();
    TCGv_i64 scratch = tcg_temp_ebb_new_i64();

    load_word(scratch, &panda_words.live);
    tcg_gen_andi_i64(scratch, scratch, mask);
    if (once_of(mask)) {
        PandaBlock *block = panda_block_translating();
        TCGv_i64 done = tcg_temp_ebb_new_i64();

        tcg_gen_ld_i64(done, tcg_constant_ptr((intptr_t)&block->done), 0);
        tcg_gen_andc_i64(scratch, scratch, done);
        tcg_temp_free_i64(done);
    }
    tcg_gen_brcondi_i64(TCG_COND_EQ, scratch, 0, skip);
    if (is_power_of_2(mask) && !panda_access_is_parted(oi)) {
        guard_of_one(ctz64(mask), addr, scratch, skip);
    }
    tcg_temp_free_i64(scratch);
    return skip;
}
