/*
 * The time events take, which the guest does not see (guest_clock.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_GUEST_CLOCK_H
#define PANDA_CORE_GUEST_CLOCK_H

#include "qemu/timer.h"

/* When the present event began; 0 between events. */
extern int64_t panda_event_began;

void panda_event_took_until(int64_t now);

static inline void panda_guest_clock_pause(void)
{
    qatomic_set(&panda_event_began, cpu_get_host_ticks());
}

static inline void panda_guest_clock_go_on(void)
{
    panda_event_took_until(cpu_get_host_ticks());
}

#endif
