/*
 * Who wants which system calls, and hands out their events.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "syscalls/syscalls.h"
#include "core/stream.h"

uint8_t panda_syscalls_all;

static bool is_streamed(void)
{
    return qatomic_read(&panda_streamed_kinds) & BIT(PANDA_STREAM_SYSCALL);
}

void panda_syscalls_recount(void)
{
    qatomic_set(&panda_syscalls_all,
                is_streamed() ? PANDA_WANT_ENTER | PANDA_WANT_RETURN : 0);
}

bool panda_syscall_deliver(CPUState *cs, const PandaSyscallCall *call,
                           PandaSyscallPhase phase, int64_t result,
                           PandaPlace place, uint64_t pc, uintptr_t ra)
{
    uint64_t args[PANDA_SYSCALL_SLOTS];
    unsigned n;

    if (call->entry) {
        n = panda_syscall_arguments(call->entry, call->slots, args);
    } else {
        n = 6;
        memcpy(args, call->slots, n * sizeof(*args));
    }
    if (is_streamed()) {
        panda_stream_syscall(call, args, n, result, phase);
    }
    return false;
}
