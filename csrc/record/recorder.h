/*
 * What the life cycle and the main loop need to know of recordings.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_RECORDER_H
#define PANDA_RECORD_RECORDER_H

#include "record/record.h"

/* Version of the format; readers refuse a greater major. */
#define PANDA_RECORDING_MAJOR 3
#define PANDA_RECORDING_MINOR 0

/* The CPU thread runs the machine, and is recorded. */
int panda_recorder_exec(CPUState *cs);
/* The same in a replay (player.c). */
int panda_player_exec(CPUState *cs);

/* The machine was reset, and its state is what its devices made it. */
void panda_recorder_reset(void);

/* A shutdown or panda_finish(): complete what is being recorded. */
void panda_recorder_finish(void);

/* Shared with the player. */
extern PandaRrReport panda_rr_facts;
extern char *panda_rr_file;

/* Facts of the machine that a recording keeps (machine.c). */
void panda_machine_args(char ***argv, int *argc);

#endif
