/*
 * The file of a recording: a zip archive that is written front to back.
 *
 * Every member has its size and checksum before its data, so what was written
 * before a crash can be read without the directory at the end. Members are
 * deflated at the lowest level: recording must not wait for them. What looks as
 * if it had been compressed already becomes stored blocks, which deflate has for
 * that.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/archive.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include <zlib.h>

#define LOCAL_MAGIC   0x04034b50u
#define CENTRAL_MAGIC 0x02014b50u
#define END64_MAGIC   0x06064b50u
#define WHERE64_MAGIC 0x07064b50u
#define END_MAGIC     0x06054b50u
#define LOCAL_SIZE    30
#define END_SIZE      22
#define DEFLATED      8
/* No member is near it: they are made of chunks. */
#define MEMBER_MAX    (1u << 30)
/* 1980-01-01, so that equal recordings are equal files. */
#define ZIP_DATE      0x0021

typedef struct Member {
    char *name;
    uint64_t offset;
    uint32_t crc, packed, size;
} Member;

struct PandaArchiveWriter {
    char *path, *part;
    int fd;
    uint64_t at;
    GArray *members;
};

struct PandaArchive {
    char *path;
    int fd;
    bool cut;
    GArray *members;
};

static void free_member(void *m)
{
    g_free(((Member *)m)->name);
}

static GArray *new_members(void)
{
    GArray *members = g_array_new(false, false, sizeof(Member));

    g_array_set_clear_func(members, free_member);
    return members;
}

/* ---- writing ---- */

PandaArchiveWriter *panda_archive_create(const char *path, Error **errp)
{
    PandaArchiveWriter *w;
    g_autofree char *part = g_strconcat(path, ".part", NULL);
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot write %s", part);
        return NULL;
    }
    w = g_new0(PandaArchiveWriter, 1);
    w->path = g_strdup(path);
    w->part = g_steal_pointer(&part);
    w->fd = fd;
    w->members = new_members();
    return w;
}

static bool put(PandaArchiveWriter *w, const void *data, size_t size,
                Error **errp)
{
    if (qemu_write_full(w->fd, data, size) != size) {
        error_setg_errno(errp, errno ?: EIO, "cannot write %s", w->part);
        return false;
    }
    w->at += size;
    return true;
}

static uint8_t *put16(uint8_t *p, uint16_t v)
{
    stw_le_p(p, v);
    return p + 2;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
    stl_le_p(p, v);
    return p + 4;
}

static uint8_t *put64(uint8_t *p, uint64_t v)
{
    stq_le_p(p, v);
    return p + 8;
}

/* The fields that the header of a member and its directory entry share. */
static uint8_t *put_facts(uint8_t *p, const Member *m, uint16_t extra)
{
    p = put16(p, 45);
    p = put16(p, 0);
    p = put16(p, DEFLATED);
    p = put16(p, 0);
    p = put16(p, ZIP_DATE);
    p = put32(p, m->crc);
    p = put32(p, m->packed);
    p = put32(p, m->size);
    p = put16(p, strlen(m->name));
    return put16(p, extra);
}

/* Bytes that are looked at, and compressed or stored, as one. */
#define PIECE  (64u << 10)
#define SAMPLE 64u

/*
 * Is it not worth the time to compress this? The values of some of its bytes
 * are counted: if each is about as frequent as any other, it is not.
 */
static bool looks_random(const uint8_t *data, size_t size)
{
    unsigned counts[256] = {};
    uint64_t n = 0, squares = 0;

    if (size < PIECE / 4) {
        return false;
    }
    for (size_t at = 0; at + SAMPLE <= size; at += 16 * SAMPLE, n += SAMPLE) {
        for (unsigned i = 0; i < SAMPLE; i++) {
            counts[data[at + i]]++;
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        squares += (uint64_t)counts[i] * counts[i];
    }
    /* Of evenly distributed bytes it is n + n * n / 256. */
    return squares < n + n * n / 190;
}

static bool deflate_piece(z_stream *z, const uint8_t *data, size_t size,
                          bool last, bool *storing)
{
    bool store = looks_random(data, size);

    if (store != *storing) {
        *storing = store;
        if (deflateParams(z, store ? 0 : 1, Z_DEFAULT_STRATEGY) != Z_OK) {
            return false;
        }
    }
    z->next_in = (void *)data;
    z->avail_in = size;
    return deflate(z, last ? Z_FINISH : Z_NO_FLUSH)
        == (last ? Z_STREAM_END : Z_OK);
}

static uint8_t *deflate_all(const uint8_t *data, size_t size,
                            uint32_t *packed)
{
    z_stream z = {};
    bool storing = false, ok = true;
    size_t room, at = 0;
    uint8_t *out;

    if (deflateInit2(&z, 1, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        return NULL;
    }
    /* And what it takes to change between the two. */
    room = deflateBound(&z, size) + (size / PIECE + 1) * 32;
    out = g_malloc(room);
    z.next_out = out;
    z.avail_out = room;
    do {
        size_t n = MIN(PIECE, size - at);

        at += n;
        ok = deflate_piece(&z, data + at - n, n, at == size, &storing);
    } while (ok && at < size);
    if (!ok) {
        g_clear_pointer(&out, g_free);
    }
    *packed = z.total_out;
    deflateEnd(&z);
    return out;
}

bool panda_archive_add(PandaArchiveWriter *w, const char *name,
                       const void *data, size_t size, Error **errp)
{
    Member m = { .offset = w->at, .size = size };
    g_autofree uint8_t *packed = NULL;
    uint8_t header[LOCAL_SIZE], *p;

    g_assert(size < MEMBER_MAX);
    packed = deflate_all(data, size, &m.packed);
    if (!packed) {
        error_setg(errp, "cannot compress %s", name);
        return false;
    }
    m.crc = crc32(0, data, size);
    m.name = (char *)name;
    p = put32(header, LOCAL_MAGIC);
    put_facts(p, &m, 0);
    if (!put(w, header, sizeof(header), errp)
        || !put(w, name, strlen(name), errp)
        || !put(w, packed, m.packed, errp)) {
        return false;
    }
    m.name = g_strdup(name);
    g_array_append_val(w->members, m);
    return true;
}

/* What follows the members of an archive that was finished. */
static GByteArray *make_directory(const GArray *members, uint64_t begin)
{
    GByteArray *out = g_byte_array_new();
    uint64_t n = members->len, size;
    uint8_t buffer[128], *p;

    for (unsigned i = 0; i < n; i++) {
        Member *m = &g_array_index(members, Member, i);

        p = put32(buffer, CENTRAL_MAGIC);
        p = put16(p, 45);
        p = put_facts(p, m, 12);
        p = put16(p, 0);
        p = put16(p, 0);
        p = put16(p, 0);
        p = put32(p, 0);
        p = put32(p, UINT32_MAX);
        g_byte_array_append(out, buffer, p - buffer);
        g_byte_array_append(out, (uint8_t *)m->name, strlen(m->name));
        /* The offset, where it may be large. */
        p = put16(buffer, 1);
        p = put16(p, 8);
        p = put64(p, m->offset);
        g_byte_array_append(out, buffer, p - buffer);
    }
    size = out->len;
    p = put32(buffer, END64_MAGIC);
    p = put64(p, 44);
    p = put16(p, 45);
    p = put16(p, 45);
    p = put32(p, 0);
    p = put32(p, 0);
    p = put64(p, n);
    p = put64(p, n);
    p = put64(p, size);
    p = put64(p, begin);
    p = put32(p, WHERE64_MAGIC);
    p = put32(p, 0);
    p = put64(p, begin + size);
    p = put32(p, 1);
    p = put32(p, END_MAGIC);
    p = put16(p, 0);
    p = put16(p, 0);
    p = put16(p, UINT16_MAX);
    p = put16(p, UINT16_MAX);
    p = put32(p, UINT32_MAX);
    p = put32(p, UINT32_MAX);
    p = put16(p, 0);
    g_byte_array_append(out, buffer, p - buffer);
    return out;
}

static bool put_directory(PandaArchiveWriter *w, Error **errp)
{
    g_autoptr(GByteArray) directory = make_directory(w->members, w->at);

    return put(w, directory->data, directory->len, errp);
}

static void free_writer(PandaArchiveWriter *w)
{
    if (w->fd >= 0) {
        close(w->fd);
    }
    g_array_unref(w->members);
    g_free(w->path);
    g_free(w->part);
    g_free(w);
}

bool panda_archive_finish(PandaArchiveWriter *w, Error **errp)
{
    bool ok = put_directory(w, errp);

    if (ok && fsync(w->fd) < 0 && errno != EINVAL) {
        error_setg_errno(errp, errno, "cannot write %s", w->part);
        ok = false;
    }
    if (close(w->fd) < 0 && ok) {
        error_setg_errno(errp, errno, "cannot write %s", w->part);
        ok = false;
    }
    w->fd = -1;
    if (ok && rename(w->part, w->path) < 0) {
        error_setg_errno(errp, errno, "cannot rename %s to %s", w->part,
                         w->path);
        ok = false;
    }
    free_writer(w);
    return ok;
}

void panda_archive_abandon(PandaArchiveWriter *w)
{
    free_writer(w);
}

uint64_t panda_archive_size(const PandaArchiveWriter *w)
{
    return w->at;
}

/* ---- reading ---- */

static bool get(const PandaArchive *a, uint64_t at, void *buffer, size_t size)
{
    while (size) {
        ssize_t n = pread(a->fd, buffer, size, at);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        buffer = (uint8_t *)buffer + n;
        at += n;
        size -= n;
    }
    return true;
}

/* Is a header one that the writer makes? */
static bool is_ours(const uint8_t *header, const Member *m, uint16_t name)
{
    uint8_t expected[LOCAL_SIZE];

    put_facts(put32(expected, LOCAL_MAGIC), m, 0);
    stw_le_p(expected + 26, name);
    return !memcmp(header, expected, LOCAL_SIZE);
}

/* Walk the members; returns where they end. */
static uint64_t find_members(PandaArchive *a, uint64_t size)
{
    uint8_t h[LOCAL_SIZE];
    uint64_t at = 0;

    while (get(a, at, h, sizeof(h))) {
        Member m = {
            .name = (char *)"", .offset = at, .crc = ldl_le_p(h + 14),
            .packed = ldl_le_p(h + 18), .size = ldl_le_p(h + 22),
        };
        uint16_t name = lduw_le_p(h + 26);
        uint64_t next = at + LOCAL_SIZE + name + m.packed;

        if (!is_ours(h, &m, name) || name > 64 || m.size >= MEMBER_MAX
            || m.packed >= MEMBER_MAX || next > size) {
            break;
        }
        m.name = g_malloc0(name + 1);
        if (!get(a, at + LOCAL_SIZE, m.name, name)
            || strlen(m.name) != name) {
            g_free(m.name);
            break;
        }
        g_array_append_val(a->members, m);
        at = next;
    }
    return at;
}

/*
 * Look at what follows the members: the directory. Of an archive that was cut
 * off it is as much of the directory as was written, or, before the last
 * member, anything: what was written of the next one.
 */
static bool check_rest(PandaArchive *a, uint64_t at, uint64_t size,
                       Error **errp)
{
    g_autoptr(GByteArray) directory = make_directory(a->members, at);
    size_t n = MIN(size - at, directory->len);
    g_autofree uint8_t *rest = g_malloc(n + 1);
    uint8_t end[END_SIZE];
    bool same, ended;

    if (!get(a, at, rest, n)) {
        error_setg_errno(errp, errno, "cannot read the recording %s", a->path);
        return false;
    }
    same = !memcmp(rest, directory->data, n);
    if (same && size - at == directory->len) {
        return true;
    }
    ended = size >= END_SIZE && get(a, size - END_SIZE, end, END_SIZE)
        && ldl_le_p(end) == END_MAGIC;
    if (ended || (panda_archive_find(a, PANDA_ARCHIVE_LAST) >= 0
                  && (!same || size - at > directory->len))) {
        error_setg(errp, "the recording %s is damaged after its member %s, at "
                   "byte %" PRIu64, a->path,
                   panda_archive_name(a, a->members->len - 1), at);
        return false;
    }
    a->cut = true;
    return true;
}

PandaArchive *panda_archive_open(const char *path, Error **errp)
{
    PandaArchive *a;
    struct stat facts;
    uint64_t end;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &facts) < 0) {
        error_setg_errno(errp, errno, "cannot read the recording %s", path);
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }
    a = g_new0(PandaArchive, 1);
    a->fd = fd;
    a->path = g_strdup(path);
    a->members = new_members();
    end = find_members(a, facts.st_size);
    if (!a->members->len) {
        error_setg(errp, "%s is no recording", path);
    } else if (check_rest(a, end, facts.st_size, errp)) {
        return a;
    }
    panda_archive_close(a);
    return NULL;
}

void panda_archive_close(PandaArchive *a)
{
    if (a) {
        close(a->fd);
        g_array_unref(a->members);
        g_free(a->path);
        g_free(a);
    }
}

bool panda_archive_is_cut(const PandaArchive *a)
{
    return a->cut;
}

unsigned panda_archive_members(const PandaArchive *a)
{
    return a->members->len;
}

const char *panda_archive_name(const PandaArchive *a, unsigned i)
{
    return g_array_index(a->members, Member, i).name;
}

int panda_archive_find(const PandaArchive *a, const char *name)
{
    for (unsigned i = 0; i < a->members->len; i++) {
        if (!strcmp(panda_archive_name(a, i), name)) {
            return i;
        }
    }
    return -1;
}

static bool inflate_all(const Member *m, uint8_t *packed, uint8_t *out)
{
    z_stream z = {
        .next_in = packed, .avail_in = m->packed,
        .next_out = out, .avail_out = m->size,
    };
    bool ok;

    if (inflateInit2(&z, -15) != Z_OK) {
        return false;
    }
    ok = inflate(&z, Z_FINISH) == Z_STREAM_END && z.total_out == m->size
        && !z.avail_in;
    inflateEnd(&z);
    return ok && crc32(0, out, m->size) == m->crc;
}

uint8_t *panda_archive_read(const PandaArchive *a, unsigned i, size_t *size,
                            Error **errp)
{
    Member *m = &g_array_index(a->members, Member, i);
    g_autofree uint8_t *packed = g_try_malloc(m->packed + 1);
    /* A byte more, so that text ends. */
    uint8_t *out = g_try_malloc0((size_t)m->size + 1);

    if (!packed || !out
        || !get(a, m->offset + LOCAL_SIZE + strlen(m->name), packed, m->packed)
        || !inflate_all(m, packed, out)) {
        error_setg(errp, "the recording %s is damaged: its member %s, at byte "
                   "%" PRIu64 ", is not what was written", a->path, m->name,
                   m->offset);
        g_free(out);
        return NULL;
    }
    *size = m->size;
    return out;
}
