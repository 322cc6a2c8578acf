/*
 * Life of the machine: create, run, pause, finish.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/guest_clock.h"
#include "core/machine.h"
#include "record/recorder.h"
#include "block/block-global-state.h"
#include "block/thread-pool.h"
#include "qemu/main-loop.h"
#include "qemu/notify.h"
#include "hw/boards.h"
#include "system/runstate.h"
#include "system/system.h"
#include "system/tcg.h"
#include "tcg/startup.h"
#include <setjmp.h>
#include <sys/prctl.h>

/* How long panda_finish() waits for a callback that is under way. */
#define FINISH_PATIENCE_US (500 * 1000)

bool panda_events_possible;

static bool created;
static bool finished;
static bool dead;
/* The guest is off; the next run boots it again. */
static bool powered_off;
/* The guest was running when it was paused, or has not been started yet. */
static bool start_on_run;
static bool in_run;
/* No callback is called in the next run. */
static bool quiet;
/* The run was left for a signal only; the next panda_run() goes on with it. */
static bool run_goes_on;
/* after_machine_init was raised: at the start of the first run. */
static bool announced;
/* -loadvm was given: after_loadvm follows after_machine_init. */
static bool loaded_early;
static pthread_t main_thread;

/* Why the main loop is to be left; -1: it is not. */
static int stop_reason = -1;
static sigjmp_buf loop_exit;
static ShutdownCause shutdown_cause;
static int wakeup_fd = -1;

bool panda_dead(void)
{
    /* Whoever sees it also sees why: panda_fatal_text(). */
    return qatomic_load_acquire(&dead);
}

void panda_set_dead(void)
{
    qatomic_store_release(&dead, true);
    if (qatomic_read(&in_run)) {
        qatomic_store_release(&stop_reason, PANDA_RUN_FATAL);
        qemu_notify_event();
    }
}

bool panda_in_run(void)
{
    return qatomic_read(&in_run);
}

bool panda_in_main_thread(void)
{
    return created && pthread_equal(main_thread, pthread_self());
}

int panda_check_usable(void)
{
    if (panda_dead()) {
        return panda_fail(PANDA_ERR_FATAL, "%s", panda_fatal_text());
    }
    if (!created || finished) {
        return panda_fail(PANDA_ERR_STATE, "there is no machine");
    }
    return PANDA_OK;
}

int panda_machine_state(void)
{
    if (panda_dead()) {
        return PANDA_MACHINE_DEAD;
    }
    if (finished) {
        return PANDA_MACHINE_FINISHED;
    }
    if (!created) {
        return PANDA_MACHINE_NONE;
    }
    if (powered_off) {
        return PANDA_MACHINE_OFF;
    }
    return runstate_is_running() ? PANDA_MACHINE_RUNNING : PANDA_MACHINE_PAUSED;
}

const char *panda_version(void)
{
    return PANDALITE_VERSION;
}

const char *panda_qemu_version(void)
{
    return QEMU_VERSION;
}

const char *panda_arch_name(void)
{
    return PANDALITE_ARCH;
}

/* ---- creation ---- */

typedef struct InitArgs {
    int argc;
    char **argv;
} InitArgs;

static void do_init(void *opaque)
{
    InitArgs *args = opaque;

    qemu_init(args->argc, args->argv);
}

static void on_shutdown(Notifier *notifier, void *data)
{
    PandaCallback *c;

    shutdown_cause = *(ShutdownCause *)data;
    RCU_READ_LOCK_GUARD();
    PANDA_FOR_EACH(c, PANDA_CB_PRE_SHUTDOWN) {
        PANDA_CALL(c, pre_shutdown);
    }
}

static Notifier shutdown_notifier = { .notify = on_shutdown };

/* QEMU keeps pointers into argv; -S leaves the start of the guest to us. */
static InitArgs copy_args(int argc, char **argv)
{
    InitArgs args = { .argv = g_new0(char *, argc + 2) };

    start_on_run = true;
    for (int i = 0; i < argc; i++) {
        if (i && (!strcmp(argv[i], "-S") || !strcmp(argv[i], "--S"))) {
            start_on_run = false;
        } else {
            args.argv[args.argc++] = g_strdup(i ? argv[i] : "pandalite");
        }
    }
    args.argv[args.argc++] = g_strdup("-S");
    return args;
}

static InitArgs kept_args;

void panda_machine_args(char ***argv, int *argc)
{
    *argv = kept_args.argv;
    *argc = kept_args.argc;
}

void panda_start_on_next_run(void)
{
    start_on_run = true;
    powered_off = false;
}

static int check_machine(void)
{
    if (CPU_NEXT(first_cpu)) {
        return panda_fail(PANDA_ERR_MACHINE,
                          "only one virtual CPU is supported: remove -smp");
    }
    if (!tcg_enabled() || qemu_tcg_mttcg_enabled()) {
        return panda_fail(PANDA_ERR_MACHINE,
                          "only -accel tcg,thread=single is supported");
    }
    return PANDA_OK;
}

int panda_init(int argc, char **argv)
{
    struct sigaction sigbus;
    sigset_t mask;
    int slack;
    bool ok;
    int status;

    if (panda_dead()) {
        return panda_fail(PANDA_ERR_FATAL, "%s", panda_fatal_text());
    }
    if (created) {
        return panda_fail(PANDA_ERR_STATE,
                          "this process has created a machine already");
    }
    created = true;
    main_thread = pthread_self();

    /* What QEMU's initialisation changes in the calling thread. */
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    sigaction(SIGBUS, NULL, &sigbus);
    slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);

    InitArgs args = copy_args(argc, argv);
    kept_args = args;
    panda_capture_begin();
    ok = panda_guarded(do_init, &args);
    g_autofree char *said = panda_capture_end();

    prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
    sigaction(SIGBUS, &sigbus, NULL);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);

    status = ok ? check_machine()
                : panda_fail(PANDA_ERR_MACHINE, "%s", panda_fatal_text());
    if (status != PANDA_OK) {
        panda_set_dead();
        if (bql_locked()) {
            bql_unlock();
        }
        return status;
    }
    if (said && *said) {
        fputs(said, stderr);
    }
    qemu_register_shutdown_notifier(&shutdown_notifier);
    panda_vcpu_setup(first_cpu);
    panda_variants_update();

    bql_unlock();
    return PANDA_OK;
}

void __real_machine_run_board_init(MachineState *machine,
                                   const char *mem_path, Error **errp);
void __wrap_machine_run_board_init(MachineState *machine,
                                   const char *mem_path, Error **errp);
void __wrap_machine_run_board_init(MachineState *machine,
                                   const char *mem_path, Error **errp)
{
    PandaCallback *c;

    qatomic_set(&panda_events_possible, true);
    qatomic_set(&panda_gate_closed, false);
    WITH_RCU_READ_LOCK_GUARD() {
        PANDA_FOR_EACH(c, PANDA_CB_DURING_MACHINE_INIT) {
            PANDA_CALL(c, during_machine_init, (PandaMachine *)machine);
        }
    }
    __real_machine_run_board_init(machine, mem_path, errp);
}

/* ---- running ---- */

void panda_request_stop(int reason)
{
    if (qatomic_cmpxchg(&stop_reason, -1, reason) == -1) {
        qemu_notify_event();
    }
}

void panda_stop_run(void)
{
    panda_request_stop(PANDA_RUN_STOPPED);
}

static void on_wakeup(void *opaque)
{
    panda_request_stop(PANDA_RUN_SIGNAL);
}

int panda_watch_wakeup_fd(int fd)
{
    int status = panda_check_usable();

    if (status != PANDA_OK) {
        return status;
    }
    if (wakeup_fd >= 0) {
        qemu_set_fd_handler(wakeup_fd, NULL, NULL, NULL);
    }
    wakeup_fd = fd;
    if (fd >= 0) {
        qemu_set_fd_handler(fd, on_wakeup, NULL, NULL);
    }
    return PANDA_OK;
}

void __real_main_loop_wait(int nonblocking);
void __wrap_main_loop_wait(int nonblocking);
void __wrap_main_loop_wait(int nonblocking)
{
    PandaCallback *c;

    if (panda_wanted(PANDA_CB_MAIN_LOOP_WAIT)) {
        RCU_READ_LOCK_GUARD();
        PANDA_FOR_EACH(c, PANDA_CB_MAIN_LOOP_WAIT) {
            PANDA_CALL(c, main_loop_wait);
        }
    }
    panda_main_queue_serve();
    if (qatomic_read(&panda_guest_clock_is_held)) {
        /* Timers that are nearly due stay so: do not poll them without end. */
        bql_unlock();
        g_usleep(1000);
        bql_lock();
    }
    if (qatomic_read(&stop_reason) < 0) {
        __real_main_loop_wait(nonblocking);
    }
    if (qatomic_load_acquire(&stop_reason) >= 0) {
        /* Nothing of qemu_main_loop(), our caller, needs to be undone. */
        siglongjmp(loop_exit, 1);
    }
}

static int reason_of_shutdown(void)
{
    switch (shutdown_cause) {
    case SHUTDOWN_CAUSE_GUEST_PANIC:
        return PANDA_RUN_GUEST_PANIC;
    case SHUTDOWN_CAUSE_GUEST_RESET:
    case SHUTDOWN_CAUSE_SUBSYSTEM_RESET:
        return PANDA_RUN_GUEST_RESET;
    case SHUTDOWN_CAUSE_HOST_QMP_QUIT:
    case SHUTDOWN_CAUSE_HOST_UI:
        return PANDA_RUN_STOPPED;
    default:
        return PANDA_RUN_GUEST_SHUTDOWN;
    }
}

void panda_machine_loaded(void)
{
    if (announced) {
        panda_raise_after_loadvm();
    } else {
        loaded_early = true;
    }
}

/* The machine exists, no guest code has run. */
static void announce_machine(void)
{
    PandaCallback *c;

    WITH_RCU_READ_LOCK_GUARD() {
        PANDA_FOR_EACH(c, PANDA_CB_AFTER_MACHINE_INIT) {
            PANDA_CALL(c, after_machine_init, &panda_vcpu.pub);
        }
    }
    if (loaded_early) {
        panda_raise_after_loadvm();
    }
}

static void do_run(void *opaque)
{
    int *result = opaque;

    panda_gate_enter_main();
    bql_lock();
    if (!announced) {
        announced = true;
        announce_machine();
    }
    if (qatomic_read(&stop_reason) >= 0) {
        /* A callback does not want the guest to start. */
        *result = qatomic_read(&stop_reason);
        bql_unlock();
        panda_gate_leave_main();
        return;
    }
    if (powered_off) {
        powered_off = false;
        qemu_system_reset(SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
        if (!runstate_check(RUN_STATE_RUNNING)) {
            /* From "shutdown" or "guest panicked" there is no other way on. */
            runstate_set(RUN_STATE_PRELAUNCH);
        }
        start_on_run = true;
    }
    if (start_on_run) {
        start_on_run = false;
        vm_start();
    }
    if (!sigsetjmp(loop_exit, 0)) {
        qemu_main_loop();
        /* Returned by itself: the machine was shut down. */
        *result = reason_of_shutdown();
        powered_off = true;
        vm_stop(RUN_STATE_SHUTDOWN);
    } else {
        *result = qatomic_read(&stop_reason);
    }
    bql_unlock();
    panda_gate_leave_main();
}

void panda_set_quiet(bool is_quiet)
{
    quiet = is_quiet;
}

int panda_run(void)
{
    int result = PANDA_RUN_FATAL;
    int status = panda_check_usable();
    bool ok;

    if (status != PANDA_OK) {
        return status;
    }
    if (!panda_in_main_thread()) {
        return panda_fail(PANDA_ERR_STATE, "the machine must be run by the "
                          "thread that created it");
    }
    if (in_run) {
        return panda_fail(PANDA_ERR_STATE, "the machine is running already");
    }
    if (!run_goes_on) {
        qatomic_set(&stop_reason, -1);
        panda_bare_run_begins();
        panda_set_callback_gate(quiet);
        panda_main_queue_open(true);
    }
    run_goes_on = false;
    qatomic_set(&in_run, true);
    ok = panda_guarded(do_run, &result);
    qatomic_set(&in_run, false);
    /* A stop that is asked for from here on is seen by the next panda_run(). */
    if (result == PANDA_RUN_SIGNAL
        && qatomic_cmpxchg(&stop_reason, PANDA_RUN_SIGNAL, -1)
           == PANDA_RUN_SIGNAL) {
        run_goes_on = true;
    }
    if (!ok || panda_dead()) {
        panda_set_callback_gate(true);
        panda_main_queue_open(false);
        if (bql_locked()) {
            bql_unlock();
        }
        panda_fail(PANDA_ERR_FATAL, "%s", panda_fatal_text());
        return PANDA_RUN_FATAL;
    }
    return result;
}

int panda_pause(uint32_t timeout_ms)
{
    int64_t deadline = g_get_monotonic_time() + timeout_ms * 1000LL;
    int status = panda_check_usable();

    if (status != PANDA_OK) {
        return status;
    }
    if (!panda_in_main_thread() || in_run) {
        return panda_fail(PANDA_ERR_STATE, "panda_pause() is for the main "
                          "thread, after panda_run() has returned");
    }
    run_goes_on = false;
    panda_set_callback_gate(true);
    panda_main_queue_open(false);
    while (qatomic_read(&panda_vcpu.pub.in_callback)) {
        if (g_get_monotonic_time() > deadline) {
            return panda_fail(PANDA_ERR_TIMEOUT, "a callback has not returned "
                              "within %u ms", timeout_ms);
        }
        g_usleep(500);
    }
    bql_lock();
    if (runstate_is_running()) {
        start_on_run = true;
        vm_stop(RUN_STATE_PAUSED);
    }
    bql_unlock();
    return PANDA_OK;
}

static void do_finish(void *opaque)
{
    bql_lock();
    panda_recorder_finish();
    qemu_cleanup(0);
    /* All I/O is done; the workers would only wait for more. */
    thread_pool_free_aio(qemu_get_aio_context()->thread_pool);
    qemu_get_aio_context()->thread_pool = NULL;
    bql_unlock();
    panda_run_atexit();
}

/* A callback keeps the CPU thread: nothing can be torn down under it. */
static void do_flush(void *opaque)
{
    bql_lock();
    bdrv_flush_all();
    bql_unlock();
}

int panda_finish(void)
{
    int64_t deadline = g_get_monotonic_time() + FINISH_PATIENCE_US;
    bool was_dead = panda_dead();

    if (!created || finished) {
        return PANDA_OK;
    }
    if (qatomic_read(&in_run) || panda_in_vcpu_thread()) {
        return panda_fail(PANDA_ERR_STATE, "panda_finish() is for after "
                          "panda_run() has returned");
    }
    panda_set_callback_gate(true);
    finished = true;
    while (qatomic_read(&panda_vcpu.pub.in_callback)) {
        if (g_get_monotonic_time() > deadline) {
            if (!was_dead) {
                panda_guarded(do_flush, NULL);
            }
            return panda_fail(PANDA_ERR_TIMEOUT, "a callback has not "
                              "returned: the CPU thread cannot be ended");
        }
        g_usleep(500);
    }
    if (!was_dead) {
        panda_guarded(do_finish, NULL);
    }
    if (!panda_vcpu_thread_end(2000)) {
        return panda_fail(PANDA_ERR_TIMEOUT,
                          "the CPU thread has not ended within two seconds");
    }
    return PANDA_OK;
}

/* ---- while running ---- */

static void do_reset(void *opaque)
{
    if (runstate_is_running()) {
        vm_stop(RUN_STATE_PAUSED);
    }
    qemu_system_reset(SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
    vm_start();
}

static void do_cont(void *opaque)
{
    vm_start();
}

int panda_cont(void)
{
    int status = panda_check_usable();

    return status == PANDA_OK ? panda_call_in_main_loop(do_cont, NULL)
                              : status;
}

static void do_stop(void *opaque)
{
    vm_stop((intptr_t)opaque);
}

int panda_vm_stop(int code)
{
    int status = panda_check_usable();

    if (status != PANDA_OK) {
        return status;
    }
    if (code < 0 || code >= RUN_STATE__MAX) {
        return panda_fail(PANDA_ERR_ARGUMENT, "%d is no run state", code);
    }
    if (panda_in_vcpu_thread()) {
        vm_stop(code);
        return PANDA_OK;
    }
    return panda_call_in_main_loop(do_stop, (void *)(intptr_t)code);
}

int panda_reset(void)
{
    int status = panda_check_usable();

    /* A guest that is off is booted by the next run anyway. */
    return status == PANDA_OK && !powered_off
        ? panda_call_in_main_loop(do_reset, NULL) : status;
}
