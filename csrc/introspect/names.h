/*
 * Filters by the name of the process that runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_NAMES_H
#define PANDA_INTROSPECT_NAMES_H

#include "introspect/os.h"

/*
 * The CPU thread, outside of translated code: follow the names of processes if
 * a listener asks for one, and no longer if none does.
 */
void panda_os_names_poll(CPUState *cs);

#endif
