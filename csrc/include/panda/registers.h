/*
 * Registers, privilege and address space of a virtual CPU.
 *
 * In a callback they show the exact state at the present instruction. General
 * purpose registers are also reached through PandaCPU.env_ptr.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_REGISTERS_H
#define PANDA_REGISTERS_H

#include "panda/cpu.h"
#include "panda/types.h"

/** A descriptor-table register or system segment (x86). */
typedef struct PandaSegment {
    uint32_t selector;
    uint32_t limit;
    uint64_t base;
    uint32_t flags;
    uint32_t reserved;
} PandaSegment;

/**
 * Program counter; x86: linear address, cs base included.
 *
 * Never blocks.
 */
target_ptr_t panda_current_pc(PandaCPU *cpu);

/**
 * Stack pointer.
 *
 * Never blocks.
 */
target_ptr_t panda_current_sp(PandaCPU *cpu);

/** Kernel stack pointer, from kernel or user mode; 0 if unknown. */
target_ptr_t panda_current_ksp(PandaCPU *cpu);

/**
 * Address space identifier; x86: CR3.
 *
 * Never blocks.
 */
target_ptr_t panda_current_asid(PandaCPU *cpu);

/**
 * Whether the CPU runs at its kernel's privilege level.
 *
 * Never blocks.
 */
bool panda_in_kernel_mode(PandaCPU *cpu);

/**
 * Continue at pc.
 *
 * In a callback the present block is left when the callbacks of the event
 * have run; the instruction at pc runs next.
 */
int panda_set_pc(PandaCPU *cpu, target_ptr_t pc);

/**
 * Number of a register by its upper-case name; -1 if there is none.
 *
 * For the registers that are not plain fields of the general register file:
 * flags, control, segment, system and vector registers.
 */
int panda_register_id(const char *name);

/** Name of a register; NULL if id is out of range. Numbers start at 0. */
const char *panda_register_name(int id);

/** Size of a register's value in bytes, at most 64; 0 if there is none. */
uint32_t panda_register_size(int id);

/**
 * Read a register, least significant byte first.
 *
 * Descriptor-table registers give a PandaSegment.
 *
 * Never blocks.
 */
int panda_register_read(PandaCPU *cpu, int id, uint8_t *buf, uint32_t size);

/** Write a register; mode changes take effect when the block is left. */
int panda_register_write(PandaCPU *cpu, int id, const uint8_t *buf,
                         uint32_t size);

#endif
