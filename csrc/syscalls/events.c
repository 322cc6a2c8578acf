/*
 * Who wants which system calls, and hands out their events.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "syscalls/syscalls.h"
#include "core/stream.h"

uint8_t panda_syscalls_all, panda_syscalls_unknown;

static PandaSyscallSink *sink;
static uint8_t sink_wants_all;
static int sink_abi = -1;

/* The call whose event is delivered. */
static const PandaSyscallCall *present;
static bool present_is_exec;

/* ---- who wants what ---- */

static bool is_streamed(void)
{
    return qatomic_read(&panda_streamed_kinds) & BIT(PANDA_STREAM_SYSCALL);
}

void panda_syscalls_recount(void)
{
    uint8_t streams = is_streamed() ? PANDA_WANT_ENTER | PANDA_WANT_RETURN : 0;

    qatomic_set(&panda_syscalls_all, streams | sink_wants_all);
}

void panda_syscall_set_sink(PandaSyscallSink *new_sink)
{
    qatomic_set(&sink, new_sink);
}

void panda_syscall_want(unsigned name_id, uint8_t want, int abi)
{
    for (unsigned i = 0; i < panda_syscall_n_abis; i++) {
        PandaSyscallAbi *a = &panda_syscall_abis[i];

        for (uint32_t n = 0; n < a->count + a->n_beyond; n++) {
            PandaSyscallEntry *entry = n < a->count
                ? &a->entries[n] : &a->beyond[n - a->count];

            if (entry->name && entry->name_id == name_id) {
                qatomic_set(&entry->want, abi < 0 || abi == i ? want : 0);
            }
        }
    }
}

void panda_syscall_sink_wants(uint8_t all, uint8_t unknown, int abi)
{
    sink_wants_all = all;
    sink_abi = abi;
    qatomic_set(&panda_syscalls_unknown, unknown);
    panda_syscalls_recount();
}

/* ---- events ---- */

static bool sink_wants(const PandaSyscallCall *call, bool enter)
{
    uint8_t bit = enter ? PANDA_WANT_ENTER : PANDA_WANT_RETURN;
    const uint8_t *its = call->entry ? &call->entry->want
                                     : &panda_syscalls_unknown;

    return qatomic_read(&sink) && ((qatomic_read(its) | sink_wants_all) & bit)
        && (sink_abi < 0 || sink_abi == call->abi);
}

bool panda_syscall_deliver(CPUState *cs, const PandaSyscallCall *call,
                           PandaSyscallPhase phase, int64_t result,
                           PandaPlace place, uint64_t pc, uintptr_t ra)
{
    bool enter = phase == PANDA_SYSCALL_ENTER;
    uint64_t args[PANDA_SYSCALL_SLOTS];
    unsigned n = 6;

    if (call->entry) {
        n = panda_syscall_arguments(call->entry, call->slots, args);
    } else {
        memcpy(args, call->slots, n * sizeof(*args));
    }
    if (is_streamed()) {
        panda_stream_syscall(call, args, n, result, phase);
    }
    if (!sink_wants(call, enter)) {
        return false;
    }
    panda_event_enter(cs, place, pc, ra);
    present = call;
    /* What its registers hold is of the new program. */
    present_is_exec = !enter && call->entry && !result
        && call->entry->trait == PANDA_SYSCALL_EXECS;
    sink(call, phase, result, args, n);
    present = NULL;
    return true;
}

int64_t panda_syscall_present_result(CPUState *cs)
{
    return present && !present_is_exec ? panda_syscall_result(cs, present) : 0;
}
