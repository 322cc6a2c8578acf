/*
 * Streams: events as records of fixed size, written by C, read in batches.
 *
 * A record is a row of 64-bit unsigned words, one for each field asked for, in
 * the order asked for and in the host's byte order.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_STREAM_H
#define PANDA_STREAM_H

#include "panda/filter.h"
#include "panda/types.h"

/** What a stream has records of. */
typedef enum PandaStreamKind {
    /** Starts of blocks: pc, asid, kernel, size, icount. */
    PANDA_STREAM_BLOCK = 0,
    /** From block to block: source, pc, asid, kernel. */
    PANDA_STREAM_EDGE = 1,
    /** Instructions that begin: pc, asid, kernel, block. */
    PANDA_STREAM_INSN = 2,
    /** Memory accesses that were made: pc, asid, kernel, addr, size, value, write. */
    PANDA_STREAM_MEM = 3,
    /** Changes of the address space: pc, old, new. */
    PANDA_STREAM_ASID = 4,
    /** Exceptions and interrupts: pc, asid, kernel, number, interrupt. */
    PANDA_STREAM_EXCEPTION = 5,
    /**
     * Accesses of devices: pc, asid, kernel, addr, size, value, write, port.
     */
    PANDA_STREAM_IO = 6,
    /** Calls and returns: pc, asid, kernel, target, sp, depth, returns. */
    PANDA_STREAM_CALL = 7,
    /**
     * System calls and their returns: pc, asid, number, thread, arg0 to arg5,
     * result, phase, abi.
     */
    PANDA_STREAM_SYSCALL = 8,
    /**
     * Events of the guest's system (panda/os_events.h): event, count, pid, tid,
     * thread, asid, value, other, addr, size, name0, name1.
     */
    PANDA_STREAM_OS = 9,
    PANDA_STREAM_KINDS = 10,
} PandaStreamKind;

/** Fields of records; each kind has some of them. */
typedef enum PandaStreamField {
    /** Of the instruction; of a block its start. */
    PANDA_FIELD_PC = 0,
    /** Address space, as panda_current_asid() has it. */
    PANDA_FIELD_ASID = 1,
    /** 1: code of the kernel; 0: of users. */
    PANDA_FIELD_KERNEL = 2,
    /** Of the block's code or of the access, in bytes. */
    PANDA_FIELD_SIZE = 3,
    /** Number of the block's instructions. */
    PANDA_FIELD_ICOUNT = 4,
    /** Start of the block that ran before. */
    PANDA_FIELD_SOURCE = 5,
    /** Start of the block the instruction is in. */
    PANDA_FIELD_BLOCK = 6,
    /** Address accessed. */
    PANDA_FIELD_ADDR = 7,
    /** What was read or written, as an integer. */
    PANDA_FIELD_VALUE = 8,
    /** 1: a write; 0: a read. */
    PANDA_FIELD_WRITE = 9,
    /** Address space that was left. */
    PANDA_FIELD_OLD = 10,
    /** Address space that is entered. */
    PANDA_FIELD_NEW = 11,
    /**
     * QEMU's number of the exception; of an interrupt the requests pending; of a
     * system call its number.
     */
    PANDA_FIELD_NUMBER = 12,
    /** 1: an interrupt; 0: an exception. */
    PANDA_FIELD_INTERRUPT = 13,
    /** 1: addr is that of an x86 port; 0: it is a physical address. */
    PANDA_FIELD_PORT = 14,
    /** Where a call or return leads to. */
    PANDA_FIELD_TARGET = 15,
    /** The stack pointer there. */
    PANDA_FIELD_SP = 16,
    /** How many calls the callee is deep; 0: of a return whose call was not seen. */
    PANDA_FIELD_DEPTH = 17,
    /** 1: a return; 0: a call. */
    PANDA_FIELD_RETURNS = 18,
    /**
     * What tells the thread from others: its task_struct, while that is not known
     * its address space.
     */
    PANDA_FIELD_THREAD = 19,
    /** The call's arguments as they were when it was made. */
    PANDA_FIELD_ARG0 = 20,
    PANDA_FIELD_ARG1 = 21,
    PANDA_FIELD_ARG2 = 22,
    PANDA_FIELD_ARG3 = 23,
    PANDA_FIELD_ARG4 = 24,
    PANDA_FIELD_ARG5 = 25,
    /** What it has returned, errors negative; 0 when it is made. */
    PANDA_FIELD_RESULT = 26,
    /** 0: it is made; 1: it returns; 2: it returns in the child. */
    PANDA_FIELD_PHASE = 27,
    /** Index of its set of numbers: panda_syscall_abi_name(). */
    PANDA_FIELD_ABI = 28,
    /** A PandaOsEventKind. */
    PANDA_FIELD_EVENT = 29,
    /** Instructions since the recording or replay began; 0 without one. */
    PANDA_FIELD_COUNT = 30,
    /** Process and thread the event happens to. */
    PANDA_FIELD_PID = 31,
    PANDA_FIELD_TID = 32,
    /** Thread that is made, or that sends the signal. */
    PANDA_FIELD_OTHER = 33,
    /** Short name of the process: 16 bytes in two words. */
    PANDA_FIELD_NAME0 = 34,
    PANDA_FIELD_NAME1 = 35,
    PANDA_STREAM_FIELDS = 36,
} PandaStreamField;

/** What a stream is to be. */
typedef struct PandaStreamSpec {
    /** A PandaStreamKind. */
    uint32_t kind;
    uint32_t n_fields;
    /** PandaStreamField of each word of a record. */
    const uint32_t *fields;
    /** Records in a batch. */
    uint64_t batch;
    /** Batches there may be at a time, at least 2. */
    uint32_t batches;
    /** Nonzero: if all batches are full, drop records and count them. 0: wait. */
    uint32_t drop;
    /**
     * Of memory accesses: 1 reads, 2 writes, 3 both. Of events of the guest's
     * system: bits of PandaOsEventKind.
     */
    uint32_t accesses;
} PandaStreamSpec;

/** Records to be read. */
typedef struct PandaBatch {
    const uint64_t *records;
    /** Number of records; 0: the stream has ended, and nothing is left. */
    uint64_t count;
} PandaBatch;

/** What became of a stream's events. */
typedef struct PandaStreamStats {
    /** Records handed to the reader. */
    uint64_t delivered;
    /** Records lost as no batch was free (only if it was to drop them). */
    uint64_t dropped;
    /** How often the guest had to wait for the reader. */
    uint64_t waits;
} PandaStreamStats;

/** A stream; its members are not public. */
typedef struct PandaStream PandaStream;

/**
 * Open a stream, enabled.
 *
 * filter may be NULL. NULL on failure: PANDA_ERR_ARGUMENT or PANDA_ERR_STATE
 * (too many listeners), told by panda_last_error().
 */
PandaStream *panda_stream_open(const PandaStreamSpec *spec,
                               const PandaFilter *filter);

/** Let events in, or none; takes effect at the next event. */
void panda_stream_enable(PandaStream *stream, bool enabled);

/**
 * Wait for the next batch; it gives the one before it back.
 *
 * One reader at a time. PANDA_ERR_TIMEOUT if none came in time.
 */
int panda_stream_next(PandaStream *stream, uint32_t timeout_ms,
                      PandaBatch *batch);

/** Hand over what there is at the next block, though the batch is not full. */
void panda_stream_flush(PandaStream *stream);

/** How many records were delivered, dropped. */
void panda_stream_stats(PandaStream *stream, PandaStreamStats *stats);

/** No more events; a reader gets what is left, then the end. */
void panda_stream_stop(PandaStream *stream);

/** The same for good, while the guest does not run. */
void panda_stream_finish(PandaStream *stream);

/**
 * Free a stream; nobody may be reading.
 *
 * keep_batches: batches are still looked at. No more than that may be done with
 * it then, but to call this again, without keep_batches, which frees them.
 */
void panda_stream_close(PandaStream *stream, bool keep_batches);

#endif
