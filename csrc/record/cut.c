/*
 * Cutting a part out of a recording, while it replays: PANDA's scissors.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/archive.h"
#include "record/border.h"
#include "record/checkpoint.h"
#include "record/chunks.h"
#include "record/effects.h"
#include "record/opening.h"
#include "record/player.h"
#include "record/recorder.h"
#include "record/state.h"
#include "core/machine.h"
#include "qapi/error.h"
#include "qemu/uuid.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"

typedef struct Cut {
    const char *path;
    uint64_t end;
    PandaArchiveWriter *archive;
    uint64_t count, steps, slices;
    /* Where the part begins in the recording. */
    uint64_t first_count;
    unsigned chunks;
    bool over;
    Error *err;
} Cut;

static bool add_json(Cut *cut, const char *name, QDict *d)
{
    g_autoptr(GString) text = qobject_to_json_pretty(QOBJECT(d), true);

    g_string_append_c(text, '\n');
    qobject_unref(d);
    return panda_archive_add(cut->archive, name, text->str, text->len,
                             &cut->err);
}

static bool cut_manifest(Cut *cut)
{
    QDict *d = panda_opened_json("manifest.json", &cut->err), *from;
    g_autofree char *id = NULL;
    QemuUUID uuid;

    if (!d) {
        return false;
    }
    from = qdict_new();
    qdict_put_str(from, "id", qdict_get_try_str(d, "id") ?: "");
    qdict_put_int(from, "begin", cut->first_count);
    qdict_put(d, "cut", from);
    qemu_uuid_generate(&uuid);
    id = qemu_uuid_unparse_strdup(&uuid);
    qdict_put_str(d, "id", id);
    qdict_put_int(d, "epoch_base", (cut->first_count 
                  + panda_opened.epoch_base)
                  & ((1ULL << PANDA_EPOCH_BITS) - 1));
    return add_json(cut, "manifest.json", d);
}

/*
 * The state at the recording's start: devices look at RAM when they are loaded,
 * so both have to be of one moment.
 */
static bool cut_state(Cut *cut)
{
    for (unsigned i = 0; i < panda_archive_members(panda_opened.archive); i++) {
        const char *name = panda_archive_name(panda_opened.archive, i);
        g_autofree uint8_t *data = NULL;
        size_t n;

        if (strcmp(name, "state") && !g_str_has_prefix(name, "ram/")) {
            continue;
        }
        data = panda_archive_read(panda_opened.archive, i, &n, &cut->err);
        if (!data
            || !panda_archive_add(cut->archive, name, data, n, &cut->err)) {
            return false;
        }
    }
    return true;
}

/* What brings the machine from the recording's start to this place. */
static void cut_prologue(PandaBytes *body)
{
    PandaBytes pause = {}, cpu = {}, *log = panda_log;
    PandaSlice slice = {};
    size_t n;
    const uint8_t *history = panda_history(&n);

    panda_log = &pause;
    panda_checkpoint_log_pages();
    panda_log_bytes(history, n);
    panda_cpu_save(&cpu);
    panda_log_entry(PANDA_ENTRY_RESET);
    panda_log_string(cpu.data, cpu.n);
    panda_border_log_base();
    panda_log = log;
    slice.pause = (PandaLogCursor) { pause.data, pause.data + pause.n };
    panda_slice_put(body, &slice);
    g_free(pause.data);
    g_free(cpu.data);
}

/* Slices of a chunk, up to the one in which the end is. */
static bool cut_slices(Cut *cut, PandaBytes *body, PandaLogCursor c)
{
    while (!panda_log_at_end(&c) && !cut->over) {
        const uint8_t *from = c.at;
        PandaSlice slice;

        if (!panda_slice_get(&c, &slice)) {
            return false;
        }
        cut->count += slice.n_count;
        cut->steps += slice.n_steps;
        cut->slices++;
        cut->over = cut->first_count + cut->count >= cut->end;
        panda_bytes_put(body, from, c.at - from);
    }
    return !c.bad;
}

/* A chunk, which begins at that place; what was compared at its old end. */
static bool cut_chunk(Cut *cut, PandaBytes *body, uint64_t count,
                      uint64_t steps, unsigned check, uint64_t digest)
{
    g_autofree char *name = g_strdup_printf("log/%06u", cut->chunks++);
    PandaChunkHead head = {
        .count = count, .steps = steps, .n_count = cut->count - count,
        .n_steps = cut->steps - steps, .check = cut->over ? 0 : check,
        .digest = digest,
    };
    PandaBytes out = {};
    bool ok;

    panda_chunk_put_head(&out, &head);
    panda_bytes_put(&out, body->data, body->n);
    ok = panda_archive_add(cut->archive, name, out.data, out.n, &cut->err);
    g_free(out.data);
    body->n = 0;
    return ok;
}

static bool cut_log(Cut *cut)
{
    PandaBytes body = {};
    PandaPlayerRest rest;
    bool ok;

    panda_player_rest(&rest);
    cut_prologue(&body);
    cut->slices = 1;
    ok = cut_slices(cut, &body, rest.slices)
        && cut_chunk(cut, &body, 0, 0, rest.check, rest.digest);
    for (unsigned i = rest.next_chunk;
         ok && i < panda_opened.chunks->len && !cut->over; i++) {
        uint64_t count = cut->count, steps = cut->steps;
        g_autofree uint8_t *data = NULL;
        PandaLogCursor c;
        PandaChunkHead head;
        size_t n;

        data = panda_opened_chunk(i, &n, &cut->err);
        if (!data) {
            ok = false;
            break;
        }
        c = (PandaLogCursor) { data, data + n };
        head = panda_chunk_get_head(&c);
        ok = cut_slices(cut, &body, c)
            && cut_chunk(cut, &body, count, steps, head.check, head.digest);
    }
    g_free(body.data);
    if (!ok && !cut->err) {
        error_setg(&cut->err, "the recording's log is malformed");
    }
    return ok;
}

static bool cut_end(Cut *cut)
{
    QDict *d = qdict_new();

    qdict_put_int(d, "instructions", cut->count);
    qdict_put_int(d, "steps", cut->steps);
    qdict_put_int(d, "slices", cut->slices);
    qdict_put_int(d, "chunks", cut->chunks);
    return add_json(cut, "end.json", d);
}

static void do_cut(void *opaque)
{
    Cut *cut = opaque;
    PandaBytes extra = {};

    panda_arch_save(&extra);
    g_free(extra.data);
    if (extra.n > 1) {
        error_setg(&cut->err, "recordings of this machine cannot be cut: its "
                   "hypervisor has tables outside of the guest's memory");
        return;
    }
    cut->archive = panda_archive_create(cut->path, &cut->err);
    if (!cut->archive) {
        return;
    }
    if (cut_manifest(cut) && cut_state(cut) && cut_log(cut) && cut_end(cut)) {
        panda_archive_finish(cut->archive, &cut->err);
    } else {
        panda_archive_abandon(cut->archive);
    }
}

int panda_replay_cut(const char *path, uint64_t end, uint64_t *length)
{
    Cut cut = {
        .path = path, .end = end, .first_count = panda_count_raw(),
    };
    int status = panda_check_usable();
    PandaPlayerRest rest;

    if (status != PANDA_OK) {
        return status;
    }
    if (!panda_rr_replaying() || !panda_player_rest(&rest)
        || !panda_checkpoints_kept()) {
        return panda_fail(PANDA_ERR_STATE, "the replay is not at the "
                          "beginning of a slice");
    }
    status = panda_run_in_main_loop(do_cut, &cut, PANDA_PATIENCE_MS);
    if (status == PANDA_OK && cut.err) {
        return panda_fail_error(PANDA_ERR_RECORDING, cut.err);
    }
    *length = cut.count;
    return status;
}
