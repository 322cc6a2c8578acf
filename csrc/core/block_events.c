/*
 * Events of translated blocks: translation, execution, invalidation.
 *
 * Calls out from the generated code of blocks of the "block" variant, so
 * chaining stays on and blocks nobody watches pay nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/block_events.h"
#include "core/python.h"
#include "exec/exec-all.h"
#include "exec/plugin-gen.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"
#include "tb-internal.h"

/* The block being translated, if it is instrumented. */
static PandaBlock *translating;
static PandaBlock *blocks;

/* The block whose start was delivered and whose end was not. */
static bool running;
static PandaTB running_tb;

/* The block was invalidated by its own callback: it is not asked again. */
static bool invalidated;

void panda_block_left(void)
{
    running = false;
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
    while (blocks) {
        PandaBlock *next = blocks->next;

        g_free(blocks);
        blocks = next;
    }
    __real_qemu_plugin_flush_cb();
}

/* ---- call-outs from generated code ---- */

/* The running block was left by an exception or an exit request. */
void panda_block_finish_early(CPUState *cs)
{
    PandaCallback *c;

    if (!running) {
        return;
    }
    running = false;
    if (panda_wanted(PANDA_CB_AFTER_BLOCK_EXEC)) {
        panda_vcpu.tb = running_tb;
        panda_event_enter(cs, PANDA_PLACE_HELPER, panda_arch_get_pc(cs), 0);
        PANDA_FOR_EACH(c, PANDA_CB_AFTER_BLOCK_EXEC) {
            PANDA_CALL_OFTEN(c, (TB_EXIT_REQUESTED), after_block_exec,
                             &panda_vcpu.pub, &panda_vcpu.tb,
                             TB_EXIT_REQUESTED);
        }
        panda_event_leave(cs);
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

static void block_start(CPUArchState *env, void *opaque)
{
    CPUState *cs = env_cpu(env);
    PandaBlock *block = opaque;
    uintptr_t ra = GETPC();
    PandaCallback *c;

    panda_block_finish_early(cs);
    panda_vcpu.tb = block->pub;
    if (cs->tcg_cflags & CF_PCREL) {
        panda_vcpu.tb.pc = panda_arch_get_pc(cs);
    }
    if (panda_wanted(PANDA_CB_BEFORE_BLOCK_EXEC_INVALIDATE_OPT)
        && !invalidated && wants_invalidation(cs, ra)) {
        invalidated = true;
        tb_phys_invalidate(block->tb, -1);
        panda_vcpu.unwinding = true;
        cpu_restore_state(cs, ra);
        panda_vcpu.unwinding = false;
        cpu_loop_exit_noexc(cs);
    }
    invalidated = false;
    if (unlikely(panda_vcpu.skip_block)) {
        panda_vcpu.skip_block = false;
    } else {
        panda_event_enter(cs, PANDA_PLACE_BLOCK_START, panda_vcpu.tb.pc, ra);
        PANDA_FOR_EACH(c, PANDA_CB_BEFORE_BLOCK_EXEC) {
            PANDA_CALL_OFTEN(c, (), before_block_exec, &panda_vcpu.pub,
                             &panda_vcpu.tb);
        }
        PANDA_FOR_EACH(c, PANDA_CB_START_BLOCK_EXEC) {
            PANDA_CALL_OFTEN(c, (), start_block_exec, &panda_vcpu.pub,
                             &panda_vcpu.tb);
        }
        panda_event_leave(cs);
    }
    running_tb = panda_vcpu.tb;
    running = true;
}

static void block_end(CPUArchState *env, uint32_t index)
{
    CPUState *cs = env_cpu(env);
    uintptr_t ra = GETPC();
    PandaCallback *c;

    if (!running) {
        return;
    }
    running = false;
    if (!panda_wanted(PANDA_CB_END_BLOCK_EXEC)
        && !panda_wanted(PANDA_CB_AFTER_BLOCK_EXEC)) {
        return;
    }
    panda_vcpu.tb = running_tb;
    panda_event_enter(cs, PANDA_PLACE_BLOCK_END, panda_arch_get_pc(cs), ra);
    PANDA_FOR_EACH(c, PANDA_CB_END_BLOCK_EXEC) {
        PANDA_CALL_OFTEN(c, (), end_block_exec, &panda_vcpu.pub,
                         &panda_vcpu.tb);
    }
    PANDA_FOR_EACH(c, PANDA_CB_AFTER_BLOCK_EXEC) {
        PANDA_CALL_OFTEN(c, (index), after_block_exec, &panda_vcpu.pub,
                         &panda_vcpu.tb, index);
    }
    panda_event_leave(cs);
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
                | dh_typemask(i32, 2),
};

bool __wrap_plugin_gen_tb_start(CPUState *cs, const DisasContextBase *db);
bool __wrap_plugin_gen_tb_start(CPUState *cs, const DisasContextBase *db)
{
    uint32_t cflags = tb_cflags(db->tb);

    translating = NULL;
    panda_insn_block_start(db);
    if (!(cflags & PANDA_CF_ALL)) {
        return false;
    }
    if (cflags & PANDA_CF_MEM) {
        panda_mem_block_start(db);
    }
    /* CF_MEMI_ONLY: one instruction of a block that has begun already. */
    if ((cflags & PANDA_CF_BLOCK) && !(cflags & CF_MEMI_ONLY)) {
        translating = g_new0(PandaBlock, 1);
        translating->tb = db->tb;
        translating->pub.pc = db->pc_first;
        translating->next = blocks;
        blocks = translating;
        tcg_gen_call2(block_start, &block_start_info, NULL,
                      tcgv_ptr_temp(tcg_env),
                      tcgv_ptr_temp(tcg_constant_ptr(translating)));
    }
    return true;
}

void __wrap_plugin_gen_tb_end(CPUState *cs, size_t num_insns);
void __wrap_plugin_gen_tb_end(CPUState *cs, size_t num_insns)
{
    if (translating) {
        panda_tb_fill(&translating->pub, translating->tb,
                      translating->pub.pc);
        translating->pub.icount = num_insns;
    }
}

static void emit_block_end(unsigned index)
{
    panda_insn_block_exit();
    if (translating && tcg_ctx->gen_tb == translating->tb) {
        tcg_gen_call2(block_end, &block_end_info, NULL,
                      tcgv_ptr_temp(tcg_env),
                      tcgv_i32_temp(tcg_constant_i32(index)));
    }
}

void __real_tcg_gen_goto_tb(unsigned index);
void __wrap_tcg_gen_goto_tb(unsigned index);
void __wrap_tcg_gen_goto_tb(unsigned index)
{
    emit_block_end(index);
    __real_tcg_gen_goto_tb(index);
}

void __real_tcg_gen_lookup_and_goto_ptr(void);
void __wrap_tcg_gen_lookup_and_goto_ptr(void);
void __wrap_tcg_gen_lookup_and_goto_ptr(void)
{
    emit_block_end(0);
    __real_tcg_gen_lookup_and_goto_ptr();
}

void __real_tcg_gen_exit_tb(const TranslationBlock *tb, unsigned index);
void __wrap_tcg_gen_exit_tb(const TranslationBlock *tb, unsigned index);
void __wrap_tcg_gen_exit_tb(const TranslationBlock *tb, unsigned index)
{
    /* With a block it follows a goto_tb, which has the call already. */
    if (!tb) {
        emit_block_end(0);
    }
    __real_tcg_gen_exit_tb(tb, index);
}
