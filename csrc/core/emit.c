/*
 * Small pieces of generated code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/emit.h"
#include "tcg/tcg.h"
#include "tcg/tcg-temp-internal.h"

static TCGv_ptr address(const void *where)
{
    return tcg_constant_ptr((intptr_t)where);
}

void panda_emit_store_u64(uint64_t *where, uint64_t value)
{
    tcg_gen_st_i64(tcg_constant_i64(value), address(where), 0);
}

TCGv_i64 panda_emit_load_u64(const uint64_t *where)
{
    TCGv_i64 value = tcg_temp_new_i64();

    tcg_gen_ld_i64(value, address(where), 0);
    return value;
}

/* A word of panda_words. */
static TCGv_i64 load_word(const void *word)
{
    TCGv_i64 value = tcg_temp_new_i64();

    tcg_gen_ld_i64(value, address(&panda_words),
                   (intptr_t)word - (intptr_t)&panda_words);
    return value;
}

TCGv_i64 panda_emit_load_on(const PandaListener *l)
{
    return load_word(&panda_words.on[l->slot]);
}

/*
 * Count an event for a listener of every Nth; returns what is left, which may
 * be wanted if it is not positive. Without branches, so that each listener
 * sees each event.
 */
static TCGv_i64 emit_countdown(PandaListener *l)
{
    TCGv_i64 left = load_word(&panda_words.left[l->slot]);

    /* on is -1 or 0 */
    tcg_gen_add_i64(left, left, panda_emit_load_on(l));
    tcg_gen_st_i64(left, address(&panda_words),
                   offsetof(PandaWords, left[l->slot]));
    return left;
}

TCGLabel *panda_emit_guard(uint64_t mask, const uint64_t *done)
{
    TCGLabel *skip = gen_new_label();
    PandaListener *counting[PANDA_SLOTS];
    unsigned n = 0;
    PandaListener *l;
    TCGv_i64 wanted;

    PANDA_FOR_EACH_LISTENER(l) {
        if ((mask & BIT_ULL(l->slot)) && l->counts_inline) {
            mask &= ~BIT_ULL(l->slot);
            counting[n++] = l;
        }
    }
    if (n == 1 && mask == PANDA_ASK && !done) {
        /* It is asked by its count too: panda_live_ask(). */
        tcg_gen_brcondi_i64(TCG_COND_GT, emit_countdown(counting[0]), 0, skip);
        return skip;
    }
    wanted = load_word(&panda_words.live);
    tcg_gen_andi_i64(wanted, wanted, mask);
    if (done) {
        TCGv_i64 done_bits = panda_emit_load_u64(done);

        tcg_gen_andc_i64(wanted, wanted, done_bits);
    }
    for (unsigned i = 0; i < n; i++) {
        TCGv_i64 left = emit_countdown(counting[i]);

        /* Not positive: left - 1 has its sign bit set. */
        tcg_gen_subi_i64(left, left, 1);
        tcg_gen_sari_i64(left, left, 63);
        tcg_gen_or_i64(wanted, wanted, left);
    }
    tcg_gen_brcondi_i64(TCG_COND_EQ, wanted, 0, skip);
    return skip;
}
