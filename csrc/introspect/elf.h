/*
 * ELF files of a guest's programs, and their symbols.
 *
 * A file is read where it can be found, page by page: in the page cache, in the
 * memory of the process that has it mapped, in a copy on the host.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_ELF_H
#define PANDA_INTROSPECT_ELF_H

#include "introspect/guest_memory.h"

#define OS_WINDOWS 32
#define OS_ELF_SEGMENTS 32

/* A part of the file that a process has mapped, from an offset on. */
typedef struct OsWindow {
    uint64_t start;
    uint64_t end;
    uint64_t offset;
    bool writable;
} OsWindow;

typedef struct OsSegmentOfElf {
    uint64_t address;
    uint64_t offset;
    uint64_t in_file;
} OsSegmentOfElf;

typedef struct OsElf {
    /* ---- to be filled in by who opens it ---- */
    uint64_t pgd;
    OsWindow window[OS_WINDOWS];
    unsigned n_windows;
    /* Its page cache (page_cache.h) or 0; a copy on the host or NULL. */
    uint64_t cache;
    GMappedFile *copy;

    /* ---- what its header says ---- */
    unsigned word;
    bool big_endian;
    uint16_t machine;
    uint32_t flags;
    /* What is added to its addresses in the process. */
    uint64_t bias;
    /* Behind its last byte in memory, without bias. */
    uint64_t end;
    OsSegmentOfElf segment[OS_ELF_SEGMENTS];
    unsigned n_segments;
    uint64_t dynamic, dynamic_size;
    uint64_t sections, section_size, section_count;
    /* Pages that were asked for and are nowhere. */
    unsigned gaps;
} OsElf;

typedef struct OsElfSymbol {
    /* Address without bias. */
    uint64_t value;
    uint64_t size;
    /* Where its name and its version begin in the text; version 0: none. */
    uint32_t name;
    uint32_t version;
    /* ELF's type and binding. */
    uint8_t kind;
    uint8_t binding;
    /* From the dynamic table, and its number there. */
    bool dynamic;
    uint32_t number;
} OsElfSymbol;

typedef struct OsElfSymbols {
    /* By address; of those at one address the best one last. */
    OsElfSymbol *symbol;
    uint64_t n;
    char *text;
    uint64_t text_size;
    /* All of the file's tables were in memory; all of the dynamic one was. */
    bool complete;
    bool dynamic_complete;
} OsElfSymbols;

/* Read the header; false: it is no ELF file, or cannot be read. */
bool os_elf_open(OsElf *elf);

/* Where in the process it is; false: none of its parts is mapped. */
bool os_elf_find_bias(OsElf *elf);

/* Its symbols, of both tables; never NULL. */
OsElfSymbols *os_elf_symbols(OsElf *elf);
void os_elf_symbols_free(OsElfSymbols *symbols);

/* Read the file; what is nowhere is zeros, and counted. */
void os_elf_read(OsElf *elf, uint64_t offset, void *buf, uint64_t len);

#endif
