/*
 * A recording that is open for a replay.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_OPENING_H
#define PANDA_RECORD_OPENING_H

#include "record/archive.h"
#include "record/regions.h"

typedef struct PandaOpened {
    PandaArchive *archive;
    /* Its blocks, in its order, where this machine has them. */
    PandaRam *rams;
    unsigned n_rams, ram_parts;
    /* Members that are chunks of the log, in order. */
    GArray *chunks;
    /* Instructions since an epoch began, where the recording begins. */
    uint64_t epoch_base;
} PandaOpened;

extern PandaOpened panda_opened;

/* All that can be refused before the machine is touched. */
bool panda_opened_begin(const char *path, Error **errp);
void panda_opened_end(void);

/* A member that is JSON; who calls it owns it. */
typedef struct QDict QDict;
QDict *panda_opened_json(const char *name, Error **errp);
/* A chunk's bytes. */
uint8_t *panda_opened_chunk(unsigned number, size_t *size, Error **errp);

#endif
