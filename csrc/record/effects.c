/*
 * Effects of devices on what the CPU sees: memory they write, and which memory
 * and devices are where.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "record/border.h"
#include "record/effects.h"
#include "record/host_writes.h"
#include "record/log.h"
#include "record/packets.h"
#include "record/player.h"
#include "record/regions.h"
#include "record/reset.h"
#include "record/source.h"
#include "record/transfers.h"
#include "exec/cputlb.h"
#include "exec/exec-all.h"
#include "exec/ram_addr.h"
#include "qemu/main-loop.h"

/* An effect of the recording is being applied. */
static bool applying;

static bool logs_effects(void)
{
    return panda_rr_recording() && !panda_rr_inside();
}

/* ---- memory ---- */

static void memory_written(MemoryRegion *mr, hwaddr addr, hwaddr length)
{
    uint64_t offset;
    int block;

    if (!panda_rr_recording()) {
        if (!applying && !panda_replay_writes_allowed()) {
            panda_player_stray_write(mr);
        }
        return;
    }
    block = panda_ram_of(mr, addr, &offset);
    if (block >= 0) {
        unsigned n;
        uint8_t *bytes = panda_rams(&n)[block].host + offset;
        size_t before, place;

        panda_source_log(mr);
        if (panda_packet_shares(bytes, length, &before, &place)) {
            panda_log_entry(PANDA_ENTRY_MEMORY_PACKET);
            panda_log_number(block);
            panda_log_number(offset);
            panda_log_string(bytes, before);
            panda_log_number(place);
            panda_log_number(length - before);
        } else {
            panda_log_entry(PANDA_ENTRY_MEMORY);
            panda_log_number(block);
            panda_log_number(offset);
            panda_log_string(bytes, length);
        }
    }
}

/* Declared in patch 0005. */
void panda_memory_written(MemoryRegion *mr, hwaddr addr, hwaddr length);
void panda_memory_written(MemoryRegion *mr, hwaddr addr, hwaddr length)
{
    if (!panda_rr_on() || !length) {
        return;
    }
    if (!panda_rr_inside()) {
        memory_written(mr, addr, length);
    } else if (panda_rr_recording() && panda_vcpu.pub.in_callback) {
        panda_host_memory_written(mr, addr, length);
    }
}

/* For memory that devices write without QEMU's functions, e.g. displays. */
void __real_memory_region_set_dirty(MemoryRegion *mr, hwaddr addr,
                                    hwaddr size);
void __wrap_memory_region_set_dirty(MemoryRegion *mr, hwaddr addr,
                                    hwaddr size);
void __wrap_memory_region_set_dirty(MemoryRegion *mr, hwaddr addr,
                                    hwaddr size)
{
    panda_memory_written(mr, addr, size);
    __real_memory_region_set_dirty(mr, addr, size);
}

void panda_ram_written(ram_addr_t at, uint64_t length)
{
    tb_invalidate_phys_range(at, at + length - 1);
    cpu_physical_memory_set_dirty_range(at, length,
                                        DIRTY_CLIENTS_NOCODE);
}

static void write_memory(PandaLogCursor *c, uint64_t block, uint64_t offset,
                         const uint8_t *bytes, size_t n)
{
    unsigned blocks;
    PandaRam *ram = panda_player_rams(&blocks);

    if (!bytes || block >= blocks || offset > ram[block].size
        || n > ram[block].size - offset) {
        panda_log_bad(c);
        return;
    }
    if (!ram[block].host || !n) {
        return;
    }
    panda_player_memory(block, offset, bytes, n, false);
    memcpy(ram[block].host + offset, bytes, n);
    panda_ram_written(ram[block].offset + offset, n);
    panda_player_memory(block, offset, bytes, n, true);
}

static void apply_memory(PandaLogCursor *c)
{
    uint64_t block = panda_log_get(c), offset = panda_log_get(c);
    size_t n;
    const uint8_t *bytes = panda_log_get_string(c, &n);

    write_memory(c, block, offset, bytes, n);
}

/* Part of it is in the last packet's entry. */
static void apply_packet(PandaLogCursor *c)
{
    uint64_t block = panda_log_get(c), offset = panda_log_get(c);
    size_t before;
    const uint8_t *head = panda_log_get_string(c, &before);
    uint64_t at = panda_log_get(c), n = panda_log_get(c);
    const uint8_t *part = panda_packet_part(at, n);
    g_autofree uint8_t *all = NULL;

    if (!head || !part) {
        panda_log_bad(c);
        return;
    }
    if (!before) {
        write_memory(c, block, offset, part, n);
        return;
    }
    all = g_malloc(before + n);
    memcpy(all, head, before);
    memcpy(all + before, part, n);
    write_memory(c, block, offset, all, before + n);
}

/* ---- topology ---- */

typedef enum Op {
    OP_ADD,
    OP_DELETE,
    OP_ENABLED,
    OP_ADDRESS,
    OP_SIZE,
    OP_ALIAS_OFFSET,
    OP_READONLY,
    OP_ROMD,
} Op;

static void log_op(Op op, MemoryRegion *mr, MemoryRegion *other, uint64_t a,
                   int64_t b)
{
    unsigned number = panda_region_number(mr);
    unsigned number2 = other ? panda_region_number(other) : 0;

    panda_log_entry(PANDA_ENTRY_TOPOLOGY);
    panda_log_number(op);
    panda_log_number(number);
    panda_log_number(number2);
    panda_log_number(a);
    panda_log_number(panda_zigzag(b));
}

/* One operation may be made of others, which the linker's wraps see too. */
static unsigned nesting;

#define TOPOLOGY(name, params, args, ...)                                     \
    void __real_##name params;                                                \
    void __wrap_##name params;                                                \
    void __wrap_##name params                                                 \
    {                                                                         \
        if (!panda_rr_on()) {                                                 \
            __real_##name args;                                               \
            return;                                                           \
        }                                                                     \
        if (!nesting && logs_effects()) {                                     \
            log_op(__VA_ARGS__);                                              \
        }                                                                     \
        nesting++;                                                            \
        __real_##name args;                                                   \
        nesting--;                                                            \
    }

TOPOLOGY(memory_region_add_subregion,
         (MemoryRegion *mr, hwaddr offset, MemoryRegion *sub),
         (mr, offset, sub), OP_ADD, mr, sub, offset, INT32_MIN)
TOPOLOGY(memory_region_add_subregion_overlap,
         (MemoryRegion *mr, hwaddr offset, MemoryRegion *sub, int priority),
         (mr, offset, sub, priority), OP_ADD, mr, sub, offset, priority)
TOPOLOGY(memory_region_del_subregion, (MemoryRegion *mr, MemoryRegion *sub),
         (mr, sub), OP_DELETE, mr, sub, 0, 0)
TOPOLOGY(memory_region_set_enabled, (MemoryRegion *mr, bool enabled),
         (mr, enabled), OP_ENABLED, mr, NULL, enabled, 0)
TOPOLOGY(memory_region_set_address, (MemoryRegion *mr, hwaddr addr),
         (mr, addr), OP_ADDRESS, mr, NULL, addr, 0)
TOPOLOGY(memory_region_set_size, (MemoryRegion *mr, uint64_t size),
         (mr, size), OP_SIZE, mr, NULL, size, 0)
TOPOLOGY(memory_region_set_alias_offset, (MemoryRegion *mr, hwaddr offset),
         (mr, offset), OP_ALIAS_OFFSET, mr, NULL, offset, 0)
TOPOLOGY(memory_region_set_readonly, (MemoryRegion *mr, bool readonly),
         (mr, readonly), OP_READONLY, mr, NULL, readonly, 0)
TOPOLOGY(memory_region_rom_device_set_romd, (MemoryRegion *mr, bool romd),
         (mr, romd), OP_ROMD, mr, NULL, romd, 0)

/* ---- regions that did not exist at the start ---- */

typedef enum Sort {
    SORT_ALIAS,
    SORT_DEVICE,
    SORT_CONTAINER,
} Sort;

static void log_new(Sort sort, MemoryRegion *mr, const char *name,
                    MemoryRegion *orig, hwaddr offset, uint64_t size)
{
    unsigned number;

    if (nesting || !logs_effects()) {
        return;
    }
    number = orig ? panda_region_number(orig) : 0;
    panda_region_new(mr);
    panda_log_entry(PANDA_ENTRY_NEW_REGION);
    panda_log_number(sort);
    panda_log_number(number);
    panda_log_number(offset);
    panda_log_number(size);
    panda_log_string(name ?: "", strlen(name ?: ""));
}

#define NEW_REGION(function, params, args, ...)                               \
    void __real_##function params;                                            \
    void __wrap_##function params;                                            \
    void __wrap_##function params                                             \
    {                                                                         \
        nesting++;                                                            \
        __real_##function args;                                               \
        nesting--;                                                            \
        log_new(__VA_ARGS__);                                                 \
    }

NEW_REGION(memory_region_init_alias,
           (MemoryRegion *mr, Object *owner, const char *name,
            MemoryRegion *orig, hwaddr offset, uint64_t size),
           (mr, owner, name, orig, offset, size), SORT_ALIAS, mr, name, orig,
           offset, size)
NEW_REGION(memory_region_init_io,
           (MemoryRegion *mr, Object *owner, const MemoryRegionOps *ops,
            void *opaque, const char *name, uint64_t size),
           (mr, owner, ops, opaque, name, size), SORT_DEVICE, mr, name, NULL,
           0, size)
NEW_REGION(memory_region_init,
           (MemoryRegion *mr, Object *owner, const char *name, uint64_t size),
           (mr, owner, name, size), SORT_CONTAINER, mr, name, NULL, 0, size)

/* Never called: accesses are answered out of the recording. */
static const MemoryRegionOps nothing_ops = {};

static void apply_new(PandaLogCursor *c)
{
    Sort sort = panda_log_get(c);
    MemoryRegion *orig = panda_region_get(panda_log_get(c));
    uint64_t offset = panda_log_get(c), size = panda_log_get(c);
    size_t n;
    const uint8_t *text = panda_log_get_string(c, &n);
    g_autofree char *name = text && n < 256
        ? g_strndup((const char *)text, n) : NULL;
    MemoryRegion *mr;

    if (!name || sort > SORT_CONTAINER || (sort == SORT_ALIAS && !orig)) {
        panda_log_bad(c);
        return;
    }
    if (panda_region_again()) {
        return;
    }
    /* It lives as long as the machine, as others may hold on to it. */
    mr = g_new0(MemoryRegion, 1);
    nesting++;
    switch (sort) {
    case SORT_ALIAS:
        __real_memory_region_init_alias(mr, NULL, name, orig, offset, size);
        break;
    case SORT_DEVICE:
        __real_memory_region_init_io(mr, NULL, &nothing_ops, NULL, name,
                                     size);
        break;
    case SORT_CONTAINER:
        __real_memory_region_init(mr, NULL, name, size);
        break;
    }
    nesting--;
    panda_region_new(mr);
}

typedef struct Operation {
    Op op;
    MemoryRegion *mr, *other;
    uint64_t a;
    int64_t b;
} Operation;

/* Those that the replay has made, to be taken back and made again. */
typedef struct Change {
    Operation op, inverse;
} Change;

static GArray *changes;
static unsigned height;

static void make(const Operation *u)
{
    switch (u->op) {
    case OP_ADD:
        if (u->b == INT32_MIN) {
            __real_memory_region_add_subregion(u->mr, u->a, u->other);
        } else {
            __real_memory_region_add_subregion_overlap(u->mr, u->a, u->other,
                                                       u->b);
        }
        break;
    case OP_DELETE:
        __real_memory_region_del_subregion(u->mr, u->other);
        break;
    case OP_ENABLED:
        __real_memory_region_set_enabled(u->mr, u->a);
        break;
    case OP_ADDRESS:
        __real_memory_region_set_address(u->mr, u->a);
        break;
    case OP_SIZE:
        __real_memory_region_set_size(u->mr, u->a);
        break;
    case OP_ALIAS_OFFSET:
        __real_memory_region_set_alias_offset(u->mr, u->a);
        break;
    case OP_READONLY:
        __real_memory_region_set_readonly(u->mr, u->a);
        break;
    case OP_ROMD:
        __real_memory_region_rom_device_set_romd(u->mr, u->a);
        break;
    }
}

/* The inverse of an operation; false if it cannot be made. */
static bool invert(const Operation *u, Operation *inverse)
{
    MemoryRegion *mr = u->mr, *other = u->other;

    *inverse = (Operation) { .op = u->op, .mr = mr, .other = other };
    switch (u->op) {
    case OP_ADD:
        inverse->op = OP_DELETE;
        return other && !other->container;
    case OP_DELETE:
        inverse->op = OP_ADD;
        inverse->a = other ? other->addr : 0;
        inverse->b = other && other->priority ? other->priority : INT32_MIN;
        return other && other->container == mr;
    case OP_ENABLED:
        inverse->a = mr->enabled;
        return true;
    case OP_ADDRESS:
        inverse->a = mr->addr;
        return true;
    case OP_SIZE:
        inverse->a = memory_region_size(mr);
        return true;
    case OP_ALIAS_OFFSET:
        inverse->a = mr->alias_offset;
        return mr->alias;
    case OP_READONLY:
        inverse->a = mr->readonly;
        return true;
    case OP_ROMD:
        inverse->a = mr->romd_mode;
        return mr->rom_device;
    }
    return false;
}

/* Make the next change; false if it is not possible. */
static bool change(const Operation *op)
{
    bool locked = bql_locked();
    Change it = { .op = *op };

    if (!invert(op, &it.inverse)) {
        return false;
    }
    if (height < changes->len) {
        g_array_index(changes, Change, height) = it;
    } else {
        g_array_append_val(changes, it);
    }
    height++;
    if (!locked) {
        bql_lock();
    }
    make(op);
    if (!locked) {
        bql_unlock();
    }
    return true;
}

static void apply_topology(PandaLogCursor *c)
{
    Operation op;
    unsigned number, number2;

    op.op = panda_log_get(c);
    number = panda_log_get(c);
    number2 = panda_log_get(c);
    op.mr = panda_region_get(number);
    op.other = panda_region_get(number2);
    op.a = panda_log_get(c);
    op.b = panda_unzigzag(panda_log_get(c));
    if (c->bad || op.op > OP_ROMD) {
        panda_log_bad(c);
        return;
    }
    if (!op.mr || !change(&op)) {
        panda_player_diverged("change %d of %s %s is not possible in this "
                              "machine", op.op, panda_region_path(number),
                              panda_region_path(number2));
    }
}

unsigned panda_topology_height(void)
{
    return height;
}

void panda_topology_begin(void)
{
    g_assert(!height);
    if (changes) {
        g_array_unref(changes);
    }
    changes = g_array_new(false, false, sizeof(Change));
}

void panda_topology_go_to(unsigned wanted)
{
    if (height == wanted) {
        return;
    }
    applying = true;
    memory_region_transaction_begin();
    while (height > wanted) {
        make(&g_array_index(changes, Change, --height).inverse);
    }
    while (height < wanted) {
        Operation op = g_array_index(changes, Change, height).op;

        change(&op);
    }
    memory_region_transaction_commit();
    applying = false;
}

/* ---- the TLB ---- */

/* A device, or what counts as one, makes the CPU forget its translations. */
static void log_flush(bool later)
{
    if (panda_rr_recording() && panda_rr_in_exec && panda_rr_depth
        && panda_in_vcpu_thread()) {
        panda_log_entry(PANDA_ENTRY_FLUSH);
        panda_log_number(later);
    }
}

void __real_tlb_flush(CPUState *cs);
void __wrap_tlb_flush(CPUState *cs);
void __wrap_tlb_flush(CPUState *cs)
{
    log_flush(false);
    __real_tlb_flush(cs);
}

void __real_tlb_flush_all_cpus_synced(CPUState *cs);
void __wrap_tlb_flush_all_cpus_synced(CPUState *cs);
void __wrap_tlb_flush_all_cpus_synced(CPUState *cs)
{
    log_flush(true);
    __real_tlb_flush_all_cpus_synced(cs);
}

static void apply_flush(CPUState *cs, PandaLogCursor *c)
{
    switch (panda_log_get(c)) {
    case false:
        __real_tlb_flush(cs);
        break;
    case PANDA_FLUSH_FORGET:
        panda_tlb_forget(cs);
        break;
    default:
        __real_tlb_flush_all_cpus_synced(cs);
        break;
    }
}

/* All that is known, and how much of it leads to this place. */
static PandaBytes history;
static size_t history_now;

const uint8_t *panda_history(size_t *size)
{
    *size = history_now;
    return history.data;
}

void panda_history_begin(void)
{
    history.n = history_now = 0;
}

void panda_history_set(size_t size)
{
    g_assert(size <= history.n);
    history_now = size;
}

/* Keep an entry that was applied, from its first byte after the kind. */
static void remember(PandaEntryKind kind, const uint8_t *from,
                     const PandaLogCursor *c)
{
    uint8_t byte = kind;

    if (c->bad) {
        return;
    }
    if (history_now == history.n) {
        panda_bytes_put(&history, &byte, 1);
        panda_bytes_put(&history, from, c->at - from);
    }
    history_now += 1 + (c->at - from);
}

bool panda_effect_apply(CPUState *cs, PandaEntryKind kind, PandaLogCursor *c)
{
    const uint8_t *from = c->at;

    switch (kind) {
    case PANDA_ENTRY_MEMORY:
        applying = true;
        apply_memory(c);
        applying = false;
        return true;
    case PANDA_ENTRY_MEMORY_PACKET:
        applying = true;
        apply_packet(c);
        applying = false;
        return true;
    case PANDA_ENTRY_SOURCE:
        panda_log_get(c);
        return true;
    case PANDA_ENTRY_LINES:
    case PANDA_ENTRY_LINES_KICK:
        panda_lines_apply(cs, c, kind == PANDA_ENTRY_LINES_KICK);
        return true;
    case PANDA_ENTRY_REGION:
        panda_region_define(c);
        remember(kind, from, c);
        return true;
    case PANDA_ENTRY_TOPOLOGY:
        apply_topology(c);
        remember(kind, from, c);
        return true;
    case PANDA_ENTRY_NEW_REGION:
        apply_new(c);
        remember(kind, from, c);
        return true;
    case PANDA_ENTRY_BASE:
        if (!panda_border_apply_base(c)) {
            panda_log_bad(c);
        }
        return true;
    case PANDA_ENTRY_RESET:
        panda_reset_apply(c);
        return true;
    case PANDA_ENTRY_FLUSH:
        apply_flush(cs, c);
        return true;
    case PANDA_ENTRY_ARCH:
        panda_arch_effect(c);
        return true;
    default:
        return panda_transfer_replay(kind, c);
    }
}
