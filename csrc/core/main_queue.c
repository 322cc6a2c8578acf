/*
 * Calls that other threads want made in the main thread.
 *
 * Served from the top of the main loop, never from a nested one, so a call may
 * do anything: stop the machine, load a snapshot.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/machine.h"
#include "qemu/main-loop.h"
#include "qemu/queue.h"

typedef enum CallState {
    CALL_QUEUED,
    CALL_RUNNING,
    CALL_DONE,
    CALL_DROPPED,
} CallState;

typedef struct Call {
    void (*fn)(void *opaque);
    void *opaque;
    CallState state;
    /* A thread waits for it and owns the structure. */
    bool waited_for;
    QSIMPLEQ_ENTRY(Call) next;
} Call;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static QSIMPLEQ_HEAD(, Call) queue = QSIMPLEQ_HEAD_INITIALIZER(queue);
static Call *running;
static bool is_open;

static void settle(Call *call, CallState state)
{
    call->state = state;
    if (call->waited_for) {
        pthread_cond_broadcast(&changed);
    } else {
        g_free(call);
    }
}

void panda_main_queue_serve(void)
{
    Call *call;

    pthread_mutex_lock(&lock);
    while ((call = QSIMPLEQ_FIRST(&queue))) {
        QSIMPLEQ_REMOVE_HEAD(&queue, next);
        call->state = CALL_RUNNING;
        running = call;
        pthread_mutex_unlock(&lock);
        call->fn(call->opaque);
        pthread_mutex_lock(&lock);
        running = NULL;
        settle(call, CALL_DONE);
    }
    pthread_mutex_unlock(&lock);
}

void panda_main_queue_open(bool open)
{
    Call *call;

    pthread_mutex_lock(&lock);
    is_open = open;
    if (!open) {
        if (running) {
            /* It was left by a longjmp: QEMU gave up in it. */
            settle(running, CALL_DROPPED);
            running = NULL;
        }
        /* What nobody waits for stays for the next run. */
        QSIMPLEQ_HEAD(, Call) kept = QSIMPLEQ_HEAD_INITIALIZER(kept);
        while ((call = QSIMPLEQ_FIRST(&queue))) {
            QSIMPLEQ_REMOVE_HEAD(&queue, next);
            if (call->waited_for) {
                settle(call, CALL_DROPPED);
            } else {
                QSIMPLEQ_INSERT_TAIL(&kept, call, next);
            }
        }
        QSIMPLEQ_CONCAT(&queue, &kept);
    }
    pthread_mutex_unlock(&lock);
}

int panda_call_in_main_loop(void (*fn)(void *opaque), void *opaque)
{
    int status = panda_check_usable();

    if (status != PANDA_OK) {
        return status;
    }
    Call *call = g_new0(Call, 1);
    *call = (Call) { .fn = fn, .opaque = opaque };
    pthread_mutex_lock(&lock);
    QSIMPLEQ_INSERT_TAIL(&queue, call, next);
    pthread_mutex_unlock(&lock);
    qemu_notify_event();
    return PANDA_OK;
}

/* In the main thread there is nothing to wait for. */
static int call_here(void (*fn)(void *opaque), void *opaque)
{
    bool locked = bql_locked();
    bool ok;

    if (!locked) {
        bql_lock();
    }
    ok = panda_guarded(fn, opaque);
    if (!locked && bql_locked()) {
        bql_unlock();
    }
    return ok ? PANDA_OK
              : panda_fail(PANDA_ERR_FATAL, "%s", panda_fatal_text());
}

int panda_run_in_main_loop(void (*fn)(void *opaque), void *opaque,
                           uint32_t timeout_ms)
{
    Call call = { .fn = fn, .opaque = opaque, .waited_for = true };
    struct timespec until;
    int status = panda_check_usable();
    int error = 0;

    if (status != PANDA_OK) {
        return status;
    }
    if (panda_in_vcpu_thread()) {
        return panda_fail(PANDA_ERR_STATE,
                          "not allowed in a callback on the CPU thread: the "
                          "main thread would wait for it and it for the main "
                          "thread; queue it with queue_async() instead");
    }
    if (panda_in_main_thread()) {
        return call_here(fn, opaque);
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }

    pthread_mutex_lock(&lock);
    if (!is_open) {
        pthread_mutex_unlock(&lock);
        return panda_fail(PANDA_ERR_STATE, "the machine is not being run");
    }
    QSIMPLEQ_INSERT_TAIL(&queue, &call, next);
    qemu_notify_event();
    while (call.state == CALL_QUEUED && error != ETIMEDOUT) {
        error = pthread_cond_timedwait(&changed, &lock, &until);
    }
    if (call.state == CALL_QUEUED) {
        QSIMPLEQ_REMOVE(&queue, &call, Call, next);
        status = panda_fail(PANDA_ERR_TIMEOUT, "the main thread has not come "
                            "to it within %u ms", timeout_ms);
    }
    while (call.state == CALL_RUNNING) {
        pthread_cond_wait(&changed, &lock);
    }
    if (call.state == CALL_DROPPED) {
        status = panda_dead()
            ? panda_fail(PANDA_ERR_FATAL, "%s", panda_fatal_text())
            : panda_fail(PANDA_ERR_STATE, "the run has ended");
    }
    pthread_mutex_unlock(&lock);
    return status;
}
