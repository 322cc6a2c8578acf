/*
 * Hypercalls: an instruction by which a program in the guest speaks to the
 * host.
 *
 * x86 has a helper for its instruction, cpuid. All others are recognised here
 * before QEMU decodes them, and a call is emitted in front; whether QEMU then
 * finds a no-operation or an undefined instruction makes no difference.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/hypercall.h"
#include "exec/exec-all.h"
#include "tcg/insn-start-words.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"

bool panda_raise_hypercall(CPUState *cs, PandaPlace place, uint64_t pc,
                           uintptr_t ra)
{
    bool handled = false;
    PandaCallback *c;

    panda_event_enter(cs, place, pc, ra);
    PANDA_FOR_EACH(c, PANDA_CB_GUEST_HYPERCALL) {
        handled |= PANDA_CALL(c, guest_hypercall, &panda_vcpu.pub);
    }
    return handled;
}

#ifdef TARGET_I386

void panda_hypercall_insn_start(CPUState *cs, const DisasContextBase *db)
{
}

#else

/*
 * The block is left before the instruction, and it is met again: its event was
 * delivered.
 */
static bool skip;
static uint64_t skip_pc;

static void hypercall(CPUArchState *env, uint64_t translated_pc)
{
    CPUState *cs = env_cpu(env);
    uint64_t words[TARGET_INSN_START_WORDS];
    uintptr_t ra = GETPC();
    PandaVcpu *v = &panda_vcpu;
    uint64_t pc, next;

    if (!panda_wanted(PANDA_CB_GUEST_HYPERCALL)) {
        return;
    }
    pc = panda_exact_pc(cs, translated_pc);
    if (skip) {
        skip = false;
        if (skip_pc == pc) {
            return;
        }
    }
    if (!cpu_unwind_state_data(cs, ra, words)
        || !panda_arch_hypercall_next(cs, pc, words, &next)) {
        return;
    }
    if (panda_raise_hypercall(cs, PANDA_PLACE_INSN, pc, ra)
        && !(v->requests & PANDA_REQUEST_SET_PC)
        && pc == panda_arch_get_pc(cs)) {
        panda_set_pc(&v->pub, next);
    }
    skip = v->requests && !(v->requests & PANDA_REQUEST_SET_PC)
           && pc == panda_arch_get_pc(cs);
    skip_pc = pc;
    panda_event_leave(cs);
}

/* Flags 0: registers are written to env before the call, read back after. */
static TCGHelperInfo hypercall_info = {
    .name = "panda_hypercall",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i64, 2),
};

static void fetch(CPUState *cs, const DisasContextBase *db, PandaCode *code,
                  unsigned first)
{
    for (unsigned i = first; i < first + 2; i++) {
        /* It notes pages it has come to, as it will for QEMU's decoder. */
        code->byte[i] = translator_ldub(cpu_env(cs), (DisasContextBase *)db,
                                        db->pc_next + i);
    }
}

void panda_hypercall_insn_start(CPUState *cs, const DisasContextBase *db)
{
    PandaCode code = {};

    /* Device memory must be read once only: by the decoder. */
    if (tb_page_addr0(db->tb) == -1 || (tb_cflags(db->tb) & CF_MEMI_ONLY)) {
        return;
    }
    fetch(cs, db, &code, 0);
    if (!panda_arch_hypercall_begins(db, &code)) {
        return;
    }
    fetch(cs, db, &code, 2);
    if (panda_arch_is_hypercall(db, &code)) {
        tcg_gen_call2(hypercall, &hypercall_info, NULL,
                      tcgv_ptr_temp(tcg_env),
                      tcgv_i64_temp(tcg_constant_i64(db->pc_next)));
    }
}

#endif
