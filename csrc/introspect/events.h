/*
 * Events of the guest's operating system: functions of its kernel that run when
 * something happens are hooked, while somebody wants to know.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_EVENTS_H
#define PANDA_INTROSPECT_EVENTS_H

#include "introspect/os.h"

/* No architecture has signals with higher numbers. */
#define OS_LAST_SIGNAL 128

typedef enum OsEvent {
    /* Another thread runs: task is it. */
    OS_EVENT_SWITCH,
    /* A process has got a new program, which has not run yet. */
    OS_EVENT_EXEC,
    /* There is a new thread or process: task is it, and has not run yet. */
    OS_EVENT_FORK,
    /* A thread ends; argument: the code, as wait() has it. */
    OS_EVENT_EXIT,
    /*
     * For panda/os_events.h only (panda_os_raise()). A mapping was made or
     * has changed; argument: the vm_area_struct, other: whether it was there.
     */
    OS_EVENT_MMAP,
    /* Argument: the descriptor, other: the struct file. */
    OS_EVENT_OPEN,
    /* The same; the descriptor may be unknown: -1. */
    OS_EVENT_CLOSE,
    /* A signal is sent to task; argument: its number. */
    OS_EVENT_SIGNAL,
    /* The current task is about to run its handler; likewise. */
    OS_EVENT_DELIVER,
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

/* ---- arguments.c: the calling convention inside of the kernel ---- */

/* At a function's first instruction; false: it cannot be read. */
bool panda_os_get_argument(CPUState *cs, unsigned n, uint64_t *value);
bool panda_os_set_argument(CPUState *cs, unsigned n, uint64_t value);

/* ---- os_events.c: events for others, with all that is known of them ---- */

/* Bits of OsEvent: those that somebody listens to. */
extern uint32_t panda_os_raised;

/*
 * An event that is among them, of a task. True: it is not to happen (of a
 * signal).
 */
bool panda_os_raise(CPUState *cs, OsEvent event, uint64_t task,
                    uint64_t argument, uint64_t other);

/* Streams came or went: what do they want? */
void panda_os_events_recount(void);

/* Whether events are had is settled now; the CPU thread, nothing held. */
void panda_os_tell_missing(void);

#endif
