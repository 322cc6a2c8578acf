/*
 * Numbers and bytes of a recording's log: writing and reading.
 *
 * Numbers are LEB128: seven bits a byte, the lowest first. The reader never
 * reads past its end; what is not well-formed makes the cursor bad, and it
 * then gives zeros.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_LOG_H
#define PANDA_RECORD_LOG_H

#include "record/record.h"

typedef struct PandaBytes {
    uint8_t *data;
    size_t n, room;
} PandaBytes;

void panda_bytes_grow(PandaBytes *b, size_t more);

static inline void panda_bytes_put(PandaBytes *b, const void *data, size_t n)
{
    if (b->n + n > b->room) {
        panda_bytes_grow(b, n);
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static inline void panda_bytes_number(PandaBytes *b, uint64_t value)
{
    if (b->n + 10 > b->room) {
        panda_bytes_grow(b, 10);
    }
    while (value >= 0x80) {
        b->data[b->n++] = value | 0x80;
        value >>= 7;
    }
    b->data[b->n++] = value;
}

static inline uint64_t panda_zigzag(int64_t value)
{
    return ((uint64_t)value << 1) ^ (value >> 63);
}

static inline int64_t panda_unzigzag(uint64_t value)
{
    return (value >> 1) ^ -(value & 1);
}

/* What the slice that runs, or the pause after it, has logged. */
extern PandaBytes *panda_log;

static inline void panda_log_entry(PandaEntryKind kind)
{
    uint8_t byte = kind;

    panda_bytes_put(panda_log, &byte, 1);
}

static inline void panda_log_number(uint64_t value)
{
    panda_bytes_number(panda_log, value);
}

static inline void panda_log_bytes(const void *data, size_t n)
{
    panda_bytes_put(panda_log, data, n);
}

/* A number of bytes, and the bytes. */
static inline void panda_log_string(const void *data, size_t n)
{
    panda_log_number(n);
    panda_log_bytes(data, n);
}

typedef struct PandaLogCursor {
    const uint8_t *at, *end;
    bool bad;
} PandaLogCursor;

static inline bool panda_log_at_end(const PandaLogCursor *c)
{
    return c->at >= c->end || c->bad;
}

uint64_t panda_log_get(PandaLogCursor *c);
/* NULL if there are not that many. */
const uint8_t *panda_log_get_bytes(PandaLogCursor *c, size_t n);
const uint8_t *panda_log_get_string(PandaLogCursor *c, size_t *n);
void panda_log_bad(PandaLogCursor *c);

/* ---- entries that other files read ---- */

void panda_lines_apply(CPUState *cs, PandaLogCursor *c, bool kick);
/* Apply one effect of that kind; false if the kind is none. */
bool panda_effect_apply(CPUState *cs, PandaEntryKind kind, PandaLogCursor *c);

/* ---- the architectures' part; most have none (arch_default.c) ---- */

void panda_arch_effect(PandaLogCursor *c);
/* Of the CPU, what QEMU does not save; format 1 did not have it. */
void panda_arch_cpu_save(PandaBytes *out);
bool panda_arch_cpu_load(PandaLogCursor *c);
/* State that is neither QEMU's to save nor the CPU's or RAM. */
void panda_arch_save(PandaBytes *out);
bool panda_arch_load(PandaLogCursor *c);

#endif
