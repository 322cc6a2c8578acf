/*
 * Where ELF has its fields, in files of 32 and of 64 bits.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_ELF_LAYOUT_H
#define PANDA_INTROSPECT_ELF_LAYOUT_H

#include <elf.h>
#include "introspect/elf.h"

typedef struct ElfField {
    uint8_t at;
    uint8_t bytes;
} ElfField;

/* Structure's name, and its fields. */
#define ELF_HEADER_FIELDS(_)                                                  \
    _(Ehdr, e_machine) _(Ehdr, e_flags) _(Ehdr, e_phoff) _(Ehdr, e_phentsize) \
    _(Ehdr, e_phnum) _(Ehdr, e_shoff) _(Ehdr, e_shentsize) _(Ehdr, e_shnum)   \
    _(Phdr, p_type) _(Phdr, p_offset) _(Phdr, p_vaddr) _(Phdr, p_filesz)      \
    _(Phdr, p_memsz)                                                          \
    _(Shdr, sh_type) _(Shdr, sh_offset) _(Shdr, sh_size) _(Shdr, sh_link)     \
    _(Shdr, sh_entsize)                                                       \
    _(Sym, st_name) _(Sym, st_value) _(Sym, st_size) _(Sym, st_info)          \
    _(Sym, st_shndx)

typedef struct ElfFields {
#define ELF_MEMBER(structure, field) ElfField field;
    ELF_HEADER_FIELDS(ELF_MEMBER)
#undef ELF_MEMBER
    unsigned phdr_size, shdr_size, sym_size;
} ElfFields;

/* Those of a file whose class is known. */
const ElfFields *os_elf_fields(const OsElf *elf);

/* A number of the file's byte order. */
uint64_t os_elf_number(const OsElf *elf, const void *at, unsigned bytes);

#define ELF_GET(elf, base, field)                                             \
    os_elf_number(elf, (const uint8_t *)(base) + (field).at, (field).bytes)

/* Where in the file an address (without bias) is. */
bool os_elf_offset(const OsElf *elf, uint64_t address, uint64_t *offset);

#endif
