/*
 * Symbols of the guest's programs and libraries: ELF's tables, read from guest
 * memory.
 *
 * The page cache of the guest, the memory of the process and, if a directory
 * was given, copies of the files on the host are where they come from. A table
 * that is not wholly in memory gives what is there, and is read again later.
 *
 * To be asked for in a callback on the CPU thread or while the guest is
 * stopped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_SYMBOLS_H
#define PANDA_SYMBOLS_H

#include "panda/types.h"

/** A symbol of a program or library, in a process. */
typedef struct PandaSymbol {
    /** Where it is in the process. */
    target_ptr_t address;
    /** In bytes; 0 if the table does not say it. */
    uint64_t size;
    /** What is added to the file's addresses in this process. */
    target_ptr_t bias;
    /** How far behind it the address is that was asked for. */
    uint64_t offset;
    /** ELF's type: 0 unknown, 1 data, 2 function, 10 indirect function. */
    uint32_t kind;
    /** ELF's binding: 0 local, 1 global, 2 weak. */
    uint32_t binding;
    /** Its number in the dynamic table; -1: it is in the full table only. */
    int32_t number;
    uint32_t padding;
    char name[256];
    /** Of a symbol that has versions, e.g. `GLIBC_2.2.5`; else empty. */
    char version[64];
    /** Path of the file it is in, or `[vdso]`; its end if it is longer. */
    char path[256];
} PandaSymbol;

/** A program or library that a process has mapped. */
typedef struct PandaLibrary {
    /** Where its first mapping begins, and behind its last one. */
    target_ptr_t start;
    target_ptr_t end;
    /** What is added to the file's addresses. */
    target_ptr_t bias;
    /** How many symbols were found. */
    uint64_t symbols;
    /** All of its tables could be read. */
    uint32_t complete;
    uint32_t padding;
    char path[256];
} PandaLibrary;

/**
 * The symbol that an address of a process is in; PANDA_ERR_OS if there is none.
 *
 * One whose size is known has nothing behind its end.
 */
int panda_os_user_symbol_at(target_ptr_t task, target_ptr_t address,
                            PandaSymbol *symbol);

/**
 * A symbol of a process by name; PANDA_ERR_OS if it has none.
 *
 * library is a part of the path of the file it is to be in, NULL: any, the
 * first mapped one first. The name may end with `@` and a version.
 */
int panda_os_user_symbol(target_ptr_t task, const char *library,
                         const char *name, PandaSymbol *symbol);

/**
 * All symbols of the first file with a part in its path: n are stored.
 *
 * By address. Returns how many there are, which may be more; negative
 * PandaStatus.
 */
int64_t panda_os_user_symbols(target_ptr_t task, const char *library,
                              PandaSymbol *symbols, uint64_t n);

/** The program and the libraries of a process, by address; likewise. */
int64_t panda_os_libraries(target_ptr_t task, PandaLibrary *libraries,
                           uint64_t n);

/**
 * Where copies of the guest's files are on the host: a copy of its root
 * directory; NULL: nowhere (the default).
 *
 * A copy is only looked at if the file's first page in memory is equal.
 */
int panda_os_set_symbol_directory(const char *directory);

#endif
