/*
 * What streams need of the memory events.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_MEMORY_EVENTS_H
#define PANDA_CORE_MEMORY_EVENTS_H

#include "core/internal.h"
#include "exec/memopidx.h"
#include "tcg/tcg.h"

/*
 * Address of the access that is being made: where QEMU has the values of
 * accesses for its plugins, of which there are none. Generated code reaches it
 * at less cost than a variable.
 */
#define PANDA_ACCESS_ADDR(cs) ((cs)->neg.plugin_mem_value_high)
#define PANDA_ACCESS_ADDR_OFFSET                                              \
    (offsetof(CPUState, neg.plugin_mem_value_high) - sizeof(CPUState))

/* An access whose code is being emitted. */
typedef struct PandaEmittedAccess {
    uint64_t pc;
    MemOpIdx oi;
    bool store;
    bool kernel;
    TCGv_i64 lo, hi;
} PandaEmittedAccess;

/* How an access is made. */
#define PANDA_ACCESS_STORE 1u
#define PANDA_ACCESS_KERNEL 2u

/*
 * An access as events have it: one of at most 8 bytes, or two of 8, in the
 * order of their addresses.
 */
typedef struct PandaAccessParts {
    unsigned n, size;
    uint64_t value[2];
} PandaAccessParts;

/* Is it two? */
static inline bool panda_access_is_parted(MemOpIdx oi)
{
    return memop_size(get_memop(oi)) == 16;
}

static inline PandaAccessParts panda_access_parts(MemOpIdx oi, uint64_t lo,
                                                  uint64_t hi)
{
    MemOp op = get_memop(oi);
    unsigned size = memop_size(op);

    if (panda_access_is_parted(oi)) {
        bool big = (op & MO_BSWAP) == MO_BE;

        return (PandaAccessParts) {
            2, 8, { big ? hi : lo, big ? lo : hi },
        };
    }
    return (PandaAccessParts) { 1, size, { lo } };
}

/* At run time: the address of the access that is being made. */
uint64_t panda_access_address(void);

#endif
