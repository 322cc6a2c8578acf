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
#include "core/listeners.h"
#include "accel/tcg/cpu-ops.h"
#include "exec/exec-all.h"
#include "qemu/main-loop.h"
#include "system/cpus.h"
#include "system/hw_accel.h"
#include "system/replay.h"

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
    result = __real_cpu_exec(cs);

    RCU_READ_LOCK_GUARD();
    panda_block_finish_early(cs);
    panda_bare_cpu_left(cs, result);
    return result;
}

/* Called just before an exception is delivered, and nowhere else. */
bool __real_replay_exception(void);
bool __wrap_replay_exception(void);
bool __wrap_replay_exception(void)
{
    /* While the registers are still those of the block that was left. */
    panda_block_finish_early(current_cpu);
    return __real_replay_exception();
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

/* ---- unwinding ---- */

static const TCGCPUOps *real_ops;
static TCGCPUOps our_ops;

static void restore_state_to_opc(CPUState *cs, const TranslationBlock *tb,
                                 const uint64_t *data)
{
    PandaCallback *c;

    real_ops->restore_state_to_opc(cs, tb, data);
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
    /* The table belongs to the class; ours differs in one function. */
    if (cs->cc->tcg_ops != &our_ops) {
        real_ops = cs->cc->tcg_ops;
        our_ops = *real_ops;
        our_ops.restore_state_to_opc = restore_state_to_opc;
        panda_bare_install(&our_ops);
        cs->cc->tcg_ops = &our_ops;
    }
    return __real_tcg_exec_realizefn(cs, errp);
}

/* ---- address spaces ---- */

bool panda_raise_asid_changed(CPUState *cs, uint64_t old_value,
                              uint64_t new_value, uintptr_t ra)
{
    bool veto = false;
    uint64_t data[3];
    uint64_t pc;
    PandaCallback *c;

    if (!panda_in_vcpu_thread()) {
        return false;
    }
    if (!panda_wanted(PANDA_CB_ASID_CHANGED)) {
        if (panda_asid_watched) {
            panda_live_asid(new_value);
        }
        return false;
    }
    pc = panda_arch_get_pc(cs);
    if (ra && cpu_unwind_state_data(cs, ra, data)) {
        pc = panda_exact_pc(cs, data[0]);
    }
    panda_event_enter(cs, PANDA_PLACE_HELPER, pc, ra);
    PANDA_FOR_EACH(c, PANDA_CB_ASID_CHANGED) {
        veto |= PANDA_CALL(c, asid_changed, &panda_vcpu.pub, old_value,
                           new_value);
    }
    panda_event_leave(cs);
    if (!veto && panda_asid_watched) {
        panda_live_asid(new_value);
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
    panda_block_left();
    panda_machine_loaded();
}
