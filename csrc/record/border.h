/*
 * The border's state, which begins anew with every chunk or slice of a log.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_BORDER_H
#define PANDA_RECORD_BORDER_H

#include "record/log.h"

/* A recording or replay begins. */
void panda_border_begin(void);
/* A slice begins at that count. */
void panda_border_slice(uint64_t count);
/* A chunk begins: it does not build on numbers of the one before. */
void panda_border_chunk(void);
/* Calls that have crossed. */
uint64_t panda_border_crossings(void);
void panda_border_crossings_set(uint64_t count);

/* The present numbers as an entry; and back. */
void panda_border_log_base(void);
bool panda_border_apply_base(PandaLogCursor *c);

/* What a checkpoint keeps of it. */
#define PANDA_CROSSINGS 48

typedef struct PandaBorder {
    uint64_t last[PANDA_CROSSINGS];
    uint64_t count;
} PandaBorder;

extern PandaBorder panda_border;

#endif
