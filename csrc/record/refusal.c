/*
 * Machines that cannot be recorded, and why.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "qom/object.h"
#include "system/cpu-timers.h"

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
