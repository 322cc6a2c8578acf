/*
 * Machines that cannot be recorded, and what cannot be done in a recording.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/host_writes.h"
#include "qom/object.h"
#include "qemu/main-loop.h"
#include "system/cpu-timers.h"
#include "system/runstate.h"

/* Types, or beginnings of them, that reach the guest past QEMU's main loop. */
static const struct {
    const char *type;
    const char *why;
} refused[] = {
    { "iothread", "its I/O threads write to memory at any moment: remove "
                  "-object iothread" },
    { "vhost-", "a vhost device writes to memory from outside of QEMU" },
    { "vfio-", "a host device writes to memory from outside of QEMU" },
    { "ivshmem", "memory is shared with other programs" },
};

static int look_at(Object *object, void *opaque)
{
    const char **why = opaque;
    const char *type = object_get_typename(object);

    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        if (g_str_has_prefix(type, refused[i].type)) {
            *why = refused[i].why;
            return 1;
        }
    }
    return 0;
}

const char *panda_rr_refusal(CPUState *cs)
{
    const char *why = NULL;

    if (CPU_NEXT(first_cpu)) {
        return "it has more than one virtual CPU";
    }
    if (icount_enabled()) {
        return "instructions are its clock: remove -icount";
    }
    if (cs->singlestep_enabled) {
        return "a debugger steps it";
    }
    object_child_foreach_recursive(object_get_root(), look_at, &why);
    return why ?: panda_arch_rr_refusal(cs);
}

static bool writes_allowed;

void panda_replay_allow_writes(bool allow)
{
    writes_allowed = allow;
}

bool panda_replay_writes_allowed(void)
{
    return writes_allowed;
}

int panda_rr_check_write(bool memory)
{
    switch (qatomic_read(&panda_rr_state)) {
    case PANDA_RR_REPLAY:
        if (writes_allowed) {
            return PANDA_OK;
        }
        return panda_fail(PANDA_ERR_STATE, "the guest's state cannot be "
                          "changed in a replay, which would differ from its "
                          "recording from here on; if that is wanted, give "
                          "allow_writes=True to run_replay()");
    case PANDA_RR_RECORD:
        /* Between two slices it is logged like what a device writes. */
        if (memory && (!runstate_is_running() || panda_in_main_thread())) {
            return PANDA_OK;
        }
        if (panda_host_write(memory)) {
            return PANDA_OK;
        }
        return panda_fail(PANDA_ERR_STATE, "%s cannot be written here while "
                          "the guest runs and is recorded, as a replay would "
                          "not know of it; do it in before_block_exec or "
                          "insn_exec", memory ? "memory" : "registers");
    default:
        return PANDA_OK;
    }
}

int panda_may_write_registers(void)
{
    return panda_rr_check_write(false);
}
