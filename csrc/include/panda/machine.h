/*
 * Life of the guest machine: create, run, stop, finish.
 *
 * Threads: the thread that calls panda_init() is the machine's main thread;
 * panda_run(), panda_pause() and panda_finish() must be called from it. Every
 * other function here may be called from any thread unless it says so.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_MACHINE_H
#define PANDA_MACHINE_H

#include "panda/cpu.h"
#include "panda/types.h"

/** Why panda_run() returned. */
typedef enum PandaRunResult {
    /** panda_stop_run() was called. */
    PANDA_RUN_STOPPED = 0,
    /** The guest powered itself off. */
    PANDA_RUN_GUEST_SHUTDOWN = 1,
    /** The guest's kernel reported a panic (pvpanic device). */
    PANDA_RUN_GUEST_PANIC = 2,
    /** The guest asked for a reset and -no-reboot was given. */
    PANDA_RUN_GUEST_RESET = 3,
    /** A byte arrived at the wakeup descriptor: a signal. */
    PANDA_RUN_SIGNAL = 4,
    /** QEMU called exit() or abort(); see panda_last_error(). */
    PANDA_RUN_FATAL = 5,
    /** An address of the limit was reached, see panda_set_limit(). */
    PANDA_RUN_ADDRESS = 6,
    /** The instructions of the limit were executed. */
    PANDA_RUN_COUNT = 7,
    /** Machines without devices: see panda_last_fault(). */
    PANDA_RUN_GUEST_FAULT = 8,
    /** Machines without devices: the CPU waits for an interrupt. */
    PANDA_RUN_HALTED = 9,
    /** A recording could not be written on, see panda_record_failure(). */
    PANDA_RUN_RECORDING_FAILED = 10,
    /** A replay has come to the end of its recording. */
    PANDA_RUN_REPLAY_END = 11,
    /** A replay differs from its recording, see panda_rr_divergence(). */
    PANDA_RUN_REPLAY_DIVERGED = 12,
    /** A replay has come to the place of panda_replay_stop_at(). */
    PANDA_RUN_REPLAY_STOPPED = 13,
} PandaRunResult;

/** State of the machine; the numbers are pandalite's own. */
typedef enum PandaMachineState {
    /** panda_init() was not called yet. */
    PANDA_MACHINE_NONE = 0,
    /** Created or paused; no guest code runs. */
    PANDA_MACHINE_PAUSED = 1,
    /** Guest code runs. */
    PANDA_MACHINE_RUNNING = 2,
    /** The guest is off; a reset starts it again. */
    PANDA_MACHINE_OFF = 3,
    /** QEMU gave up; nothing but panda_last_error() works. */
    PANDA_MACHINE_DEAD = 4,
    /** panda_finish() was called. */
    PANDA_MACHINE_FINISHED = 5,
} PandaMachineState;

/**
 * Set the function the CPU thread is started through.
 *
 * It must call panda_vcpu_thread_main() and return after it. A language
 * binding passes a function of its own, so that the thread lives inside one
 * frame of that language and callbacks need not attach it again each time.
 * To be called before panda_init().
 */
void panda_set_vcpu_entry(void (*entry)(void));

/** Body of the CPU thread; returns when the machine is finished. */
void panda_vcpu_thread_main(void);

/** Version of this library, e.g. "0.1.0". */
const char *panda_version(void);

/** Version of QEMU inside, e.g. "10.0.13". */
const char *panda_qemu_version(void);

/** Guest architecture of this library, e.g. "x86_64". */
const char *panda_arch_name(void);

/**
 * Create the machine; argv as for qemu-system-<arch>, argv[0] is ignored.
 *
 * Returns PANDA_OK, PANDA_ERR_STATE if a machine exists already, or
 * PANDA_ERR_MACHINE with QEMU's message. After a failure the library cannot
 * be used again in this process. The guest does not run until panda_run().
 */
int panda_init(int argc, char **argv);

/**
 * Run the guest until something ends the run; returns a PandaRunResult.
 *
 * Serves QEMU's main loop in the calling thread. On return the guest may still
 * be running and raising events: call panda_pause(), or panda_run() again if
 * only a signal was to be handled.
 * A negative PandaStatus if the machine cannot run.
 */
int panda_run(void);

/** Call no callbacks in the runs that follow, or call them again. */
void panda_set_quiet(bool quiet);

/**
 * Make panda_run() return. Safe from any thread, callback or signal handler.
 */
void panda_stop_run(void);

/**
 * Close the gate before callbacks and stop the guest, after panda_run().
 *
 * Calls that other threads wait to have made in the main thread are refused
 * from here on.
 * PANDA_ERR_TIMEOUT if a callback keeps the CPU thread busy for longer than
 * timeout_ms; may be called again.
 */
int panda_pause(uint32_t timeout_ms);

/**
 * Destroy the machine and end its threads; close images and sockets.
 *
 * PANDA_ERR_TIMEOUT if the CPU thread did not end within two seconds.
 */
int panda_finish(void);

/** The state of the machine, a PandaMachineState. */
int panda_machine_state(void);

/** Resume the guest while panda_run() is active. */
int panda_cont(void);

/** Pause the guest while panda_run() is active; code is QEMU's RunState. */
int panda_vm_stop(int code);

/** Reset the machine as its reset button would. */
int panda_reset(void);

/**
 * Watch a file descriptor: panda_run() returns PANDA_RUN_SIGNAL on a byte.
 *
 * For Python's signal.set_wakeup_fd(). -1 ends the watch.
 */
int panda_watch_wakeup_fd(int fd);

/**
 * Call fn(opaque) once in the main thread, from the main loop.
 *
 * Returns at once; the call happens while panda_run() is active, with the
 * big lock held. Safe from any thread.
 */
int panda_call_in_main_loop(void (*fn)(void *opaque), void *opaque);

/**
 * Like panda_call_in_main_loop(), but waits until fn has returned.
 *
 * Must not be called from a callback on the CPU thread (PANDA_ERR_STATE).
 * PANDA_ERR_STATE as well if panda_run() is not active in another thread;
 * PANDA_ERR_TIMEOUT if fn had not begun within timeout_ms (it will not run
 * then).
 */
int panda_run_in_main_loop(void (*fn)(void *opaque), void *opaque,
                           uint32_t timeout_ms);

/** Whether the calling thread is the CPU thread. */
bool panda_in_vcpu_thread(void);

/** Whether the calling thread is the one that called panda_init(). */
bool panda_in_main_thread(void);

#endif
