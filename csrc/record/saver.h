/*
 * The thread that compresses and writes a recording.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_SAVER_H
#define PANDA_RECORD_SAVER_H

#include "record/archive.h"
#include "record/state.h"

/* Takes over the archive. */
void panda_saver_begin(PandaArchiveWriter *w);
/* Add a member; takes over the data. Waits if the disk is far behind. */
void panda_saver_add(const char *name, uint8_t *data, size_t size);
void panda_saver_add_ram(PandaRamCopy *copy);
/* Has it failed, e.g. as the disk is full? */
bool panda_saver_failed(void);
/* Wait until all is written; then finish the file, or leave it cut off. */
bool panda_saver_end(bool finish, uint64_t *size, Error **errp);

#endif
