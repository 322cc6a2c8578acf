/*
 * The state a recording starts from: devices and CPU, and RAM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_STATE_H
#define PANDA_RECORD_STATE_H

#include "record/log.h"
#include "record/archive.h"
#include "record/regions.h"

/* Devices and CPU; a first number tells the size of QEMU's own part. */
bool panda_state_save(PandaBytes *out, Error **errp);
bool panda_state_load(const uint8_t *data, size_t size, Error **errp);

/* The CPU alone. */
bool panda_cpu_save(PandaBytes *out);
bool panda_cpu_load(PandaLogCursor *c);

/* Pages of RAM that were not zero, copied while the machine stood still. */
typedef struct PandaRamCopy PandaRamCopy;

PandaRamCopy *panda_ram_copy(const PandaRam *ram, unsigned n, Error **errp);
/* Write it as members ram/0000 and so on; frees it. */
bool panda_ram_copy_write(PandaRamCopy *copy, PandaArchiveWriter *w,
                          Error **errp);
void panda_ram_copy_free(PandaRamCopy *copy);
/* Fill the machine's RAM from an archive. */
bool panda_ram_load(const PandaArchive *a, PandaRam *rams, unsigned n,
                    Error **errp);

#endif
