/*
 * Events of the CPU that are not tied to a block: the execution loop, address
 * spaces, state restored by unwinding, snapshots loaded.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/machine.h"
#include "core/bare.h"
#include "core/block_events.h"
#include "core/branches.h"
#include "core/listeners.h"
#include "core/stream.h"
#include "introspect/events.h"
#include "introspect/names.h"
#include "introspect/os.h"
#include "record/host_writes.h"
#include "record/recorder.h"
#include "syscalls/syscalls.h"
#include "accel/tcg/cpu-ops.h"
#include "exec/exec-all.h"
#include "qemu/main-loop.h"
#include "system/cpus.h"
#include "system/hw_accel.h"
#include "tcg/insn-start-words.h"
#include "tcg/tcg.h"

/* ---- the execution loop ---- */

int __real_cpu_exec(CPUState *cs);
int __wrap_cpu_exec(CPUState *cs);
int __wrap_cpu_exec(CPUState *cs)
{
    int result;

    if (panda_asid_watched) {
        /* Resets and snapshots change it too. */
        panda_live_asid(panda_arch_get_asid(cs));
    }
    if (unlikely(panda_os_names_poll_due())) {
        panda_os_names_poll(cs);
    }
    if (unlikely(panda_os_events_due)) {
        panda_os_events_poll(cs);
    }
    result = __real_cpu_exec(cs);

    RCU_READ_LOCK_GUARD();
    panda_block_finish_early(cs);
    panda_syscall_loop_left(cs);
    panda_bare_cpu_left(cs, result);
    return result;
}

/* Top of the CPU thread's loop; the big lock is held. */
void __real_qemu_wait_io_event_common(CPUState *cs);
void __wrap_qemu_wait_io_event_common(CPUState *cs);
void __wrap_qemu_wait_io_event_common(CPUState *cs)
{
    PandaCallback *c;

    panda_vcpu_thread_check_end();
    if (panda_vcpu.cs && panda_wanted(PANDA_CB_TOP_LOOP)
        && !qatomic_read(&panda_gate_closed)) {
        /* A callback that takes its time must not stop the main thread. */
        bql_unlock();
        WITH_RCU_READ_LOCK_GUARD() {
            panda_event_enter(cs, PANDA_PLACE_OUTSIDE,
                              panda_arch_get_pc(cs), 0);
            PANDA_FOR_EACH(c, PANDA_CB_TOP_LOOP) {
                PANDA_CALL(c, top_loop, &panda_vcpu.pub);
            }
            panda_event_leave(cs);
        }
        bql_lock();
        panda_vcpu_thread_check_end();
    }
    __real_qemu_wait_io_event_common(cs);
}

/*
 * QEMU's table of what a CPU does differently from others, and ours. These
 * functions of it are called by the loop: after it was entered, unless the CPU
 * is halted, and when it is left.
 */
static const TCGCPUOps *real_ops;
static TCGCPUOps our_ops;

/* What runs translated code, while somebody asks whether it was run. */
static tcg_prologue_fn *real_tb_exec;
static bool watching_blocks;
static bool ran_block;

static uintptr_t note_block(CPUArchState *env, const void *code)
{
    ran_block = true;
    return real_tb_exec(env, code);
}

static void watch_blocks(bool watch)
{
    if (watch && tcg_qemu_tb_exec != note_block) {
        real_tb_exec = tcg_qemu_tb_exec;
        tcg_qemu_tb_exec = note_block;
    } else if (!watch && tcg_qemu_tb_exec == note_block) {
        tcg_qemu_tb_exec = real_tb_exec;
    }
    watching_blocks = watch;
    ran_block = false;
}

static void cpu_exec_enter(CPUState *cs)
{
    PandaCallback *c;

    if (real_ops->cpu_exec_enter) {
        real_ops->cpu_exec_enter(cs);
    }
    watch_blocks(panda_wanted(PANDA_CB_BEFORE_CPU_EXEC_EXIT));
    if (panda_wanted(PANDA_CB_AFTER_CPU_EXEC_ENTER)) {
        panda_event_enter(cs, PANDA_PLACE_OUTSIDE, panda_arch_get_pc(cs), 0);
        PANDA_FOR_EACH(c, PANDA_CB_AFTER_CPU_EXEC_ENTER) {
            PANDA_CALL(c, after_cpu_exec_enter, &panda_vcpu.pub);
        }
        panda_event_leave(cs);
    }
}

static void cpu_exec_exit(CPUState *cs)
{
    PandaCallback *c;

    if (panda_wanted(PANDA_CB_BEFORE_CPU_EXEC_EXIT)) {
        /* If nobody was there to ask at the entry, a block has brought him. */
        bool ran = ran_block || !watching_blocks;

        panda_block_finish_early(cs);
        panda_event_enter(cs, PANDA_PLACE_OUTSIDE, panda_arch_get_pc(cs), 0);
        PANDA_FOR_EACH(c, PANDA_CB_BEFORE_CPU_EXEC_EXIT) {
            PANDA_CALL(c, before_cpu_exec_exit, &panda_vcpu.pub, ran);
        }
        panda_event_leave(cs);
    }
    if (real_ops->cpu_exec_exit) {
        real_ops->cpu_exec_exit(cs);
    }
}

/*
 * An interrupt is being delivered: what some architectures call for that, they
 * call for exceptions too.
 */
bool panda_delivering_interrupt;

/* The big lock is held. */
static bool cpu_exec_interrupt(CPUState *cs, int request)
{
    bool streamed = panda_streamed_kinds & BIT(PANDA_STREAM_EXCEPTION);
    uint64_t pc = 0;
    bool kernel = false;
    bool taken;

    if (panda_rr_replaying() ? !panda_player_interrupts(cs)
        : panda_rr_recording() && panda_host_writes_pending()) {
        return false;
    }
    /* While the registers are still those of the code that is left. */
    panda_block_finish_early(cs);
    panda_branch_interrupted(cs);
    if (streamed) {
        pc = panda_arch_get_pc(cs);
        kernel = panda_arch_in_kernel(cs);
    }
    panda_delivering_interrupt = true;
    taken = real_ops->cpu_exec_interrupt(cs, request);
    panda_delivering_interrupt = false;
    if (taken && panda_rr_on()) {
        panda_rr_step(cs, true);
    }
    if (taken && streamed) {
        panda_stream_exception(pc, kernel, request, true);
    }
    return taken;
}

static void do_interrupt(CPUState *cs)
{
    real_ops->do_interrupt(cs);
    if (panda_rr_on() && !panda_delivering_interrupt) {
        panda_rr_step(cs, false);
    }
}

int __real_tcg_cpu_exec(CPUState *cs);
int __wrap_tcg_cpu_exec(CPUState *cs);
int __wrap_tcg_cpu_exec(CPUState *cs)
{
    switch (qatomic_read(&panda_rr_state)) {
    case PANDA_RR_RECORD:
        return panda_recorder_exec(cs);
    case PANDA_RR_REPLAY:
        return panda_player_exec(cs);
    default:
        return __real_tcg_cpu_exec(cs);
    }
}

/* ---- unwinding ---- */

static void restore_state_to_opc(CPUState *cs, const TranslationBlock *tb,
                                 const uint64_t *data)
{
    PandaCallback *c;

    if (panda_vcpu.probing) {
        return;
    }
    real_ops->restore_state_to_opc(cs, tb, data);
    if (panda_in_vcpu_thread()) {
        panda_block_unwound(tb, data[0]);
    }
    if (panda_wanted(PANDA_CB_CPU_RESTORE_STATE) && !panda_vcpu.unwinding
        && panda_in_vcpu_thread()) {
        uint64_t pc = panda_arch_get_pc(cs);
        /*
         * The pc of a block that may run at several addresses is known by
         * the page only: its first instruction is on that page.
         */
        panda_tb_fill(&panda_vcpu.tb, tb, tb_cflags(tb) & CF_PCREL
                      ? (pc & TARGET_PAGE_MASK)
                        | (tb_page_addr0(tb) & ~TARGET_PAGE_MASK)
                      : tb->pc);
        panda_event_enter(cs, PANDA_PLACE_HELPER, pc, 0);
        PANDA_FOR_EACH(c, PANDA_CB_CPU_RESTORE_STATE) {
            PANDA_CALL(c, cpu_restore_state, &panda_vcpu.pub,
                       &panda_vcpu.tb);
        }
        panda_event_leave(cs);
    }
}

bool __real_tcg_exec_realizefn(CPUState *cs, Error **errp);
bool __wrap_tcg_exec_realizefn(CPUState *cs, Error **errp);
bool __wrap_tcg_exec_realizefn(CPUState *cs, Error **errp)
{
    /* The table belongs to the class; ours differs in some functions. */
    if (cs->cc->tcg_ops != &our_ops) {
        real_ops = cs->cc->tcg_ops;
        our_ops = *real_ops;
        our_ops.restore_state_to_opc = restore_state_to_opc;
        our_ops.cpu_exec_enter = cpu_exec_enter;
        our_ops.cpu_exec_exit = cpu_exec_exit;
        if (real_ops->do_interrupt) {
            our_ops.do_interrupt = do_interrupt;
        }
        if (real_ops->cpu_exec_interrupt) {
            our_ops.cpu_exec_interrupt = cpu_exec_interrupt;
        }
        panda_bare_install(&our_ops);
        cs->cc->tcg_ops = &our_ops;
    }
    return __real_tcg_exec_realizefn(cs, errp);
}

/* ---- address spaces ---- */

uint64_t panda_helper_pc(CPUState *cs, uintptr_t ra)
{
    uint64_t data[TARGET_INSN_START_WORDS];

    if (ra && cpu_unwind_state_data(cs, ra, data)) {
        return panda_exact_pc(cs, data[0]);
    }
    return panda_arch_get_pc(cs);
}

bool panda_raise_asid_changed(CPUState *cs, uint64_t old_value,
                              uint64_t new_value, uintptr_t ra)
{
    bool veto = false;
    PandaCallback *c;
    uint64_t pc;

    if (!panda_in_vcpu_thread()) {
        return false;
    }
    if (!panda_wanted(PANDA_CB_ASID_CHANGED)
        && !(panda_streamed_kinds & BIT(PANDA_STREAM_ASID))) {
        if (panda_asid_watched) {
            panda_live_asid(new_value);
        }
        return false;
    }
    pc = panda_helper_pc(cs, ra);
    panda_event_enter(cs, PANDA_PLACE_HELPER, pc, ra);
    PANDA_FOR_EACH(c, PANDA_CB_ASID_CHANGED) {
        veto |= PANDA_CALL(c, asid_changed, &panda_vcpu.pub, old_value,
                           new_value);
    }
    panda_event_leave(cs);
    if (!veto) {
        if (panda_streamed_kinds & BIT(PANDA_STREAM_ASID)) {
            panda_stream_asid(pc, old_value, new_value);
        }
        if (panda_asid_watched) {
            panda_live_asid(new_value);
        }
    }
    return veto;
}

/* ---- snapshots ---- */

void panda_raise_after_loadvm(void)
{
    PandaCallback *c;

    RCU_READ_LOCK_GUARD();
    PANDA_FOR_EACH(c, PANDA_CB_AFTER_LOADVM) {
        PANDA_CALL(c, after_loadvm, &panda_vcpu.pub);
    }
}

void __real_cpu_synchronize_all_post_init(void);
void __wrap_cpu_synchronize_all_post_init(void);
void __wrap_cpu_synchronize_all_post_init(void)
{
    __real_cpu_synchronize_all_post_init();
    /* Machine creation calls it too, before there is a CPU for callbacks. */
    if (!first_cpu || !phase_check(PHASE_MACHINE_READY)) {
        return;
    }
    panda_vcpu_setup(first_cpu);
    panda_arch_after_loadvm(first_cpu);
    panda_os_doubt();
    panda_block_left();
    panda_branches_loaded();
    panda_syscalls_loaded();
    panda_machine_loaded();
}
