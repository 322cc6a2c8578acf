/*
 * The plugin syscalls2: an event before each system call of a Linux guest and
 * after it, docs/syscalls.md.
 *
 * Each call has callbacks of its own too, typed as the kernel's function is:
 * on_sys_open_enter(cpu, pc, filename, flags, mode) and on_sys_open_return with
 * the same arguments as they were at the entry; on_ARM_..._enter for the private
 * ones of ARM. An argument is a uint64_t if it is a pointer, a long or has 64
 * bits, else uint32_t or int32_t.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_SYSCALLS2_H
#define PANDA_PLUGINS_SYSCALLS2_H

#include "panda/cpu.h"
#include "panda/types.h"

PANDA_C_BEGIN

/** What an argument of a system call is. */
typedef enum syscall_argtype_t {
    SYSCALL_ARG_U64 = 0x00,
    SYSCALL_ARG_U32 = 0x01,
    SYSCALL_ARG_U16 = 0x02,
    SYSCALL_ARG_S64 = 0x10,
    SYSCALL_ARG_S32 = 0x11,
    SYSCALL_ARG_S16 = 0x12,
    SYSCALL_ARG_BUF_PTR = 0x20,
    SYSCALL_ARG_STRUCT_PTR = 0x21,
    SYSCALL_ARG_STR_PTR = 0x22,
    SYSCALL_ARG_STRUCT = 0x30,
    SYSCALL_ARG_ARR = 0x31,
} syscall_argtype_t;

/** A system call, as its kernel declares it. */
typedef struct syscall_info_t {
    int no;
    /** Name of the kernel's function, "sys_open". */
    const char *name;
    int nargs;
    /** By argument: syscall_argtype_t, size in bytes, name, type in C. */
    const uint32_t *argt;
    const uint8_t *argsz;
    const char *const *argn;
    const char *const *argtn;
    /** It does not come back to the instruction that follows. */
    bool noreturn;
} syscall_info_t;

/** What holds for all system calls of the guest. */
typedef struct syscall_meta_t {
    /** The highest number. */
    uint32_t max;
    /** The same without private ones of the architecture. */
    uint32_t max_generic;
    /** The most arguments one has. */
    uint32_t max_args;
} syscall_meta_t;

/**
 * A system call that was made. What follows profile is pandalite's own.
 */
typedef struct syscall_ctx_t {
    int no;
    /** Address space, of the event. */
    target_ptr_t asid;
    /** Where it returns to. */
    target_ptr_t retaddr;
    /** Arguments when it was made, as numbers in the host's order. */
    uint8_t args[17][8];
    /** It returns twice: in the child, with 0, and in its parent. */
    bool double_return;
    /** Index of its set of numbers: panda_syscall_abi_name(). */
    int profile;
    /** What it has returned, errors negative; 0 before. */
    int64_t result;
    /**
     * What tells the running thread from others: the address of its
     * task_struct; while that is not known, its address space.
     */
    uint64_t thread;
    /** The same of the thread that made the call: the parent's in a child. */
    uint64_t caller;
    /** This is the return in the child that the call has made. */
    bool in_child;
} syscall_ctx_t;

/** A system call is about to be made. */
typedef void (*on_all_sys_enter_t)(PandaCPU *cpu, target_ptr_t pc,
                                   target_ptr_t callno);
/** A system call has returned. */
typedef void (*on_all_sys_return_t)(PandaCPU *cpu, target_ptr_t pc,
                                    target_ptr_t callno);
/** The same with more; call is NULL without the argument load-info. */
typedef void (*on_all_sys_enter2_t)(PandaCPU *cpu, target_ptr_t pc,
                                    const syscall_info_t *call,
                                    const syscall_ctx_t *rp);
/** The same with more; call is NULL without the argument load-info. */
typedef void (*on_all_sys_return2_t)(PandaCPU *cpu, target_ptr_t pc,
                                     const syscall_info_t *call,
                                     const syscall_ctx_t *rp);
/** A system call with an unknown number is about to be made. */
typedef void (*on_unknown_sys_enter_t)(PandaCPU *cpu, target_ptr_t pc,
                                       target_ptr_t callno);
/** A system call with an unknown number has returned. */
typedef void (*on_unknown_sys_return_t)(PandaCPU *cpu, target_ptr_t pc,
                                        target_ptr_t callno);

/**
 * What a system call has returned, in the callback of its return.
 *
 * Errors are negative on all architectures. Never blocks.
 */
int64_t panda_syscalls2_get_syscall_retval(PandaCPU *cpu);

/**
 * A system call by its number; NULL if there is none, or without the argument
 * load-info.
 */
const syscall_info_t *panda_syscalls2_get_syscall_info(uint32_t callno);

/** What holds for all of them; NULL without the argument load-info. */
const syscall_meta_t *panda_syscalls2_get_syscall_meta(void);

PANDA_C_END

#endif
