/*
 * Guest memory as the introspection reads it: straight from RAM, with the
 * guest's word size and byte order, through page tables it walks itself.
 *
 * The CPU's own translation is of no use here: in user mode many architectures
 * show no kernel memory, and a process that does not run has other tables. All
 * pointers are the guest's and may be wild; every read says whether it worked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_GUEST_MEMORY_H
#define PANDA_INTROSPECT_GUEST_MEMORY_H

#include "core/internal.h"
#include "qemu/units.h"

#define OS_SEGMENTS 8
#define OS_NOWHERE UINT64_MAX

/* A run of RAM at a physical address. */
typedef struct OsSegment {
    uint64_t pa;
    uint64_t size;
    const uint8_t *host;
} OsSegment;

/* How the guest's kernel maps memory. */
typedef struct OsMemory {
    OsSegment segment[OS_SEGMENTS];
    unsigned n_segments;
    /* Bytes of a pointer; byte order of data. */
    unsigned word;
    bool big_endian;
    /* Physical address of the kernel's top page table. */
    uint64_t kernel_root;
    /* Virtual minus physical address of the kernel's image, if it is known. */
    uint64_t image_delta;
    bool has_image_delta;
    /* The kernel's part of the address space begins here. */
    uint64_t kernel_start;
} OsMemory;

extern OsMemory os_memory;

/* Look where RAM is; the vCPU gives word size and byte order. */
void os_memory_init(CPUState *cs);

/* Forget translations: the guest has run meanwhile. */
void os_memory_forget(void);

/* Host address of len bytes of RAM; NULL if they are not there. */
const uint8_t *os_ram(uint64_t pa, uint64_t len);
/* The run of RAM that a host address is in; NULL: it is none. */
const OsSegment *os_segment_of(const uint8_t *host);
/* Physical address of a byte of RAM. */
uint64_t os_ram_address(const uint8_t *host);

/* Physical address of a kernel address; OS_NOWHERE. */
uint64_t os_kernel_to_physical(uint64_t va);

/* Read kernel memory. */
bool os_read(uint64_t va, void *buf, uint64_t len);
bool os_read_u16(uint64_t va, uint16_t *value);
bool os_read_u32(uint64_t va, uint32_t *value);
bool os_read_u64(uint64_t va, uint64_t *value);
/* A word of the guest, zero-extended. */
bool os_read_word(uint64_t va, uint64_t *value);
/* A string, always ended; false if not even its first byte can be read. */
bool os_read_string(uint64_t va, char *buf, uint64_t size);

/* The same at physical addresses. */
bool os_physical_word(uint64_t pa, uint64_t *value);
bool os_physical_u64(uint64_t pa, uint64_t *value);
bool os_physical_u32(uint64_t pa, uint32_t *value);

/* Physical address of a process' address, likewise; OS_NOWHERE. */
uint64_t os_user_to_physical(uint64_t pgd, uint64_t va);

/*
 * Read memory of a process whose top page table is at a kernel address;
 * returns how many bytes could be read.
 */
uint64_t os_read_user(uint64_t pgd, uint64_t va, void *buf, uint64_t len);

/* Numbers out of a buffer in the guest's byte order. */
uint64_t os_word_at(const void *at);
uint32_t os_u32_at(const void *at);
uint16_t os_u16_at(const void *at);

/* May it be a pointer to a kernel object? */
static inline bool os_is_kernel(uint64_t va)
{
    return os_memory.word == 8 ? va >> 63 : va >= os_memory.kernel_start;
}

/* ---- architecture (csrc/arch/<family>_os.c) ---- */

/* Byte order of the kernel's data. */
bool panda_arch_os_big_endian(CPUState *cs);

/*
 * Where the kernel's page tables are, if the CPU's registers say so now;
 * OS_NOWHERE if they do not.
 */
uint64_t panda_arch_os_kernel_root(CPUState *cs);

/*
 * Of a 32-bit kernel: where its part of the address space begins, given where
 * its linear mapping does.
 */
uint64_t panda_arch_os_kernel_start(uint64_t linear);

/* Kernel addresses that need no tables; OS_NOWHERE: it does. */
uint64_t panda_arch_os_linear(uint64_t va);

/* Walk tables whose top is at a physical address. */
uint64_t panda_arch_os_walk(CPUState *cs, uint64_t root, uint64_t va,
                            bool kernel);

/*
 * What panda_current_asid() says in a process with these page tables, as far
 * as they decide it; 0 if they do not.
 */
uint64_t panda_arch_os_asid(CPUState *cs, uint64_t pgd_physical);

/* What the CPU's registers say of the thread that runs. */
typedef enum OsClue {
    OS_CLUE_NONE,
    /* The value is its task_struct's address. */
    OS_CLUE_TASK,
    /* It is an address in its kernel stack. */
    OS_CLUE_STACK,
    /* It is an address in its task_struct. */
    OS_CLUE_INSIDE,
} OsClue;

OsClue panda_arch_os_current(CPUState *cs, uint64_t *value);

/*
 * What of the guest's kernel is not known and leaves it unknown which thread
 * runs when the CPU is in the kernel; NULL: nothing. knows_stacks: it is known
 * which stack is whose.
 */
const char *panda_arch_os_current_lacks(CPUState *cs, bool knows_stacks);

/* What they say if it is the stacks. */
#define OS_LACKS_STACKS "where a task_struct has its kernel stack"

/*
 * Learn from the kernel's symbols and tasks, once, where the CPU's registers
 * lead. is_task() tells whether an address is that of a task_struct.
 */
void panda_arch_os_prepare(CPUState *cs, bool (*is_task)(uint64_t address));

/* Size of a kernel stack. */
uint64_t panda_arch_os_stack_size(void);

#endif
