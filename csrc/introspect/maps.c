/*
 * What a process has mapped: a list of areas, since Linux 6.1 a tree.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"

#define DEEPEST 16
#define NODE_MASK 0xffull
/* Kinds of nodes of a maple tree. */
#define MAPLE_LEAF 1
#define MAPLE_ARANGE 3
#define IS_NODE(entry) (((entry) & 3) == 2 && (entry) > 4096)

typedef struct Walk {
    bool (*visit)(uint64_t vma, void *opaque);
    void *opaque;
    unsigned visited;
    bool stop;
    bool broken;
} Walk;

static void see(Walk *w, uint64_t vma)
{
    if (++w->visited > OS_MAX_MAPPINGS || !os_is_kernel(vma)) {
        w->stop = w->broken = true;
    } else {
        w->stop = !w->visit(vma, w->opaque);
    }
}

/*
 * A node has pivots, the last index of each of its slots but the last, and the
 * slots. Two shapes: plain, and with gaps.
 */
static void walk_node(Walk *w, uint64_t entry, uint64_t low, uint64_t high,
                      unsigned depth)
{
    unsigned word = os_memory.word;
    unsigned kind = (entry >> 3) & 15;
    bool arange = kind == MAPLE_ARANGE;
    unsigned n = word == 8 ? (arange ? 10 : 16) : (arange ? 21 : 32);
    unsigned slots = word == 8 ? (arange ? 80 : 128) : (arange ? 84 : 128);
    uint64_t node = entry & ~NODE_MASK;

    /* Nodes count too: hostile ones could branch without an end. */
    if (depth > DEEPEST || kind < MAPLE_LEAF || kind > MAPLE_ARANGE
        || ++w->visited > OS_MAX_MAPPINGS) {
        w->stop = w->broken = true;
        return;
    }
    for (unsigned i = 0; i < n && !w->stop; i++) {
        uint64_t last = high, slot;

        if (i < n - 1) {
            if (!os_read_word(node + word * (i + 1), &last)) {
                w->stop = w->broken = true;
                return;
            }
            if (!last && i) {
                last = high;
            }
        }
        if (last < low || last > high
            || !os_read_word(node + slots + word * i, &slot)) {
            w->stop = w->broken = true;
            return;
        }
        if (slot && kind > MAPLE_LEAF) {
            walk_node(w, slot, low, last, depth + 1);
        } else if (slot) {
            see(w, slot);
        }
        if (last >= high) {
            return;
        }
        low = last + 1;
    }
}

bool os_for_each_mapping(uint64_t mm, bool (*visit)(uint64_t vma, void *),
                         void *opaque)
{
    Walk w = { .visit = visit, .opaque = opaque };
    uint64_t at;

    if (!os_get_word(mm, os_layout.maple ? OS_MM_ROOT : OS_MM_MMAP, &at)) {
        return false;
    }
    if (os_layout.maple && IS_NODE(at)) {
        walk_node(&w, at, 0, os_memory.word == 8 ? UINT64_MAX : UINT32_MAX,
                  0);
    } else if (os_layout.maple) {
        if (at) {
            see(&w, at);
        }
    } else {
        while (at && !w.stop) {
            see(&w, at);
            if (!w.stop && !os_get_word(at, OS_VMA_NEXT, &at)) {
                return false;
            }
        }
    }
    return !w.broken;
}
