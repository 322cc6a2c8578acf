/*
 * Filters by the name of the process that runs: listeners are told when it is
 * another one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/names.h"
#include "introspect/events.h"
#include "core/listeners.h"

static bool following;
/* Who runs is told at once when the kernel is found. */
static bool told;

static void tell(CPUState *cs)
{
    PandaOsThread thread;

    if (panda_os_current_thread(cs, &thread)) {
        panda_live_process(thread.comm);
        told = true;
    }
}

static void changed(CPUState *cs, uint64_t task, uint64_t argument)
{
    tell(cs);
}

void panda_os_names_poll(CPUState *cs)
{
    if (panda_names_watched != following) {
        following = panda_names_watched;
        told = false;
        if (following) {
            panda_os_subscribe(OS_EVENT_SWITCH, changed);
            panda_os_subscribe(OS_EVENT_EXEC, changed);
        } else {
            panda_os_unsubscribe(OS_EVENT_SWITCH, changed);
            panda_os_unsubscribe(OS_EVENT_EXEC, changed);
        }
    }
    if (following && !told) {
        tell(cs);
    }
}
