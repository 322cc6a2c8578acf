/*
 * Which device is at work: it is named beside what it writes to RAM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_SOURCE_H
#define PANDA_RECORD_SOURCE_H

#include "record/log.h"

/* A device begins to work in this thread; returns the one it works for. */
Object *panda_source_enter(Object *device);
void panda_source_leave(Object *outer);
/* The one that works; NULL if that is not known. */
Object *panda_source(void);

/* A chunk of the log begins: none is named in it. */
void panda_source_chunk(void);
/* Name who writes to this memory, if it is another one than before. */
void panda_source_log(MemoryRegion *mr);

#endif
