/*
 * Kernel modules without type information. Without symbols of data, their list
 * is found by the modules that are in it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer.h"
#include "qemu/cutils.h"

#define MODULE_REACH 2048
/* struct module begins with its state, its list node and its name. */
#define LIST WORD
#define NAME (3 * WORD)
#define LONGEST_NAME 56
#define LARGEST_IMAGE (128 * MiB)

static bool is_name(uint64_t module)
{
    char name[LONGEST_NAME];

    if (!os_read(module + NAME, name, sizeof(name))
        || !memchr(name, 0, sizeof(name)) || !name[0]) {
        return false;
    }
    for (const char *c = name; *c; c++) {
        if (!g_ascii_isalnum(*c) && *c != '_' && *c != '-') {
            return false;
        }
    }
    return true;
}

/*
 * Sizes are whole pages if the kernel protects the parts of modules; if not
 * (MIPS), they are as they are, and vmalloc leaves a page unmapped behind the
 * last one.
 */
static bool is_size(uint64_t base, uint32_t size)
{
    uint64_t behind = ROUND_UP(base + size, os_page_size());
    uint8_t byte;

    return size && (size % 4096 == 0
                    || (os_read(base + size - 1, &byte, 1)
                        && !os_read(behind, &byte, 1)));
}

/*
 * Where a module is loaded: from a page on, with struct module inside. The
 * parts of it that are counted from the start do not shrink.
 */
static bool is_layout(uint64_t module, int at)
{
    uint64_t base;
    uint32_t last = 0, part[4];

    if (!os_read_word(module + at, &base) || base % 4096 || base > module) {
        return false;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(part); i++) {
        if (!os_read_u32(module + at + WORD + 4 * i, &part[i])) {
            return false;
        }
    }
    for (unsigned i = 1; i < ARRAY_SIZE(part); i++) {
        if (part[i] < last || part[i] > part[0]) {
            return false;
        }
        last = part[i];
    }
    return module < base + part[0] && is_size(base, part[0]);
}

/* What a module may have of symbols: a part of itself, tables in its memory. */
static bool is_kallsyms(uint64_t module, int at)
{
    unsigned size = WORD == 8 ? 24 : 16;
    uint64_t there, symtab, strtab;
    uint32_t n, name;
    uint8_t first[25] = {};
    char text[8];

    if (!os_read_word(module + at, &there) || there <= module
        || there > module + MODULE_REACH
        || !os_read_word(there, &symtab) || !os_read_u32(there + WORD, &n)
        || !os_read_word(there + 2 * WORD, &strtab)
        || !os_module_holds(module, symtab)
        || !os_module_holds(module, strtab)
        || n < 2 || n > 1 << 18
        || !os_read(symtab, first, size) || !os_read(strtab, first + size, 1)
        || !buffer_is_zero(first, size + 1)) {
        return false;
    }
    /* The first entry is none; the second has a name. */
    return os_read_u32(symtab + size, &name) && name
        && os_read_string(strtab + name, text, sizeof(text))
        && (uint8_t)text[0] > 32;
}

static void find_kallsyms(const uint64_t *module, unsigned n, int from)
{
    for (int at = from; at < MODULE_REACH; at += WORD) {
        unsigned good = 0;

        for (unsigned i = 0; i < n; i++) {
            good += is_kallsyms(module[i], at);
        }
        if (good == n) {
            static const char why[] = "leads to a part of the module that "
                "leads to two tables in its memory, an empty entry first";

            os_layout_set(OS_MODULE_KALLSYMS, at, OS_INFERRED, why);
            os_layout_set(OS_KALLSYMS_SYMTAB, 0, OS_INFERRED, why);
            os_layout_set(OS_KALLSYMS_NUM, WORD, OS_INFERRED, why);
            os_layout_set(OS_KALLSYMS_STRTAB, 2 * WORD, OS_INFERRED, why);
            return;
        }
    }
}

/* Up to Linux 6.3: in one piece. Where what follows begins; 0: it is not so. */
static int find_layout(const uint64_t *module, unsigned n)
{
    for (int at = NAME + LONGEST_NAME; at < MODULE_REACH; at += WORD) {
        unsigned good = 0;

        for (unsigned i = 0; i < n; i++) {
            good += is_layout(module[i], at);
        }
        if (good == n) {
            os_layout_set(OS_MODULE_CORE_BASE, at, OS_INFERRED,
                          "a page from which on the struct module itself is");
            os_layout_set(OS_MODULE_CORE_SIZE, at + WORD, OS_INFERRED,
                          "whole pages, or nothing is mapped behind the last "
                          "one; no part of it is larger");
            return at + 2 * WORD;
        }
    }
    return 0;
}

bool os_infer_modules(uint64_t head)
{
    uint64_t at, module[OS_ROWS];
    unsigned n = 0;
    int next;

    for (at = head; n < OS_ROWS; n++) {
        uint64_t node, back;

        if (!os_read_word(at, &node) || !os_is_kernel(node)
            || !os_read_word(node + WORD, &back) || back != at) {
            return false;
        }
        if (node == head) {
            break;
        }
        module[n] = node - LIST;
        if (!is_name(module[n])) {
            return false;
        }
        at = node;
    }
    if (!n) {
        return false;
    }
    os_layout_set(OS_MODULE_LIST, LIST, OS_INFERRED,
                  "a list that leads back; all in it have names");
    os_layout_set(OS_MODULE_NAME, NAME, OS_INFERRED,
                  "behind the list; as names of modules are");
    next = find_layout(module, n) ?: os_infer_module_memory(module, n);
    if (next) {
        find_kallsyms(module, n, next);
    }
    return true;
}

/* ---- where the list is, if no symbol says it ---- */

#define ALIGNMENT 32
#define MAX_RING 4096

/*
 * The list that a node is in has one that is in no module: its head, which is
 * in the kernel's own image. 0: it is another list.
 */
static uint64_t find_head(uint64_t node)
{
    uint64_t at = node, head = 0, image;

    for (unsigned i = 0; i < MAX_RING; i++) {
        uint64_t next, back;

        if (!os_read_word(at, &next) || !os_is_kernel(next)
            || !os_read_word(next + WORD, &back) || back != at) {
            return 0;
        }
        if (!is_name(next - LIST)) {
            if (head) {
                return 0;
            }
            head = next;
        }
        at = next;
        if (at == node) {
            break;
        }
    }
    if (at != node || !os_symbol("_stext", &image)) {
        return 0;
    }
    return head > image && head - image < LARGEST_IMAGE ? head : 0;
}

/* Does a struct module begin here? Its neighbours say its virtual address. */
static uint64_t node_at(const OsSegment *s, uint64_t offset)
{
    const uint8_t *at = s->host + offset;
    uint64_t next, node;
    char first = at[NAME];

    if (os_u32_at(at) || !(g_ascii_isalnum(first) || first == '_')
        || !memchr(at + NAME, 0, LONGEST_NAME)) {
        return 0;
    }
    next = os_word_at(at + LIST);
    if (!os_is_kernel(next) || next % WORD
        || !os_is_kernel(os_word_at(at + LIST + WORD))
        || !os_read_word(next + WORD, &node) || !os_is_kernel(node)
        || os_kernel_to_physical(node) != s->pa + offset + LIST) {
        return 0;
    }
    return node;
}

bool os_find_modules(uint64_t *head)
{
    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        const OsSegment *s = &os_memory.segment[i];

        for (uint64_t at = 0; at + 256 <= s->size; at += ALIGNMENT) {
            uint64_t node = node_at(s, at);

            if (node && is_name(node - LIST)) {
                *head = find_head(node);
                if (*head) {
                    return true;
                }
            }
        }
    }
    return false;
}
