/*
 * The border between the CPU and devices: calls that cross it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "record/border.h"
#include "record/log.h"
#include "record/player.h"
#include "record/regions.h"
#include "record/source.h"
#include "record/transfers.h"
#include "qemu/guest-random.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "hw/irq.h"
#include "system/runstate.h"

bool panda_rr_in_exec;
unsigned panda_rr_depth;

PandaBorder panda_border;

static PandaLines before;
static uint64_t crossings;

void panda_border_slice(uint64_t count)
{
    panda_border.count = count;
}

void panda_border_begin(void)
{
    crossings = 0;
    panda_border = (PandaBorder) {};
}

void panda_border_chunk(void)
{
    memset(panda_border.last, 0, sizeof(panda_border.last));
}

void panda_border_log_base(void)
{
    PandaBytes numbers = {};

    for (unsigned i = 0; i < PANDA_CROSSINGS; i++) {
        panda_bytes_number(&numbers, panda_border.last[i]);
    }
    panda_log_entry(PANDA_ENTRY_BASE);
    panda_log_string(numbers.data, numbers.n);
    g_free(numbers.data);
}

bool panda_border_apply_base(PandaLogCursor *c)
{
    size_t n;
    const uint8_t *bytes = panda_log_get_string(c, &n);
    PandaLogCursor numbers = { bytes, bytes + (bytes ? n : 0) };

    for (unsigned i = 0; i < PANDA_CROSSINGS; i++) {
        panda_border.last[i] = panda_log_get(&numbers);
    }
    return !numbers.bad;
}

uint64_t panda_border_crossings(void)
{
    return crossings;
}

void panda_border_crossings_set(uint64_t count)
{
    crossings = count;
}

/* ---- recording ---- */

static void begin(void)
{
    panda_rr_depth++;
    panda_lines_kicked = false;
    panda_lines_read(&before);
}

/* The call's effects come before its entry, as the replay needs them first. */
static void end(PandaEntryKind kind)
{
    uint64_t count = panda_count_raw();

    panda_lines_log(&before, panda_lines_kicked);
    panda_rr_depth--;
    crossings++;
    panda_log_entry(kind);
    panda_log_number(count - panda_border.count);
    panda_border.count = count;
}

/* ---- replay ---- */

static const char *const kind_names[] = {
    [PANDA_ENTRY_READ] = "a device is read",
    [PANDA_ENTRY_WRITE] = "a device is written",
    [PANDA_ENTRY_VALUE] = "a device is asked",
    [PANDA_ENTRY_BYTES] = "random bytes are asked for",
};

static const char *name_of(unsigned kind)
{
    const char *name = kind < ARRAY_SIZE(kind_names) ? kind_names[kind] : NULL;

    return name ?: "something else happens";
}

/* Apply the effects of the call that is made, and come to its entry. */
static bool expect(PandaEntryKind wanted)
{
    PandaLogCursor *c = &panda_player_calls;
    const uint8_t *byte;
    uint64_t count;

    if (panda_player_failed) {
        return false;
    }
    while ((byte = panda_log_at_end(c) ? NULL : panda_log_get_bytes(c, 1))
           && panda_effect_apply(panda_vcpu.cs, *byte, c)) {
        continue;
    }
    if (!byte) {
        panda_player_diverged(c->bad ? "the recording's log is malformed"
                              : "%s, which did not happen in the recording",
                              name_of(wanted));
        return false;
    }
    count = panda_log_get(c) + panda_border.count;
    if (*byte != wanted || (count != panda_count_raw()
                            && !panda_player_cuts_short(count))) {
        panda_player_diverged("%s; in the recording %s after %" PRIu64
                              " instructions", name_of(wanted), name_of(*byte),
                              count);
        return false;
    }
    panda_border.count = count;
    crossings++;
    return true;
}

/* ---- accesses to devices ---- */

static uint8_t digest(void)
{
    return panda_arch_rr_digest(panda_vcpu.cs, false) >> 56;
}

/* The beginning of subpage_t (system/physmem.c): a page that has several regions. */
typedef struct Subpage {
    MemoryRegion iomem;
    FlatView *fv;
    hwaddr base;
} Subpage;

/* The region of the device that is accessed. */
static MemoryRegion *target_of(MemoryRegion *mr, hwaddr addr)
{
    Subpage *page = container_of(mr, Subpage, iomem);
    hwaddr offset, length = 1;

    if (!mr->subpage) {
        return mr;
    }
    RCU_READ_LOCK_GUARD();
    return flatview_translate(page->fv, page->base + addr, &offset, &length,
                              false, MEMTXATTRS_UNSPECIFIED);
}

static void log_access(PandaEntryKind kind, unsigned number, hwaddr addr,
                       uint64_t value, MemOp op, MemTxResult result,
                       uint8_t before_it)
{
    end(kind);
    panda_log_number(number);
    panda_log_number(addr);
    panda_log_number(memop_size(op) << 3 | result);
    panda_log_number(value);
    panda_log_bytes(&before_it, 1);
}

typedef struct Access {
    MemTxResult result;
    uint64_t value;
} Access;

static bool replay_access(PandaEntryKind kind, MemoryRegion *mr, hwaddr addr,
                          MemOp op, Access *access)
{
    PandaLogCursor *c = &panda_player_calls;
    unsigned number, size;
    uint64_t place, how;
    const uint8_t *check;
    MemoryRegion *known;

    if (!expect(kind)) {
        return false;
    }
    number = panda_log_get(c);
    place = panda_log_get(c);
    how = panda_log_get(c);
    access->value = panda_log_get(c);
    check = panda_log_get_bytes(c, 1);
    size = how >> 3;
    access->result = how & 7;
    known = panda_region_get(number);
    if (c->bad) {
        panda_player_diverged("the recording's log is malformed");
    } else if (place != addr || size != memop_size(op)
               || (known && known != target_of(mr, addr))) {
        panda_player_diverged("%s: %u bytes at offset 0x%" PRIx64 " of %s; in "
                              "the recording %u bytes at 0x%" PRIx64 " of %s",
                              name_of(kind), memop_size(op), addr,
                              memory_region_name(mr), size, place,
                              panda_region_path(number));
    } else if (*check != digest()) {
        panda_player_diverged("%s, at offset 0x%" PRIx64 " of %s, with other "
                              "values in the CPU's registers than in the "
                              "recording", name_of(kind), addr,
                              memory_region_name(mr));
    } else {
        return true;
    }
    return false;
}

MemTxResult __real_memory_region_dispatch_read(MemoryRegion *mr, hwaddr addr,
                                               uint64_t *value, MemOp op,
                                               MemTxAttrs attrs);

MemTxResult panda_rr_read(MemoryRegion *mr, hwaddr addr, uint64_t *value,
                          MemOp op, MemTxAttrs attrs)
{
    MemTxResult result;
    unsigned number;
    uint8_t check;
    MemoryRegion *target;
    Object *outer;

    if (!panda_rr_crosses()) {
        return __real_memory_region_dispatch_read(mr, addr, value, op, attrs);
    }
    if (panda_rr_replaying()) {
        Access access;

        if (!replay_access(PANDA_ENTRY_READ, mr, addr, op, &access)) {
            *value = 0;
            return MEMTX_OK;
        }
        *value = access.value;
        panda_transfer_register(mr, addr, access.value, false);
        return access.result;
    }
    check = digest();
    target = target_of(mr, addr);
    number = panda_region_number(target);
    begin();
    outer = panda_source_enter(memory_region_owner(target));
    result = __real_memory_region_dispatch_read(mr, addr, value, op, attrs);
    panda_source_leave(outer);
    log_access(PANDA_ENTRY_READ, number, addr, *value, op, result, check);
    return result;
}

MemTxResult __real_memory_region_dispatch_write(MemoryRegion *mr, hwaddr addr,
                                                uint64_t value, MemOp op,
                                                MemTxAttrs attrs);

MemTxResult panda_rr_write(MemoryRegion *mr, hwaddr addr, uint64_t value,
                           MemOp op, MemTxAttrs attrs)
{
    MemTxResult result;
    unsigned number;
    uint8_t check;
    MemoryRegion *target;
    Object *outer;

    if (!panda_rr_crosses()) {
        return __real_memory_region_dispatch_write(mr, addr, value, op, attrs);
    }
    if (panda_rr_replaying()) {
        Access access;

        if (!replay_access(PANDA_ENTRY_WRITE, mr, addr, op, &access)) {
            return MEMTX_OK;
        }
        if (access.value != value) {
            panda_player_diverged("0x%" PRIx64 " is written to %s at offset "
                                  "0x%" PRIx64 "; in the recording it was 0x%"
                                  PRIx64, value, memory_region_name(mr), addr,
                                  access.value);
        }
        panda_transfer_register(mr, addr, value, true);
        return access.result;
    }
    check = digest();
    target = target_of(mr, addr);
    number = panda_region_number(target);
    begin();
    outer = panda_source_enter(memory_region_owner(target));
    result = __real_memory_region_dispatch_write(mr, addr, value, op, attrs);
    panda_source_leave(outer);
    log_access(PANDA_ENTRY_WRITE, number, addr, value, op, result, check);
    return result;
}

/* ---- other calls ---- */

bool panda_rr_answer(unsigned function, uint64_t argument, uint64_t *value)
{
    PandaLogCursor *c = &panda_player_calls;
    uint64_t f, a;

    g_assert(function < PANDA_CROSSINGS);
    if (!panda_rr_replaying()) {
        begin();
        return false;
    }
    *value = 0;
    if (!expect(PANDA_ENTRY_VALUE)) {
        return true;
    }
    f = panda_log_get(c);
    a = panda_log_get(c);
    if (f != function || a != argument) {
        panda_player_diverged("function %u is called with 0x%" PRIx64 "; in "
                              "the recording it was %" PRIu64 " with 0x%"
                              PRIx64, function, argument, f, a);
        return true;
    }
    *value = panda_border.last[function] + panda_unzigzag(panda_log_get(c));
    panda_border.last[function] = *value;
    return true;
}

void panda_rr_crossed(unsigned function, uint64_t argument, uint64_t value)
{
    end(PANDA_ENTRY_VALUE);
    panda_log_number(function);
    panda_log_number(argument);
    /* Most are clocks: the difference is short. */
    panda_log_number(panda_zigzag(value - panda_border.last[function]));
    panda_border.last[function] = value;
}

bool panda_rr_answer_bytes(unsigned function, void *bytes, size_t size)
{
    PandaLogCursor *c = &panda_player_calls;
    const uint8_t *recorded;
    size_t n;

    if (!panda_rr_replaying()) {
        begin();
        return false;
    }
    memset(bytes, 0, size);
    if (expect(PANDA_ENTRY_BYTES)) {
        uint64_t f = panda_log_get(c);

        recorded = panda_log_get_string(c, &n);
        if (f != function || !recorded || n != size) {
            panda_player_diverged("%zu random bytes are asked for; in the "
                                  "recording it was %zu", size, n);
        } else {
            memcpy(bytes, recorded, n);
        }
    }
    return true;
}

void panda_rr_crossed_bytes(unsigned function, const void *bytes, size_t size)
{
    end(PANDA_ENTRY_BYTES);
    panda_log_number(function);
    panda_log_string(bytes, size);
}

/* ---- what all architectures call ---- */

PANDA_RR_VOID(qemu_set_irq, PANDA_CROSS_IRQ, level, (qemu_irq irq, int level),
              (irq, level))
PANDA_RR_VALUE(int64_t, qemu_clock_get_ns, PANDA_CROSS_CLOCK, type,
               (QEMUClockType type), (type))
PANDA_RR_VOID(qemu_system_reset_request, PANDA_CROSS_RESET_REQUEST, reason,
              (ShutdownCause reason), (reason))
PANDA_RR_VOID(qemu_system_shutdown_request, PANDA_CROSS_SHUTDOWN_REQUEST,
              reason, (ShutdownCause reason), (reason))

int __real_qemu_guest_getrandom(void *buf, size_t len, Error **errp);
int __wrap_qemu_guest_getrandom(void *buf, size_t len, Error **errp);
int __wrap_qemu_guest_getrandom(void *buf, size_t len, Error **errp)
{
    int result = 0;

    if (!panda_rr_crosses()) {
        return __real_qemu_guest_getrandom(buf, len, errp);
    }
    if (!panda_rr_answer_bytes(PANDA_CROSS_RANDOM, buf, len)) {
        result = __real_qemu_guest_getrandom(buf, len, errp);
        panda_rr_crossed_bytes(PANDA_CROSS_RANDOM, buf, result ? 0 : len);
    }
    return result;
}
