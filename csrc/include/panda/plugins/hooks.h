/*
 * hooks: a function called when the guest comes to an address.
 *
 * The call is put into the translated code of just that place, so a hook
 * costs nothing anywhere else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_HOOKS_H
#define PANDA_PLUGINS_HOOKS_H

#include "panda/callbacks.h"
#include "panda/cpu.h"
#include "panda/python.h"
#include "panda/types.h"

PANDA_C_BEGIN

/** Longest name of a symbol or of what it is in, with its end. */
#define MAX_PATH_LEN 256

/** The privilege of code that is hooked. */
typedef enum kernel_mode {
    MODE_ANY = 0,
    MODE_KERNEL_ONLY = 1,
    MODE_USER_ONLY = 2,
} kernel_mode;

/** A symbol of a program or library. */
typedef struct symbol {
    target_ptr_t address;
    target_ptr_t value;
    int symtab_idx;
    int reloc_type;
    char name[MAX_PATH_LEN];
    /** The file it is in. */
    char section[MAX_PATH_LEN];
} symbol;

/** A hook. */
typedef struct hook hook;

/** The function of a hook: one of these, by its type. */
typedef union hooks_panda_cb {
    void (*before_tcg_codegen)(PandaCPU *env, PandaTB *tb, hook *h);
    void (*before_block_translate)(PandaCPU *env, target_ptr_t pc, hook *h);
    void (*after_block_translate)(PandaCPU *env, PandaTB *tb, hook *h);
    bool (*before_block_exec_invalidate_opt)(PandaCPU *env, PandaTB *tb,
                                             hook *h);
    void (*before_block_exec)(PandaCPU *env, PandaTB *tb, hook *h);
    void (*after_block_exec)(PandaCPU *env, PandaTB *tb, uint8_t exitCode,
                             hook *h);
    void (*start_block_exec)(PandaCPU *env, PandaTB *tb, hook *h);
    void (*end_block_exec)(PandaCPU *env, PandaTB *tb, hook *h);
    void (*cbaddr)(void);
} hooks_panda_cb;

/** A hook. */
struct hook {
    /** Where: start_block_exec and before_block_exec, any instruction. */
    target_ptr_t addr;
    /** In which address space, as panda_current_asid() has it; 0: in all. */
    target_ptr_t asid;
    panda_cb_type type;
    hooks_panda_cb cb;
    kernel_mode km;
    /** A function that clears it removes its hook. */
    bool enabled;
    /** Of a hook that was made by a symbol's name. */
    symbol sym;
    void *context;
};

/**
 * Add a hook, which is copied; the copy, or NULL.
 *
 * Takes effect at the next block, from any thread. One that is the same in
 * address, address space, type and function is not added twice: the one there
 * is is returned. The copy is valid until the hook is removed.
 */
hook *panda_hooks_add_hook(const hook *h);

/**
 * Add a hook whose function is Python's; h is not copied.
 *
 * h and the objects are kept by the host until the run has ended. Only the
 * types start_block_exec and before_block_exec; PANDA_ERR_UNSUPPORTED where
 * panda_python_supports() says no.
 */
int panda_hooks_add_python(hook *h, const PandaPythonCallback *callback);

/** Remove a hook: the copy, or what panda_hooks_add_python() was given. */
int panda_hooks_remove_hook(hook *h);

/** A hook of a symbol, in every process that has it. */
typedef struct symbol_hook {
    /** Its name, a version may follow an `@`; empty: all functions. */
    char name[MAX_PATH_LEN];
    /** With hook_offset: so far behind the first byte of the file. */
    target_ptr_t offset;
    bool hook_offset;
    /** Part of the path of the file it is in; empty: any. */
    char section[MAX_PATH_LEN];
    panda_cb_type type;
    hooks_panda_cb cb;
} symbol_hook;

/**
 * Add a hook in each process that has a symbol, now or later; copied.
 *
 * The plugin dynamic_symbols is loaded for it. The hooks are of the user's
 * mode, and go with their process. Returns a number for
 * panda_hooks_remove_symbol_hook(); PANDA_ERR_OS if the guest's kernel does
 * not show what is mapped.
 */
int panda_hooks_add_symbol_hook(const symbol_hook *h);

/** Remove it, and its hooks in all processes. */
int panda_hooks_remove_symbol_hook(int number);

/** Let hooks act (the default). */
void panda_hooks_enable_hooking(void);

/** Let no hook act; they stay. */
void panda_hooks_disable_hooking(void);

/** How many hooks there are. */
uint32_t panda_hooks_count(void);

/**
 * In a hook at a function's first instruction: return from it at once.
 *
 * PANDA_ERR_MEMORY if the return address cannot be read.
 */
int panda_hooks_skip_function(PandaCPU *cpu, target_ptr_t result);

/** The argument of that number, from 0, at a function's first instruction. */
int panda_hooks_get_argument(PandaCPU *cpu, uint32_t number,
                             target_ptr_t *value);

/** Change an argument at a function's first instruction. */
int panda_hooks_set_argument(PandaCPU *cpu, uint32_t number,
                             target_ptr_t value);

/** Where the function will return to, at its first instruction. */
int panda_hooks_get_return_address(PandaCPU *cpu, target_ptr_t *address);

/**
 * The stack pointer as it will be when the function has returned.
 *
 * Never blocks.
 */
target_ptr_t panda_hooks_get_returned_sp(PandaCPU *cpu);

/**
 * What the function has returned, at its return address.
 *
 * Never blocks.
 */
target_ptr_t panda_hooks_get_result(PandaCPU *cpu);

/** Change what the function has returned. */
int panda_hooks_set_result(PandaCPU *cpu, target_ptr_t value);

PANDA_C_END

#endif
