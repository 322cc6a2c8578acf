/*
 * How long the guest runs: its kernel's own clock, as of the last tick.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "qemu/cutils.h"
#include "qemu/timer.h"
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

/* ---- without symbols of data: the page that programs read the time from ---- */

#define PAGE 4096u
/*
 * Where the page's data may begin: x86 keeps something else in front, PowerPC
 * what it knows of the caches, and a bit for each system call.
 */
#ifdef TARGET_PPC
#define FRONT_STEP 8u
#define FRONT_MAX 256u
#else
#define FRONT_STEP 128u
#define FRONT_MAX 128u
#endif
/* Of a clock: a count, a mode, its state, twelve times; and of two of them. */
#define CLOCK_SIZE 224u
#define DATA_SIZE (2 * CLOCK_SIZE)
#define TIMES 12
/* The numbers of clocks; of those in `never` the page has nothing. */
enum {
    MONOTONIC = 1, MONOTONIC_RAW = 4, REALTIME_COARSE, MONOTONIC_COARSE,
    BOOTTIME,
};
static const uint8_t never[] = { 2, 3, 8, 9, 10 };
/* How much later than the last tick a process may have begun. */
#define TICK_NS (20 * SCALE_MS)

static uint64_t found_data;

static uint64_t u64_at(const uint8_t *at)
{
    return os_memory.big_endian ? ldq_be_p(at) : ldq_le_p(at);
}

static const uint8_t *stamp(const uint8_t *data, unsigned clock)
{
    return data + 32 + 16 * clock;
}

static bool is_stamp(const uint8_t *at)
{
    return u64_at(at) < 1ull << 33 && u64_at(at + 8) < NANOSECOND;
}

/* Up to 6.12: behind the clock, the clocks' resolution, 1 or a tick. */
static bool has_resolution(const uint8_t *data)
{
    uint32_t resolution = os_u32_at(data + CLOCK_SIZE + 8);

    return resolution == 1
        || (resolution >= 1000000 && resolution <= 10000000);
}

/* Since then: another clock, of the same count and mode, with one time only. */
static bool has_raw_clock(const uint8_t *data)
{
    const uint8_t *raw = data + CLOCK_SIZE;

    for (unsigned i = 0; i < TIMES; i++) {
        if (i != MONOTONIC_RAW && !buffer_is_zero(stamp(raw, i), 16)) {
            return false;
        }
    }
    return !memcmp(data, raw, 8) && u64_at(stamp(raw, MONOTONIC_RAW))
        <= u64_at(stamp(data, MONOTONIC_COARSE)) + 1;
}

/*
 * struct vdso_data, since 5.3: a count, a mode, a clock's state, twelve times
 * of which five are never set, and what is behind it.
 */
static bool is_data(const uint8_t *data)
{
    const uint8_t *coarse = stamp(data, MONOTONIC_COARSE);

    if (os_u32_at(data + 4) > 3 || !u64_at(coarse) || !is_stamp(coarse)
        || !is_stamp(stamp(data, REALTIME_COARSE))
        || u64_at(stamp(data, REALTIME_COARSE)) < u64_at(coarse)
        || !(has_resolution(data) || has_raw_clock(data))) {
        return false;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(never); i++) {
        if (!buffer_is_zero(stamp(data, never[i]), 16)) {
            return false;
        }
    }
    return true;
}

static uint64_t time_of(const uint8_t *data)
{
    const uint8_t *coarse = stamp(data, MONOTONIC_COARSE);
    const uint8_t *boot = stamp(data, BOOTTIME);
    const uint8_t *monotonic = stamp(data, MONOTONIC);
    uint64_t ns = u64_at(coarse) * NANOSECOND + u64_at(coarse + 8);
    uint32_t shift = os_u32_at(data + 28);

    /* What it was suspended for, where programs read these clocks too. */
    if (os_u32_at(data + 4) && shift <= 32) {
        ns += (u64_at(boot) - u64_at(monotonic)) * NANOSECOND
            + (u64_at(boot + 8) >> shift) - (u64_at(monotonic + 8) >> shift);
    }
    return ns;
}

static bool see_start(uint64_t task, void *opaque)
{
    uint64_t *last = opaque, began;

    if (os_get_u64(task, OS_TASK_START_TIME, &began)) {
        *last = MAX(*last, began);
    }
    return true;
}

/* The second rule: no process began later. */
static bool is_after_all(uint64_t ns)
{
    uint64_t last = 0;

    return os_knows(OS_TASK_START_TIME)
        && os_for_each_process(see_start, &last) && last
        && ns + TICK_NS >= last;
}

static bool find_page(uint64_t *ns)
{
    const uint8_t *data = found_data ? os_ram(found_data, DATA_SIZE) : NULL;

    if (data && is_data(data)) {
        *ns = time_of(data);
        return true;
    }
    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        const OsSegment *s = &os_memory.segment[i];

        for (uint64_t at = 0; at + PAGE <= s->size; at += FRONT_STEP) {
            if (at % PAGE > FRONT_MAX) {
                at = ROUND_UP(at, PAGE) - FRONT_STEP;
                continue;
            }
            if (is_data(s->host + at)
                && is_after_all(time_of(s->host + at))) {
                found_data = s->pa + at;
                *ns = time_of(s->host + at);
                return true;
            }
        }
    }
    found_data = 0;
    return false;
}

void os_forget_clock(void)
{
    found_data = 0;
}

int panda_os_uptime(uint64_t *ns)
{
    OS_LOCK_GUARD();
    int status = os_require();

    *ns = 0;
    if (status != PANDA_OK) {
        return status;
    }
    return find_clock(ns) || find_page(ns) ? PANDA_OK
        : panda_fail(PANDA_ERR_OS, "where this kernel has its clock is not "
                     "known: it has no symbols of data (KALLSYMS_ALL) or no "
                     "type information (BTF), and no page from which programs "
                     "read the time was found");
}
