/*
 * The virtual CPU as callbacks see it, and what they may ask of it.
 *
 * A callback may run below a frame of the host language, so nothing it calls
 * may jump: it only notes requests. They are served when all callbacks of the
 * event have returned and the frames above are generated code and our own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/machine.h"
#include "core/block_events.h"
#include "core/branches.h"
#include "core/guest_clock.h"
#include "core/listeners.h"
#include "core/limit.h"
#include "record/record.h"
#include "exec/exec-all.h"
#include "exec/cpu-common.h"
#include "exec/tb-flush.h"

PandaVcpu panda_vcpu;

void panda_vcpu_setup(CPUState *cs)
{
    panda_vcpu.cs = cs;
    panda_vcpu.pub.env_ptr = cpu_env(cs);
    panda_vcpu.pub.cpu_index = cs->cpu_index;
    panda_vcpu.pub.exception_index = -1;
}

PandaCPU *panda_get_cpu(void)
{
    return &panda_vcpu.pub;
}

PandaTB *panda_get_tb(void)
{
    return &panda_vcpu.tb;
}

uint8_t *panda_get_mem_buf(void)
{
    return panda_vcpu.mem_buf;
}

/* Let the register file show a pc; the CPU does not go there. */
static void show_pc(CPUState *cs, uint64_t pc)
{
#ifdef TARGET_MIPS
    /* To set it would end a branch whose delay slot is to come. */
    cpu_env(cs)->active_tc.PC = pc;
#else
    panda_arch_set_pc(cs, pc);
#endif
}

void panda_event_enter(CPUState *cs, PandaPlace place, uint64_t pc,
                       uintptr_t ra)
{
    PandaVcpu *v = &panda_vcpu;

    panda_guest_clock_pause();
    v->place = place;
    v->ra = ra;
    v->pub.panda_guest_pc = pc;
    v->pub.exception_index = cs->exception_index;
    v->pub.halted = cs->halted;
    if (panda_place_is_exact(place)) {
        /* Show the exact pc in the register file too. */
        v->env_pc = panda_arch_get_pc(cs);
        show_pc(cs, pc);
    }
    qatomic_set(&v->pub.in_callback, 1);
    if (panda_rr_on()) {
        panda_count_event();
    }
}

static void serve_requests(CPUState *cs, PandaPlace place)
{
    PandaVcpu *v = &panda_vcpu;
    uint32_t requests = v->requests;
    uint64_t pc = (requests & PANDA_REQUEST_SET_PC) ? v->requested_pc
                                                    : v->pub.panda_guest_pc;

    v->requests = 0;
    if (requests & PANDA_REQUEST_EXIT_LOOP) {
        qatomic_set(&cs->exit_request, true);
    }
    switch (place) {
    case PANDA_PLACE_OUTSIDE:
        if (requests & PANDA_REQUEST_SET_PC) {
            panda_arch_set_pc(cs, pc);
        }
        return;
    case PANDA_PLACE_TRANSLATION:
    case PANDA_PLACE_HELPER:
        /* Cannot be left here: the next block's start sees the request. */
        cpu_exit(cs);
        return;
    case PANDA_PLACE_MEM:
        if (!(requests & PANDA_REQUEST_SET_PC)) {
            /* Half an instruction must not run twice. */
            cpu_exit(cs);
            return;
        }
        break;
    case PANDA_PLACE_BLOCK_END:
        if (!(requests & PANDA_REQUEST_SET_PC)) {
            cpu_exit(cs);
            return;
        }
        break;
    case PANDA_PLACE_BLOCK_ASKED:
    case PANDA_PLACE_AFTER_INSN:
        break;
    case PANDA_PLACE_INSN:
        if (!(requests & PANDA_REQUEST_SET_PC)) {
            /* The instruction is met again: its event was delivered. */
            v->skip_insn = true;
            v->skip_insn_pc = pc;
            panda_live_ask(true);
        }
        break;
    case PANDA_PLACE_BLOCK_START:
        if (requests == PANDA_REQUEST_RETRANSLATE) {
            v->skip_block = true;
            panda_live_ask(true);
        }
        break;
    }

    if (place >= PANDA_PLACE_BLOCK_START && place <= PANDA_PLACE_INSN) {
        panda_limit_retract();
    }
    panda_block_left();
    if (place == PANDA_PLACE_MEM) {
        /* If it was a call or return, it is given up. */
        panda_branch_forget();
    }
    if (place != PANDA_PLACE_BLOCK_END) {
        /* Lazily kept state and the instruction count, as of here. */
        v->unwinding = true;
        cpu_restore_state(cs, v->ra);
        v->unwinding = false;
    }
    v->uncounted = false;
    panda_arch_apply_pending(cs);
    if ((requests & PANDA_REQUEST_SET_PC) || panda_arch_get_pc(cs) != pc) {
        /* Not else: a MIPS CPU in a delay slot would forget its branch. */
        panda_arch_set_pc(cs, pc);
    }
    cpu_loop_exit_noexc(cs);
}

void panda_event_leave(CPUState *cs)
{
    PandaVcpu *v = &panda_vcpu;
    PandaPlace place = v->place;

    qatomic_set(&v->pub.in_callback, 0);
    v->place = PANDA_PLACE_OUTSIDE;
    if (panda_place_is_exact(place)) {
        uint64_t pc = panda_arch_get_pc(cs);

        if (unlikely(pc != v->pub.panda_guest_pc)
            && !(v->requests & PANDA_REQUEST_SET_PC)
            && (v->requests || place >= PANDA_PLACE_INSN)) {
            /* A callback wrote the pc in the register file. */
            v->requests |= PANDA_REQUEST_SET_PC;
            v->requested_pc = pc;
        }
        show_pc(cs, v->env_pc);
    }
    panda_guest_clock_go_on();
    if (unlikely(v->requests)) {
        serve_requests(cs, place);
    }
}

/* ---- requests ---- */

void panda_do_break_exec(void)
{
    if (panda_in_vcpu_thread() && panda_vcpu.pub.in_callback) {
        panda_vcpu.requests |= PANDA_REQUEST_BREAK;
    } else if (panda_vcpu.cs) {
        cpu_exit(panda_vcpu.cs);
    }
}

void panda_exit_cpu_loop(void)
{
    if (panda_in_vcpu_thread() && panda_vcpu.pub.in_callback) {
        panda_vcpu.requests |= PANDA_REQUEST_EXIT_LOOP;
    } else if (panda_vcpu.cs) {
        cpu_exit(panda_vcpu.cs);
    }
}

static void flush(CPUState *cs, run_on_cpu_data data)
{
    tb_flush(cs);
}

void panda_do_flush_tb(void)
{
    if (panda_vcpu.cs) {
        /* Never under a running block: tb_flush() would do it at once. */
        async_safe_run_on_cpu(panda_vcpu.cs, flush, RUN_ON_CPU_NULL);
    }
}
