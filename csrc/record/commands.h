/*
 * The monitors' commands for recordings.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_COMMANDS_H
#define PANDA_RECORD_COMMANDS_H

#include "core/internal.h"
#include "monitor/hmp.h"
#include "monitor/monitor-internal.h"
#include "qapi/qmp-registry.h"

/* Append them to the human monitor's table; returns the end. */
HMPCommand *panda_record_hmp(HMPCommand *end);
/* The QMP command of that name, NULL if it is none of them. */
const QmpCommand *panda_record_qmp(const char *name);

#endif
