/*
 * Exact counts of executed instructions, while time is the host's.
 *
 * QEMU counts for -icount only, which makes instructions the guest's clock and
 * is for a whole run. Here it is just the counting, switched on and off while
 * the machine is stopped (patch 0002).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "core/limit.h"
#include "exec/cpu-common.h"
#include "exec/cputlb.h"
#include "exec/exec-all.h"
#include "exec/tb-flush.h"
#include "exec/translator.h"
#include "internal-common.h"
#include "qemu/seqlock.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "system/cpu-timers.h"
#include "system/cpu-timers-internal.h"
#include "tb-internal.h"

/* Declared in patch 0002. */
extern bool panda_counting;
bool panda_counting;

/* Declared in patch 0004: a time that stands still leaves the TLB's size. */
int64_t panda_tlb_clock(void);
int64_t panda_tlb_clock(void)
{
    return panda_counting ? 0 : g_get_monotonic_time() * 1000;
}

void panda_tlb_forget(CPUState *cs)
{
    tlb_destroy(cs);
    tlb_init(cs);
    tcg_flush_jmp_cache(cs);
}

/* ---- string instructions ---- */

/*
 * x86's repeat until they come to a multiple of 65536, or to the end. Where
 * instructions are counted, QEMU makes one block of each iteration, for the
 * guest's clock, and leaves the translated code after it. Here one pass is one
 * instruction, as it is where nothing is counted; it was not so in recordings
 * of format 1.
 *
 * The front end looks at the block's flag, and what counts has looked at it
 * before: it is taken away in between.
 */
static bool by_iteration;
static TranslationBlock *hidden;

void panda_count_as_in_format(int64_t major)
{
    by_iteration = major < 2;
    panda_lookup_use(major >= 3);
}

void panda_count_hide(TranslationBlock *tb)
{
    if (!by_iteration && tb->cflags & CF_USE_ICOUNT) {
        tb->cflags &= ~CF_USE_ICOUNT;
        hidden = tb;
    }
}

static void show(TranslationBlock *tb)
{
    if (hidden == tb) {
        tb->cflags |= CF_USE_ICOUNT;
        hidden = NULL;
    }
}

void __real_translator_loop(CPUState *cs, TranslationBlock *tb,
                            int *max_insns, vaddr pc, void *host_pc,
                            const TranslatorOps *ops, DisasContextBase *db);
void __wrap_translator_loop(CPUState *cs, TranslationBlock *tb,
                            int *max_insns, vaddr pc, void *host_pc,
                            const TranslatorOps *ops, DisasContextBase *db);
void __wrap_translator_loop(CPUState *cs, TranslationBlock *tb,
                            int *max_insns, vaddr pc, void *host_pc,
                            const TranslatorOps *ops, DisasContextBase *db)
{
    /* The last attempt may have been given up by a jump. */
    show(tb);
    hidden = NULL;
    __real_translator_loop(cs, tb, max_insns, pc, host_pc, ops, db);
    show(tb);
}

/* ---- on and off ---- */

/* Nothing that translated code or the TLB remember may differ in a replay. */
static void forget_translations(CPUState *cs)
{
    tb_flush(cs);
    panda_tlb_forget(cs);
}

static void switch_counting(CPUState *cs, run_on_cpu_data on)
{
    hidden = NULL;
    panda_counting = on.host_int;
    panda_lookup_switch(panda_counting);
    if (panda_counting) {
        cs->tcg_cflags |= CF_USE_ICOUNT;
        timers_state.qemu_icount = 0;
        cs->icount_budget = 0;
        cs->icount_extra = 0;
    } else {
        cs->tcg_cflags &= ~CF_USE_ICOUNT;
    }
    forget_translations(cs);
    cs->neg.icount_decr.u32 = 0;
    cs->neg.icount_decr.u16.low = 0;
}

void panda_count_switch(bool on)
{
    run_on_cpu(panda_vcpu.cs, switch_counting, RUN_ON_CPU_HOST_INT(on));
}

uint64_t panda_count_raw(void)
{
    CPUState *cs = panda_vcpu.cs;

    return timers_state.qemu_icount
        + (cs->icount_budget
           - (cs->neg.icount_decr.u16.low + cs->icount_extra));
}

int __real_tcg_cpu_exec(CPUState *cs);

int panda_count_exec(CPUState *cs, int64_t budget)
{
    int low = MIN(INT32_MAX, budget);
    int result;

    cs->icount_budget = budget;
    cs->neg.icount_decr.u16.low = low;
    cs->icount_extra = budget - low;
    panda_rr_depth = 0;
    panda_rr_in_exec = true;
    result = __real_tcg_cpu_exec(cs);
    panda_rr_in_exec = false;
    icount_update(cs);
    cs->neg.icount_decr.u16.low = 0;
    cs->icount_extra = 0;
    cs->icount_budget = 0;
    return result;
}

/* ---- the count, as callbacks see it ---- */

void panda_count_event(void)
{
    PandaVcpu *v = &panda_vcpu;

    v->pub.rr_guest_instr_count =
        v->place == PANDA_PLACE_BLOCK_START || v->place == PANDA_PLACE_BLOCK_ASKED
        /* The whole block is counted, nothing of it has run. */
        ? panda_count_raw() - v->tb.icount : panda_rr_count();
}

uint64_t panda_rr_count(void)
{
    PandaVcpu *v = &panda_vcpu;
    CPUState *cs = v->cs;
    uint64_t count;
    int low;

    if (!panda_counting) {
        return 0;
    }
    count = panda_count_raw();
    if (!panda_in_vcpu_thread() || !v->pub.in_callback || !v->ra) {
        return count;
    }
    /*
     * The whole block that runs is counted already. Unwinding gives back what
     * has not been executed; only that is wanted of it.
     */
    low = cs->neg.icount_decr.u16.low;
    v->probing = true;
    cpu_restore_state(cs, v->ra);
    v->probing = false;
    count -= cs->neg.icount_decr.u16.low - low;
    cs->neg.icount_decr.u16.low = low;
    return count;
}
