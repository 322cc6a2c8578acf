/*
 * callstack_instr: who has called what is running.
 *
 * Calls and returns are followed from when the plugin is loaded, on a stack of
 * their own for each thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_CALLSTACK_INSTR_H
#define PANDA_PLUGINS_CALLSTACK_INSTR_H

#include "panda/cpu.h"
#include "panda/types.h"

PANDA_C_BEGIN

/** How the stacks of threads are told from each other. */
typedef enum stack_type {
    /** One for an address space. */
    STACK_ASID = 0,
    /** By address space and by where the stack pointer is. */
    STACK_HEURISTIC = 1,
    /** By the operating system's thread; as STACK_HEURISTIC if it is unknown. */
    STACK_THREADED = 2,
} stack_type;

/** A place in a program. */
typedef struct prog_point {
    /** Where the function will return to; 0 if its call was not seen. */
    target_ptr_t caller;
    target_ptr_t pc;
    /** Names the stack: the address space, and the thread if it is known. */
    target_ptr_t sidFirst;
    target_ptr_t sidSecond;
    bool isKernelMode;
    stack_type stackKind;
} prog_point;

/** A function was called: its first instruction is about to run. */
typedef void (*on_call_t)(PandaCPU *cpu, target_ptr_t func);

/** A function has returned: the next instruction is its caller's. */
typedef void (*on_ret_t)(PandaCPU *cpu, target_ptr_t func);

/**
 * Where the functions that run will return to, the last called first.
 *
 * The kernel's stack in the kernel, else the program's. Returns how many were
 * found, n at most. In a callback.
 *
 * Never blocks.
 */
uint32_t panda_callstack_instr_get_callers(target_ptr_t *callers, uint32_t n,
                                           PandaCPU *cpu);

/**
 * Where the functions that run begin, the last called first; as get_callers.
 *
 * Never blocks.
 */
uint32_t panda_callstack_instr_get_functions(target_ptr_t *functions,
                                             uint32_t n, PandaCPU *cpu);

/**
 * What the functions that run will return into, the last called first: paths
 * of programs and libraries, `[vdso]` and the like; in the kernel, names of
 * modules or `[kernel]`, `[???]` where that is not known. As get_callers.
 *
 * The texts are valid until the thread asks again.
 */
uint32_t panda_callstack_instr_get_binaries(char **libs, uint32_t n,
                                            PandaCPU *cpu);

/**
 * For PANDA's sake: binaries are looked up when they are asked for, so there
 * is nothing to be enabled.
 *
 * Never blocks.
 */
void panda_callstack_instr_callstack_enable_binary_tracking(void);

/**
 * The present place.
 *
 * Never blocks.
 */
void panda_callstack_instr_get_prog_point(PandaCPU *cpu, prog_point *point);

PANDA_C_END

#endif
