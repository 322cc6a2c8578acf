/*
 * The page cache: a tree of struct page, found by the page's number.
 *
 * Which struct page stands for which page of RAM is what VMCOREINFO tells crash
 * dumps. The tree's nodes are the same in all kernels since Linux 4.20.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "introspect/page_cache.h"

#define WORD os_memory.word
#define DEEPEST 12
#define SLOT_BITS 6
#define SLOTS (1u << SLOT_BITS)
/* A folio's pages lie one after the other; none is larger. */
#define MOST_IN_FOLIO 4096
/* Flags in the lower bits of the address that a section has. */
#define SECTION_FLAGS 63ull
#define SECTION_HAS_MAP 2

/* ---- struct page and RAM ---- */

static unsigned page_bits(void)
{
    return ctz64(os_page_size());
}

/* A section of RAM has some pages at least, and there are not very many. */
static bool section_bits(uint64_t *bits)
{
    return os_vmcoreinfo_number("NUMBER(SECTION_SIZE_BITS)", bits)
        && *bits >= 20 && *bits > page_bits() && *bits <= 40;
}

/* Where struct pages would begin if the section of a page had them all. */
static bool section_map(uint64_t pfn, uint64_t *map)
{
    uint64_t sections, size, bits, word, section, per_root;

    if (!os_vmcoreinfo_hex("SYMBOL(mem_section)", &sections)
        || !os_vmcoreinfo_number("SIZE(mem_section)", &size) || !size
        || size > os_page_size()
        || !section_bits(&bits)
        || !os_read_word(sections, &word)) {
        return false;
    }
    section = pfn >> (bits - page_bits());
    /* Pages of sections, or the sections themselves. */
    if (!(word & SECTION_FLAGS)) {
        per_root = os_page_size() / size;
        if (!os_read_word(sections + section / per_root * WORD, &word)
            || !os_is_kernel(word)) {
            return false;
        }
        sections = word;
        section %= per_root;
    }
    if (!os_read_word(sections + section * size, &word)
        || !(word & SECTION_HAS_MAP)) {
        return false;
    }
    *map = word & ~SECTION_FLAGS;
    return true;
}

static bool flat_map(uint64_t *map)
{
    uint64_t symbol, first = OS_NOWHERE, size;

    if (!os_vmcoreinfo_hex("SYMBOL(mem_map)", &symbol)
        || !os_read_word(symbol, map) || !os_is_kernel(*map)
        || !os_vmcoreinfo_number("SIZE(page)", &size)) {
        return false;
    }
    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        first = MIN(first, os_memory.segment[i].pa);
    }
    *map -= (first >> page_bits()) * size;
    return true;
}

static bool page_of(uint64_t pfn, uint64_t *page)
{
    uint64_t map, size;

    if (!os_vmcoreinfo_number("SIZE(page)", &size)
        || (!flat_map(&map) && !section_map(pfn, &map))) {
        return false;
    }
    *page = map + pfn * size;
    return true;
}

/* The other way round: each run of RAM, each section may have its own map. */
static bool pfn_of(uint64_t page, uint64_t *pfn)
{
    uint64_t map, size, bits, check;

    if (!os_vmcoreinfo_number("SIZE(page)", &size) || !size) {
        return false;
    }
    if (flat_map(&map)) {
        *pfn = (page - map) / size;
        return !((page - map) % size);
    }
    if (!section_bits(&bits)) {
        return false;
    }
    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        const OsSegment *s = &os_memory.segment[i];

        for (uint64_t pa = s->pa; pa < s->pa + s->size; pa += 1ull << bits) {
            if (!section_map(pa >> page_bits(), &map)) {
                continue;
            }
            *pfn = (page - map) / size;
            if (!((page - map) % size) && page_of(*pfn, &check)
                && check == page && os_ram(*pfn << page_bits(), 1)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- the tree ---- */

static bool is_internal(uint64_t entry)
{
    return (entry & 3) == 2;
}

static bool is_node(uint64_t entry)
{
    return is_internal(entry) && entry > 4096;
}

static uint64_t node_slots(void)
{
    /* Four bytes, parent, tree, a list of two. */
    return WORD == 8 ? 40 : 20;
}

/* The struct page that a tree has for a number; 0: none. */
static uint64_t look_up(uint64_t head, uint64_t number)
{
    uint64_t entry = head;
    unsigned above = 64;

    for (unsigned depth = 0; is_node(entry) && depth < DEEPEST; depth++) {
        uint64_t node = entry - 2, slot;
        uint8_t shift;

        if (!os_read(node, &shift, 1) || shift >= above
            || shift % SLOT_BITS || number >> shift >> SLOT_BITS) {
            return 0;
        }
        slot = number >> shift & (SLOTS - 1);
        number &= (1ull << shift) - 1;
        above = shift;
        if (!os_read_word(node + node_slots() + slot * WORD, &entry)) {
            return 0;
        }
        /* One page of many: the slot of the first one has it. */
        if (is_internal(entry) && entry >> 2 < SLOTS
            && !os_read_word(node + node_slots() + (entry >> 2) * WORD,
                             &entry)) {
            return 0;
        }
        if (!shift) {
            break;
        }
    }
    return entry & 3 || !os_is_kernel(entry) ? 0 : entry;
}

/*
 * The page of a number in a cache, given its tree: what it says of itself must
 * agree, so no wrong layout gets through.
 */
static uint64_t page_in(uint64_t cache, uint64_t head, uint64_t number)
{
    uint64_t page = look_up(head, number), mapping, first, value, size, pfn;

    if (!page || !os_vmcoreinfo_number("OFFSET(page.mapping)", &mapping)
        || !os_vmcoreinfo_number("SIZE(page)", &size)
        || !os_read_word(page + mapping, &value) || value != cache
        || !os_read_word(page + mapping + WORD, &first)
        || first > number || number - first >= MOST_IN_FOLIO
        || !pfn_of(page + (number - first) * size, &pfn)) {
        return OS_NOWHERE;
    }
    return pfn << page_bits();
}

/* Where a cache has its tree, if the kernel's types do not say it. */
static bool find_tree(uint64_t cache, const OsFilePage *mapped,
                      uint64_t *offset)
{
    /* Behind the inode and a lock that may take no room. */
    for (*offset = WORD == 8 ? 16 : 8; *offset <= 32; *offset += WORD) {
        uint64_t head;

        if (os_read_word(cache + *offset, &head)
            && page_in(cache, head, mapped->number) == mapped->pa) {
            return true;
        }
    }
    return false;
}

/* ---- */

uint64_t os_cached_page(uint64_t cache, uint64_t number)
{
    uint64_t head;

    return os_get_word(cache, OS_CACHE_TREE, &head)
        ? page_in(cache, head, number) : OS_NOWHERE;
}

/* The cache that a page of RAM belongs to. */
static uint64_t cache_of_page(uint64_t pa)
{
    uint64_t page, mapping, head, cache;

    if (!os_vmcoreinfo_number("OFFSET(page.mapping)", &mapping)
        || !page_of(pa >> page_bits(), &page)) {
        return 0;
    }
    /* One of many: the first one has it. */
    if (os_vmcoreinfo_number("OFFSET(page.compound_head)", &head)
        && os_read_word(page + head, &head) && head & 1) {
        page = head - 1;
    }
    return os_read_word(page + mapping, &cache) && !(cache & 3)
        && os_is_kernel(cache) ? cache : 0;
}

uint64_t os_cache_of(uint64_t file, const OsFilePage *mapped)
{
    uint64_t cache, offset;

    if (os_knows(OS_CACHE_TREE) && os_get_word(file, OS_FILE_CACHE, &cache)
        && os_is_kernel(cache)) {
        return cache;
    }
    if (!mapped) {
        return 0;
    }
    cache = cache_of_page(mapped->pa);
    if (!cache) {
        return 0;
    }
    if (!os_knows(OS_CACHE_TREE)) {
        if (!find_tree(cache, mapped, &offset)) {
            return 0;
        }
        os_layout_set(OS_CACHE_TREE, offset, OS_INFERRED,
                      "a page that is mapped is found in the tree by its "
                      "number, and says that it belongs to it");
    }
    return cache;
}
