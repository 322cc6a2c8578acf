/*
 * How long the guest runs: its kernel's own clock, as of the last tick.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "panda/os_kernel.h"

#define NANOSECOND 1000000000ull
/* The clock is behind the number that says whether it is being changed. */
#define LARGEST_SEQUENCE 64

/*
 * Time since the boot: that of the wall, corrected by what says where the
 * monotonic clock was at 0, plus the time it was suspended for.
 */
static bool read_clock(uint64_t tk, uint64_t *ns)
{
    uint64_t seconds, fraction, back_seconds, back_ns, suspended, known;
    uint64_t where = tk + os_offset(OS_TK_TO_MONOTONIC);
    uint32_t shift;

    if (!os_get_u64(tk, OS_TK_SECONDS, &seconds)
        || !os_get_u64(tk, OS_TK_FRACTION, &fraction)
        || !os_get_u32(tk, OS_TK_SHIFT, &shift)
        || !os_read_u64(where, &back_seconds)
        || !os_read_word(where + 8, &back_ns)
        || !os_get_u64(tk, OS_TK_OFFS_BOOT, &suspended)
        || !os_get_word(tk, OS_TK_KTIME_SEC, &known)
        || !shift || shift > 32 || back_ns >= NANOSECOND
        || fraction >> shift >= 2 * NANOSECOND) {
        return false;
    }
    *ns = (seconds + back_seconds) * NANOSECOND + (fraction >> shift)
        + back_ns;
    /* The kernel has the monotonic clock's seconds once more. */
    seconds = *ns / NANOSECOND;
    *ns += suspended;
    return seconds < 1ull << 33 && (seconds == known || seconds == known + 1);
}

static bool find_clock(uint64_t *ns)
{
    uint64_t core;

    /* Its name since 6.18: there is one for each of several clocks. */
    if (!os_knows(OS_TK_SECONDS)
        || !(os_symbol("tk_core", &core)
             || os_symbol("timekeeper_data", &core))) {
        return false;
    }
    for (unsigned at = 8; at <= LARGEST_SEQUENCE; at += 8) {
        if (read_clock(core + at, ns)) {
            return true;
        }
    }
    return false;
}

int panda_os_uptime(uint64_t *ns)
{
    OS_LOCK_GUARD();
    int status = os_require();

    *ns = 0;
    if (status != PANDA_OK) {
        return status;
    }
    return find_clock(ns) ? PANDA_OK
        : panda_fail(PANDA_ERR_OS, "where this kernel has its clock is not "
                     "known: it has no symbols of data (KALLSYMS_ALL) or no "
                     "type information (BTF)");
}
