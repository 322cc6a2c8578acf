/*
 * While a recording is made, devices and the CPU take turns: what a device
 * does happens between two runs of cpu_exec(), where it has a place in the
 * recording.
 *
 * QEMU's main loop brackets its work with a mutex of its own record/replay,
 * which does nothing in our machines: its two functions are replaced here. The
 * gate is always taken before the big lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "exec/cpu-common.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "system/cpus.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool in_use;
static bool cpu_is_in, main_is_in;
static unsigned main_waits;

void panda_gate_open(bool use)
{
    pthread_mutex_lock(&lock);
    in_use = use;
    if (!use) {
        main_is_in = false;
    }
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

void panda_gate_enter_main(void)
{
    pthread_mutex_lock(&lock);
    if (in_use && !main_is_in) {
        main_waits++;
        if (cpu_is_in) {
            cpu_exit(panda_vcpu.cs);
        }
        while (cpu_is_in) {
            pthread_cond_wait(&changed, &lock);
        }
        main_waits--;
        main_is_in = true;
    }
    pthread_mutex_unlock(&lock);
}

void panda_gate_leave_main(void)
{
    pthread_mutex_lock(&lock);
    if (main_is_in) {
        main_is_in = false;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
}

void panda_gate_enter_vcpu(void)
{
    pthread_mutex_lock(&lock);
    while (in_use && (main_waits || main_is_in)) {
        pthread_cond_wait(&changed, &lock);
    }
    cpu_is_in = true;
    pthread_mutex_unlock(&lock);
}

void panda_gate_leave_vcpu(void)
{
    pthread_mutex_lock(&lock);
    cpu_is_in = false;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

void __wrap_replay_mutex_lock(void);
void __wrap_replay_mutex_lock(void)
{
    if (panda_in_main_thread()) {
        panda_gate_enter_main();
    }
}

void __wrap_replay_mutex_unlock(void);
void __wrap_replay_mutex_unlock(void)
{
    if (panda_in_main_thread()) {
        panda_gate_leave_main();
    }
}

/* ---- waiting for the CPU thread ---- */

typedef struct Asked {
    run_on_cpu_func fn;
    run_on_cpu_data data;
    bool done;
} Asked;

static QemuCond answered;
static bool answered_ready;

static void answer(CPUState *cs, run_on_cpu_data data)
{
    Asked *asked = data.host_ptr;

    asked->fn(cs, asked->data);
    asked->done = true;
    qemu_cond_broadcast(&answered);
}

/* As QEMU's do_run_on_cpu(), but a CPU thread that has died is noticed. */
static void ask(CPUState *cs, run_on_cpu_func fn, run_on_cpu_data data,
                QemuMutex *mutex)
{
    Asked asked = { .fn = fn, .data = data };
    CPUState *self = current_cpu;

    if (!answered_ready) {
        qemu_cond_init(&answered);
        answered_ready = true;
    }
    async_run_on_cpu(cs, answer, RUN_ON_CPU_HOST_PTR(&asked));
    while (!asked.done) {
        if (panda_vcpu_thread_died()) {
            /* What has happened is known; this goes back to the guard. */
            abort();
        }
        qemu_cond_timedwait(&answered, mutex, 100);
        current_cpu = self;
    }
}

/* It may wait at the gate. */
void __wrap_do_run_on_cpu(CPUState *cs, run_on_cpu_func fn,
                          run_on_cpu_data data, QemuMutex *mutex);
void __wrap_do_run_on_cpu(CPUState *cs, run_on_cpu_func fn,
                          run_on_cpu_data data, QemuMutex *mutex)
{
    bool was_in = panda_in_main_thread() && main_is_in;

    if (qemu_cpu_is_self(cs)) {
        fn(cs, data);
        return;
    }
    if (was_in) {
        panda_gate_leave_main();
    }
    ask(cs, fn, data, mutex);
    if (was_in) {
        bql_unlock();
        panda_gate_enter_main();
        bql_lock();
    }
}
