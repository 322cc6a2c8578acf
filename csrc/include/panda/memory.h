/*
 * Guest memory.
 *
 * In a callback on the CPU thread these act on the state of that very
 * moment. Other threads see the memory of a guest that runs on meanwhile. None
 * of them raises a guest exception, touches a device or changes the guest's TLB.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_MEMORY_H
#define PANDA_MEMORY_H

#include "panda/cpu.h"
#include "panda/types.h"

/** Read len bytes at a virtual address of the current address space. */
int panda_virtual_memory_read(PandaCPU *cpu, target_ptr_t addr, uint8_t *buf,
                              uint64_t len);

/** Write len bytes at a virtual address, page protection ignored. */
int panda_virtual_memory_write(PandaCPU *cpu, target_ptr_t addr,
                               const uint8_t *buf, uint64_t len);

/** Read len bytes of RAM or ROM at a physical address; devices fail. */
int panda_physical_memory_read(hwaddr addr, uint8_t *buf, uint64_t len);

/** Write len bytes of RAM at a physical address; devices fail. */
int panda_physical_memory_write(hwaddr addr, const uint8_t *buf,
                                uint64_t len);

/**
 * Copy a string: bytes up to a NUL, an unreadable page or max_len.
 *
 * Returns the length without the NUL, or PANDA_ERR_MEMORY if not even the
 * first byte can be read.
 */
int64_t panda_read_string(PandaCPU *cpu, target_ptr_t addr, uint8_t *buf,
                          uint64_t max_len);

/** Physical address of a virtual one; all ones if it is not mapped. */
hwaddr panda_virt_to_phys(PandaCPU *cpu, target_ptr_t addr);

/** Offset in RAM of a physical address; PANDA_ERR_MEMORY if it is not RAM. */
int panda_physical_to_ram_offset(hwaddr addr, bool is_write, uint64_t *offset);

/** Size of the machine's main memory in bytes. */
uint64_t panda_ram_size(void);

/**
 * Add RAM at a physical address; size is rounded up to a host page.
 *
 * PANDA_ERR_ARGUMENT if it overlaps memory that is there already.
 */
int panda_map_memory(const char *name, uint64_t size, hwaddr addr);

#endif
