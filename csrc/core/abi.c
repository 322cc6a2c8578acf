/*
 * Words in the guest's memory, and what else calling conventions share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "arch/abi.h"

/* Byte order of the data that runs now. */
static bool is_big(CPUState *cs)
{
#ifdef TARGET_PPC
    return !(cpu_env(cs)->msr & (1ull << MSR_LE));
#else
    return TARGET_BIG_ENDIAN;
#endif
}

bool panda_abi_read(CPUState *cs, uint64_t address, unsigned size,
                    uint64_t *value)
{
    uint8_t b[8];

    if (cpu_memory_rw_debug(cs, address, b, size, false) != 0) {
        return false;
    }
    *value = is_big(cs) ? ldn_be_p(b, size) : ldn_le_p(b, size);
    return true;
}

bool panda_abi_write(CPUState *cs, uint64_t address, unsigned size,
                     uint64_t value)
{
    uint8_t b[8];

    if (is_big(cs)) {
        stn_be_p(b, size, value);
    } else {
        stn_le_p(b, size, value);
    }
    return panda_virtual_memory_write(&panda_vcpu.pub, address, b, size)
        == PANDA_OK;
}
