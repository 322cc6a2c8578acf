/*
 * dynamic_symbols: symbols of the programs and libraries of a Linux guest, and
 * functions that are called when a process has one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_DYNAMIC_SYMBOLS_H
#define PANDA_PLUGINS_DYNAMIC_SYMBOLS_H

#include "panda/cpu.h"
#include "panda/plugins/hooks.h"
#include "panda/types.h"

PANDA_C_BEGIN

/** A symbol that is waited for. */
typedef struct hook_symbol_resolve hook_symbol_resolve;

/**
 * A process has the symbol: called once for each file and process, on the CPU
 * thread, before code of the process can run that was not there before.
 */
typedef void (*dynamic_symbols_resolved_t)(hook_symbol_resolve *h,
                                           const symbol *sym,
                                           target_ptr_t asid);

/** A process in which the symbol was found has ended or runs another program. */
typedef void (*dynamic_symbols_gone_t)(hook_symbol_resolve *h,
                                       target_ptr_t asid);

struct hook_symbol_resolve {
    /** Its name, a version may follow an `@`; empty: all functions. */
    char name[MAX_PATH_LEN];
    /** With hook_offset: so far behind the first byte of the file. */
    target_ptr_t offset;
    bool hook_offset;
    /** Part of the path of the file it is in; empty: any. */
    char section[MAX_PATH_LEN];
    dynamic_symbols_resolved_t cb;
    /** A function that clears it is not called again. */
    bool enabled;
    /** Set by panda_dynamic_symbols_hook_symbol_resolution(). */
    int id;
    /** May be NULL. */
    dynamic_symbols_gone_t gone;
};

/**
 * Have a function called when a process has a symbol, now or later.
 *
 * Copied; the copy's address is what the function gets, and the function's
 * context is what it finds by its id. From any thread. Processes that have the
 * symbol already are looked at when they run next. Returns the id;
 * PANDA_ERR_OS if the kernel is found and does not show what is mapped.
 */
int panda_dynamic_symbols_hook_symbol_resolution(const hook_symbol_resolve *h);

/** Have it called no more; PANDA_ERR_ARGUMENT: there is none. */
int panda_dynamic_symbols_remove(int id);

/**
 * A symbol of a process by name; its address is 0 if there is none.
 *
 * asid 0: of the current process. section is a part of the file's path.
 */
symbol panda_dynamic_symbols_resolve_symbol(PandaCPU *cpu, target_ptr_t asid,
                                            const char *section,
                                            const char *name);

/** The closest symbol that is not above an address; likewise. */
symbol panda_dynamic_symbols_get_best_matching_symbol(PandaCPU *cpu,
                                                      target_ptr_t address,
                                                      target_ptr_t asid);

PANDA_C_END

#endif
