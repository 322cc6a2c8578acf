/*
 * Numbers of memory regions and of RAM blocks in a recording.
 *
 * A region is known by its path in QEMU's object tree, which is the same in
 * every process that creates the machine with the same arguments.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/regions.h"
#include "exec/ramlist.h"
#include "exec/memory-internal.h"
#include "qom/object.h"
#include "qemu/rcu.h"

typedef struct Region {
    MemoryRegion *mr;
    char *path;
} Region;

static GHashTable *numbers;
static GArray *regions;
static unsigned defined;

static void free_region(void *region)
{
    g_free(((Region *)region)->path);
}

void panda_regions_clear(void)
{
    if (regions) {
        g_array_unref(regions);
        g_hash_table_unref(numbers);
    }
    numbers = g_hash_table_new(NULL, NULL);
    regions = g_array_new(false, false, sizeof(Region));
    g_array_set_clear_func(regions, free_region);
    defined = 0;
}

static unsigned append(MemoryRegion *mr, void *key, char *path)
{
    Region region = { mr, path };

    g_array_append_val(regions, region);
    g_hash_table_insert(numbers, key, GUINT_TO_POINTER(regions->len));
    defined = regions->len;
    return defined;
}

unsigned panda_region_new(MemoryRegion *mr)
{
    return append(mr, mr, g_strdup(memory_region_name(mr)));
}

static unsigned number_of(Object *object, MemoryRegion *mr)
{
    unsigned number = GPOINTER_TO_UINT(g_hash_table_lookup(numbers, object));
    char *path;

    if (number) {
        return number;
    }
    path = object_get_canonical_path(object);
    if (!path) {
        return PANDA_REGION_ANY;
    }
    panda_log_entry(PANDA_ENTRY_REGION);
    panda_log_string(path, strlen(path));
    return append(mr, object, path);
}

unsigned panda_region_number(MemoryRegion *mr)
{
    return mr->subpage ? PANDA_REGION_ANY : number_of(OBJECT(mr), mr);
}

unsigned panda_device_number(Object *device)
{
    return number_of(device, NULL);
}

void panda_region_define(PandaLogCursor *c)
{
    size_t n;
    const uint8_t *text = panda_log_get_string(c, &n);
    char *path;
    Object *found;

    if (!text || n > 4096) {
        panda_log_bad(c);
        return;
    }
    if (panda_region_again()) {
        return;
    }
    path = g_strndup((const char *)text, n);
    found = object_resolve_path_type(path, TYPE_MEMORY_REGION, NULL);
    append(found ? MEMORY_REGION(found) : NULL, found, path);
}

bool panda_region_again(void)
{
    /* Devices are in the table too, and have no region. */
    if (defined < regions->len) {
        defined++;
        return true;
    }
    return false;
}

MemoryRegion *panda_region_get(unsigned number)
{
    return number && number <= defined
        ? g_array_index(regions, Region, number - 1).mr : NULL;
}

unsigned panda_regions(void)
{
    return defined;
}

void panda_regions_set(unsigned count)
{
    g_assert(count <= regions->len);
    defined = count;
}

const char *panda_region_path(unsigned number)
{
    return number && number <= panda_regions()
        ? g_array_index(regions, Region, number - 1).path : "";
}

/* ---- RAM blocks ---- */

static GArray *rams;

static void free_ram(void *ram)
{
    g_free(((PandaRam *)ram)->name);
}

void panda_rams_clear(void)
{
    g_clear_pointer(&rams, g_array_unref);
}

PandaRam *panda_rams(unsigned *count)
{
    RAMBlock *rb;

    if (!rams) {
        rams = g_array_new(false, false, sizeof(PandaRam));
        g_array_set_clear_func(rams, free_ram);
        RCU_READ_LOCK_GUARD();
        RAMBLOCK_FOREACH(rb) {
            /* All there can be: some blocks grow and shrink. */
            PandaRam ram = {
                .name = g_strdup(rb->idstr), .host = rb->host,
                .size = rb->max_length, .offset = rb->offset, .mr = rb->mr,
            };

            if (!*ram.name) {
                g_free(ram.name);
                ram.name = g_strdup_printf("?%s", memory_region_name(rb->mr));
            }
            g_array_append_val(rams, ram);
        }
    }
    *count = rams->len;
    return (PandaRam *)rams->data;
}

int panda_ram_of(MemoryRegion *mr, hwaddr addr, uint64_t *offset)
{
    ram_addr_t at = memory_region_get_ram_addr(mr);
    unsigned n;
    PandaRam *ram = panda_rams(&n);

    if (at == RAM_ADDR_INVALID) {
        return -1;
    }
    at += addr;
    for (unsigned i = 0; i < n; i++) {
        if (at >= ram[i].offset && at < ram[i].offset + ram[i].size) {
            *offset = at - ram[i].offset;
            return i;
        }
    }
    return -1;
}

uint64_t panda_rr_mix_bytes(uint64_t h, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    uint64_t lane[4] = { h, h + 1, h + 2, h + 3 };
    uint64_t v;

    for (; size >= 32; size -= 32) {
        for (int i = 0; i < 4; i++, p += 8) {
            memcpy(&v, p, 8);
            lane[i] = (lane[i] ^ v) * 0x9e3779b97f4a7c15ull;
            lane[i] ^= lane[i] >> 29;
        }
    }
    h = panda_rr_mix(panda_rr_mix(lane[0], lane[1]),
                     panda_rr_mix(lane[2], lane[3]));
    for (; size; size -= MIN(size, 8)) {
        v = 0;
        memcpy(&v, p, MIN(size, 8));
        p += MIN(size, 8);
        h = panda_rr_mix(h, v);
    }
    return h;
}

uint64_t panda_ram_part_digest(const PandaRam *ram, unsigned n, unsigned part,
                               unsigned parts)
{
    uint64_t h = n;

    for (unsigned i = 0; i < n; i++) {
        uint64_t from = ram[i].size * part / parts;
        uint64_t to = ram[i].size * (part + 1) / parts;

        h = panda_rr_mix_bytes(h, ram[i].host + from, to - from);
    }
    return h;
}

uint64_t panda_ram_digest(const PandaRam *ram, unsigned n)
{
    return panda_ram_part_digest(ram, n, 0, 1);
}
