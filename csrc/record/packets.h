/*
 * Packets to and from network cards.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_PACKETS_H
#define PANDA_RECORD_PACKETS_H

#include "record/log.h"

/* Tell callbacks of an entry. */
void panda_packet_replay(PandaLogCursor *c);

/* A slice's calls, or the pause after it, begin: entries refer to none before. */
void panda_packet_forget(void);
/*
 * A recording: are these bytes, but for the first few, the next ones of the
 * last packet? They are not asked for again then.
 */
bool panda_packet_shares(const uint8_t *bytes, size_t n, size_t *before,
                         size_t *place);
/* A replay: so many bytes of the last packet; NULL if there are not. */
const uint8_t *panda_packet_part(uint64_t at, uint64_t n);

#endif
