/*
 * Exceptions that are about to be delivered to the guest.
 *
 * Outside of the translated code: the state is exact, no block is running.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/block_events.h"
#include "core/branches.h"
#include "core/stream.h"
#include "exec/cpu-common.h"
#include "system/replay.h"

/* The exception the callbacks want; the first that changes it decides. */
static int32_t ask(CPUState *cs)
{
    int32_t index = cs->exception_index;
    int32_t wanted = index;
    PandaCallback *c;

    panda_event_enter(cs, PANDA_PLACE_OUTSIDE, panda_arch_get_pc(cs), 0);
    PANDA_FOR_EACH(c, PANDA_CB_BEFORE_HANDLE_EXCEPTION) {
        int32_t result = PANDA_CALL(c, before_handle_exception,
                                    &panda_vcpu.pub, index);

        /* One that has failed closed the gate, and its result means nothing. */
        if (wanted == index && !qatomic_read(&panda_gate_closed)) {
            wanted = result;
        }
    }
    panda_event_leave(cs);
    return wanted;
}

/* Called just before an exception is delivered, and nowhere else. */
bool __real_replay_exception(void);
bool __wrap_replay_exception(void);
bool __wrap_replay_exception(void)
{
    CPUState *cs = current_cpu;

    /* If one was, it was left for this exception. */
    panda_delivering_interrupt = false;
    /* While the registers are still those of the block that was left. */
    panda_block_finish_early(cs);
    panda_branch_interrupted(cs);
    if (panda_wanted(PANDA_CB_BEFORE_HANDLE_EXCEPTION)) {
        int32_t wanted = ask(cs);

        if (wanted < 0 || wanted >= EXCP_INTERRUPT) {
            /*
             * Not delivered: the loop is left and entered anew, and looks at
             * the index then.
             */
            cs->exception_index = wanted < 0 ? -1 : wanted;
#ifdef TARGET_I386
            /* Else the next one would be taken for a fault within this one. */
            cpu_env(cs)->old_exception = -1;
#endif
            return false;
        }
        cs->exception_index = wanted;
    }
    if (panda_streamed_kinds & BIT(PANDA_STREAM_EXCEPTION)) {
        panda_stream_exception(panda_arch_get_pc(cs), panda_arch_in_kernel(cs),
                               cs->exception_index, false);
    }
    return __real_replay_exception();
}
