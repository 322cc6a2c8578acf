/*
 * Guest memory as the introspection reads it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/guest_memory.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "exec/target_page.h"
#include "hw/boards.h"

#define TLB_SIZE 256
#define SMALLEST_PAGE 4096ull

OsMemory os_memory;

typedef struct Translation {
    uint64_t page;
    uint64_t pa;
    uint32_t era;
} Translation;

static Translation tlb[TLB_SIZE];
static uint32_t era = 1;

void os_memory_forget(void)
{
    era++;
}

const OsSegment *os_segment_of(const uint8_t *host)
{
    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        const OsSegment *s = &os_memory.segment[i];

        if (host >= s->host && host < s->host + s->size) {
            return s;
        }
    }
    return NULL;
}

/* Machines show RAM at several places; frame buffers and the like are none. */
static bool add_segment(Int128 start, Int128 len, const MemoryRegion *mr,
                        panda_hwaddr_t offset, void *opaque)
{
    MemoryRegion *region = (MemoryRegion *)mr;
    const uint8_t *host;

    if (region != opaque || !memory_region_is_ram(region)
        || os_memory.n_segments == OS_SEGMENTS) {
        return false;
    }
    host = (const uint8_t *)memory_region_get_ram_ptr(region) + offset;
    if (!os_segment_of(host)) {
        os_memory.segment[os_memory.n_segments++] = (OsSegment) {
            .pa = int128_get64(start),
            .size = int128_get64(len),
            .host = host,
        };
    }
    return false;
}

void os_memory_init(CPUState *cs)
{
    os_memory = (OsMemory) {
        .word = TARGET_LONG_BITS / 8,
        .big_endian = panda_arch_os_big_endian(cs),
        .kernel_root = OS_NOWHERE,
        .kernel_start = 0x80000000,
    };
    os_memory_forget();
    RCU_READ_LOCK_GUARD();
    flatview_for_each_range(address_space_to_flatview(&address_space_memory),
                            add_segment, current_machine->ram);
}

const uint8_t *os_ram(uint64_t pa, uint64_t len)
{
    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        const OsSegment *s = &os_memory.segment[i];

        if (pa >= s->pa && pa - s->pa < s->size
            && len <= s->size - (pa - s->pa)) {
            return s->host + (pa - s->pa);
        }
    }
    return NULL;
}

uint64_t os_ram_address(const uint8_t *host)
{
    const OsSegment *s = os_segment_of(host);

    return s ? s->pa + (host - s->host) : OS_NOWHERE;
}

uint64_t os_word_at(const void *at)
{
    if (os_memory.word == 8) {
        return os_memory.big_endian ? ldq_be_p(at) : ldq_le_p(at);
    }
    return os_u32_at(at);
}

uint32_t os_u32_at(const void *at)
{
    return os_memory.big_endian ? ldl_be_p(at) : ldl_le_p(at);
}

uint16_t os_u16_at(const void *at)
{
    return os_memory.big_endian ? lduw_be_p(at) : lduw_le_p(at);
}

bool os_physical_word(uint64_t pa, uint64_t *value)
{
    const uint8_t *at = os_ram(pa, os_memory.word);

    *value = at ? os_word_at(at) : 0;
    return at;
}

bool os_physical_u64(uint64_t pa, uint64_t *value)
{
    const uint8_t *at = os_ram(pa, 8);

    *value = !at ? 0 : os_memory.big_endian ? ldq_be_p(at) : ldq_le_p(at);
    return at;
}

bool os_physical_u32(uint64_t pa, uint32_t *value)
{
    const uint8_t *at = os_ram(pa, 4);

    *value = at ? os_u32_at(at) : 0;
    return at;
}

uint64_t os_kernel_to_physical(uint64_t va)
{
    uint64_t page = va & ~(SMALLEST_PAGE - 1);
    Translation *t = &tlb[(page / SMALLEST_PAGE) % TLB_SIZE];

    if (t->era != era || t->page != page) {
        t->page = page;
        t->era = era;
        t->pa = panda_arch_os_linear(page);
        if (t->pa == OS_NOWHERE && os_memory.kernel_root != OS_NOWHERE) {
            t->pa = panda_arch_os_walk(panda_vcpu.cs, os_memory.kernel_root,
                                       page, true);
        }
    }
    return t->pa == OS_NOWHERE ? OS_NOWHERE : t->pa | (va - page);
}

bool os_read(uint64_t va, void *buf, uint64_t len)
{
    uint8_t *to = buf;

    while (len) {
        uint64_t run = MIN(len, SMALLEST_PAGE - (va & (SMALLEST_PAGE - 1)));
        uint64_t pa = os_is_kernel(va) ? os_kernel_to_physical(va)
                                       : OS_NOWHERE;
        const uint8_t *from = pa == OS_NOWHERE ? NULL : os_ram(pa, run);

        if (!from) {
            return false;
        }
        memcpy(to, from, run);
        va += run;
        to += run;
        len -= run;
    }
    return true;
}

bool os_read_u16(uint64_t va, uint16_t *value)
{
    uint8_t buf[2];
    bool ok = os_read(va, buf, sizeof(buf));

    *value = ok ? os_u16_at(buf) : 0;
    return ok;
}

bool os_read_u32(uint64_t va, uint32_t *value)
{
    uint8_t buf[4];
    bool ok = os_read(va, buf, sizeof(buf));

    *value = ok ? os_u32_at(buf) : 0;
    return ok;
}

bool os_read_u64(uint64_t va, uint64_t *value)
{
    uint8_t buf[8];
    bool ok = os_read(va, buf, sizeof(buf));

    *value = !ok ? 0 : os_memory.big_endian ? ldq_be_p(buf) : ldq_le_p(buf);
    return ok;
}

bool os_read_word(uint64_t va, uint64_t *value)
{
    uint8_t buf[8];
    bool ok = os_read(va, buf, os_memory.word);

    *value = ok ? os_word_at(buf) : 0;
    return ok;
}

bool os_read_string(uint64_t va, char *buf, uint64_t size)
{
    uint64_t done = 0;

    while (done + 1 < size) {
        uint64_t at = va + done;
        uint64_t run = MIN(MIN(size - 1 - done, 64),
                           SMALLEST_PAGE - (at & (SMALLEST_PAGE - 1)));
        char *nul;

        if (!os_read(at, buf + done, run)) {
            break;
        }
        nul = memchr(buf + done, 0, run);
        if (nul) {
            return true;
        }
        done += run;
    }
    buf[done] = 0;
    return done;
}

uint64_t os_user_to_physical(uint64_t pgd, uint64_t va)
{
    uint64_t root = os_kernel_to_physical(pgd);

    return root == OS_NOWHERE ? OS_NOWHERE
        : panda_arch_os_walk(panda_vcpu.cs, root, va, false);
}

uint64_t os_read_user(uint64_t pgd, uint64_t va, void *buf, uint64_t len)
{
    uint64_t root = os_kernel_to_physical(pgd);
    uint8_t *to = buf;

    if (root == OS_NOWHERE) {
        return 0;
    }
    while (len) {
        uint64_t run = MIN(len, SMALLEST_PAGE - (va & (SMALLEST_PAGE - 1)));
        uint64_t pa = panda_arch_os_walk(panda_vcpu.cs, root, va, false);
        const uint8_t *from = pa == OS_NOWHERE ? NULL : os_ram(pa, run);

        if (!from) {
            break;
        }
        memcpy(to, from, run);
        va += run;
        to += run;
        len -= run;
    }
    return to - (uint8_t *)buf;
}
