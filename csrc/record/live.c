/*
 * Complete recordings: what it takes to leave a replay and live on.
 *
 * Devices do not run in a replay, so their state is recorded from time to time,
 * at moments when no disk is busy; and so is what is written to disks. Where
 * the state was recorded, a replay can become a live machine again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/live.h"
#include "record/opening.h"
#include "record/recorder.h"
#include "record/state.h"
#include "core/machine.h"
#include "block/block_int-common.h"
#include "qapi/error.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "system/block-backend.h"
#include "system/cpu-timers.h"

/* Not more often than this. */
#define INTERVAL_NS (20 * 1000 * 1000LL)
/* So much of a disk's beginning is looked at. */
#define KNOWN_BY    (1u << 20)

static bool wanted, records;
static int64_t saved_at;
/* Requests that disks are working on. */
static unsigned busy;

/* The state that was recorded at the place up to which was replayed. */
static uint8_t *state;
static size_t state_size;
static uint64_t state_count;

void panda_record_complete(bool complete)
{
    wanted = complete;
}

/* ---- recording ---- */

bool panda_live_begin(void)
{
    records = wanted;
    saved_at = 0;
    return records;
}

bool panda_live_records(void)
{
    return records && panda_rr_recording();
}

/* Requests of other sorts than reads and writes are seen here only. */
static bool disks_are_busy(void)
{
    if (qatomic_read(&busy) || panda_maps_active()) {
        return true;
    }
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        BlockDriverState *bs = blk_bs(blk);

        if (bs && qatomic_read(&bs->in_flight)) {
            return true;
        }
    }
    return false;
}

/* The machine stands still for a moment, which some devices want to see. */
static bool pretends;

bool __real_runstate_is_running(void);
bool __wrap_runstate_is_running(void);
bool __wrap_runstate_is_running(void)
{
    return !pretends && __real_runstate_is_running();
}

void panda_live_slice(CPUState *cs)
{
    int64_t now = g_get_monotonic_time() * 1000;
    PandaBytes bytes = {};
    Error *err = NULL;

    if (!records || now - saved_at < INTERVAL_NS) {
        return;
    }
    bql_lock();
    if (!disks_are_busy()) {
        /* The clock is saved as it is while the machine stands still. */
        cpu_disable_ticks();
        pretends = true;
        if (panda_state_save(&bytes, &err)) {
            panda_log_entry(PANDA_ENTRY_DEVICES);
            panda_log_string(bytes.data, bytes.n);
        } else {
            error_free(err);
        }
        pretends = false;
        cpu_enable_ticks();
        saved_at = now;
        g_free(bytes.data);
    }
    bql_unlock();
}

void panda_live_disk(const char *device, uint64_t offset, uint64_t size,
                     QEMUIOVector *qiov)
{
    g_autofree uint8_t *bytes = NULL;

    if (!panda_live_records()) {
        return;
    }
    panda_log_entry(PANDA_ENTRY_DISK_DATA);
    panda_log_string(device, strlen(device));
    panda_log_number(offset);
    panda_log_number(size);
    if (qiov) {
        bytes = g_malloc(size);
        qemu_iovec_to_buf(qiov, 0, bytes, size);
    }
    panda_log_string(bytes, qiov ? size : 0);
}

/* ---- how many requests are on their way ---- */

typedef struct Request {
    BlockCompletionFunc *done;
    void *opaque;
} Request;

static void finished(void *opaque, int status)
{
    Request request = *(Request *)opaque;

    g_free(opaque);
    qatomic_dec(&busy);
    request.done(request.opaque, status);
}

void panda_live_request(BlockCompletionFunc **done, void **opaque)
{
    Request *request;

    if (panda_live_records() && *done) {
        request = g_new(Request, 1);
        *request = (Request) { *done, *opaque };
        *done = finished;
        *opaque = request;
        qatomic_inc(&busy);
    }
}

/* ---- replay ---- */

void panda_live_forget(void)
{
    g_clear_pointer(&state, g_free);
}

bool panda_live_apply(PandaEntryKind kind, PandaLogCursor *c)
{
    const uint8_t *bytes;
    size_t n;

    switch (kind) {
    case PANDA_ENTRY_DEVICES:
        bytes = panda_log_get_string(c, &n);
        panda_live_forget();
        if (bytes) {
            state = g_memdup2(bytes, n);
            state_size = n;
            state_count = panda_count_raw();
        }
        return true;
    case PANDA_ENTRY_DISK_DATA:
        panda_log_get_string(c, &n);
        panda_log_get(c);
        panda_log_get(c);
        panda_log_get_string(c, &n);
        return true;
    default:
        return false;
    }
}

const uint8_t *panda_live_state(size_t *size)
{
    *size = state_size;
    return state_count == panda_count_raw() ? state : NULL;
}

/* ---- disks of the machine that is to live ---- */

/* What stands for an image where there is none; it forgets what is written. */
static bool is_stand_in(BlockBackend *blk)
{
    return g_str_has_prefix(blk_bs(blk)->drv->format_name, "null-");
}

uint64_t panda_live_disk_digest(BlockBackend *blk)
{
    int64_t length = MIN(KNOWN_BY, blk_getlength(blk));
    g_autofree uint8_t *bytes = g_malloc0(KNOWN_BY);

    return length > 0 && blk_pread(blk, 0, length, bytes, 0) >= 0
        ? panda_rr_mix_bytes(1, bytes, length) : 0;
}

typedef struct Check {
    Error *err;
} Check;

static void check_disks(void *opaque)
{
    Check *check = opaque;
    QDict *manifest = panda_opened_json("manifest.json", &check->err);
    QList *disks = manifest ? qobject_to(QList, qdict_get(manifest, "disks"))
                            : NULL;
    BlockBackend *blk = blk_all_next(NULL);
    const QListEntry *entry;

    if (manifest && !qdict_get_try_bool(manifest, "devices", false)) {
        error_setg(&check->err, "the recording does not have the devices' "
                   "state: call set_complete_rr_snapshot() before record()");
    }
    if (disks && !check->err) {
        QLIST_FOREACH_ENTRY(disks, entry) {
            QDict *disk = qobject_to(QDict, qlist_entry_obj(entry));
            const char *digest = disk ? qdict_get_try_str(disk, "digest")
                                      : NULL;

            if (digest && (!blk || !blk_bs(blk) || is_stand_in(blk)
                           || panda_live_disk_digest(blk)
                              != g_ascii_strtoull(digest, NULL, 16))) {
                error_setg(&check->err, "the disk %s is not the one that was "
                           "recorded, as it was when the recording began",
                           qdict_get_try_str(disk, "name") ?: "?");
                break;
            }
            blk = blk ? blk_all_next(blk) : NULL;
        }
    }
    qobject_unref(manifest);
}

int panda_replay_check_disks(void)
{
    Check check = {};
    int status = panda_check_usable();

    if (status == PANDA_OK && !panda_rr_replaying()) {
        return panda_fail(PANDA_ERR_STATE, "nothing is being replayed");
    }
    if (status == PANDA_OK) {
        status = panda_run_in_main_loop(check_disks, &check,
                                        PANDA_PATIENCE_MS);
    }
    return status == PANDA_OK && check.err
        ? panda_fail_error(PANDA_ERR_STATE, check.err) : status;
}

typedef struct Write {
    const char *device;
    uint64_t offset, size;
    const void *bytes;
    int status;
} Write;

static void write_disk(void *opaque)
{
    Write *w = opaque;

    w->status = -ENODEV;
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        g_autofree char *device = blk_get_attached_dev_id(blk);

        if (!g_strcmp0(device && *device ? device : blk_name(blk),
                       w->device)) {
            w->status = blk_pwrite(blk, w->offset, w->size, w->bytes, 0);
            return;
        }
    }
}

int panda_replay_write_disk(const char *device, uint64_t offset,
                            const void *bytes, uint64_t size)
{
    Write w = {
        .device = device, .offset = offset, .size = size, .bytes = bytes,
    };
    int status = panda_check_usable();

    if (status == PANDA_OK && !panda_rr_replaying()) {
        return panda_fail(PANDA_ERR_STATE, "nothing is being replayed");
    }
    if (status == PANDA_OK) {
        status = panda_run_in_main_loop(write_disk, &w, PANDA_PATIENCE_MS);
    }
    return status == PANDA_OK && w.status < 0
        ? panda_fail(PANDA_ERR_STATE, "the disk %s cannot be written: %s",
                     device, strerror(-w.status)) : status;
}
