/*
 * A replay's beginning and end, and going to places in it. The machine around
 * the CPU stands still.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/border.h"
#include "record/checkpoint.h"
#include "record/effects.h"
#include "record/live.h"
#include "record/opening.h"
#include "record/player.h"
#include "record/recorder.h"
#include "record/state.h"
#include "core/machine.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "system/cpus.h"
#include "system/runstate.h"

static bool frozen;

/* ---- the machine around it stands still ---- */

void __real_qemu_clock_enable(QEMUClockType type, bool enabled);
void __wrap_qemu_clock_enable(QEMUClockType type, bool enabled);
void __wrap_qemu_clock_enable(QEMUClockType type, bool enabled)
{
    if (frozen && (type == QEMU_CLOCK_VIRTUAL || type == QEMU_CLOCK_HOST)) {
        enabled = false;
    }
    __real_qemu_clock_enable(type, enabled);
}

static void freeze(bool freeze)
{
    frozen = freeze;
    __wrap_qemu_clock_enable(QEMU_CLOCK_VIRTUAL, true);
    __wrap_qemu_clock_enable(QEMU_CLOCK_HOST, true);
}

/* Devices must not take up what they were doing. */
void __real_vm_state_notify(bool running, RunState state);
void __wrap_vm_state_notify(bool running, RunState state);
void __wrap_vm_state_notify(bool running, RunState state)
{
    if (!frozen) {
        __real_vm_state_notify(running, state);
    }
}

/*
 * Flash chips that were loaded wait for the machine to run, and then write to
 * their images. It does not run; and they must not wait twice.
 */
static GPtrArray *waiting;

VMChangeStateEntry *__real_qemu_add_vm_change_state_handler(
    VMChangeStateHandler *fn, void *opaque);
VMChangeStateEntry *__wrap_qemu_add_vm_change_state_handler(
    VMChangeStateHandler *fn, void *opaque);
VMChangeStateEntry *__wrap_qemu_add_vm_change_state_handler(
    VMChangeStateHandler *fn, void *opaque)
{
    VMChangeStateEntry *entry =
        __real_qemu_add_vm_change_state_handler(fn, opaque);

    if (frozen) {
        if (!waiting) {
            waiting = g_ptr_array_new();
        }
        g_ptr_array_add(waiting, entry);
    }
    return entry;
}

static void forget_waiting(void)
{
    for (unsigned i = 0; waiting && i < waiting->len; i++) {
        qemu_del_vm_change_state_handler(g_ptr_array_index(waiting, i));
    }
    g_clear_pointer(&waiting, g_ptr_array_unref);
}

bool panda_player_frozen(void)
{
    return frozen;
}

/*
 * A halted CPU does not sleep: what wakes it is in the log. Nor does it at the
 * end of the log, where it has to say that this is the end.
 */
bool __real_all_cpu_threads_idle(void);
bool __wrap_all_cpu_threads_idle(void);
bool __wrap_all_cpu_threads_idle(void)
{
    if (panda_rr_replaying() && runstate_is_running()
        && !first_cpu->stopped) {
        return false;
    }
    return __real_all_cpu_threads_idle();
}

static bool load_state(Error **errp)
{
    int i = panda_archive_find(panda_opened.archive, "state");
    g_autofree uint8_t *data = NULL;
    size_t n;

    if (i < 0) {
        error_setg(errp, "the recording has no state");
        return false;
    }
    data = panda_archive_read(panda_opened.archive, i, &n, errp);
    return data && panda_ram_load(panda_opened.archive, panda_opened.rams,
                                  panda_opened.n_rams, errp)
        && panda_state_load(data, n, errp);
}

typedef struct Begin {
    const char *path;
    uint64_t budget;
    Error *err;
    PandaStatus kind;
} Begin;

static void do_begin(void *opaque)
{
    Begin *b = opaque;
    CPUState *cs = panda_vcpu.cs;
    const char *why;

    if (panda_rr_on()) {
        b->kind = PANDA_ERR_STATE;
        error_setg(&b->err, "the machine is %s already",
                   panda_rr_recording() ? "recorded" : "replaying");
        return;
    }
    b->kind = PANDA_ERR_RECORDING;
    why = panda_rr_refusal(cs);
    if (why) {
        error_setg(&b->err, "this machine cannot replay: %s", why);
        return;
    }
    panda_rr_facts = (PandaRrReport) {};
    if (!panda_opened_begin(b->path, &b->err)) {
        panda_opened_end();
        return;
    }
    if (runstate_is_running()) {
        vm_stop(RUN_STATE_PAUSED);
    }
    freeze(true);
    panda_lines_setup(cs);
    if ((b->budget && !panda_checkpoints_begin(b->budget, &b->err))
        || !load_state(&b->err)) {
        panda_checkpoints_end();
        panda_opened_end();
        forget_waiting();
        freeze(false);
        /* Half of it is what the recording says. */
        qemu_system_reset(SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
        return;
    }
    panda_count_switch(true);
    panda_topology_begin();
    panda_history_begin();
    panda_border_begin();
    panda_regions_clear();
    panda_player_begin();
    g_free(panda_rr_file);
    panda_rr_file = g_strdup(b->path);
    panda_rr_set_state(PANDA_RR_REPLAY);
}

int panda_replay_begin(const char *path, uint64_t checkpoint_bytes)
{
    Begin b = { .path = path, .budget = checkpoint_bytes };
    int status = panda_run_in_main_loop(do_begin, &b, PANDA_PATIENCE_MS);

    if (status == PANDA_OK && b.err) {
        return panda_fail_error(b.kind, b.err);
    }
    if (status == PANDA_OK) {
        panda_start_on_next_run();
    }
    return status;
}

/* The machine is its own again; its devices are as they were at the start. */
static void leave_replay(void)
{
    if (runstate_is_running()) {
        vm_stop(RUN_STATE_PAUSED);
    }
    forget_waiting();
    panda_topology_go_to(0);
    panda_checkpoints_end();
    panda_rr_set_state(PANDA_RR_OFF);
    panda_count_switch(false);
}

static void do_end(void *opaque)
{
    leave_replay();
    freeze(false);
    panda_player_end();
    panda_opened_end();
    /* Its devices know nothing of what the CPU did. */
    qemu_system_reset(SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
}

typedef struct Live {
    Error *err;
} Live;

static void do_go_live(void *opaque)
{
    Live *live = opaque;
    size_t n;
    const uint8_t *state = panda_live_state(&n);
    PandaPlayerRest rest;

    if (!state || !panda_player_rest(&rest)) {
        error_setg(&live->err, "the devices' state was not recorded at this "
                   "place");
        return;
    }
    leave_replay();
    /* RAM is of this place; what devices know of it, and the CPU, are now. */
    panda_state_load(state, n, &live->err);
    /* Those who wait now do so rightly. */
    g_clear_pointer(&waiting, g_ptr_array_unref);
    freeze(false);
    panda_live_forget();
    panda_player_end();
    panda_opened_end();
    if (live->err) {
        qemu_system_reset(SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
    }
}

int panda_replay_go_live(void)
{
    Live live = {};
    int status = panda_check_usable();

    if (status == PANDA_OK && !panda_rr_replaying()) {
        return panda_fail(PANDA_ERR_STATE, "nothing is being replayed");
    }
    if (status == PANDA_OK) {
        status = panda_run_in_main_loop(do_go_live, &live, PANDA_PATIENCE_MS);
    }
    if (status == PANDA_OK && live.err) {
        return panda_fail_error(PANDA_ERR_STATE, live.err);
    }
    if (status == PANDA_OK) {
        panda_start_on_next_run();
    }
    return status;
}

int panda_replay_end(void)
{
    int status = panda_check_usable();

    if (status == PANDA_OK && !panda_rr_replaying()) {
        return panda_fail(PANDA_ERR_STATE, "nothing is being replayed");
    }
    if (status == PANDA_OK && panda_in_vcpu_thread()) {
        panda_do_break_exec();
        return panda_call_in_main_loop(do_end, NULL);
    }
    return status == PANDA_OK
        ? panda_run_in_main_loop(do_end, NULL, PANDA_PATIENCE_MS) : status;
}

/* ---- going to places ---- */

int panda_replay_stop_at(uint64_t count)
{
    int status = panda_check_usable();

    if (status != PANDA_OK) {
        return status;
    }
    if (!panda_rr_replaying()) {
        return panda_fail(PANDA_ERR_STATE, "nothing is being replayed");
    }
    panda_player_stop_at(count);
    return PANDA_OK;
}

static void restore(CPUState *cs, run_on_cpu_data data)
{
    panda_checkpoint_restore(cs, *(uint64_t *)data.host_ptr);
}

static void do_go_back(void *opaque)
{
    if (runstate_is_running()) {
        vm_stop(RUN_STATE_PAUSED);
    }
    run_on_cpu(panda_vcpu.cs, restore, RUN_ON_CPU_HOST_PTR(opaque));
}

int panda_replay_go_near(uint64_t count)
{
    int status = panda_check_usable();

    if (status == PANDA_OK && !panda_rr_replaying()) {
        status = panda_fail(PANDA_ERR_STATE, "nothing is being replayed");
    }
    if (status == PANDA_OK) {
        status = panda_run_in_main_loop(do_go_back, &count, PANDA_PATIENCE_MS);
    }
    if (status == PANDA_OK && panda_count_raw() > count) {
        status = panda_fail(PANDA_ERR_STATE, "the replay keeps no checkpoint "
                            "to go back to");
    }
    return status;
}

uint64_t panda_replay_checkpoint_before(uint64_t count)
{
    return panda_rr_replaying() ? panda_checkpoint_before(count) : UINT64_MAX;
}

uint64_t panda_replay_slice_begin(void)
{
    return panda_rr_replaying() ? panda_player_slice_begin()
                                : panda_rr_count();
}
