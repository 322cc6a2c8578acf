/*
 * Where modules are loaded without type information, since Linux 6.4: in parts,
 * which struct module has in a row, as whether they may be written or run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer.h"

#define FROM (3 * WORD + 56)
#define MODULE_REACH 2048
#define LEAST_STRIDE (6 * WORD)
#define MOST_STRIDE (16 * WORD)
/* Text, data, data that is not changed (at once, later), three of the start. */
#define PARTS 7
#define DATA 1
#define LARGEST_PART (64 * MiB)
#define PAGE 4096

/* A row of parts: each names the module, behind its place and size. */
typedef struct Row {
    /* The first one's module; from one to the next; from the place to it. */
    int owner, stride, base;
    /* From the module back. */
    int size;
} Row;

static bool has_owners(uint64_t module, const Row *row)
{
    for (int i = 0; i < PARTS; i++) {
        uint64_t owner;

        if (!os_read_word(module + row->owner + i * row->stride, &owner)
            || owner != module) {
            return false;
        }
    }
    return true;
}

/* Whole pages or nothing; the module itself is in its data. */
static bool has_parts(uint64_t module, const Row *row)
{
    uint64_t base;
    uint32_t size;
    bool inside = false, text = false;

    for (int i = 0; i < PARTS; i++) {
        uint64_t owner = module + row->owner + i * row->stride;

        if (!os_read_word(owner - row->base, &base)
            || !os_read_u32(owner - row->size, &size)
            || size % PAGE || size > LARGEST_PART
            || (size && (base % PAGE || !os_is_kernel(base)))) {
            return false;
        }
        inside |= i == DATA && module >= base && module - base < size;
        text |= !i && size;
    }
    return inside && text;
}

static bool is_row(const uint64_t *module, unsigned n, const Row *row,
                   bool (*has)(uint64_t module, const Row *row))
{
    for (unsigned i = 0; i < n; i++) {
        if (!has(module[i], row)) {
            return false;
        }
    }
    return true;
}

/* The place, perhaps whether its pages are shared (6.13), the size, the owner. */
static bool find_parts(const uint64_t *module, unsigned n, Row *row)
{
    for (row->base = 2 * WORD; row->base <= 3 * WORD; row->base += WORD) {
        for (row->size = 4; row->size <= WORD; row->size += 4) {
            if (is_row(module, n, row, has_parts)) {
                return true;
            }
        }
    }
    return false;
}

int os_infer_module_memory(const uint64_t *module, unsigned n)
{
    static const char why[] = "whole pages, in a row of parts that name "
        "their module; the struct module is in the second";

    for (int at = FROM; at < MODULE_REACH; at += WORD) {
        for (int by = LEAST_STRIDE; by <= MOST_STRIDE; by += WORD) {
            Row row = { .owner = at, .stride = by };

            if (is_row(module, n, &row, has_owners)
                && find_parts(module, n, &row)) {
                os_layout_set(OS_MODULE_MEM, at - row.base, OS_INFERRED, why);
                os_layout_set(OS_MODULE_MEM_BASE, 0, OS_INFERRED, why);
                os_layout_set(OS_MODULE_MEM_SIZE, row.base - row.size,
                              OS_INFERRED, why);
                os_layout.module_memory_size = by;
                os_layout.module_memory_count = PARTS;
                return at + PARTS * by;
            }
        }
    }
    return 0;
}
