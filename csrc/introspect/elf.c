/*
 * ELF files of a guest's programs: where they are and what they consist of.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "introspect/elf.h"
#include "introspect/elf_layout.h"
#include "introspect/page_cache.h"

#define SMALLEST_PAGE 4096ull

static const uint8_t *in_cache(const OsElf *elf, uint64_t offset)
{
    uint64_t size = os_page_size(), pa;

    if (!elf->cache) {
        return NULL;
    }
    pa = os_cached_page(elf->cache, offset / size);
    return pa == OS_NOWHERE ? NULL : os_ram(pa + offset % size, 1);
}

/* Writable parts may have been changed: they come last. */
static const uint8_t *in_process(const OsElf *elf, uint64_t offset,
                                 bool writable)
{
    for (unsigned i = 0; i < elf->n_windows; i++) {
        const OsWindow *w = &elf->window[i];
        uint64_t pa;

        if (w->writable != writable || offset < w->offset
            || offset - w->offset >= w->end - w->start) {
            continue;
        }
        pa = os_user_to_physical(elf->pgd, w->start + (offset - w->offset));
        if (pa != OS_NOWHERE && os_ram(pa, 1)) {
            return os_ram(pa, 1);
        }
    }
    return NULL;
}

void os_elf_read(OsElf *elf, uint64_t offset, void *buf, uint64_t len)
{
    uint8_t *to = buf;

    while (len) {
        uint64_t run = MIN(len, SMALLEST_PAGE - offset % SMALLEST_PAGE);
        const uint8_t *from = in_process(elf, offset, false);

        from = from ?: in_cache(elf, offset);
        if (!from && elf->copy
            && offset + run <= g_mapped_file_get_length(elf->copy)) {
            from = (uint8_t *)g_mapped_file_get_contents(elf->copy) + offset;
        }
        from = from ?: in_process(elf, offset, true);
        if (from) {
            memcpy(to, from, run);
        } else {
            memset(to, 0, run);
            elf->gaps++;
        }
        offset += run;
        to += run;
        len -= run;
    }
}

uint64_t os_elf_number(const OsElf *elf, const void *at, unsigned bytes)
{
    switch (bytes) {
    case 1:
        return ldub_p(at);
    case 2:
        return elf->big_endian ? lduw_be_p(at) : lduw_le_p(at);
    case 4:
        return elf->big_endian ? (uint32_t)ldl_be_p(at)
                               : (uint32_t)ldl_le_p(at);
    default:
        return elf->big_endian ? ldq_be_p(at) : ldq_le_p(at);
    }
}

/* Where in the process a part of the file is. */
bool os_elf_find_bias(OsElf *elf)
{
    for (unsigned i = 0; i < elf->n_segments; i++) {
        const OsSegmentOfElf *s = &elf->segment[i];
        uint64_t first = s->offset & -os_page_size();

        for (unsigned j = 0; j < elf->n_windows; j++) {
            const OsWindow *w = &elf->window[j];

            if (w->offset == first) {
                elf->bias = w->start - (s->address - (s->offset - first));
                return true;
            }
        }
    }
    return false;
}

static void take_segment(OsElf *elf, const uint8_t *header)
{
    const ElfFields *f = os_elf_fields(elf);
    uint32_t kind = ELF_GET(elf, header, f->p_type);

    if (kind == PT_LOAD && elf->n_segments < OS_ELF_SEGMENTS) {
        elf->segment[elf->n_segments++] = (OsSegmentOfElf) {
            .address = ELF_GET(elf, header, f->p_vaddr),
            .offset = ELF_GET(elf, header, f->p_offset),
            .in_file = ELF_GET(elf, header, f->p_filesz),
        };
        elf->end = MAX(elf->end, ELF_GET(elf, header, f->p_vaddr)
                       + ELF_GET(elf, header, f->p_memsz));
    } else if (kind == PT_DYNAMIC) {
        elf->dynamic = ELF_GET(elf, header, f->p_vaddr);
        elf->dynamic_size = ELF_GET(elf, header, f->p_filesz);
    }
}

bool os_elf_open(OsElf *elf)
{
    uint8_t header[64], segment[56];
    const ElfFields *f;
    uint64_t at, size, n;

    os_elf_read(elf, 0, header, sizeof(header));
    if (memcmp(header, ELFMAG, SELFMAG)
        || (header[EI_CLASS] != ELFCLASS32 && header[EI_CLASS] != ELFCLASS64)
        || (header[EI_DATA] != ELFDATA2LSB
            && header[EI_DATA] != ELFDATA2MSB)) {
        return false;
    }
    elf->word = header[EI_CLASS] == ELFCLASS64 ? 8 : 4;
    elf->big_endian = header[EI_DATA] == ELFDATA2MSB;
    f = os_elf_fields(elf);
    elf->machine = ELF_GET(elf, header, f->e_machine);
    elf->flags = ELF_GET(elf, header, f->e_flags);
    elf->sections = ELF_GET(elf, header, f->e_shoff);
    elf->section_size = ELF_GET(elf, header, f->e_shentsize);
    elf->section_count = ELF_GET(elf, header, f->e_shnum);
    at = ELF_GET(elf, header, f->e_phoff);
    size = ELF_GET(elf, header, f->e_phentsize);
    n = ELF_GET(elf, header, f->e_phnum);
    if (size != f->phdr_size || n > 128) {
        return false;
    }
    for (uint64_t i = 0; i < n; i++) {
        os_elf_read(elf, at + i * size, segment, size);
        take_segment(elf, segment);
    }
    return elf->n_segments && os_elf_find_bias(elf);
}

bool os_elf_offset(const OsElf *elf, uint64_t address, uint64_t *offset)
{
    for (unsigned i = 0; i < elf->n_segments; i++) {
        const OsSegmentOfElf *s = &elf->segment[i];

        if (address >= s->address && address - s->address < s->in_file) {
            *offset = s->offset + (address - s->address);
            return true;
        }
    }
    return false;
}

/* ---- the two layouts ---- */

#define ELF_PLACE(bits, structure, field)                                     \
    .field = { offsetof(Elf##bits##_##structure, field),                      \
               sizeof(((Elf##bits##_##structure *)0)->field) },
#define ELF_PLACE_32(structure, field) ELF_PLACE(32, structure, field)
#define ELF_PLACE_64(structure, field) ELF_PLACE(64, structure, field)

const ElfFields *os_elf_fields(const OsElf *elf)
{
    static const ElfFields small = {
        ELF_HEADER_FIELDS(ELF_PLACE_32)
        .phdr_size = sizeof(Elf32_Phdr),
        .shdr_size = sizeof(Elf32_Shdr),
        .sym_size = sizeof(Elf32_Sym),
    };
    static const ElfFields large = {
        ELF_HEADER_FIELDS(ELF_PLACE_64)
        .phdr_size = sizeof(Elf64_Phdr),
        .shdr_size = sizeof(Elf64_Shdr),
        .sym_size = sizeof(Elf64_Sym),
    };

    return elf->word == 8 ? &large : &small;
}
