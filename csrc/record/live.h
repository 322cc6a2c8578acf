/*
 * Complete recordings: what it takes to leave a replay and live on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_LIVE_H
#define PANDA_RECORD_LIVE_H

#include "record/log.h"
#include "block/aio.h"
#include "qemu/iov.h"

/* A recording begins; is it a complete one? */
bool panda_live_begin(void);
/* A slice in which instructions were executed, and all after it, are over. */
void panda_live_slice(CPUState *cs);
/* A disk is written; bytes NULL: zeros. */
void panda_live_disk(const char *device, uint64_t offset, uint64_t size,
                     QEMUIOVector *qiov);
bool panda_live_records(void);
/* A request of a disk begins: have its end noticed. */
void panda_live_request(BlockCompletionFunc **done, void **opaque);
/* A digest of a disk's beginning, to know it again. */
uint64_t panda_live_disk_digest(BlockBackend *blk);

/* A replay: entries; false if the kind is none of these. */
bool panda_live_apply(PandaEntryKind kind, PandaLogCursor *c);
/* It begins, or goes back. */
void panda_live_forget(void);
/* The devices' state at this place; NULL if it is not known. */
const uint8_t *panda_live_state(size_t *size);

#endif
