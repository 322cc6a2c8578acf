/*
 * Events of single guest instructions.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/block_events.h"
#include "core/branches.h"
#include "core/emit.h"
#include "core/hypercall.h"
#include "core/listeners.h"
#include "core/limit.h"
#include "core/python.h"
#include "hooks/hooks.h"
#include "exec/exec-all.h"
#include "exec/plugin-gen.h"
#include "syscalls/syscalls.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"

static const DisasContextBase *context;

/*
 * after_insn_exec is emitted where the next instruction begins, because there
 * the lazily kept state of the CPU is known; or where the block ends.
 */
static bool after_pending;
static uint64_t after_pc;

static void insn_exec(CPUArchState *env, uint64_t translated_pc,
                      uint64_t mask)
{
    CPUState *cs = env_cpu(env);
    uint64_t pc = panda_exact_pc(cs, translated_pc);
    PandaVcpu *v = &panda_vcpu;
    uintptr_t ra = GETPC();
    PandaCallback *c;

    if (unlikely(v->skip_insn)) {
        v->skip_insn = false;
        panda_live_ask(false);
        if (v->skip_insn_pc == pc) {
            panda_give_back(mask);
            return;
        }
    }
    v->pass = panda_take(mask, pc, 0, v->block_pc, NULL, NULL);
    if (!v->pass) {
        return;
    }
    panda_event_enter(cs, PANDA_PLACE_INSN, pc, ra);
    PANDA_FOR_EACH(c, PANDA_CB_INSN_EXEC) {
        PANDA_CALL_OFTEN(c, (pc), insn_exec, &v->pub, pc);
    }
    panda_event_leave(cs);
}

static void after_insn_exec(CPUArchState *env, uint64_t translated_pc,
                            uint32_t at_end, uint64_t mask)
{
    CPUState *cs = env_cpu(env);
    uintptr_t ra = GETPC();
    PandaVcpu *v = &panda_vcpu;
    PandaCallback *c;
    uint64_t pc;

    if (!(qatomic_read(&panda_live) & mask)) {
        return;
    }
    /* Without CF_PCREL the pc in env is kept up at some exits only. */
    pc = at_end && (cs->tcg_cflags & CF_PCREL)
        ? panda_arch_get_pc(cs) : panda_exact_pc(cs, translated_pc);
    v->pass = panda_take(mask, pc, 0, v->block_pc, NULL, NULL);
    if (!v->pass) {
        return;
    }
    panda_event_enter(cs, at_end ? PANDA_PLACE_BLOCK_END
                                 : PANDA_PLACE_AFTER_INSN,
                      pc, ra);
    PANDA_FOR_EACH(c, PANDA_CB_AFTER_INSN_EXEC) {
        PANDA_CALL_OFTEN(c, (pc), after_insn_exec, &panda_vcpu.pub, pc);
    }
    panda_event_leave(cs);
}

static TCGHelperInfo insn_exec_info = {
    .name = "panda_insn_exec",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i64, 2) | dh_typemask(i64, 3),
};

static TCGHelperInfo after_insn_exec_info = {
    .name = "panda_after_insn_exec",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i64, 2) | dh_typemask(i32, 3)
                | dh_typemask(i64, 4),
};

void panda_insn_block_start(const DisasContextBase *db)
{
    context = db;
    after_pending = false;
}

static void emit_after(bool at_end)
{
    if (after_pending) {
        after_pending = false;
        uint64_t mask = panda_point_mask(PANDA_POINT_AFTER_INSN, after_pc,
                                         panda_block_translating()->kernel);

        if (mask) {
            tcg_gen_call4(after_insn_exec, &after_insn_exec_info, NULL,
                          tcgv_ptr_temp(tcg_env),
                          tcgv_i64_temp(tcg_constant_i64(after_pc)),
                          tcgv_i32_temp(tcg_constant_i32(at_end)),
                          tcgv_i64_temp(tcg_constant_i64(mask)));
        }
    }
}

void panda_insn_block_exit(void)
{
    emit_after(true);
}

/* After all that may leave the block before the instruction. */
static void note_insn(CPUState *cs, const DisasContextBase *db)
{
    PandaBlock *block = panda_block_translating();

    if (block && (tb_cflags(db->tb) & PANDA_CF_BLOCK)
        && !(tb_cflags(db->tb) & CF_MEMI_ONLY)) {
        panda_syscall_insn_start(cs, db, block);
        panda_branch_insn_start(cs, db, block);
    }
}

void __wrap_plugin_gen_insn_start(CPUState *cs, const DisasContextBase *db);
void __wrap_plugin_gen_insn_start(CPUState *cs, const DisasContextBase *db)
{
    uint32_t cflags = tb_cflags(db->tb);
    uint64_t pc = db->pc_next;
    PandaBlock *block = panda_block_translating();
    bool wanted = false;
    PandaCallback *c;
    PandaListener *l;
    uint64_t mask;

    emit_after(false);
    if (block && block->insns) {
        uint32_t offset = pc - block->pub.pc;

        g_array_append_val(block->insns, offset);
    }
    panda_limit_insn_start(db);
    if (cflags & PANDA_CF_MEM) {
        panda_mem_insn_start(pc, block->kernel);
    }
    if (!(cflags & PANDA_CF_INSN)) {
        panda_hooks_insn_start(db, block);
        note_insn(cs, db);
        return;
    }
    if (panda_wanted(PANDA_CB_INSN_TRANSLATE)) {
        panda_event_enter(cs, PANDA_PLACE_TRANSLATION, pc, 0);
        PANDA_FOR_EACH(c, PANDA_CB_INSN_TRANSLATE) {
            wanted |= PANDA_CALL(c, insn_translate, &panda_vcpu.pub, pc);
        }
        panda_event_leave(cs);
    }
    /* The instruction is run again for its I/O. */
    if (cflags & CF_MEMI_ONLY) {
        return;
    }
    mask = wanted ? panda_point_mask(PANDA_POINT_INSN, pc, block->kernel) : 0;
    if (mask) {
        TCGLabel *skip = panda_emit_guard(mask | PANDA_ASK, NULL);

        tcg_gen_call3(insn_exec, &insn_exec_info, NULL,
                      tcgv_ptr_temp(tcg_env),
                      tcgv_i64_temp(tcg_constant_i64(pc)),
                      tcgv_i64_temp(tcg_constant_i64(mask)));
        gen_set_label(skip);
    }
    PANDA_FOR_EACH_LISTENER(l) {
        if (l->emit && panda_listener_may_want(l, PANDA_POINT_INSN, pc,
                                               block->kernel)) {
            l->emit(l, PANDA_POINT_INSN, block, pc);
        }
    }
    panda_hooks_insn_start(db, block);
    panda_hypercall_insn_start(cs, db);
    note_insn(cs, db);
}

void __wrap_plugin_gen_insn_end(void);
void __wrap_plugin_gen_insn_end(void)
{
    CPUState *cs = current_cpu;
    bool wanted = false;
    PandaCallback *c;

    if (!(tb_cflags(context->tb) & PANDA_CF_INSN)
        || !panda_wanted(PANDA_CB_AFTER_INSN_TRANSLATE)) {
        return;
    }
    panda_event_enter(cs, PANDA_PLACE_TRANSLATION, context->pc_next, 0);
    PANDA_FOR_EACH(c, PANDA_CB_AFTER_INSN_TRANSLATE) {
        wanted |= PANDA_CALL(c, after_insn_translate, &panda_vcpu.pub,
                             context->pc_next);
    }
    panda_event_leave(cs);
    if (wanted && (context->is_jmp == DISAS_NEXT
                   || context->is_jmp == DISAS_TOO_MANY)) {
        after_pending = true;
        after_pc = context->pc_next;
    }
}
