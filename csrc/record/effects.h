/*
 * Effects of devices, as they are applied.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_EFFECTS_H
#define PANDA_RECORD_EFFECTS_H

#include "record/log.h"

/* Bytes of RAM were changed behind QEMU's back. */
void panda_ram_written(ram_addr_t at, uint64_t length);

/*
 * How many changes of what is where a replay has made; to go to another number
 * of them takes some back, or makes them again.
 */
unsigned panda_topology_height(void);
void panda_topology_begin(void);
void panda_topology_go_to(unsigned height);

/*
 * The entries that have defined regions and changed what is where, up to this
 * place of the replay; a number for a checkpoint to go back to.
 */
const uint8_t *panda_history(size_t *size);
void panda_history_begin(void);
void panda_history_set(size_t size);

#endif
