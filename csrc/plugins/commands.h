/*
 * Commands of the human monitor for plugins.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_COMMANDS_H
#define PANDA_PLUGINS_COMMANDS_H

#include "core/internal.h"
#include "monitor/monitor-internal.h"

/* Append them to the human monitor's table; returns the end. */
HMPCommand *panda_plugins_hmp(HMPCommand *end);

#endif
