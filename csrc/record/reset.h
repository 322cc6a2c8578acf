/*
 * The machine is reset while it is recorded or replays.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_RESET_H
#define PANDA_RECORD_RESET_H

#include "record/log.h"
#include "qapi/error.h"

void panda_reset_apply(PandaLogCursor *c);

/* The recording cannot go on; takes over the reason (recorder.c). */
void panda_recorder_fail(Error *err);

#endif
