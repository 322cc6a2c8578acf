/*
 * Transfers of disks, networks and serial ports.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_TRANSFERS_H
#define PANDA_RECORD_TRANSFERS_H

#include "record/log.h"

/* Tell callbacks of an entry; false if it is none of a transfer. */
bool panda_transfer_replay(PandaEntryKind kind, PandaLogCursor *c);

/* The guest accesses a device in a replay: is it a serial port's data? */
void panda_transfer_register(MemoryRegion *mr, hwaddr offset, uint64_t value,
                             bool is_write);

/* Around callbacks that are called outside of the execution. */
bool panda_transfer_enter(void);
void panda_transfer_leave(bool locked);

#endif
