/*
 * Which thread of the guest's operating system runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/os.h"

bool panda_os_ready(CPUState *cs)
{
    return false;
}

uint64_t panda_os_current_task(CPUState *cs)
{
    return 0;
}

bool panda_os_current_thread(CPUState *cs, PandaOsThread *thread)
{
    return false;
}
