/*
 * What the introspection must know of PowerPC, 32 and 64 bit.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/guest_memory.h"
#include "introspect/kallsyms.h"
#include "introspect/layout.h"

#define KERNEL_32 0xc0000000u
#define PACA_SIZE 8192
#define VALID (1ull << 63)
#define LEAF (1ull << 62)

/* Offset of the running task's address in the memory of a CPU (paca). */
static uint64_t paca_current;

bool panda_arch_os_big_endian(CPUState *cs)
{
#ifdef TARGET_PPC64
    CPUPPCState *env = cpu_env(cs);

    return !(env->msr & (1ull << MSR_LE));
#else
    return true;
#endif
}

uint64_t panda_arch_os_kernel_root(CPUState *cs)
{
    return OS_NOWHERE;
}

uint64_t panda_arch_os_kernel_start(uint64_t linear)
{
    return linear;
}

uint64_t panda_arch_os_linear(uint64_t va)
{
    if (os_memory.word == 8) {
        uint64_t pa = va & MAKE_64BIT_MASK(0, 60);

        /* Behind RAM are tables' business: modules, vmalloc(). */
        return va >> 60 == 0xc && os_ram(pa, 1) ? pa : OS_NOWHERE;
    }
    va = (uint32_t)va;
    return va >= KERNEL_32 && os_ram(va - KERNEL_32, 1) ? va - KERNEL_32
                                                        : OS_NOWHERE;
}

#ifdef TARGET_PPC64
/* Radix tables, big-endian on all kernels: 13 + 9 + 9 + 5 or 9 bits. */
static uint64_t walk_radix(uint64_t root, uint64_t va)
{
    static const unsigned step[] = { 13, 9, 9, 9 };
    unsigned shift = 52, bits = 13;
    uint64_t table = root;

    for (unsigned level = 0; level < ARRAY_SIZE(step); level++) {
        const uint8_t *at;
        uint64_t e;

        shift -= bits;
        at = os_ram(table + ((va >> shift) & MAKE_64BIT_MASK(0, bits)) * 8,
                    8);
        if (!at) {
            return OS_NOWHERE;
        }
        e = ldq_be_p(at);
        if (!(e & VALID)) {
            return OS_NOWHERE;
        }
        if (e & LEAF) {
            uint64_t mask = MAKE_64BIT_MASK(0, shift);

            return (e & 0x01fffffffffff000ull & ~mask) | (va & mask);
        }
        table = e & 0x0fffffffffffff00ull;
        bits = e & 31;
        if (!bits || bits > shift - 12) {
            return OS_NOWHERE;
        }
    }
    return OS_NOWHERE;
}

/*
 * Linux' own tables where the hardware has a hash table, big-endian too: the
 * bits of four levels depend on the size of a page.
 */
static uint64_t walk_hash(uint64_t root, uint64_t va, unsigned page)
{
    static const unsigned large[] = { 8, 10, 10, 8 }, small[] = { 9, 9, 7, 9 };
    const unsigned *bits = page == 16 ? large : small;
    unsigned shift = page + bits[0] + bits[1] + bits[2] + bits[3];

    for (unsigned level = 0; level < 4; level++) {
        uint64_t mask, e;
        const uint8_t *at;

        shift -= bits[level];
        at = os_ram(root + ((va >> shift) & MAKE_64BIT_MASK(0, bits[level]))
                    * 8, 8);
        e = at ? ldq_be_p(at) : 0;
        mask = MAKE_64BIT_MASK(0, shift);
        if (e & LEAF) {
            /* Bits 53 to 56 say where it is in the hash table. */
            return e & VALID ? (e & 0x001ffffffffff000ull & ~mask)
                | (va & mask) : OS_NOWHERE;
        }
        if (!e) {
            return OS_NOWHERE;
        }
        root = e & 0x0fffffffffffff00ull;
    }
    return OS_NOWHERE;
}

static uint64_t walk_64(CPUPPCState *env, uint64_t root, uint64_t va)
{
    uint64_t pa = OS_NOWHERE;

    if (env->spr[SPR_LPCR] & LPCR_HR) {
        return walk_radix(root, va);
    }
    if (os_layout.page_shift != 12) {
        pa = walk_hash(root, va, 16);
    }
    return pa == OS_NOWHERE && os_layout.page_shift != 16
        ? walk_hash(root, va, 12) : pa;
}
#endif

uint64_t panda_arch_os_walk(CPUState *cs, uint64_t root, uint64_t va,
                            bool kernel)
{
    uint32_t e;

#ifdef TARGET_PPC64
    if (os_memory.word == 8) {
        return walk_64(cpu_env(cs), root, va);
    }
#endif
    /* Linux' own tables, of which the hash table is filled. */
    if (!os_physical_u32(root + ((uint32_t)va >> 22) * 4, &e) || !e
        || !os_physical_u32((e & ~0xfffu) + ((va >> 12) & 1023) * 4, &e)
        || !(e & 1)) {
        return OS_NOWHERE;
    }
    return (e & ~0xfffu) | (va & 0xfff);
}

uint64_t panda_arch_os_asid(CPUState *cs, uint64_t pgd_physical)
{
    return 0;
}

uint64_t panda_arch_os_stack_size(void)
{
    return os_memory.word == 8 ? 16 * KiB : 8 * KiB;
}

static uint64_t paca(CPUState *cs)
{
    return cpu_env(cs)->spr[SPR_SPRG1];
}

void panda_arch_os_prepare(CPUState *cs, bool (*is_task)(uint64_t address))
{
    paca_current = 0;
    if (os_memory.word != 8) {
        return;
    }
    for (uint64_t at = 0; at < PACA_SIZE; at += 8) {
        uint64_t task;

        if (os_read_word(paca(cs) + at, &task) && is_task(task)) {
            paca_current = at;
            return;
        }
    }
}

OsClue panda_arch_os_current(CPUState *cs, uint64_t *value)
{
    if (os_memory.word == 8) {
        return paca_current && os_read_word(paca(cs) + paca_current, value)
            ? OS_CLUE_TASK : OS_CLUE_NONE;
    }
    /* Physical address of the thread's part of its task_struct. */
    *value = (uint32_t)cpu_env(cs)->spr[SPR_SPRG3] + KERNEL_32;
    return OS_CLUE_INSIDE;
}

const char *panda_arch_os_current_lacks(CPUState *cs, bool knows_stacks)
{
    return os_memory.word != 8 || paca_current
        ? NULL : "where its data of a CPU (the PACA) has the running task";
}
