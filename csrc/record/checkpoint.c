/*
 * Checkpoints of a replay.
 *
 * A checkpoint has the pages of RAM that were written since the one before;
 * the first has all that are not zero. So a page's content at a checkpoint is
 * in the last one up to it that has the page. When they take too much memory,
 * every other one is merged into the one after it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/checkpoint.h"
#include "record/border.h"
#include "record/effects.h"
#include "record/recorder.h"
#include "record/state.h"
#include "exec/memory.h"
#include "exec/ram_addr.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "system/cpu-timers.h"
#include "qemu/seqlock.h"
#include "qemu/thread.h"
#include "system/cpu-timers-internal.h"

#define PAGE 4096u
/* What a page costs besides its content. */
#define OVERHEAD 64
#define KEEP_AT_LEAST 4

typedef struct Checkpoint {
    uint64_t count, steps, crossings, slices;
    PandaBytes cpu;
    PandaPosition position;
    PandaBorder border;
    unsigned topology, regions;
    size_t history;
    /* Key of a page -> its content; NULL: zeros. */
    GHashTable *pages;
} Checkpoint;

static GPtrArray *checkpoints;
/* What is written since is written since this one. */
static unsigned present;
static uint64_t budget, used;

/* ---- pages ---- */

static gpointer key_of(unsigned block, uint64_t page)
{
    return (gpointer)((uint64_t)block << 48 | page);
}

static unsigned block_of(gpointer key)
{
    return (uint64_t)key >> 48;
}

static uint64_t page_of(gpointer key)
{
    return (uint64_t)key & ((1ULL << 48) - 1);
}

static size_t size_of(const PandaRam *ram, uint64_t page)
{
    return MIN(PAGE, ram->size - page * PAGE);
}

/* Call fn with each page written since the last time. */
static void each_written(void (*fn)(unsigned block, uint64_t page,
                                    void *opaque), void *opaque)
{
    unsigned n;
    PandaRam *ram = panda_player_rams(&n);

    for (unsigned i = 0; i < n; i++) {
        /* The bitmap is cleared in words. */
        uint64_t size = QEMU_ALIGN_UP(ram[i].size, TARGET_PAGE_SIZE);
        DirtyBitmapSnapshot *written;

        written = cpu_physical_memory_snapshot_and_clear_dirty(
            ram[i].mr, 0, size, DIRTY_MEMORY_MIGRATION);
        for (uint64_t at = 0; at < ram[i].size; at += PAGE) {
            if (cpu_physical_memory_snapshot_get_dirty(
                    written, ram[i].offset + at,
                    MIN(PAGE, ram[i].size - at))) {
                fn(i, at / PAGE, opaque);
            }
        }
        g_free(written);
    }
}

static void keep_page(unsigned block, uint64_t page, void *opaque)
{
    Checkpoint *c = opaque;
    unsigned n;
    PandaRam *ram = &panda_player_rams(&n)[block];
    uint8_t *host = ram->host + page * PAGE;
    size_t size = size_of(ram, page);
    uint8_t *content = NULL;

    if (!buffer_is_zero(host, size)) {
        content = g_malloc0(PAGE);
        memcpy(content, host, size);
        used += PAGE;
    }
    used += OVERHEAD;
    g_hash_table_insert(c->pages, key_of(block, page), content);
}

static void note_page(unsigned block, uint64_t page, void *opaque)
{
    g_hash_table_add(opaque, key_of(block, page));
}

static void forget_page(unsigned block, uint64_t page, void *opaque)
{
}

/* A page's content at a checkpoint. */
static const uint8_t *content_at(unsigned index, gpointer key)
{
    for (int i = index; i >= 0; i--) {
        Checkpoint *c = g_ptr_array_index(checkpoints, i);
        gpointer content;

        if (g_hash_table_lookup_extended(c->pages, key, NULL, &content)) {
            return content;
        }
    }
    return NULL;
}

static void put_page(gpointer key, const uint8_t *content)
{
    unsigned n;
    PandaRam *ram = &panda_player_rams(&n)[block_of(key)];
    uint64_t page = page_of(key);
    uint8_t *host = ram->host + page * PAGE;
    size_t size = size_of(ram, page);

    if (content ? !memcmp(host, content, size) : buffer_is_zero(host, size)) {
        return;
    }
    if (content) {
        memcpy(host, content, size);
    } else {
        memset(host, 0, size);
    }
    panda_ram_written(ram->offset + page * PAGE, size);
}

/* ---- memory used ---- */

static void free_checkpoint(void *opaque)
{
    Checkpoint *c = opaque;

    used -= g_hash_table_size(c->pages) * OVERHEAD;
    g_hash_table_unref(c->pages);
    g_free(c->cpu.data);
    g_free(c);
}

static void free_page(void *page)
{
    if (page) {
        used -= PAGE;
        g_free(page);
    }
}

/* What the next one does not have it gets; this one goes. */
static void merge_into_next(unsigned index)
{
    Checkpoint *c = g_ptr_array_index(checkpoints, index);
    Checkpoint *next = g_ptr_array_index(checkpoints, index + 1);
    GHashTableIter iter;
    gpointer key, content;

    g_hash_table_iter_init(&iter, c->pages);
    while (g_hash_table_iter_next(&iter, &key, &content)) {
        if (!g_hash_table_contains(next->pages, key)) {
            g_hash_table_iter_steal(&iter);
            g_hash_table_insert(next->pages, key, content);
        }
    }
    g_ptr_array_remove_index(checkpoints, index);
    if (present > index) {
        present--;
    }
}

static void thin_out(void)
{
    while (used > budget && checkpoints->len > KEEP_AT_LEAST) {
        unsigned before = checkpoints->len;

        /* Neither the first, which has all of RAM, nor the last. */
        for (unsigned i = 1; i + 1 < checkpoints->len; i++) {
            merge_into_next(i);
        }
        if (checkpoints->len == before) {
            break;
        }
    }
}

/* ---- begin and end ---- */

bool panda_checkpoints_begin(uint64_t bytes, Error **errp)
{
    if (!memory_global_dirty_log_start(GLOBAL_DIRTY_MIGRATION, errp)) {
        return false;
    }
    checkpoints = g_ptr_array_new_with_free_func(free_checkpoint);
    budget = bytes;
    used = 0;
    present = 0;
    return true;
}

void panda_checkpoints_end(void)
{
    if (checkpoints) {
        memory_global_dirty_log_stop(GLOBAL_DIRTY_MIGRATION);
        g_clear_pointer(&checkpoints, g_ptr_array_unref);
    }
}

bool panda_checkpoints_kept(void)
{
    return checkpoints;
}

/* ---- taking and restoring ---- */

static void keep_all(Checkpoint *c)
{
    unsigned n;
    PandaRam *ram = panda_player_rams(&n);

    each_written(forget_page, NULL);
    for (unsigned i = 0; i < n; i++) {
        for (uint64_t at = 0; at < ram[i].size; at += PAGE) {
            if (!buffer_is_zero(ram[i].host + at, size_of(&ram[i],
                                                          at / PAGE))) {
                keep_page(i, at / PAGE, c);
            }
        }
    }
}

void panda_checkpoint_take(CPUState *cs)
{
    uint64_t count = panda_count_raw();
    Checkpoint *c;

    if (checkpoints->len) {
        Checkpoint *last = g_ptr_array_index(checkpoints,
                                             checkpoints->len - 1);

        if (count <= last->count) {
            /* It is known, as the replay has gone back before it. */
            for (unsigned i = 0; i < checkpoints->len; i++) {
                c = g_ptr_array_index(checkpoints, i);
                if (c->count == count && c->steps == panda_rr_steps) {
                    each_written(forget_page, NULL);
                    present = i;
                }
            }
            return;
        }
    }
    c = g_new0(Checkpoint, 1);
    c->count = count;
    c->steps = panda_rr_steps;
    c->slices = panda_rr_facts.slices;
    c->crossings = panda_border_crossings();
    c->border = panda_border;
    c->topology = panda_topology_height();
    c->regions = panda_regions();
    panda_history(&c->history);
    c->pages = g_hash_table_new_full(NULL, NULL, NULL, free_page);
    panda_player_position(&c->position);
    bql_lock();
    panda_cpu_save(&c->cpu);
    panda_arch_save(&c->cpu);
    if (checkpoints->len) {
        each_written(keep_page, c);
    } else {
        keep_all(c);
    }
    bql_unlock();
    g_ptr_array_add(checkpoints, c);
    present = checkpoints->len - 1;
    thin_out();
}

uint64_t panda_checkpoint_before(uint64_t count)
{
    uint64_t found = UINT64_MAX;

    for (unsigned i = 0; checkpoints && i < checkpoints->len; i++) {
        Checkpoint *c = g_ptr_array_index(checkpoints, i);

        if (c->count < count) {
            found = c->count;
        }
    }
    return found;
}

/* It is looked at, but stays written since the last checkpoint. */
static void note_and_keep(unsigned block, uint64_t page, void *opaque)
{
    unsigned n;
    PandaRam *ram = &panda_player_rams(&n)[block];

    note_page(block, page, opaque);
    cpu_physical_memory_set_dirty_range(ram->offset + page * PAGE,
                                        size_of(ram, page),
                                        1 << DIRTY_MEMORY_MIGRATION);
}

/* Add the pages that were written after one checkpoint and up to another. */
static void add_keys(GHashTable *keys, unsigned after, unsigned to)
{
    GHashTableIter iter;
    gpointer key;

    for (unsigned i = after + 1; i <= to; i++) {
        Checkpoint *c = g_ptr_array_index(checkpoints, i);

        g_hash_table_iter_init(&iter, c->pages);
        while (g_hash_table_iter_next(&iter, &key, NULL)) {
            g_hash_table_add(keys, key);
        }
    }
}

void panda_checkpoint_log_pages(void)
{
    g_autoptr(GHashTable) keys = g_hash_table_new(NULL, NULL);
    GHashTableIter iter;
    gpointer key;

    each_written(note_and_keep, keys);
    add_keys(keys, 0, present);
    g_hash_table_iter_init(&iter, keys);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        unsigned n;
        PandaRam *ram = &panda_player_rams(&n)[block_of(key)];
        const uint8_t *host = ram->host + page_of(key) * PAGE;
        const uint8_t *was = content_at(0, key);
        size_t size = size_of(ram, page_of(key));

        if (was ? memcmp(host, was, size) : !buffer_is_zero(host, size)) {
            panda_log_entry(PANDA_ENTRY_MEMORY);
            panda_log_number(block_of(key));
            panda_log_number(page_of(key) * PAGE);
            panda_log_string(host, size);
        }
    }
}

static void restore_memory(unsigned index)
{
    g_autoptr(GHashTable) keys = g_hash_table_new(NULL, NULL);
    GHashTableIter iter;
    gpointer key;

    each_written(note_page, keys);
    add_keys(keys, MIN(index, present), MAX(index, present));
    g_hash_table_iter_init(&iter, keys);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        put_page(key, content_at(index, key));
    }
    each_written(forget_page, NULL);
    present = index;
}

bool panda_checkpoint_restore(CPUState *cs, uint64_t count)
{
    uint64_t now = panda_count_raw();
    int best = -1;
    PandaLogCursor cursor;
    Checkpoint *c;

    for (unsigned i = 0; checkpoints && i < checkpoints->len; i++) {
        c = g_ptr_array_index(checkpoints, i);
        if (c->count <= count) {
            best = i;
        }
    }
    if (best < 0) {
        return false;
    }
    c = g_ptr_array_index(checkpoints, best);
    if (now <= count && now >= c->count && !panda_player_failed) {
        return false;
    }
    restore_memory(best);
    panda_topology_go_to(c->topology);
    panda_regions_set(c->regions);
    panda_history_set(c->history);
    cursor = (PandaLogCursor) { c->cpu.data, c->cpu.data + c->cpu.n };
    if (!panda_cpu_load(&cursor) || !panda_arch_load(&cursor)) {
        panda_player_diverged("the state of a checkpoint cannot be loaded");
        return true;
    }
    timers_state.qemu_icount = c->count;
    panda_rr_steps = c->steps;
    panda_rr_facts.slices = c->slices;
    panda_rr_facts.instructions = c->count;
    panda_border = c->border;
    panda_border_crossings_set(c->crossings);
    panda_tlb_forget(cs);
    panda_player_go_to(&c->position);
    return true;
}
