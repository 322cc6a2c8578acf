/*
 * What the rest of the core asks the guest's operating system: which thread
 * runs, and of which process.
 *
 * To be called on the CPU thread, in an event or while the guest is stopped.
 * Nothing here raises a guest exception or changes guest state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_OS_H
#define PANDA_INTROSPECT_OS_H

#include "core/internal.h"

#define PANDA_OS_COMM 16

/* The thread that runs now, as its kernel has it. */
typedef struct PandaOsThread {
    /* Address of its task_struct. */
    uint64_t task;
    /* Its mm_struct; 0: a kernel thread. */
    uint64_t mm;
    int32_t tid;
    /* Process: the thread group. */
    int32_t pid;
    char comm[PANDA_OS_COMM];
} PandaOsThread;

/*
 * The kernel is found: its tables, its structures. Tries to find them at the
 * first call and again, at sensible intervals, until it succeeds.
 */
bool panda_os_ready(CPUState *cs);

/* It was found, and nothing has happened since that makes it doubtful. */
bool panda_os_is_found(void);

/*
 * Of the found kernel all is known that can be: no more is expected of looking
 * at it once more, as more programs run.
 */
bool panda_os_is_settled(void);

/*
 * Address of the running thread's task_struct; 0 if it is not known. Costs a
 * few loads: for every system call, hook and event.
 */
uint64_t panda_os_current_task(CPUState *cs);

/*
 * What is not known of the guest's kernel so that this never will be, in its
 * code; NULL: it is known there, or may come to be.
 */
const char *panda_os_current_lacks(CPUState *cs);

/* More of it; false if it is not known. */
bool panda_os_current_thread(CPUState *cs, PandaOsThread *thread);

/* A snapshot was loaded, or the machine was reset: nothing is sure. */
void panda_os_doubt(void);

#endif
