/*
 * Events of the guest's operating system: functions of its kernel that run when
 * something happens are hooked, while somebody wants to know.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_EVENTS_H
#define PANDA_INTROSPECT_EVENTS_H

#include "introspect/os.h"

typedef enum OsEvent {
    /* Another thread runs: task is it. */
    OS_EVENT_SWITCH,
    /* A process has got a new program, which has not run yet. */
    OS_EVENT_EXEC,
    /* There is a new thread or process: task is it, and has not run yet. */
    OS_EVENT_FORK,
    /* A thread ends; argument: the code, as wait() has it. */
    OS_EVENT_EXIT,
    OS_EVENTS
} OsEvent;

/* Called on the CPU thread, in an event of the kernel's code. */
typedef void (*OsEventFn)(CPUState *cs, uint64_t task, uint64_t argument);

/*
 * Have a function called, or no longer; from any thread. Until the kernel is
 * found nothing happens; it is looked for meanwhile.
 */
void panda_os_subscribe(OsEvent event, OsEventFn function);
void panda_os_unsubscribe(OsEvent event, OsEventFn function);

/* The CPU thread, outside of translated code: see to hooks (cpu_events.c). */
void panda_os_events_poll(CPUState *cs);
extern bool panda_os_events_due;

/* The kernel's functions that are hooked cannot be found; NULL: all can. */
const char *panda_os_event_missing(OsEvent event);

#endif
