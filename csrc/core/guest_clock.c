/*
 * The guest's clock stands still while callbacks run.
 *
 * QEMU's virtual clock is the host's. Under heavy instrumentation a timer
 * tick would come after a handful of guest instructions, and its handler is
 * instrumented as well: the guest would do little else. So the time events
 * take is taken out of the virtual clock and of the cycle counter.
 *
 * With -icount the clock counts instructions and none of this is used, but
 * for the last part.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/guest_clock.h"
#include "qemu/seqlock.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "migration/savevm.h"
#include "system/accel-ops.h"
#include "system/cpu-timers.h"
#include "system/cpu-timers-internal.h"

/*
 * A callback that takes longer than this waits for something: a person, a
 * network. Timers of the guest run on meanwhile, as the main loop would poll
 * them without end if they were due in a moment that never comes.
 */
#define LONGEST_PAUSE_NS (50 * SCALE_MS)

/* In ticks of the host's cycle counter; written by the CPU thread. */
int64_t panda_event_began;
bool panda_guest_clock_is_held;
static int64_t in_events;

static QemuSpin lock;
/* As of the last look: the clock, the counter, the time in events. */
static int64_t last_ns, last_ticks, last_in_events;
/* What is taken out, of each. */
static int64_t taken_ns, taken_ticks;
static int64_t shown_ticks;
/* LONGEST_PAUSE_NS, measured in ticks; a fair guess to begin with. */
static int64_t longest_pause = 3 * LONGEST_PAUSE_NS;
static int64_t first_ns, first_ticks;

static int64_t time_since(int64_t began, int64_t now)
{
    if (!qatomic_read(&panda_guest_clock_is_held)) {
        now = MIN(now, began + qatomic_read(&longest_pause));
    }
    return MAX(0, now - began);
}

void panda_event_took_until(int64_t now)
{
    int64_t began = panda_event_began;

    /*
     * A reader looks at the sum first: it may miss the event for a moment,
     * but never counts it twice.
     */
    qatomic_store_release(&panda_event_began, 0);
    qatomic_store_release(&in_events, in_events + time_since(began, now));
}

/* Called with the lock held. */
static void start_over(void)
{
    /* The sum first: see panda_event_took_until(). */
    int64_t total = qatomic_load_acquire(&in_events);
    int64_t began = qatomic_read(&panda_event_began);

    last_ns = cpu_get_clock();
    last_ticks = cpu_get_host_ticks();
    last_in_events = total + (began ? time_since(began, last_ticks) : 0);
}

/*
 * Take out what events took since the last look; the lock is held. At most
 * the time that went by, so neither clock ever goes back.
 */
static int64_t catch_up(void)
{
    int64_t total = qatomic_load_acquire(&in_events);
    int64_t began = qatomic_read(&panda_event_began);
    int64_t ns = cpu_get_clock();
    int64_t ticks = cpu_get_host_ticks();
    int64_t d_ns = ns - last_ns, d_ticks = ticks - last_ticks, d_events;

    total += began ? time_since(began, ticks) : 0;
    d_events = MIN(total - last_in_events, d_ticks);
    if (!timers_state.cpu_ticks_enabled) {
        /* A snapshot that is loaded may set the clock to anything. */
        start_over();
    } else if (d_ns > 0 && d_ticks > 0) {
        if (d_events > 0) {
            taken_ticks += d_events;
            taken_ns += (double)d_ns * d_events / d_ticks;
        }
        last_ns = ns;
        last_ticks = ticks;
        last_in_events = MAX(total, last_in_events);
        if (ns - first_ns > LONGEST_PAUSE_NS) {
            qatomic_set(&longest_pause, (double)(ticks - first_ticks)
                        * LONGEST_PAUSE_NS / (ns - first_ns));
        }
    }
    return ns;
}

static int64_t virtual_clock(void)
{
    int64_t ns;

    qemu_spin_lock(&lock);
    ns = catch_up() - taken_ns;
    qemu_spin_unlock(&lock);
    return ns;
}

static int64_t elapsed_ticks(void)
{
    int64_t ticks;

    qemu_spin_lock(&lock);
    catch_up();
    ticks = MAX(shown_ticks, cpu_get_ticks() - taken_ticks);
    shown_ticks = ticks;
    qemu_spin_unlock(&lock);
    return ticks;
}

void __real_cpus_register_accel(const AccelOpsClass *ops);
void __wrap_cpus_register_accel(const AccelOpsClass *ops);
void __wrap_cpus_register_accel(const AccelOpsClass *ops)
{
    AccelOpsClass *ours = (AccelOpsClass *)ops;

    qemu_spin_init(&lock);
    if (!ours->get_virtual_clock && !ours->get_elapsed_ticks) {
        ours->get_virtual_clock = virtual_clock;
        ours->get_elapsed_ticks = elapsed_ticks;
    }
    __real_cpus_register_accel(ops);
}

void __real_cpu_enable_ticks(void);
void __wrap_cpu_enable_ticks(void);
void __wrap_cpu_enable_ticks(void)
{
    __real_cpu_enable_ticks();
    qemu_spin_lock(&lock);
    start_over();
    first_ns = last_ns;
    first_ticks = last_ticks;
    qemu_spin_unlock(&lock);
}

/* The machine stops; a snapshot may follow, which holds QEMU's own clocks. */
void __real_cpu_disable_ticks(void);
void __wrap_cpu_disable_ticks(void);
void __wrap_cpu_disable_ticks(void)
{
    qemu_spin_lock(&lock);
    catch_up();
    qemu_spin_unlock(&lock);
    __real_cpu_disable_ticks();

    qemu_spin_lock(&lock);
    seqlock_write_lock(&timers_state.vm_clock_seqlock,
                       &timers_state.vm_clock_lock);
    timers_state.cpu_clock_offset -= taken_ns;
    timers_state.cpu_ticks_offset -= taken_ticks;
    timers_state.cpu_ticks_prev -= taken_ticks;
    seqlock_write_unlock(&timers_state.vm_clock_seqlock,
                         &timers_state.vm_clock_lock);
    taken_ns = 0;
    taken_ticks = 0;
    shown_ticks = INT64_MIN;
    start_over();
    qemu_spin_unlock(&lock);
}

/*
 * A snapshot made without -icount, as the `root` ones are, says nothing of the
 * count: the clock would stay what it was before the snapshot was loaded, which
 * is earlier than the guest has seen.
 */
int __real_qemu_loadvm_state(QEMUFile *f);
int __wrap_qemu_loadvm_state(QEMUFile *f);
int __wrap_qemu_loadvm_state(QEMUFile *f)
{
    TimersState *t = &timers_state;
    int64_t one, icount, bias;
    int ret;

    if (!icount_enabled()) {
        return __real_qemu_loadvm_state(f);
    }
    /* The same time in other numbers, to see whether they are loaded. */
    one = icount_to_ns(1);
    icount = qatomic_add_fetch(&t->qemu_icount, 1);
    bias = qatomic_sub_fetch(&t->qemu_icount_bias, one);
    ret = __real_qemu_loadvm_state(f);
    if (t->qemu_icount == icount && t->qemu_icount_bias == bias) {
        qatomic_set(&t->qemu_icount, icount - 1);
        qatomic_set(&t->qemu_icount_bias,
                    ret < 0 ? bias + one
                            : t->cpu_clock_offset - icount_to_ns(icount - 1));
    }
    return ret;
}
