/*
 * Record and replay of the machine's execution.
 *
 * A recording holds the state the machine had when it began and all that
 * reached the CPU and its memory from outside of them since. A replay executes
 * the same instructions again, without devices, disks or networks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_H
#define PANDA_RECORD_H

#include "panda/types.h"

/** What the machine does. */
typedef enum PandaRrMode {
    /** It lives. */
    PANDA_RR_OFF = 0,
    /** It lives, and is recorded. */
    PANDA_RR_RECORD = 1,
    /** It replays a recording. */
    PANDA_RR_REPLAY = 2,
} PandaRrMode;

/** Facts about the recording or replay that is made, or was made last. */
typedef struct PandaRrReport {
    /** Instructions the guest has executed in it. */
    uint64_t instructions;
    /** A replay: instructions there are in the recording; else 0. */
    uint64_t total;
    /** Calls of the CPU to devices. */
    uint64_t crossings;
    /** Runs of the CPU between which devices did something. */
    uint64_t slices;
    /** Size of the file of a recording that has ended, in bytes. */
    uint64_t file_size;
    /** Time the guest stood still when the recording began, in ns. */
    uint64_t stall_ns;
    /** Digest of RAM at the end; 0 before. */
    uint64_t ram_digest;
    /** A replay: digest of RAM at the end of the recording; 0 if unknown. */
    uint64_t recorded_ram_digest;
    /** A replay has ended because it differed from the recording. */
    uint32_t diverged;
    /** A replay: the recording was cut off, by a crash or a full disk. */
    uint32_t cut_off;
    /** Where it differed: instructions executed and the pc. */
    uint64_t diverged_at;
    uint64_t diverged_pc;
} PandaRrReport;

/**
 * Begin to record to a file, which replaces one of that name when complete.
 *
 * snapshot is loaded first if it is not NULL. Called in a callback, the
 * recording begins when the callback's block is left. PANDA_ERR_STATE while
 * the machine is recorded or replays; PANDA_ERR_RECORDING if this machine
 * cannot be recorded, or the file not be written; PANDA_ERR_SNAPSHOT.
 */
int panda_record_begin(const char *path, const char *snapshot);

/**
 * End the recording and complete its file.
 *
 * PANDA_ERR_STATE if none is made; PANDA_ERR_RECORDING if the file could not
 * be written: what there is of it is called *.part, and can be replayed.
 */
int panda_record_end(void);

/** Why the last recording was cut off, e.g. a full disk; "" if it was not. */
const char *panda_record_failure(void);

/**
 * Load a recording's start; the next panda_run() replays it.
 *
 * With checkpoint_bytes the replay can go back: so much memory, at most, is
 * used to keep checkpoints. 0: it cannot, and is a little faster.
 * PANDA_ERR_STATE while the machine is recorded or replays;
 * PANDA_ERR_RECORDING if the file is none, is damaged, or is of another
 * machine. What the machine was is lost.
 */
int panda_replay_begin(const char *path, uint64_t checkpoint_bytes);

/**
 * Have panda_run() return PANDA_RUN_REPLAY_STOPPED when exactly so many
 * instructions are executed; UINT64_MAX: do not. Not while it runs.
 */
int panda_replay_stop_at(uint64_t count);

/**
 * Go to the checkpoint from which it is the shortest way to a count of
 * instructions, unless that is where the replay is. Not while it runs.
 *
 * PANDA_ERR_STATE if that is before this place and there is no checkpoint.
 */
int panda_replay_go_near(uint64_t count);

/** Count of the last checkpoint before a count; UINT64_MAX: none. */
uint64_t panda_replay_checkpoint_before(uint64_t count);

/**
 * Count of instructions where the slice began in which the replay is: a place
 * where a recording can be cut.
 */
uint64_t panda_replay_slice_begin(void);

/**
 * Write a new recording, of what is between this place, which must be the
 * beginning of a slice, and the end of the slice in which a count is.
 *
 * *length gets its instructions. PANDA_ERR_STATE at another place;
 * PANDA_ERR_RECORDING if the file cannot be written. Not while it runs.
 */
int panda_replay_cut(const char *path, uint64_t end, uint64_t *length);

/**
 * Whether the host program may change the guest's state in replays, which then
 * differ from their recordings; false at first.
 */
void panda_replay_allow_writes(bool allow);

/** Whether registers may be written: PANDA_OK, or PANDA_ERR_STATE. */
int panda_may_write_registers(void);

/**
 * Give up the replay, or its state after its end, and reset the machine.
 *
 * PANDA_ERR_STATE if there is no replay.
 */
int panda_replay_end(void);

/**
 * Whether recordings that begin from now on have what it takes to leave a
 * replay: from time to time the devices' state, and what is written to disks.
 */
void panda_record_complete(bool complete);

/**
 * Whether the machine's disks are what they were when the recording began, and
 * the recording is a complete one: PANDA_OK, or PANDA_ERR_STATE.
 */
int panda_replay_check_disks(void);

/**
 * Write to the disk of a name in a replay, which does not use it itself;
 * PANDA_ERR_STATE if there is no such disk, or it cannot be written.
 */
int panda_replay_write_disk(const char *device, uint64_t offset,
                            const void *bytes, uint64_t size);

/**
 * Leave the replay, and have the machine live on from this place with the next
 * panda_run(). Not while it runs.
 *
 * PANDA_ERR_STATE if the devices' state was not recorded at this place.
 */
int panda_replay_go_live(void);

/** What the machine does, a PandaRrMode. */
int panda_rr_mode(void);

/**
 * Instructions executed since the recording or replay began.
 *
 * In a callback: before the instruction the callback is about. 0 if there is
 * neither.
 */
uint64_t panda_rr_count(void);

/** File of the recording or replay that is made; NULL if there is none. */
const char *panda_rr_path(void);

/** Facts about the recording or replay that is made or was made last. */
void panda_rr_report(PandaRrReport *report);

/** Why a replay has ended before the recording's end; "" if it has not. */
const char *panda_rr_divergence(void);

#endif
