/*
 * Events of the guest's operating system: programs that begin, processes that
 * are made and end, memory that is mapped, files, signals.
 *
 * Functions of the guest's kernel are hooked while somebody listens, so an
 * event nobody wants costs nothing. Linux; in a replay as in a live run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_OS_EVENTS_H
#define PANDA_OS_EVENTS_H

#include "panda/cpu.h"
#include "panda/os.h"
#include "panda/types.h"

/** What happens. */
typedef enum PandaOsEventKind {
    /**
     * A program is about to begin: its memory, arguments and variables are
     * there, and nothing of it has run.
     */
    PANDA_OS_START = 0,
    /** The same moment: a process has got another program by exec. */
    PANDA_OS_EXEC = 1,
    /** A process makes another one or a thread, which has not run yet. */
    PANDA_OS_FORK = 2,
    /** A thread ends. */
    PANDA_OS_EXIT = 3,
    /** Another thread runs: this one. */
    PANDA_OS_SWITCH = 4,
    /** A mapping was made or has changed. */
    PANDA_OS_MMAP = 5,
    /** A process has got a descriptor: by open, pipe, socket, dup, ... */
    PANDA_OS_OPEN = 6,
    /** A process gives up an open file. */
    PANDA_OS_CLOSE = 7,
    /** A signal is sent, and has not reached its process. */
    PANDA_OS_SIGNAL = 8,
    /** A program's own function for a signal is about to run. */
    PANDA_OS_DELIVER = 9,
    PANDA_OS_EVENT_KINDS = 10,
} PandaOsEventKind;

/** An event; what its kind has nothing to say of is 0. */
typedef struct PandaOsEvent {
    /** A PandaOsEventKind. */
    uint32_t kind;
    /**
     * mmap: 1 if the mapping was there and its bounds or rights have changed;
     * exit: 1 if no other thread of the process is left.
     */
    uint32_t flag;
    /** Instructions since the recording or replay began; 0 without one. */
    uint64_t count;
    /** Whom it happens to: of a signal, who gets it. */
    PandaTask task;
    /** fork: the new one; signal: whose system call or fault it is from. */
    PandaTask other;
    /**
     * exit: the status as wait() has it; open: the descriptor; close: the
     * descriptor, -1 if it is closed by exec or the end of the process; signal,
     * deliver: its number.
     */
    int64_t value;
    /** mmap: the mapping. */
    PandaMapping mapping;
    /** mmap, open, close: address of the struct file; 0: there is none. */
    target_ptr_t file;
} PandaOsEvent;

/**
 * A function that is called for events, on the CPU thread, in the kernel.
 *
 * What is returned matters for signals only: nonzero suppresses it, and the
 * process gets SIGWINCH, which does nothing where it is not asked for.
 */
typedef int (*PandaOsEventFunction)(PandaCPU *cpu, const PandaOsEvent *event,
                                    void *context);

/** Called once if the guest's kernel does not show the events. */
typedef void (*PandaOsMissingFunction)(const char *reason, void *context);

/** Which events a function is to be called for. */
typedef struct PandaOsListenerSpec {
    /** A PandaOsEventKind. */
    uint32_t kind;
    /** Of this process; 0: of all. */
    int32_t pid;
    /** Of processes of this short name; NULL: of all. */
    const char *procname;
    PandaOsEventFunction function;
    /** May be NULL. */
    PandaOsMissingFunction missing;
    void *context;
} PandaOsListenerSpec;

/**
 * Have a function called for events; from any thread.
 *
 * Until the guest's kernel is found, nothing happens; it is looked for
 * meanwhile. Returns a number for panda_os_events_remove();
 * PANDA_ERR_ARGUMENT, or PANDA_ERR_OS if the kernel is found and does not show
 * such events.
 */
int64_t panda_os_events_add(const PandaOsListenerSpec *spec);

/** Have it called no more; PANDA_ERR_ARGUMENT if there is none. */
int panda_os_events_remove(int64_t number);

/** Name of a PandaOsEventKind; NULL if there is none of that number. */
const char *panda_os_event_name(uint32_t kind);

/**
 * Why events of a kind cannot be had of the guest's kernel.
 *
 * NULL if they can, or if the kernel is not found yet.
 */
const char *panda_os_event_reason(uint32_t kind);

#endif
