/*
 * The kernel's log.
 *
 * VMCOREINFO says where it is and how it is laid out, so that crash dumps can
 * show it: since 5.10 a ring of descriptors and one of texts. A descriptor
 * counts if it is finished and has the number of its place; its text if that
 * number is in front of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "panda/os_kernel.h"

#define MAX_MESSAGES (1u << 20)
#define MAX_TEXTS (64 * MiB)
/* The state of a descriptor that is finished: its two highest bits. */
#define FINALIZED 2
/* Where an empty text is; one that there was no room for is at 1. */
#define NO_TEXT 3

typedef struct Log {
    PandaLogMessage *out;
    uint64_t room, n;
    char *texts;
    uint64_t size, used;
} Log;

static bool number(const char *kind, const char *name, uint64_t *value)
{
    char key[80];

    snprintf(key, sizeof(key), "%s(%s)", kind, name);
    return os_vmcoreinfo_number(key, value) && *value < 1 << 16;
}

static bool symbol(const char *name, uint64_t *value)
{
    char key[80];

    snprintf(key, sizeof(key), "SYMBOL(%s)", name);
    return os_vmcoreinfo_hex(key, value);
}

/* A word of the guest, at a place that VMCOREINFO names. */
static bool word(uint64_t base, const char *field, uint64_t *value)
{
    uint64_t offset;

    return number("OFFSET", field, &offset)
        && os_read_word(base + offset, value);
}

static bool u32(uint64_t base, const char *field, uint32_t *value)
{
    uint64_t offset;

    return number("OFFSET", field, &offset)
        && os_read_u32(base + offset, value);
}

/* Text is copied by pages, as far as there is any. */
static void add(Log *log, PandaLogMessage *m, uint64_t text)
{
    m->text = log->used;
    if (log->used + m->length <= log->size
        && !os_read(text, log->texts + log->used, m->length)) {
        m->length = 0;
    }
    log->used += m->length;
    if (log->n < log->room) {
        log->out[log->n] = *m;
    }
    log->n++;
}

/* ---- since 5.10 ---- */

typedef struct Ring {
    uint64_t descs, infos, data;
    uint64_t desc_size, info_size;
    unsigned count_bits, size_bits;
    /* In a descriptor, in an info. */
    uint64_t state, counter, begin, next, seq, ts, text_len, caller;
    uint64_t head, tail;
} Ring;

static bool find_ring(Ring *r)
{
    uint64_t prb, ring, data, lpos;
    uint32_t bits;

    if (!symbol("prb", &prb) || !os_read_word(prb, &prb)
        || !number("OFFSET", "printk_ringbuffer.desc_ring", &ring)
        || !number("OFFSET", "printk_ringbuffer.text_data_ring", &data)
        || !number("OFFSET", "atomic_long_t.counter", &r->counter)) {
        return false;
    }
    ring += prb;
    data += prb;
    if (!u32(ring, "prb_desc_ring.count_bits", &bits) || bits > 24) {
        return false;
    }
    r->count_bits = bits;
    if (!u32(data, "prb_data_ring.size_bits", &bits) || bits > 28
        || bits < 4) {
        return false;
    }
    r->size_bits = bits;
    if (!word(ring, "prb_desc_ring.descs", &r->descs)
        || !word(ring, "prb_desc_ring.infos", &r->infos)
        || !word(ring + r->counter, "prb_desc_ring.head_id", &r->head)
        || !word(ring + r->counter, "prb_desc_ring.tail_id", &r->tail)
        || !word(data, "prb_data_ring.data", &r->data)
        || !number("SIZE", "prb_desc", &r->desc_size)
        || !number("OFFSET", "prb_desc.state_var", &r->state)
        || !number("OFFSET", "prb_desc.text_blk_lpos", &lpos)
        || !number("OFFSET", "prb_data_blk_lpos.begin", &r->begin)
        || !number("OFFSET", "prb_data_blk_lpos.next", &r->next)
        || !number("SIZE", "printk_info", &r->info_size)
        || !number("OFFSET", "printk_info.seq", &r->seq)
        || !number("OFFSET", "printk_info.ts_nsec", &r->ts)
        || !number("OFFSET", "printk_info.text_len", &r->text_len)
        || !number("OFFSET", "printk_info.caller_id", &r->caller)) {
        return false;
    }
    r->state += r->counter;
    r->begin += lpos;
    r->next += lpos;
    return true;
}

/* Where a text is and how long it is at most; false: it is gone. */
static bool find_text(const Ring *r, uint64_t begin, uint64_t next,
                      uint64_t id, uint64_t *text, uint64_t *room)
{
    uint64_t size = 1ull << r->size_bits, mask = size - 1, at, number;

    if (begin & 1 && next & 1) {
        *text = 0;
        *room = 0;
        return begin == NO_TEXT && next == NO_TEXT;
    }
    if (begin >> r->size_bits == next >> r->size_bits && begin < next) {
        at = begin & mask;
        *room = next - begin;
    } else {
        /* It did not fit behind the others: it is at the ring's start. */
        at = 0;
        *room = next & mask;
    }
    if (*room < os_memory.word || *room > size - at
        || !os_read_word(r->data + at, &number) || number != id) {
        return false;
    }
    *room -= os_memory.word;
    *text = r->data + at + os_memory.word;
    return true;
}

static bool add_descriptor(const Ring *r, uint64_t id, Log *log)
{
    unsigned top = os_memory.word * 8 - 2;
    uint64_t index = id & ((1ull << r->count_bits) - 1);
    uint64_t desc = r->descs + index * r->desc_size;
    uint64_t info = r->infos + index * r->info_size;
    uint64_t state, begin, next, text, room;
    PandaLogMessage m = {};
    uint8_t bytes[4];
    uint16_t length;

    if (!os_read_word(desc + r->state, &state)
        || !os_read_word(desc + r->begin, &begin)
        || !os_read_word(desc + r->next, &next)
        || !os_read_u64(info + r->seq, &m.sequence)
        || !os_read_u64(info + r->ts, &m.time)
        || !os_read(info + r->text_len, bytes, sizeof(bytes))) {
        return false;
    }
    /* Not ended yet, or taken for another one meanwhile. */
    if (state >> top != FINALIZED || (state & ((1ull << top) - 1)) != id
        || !find_text(r, begin, next, id, &text, &room)) {
        return true;
    }
    length = os_u16_at(bytes);
    m.length = MIN(length, room);
    /* The number of who called is behind the level, if they are there. */
    if (r->caller == r->text_len + 4) {
        m.facility = bytes[2];
        m.level = os_memory.big_endian ? bytes[3] & 7 : bytes[3] >> 5;
    }
    add(log, &m, text);
    return true;
}

static bool read_ring(const Ring *r, Log *log)
{
    uint64_t mask = (1ull << (os_memory.word * 8 - 2)) - 1;
    uint64_t n = ((r->head - r->tail) & mask) + 1;

    if (n > 1ull << r->count_bits || n > MAX_MESSAGES) {
        return false;
    }
    for (uint64_t i = 0; i < n; i++) {
        if (!add_descriptor(r, (r->tail + i) & mask, log)
            || log->used > MAX_TEXTS) {
            return false;
        }
    }
    return true;
}

/* ---- the public function ---- */

int64_t panda_os_dmesg(PandaLogMessage *messages, uint64_t n, char *texts,
                       uint64_t size)
{
    OS_LOCK_GUARD();
    Log log = { .out = messages, .room = n, .texts = texts, .size = size };
    int status = os_require();
    Ring ring;

    if (status != PANDA_OK) {
        return status;
    }
    if (!find_ring(&ring)) {
        return panda_fail(PANDA_ERR_OS, "where this kernel has its log is not "
                          "known: kernels since 5.10 say it in VMCOREINFO, "
                          "%s", os_vmcoreinfo() ? "which says nothing of it "
                          "here" : "which this one does not have");
    }
    return read_ring(&ring, &log) ? (int64_t)log.n
        : panda_fail(PANDA_ERR_OS, "the kernel's log is broken after %"
                     PRIu64 " messages", log.n);
}
