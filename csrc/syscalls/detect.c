/*
 * Where system calls are made and where they return to, found when guest code
 * is translated.
 *
 * Nothing is emitted but before an instruction that makes a call, and at the
 * start of a block of a user program that such an instruction precedes. So
 * blocks stay chained, and no address has to be watched for a return.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "syscalls/syscalls.h"
#include "core/listeners.h"
#include "core/stream.h"
#include "exec/cpu-common.h"
#include "exec/exec-all.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"

/*
 * The block was left before the instruction, and it is met again: its event was
 * delivered.
 */
static bool skip;
static uint64_t skip_pc;

/* A program may have been replaced: look when its code is about to run. */
static bool look_at_user;

static uint8_t wanted(unsigned abi, uint32_t number,
                      PandaSyscallEntry **entry)
{
    uint8_t want = qatomic_read(&panda_syscalls_all);
    uint8_t *its;

    *entry = panda_syscall_entry(abi, number);
    its = *entry ? &(*entry)->want : &panda_syscalls_unknown;
    return want | qatomic_read(its);
}

/* packed: the next instruction's distance, and what the architecture noted */
#define HOW_SHIFT 8

static void syscall_made(CPUArchState *env, uint64_t translated_pc,
                         uint32_t packed)
{
    CPUState *cs = env_cpu(env);
    unsigned how = packed >> HOW_SHIFT, abi;
    PandaVcpu *v = &panda_vcpu;
    uintptr_t ra = GETPC();
    PandaSyscallEntry *entry;
    PandaSyscallCall call;
    uint32_t number;
    uint8_t want;

    if (!panda_arch_syscall_number(cs, how, &abi, &number)) {
        return;
    }
    want = wanted(abi, number, &entry);
    if (likely(!want && !skip)) {
        return;
    }
    call.pc = panda_exact_pc(cs, translated_pc);
    if (skip) {
        skip = false;
        if (skip_pc == call.pc) {
            if (v->skip_insn && v->skip_insn_pc == call.pc) {
                v->skip_insn = false;
                panda_live_ask(false);
            }
            return;
        }
    }
    call.entry = entry;
    call.number = number;
    call.abi = abi;
    call.how = how;
    call.return_pc = call.pc + (packed & MAKE_64BIT_MASK(0, HOW_SHIFT));
    call.sp = panda_arch_get_sp(cs);
    call.asid = panda_arch_get_asid(cs);
    call.task = panda_syscall_task(cs);
    call.thread = call.caller = panda_syscall_thread(cs, call.task);
    panda_arch_syscall_slots(cs, abi, how, call.slots);
    if (panda_syscall_push(&call) && (want & PANDA_WANT_ENTER)
        && panda_syscall_deliver(cs, &call, PANDA_SYSCALL_ENTER, 0,
                                 PANDA_PLACE_INSN, call.pc, ra)) {
        bool leaves = (v->requests & PANDA_REQUEST_SET_PC)
            || call.pc != panda_arch_get_pc(cs);

        if (leaves) {
            panda_syscall_withdraw(&call);
        }
        skip = v->requests && !leaves;
        skip_pc = call.pc;
        panda_event_leave(cs);
    }
}

static void syscall_returned(CPUArchState *env, uint64_t translated_pc)
{
    CPUState *cs = env_cpu(env);
    uintptr_t ra = GETPC();
    PandaSyscallCall call;
    PandaSyscallPhase phase;
    int64_t result;
    uint64_t pc;

    if (!panda_syscalls_pending && !panda_syscalls_forks) {
        return;
    }
    pc = cs->tcg_cflags & CF_PCREL ? panda_arch_get_pc(cs) : translated_pc;
    if (panda_syscall_pop(cs, pc, &call, &phase, &result)
        && panda_syscall_deliver(cs, &call, phase, result,
                                 PANDA_PLACE_BLOCK_ASKED, pc, ra)) {
        panda_event_leave(cs);
    }
}

/* Flags 0: registers are written to env before the call, read back after. */
static TCGHelperInfo made_info = {
    .name = "panda_syscall_made",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i64, 2) | dh_typemask(i32, 3),
};

static TCGHelperInfo returned_info = {
    .name = "panda_syscall_returned",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i64, 2),
};

/* ---- at translation ---- */

static bool is_wanted(void)
{
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        if (l->points & BIT(PANDA_POINT_SYSCALL)) {
            return true;
        }
    }
    return false;
}

void panda_syscall_insn_start(CPUState *cs, const DisasContextBase *db,
                              const PandaBlock *block)
{
    unsigned next, how = 0;

    /* Device memory must be read once only: by the decoder. */
    if (block->kernel || !is_wanted() || tb_page_addr0(db->tb) == -1
        || !panda_arch_syscall(cs, db, &next, &how)) {
        return;
    }
    tcg_gen_call3(syscall_made, &made_info, NULL, tcgv_ptr_temp(tcg_env),
                  tcgv_i64_temp(tcg_constant_i64(db->pc_next)),
                  tcgv_i32_temp(tcg_constant_i32(next | how << HOW_SHIFT)));
}

void panda_syscall_block_start(const DisasContextBase *db,
                               const PandaBlock *block)
{
    const uint8_t *host = db->host_addr[0];

    if (block->kernel || !is_wanted() || tb_page_addr0(db->tb) == -1 || !host
        || !panda_arch_syscall_before(db, host,
                                      db->pc_first & ~TARGET_PAGE_MASK)) {
        return;
    }
    tcg_gen_call2(syscall_returned, &returned_info, NULL,
                  tcgv_ptr_temp(tcg_env),
                  tcgv_i64_temp(tcg_constant_i64(db->pc_first)));
}

/* ---- execve() ---- */

/*
 * A program that execve() has put in place begins somewhere. So when its
 * kernel returns to it, the execution loop is left before the program's first
 * instruction.
 */
void panda_syscall_user_next(CPUState *cs)
{
    if (panda_syscall_exec_done(cs)) {
        look_at_user = true;
        cpu_exit(cs);
    }
}

void panda_syscall_loop_left(CPUState *cs)
{
    PandaSyscallCall call;

    if (look_at_user && !panda_arch_in_kernel(cs)) {
        look_at_user = false;
        if (panda_syscall_pop_exec(cs, &call)
            && panda_syscall_deliver(cs, &call, PANDA_SYSCALL_RETURN, 0,
                                     PANDA_PLACE_OUTSIDE,
                                     panda_arch_get_pc(cs), 0)) {
            panda_event_leave(cs);
        }
    }
}

void panda_syscalls_loaded(void)
{
    skip = false;
    look_at_user = false;
    panda_syscalls_forget();
}
