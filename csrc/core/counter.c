/*
 * Counters: a few instructions of generated code each.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/block_events.h"
#include "core/counter.h"
#include "core/emit.h"
#include "system/cpu-timers.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"

typedef struct Counter {
    PandaCounter pub;
    PandaListener listener;
    PandaCounterKind kind;
    /* Adds a number that is known when the block is translated as a whole. */
    TCGOp *unfinished;
} Counter;

static Counter *counter_of(PandaListener *listener)
{
    return container_of(listener, Counter, listener);
}

void panda_emit_add(uint64_t *where, TCGv_i64 addend)
{
    TCGv_ptr at = tcg_constant_ptr((intptr_t)where);
    TCGv_i64 value = tcg_temp_new_i64();

    tcg_gen_ld_i64(value, at, 0);
    tcg_gen_add_i64(value, value, addend);
    tcg_gen_st_i64(value, at, 0);
}

static void emit(PandaListener *listener, PandaPoint point,
                 const PandaBlock *block, uint64_t pc)
{
    Counter *c = counter_of(listener);
    TCGv_i64 on = panda_emit_load_on(listener);

    if (c->kind == PANDA_COUNT_BLOCKS) {
        tcg_gen_neg_i64(on, on);
    } else {
        /* A number that no shortcut is made for, to be replaced. */
        tcg_gen_and_i64(on, on, tcg_constant_i64(0x12345));
        c->unfinished = tcg_last_op();
    }
    panda_emit_add(&c->pub.value, on);
}

static void emit_end(PandaListener *listener, PandaBlock *block)
{
    Counter *c = counter_of(listener);

    if (c->unfinished) {
        c->unfinished->args[2] =
            tcgv_i64_arg(tcg_constant_i64(block->pub.icount));
        c->unfinished = NULL;
    }
}

static void free_counter(PandaListener *listener)
{
    g_free(counter_of(listener));
}

bool panda_counting_filter_is_good(const PandaFilter *filter)
{
    if (filter && (filter->every > 1 || filter->first
                   || filter->once_per_block || filter->n_addr)) {
        panda_fail(PANDA_ERR_ARGUMENT, "counters and coverage have the filters "
                   "pc, asid, kernel and when only");
        return false;
    }
    return true;
}

PandaCounter *panda_counter_open(PandaCounterKind kind,
                                 const PandaFilter *filter)
{
    Counter *c;

    if (kind != PANDA_COUNT_BLOCKS && kind != PANDA_COUNT_INSNS) {
        panda_fail(PANDA_ERR_ARGUMENT, "there is no counter of kind %d", kind);
        return NULL;
    }
    if (!panda_counting_filter_is_good(filter)) {
        return NULL;
    }
    c = g_new0(Counter, 1);
    c->kind = kind;
    c->listener.points = BIT(PANDA_POINT_BLOCK);
    c->listener.counts_insns = kind == PANDA_COUNT_INSNS;
    c->listener.emit = emit;
    c->listener.emit_end = emit_end;
    c->listener.free = free_counter;
    if (panda_listener_open(&c->listener, filter) != PANDA_OK) {
        g_free(c);
        return NULL;
    }
    return &c->pub;
}

void panda_counter_enable(PandaCounter *counter, bool enabled)
{
    panda_listener_set_enabled(&container_of(counter, Counter, pub)->listener,
                               enabled);
}

void panda_counter_close(PandaCounter *counter)
{
    panda_listener_close(&container_of(counter, Counter, pub)->listener);
    panda_do_flush_tb();
}

void panda_counters_unwind(const PandaBlock *block, uint64_t pc)
{
    uint32_t offset = pc - block->pub.pc;
    PandaListener *l;
    unsigned done;

    for (done = 0; done < block->insns->len; done++) {
        if (g_array_index(block->insns, uint32_t, done) == offset) {
            break;
        }
    }
    PANDA_FOR_EACH_LISTENER(l) {
        if (l->counts_insns
            && panda_listener_may_want(l, PANDA_POINT_BLOCK, block->pub.pc,
                                       block->kernel)) {
            counter_of(l)->pub.value -=
                (block->pub.icount - done) & panda_words.on[l->slot];
        }
    }
}

uint64_t panda_icount(void)
{
    return icount_enabled() ? icount_get_raw() : 0;
}
