/*
 * QEMU's human monitor and snapshots.
 *
 * All of these run in the main thread; from other threads they wait for it,
 * so panda_run() must be active there. Not callable from callbacks on the CPU
 * thread (PANDA_ERR_STATE).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_MONITOR_H
#define PANDA_MONITOR_H

#include "panda/types.h"

/**
 * Run a monitor command; *output is its text, to be freed by panda_free().
 */
int panda_monitor_run(const char *command, char **output);

/** Free what the API allocated. */
void panda_free(void *pointer);

/** Print into the output of the monitor command being run (kind monitor). */
void panda_monitor_print(Monitor *mon, const char *text);

/**
 * Load a snapshot; the guest runs on if it ran before.
 *
 * PANDA_ERR_SNAPSHOT with QEMU's message if it cannot be loaded.
 */
int panda_snapshot_load(const char *name);

/**
 * The guest's end of a console's socket, -1 for none.
 *
 * What was typed there and the guest has not read yet is dropped when a snapshot
 * is loaded: it was meant for the guest as it was.
 */
void panda_set_console_fd(int fd);

/** Save a snapshot; the guest runs on if it ran before. */
int panda_snapshot_save(const char *name);

/** Delete a snapshot. */
int panda_snapshot_delete(const char *name);

/** Names of all snapshots, one a line; to be freed by panda_free(). */
int panda_snapshot_list(char **names);

#endif
