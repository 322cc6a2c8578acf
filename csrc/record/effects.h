/*
 * Effects of devices, as they are applied.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_EFFECTS_H
#define PANDA_RECORD_EFFECTS_H

#include "record/record.h"

/* Bytes of RAM were changed behind QEMU's back. */
void panda_ram_written(ram_addr_t at, uint64_t length);

/* How many topology changes a replay has made; take back down to a height. */
unsigned panda_topology_height(void);
void panda_topology_undo(unsigned height);

#endif
