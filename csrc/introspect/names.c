/*
 * Filters by the name of the process that runs: listeners are told when it is
 * another one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/names.h"
#include "introspect/events.h"

bool panda_os_names_followed;
bool panda_os_names_due;

static void tell(CPUState *cs)
{
    PandaOsThread thread;

    if (panda_os_current_thread(cs, &thread)) {
        panda_live_process(thread.comm);
        panda_os_names_due = false;
    }
}

static void changed(CPUState *cs, uint64_t task, uint64_t argument)
{
    tell(cs);
}

void panda_os_names_poll(CPUState *cs)
{
    if (panda_names_watched != panda_os_names_followed) {
        panda_os_names_followed = panda_names_watched;
        panda_os_names_due = panda_os_names_followed;
        if (panda_os_names_followed) {
            panda_os_subscribe(OS_EVENT_SWITCH, changed);
            panda_os_subscribe(OS_EVENT_EXEC, changed);
        } else {
            panda_os_unsubscribe(OS_EVENT_SWITCH, changed);
            panda_os_unsubscribe(OS_EVENT_EXEC, changed);
        }
    }
    if (panda_os_names_due) {
        tell(cs);
    }
}
