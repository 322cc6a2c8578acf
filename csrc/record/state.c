/*
 * The state a recording starts from: devices and CPU, and RAM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/state.h"
#include "qemu/cutils.h"
#include "io/channel-buffer.h"
#include "migration/global_state.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "hw/core/sysemu-cpu-ops.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/cpus.h"

#define PAGE 4096u
/* Data pages in a member. */
#define MEMBER_PAGES 1024u

/* ---- devices and CPU ---- */

/* Not all of the lines are in what QEMU saves. */
static void save_lines(PandaBytes *out)
{
    panda_bytes_number(out, panda_lines_count());
    for (unsigned i = 0; i < panda_lines_count(); i++) {
        panda_bytes_number(out, panda_line_get(i));
    }
}

bool panda_state_save(PandaBytes *out, Error **errp)
{
    g_autoptr(QIOChannelBuffer) channel = NULL;
    QEMUFile *file;
    char *said;
    int status;

    if (qemu_savevm_state_blocked(errp)) {
        return false;
    }
    global_state_store();
    channel = qio_channel_buffer_new(1 << 16);
    file = qemu_file_new_output(QIO_CHANNEL(channel));
    panda_capture_begin();
    status = qemu_save_device_state(file);
    if (!status) {
        status = qemu_fflush(file);
    }
    said = panda_capture_end();
    if (status) {
        error_setg(errp, "the devices' state cannot be saved: %s",
                   said && *said ? g_strchomp(said) : strerror(-status));
    } else {
        panda_bytes_number(out, channel->usage);
        panda_bytes_put(out, channel->data, channel->usage);
        save_lines(out);
        panda_arch_cpu_save(out);
        panda_arch_save(out);
    }
    g_free(said);
    qemu_fclose(file);
    return !status;
}

/* Devices may have changed them while they were loaded. */
static bool load_lines(PandaLogCursor *c)
{
    CPUState *cs = panda_vcpu.cs;

    if (panda_log_get(c) != panda_lines_count()) {
        return false;
    }
    for (unsigned i = 0; i < panda_lines_count(); i++) {
        panda_line_set(cs, i, panda_log_get(c));
    }
    cs->exception_index = -1;
    cs->cflags_next_tb = -1;
    return !c->bad;
}

bool panda_state_load(const uint8_t *data, size_t size, Error **errp)
{
    PandaLogCursor c = { data, data + size };
    g_autoptr(QIOChannelBuffer) channel = NULL;
    const uint8_t *bytes;
    QEMUFile *file;
    char *said;
    size_t n;
    int status;

    bytes = panda_log_get_string(&c, &n);
    if (!bytes || n < 8) {
        error_setg(errp, "the devices' state is malformed");
        return false;
    }
    channel = qio_channel_buffer_new(n);
    memcpy(channel->data, bytes, n);
    channel->usage = n;
    file = qemu_file_new_input(QIO_CHANNEL(channel));
    qemu_get_be32(file);
    qemu_get_be32(file);
    panda_capture_begin();
    status = qemu_load_device_state(file);
    said = panda_capture_end();
    if (status) {
        error_setg(errp, "the machine is another one than was recorded: %s",
                   said && *said ? g_strchomp(said) : strerror(-status));
    }
    g_free(said);
    qemu_fclose(file);
    if (!status && (!load_lines(&c) || !panda_arch_cpu_load(&c)
                    || !panda_arch_load(&c) || c.bad)) {
        error_setg(errp, "the CPU's state is malformed");
        return false;
    }
    return !status;
}

/* ---- the CPU alone ---- */

static const VMStateDescription *cpu_description(CPUState *cs)
{
    return cs->cc->sysemu_ops->legacy_vmsd ?: DEVICE_GET_CLASS(cs)->vmsd;
}

bool panda_cpu_save(PandaBytes *out)
{
    g_autoptr(QIOChannelBuffer) channel = qio_channel_buffer_new(1 << 14);
    QEMUFile *file = qemu_file_new_output(QIO_CHANNEL(channel));
    CPUState *cs = panda_vcpu.cs;
    int status = vmstate_save_state(file, cpu_description(cs), cs, NULL);

    /* Who loads it looks at what follows, and must not come to the end. */
    qemu_put_be64(file, 0);
    status = status ?: qemu_fflush(file);
    if (!status) {
        panda_bytes_number(out, channel->usage);
        panda_bytes_put(out, channel->data, channel->usage);
        save_lines(out);
        panda_arch_cpu_save(out);
    }
    qemu_fclose(file);
    return !status;
}

bool panda_cpu_load(PandaLogCursor *c)
{
    CPUState *cs = panda_vcpu.cs;
    const VMStateDescription *description = cpu_description(cs);
    g_autoptr(QIOChannelBuffer) channel = NULL;
    QEMUFile *file;
    const uint8_t *bytes;
    size_t n;
    int status;

    bytes = panda_log_get_string(c, &n);
    if (!bytes) {
        return false;
    }
    channel = qio_channel_buffer_new(n);
    memcpy(channel->data, bytes, n);
    channel->usage = n;
    file = qemu_file_new_input(QIO_CHANNEL(channel));
    status = vmstate_load_state(file, description, cs,
                                description->version_id);
    qemu_fclose(file);
    return !status && load_lines(c) && panda_arch_cpu_load(c);
}

/* ---- RAM ---- */

struct PandaRamCopy {
    /* Of each page that is not zero: its block and number. */
    GArray *places;
    uint8_t *pages;
    size_t mapped;
};

typedef struct Place {
    uint32_t block, page;
} Place;

static unsigned pages_of(const PandaRam *ram)
{
    return DIV_ROUND_UP(ram->size, PAGE);
}

static size_t page_size(const PandaRam *ram, unsigned page)
{
    return MIN(PAGE, ram->size - (uint64_t)page * PAGE);
}

void panda_ram_copy_free(PandaRamCopy *copy)
{
    if (copy) {
        g_array_unref(copy->places);
        munmap(copy->pages, copy->mapped);
        g_free(copy);
    }
}

PandaRamCopy *panda_ram_copy(const PandaRam *ram, unsigned n, Error **errp)
{
    PandaRamCopy *copy = g_new0(PandaRamCopy, 1);

    copy->places = g_array_new(false, false, sizeof(Place));
    for (unsigned i = 0; i < n; i++) {
        for (unsigned page = 0; page < pages_of(&ram[i]); page++) {
            if (!buffer_is_zero(ram[i].host + (size_t)page * PAGE,
                                page_size(&ram[i], page))) {
                Place place = { i, page };

                g_array_append_val(copy->places, place);
            }
        }
    }
    copy->mapped = MAX(1, copy->places->len) * (size_t)PAGE;
    copy->pages = mmap(NULL, copy->mapped, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy->pages == MAP_FAILED) {
        error_setg_errno(errp, errno, "no memory for a copy of the guest's "
                         "RAM, %zu MB", copy->mapped >> 20);
        g_array_unref(copy->places);
        g_free(copy);
        return NULL;
    }
    madvise(copy->pages, copy->mapped, MADV_HUGEPAGE);
    for (unsigned i = 0; i < copy->places->len; i++) {
        Place *p = &g_array_index(copy->places, Place, i);

        memcpy(copy->pages + (size_t)i * PAGE,
               ram[p->block].host + (size_t)p->page * PAGE,
               page_size(&ram[p->block], p->page));
    }
    return copy;
}

/* A page's content as a key: the number of the first page that has it. */
typedef struct PageKey {
    const uint8_t *bytes;
    unsigned number;
} PageKey;

static guint hash_page(gconstpointer key)
{
    return panda_rr_mix_bytes(0, ((const PageKey *)key)->bytes, PAGE);
}

static gboolean same_page(gconstpointer a, gconstpointer b)
{
    return !memcmp(((const PageKey *)a)->bytes, ((const PageKey *)b)->bytes,
                   PAGE);
}

/*
 * A member: for each page its block, the distance of its number to the one
 * before in that block, and how many pages ago the same content was (0: the
 * content is here). Then the contents.
 */
static bool write_member(PandaRamCopy *copy, GHashTable *seen, PageKey *keys,
                         unsigned from, unsigned to, unsigned number,
                         PandaArchiveWriter *w, Error **errp)
{
    g_autofree char *name = g_strdup_printf("ram/%06u", number);
    PandaBytes table = {}, data = {}, all = {};
    uint32_t block = 0, page = 0;
    bool ok;

    for (unsigned i = from; i < to; i++) {
        Place *p = &g_array_index(copy->places, Place, i);
        PageKey *key = &keys[i], *first;

        *key = (PageKey) { copy->pages + (size_t)i * PAGE, i };
        first = g_hash_table_lookup(seen, key);
        panda_bytes_number(&table, p->block);
        panda_bytes_number(&table,
                           p->block == block ? p->page - page : p->page);
        panda_bytes_number(&table, first ? i - first->number : 0);
        if (!first) {
            g_hash_table_add(seen, key);
            panda_bytes_put(&data, key->bytes, PAGE);
        }
        block = p->block;
        page = p->page;
    }
    panda_bytes_number(&all, to - from);
    panda_bytes_put(&all, table.data, table.n);
    panda_bytes_put(&all, data.data, data.n);
    ok = panda_archive_add(w, name, all.data, all.n, errp);
    g_free(table.data);
    g_free(data.data);
    g_free(all.data);
    return ok;
}

bool panda_ram_copy_write(PandaRamCopy *copy, PandaArchiveWriter *w,
                          Error **errp)
{
    GHashTable *seen = g_hash_table_new(hash_page, same_page);
    unsigned n = copy->places->len, number = 0;
    PageKey *keys = g_new(PageKey, MAX(1, n));
    bool ok = true;

    for (unsigned from = 0; ok && from < n; from += MEMBER_PAGES) {
        ok = write_member(copy, seen, keys, from, MIN(n, from + MEMBER_PAGES),
                          number++, w, errp);
    }
    g_hash_table_unref(seen);
    g_free(keys);
    panda_ram_copy_free(copy);
    return ok;
}

/* A page that was loaded, for those with the same content. */
typedef struct Loader {
    PandaRam *rams;
    unsigned n_rams;
    GPtrArray *loaded;
    /* Contents of pages the machine has no place for. */
    GPtrArray *strays;
    /* The next page that is not loaded yet: those before it are zero. */
    uint32_t *next;
} Loader;

static void zero_up_to(Loader *l, unsigned block, uint32_t page)
{
    PandaRam *ram = &l->rams[block];

    for (; l->next[block] < page; l->next[block]++) {
        uint8_t *host = ram->host + (size_t)l->next[block] * PAGE;
        size_t size = page_size(ram, l->next[block]);

        /* Reading does not make the host allocate it. */
        if (ram->host && !buffer_is_zero(host, size)) {
            memset(host, 0, size);
        }
    }
}

static bool load_member(Loader *l, const uint8_t *data, size_t size)
{
    PandaLogCursor table = { data, data + size }, contents;
    uint64_t n = panda_log_get(&table);
    uint64_t block = 0, page = 0;

    contents = table;
    for (uint64_t i = 0; i < n * 3 && !contents.bad; i++) {
        panda_log_get(&contents);
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t b = panda_log_get(&table), gap = panda_log_get(&table);
        uint64_t ago = panda_log_get(&table);
        const uint8_t *bytes;
        uint8_t *host;

        page = b == block && i ? page + gap : gap;
        block = b;
        if (table.bad || contents.bad || b >= l->n_rams
            || page >= pages_of(&l->rams[b]) || ago > l->loaded->len
            || page < l->next[b]) {
            return false;
        }
        bytes = ago ? g_ptr_array_index(l->loaded, l->loaded->len - ago)
                    : panda_log_get_bytes(&contents, PAGE);
        if (!bytes) {
            return false;
        }
        zero_up_to(l, block, page);
        l->next[block]++;
        host = l->rams[block].host;
        if (host && page_size(&l->rams[block], page) == PAGE) {
            host += page * PAGE;
            memcpy(host, bytes, PAGE);
        } else {
            if (host) {
                memcpy(host + page * PAGE, bytes,
                       page_size(&l->rams[block], page));
            }
            host = g_memdup2(bytes, PAGE);
            g_ptr_array_add(l->strays, host);
        }
        g_ptr_array_add(l->loaded, host);
    }
    return !table.bad && contents.at == contents.end;
}

bool panda_ram_load(const PandaArchive *a, PandaRam *rams, unsigned n,
                    Error **errp)
{
    Loader l = {
        .rams = rams, .n_rams = n, .loaded = g_ptr_array_new(),
        .next = g_new0(uint32_t, n),
        .strays = g_ptr_array_new_with_free_func(g_free),
    };
    bool ok = true;

    for (unsigned i = 0; ok && i < panda_archive_members(a); i++) {
        g_autofree uint8_t *data = NULL;
        size_t size;

        if (!g_str_has_prefix(panda_archive_name(a, i), "ram/")) {
            continue;
        }
        data = panda_archive_read(a, i, &size, errp);
        if (!data) {
            ok = false;
        } else if (!load_member(&l, data, size)) {
            error_setg(errp, "the recording is damaged: its member %s is "
                       "malformed", panda_archive_name(a, i));
            ok = false;
        }
    }
    for (unsigned i = 0; ok && i < n; i++) {
        zero_up_to(&l, i, pages_of(&rams[i]));
    }
    g_ptr_array_unref(l.loaded);
    g_ptr_array_unref(l.strays);
    g_free(l.next);
    return ok;
}
