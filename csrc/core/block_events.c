/*
 * Events of translated blocks: translation, execution, invalidation.
 *
 * Calls out from the generated code of blocks of the "block" variant, so
 * chaining stays on and blocks nobody watches pay nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "record/record.h"
#include "core/block_events.h"
#include "core/branches.h"
#include "core/counter.h"
#include "core/emit.h"
#include "core/listeners.h"
#include "core/limit.h"
#include "core/python.h"
#include "hooks/hooks.h"
#include "exec/exec-all.h"
#include "exec/plugin-gen.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"
#include "tb-internal.h"
#include "syscalls/syscalls.h"

/* The block being translated, if it is instrumented. */
static PandaBlock *translating;
static PandaBlock *blocks;

/* QEMU's block -> ours, of blocks whose instructions are counted. */
static GHashTable *counted_blocks;

/* The block whose start was delivered and whose end was not. */
static bool running;
static PandaTB running_tb;
/* Who wants its events. */
static uint64_t running_pass;
/*
 * The block has ended by exit waiting_exit, and its end is yet to be
 * delivered: where the pc is not kept up between blocks, only the start of
 * the next one knows it.
 */
static bool end_waits;
static uint32_t waiting_exit;

/* The block was invalidated by its own callback: it is not asked again. */
static bool invalidated;

void panda_block_left(void)
{
    running = false;
    end_waits = false;
}

void panda_block_unwound(const TranslationBlock *tb, uint64_t pc)
{
    PandaBlock *block = counted_blocks && !panda_vcpu.uncounted
        ? g_hash_table_lookup(counted_blocks, tb) : NULL;

    if (block) {
        panda_counters_unwind(block, pc);
    }
}

PandaBlock *panda_block_translating(void)
{
    return translating;
}

void panda_tb_fill(PandaTB *out, const TranslationBlock *tb, uint64_t pc)
{
    *out = (PandaTB) {
        .pc = pc,
        .cs_base = tb->cs_base,
        .flags = tb->flags,
        .cflags = tb->cflags & ~PANDA_CF_ALL,
        .size = tb->size,
        .icount = tb->icount,
    };
}

/* ---- translation ---- */

TranslationBlock *__real_tb_gen_code(CPUState *cs, vaddr pc, uint64_t cs_base,
                                     uint32_t flags, int cflags);
TranslationBlock *__wrap_tb_gen_code(CPUState *cs, vaddr pc, uint64_t cs_base,
                                     uint32_t flags, int cflags);
TranslationBlock *__wrap_tb_gen_code(CPUState *cs, vaddr pc, uint64_t cs_base,
                                     uint32_t flags, int cflags)
{
    TranslationBlock *tb;
    PandaCallback *c;

    if (panda_wanted(PANDA_CB_BEFORE_BLOCK_TRANSLATE)) {
        panda_event_enter(cs, PANDA_PLACE_TRANSLATION, pc, 0);
        PANDA_FOR_EACH(c, PANDA_CB_BEFORE_BLOCK_TRANSLATE) {
            PANDA_CALL(c, before_block_translate, &panda_vcpu.pub, pc);
        }
        panda_event_leave(cs);
    }
    tb = __real_tb_gen_code(cs, pc, cs_base, flags, cflags);
    if (panda_wanted(PANDA_CB_AFTER_BLOCK_TRANSLATE)) {
        panda_tb_fill(&panda_vcpu.tb, tb, pc);
        panda_event_enter(cs, PANDA_PLACE_TRANSLATION, pc, 0);
        PANDA_FOR_EACH(c, PANDA_CB_AFTER_BLOCK_TRANSLATE) {
            PANDA_CALL(c, after_block_translate, &panda_vcpu.pub,
                       &panda_vcpu.tb);
        }
        panda_event_leave(cs);
    }
    return tb;
}

int __real_tcg_gen_code(TCGContext *s, TranslationBlock *tb, uint64_t pc);
int __wrap_tcg_gen_code(TCGContext *s, TranslationBlock *tb, uint64_t pc);
int __wrap_tcg_gen_code(TCGContext *s, TranslationBlock *tb, uint64_t pc)
{
    PandaCallback *c;

    if (panda_wanted(PANDA_CB_BEFORE_TCG_CODEGEN)) {
        panda_tb_fill(&panda_vcpu.tb, tb, pc);
        panda_event_enter(current_cpu, PANDA_PLACE_TRANSLATION, pc, 0);
        PANDA_FOR_EACH(c, PANDA_CB_BEFORE_TCG_CODEGEN) {
            PANDA_CALL(c, before_tcg_codegen, &panda_vcpu.pub,
                       &panda_vcpu.tb);
        }
        panda_event_leave(current_cpu);
    }
    return __real_tcg_gen_code(s, tb, pc);
}

/* Translated code is dropped as a whole, and our descriptions with it. */
void __real_qemu_plugin_flush_cb(void);
void __wrap_qemu_plugin_flush_cb(void);
void __wrap_qemu_plugin_flush_cb(void)
{
    if (counted_blocks) {
        g_hash_table_remove_all(counted_blocks);
    }
    while (blocks) {
        PandaBlock *next = blocks->next;

        if (blocks->insns) {
            g_array_unref(blocks->insns);
        }
        g_free(blocks);
        blocks = next;
    }
    panda_vcpu.done = NULL;
    panda_mem_flushed();
    panda_branches_flushed();
    panda_listeners_flushed();
    panda_hooks_flushed();
    __real_qemu_plugin_flush_cb();
}

/* ---- call-outs from generated code ---- */

static void deliver_end(CPUState *cs, PandaPlace place, uint64_t pc,
                        uintptr_t ra, uint32_t exit, bool reached_its_end)
{
    PandaVcpu *v = &panda_vcpu;
    PandaCallback *c;

    running = false;
    end_waits = false;
    v->tb = running_tb;
    v->pass = running_pass;
    panda_event_enter(cs, place, pc, ra);
    if (reached_its_end) {
        PANDA_FOR_EACH(c, PANDA_CB_END_BLOCK_EXEC) {
            PANDA_CALL_OFTEN(c, (), end_block_exec, &v->pub, &v->tb);
        }
    }
    PANDA_FOR_EACH(c, PANDA_CB_AFTER_BLOCK_EXEC) {
        PANDA_CALL_OFTEN(c, (exit), after_block_exec, &v->pub, &v->tb, exit);
    }
    panda_event_leave(cs);
}

static bool end_is_wanted(void)
{
    return panda_wanted(PANDA_CB_END_BLOCK_EXEC)
        || panda_wanted(PANDA_CB_AFTER_BLOCK_EXEC);
}

/* The next instruction is at pc, and not of the block that ran. */
static void finish(CPUState *cs, PandaPlace place, uint64_t pc, uintptr_t ra)
{
    if (end_waits) {
        if (end_is_wanted()) {
            deliver_end(cs, place, pc, ra, waiting_exit, true);
        }
    } else if (running && panda_wanted(PANDA_CB_AFTER_BLOCK_EXEC)) {
        deliver_end(cs, PANDA_PLACE_HELPER, pc, 0, TB_EXIT_REQUESTED, false);
    }
    panda_block_left();
}

/* The running block was left by an exception or an exit request. */
void panda_block_finish_early(CPUState *cs)
{
    if (running || end_waits) {
        finish(cs, PANDA_PLACE_HELPER, panda_arch_get_pc(cs), 0);
    }
}

/* True if a callback wants the block to be translated anew. */
static bool wants_invalidation(CPUState *cs, uintptr_t ra)
{
    bool wanted = false;
    PandaCallback *c;

    panda_event_enter(cs, PANDA_PLACE_BLOCK_ASKED, panda_vcpu.tb.pc, ra);
    PANDA_FOR_EACH(c, PANDA_CB_BEFORE_BLOCK_EXEC_INVALIDATE_OPT) {
        wanted |= PANDA_CALL(c, before_block_exec_invalidate_opt,
                             &panda_vcpu.pub, &panda_vcpu.tb);
    }
    panda_event_leave(cs);
    return wanted;
}

/* The block is met again right after it was left: it was counted before. */
void panda_give_back(uint64_t mask)
{
    uint64_t due = qatomic_read(&panda_live) & mask
        & ~(BIT_ULL(PANDA_FIRST_SLOT) - 1);

    for (; due; due &= due - 1) {
        PandaListener *l = panda_listener_of_slot(ctz64(due));

        if (l && l->counts_inline) {
            panda_words.left[l->slot]++;
        }
    }
}

static void block_start(CPUArchState *env, void *opaque)
{
    CPUState *cs = env_cpu(env);
    PandaBlock *block = opaque;
    PandaVcpu *v = &panda_vcpu;
    uint64_t mask = block->mask | block->end_mask;
    bool again = invalidated || v->skip_block;
    uintptr_t ra = GETPC();
    uint64_t pc = block->pub.pc;
    PandaCallback *c;

    if (cs->tcg_cflags & CF_PCREL) {
        pc = panda_arch_get_pc(cs);
    }
    if (!v->skip_insn) {
        panda_live_ask(false);
    }
    v->uncounted = true;
    if (running || end_waits) {
        finish(cs, PANDA_PLACE_BLOCK_ASKED, pc, ra);
    }
    if (again) {
        panda_give_back(mask);
        v->pass = running_pass;
    } else {
        v->pass = panda_take(mask & ~block->done, pc, 0, pc, NULL, NULL);
        block->done |= qatomic_read(&panda_live) & block->once_mask;
        running_pass = v->pass;
    }
    v->tb = block->pub;
    v->tb.pc = pc;
    if (!v->pass) {
        v->uncounted = false;
        return;
    }
    if (panda_wanted(PANDA_CB_BEFORE_BLOCK_EXEC_INVALIDATE_OPT)
        && !invalidated && wants_invalidation(cs, ra)) {
        invalidated = true;
        panda_live_ask(true);
        panda_limit_retract();
        tb_phys_invalidate(block->tb, -1);
        v->unwinding = true;
        cpu_restore_state(cs, ra);
        v->unwinding = false;
        v->uncounted = false;
        cpu_loop_exit_noexc(cs);
    }
    invalidated = false;
    if (unlikely(v->skip_block)) {
        v->skip_block = false;
    } else {
        panda_event_enter(cs, PANDA_PLACE_BLOCK_START, pc, ra);
        PANDA_FOR_EACH(c, PANDA_CB_BEFORE_BLOCK_EXEC) {
            PANDA_CALL_OFTEN(c, (), before_block_exec, &v->pub, &v->tb);
        }
        PANDA_FOR_EACH(c, PANDA_CB_START_BLOCK_EXEC) {
            PANDA_CALL_OFTEN(c, (), start_block_exec, &v->pub, &v->tb);
        }
        panda_event_leave(cs);
    }
    v->uncounted = false;
    running_tb = v->tb;
    running = true;
}

static void block_end(CPUArchState *env, uint32_t index, uint32_t pc_is_known)
{
    CPUState *cs = env_cpu(env);
    uintptr_t ra = GETPC();

    if (!running || !end_is_wanted()) {
        running = false;
    } else if (pc_is_known) {
        deliver_end(cs, PANDA_PLACE_BLOCK_END, panda_arch_get_pc(cs), ra,
                    index, true);
    } else {
        running = false;
        end_waits = true;
        waiting_exit = index;
        panda_live_ask(true);
    }
}

/* Flags 0: registers are written to env before the call, read back after. */
static TCGHelperInfo block_start_info = {
    .name = "panda_block_start",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(ptr, 2),
};

static TCGHelperInfo block_end_info = {
    .name = "panda_block_end",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i32, 2) | dh_typemask(i32, 3),
};

/* The code a stream or counter has at the start of blocks. */
static void emit_for(PandaListener *l, PandaBlock *b)
{
    if (panda_listener_may_want(l, PANDA_POINT_BLOCK, b->pub.pc, b->kernel)) {
        l->emit(l, PANDA_POINT_BLOCK, b, b->pub.pc);
    }
}

/* whole: not one instruction of a block that has begun already. */
static void emit_block_start(bool whole)
{
    PandaBlock *b = translating;
    bool tracked = false;
    TCGLabel *skip;
    PandaListener *l;

    b->whole = whole;
    PANDA_FOR_EACH_LISTENER(l) {
        if (l->counts_insns) {
            b->insns = b->insns ?: g_array_new(false, false, 4);
            if (!whole) {
                emit_for(l, b);
            }
        }
    }
    if (b->insns) {
        if (!counted_blocks) {
            counted_blocks = g_hash_table_new(NULL, NULL);
        }
        g_hash_table_insert(counted_blocks, b->tb, b);
    }
    if (!whole) {
        return;
    }

    b->mask = panda_point_mask(PANDA_POINT_BLOCK, b->pub.pc, b->kernel);
    b->end_mask = panda_point_mask(PANDA_POINT_BLOCK_END, b->pub.pc,
                                   b->kernel);
    /* The end of the block before may wait, even if nobody watches this. */
    if (b->mask || b->end_mask || panda_ends_are_watched()) {
        PANDA_FOR_EACH_LISTENER(l) {
            if (l->filter.seen) {
                b->once_mask |= BIT_ULL(l->slot) & (b->mask | b->end_mask);
            }
        }
        skip = panda_emit_guard(b->mask | b->end_mask | PANDA_ASK,
                                b->once_mask ? &b->done : NULL);
        tcg_gen_call2(block_start, &block_start_info, NULL,
                      tcgv_ptr_temp(tcg_env),
                      tcgv_ptr_temp(tcg_constant_ptr(b)));
        gen_set_label(skip);
    }
    /* After the callbacks, as they may leave the block before it runs. */
    PANDA_FOR_EACH_LISTENER(l) {
        if (l->emit) {
            emit_for(l, b);
        }
        tracked |= l->tracks_blocks;
    }
    panda_branch_block_start(b);
    if (tracked) {
        panda_emit_store_u64(&panda_vcpu.last_block_pc, b->pub.pc);
    }
}

bool __wrap_plugin_gen_tb_start(CPUState *cs, const DisasContextBase *db);
bool __wrap_plugin_gen_tb_start(CPUState *cs, const DisasContextBase *db)
{
    uint32_t cflags = tb_cflags(db->tb);

    translating = NULL;
    panda_count_hide(db->tb);
    panda_insn_block_start(db);
    if (!(cflags & PANDA_CF_ALL) && !panda_hooks_near(db->pc_first)) {
        return false;
    }
    translating = g_new0(PandaBlock, 1);
    translating->tb = db->tb;
    translating->pub.pc = db->pc_first;
    translating->kernel = panda_arch_in_kernel(cs);
    translating->next = blocks;
    blocks = translating;
    if ((cflags & (PANDA_CF_MEM | PANDA_CF_INSN))
        && !(cflags & CF_MEMI_ONLY)) {
        panda_emit_store_u64(&panda_vcpu.block_pc, db->pc_first);
        if (panda_listeners_ask_once()) {
            panda_emit_store_u64((uint64_t *)&panda_vcpu.done,
                                 (uintptr_t)&translating->done);
        }
    }
    panda_limit_block_start(db);
    if (cflags & PANDA_CF_MEM) {
        panda_mem_block_start(db);
    }
    if (cflags & PANDA_CF_BLOCK) {
        if (!(cflags & CF_MEMI_ONLY)) {
            panda_syscall_block_start(db, translating);
        }
        emit_block_start(!(cflags & CF_MEMI_ONLY));
    }
    return true;
}

void __wrap_plugin_gen_tb_end(CPUState *cs, size_t num_insns);
void __wrap_plugin_gen_tb_end(CPUState *cs, size_t num_insns)
{
    PandaListener *l;

    if (translating) {
        panda_tb_fill(&translating->pub, translating->tb,
                      translating->pub.pc);
        translating->pub.icount = num_insns;
        PANDA_FOR_EACH_LISTENER(l) {
            if (l->emit_end && (translating->whole || l->counts_insns)
                && panda_listener_may_want(l, PANDA_POINT_BLOCK,
                                           translating->pub.pc,
                                           translating->kernel)) {
                l->emit_end(l, translating);
            }
        }
    }
}

static void emit_block_end(unsigned index, bool pc_is_known)
{
    panda_insn_block_exit();
    if (translating && translating->end_mask
        && tcg_ctx->gen_tb == translating->tb) {
        tcg_gen_call3(block_end, &block_end_info, NULL,
                      tcgv_ptr_temp(tcg_env),
                      tcgv_i32_temp(tcg_constant_i32(index)),
                      tcgv_i32_temp(tcg_constant_i32(pc_is_known)));
    }
}

void __real_tcg_gen_goto_tb(unsigned index);
void __wrap_tcg_gen_goto_tb(unsigned index);
void __wrap_tcg_gen_goto_tb(unsigned index)
{
    emit_block_end(index, tcg_ctx->gen_tb->cflags & CF_PCREL);
    __real_tcg_gen_goto_tb(index);
}

void __real_tcg_gen_lookup_and_goto_ptr(void);
void __wrap_tcg_gen_lookup_and_goto_ptr(void);
void __wrap_tcg_gen_lookup_and_goto_ptr(void)
{
    emit_block_end(0, true);
    __real_tcg_gen_lookup_and_goto_ptr();
}

void __real_tcg_gen_exit_tb(const TranslationBlock *tb, unsigned index);
void __wrap_tcg_gen_exit_tb(const TranslationBlock *tb, unsigned index);
void __wrap_tcg_gen_exit_tb(const TranslationBlock *tb, unsigned index)
{
    /* With a block it follows a goto_tb, which has the call already. */
    if (!tb) {
        emit_block_end(0, true);
    }
    __real_tcg_gen_exit_tb(tb, index);
}
