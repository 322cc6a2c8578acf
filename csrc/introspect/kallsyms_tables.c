/*
 * Where the tables of kallsyms are: VMCOREINFO says it, or they are recognised.
 *
 * The token table is the anchor of the search: digits are nearly always tokens
 * of their own, in a row. Its index follows it, and checks it; the markers and
 * names are in front. Between these and in their order versions differ.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/kallsyms.h"
#include "introspect/kallsyms_tables.h"

#define TOKENS 256
#define CHUNK 256
#define MAX_SYMBOLS 4000000u
#define MARKERS_BEFORE (4 * MiB)
/* Bytes that 256 names have. */
#define CHUNK_MIN 512u
#define CHUNK_MAX 51200u

uint64_t os_kallsyms_marker(const OsKallsymsTables *t, uint64_t i)
{
    const uint8_t *at = t->markers + i * t->marker_size;

    return t->marker_size == 4 ? os_u32_at(at) : os_word_at(at);
}

/* ---- by VMCOREINFO ---- */

static const uint8_t *table(const char *name, uint64_t size, uint64_t *va)
{
    g_autofree char *key = g_strdup_printf("SYMBOL(kallsyms_%s)", name);

    if (!os_vmcoreinfo_hex(key, va) || !os_memory.has_image_delta) {
        return NULL;
    }
    return os_ram(*va - os_memory.image_delta, size);
}

bool os_kallsyms_by_vmcoreinfo(OsKallsymsTables *t)
{
    const OsSegment *s;
    const uint8_t *at;
    uint64_t va;

    *t = (OsKallsymsTables) { .how = "VMCOREINFO" };
    at = table("num_syms", 4, &va);
    t->n = at ? os_u32_at(at) : 0;
    t->names = table("names", 1, &va);
    t->token_table = table("token_table", 1, &va);
    t->token_index = table("token_index", 2 * TOKENS, &va);
    if (!t->n || t->n > MAX_SYMBOLS || !t->names || !t->token_table
        || !t->token_index) {
        return false;
    }
    s = os_segment_of(t->names);
    t->end = s->host + s->size;
    t->addresses = table("addresses", t->n * os_memory.word, &va);
    t->offsets = table("offsets", t->n * 4, &t->offsets_va);
    at = table("relative_base", os_memory.word, &va);
    t->relative_base = at ? os_word_at(at) : 0;
    if (!t->addresses && !t->relative_base && os_memory.word == 4) {
        /* What is relative to its place on 64 bits is the address itself. */
        t->addresses = t->offsets;
    }
    return t->addresses || t->offsets;
}

/* ---- by search ---- */

static const uint8_t *align_up(const OsSegment *s, const uint8_t *at,
                               unsigned by)
{
    return s->host + ROUND_UP((uint64_t)(at - s->host), by);
}

/* The token table of which `hit` is the token "0"; false: it is none. */
static bool find_tokens(const OsSegment *s, const uint8_t *hit,
                        OsKallsymsTables *t)
{
    const uint8_t *end = s->host + s->size;
    const uint8_t *at = hit;

    for (unsigned i = '0'; i < TOKENS; i++) {
        const uint8_t *nul = memchr(at, 0, MIN(64, end - at));

        if (!nul || nul == at) {
            return false;
        }
        at = nul + 1;
    }
    for (unsigned by = 1; by <= 256; by *= 2) {
        const uint8_t *index = align_up(s, at, by);
        bool rises = index + 2 * TOKENS <= end && !os_u16_at(index);

        for (unsigned i = 1; rises && i < TOKENS; i++) {
            rises = os_u16_at(index + 2 * i) > os_u16_at(index + 2 * i - 2);
        }
        if (rises && os_u16_at(index + 2 * '0') <= hit - s->host) {
            t->token_index = index;
            t->token_table = hit - os_u16_at(index + 2 * '0');
            return true;
        }
    }
    return false;
}

static uint64_t number_at(const uint8_t *at, unsigned size)
{
    return size == 4 ? os_u32_at(at) : os_word_at(at);
}

/* How many markers there are at a place; 0: none. */
static uint64_t count_markers(const uint8_t *at, const uint8_t *end,
                              unsigned size)
{
    uint64_t n = 1, last = 0;

    if (number_at(at, size)) {
        return 0;
    }
    for (at += size; at + size <= end; at += size, n++) {
        uint64_t here = number_at(at, size);

        if (here < last + CHUNK_MIN || here > last + CHUNK_MAX) {
            break;
        }
        last = here;
    }
    return n >= 8 ? n : 0;
}

/* Names that end where the markers begin. */
static bool find_names(const OsSegment *s, OsKallsymsTables *t,
                       uint64_t n_markers, unsigned *slot)
{
    uint64_t last = os_kallsyms_marker(t, n_markers - 1);

    for (uint64_t tail = 2; tail < CHUNK_MAX; tail++) {
        const uint8_t *names = t->markers - last - tail;

        if (names - 8 < s->host) {
            return false;
        }
        if ((names - s->host) % 4) {
            continue;
        }
        for (*slot = 4; *slot <= 8; *slot += 4) {
            uint64_t n = os_u32_at(names - *slot);
            const uint8_t *at = names;

            if (DIV_ROUND_UP(n, CHUNK) != n_markers) {
                continue;
            }
            /* The first chunk tells whether this is the place. */
            for (unsigned i = 0; i < CHUNK && *at; i++) {
                at += 1 + (*at & 0x80 ? ((*at & 0x7f) | at[1] << 7) + 1u
                                      : *at);
                if (at >= t->markers) {
                    break;
                }
            }
            if (at - names == os_kallsyms_marker(t, 1)) {
                t->names = names;
                t->n = n;
                return true;
            }
        }
    }
    return false;
}

/*
 * Are there rising offsets at a place? Where those of each CPU's own memory are
 * told apart, all others are negative, and count downwards.
 */
static bool rises(const uint8_t *at, uint64_t n)
{
    uint64_t falls = 0, signed_falls = 0;
    int32_t last = os_u32_at(at);

    for (uint64_t i = 1; i < n; i++) {
        int32_t here = os_u32_at(at + 4 * i);

        falls += (uint32_t)here < (uint32_t)last;
        signed_falls += (here < 0 ? ~here : here) < (last < 0 ? ~last : last);
        last = here;
    }
    return (falls <= 1 || signed_falls <= 1)
        && os_u32_at(at) != os_u32_at(at + 4 * (n - 1));
}

static bool try_offsets(const OsSegment *s, OsKallsymsTables *t,
                        const uint8_t *offsets, const uint8_t *base,
                        bool (*accept)(const OsKallsymsTables *t))
{
    const uint8_t *end = s->host + s->size;

    if (offsets < s->host || offsets + 4 * t->n > end || base < s->host
        || base + os_memory.word > end || !rises(offsets, t->n)) {
        return false;
    }
    t->offsets = offsets;
    t->relative_base = os_word_at(base);
    t->offsets_va = 0;
    t->addresses = NULL;
    return os_is_kernel(t->relative_base) && accept(t);
}

/* Before the names up to Linux 6.3, after the index of tokens since then. */
static bool find_addresses(const OsSegment *s, OsKallsymsTables *t,
                           unsigned slot,
                           bool (*accept)(const OsKallsymsTables *t))
{
    const uint8_t *end = s->host + s->size;
    unsigned word = os_memory.word;

    for (unsigned by = word; by <= 256; by *= 2) {
        const uint8_t *base = t->names - slot - by;
        const uint8_t *offsets = base - ROUND_UP(4 * t->n, by);

        if (try_offsets(s, t, offsets, base, accept)) {
            return true;
        }
        offsets = align_up(s, t->token_index + 2 * TOKENS, by);
        base = align_up(s, offsets + 4 * t->n, by);
        if (try_offsets(s, t, offsets, base, accept)) {
            return true;
        }
        /* Relative to their own place: that must be known. */
        if (offsets + 4 * t->n <= end && os_memory.has_image_delta) {
            t->offsets = offsets;
            t->offsets_va = os_ram_address(offsets) + os_memory.image_delta;
            t->relative_base = 0;
            t->addresses = NULL;
            if (accept(t)) {
                return true;
            }
        }
        t->offsets = NULL;
        t->addresses = t->names - slot - ROUND_UP(word * t->n, by);
        if (t->addresses >= s->host && accept(t)) {
            return true;
        }
        /* The same at the new place: 32-bit kernels, which need no base. */
        t->addresses = offsets;
        if (word == 4 && offsets + 4 * t->n <= end && accept(t)) {
            return true;
        }
    }
    return false;
}

static bool search_from(const OsSegment *s, OsKallsymsTables *t,
                        bool (*accept)(const OsKallsymsTables *t))
{
    const uint8_t *top = s->host
        + ROUND_DOWN((uint64_t)(t->token_table - s->host), 4);
    uint64_t reach = MIN(MARKERS_BEFORE, (uint64_t)(top - s->host));

    for (unsigned size = 4; size <= os_memory.word; size += 4) {
        for (uint64_t back = 4; back <= reach; back += 4) {
            const uint8_t *at = top - back;
            uint64_t n = count_markers(at, t->token_table, size);
            unsigned slot;

            if (!n) {
                continue;
            }
            t->markers = at;
            t->marker_size = size;
            if (find_names(s, t, n, &slot)
                && find_addresses(s, t, slot, accept)) {
                return true;
            }
        }
    }
    return false;
}

bool os_kallsyms_search(bool (*accept)(const OsKallsymsTables *t))
{
    static const char digits[] = "0\0001\0002\0003\0004\0005\0006\0007\0008\0009";

    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        const OsSegment *s = &os_memory.segment[i];
        const uint8_t *end = s->host + s->size;

        for (const uint8_t *hit = s->host;
             (hit = memmem(hit, end - hit, digits, sizeof(digits))); hit++) {
            OsKallsymsTables t = { .how = "found by its looks", .end = end };

            if (find_tokens(s, hit, &t) && search_from(s, &t, accept)) {
                return true;
            }
        }
    }
    return false;
}
