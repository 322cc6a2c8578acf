/*
 * The CPU thread: how it begins and how it ends.
 *
 * QEMU's loop for it has no exit, so it is left by a longjmp from its top,
 * where nothing is held but the big lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/machine.h"
#include "record/record.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include <setjmp.h>

static void (*host_entry)(void);
static void *(*vcpu_fn)(void *);
static void *vcpu_arg;
static QemuThread *vcpu_thread;
static pthread_t vcpu_id;
static bool begun;
static bool ended;
static bool died;
static bool end_requested;
static sigjmp_buf end_jump;
static Notifier *force_rcu_notifier;

void panda_set_vcpu_entry(void (*entry)(void))
{
    host_entry = entry;
}

bool panda_in_vcpu_thread(void)
{
    return qatomic_read(&begun) && pthread_equal(vcpu_id, pthread_self());
}

static void run_vcpu(void *opaque)
{
    if (!sigsetjmp(end_jump, 0)) {
        vcpu_fn(vcpu_arg);
    }
}

bool panda_vcpu_thread_died(void)
{
    return qatomic_read(&died);
}

void __real_qemu_wait_io_event_common(CPUState *cs);

/*
 * QEMU has given up in the CPU thread. Whoever waits for it must not wait for
 * ever: that it stops, that it leaves the gate, or that it does something,
 * which it does not any more.
 */
static void bury(void *opaque)
{
    CPUState *cs = first_cpu;

    qatomic_set(&died, true);
    panda_gate_leave_vcpu();
    if (!bql_locked()) {
        bql_lock();
    }
    if (cs) {
        qemu_mutex_lock(&cs->work_mutex);
        QSIMPLEQ_INIT(&cs->work_list);
        qemu_mutex_unlock(&cs->work_mutex);
        cs->stop = true;
        __real_qemu_wait_io_event_common(cs);
    }
    qemu_notify_event();
}

void panda_vcpu_thread_main(void)
{
    vcpu_id = pthread_self();
    qatomic_set(&begun, true);
    if (!panda_guarded(run_vcpu, NULL)) {
        panda_guarded(bury, NULL);
    }
    if (bql_locked()) {
        bql_unlock();
    }
}

static void *thread_start(void *arg)
{
    if (host_entry) {
        host_entry();
    } else {
        panda_vcpu_thread_main();
    }
    qatomic_set(&ended, true);
    return NULL;
}

void __real_qemu_thread_create(QemuThread *thread, const char *name,
                               void *(*fn)(void *), void *arg, int mode);
void __wrap_qemu_thread_create(QemuThread *thread, const char *name,
                               void *(*fn)(void *), void *arg, int mode);
void __wrap_qemu_thread_create(QemuThread *thread, const char *name,
                               void *(*fn)(void *), void *arg, int mode)
{
    if (!g_strcmp0(name, "ALL CPUs/TCG")) {
        vcpu_fn = fn;
        vcpu_arg = arg;
        vcpu_thread = thread;
        fn = thread_start;
    }
    __real_qemu_thread_create(thread, name, fn, arg, mode);
}

/* The CPU thread's notifier lives on its stack: it must go with it. */
void __real_rcu_add_force_rcu_notifier(Notifier *n);
void __wrap_rcu_add_force_rcu_notifier(Notifier *n);
void __wrap_rcu_add_force_rcu_notifier(Notifier *n)
{
    force_rcu_notifier = n;
    __real_rcu_add_force_rcu_notifier(n);
}

void panda_vcpu_thread_check_end(void)
{
    if (!qatomic_read(&end_requested)) {
        return;
    }
    bql_unlock();
    rcu_remove_force_rcu_notifier(force_rcu_notifier);
    rcu_unregister_thread();
    siglongjmp(end_jump, 1);
}

static void nothing(CPUState *cs, run_on_cpu_data data)
{
}

bool panda_vcpu_thread_end(unsigned timeout_ms)
{
    int64_t deadline = g_get_monotonic_time() + timeout_ms * 1000LL;

    if (!vcpu_thread) {
        return true;
    }
    qatomic_set(&end_requested, true);
    if (first_cpu) {
        /* Queued work keeps a stopped CPU's thread from sleeping on. */
        async_run_on_cpu(first_cpu, nothing, RUN_ON_CPU_NULL);
    }
    while (!qatomic_read(&ended)) {
        if (g_get_monotonic_time() > deadline) {
            return false;
        }
        g_usleep(200);
    }
    qemu_thread_join(vcpu_thread);
    vcpu_thread = NULL;
    return true;
}
