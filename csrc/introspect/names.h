/*
 * Filters by the name of the process that runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_NAMES_H
#define PANDA_INTROSPECT_NAMES_H

#include "core/listeners.h"
#include "introspect/os.h"

/*
 * The CPU thread, outside of translated code: follow the names of processes if
 * a listener asks for one, and no longer if none does.
 */
void panda_os_names_poll(CPUState *cs);

/* They are followed; who runs is still to be told. */
extern bool panda_os_names_followed, panda_os_names_due;

static inline bool panda_os_names_poll_due(void)
{
    return panda_os_names_due
        || panda_names_watched != panda_os_names_followed;
}

#endif
