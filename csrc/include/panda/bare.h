/*
 * Machines without devices: one CPU and the memory that is mapped.
 *
 * -M configurable makes one. There are no page tables and no handlers of
 * exceptions unless the program sets them up; what it cannot go on after ends
 * the run with PANDA_RUN_GUEST_FAULT, the CPU standing at that instruction.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_BARE_H
#define PANDA_BARE_H

#include "panda/types.h"

/** What the guest could not do. */
typedef enum PandaFaultKind {
    /** There was no fault. */
    PANDA_FAULT_NONE = 0,
    /** The pc is where there is no memory. */
    PANDA_FAULT_FETCH = 1,
    /** It read where there is no memory. */
    PANDA_FAULT_READ = 2,
    /** It wrote where there is no memory. */
    PANDA_FAULT_WRITE = 3,
    /** An exception for which it has set up no handler. */
    PANDA_FAULT_EXCEPTION = 4,
} PandaFaultKind;

/** A fault that ended a run. */
typedef struct PandaFault {
    /** A PandaFaultKind. */
    uint32_t kind;
    /** QEMU's number of the exception; -1 for the other kinds. */
    int32_t exception;
    /** Address of the instruction. */
    uint64_t pc;
    /** Virtual address it accessed; of an exception, where its handler is. */
    uint64_t address;
    /** Physical address it accessed; 0 of an exception. */
    uint64_t physical;
    /** Bytes it accessed; 0 of an exception. */
    uint32_t size;
    uint32_t reserved;
} PandaFault;

/** Whether the machine is one without devices (-M configurable). */
bool panda_machine_is_bare(void);

/** The fault that ended the last run; its kind is 0 if none did. */
int panda_last_fault(PandaFault *out);

/** Name of a guest exception by QEMU's number; NULL if it has none. */
const char *panda_exception_name(int number);

#endif
