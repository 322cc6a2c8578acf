/*
 * Registers that are plain fields of the register state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_ARCH_ENV_FIELDS_H
#define PANDA_ARCH_ENV_FIELDS_H

#include "core/internal.h"
#include "exec/cputlb.h"
#include "qemu/bswap.h"

/* Where the field is in env, and its size in the low four bits. */
#define FIELD_INDEX(field)                                                    \
    ((offsetof(CPUArchState, field) << 4) | sizeof_field(CPUArchState, field))

static inline void read_field(CPUState *cs, unsigned index, uint8_t *buf)
{
    const uint8_t *field = (uint8_t *)cpu_env(cs) + (index >> 4);

    stn_le_p(buf, index & 15, ldn_he_p(field, index & 15));
}

static inline void write_field(CPUState *cs, unsigned index,
                               const uint8_t *buf)
{
    uint8_t *field = (uint8_t *)cpu_env(cs) + (index >> 4);

    stn_he_p(field, index & 15, ldn_le_p(buf, index & 15));
}

/* A field that decides what addresses mean. */
static inline void write_mmu_field(CPUState *cs, unsigned index,
                                   const uint8_t *buf)
{
    write_field(cs, index, buf);
    tlb_flush(cs);
}

#define PLAIN(name, field)                                                    \
    { name, sizeof_field(CPUArchState, field), false, read_field,             \
      write_field, FIELD_INDEX(field) }

#define MMU(name, field)                                                      \
    { name, sizeof_field(CPUArchState, field), true, read_field,              \
      write_mmu_field, FIELD_INDEX(field) }

/* The entries of 32 registers; ENTRY is a macro of the number. */
#define EIGHT(ENTRY, a, b, c, d, e, f, g, h)                                  \
    ENTRY(a), ENTRY(b), ENTRY(c), ENTRY(d), ENTRY(e), ENTRY(f), ENTRY(g),     \
        ENTRY(h)
#define THIRTY_TWO(ENTRY)                                                     \
    EIGHT(ENTRY, 0, 1, 2, 3, 4, 5, 6, 7),                                     \
    EIGHT(ENTRY, 8, 9, 10, 11, 12, 13, 14, 15),                               \
    EIGHT(ENTRY, 16, 17, 18, 19, 20, 21, 22, 23),                             \
    EIGHT(ENTRY, 24, 25, 26, 27, 28, 29, 30, 31)

#endif
