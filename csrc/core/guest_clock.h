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

/* The guest waits for a reader, which may take any time. */
extern bool panda_guest_clock_is_held;

static inline void panda_guest_clock_hold(void)
{
    qatomic_store_release(&panda_guest_clock_is_held, true);
    panda_guest_clock_pause();
}

static inline void panda_guest_clock_release(void)
{
    panda_guest_clock_go_on();
    qatomic_store_release(&panda_guest_clock_is_held, false);
}

#endif
