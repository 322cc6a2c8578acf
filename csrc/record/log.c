/*
 * Numbers and bytes of a recording's log.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/log.h"

PandaBytes *panda_log;

void panda_bytes_grow(PandaBytes *b, size_t more)
{
    b->room = MAX(b->room * 2, b->n + more + 4096);
    b->data = g_realloc(b->data, b->room);
}

void panda_log_bad(PandaLogCursor *c)
{
    c->bad = true;
    c->at = c->end;
}

uint64_t panda_log_get(PandaLogCursor *c)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64 && c->at < c->end; shift += 7) {
        uint8_t byte = *c->at++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            return value;
        }
    }
    panda_log_bad(c);
    return 0;
}

const uint8_t *panda_log_get_bytes(PandaLogCursor *c, size_t n)
{
    const uint8_t *bytes = c->at;

    if ((size_t)(c->end - c->at) < n) {
        panda_log_bad(c);
        return NULL;
    }
    c->at += n;
    return bytes;
}

const uint8_t *panda_log_get_string(PandaLogCursor *c, size_t *n)
{
    *n = panda_log_get(c);
    return panda_log_get_bytes(c, *n);
}
