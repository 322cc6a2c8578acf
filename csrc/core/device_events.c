/*
 * Accesses of the CPU to devices, and to addresses where nothing is.
 *
 * A translated load or store that does not hit RAM first looks up what is at
 * its address (iotlb_to_section), then makes one access for each aligned part
 * (memory_region_dispatch_*). The second is also called for what devices and
 * page-table walks access, so the first says which calls are meant.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/machine.h"
#include "core/stream.h"
#include "record/record.h"
#include "exec/exec-all.h"
#include "exec/memory.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "exec/memory-internal.h"

/* The access that is being made, from the look-up of its place on. */
static struct {
    /* NULL: there is none. */
    MemoryRegion *mr;
    /* What has to be added to an offset in mr. */
    hwaddr to_physical;
    hwaddr to_virtual;
    /* Offset of the next part; any offset if none has been made. */
    hwaddr next;
    bool begun;
    /* Inside the access to mr. */
    bool below;
} made;

static bool is_streamed(void)
{
    return panda_streamed_kinds & BIT(PANDA_STREAM_IO);
}

static bool wanted_any(void)
{
    return panda_wanted(PANDA_CB_MMIO_AFTER_READ)
        || panda_wanted(PANDA_CB_MMIO_BEFORE_WRITE)
        || panda_wanted(PANDA_CB_UNASSIGNED_IO_READ)
        || panda_wanted(PANDA_CB_UNASSIGNED_IO_WRITE)
        || is_streamed();
}

MemoryRegionSection *__real_iotlb_to_section(CPUState *cs, hwaddr index,
                                             MemTxAttrs attrs);
MemoryRegionSection *__wrap_iotlb_to_section(CPUState *cs, hwaddr index,
                                             MemTxAttrs attrs);
MemoryRegionSection *__wrap_iotlb_to_section(CPUState *cs, hwaddr index,
                                             MemTxAttrs attrs)
{
    MemoryRegionSection *section = __real_iotlb_to_section(cs, index, attrs);

    made.mr = wanted_any() ? section->mr : NULL;
    if (made.mr) {
        made.to_physical = section->offset_within_address_space
                             - section->offset_within_region;
        /* The offset in mr is the address plus this page. */
        made.to_virtual = -(index & TARGET_PAGE_MASK);
        made.begun = false;
        made.below = false;
    }
    return section;
}

/* Is it a part of the CPU's access? */
static bool is_part(MemoryRegion *mr, hwaddr offset)
{
    return made.mr == mr && !made.below
        && (!made.begun || made.next == offset)
        && panda_in_vcpu_thread();
}

/* The access to mr is over; the next part follows it. */
static void part_made(hwaddr offset, MemOp op)
{
    made.below = false;
    made.begun = true;
    made.next = offset + memop_size(op);
}

/*
 * QEMU asks for a value in one byte order or the other; callbacks see the
 * number that a load of the guest would put into a register.
 */
static uint64_t reorder(uint64_t value, MemOp op)
{
    unsigned size = memop_size(op);

    if (((op & MO_BSWAP) == MO_BE) == TARGET_BIG_ENDIAN || size == 1) {
        return value;
    }
    return bswap64(value) >> (64 - size * 8);
}

static uint64_t truncate_to(uint64_t value, MemOp op)
{
    return value & MAKE_64BIT_MASK(0, memop_size(op) * 8);
}

/* The CPU makes the access under the big lock, which no callback needs. */
static void enter(void)
{
    CPUState *cs = panda_vcpu.cs;

    bql_unlock();
    panda_event_enter(cs, PANDA_PLACE_HELPER,
                      panda_helper_pc(cs, cs->mem_io_pc), cs->mem_io_pc);
}

static void leave(void)
{
    panda_event_leave(panda_vcpu.cs);
    bql_lock();
}

static void mmio_after_read(hwaddr paddr, hwaddr vaddr, uint64_t *value,
                            MemOp op)
{
    uint64_t seen = reorder(*value, op);
    PandaCallback *c;

    enter();
    PANDA_FOR_EACH(c, PANDA_CB_MMIO_AFTER_READ) {
        PANDA_CALL(c, mmio_after_read, &panda_vcpu.pub,
                   paddr, vaddr, memop_size(op), &seen);
    }
    leave();
    *value = reorder(truncate_to(seen, op), op);
}

static void mmio_before_write(hwaddr paddr, hwaddr vaddr, uint64_t *value,
                              MemOp op)
{
    uint64_t seen = reorder(truncate_to(*value, op), op);
    PandaCallback *c;

    enter();
    PANDA_FOR_EACH(c, PANDA_CB_MMIO_BEFORE_WRITE) {
        PANDA_CALL(c, mmio_before_write, &panda_vcpu.pub,
                   paddr, vaddr, memop_size(op), &seen);
    }
    leave();
    *value = reorder(truncate_to(seen, op), op);
}

/* A record of a part, if there is a stream of them. */
static void stream(hwaddr paddr, MemOp op, bool write, uint64_t value)
{
    CPUState *cs = panda_vcpu.cs;

    if (is_streamed()) {
        panda_stream_io(panda_helper_pc(cs, cs->mem_io_pc), false, paddr,
                        memop_size(op), write,
                        reorder(truncate_to(value, op), op));
    }
}

static bool unassigned_io_read(hwaddr addr, uint64_t *value, MemOp op)
{
    bool handled = false;
    uint64_t seen = 0;
    PandaCallback *c;

    enter();
    PANDA_FOR_EACH(c, PANDA_CB_UNASSIGNED_IO_READ) {
        handled |= PANDA_CALL(c, unassigned_io_read, &panda_vcpu.pub,
                              panda_vcpu.pub.panda_guest_pc, addr,
                              memop_size(op), &seen);
    }
    leave();
    if (handled) {
        *value = reorder(truncate_to(seen, op), op);
    }
    return handled;
}

static bool unassigned_io_write(hwaddr addr, uint64_t value, MemOp op)
{
    uint64_t seen = reorder(truncate_to(value, op), op);
    bool handled = false;
    PandaCallback *c;

    enter();
    PANDA_FOR_EACH(c, PANDA_CB_UNASSIGNED_IO_WRITE) {
        handled |= PANDA_CALL(c, unassigned_io_write, &panda_vcpu.pub,
                              panda_vcpu.pub.panda_guest_pc, addr,
                              memop_size(op), seen);
    }
    leave();
    return handled;
}

/* Did the access fail because nothing is there? */
static bool hit_nothing(MemoryRegion *mr, MemTxResult result, hwaddr paddr,
                        MemOp op, bool is_write, MemTxAttrs attrs)
{
    CPUState *cs = panda_vcpu.cs;
    hwaddr offset, length = memop_size(op);

    if (result != MEMTX_DECODE_ERROR) {
        return false;
    }
    if (mr->subpage) {
        /* A page that devices share; one of them may have refused it. */
        mr = address_space_translate(
            cpu_get_address_space(cs, cpu_asidx_from_attrs(cs, attrs)),
            paddr, &offset, &length, is_write, attrs);
    }
    return mr->ops == &unassigned_mem_ops;
}

MemTxResult __wrap_memory_region_dispatch_read(MemoryRegion *mr, hwaddr addr,
                                               uint64_t *value, MemOp op,
                                               MemTxAttrs attrs);
MemTxResult __wrap_memory_region_dispatch_read(MemoryRegion *mr, hwaddr addr,
                                               uint64_t *value, MemOp op,
                                               MemTxAttrs attrs)
{
    bool part = made.mr && is_part(mr, addr);
    /* A callback that reads memory may look up another place. */
    hwaddr paddr = addr + made.to_physical;
    hwaddr vaddr = addr + made.to_virtual;
    MemTxResult result;

    if (part) {
        made.below = true;
    }
    result = panda_rr_read(mr, addr, value, op, attrs);
    if (part && panda_wanted(PANDA_CB_UNASSIGNED_IO_READ)
        && hit_nothing(mr, result, paddr, op, false, attrs)
        && unassigned_io_read(paddr, value, op)) {
        result = MEMTX_OK;
    }
    if (part) {
        part_made(addr, op);
        if (panda_wanted(PANDA_CB_MMIO_AFTER_READ)) {
            mmio_after_read(paddr, vaddr, value, op);
        }
        stream(paddr, op, false, *value);
    }
    return result;
}

MemTxResult __wrap_memory_region_dispatch_write(MemoryRegion *mr, hwaddr addr,
                                                uint64_t value, MemOp op,
                                                MemTxAttrs attrs);
MemTxResult __wrap_memory_region_dispatch_write(MemoryRegion *mr, hwaddr addr,
                                                uint64_t value, MemOp op,
                                                MemTxAttrs attrs)
{
    bool part = made.mr && is_part(mr, addr);
    /* A callback that reads memory may look up another place. */
    hwaddr paddr = addr + made.to_physical;
    hwaddr vaddr = addr + made.to_virtual;
    MemTxResult result;

    if (part) {
        if (panda_wanted(PANDA_CB_MMIO_BEFORE_WRITE)) {
            mmio_before_write(paddr, vaddr, &value, op);
        }
        stream(paddr, op, true, value);
        made.below = true;
    }
    result = panda_rr_write(mr, addr, value, op, attrs);
    if (part && panda_wanted(PANDA_CB_UNASSIGNED_IO_WRITE)
        && hit_nothing(mr, result, paddr, op, true, attrs)
        && unassigned_io_write(paddr, value, op)) {
        result = MEMTX_OK;
    }
    if (part) {
        part_made(addr, op);
    }
    return result;
}
