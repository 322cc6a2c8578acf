/*
 * hooks2: PANDA's older hooks, of blocks in a process, a library, a range, and
 * callbacks of processes, threads and mappings.
 *
 * The plugin hooks is quicker, panda/os_events.h tells more.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_HOOKS2_H
#define PANDA_PLUGINS_HOOKS2_H

#include "panda/cpu.h"
#include "panda/types.h"

PANDA_C_BEGIN

/** Called at the start of a block; what it returns is not looked at. */
typedef bool (*hooks2_func_t)(PandaCPU *cpu, PandaTB *tb, void *cb_data);

/**
 * A process is there: made by fork, under its parent's name, or with another
 * program, by exec.
 */
typedef void (*on_process_start_t)(PandaCPU *cpu, const char *procname,
                                   target_ptr_t asid, int32_t pid);

/** The last thread of a process ends. */
typedef void (*on_process_end_t)(PandaCPU *cpu, const char *procname,
                                 target_ptr_t asid, int32_t pid);

/** A process has got one more thread. */
typedef void (*on_thread_start_t)(PandaCPU *cpu, const char *procname,
                                  target_ptr_t asid, int32_t pid, int32_t tid);

/** A thread ends, and others of its process are left. */
typedef void (*on_thread_end_t)(PandaCPU *cpu, const char *procname,
                                target_ptr_t asid, int32_t pid, int32_t tid);

/** The current process has mapped a part of a file, or changed its rights. */
typedef void (*on_mmap_updated_t)(PandaCPU *cpu, const char *libname,
                                  target_ptr_t base, target_ptr_t size);

/**
 * Add a hook, called at the start of each block that fits; its number.
 *
 * is_kernel: in the kernel's mode, else in user mode. procname: while a
 * process of this short name runs; NULL: any. libname: in code mapped from a
 * file with this in its path; NULL: any. trace_start, trace_stop: from when the
 * first of these addresses is come to, and until the other is, whose block is
 * not of it; 0: always. range_begin, range_end: blocks that start there, both
 * included; 0 and 0: any. Negative PandaStatus on failure.
 */
int panda_hooks2_add_hooks2(hooks2_func_t hook, void *cb_data, bool is_kernel,
                            const char *procname, const char *libname,
                            target_ptr_t trace_start, target_ptr_t trace_stop,
                            target_ptr_t range_begin, target_ptr_t range_end);

/** Let a hook act (the default). PANDA_ERR_ARGUMENT if there is none. */
int panda_hooks2_enable_hooks2(int id);

/** Let a hook act no more. PANDA_ERR_ARGUMENT if there is none. */
int panda_hooks2_disable_hooks2(int id);

PANDA_C_END

#endif
