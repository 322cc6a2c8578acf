/*
 * Between machine.c and the files it drives.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_MACHINE_H
#define PANDA_CORE_MACHINE_H

#include "core/internal.h"

/* Is panda_run() active? */
bool panda_in_run(void);

/* Make panda_run() return that PandaRunResult, if nothing else has yet. */
void panda_request_stop(int reason);

/* The next panda_run() starts the guest. */
void panda_start_on_next_run(void);

/* A run begins: there was no fault yet (bare.c). */
void panda_bare_run_begins(void);

/* Serve the calls other threads asked for (main_queue.c). */
void panda_main_queue_serve(void);
/* While closed, calls are refused and those that wait are sent away. */
void panda_main_queue_open(bool open);

/* A snapshot was loaded: raise after_loadvm, now or when the run begins. */
void panda_machine_loaded(void);
void panda_raise_after_loadvm(void);

/* The CPU exists (vcpu.c). */
void panda_vcpu_setup(CPUState *cs);

/*
 * How long a thread waits for the main thread to save, load or close something:
 * it writes all of RAM, which takes long, but not forever.
 */
#define PANDA_PATIENCE_MS (600 * 1000)

#endif
