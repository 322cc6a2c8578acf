/*
 * mem_hooks: functions called when addresses in a range are accessed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_MEM_HOOKS_H
#define PANDA_PLUGINS_MEM_HOOKS_H

#include "panda/cpu.h"
#include "panda/types.h"

PANDA_C_BEGIN

/** A range of addresses that is watched. */
typedef struct memory_hooks_region memory_hooks_region;

/** An access to a watched range. */
typedef struct memory_access_desc {
    /** The instruction. */
    target_ptr_t pc;
    /** What is accessed, a virtual or physical address as the range's. */
    target_ptr_t addr;
    size_t size;
    /** The value, in host order; NULL before a read. */
    uint8_t *buf;
    bool on_before;
    bool on_after;
    bool on_read;
    bool on_write;
    bool on_virtual;
    bool on_physical;
    /** The range, as panda_mem_hooks_add_mem_hook() has returned it. */
    memory_hooks_region *hook;
} memory_access_desc;

/** Called for an access to a range. */
typedef void (*mem_hook_func_t)(PandaCPU *cpu, memory_access_desc *access);

/** A range of addresses that is watched. */
struct memory_hooks_region {
    target_ptr_t start_address;
    /** The last one. */
    target_ptr_t stop_address;
    /** A function that clears it is not called any more. */
    bool enabled;
    bool on_before;
    bool on_after;
    bool on_read;
    bool on_write;
    bool on_virtual;
    bool on_physical;
    mem_hook_func_t cb;
};

/**
 * Watch a range; the copy that is kept, or NULL.
 *
 * An access counts that has a byte in it. Each kind of access takes one of
 * the 55 filters there are.
 */
memory_hooks_region *panda_mem_hooks_add_mem_hook(
    const memory_hooks_region *region);

/** Watch it no more; the copy goes. */
int panda_mem_hooks_remove_mem_hook(memory_hooks_region *region);

/** Let memory hooks act (the default). */
void panda_mem_hooks_enable_mem_hooking(void);

/** Let no memory hook act; they stay. */
void panda_mem_hooks_disable_mem_hooking(void);

PANDA_C_END

#endif
