/*
 * What callbacks are handed: the virtual CPU and the translated block.
 *
 * These are pandalite's own structures, not QEMU's: they keep their layout
 * when QEMU changes. There is one of each per virtual CPU, at an address that
 * never changes; the core fills it before it calls back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CPU_H
#define PANDA_CPU_H

#include "panda/types.h"

/** A virtual CPU, as callbacks see it. */
typedef struct PandaCPU {
    /** The architecture's register state (QEMU's CPUArchState). */
    void *env_ptr;
    /** Exact guest pc of the event being delivered (valid if in_callback). */
    uint64_t panda_guest_pc;
    /**
     * Instructions since a recording or replay began, before the event's; 0
     * outside of both (valid if in_callback).
     */
    uint64_t rr_guest_instr_count;
    /** Pending exception number, -1 for none (valid if in_callback). */
    int32_t exception_index;
    /** Index of this CPU, 0 for the first. */
    int32_t cpu_index;
    /** Nonzero while a callback runs on this CPU's thread. */
    uint32_t in_callback;
    /** Nonzero if the CPU waits for an interrupt. */
    uint32_t halted;
    /** Whether the machine is recorded or replays, a PandaRrMode. */
    uint32_t rr_mode;
} PandaCPU;

/** A block of translated guest code, as callbacks see it. */
typedef struct PandaTB {
    /** Guest virtual address of the first instruction. */
    uint64_t pc;
    /** Base of the code segment (x86), else target-specific. */
    uint64_t cs_base;
    /** Target-specific mode flags the block was translated for. */
    uint64_t flags;
    /** QEMU's compile flags, without pandalite's own bits. */
    uint32_t cflags;
    /** Length of the guest code in bytes. */
    uint32_t size;
    /** Number of guest instructions. */
    uint32_t icount;
    uint32_t reserved;
} PandaTB;

/**
 * The first virtual CPU.
 *
 * Returns NULL before panda_init(). The address is the same for the life of
 * the machine.
 */
PandaCPU *panda_get_cpu(void);

/** The block structure handed to every execution callback. */
PandaTB *panda_get_tb(void);

/**
 * The value buffer handed to memory callbacks: 16 bytes in host order.
 *
 * Its address is fixed, so bindings can wrap it once.
 */
uint8_t *panda_get_mem_buf(void);

#endif
