/*
 * proc_start_linux: what a program of a Linux guest is given at its start.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_PROC_START_LINUX_H
#define PANDA_PLUGINS_PROC_START_LINUX_H

#include "panda/cpu.h"
#include "panda/types.h"

PANDA_C_BEGIN

/** How many arguments, variables and bytes of each are kept. */
#define MAX_NUM_ARGS 10
#define MAX_NUM_ENV 20
#define MAX_AUXV_STRING 256

/**
 * What is on a program's first stack; 0 and "" where it says nothing.
 *
 * Arguments and variables are cut if they are longer.
 */
typedef struct auxv_values {
    int argc;
    target_ptr_t argv_ptr_ptr;
    target_ptr_t arg_ptr[MAX_NUM_ARGS];
    char argv[MAX_NUM_ARGS][MAX_AUXV_STRING];
    int envc;
    target_ptr_t env_ptr_ptr;
    target_ptr_t env_ptr[MAX_NUM_ENV];
    char envp[MAX_NUM_ENV][MAX_AUXV_STRING];
    target_ptr_t execfn_ptr;
    char execfn[MAX_AUXV_STRING];
    target_ptr_t phdr;
    /** First instruction of the program itself. */
    target_ptr_t entry;
    target_ptr_t ehdr;
    target_ptr_t hwcap;
    target_ptr_t hwcap2;
    target_ptr_t pagesz;
    target_ptr_t clktck;
    target_ptr_t phent;
    target_ptr_t phnum;
    /** Where its interpreter, the dynamic linker, is. */
    target_ptr_t base;
    target_ptr_t flags;
    target_ptr_t uid;
    target_ptr_t euid;
    target_ptr_t gid;
    target_ptr_t egid;
    bool secure;
    target_ptr_t random;
    target_ptr_t platform;
    /** Where the program's file begins in memory, by its program headers. */
    target_ptr_t program_header;
    target_ptr_t minsigstksz;
} auxv_values;

/**
 * A program is about to begin: its memory is there, and nothing of it has run.
 *
 * The CPU is still in the kernel.
 */
typedef void (*on_rec_auxv_t)(PandaCPU *cpu, PandaTB *tb, auxv_values *av);

PANDA_C_END

#endif
