/*
 * Chunks and slices of a recording's log, as they are written and read.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/chunks.h"

void panda_chunk_put_head(PandaBytes *out, const PandaChunkHead *head)
{
    panda_bytes_number(out, head->count);
    panda_bytes_number(out, head->steps);
    panda_bytes_number(out, head->n_count);
    panda_bytes_number(out, head->n_steps);
    panda_bytes_number(out, head->check);
    if (head->check) {
        panda_bytes_put(out, &head->digest, 8);
    }
}

PandaChunkHead panda_chunk_get_head(PandaLogCursor *c)
{
    PandaChunkHead head = {};
    const uint8_t *digest;

    head.count = panda_log_get(c);
    head.steps = panda_log_get(c);
    head.n_count = panda_log_get(c);
    head.n_steps = panda_log_get(c);
    head.check = panda_log_get(c);
    if (head.check && (digest = panda_log_get_bytes(c, 8))) {
        memcpy(&head.digest, digest, 8);
    }
    return head;
}

void panda_slice_put(PandaBytes *out, const PandaSlice *slice)
{
    size_t calls = slice->calls.end - slice->calls.at;
    size_t pause = slice->pause.end - slice->pause.at;
    PandaBytes head = {};

    panda_bytes_number(&head, slice->n_count);
    panda_bytes_number(&head, slice->n_steps);
    panda_bytes_number(&head, slice->flags);
    if (slice->flags & PANDA_SLICE_RAN) {
        panda_bytes_put(&head, &slice->digest, 4);
    }
    panda_bytes_number(&head, calls);
    panda_bytes_number(out, head.n + calls + pause);
    panda_bytes_put(out, head.data, head.n);
    panda_bytes_put(out, slice->calls.at, calls);
    panda_bytes_put(out, slice->pause.at, pause);
    g_free(head.data);
}

bool panda_slice_get(PandaLogCursor *c, PandaSlice *slice)
{
    PandaLogCursor body;
    const uint8_t *bytes;
    size_t n;

    *slice = (PandaSlice) {};
    bytes = panda_log_get_string(c, &n);
    body = (PandaLogCursor) { bytes, bytes + (bytes ? n : 0) };
    slice->n_count = panda_log_get(&body);
    slice->n_steps = panda_log_get(&body);
    slice->flags = panda_log_get(&body);
    if (slice->flags & PANDA_SLICE_RAN
        && (bytes = panda_log_get_bytes(&body, 4))) {
        memcpy(&slice->digest, bytes, 4);
    }
    bytes = panda_log_get_string(&body, &n);
    if (!bytes || body.bad) {
        return false;
    }
    slice->calls = (PandaLogCursor) { bytes, bytes + n };
    slice->pause = body;
    return true;
}
