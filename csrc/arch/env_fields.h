/*
 * Registers that are plain fields of the register state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_ARCH_ENV_FIELDS_H
#define PANDA_ARCH_ENV_FIELDS_H

#include "core/internal.h"
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

#define PLAIN(name, field)                                                    \
    { name, sizeof_field(CPUArchState, field), false, read_field,             \
      write_field, FIELD_INDEX(field) }

#endif
