/*
 * Making a recording.
 *
 * The log is a sequence of slices: what cpu_exec() did in one run, and what
 * devices did after it. A slice's record begins with the place where it ended,
 * so that the replay knows it beforehand. Slices are gathered in chunks, which
 * are members of the file, each readable on its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/recorder.h"
#include "record/border.h"
#include "record/chunks.h"
#include "record/host_writes.h"
#include "record/live.h"
#include "record/log.h"
#include "record/packets.h"
#include "record/player.h"
#include "record/regions.h"
#include "record/reset.h"
#include "record/saver.h"
#include "record/source.h"
#include "record/state.h"
#include "core/machine.h"
#include "hw/boards.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/uuid.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"
#include "qobject/qnum.h"
#include "qobject/qjson.h"
#include "system/block-backend.h"
#include "system/runstate.h"

/* A chunk is written when it has this many bytes or is this old. */
#define CHUNK_BYTES (1u << 20)
#define CHUNK_NS    (1000 * 1000 * 1000LL)
/* A slice has at most so many instructions: registers are compared then. */
#define SLICE_INSNS (1 << 24)
/* Of RAM, this part is compared at the end of a chunk, in turn. */
#define RAM_PARTS 32
/* Not of each, if they are many because they are large. */
#define RAM_CHECK_NS (CHUNK_NS / 2)

PandaRrMode panda_rr_state;
uint64_t panda_rr_steps;
PandaRrReport panda_rr_facts;
char *panda_rr_file;

/* The slice that runs, or ran last; what came after it; the chunk. */
static PandaBytes calls, pause_log, chunk;
static PandaLines lines_before;
static uint64_t slice_count, slice_steps, slice_digest;
static uint64_t begin_count, begin_steps;
static bool slice_ran, slice_interrupted, slice_written;
static int64_t chunk_began;
static uint64_t chunk_count, chunk_steps;
static unsigned chunk_number;
static unsigned ram_part;
static int64_t ram_checked;
static uint64_t epoch;
static bool failed;
static char *failure;

void panda_rr_set_state(PandaRrMode state)
{
    qatomic_set(&panda_rr_state, state);
    panda_vcpu.pub.rr_mode = state;
    panda_vcpu.pub.rr_guest_instr_count = 0;
}

/* ---- chunks ---- */

static void begin_chunk(void)
{
    chunk_began = g_get_monotonic_time() * 1000;
    chunk_count = begin_count;
    chunk_steps = begin_steps;
    panda_border_chunk();
    panda_source_chunk();
}

/*
 * A chunk's end: a digest of a part of RAM. Not while a device has a part of
 * it mapped: it may be written at this moment.
 */
static void check_ram(PandaChunkHead *head)
{
    int64_t now = g_get_monotonic_time() * 1000;
    unsigned n;
    PandaRam *ram = panda_rams(&n);

    if (!panda_maps_active() && now - ram_checked >= RAM_CHECK_NS) {
        head->check = ram_part + 1;
        head->digest = panda_ram_part_digest(ram, n, ram_part, RAM_PARTS);
        ram_part = (ram_part + 1) % RAM_PARTS;
        ram_checked = now;
    }
}

static void end_chunk(void)
{
    g_autofree char *name = g_strdup_printf("log/%06u", chunk_number);
    PandaChunkHead head = {
        .count = chunk_count, .steps = chunk_steps,
        .n_count = begin_count - chunk_count,
        .n_steps = begin_steps - chunk_steps,
    };
    PandaBytes out = {};

    check_ram(&head);
    panda_chunk_put_head(&out, &head);
    panda_bytes_put(&out, chunk.data, chunk.n);
    panda_saver_add(name, out.data, out.n);
    chunk_number++;
    chunk.n = 0;
    begin_chunk();
}

/* ---- slices ---- */

/* The slice that ran last, and all after it, are over. */
static void put_slice(void)
{
    PandaSlice slice = {
        .n_count = slice_count - begin_count,
        .n_steps = slice_steps - begin_steps,
        .flags = (slice_ran ? PANDA_SLICE_RAN : 0)
                 | (slice_interrupted ? PANDA_SLICE_INTERRUPTED : 0)
                 | (slice_written ? PANDA_SLICE_WRITTEN : 0),
        .digest = slice_digest,
        .calls = { calls.data, calls.data + calls.n },
        .pause = { pause_log.data, pause_log.data + pause_log.n },
    };

    panda_slice_put(&chunk, &slice);
    begin_count = slice_count;
    begin_steps = slice_steps;
    slice_interrupted = slice_written = false;
    calls.n = 0;
    pause_log.n = 0;
    panda_packet_forget();
    panda_rr_facts.slices++;
}

static bool chunk_is_due(void)
{
    return chunk.n > CHUNK_BYTES
        || g_get_monotonic_time() * 1000 - chunk_began > CHUNK_NS;
}

static void begin_slice(CPUState *cs)
{
    panda_lines_log(&lines_before, false);
    if (slice_count > begin_count) {
        panda_live_slice(cs);
    }
    put_slice();
    if (chunk_is_due()) {
        end_chunk();
    }
    if (begin_count >> PANDA_EPOCH_BITS != epoch) {
        epoch = begin_count >> PANDA_EPOCH_BITS;
        panda_tlb_forget(cs);
    }
    panda_log = &calls;
    panda_border_slice(begin_count);
}

void panda_rr_step(CPUState *cs, bool interrupt)
{
    panda_rr_steps++;
    if (panda_rr_replaying()) {
        panda_player_step(cs);
    } else if (interrupt) {
        /* The slice ends here: a replay must know the place beforehand. */
        slice_interrupted = true;
        qatomic_set(&cs->exit_request, true);
        qatomic_set(&cs->neg.icount_decr.u16.high, -1);
    }
}

static void end_slice(CPUState *cs)
{
    slice_count = panda_count_raw();
    slice_steps = panda_rr_steps;
    slice_digest = panda_arch_rr_digest(cs, true);
    slice_ran = true;
    panda_lines_read(&lines_before);
    panda_log = &pause_log;
    if (unlikely(panda_host_writes_pending())) {
        slice_written = panda_host_writes_log(cs);
    }
    qatomic_set(&panda_rr_facts.instructions, slice_count);
}

static void give_up(void *opaque);

int panda_recorder_exec(CPUState *cs)
{
    int result;

    panda_gate_enter_vcpu();
    if (!panda_rr_recording()) {
        /* It has ended while the gate was shut. */
        panda_gate_leave_vcpu();
        return EXCP_INTERRUPT;
    }
    begin_slice(cs);
    result = panda_count_exec(cs, SLICE_INSNS);
    end_slice(cs);
    panda_gate_leave_vcpu();
    if (unlikely(panda_saver_failed() && !failed)) {
        panda_recorder_fail(NULL);
    }
    return result;
}

/* ---- begin and end ---- */

static void put_str(QDict *d, const char *key, const char *value)
{
    qdict_put_str(d, key, value ?: "");
}

static void add_json(const char *name, QDict *d)
{
    g_autoptr(GString) text = qobject_to_json_pretty(QOBJECT(d), true);
    size_t n = text->len;

    g_string_append_c(text, '\n');
    panda_saver_add(name, (uint8_t *)g_string_free(g_steal_pointer(&text),
                                                   false), n + 1);
    qobject_unref(d);
}

/* What a replay puts in the place of the disk images. */
static QList *list_disks(bool complete)
{
    QList *disks = qlist_new();

    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        BlockDriverState *bs = blk_bs(blk);
        QDict *disk = qdict_new();

        put_str(disk, "name", blk_name(blk));
        put_str(disk, "node", bs ? bdrv_get_node_name(bs) : "");
        qdict_put_int(disk, "size", bs ? MAX(0, blk_getlength(blk)) : 0);
        if (complete && bs) {
            g_autofree char *digest = g_strdup_printf(
                "%016" PRIx64, panda_live_disk_digest(blk));

            put_str(disk, "digest", digest);
        }
        qlist_append(disks, disk);
    }
    return disks;
}

static void add_manifest(bool complete)
{
    QDict *d = qdict_new();
    QList *version = qlist_new(), *args = qlist_new(), *blocks = qlist_new();
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *created = g_date_time_format_iso8601(now);
    QemuUUID uuid;
    g_autofree char *id = NULL;
    unsigned n;
    PandaRam *ram = panda_rams(&n);
    char **argv;
    int argc;

    qemu_uuid_generate(&uuid);
    id = qemu_uuid_unparse_strdup(&uuid);
    qlist_append_int(version, PANDA_RECORDING_MAJOR);
    qlist_append_int(version, PANDA_RECORDING_MINOR);
    put_str(d, "format", "pandalite-recording");
    qdict_put(d, "version", version);
    put_str(d, "id", id);
    put_str(d, "created", created);
    put_str(d, "arch", PANDALITE_ARCH);
    put_str(d, "machine", MACHINE_GET_CLASS(current_machine)->name);
    put_str(d, "cpu", object_get_typename(OBJECT(panda_vcpu.cs)));
    qdict_put_int(d, "ram_size", current_machine->ram_size);
    /* Some CPUs have both: that of the guest at this moment. */
    put_str(d, "byte_order",
            cpu_virtio_is_big_endian(panda_vcpu.cs) ? "big" : "little");
    put_str(d, "core_version", PANDALITE_VERSION);
    put_str(d, "qemu_version", QEMU_VERSION);
    panda_machine_args(&argv, &argc);
    for (int i = 0; i < argc; i++) {
        qlist_append_str(args, argv[i]);
    }
    qdict_put(d, "args", args);
    for (unsigned i = 0; i < n; i++) {
        QDict *block = qdict_new();

        put_str(block, "name", ram[i].name);
        qdict_put_int(block, "size", ram[i].size);
        qlist_append(blocks, block);
    }
    qdict_put(d, "blocks", blocks);
    qdict_put(d, "disks", list_disks(complete));
    qdict_put_bool(d, "devices", complete);
    qdict_put_int(d, "ram_parts", RAM_PARTS);
    qdict_put_int(d, "epoch", 1 << PANDA_EPOCH_BITS);
    add_json("manifest.json", d);
}

static void add_end(void)
{
    QDict *d = qdict_new();
    g_autofree char *digest =
        g_strdup_printf("%016" PRIx64, panda_rr_facts.ram_digest);

    qdict_put_int(d, "instructions", panda_rr_facts.instructions);
    qdict_put_int(d, "steps", panda_rr_steps);
    qdict_put_int(d, "slices", panda_rr_facts.slices);
    qdict_put_int(d, "crossings", panda_border_crossings());
    qdict_put_int(d, "chunks", chunk_number);
    put_str(d, "ram_digest", digest);
    add_json(PANDA_ARCHIVE_LAST, d);
}

typedef struct Begin {
    const char *path, *snapshot;
    Error *err;
    PandaStatus kind;
} Begin;

static void begin_log(void)
{
    panda_log = &pause_log;
    calls.n = pause_log.n = chunk.n = 0;
    slice_ran = slice_interrupted = slice_written = false;
    panda_host_writes_begin();
    slice_count = slice_steps = begin_count = begin_steps = 0;
    panda_rr_steps = 0;
    chunk_number = 0;
    ram_part = 0;
    ram_checked = 0;
    epoch = 0;
    failed = false;
    g_clear_pointer(&failure, g_free);
    panda_border_begin();
    begin_chunk();
    panda_regions_clear();
    panda_lines_read(&lines_before);
}

static bool start(const char *path, Error **errp)
{
    CPUState *cs = panda_vcpu.cs;
    PandaBytes state = {};
    const char *why = panda_rr_refusal(cs);
    PandaRamCopy *copy;
    PandaArchiveWriter *w;
    PandaRam *ram;
    unsigned n;

    if (why) {
        error_setg(errp, "this machine cannot be recorded: %s", why);
        return false;
    }
    panda_rams_clear();
    panda_lines_setup(cs);
    if (!panda_state_save(&state, errp)) {
        return false;
    }
    ram = panda_rams(&n);
    copy = panda_ram_copy(ram, n, errp);
    w = copy ? panda_archive_create(path, errp) : NULL;
    if (!w) {
        panda_ram_copy_free(copy);
        g_free(state.data);
        return false;
    }
    panda_rr_facts = (PandaRrReport) {};
    panda_saver_begin(w);
    add_manifest(panda_live_begin());
    panda_saver_add("state", state.data, state.n);
    panda_saver_add_ram(copy);
    g_free(panda_rr_file);
    panda_rr_file = g_strdup(path);
    panda_count_as_in_format(PANDA_RECORDING_MAJOR);
    panda_count_switch(true);
    begin_log();
    panda_rr_set_state(PANDA_RR_RECORD);
    panda_gate_open(true);
    if (panda_in_run()) {
        panda_gate_enter_main();
    }
    return true;
}

static void do_begin(void *opaque)
{
    Begin *b = opaque;
    int64_t began;
    bool was_running;

    if (qatomic_read(&panda_rr_state) != PANDA_RR_OFF) {
        b->kind = PANDA_ERR_STATE;
        error_setg(&b->err, "the machine is %s already",
                   panda_rr_recording() ? "recorded" : "replaying");
        return;
    }
    if (b->snapshot) {
        int status = panda_snapshot_load(b->snapshot);

        if (status != PANDA_OK) {
            b->kind = status;
            error_setg(&b->err, "%s", panda_last_error());
            return;
        }
    }
    began = g_get_monotonic_time();
    was_running = runstate_is_running();
    if (was_running) {
        vm_stop(RUN_STATE_PAUSED);
    }
    b->kind = PANDA_ERR_RECORDING;
    start(b->path, &b->err);
    if (was_running) {
        vm_start();
    }
    panda_rr_facts.stall_ns = (g_get_monotonic_time() - began) * 1000;
}

/* Called in a callback: nobody waits for the result. */
static void do_begin_later(void *opaque)
{
    Begin *b = opaque;

    do_begin(b);
    if (b->err) {
        error_reportf_err(b->err, "record: ");
    }
    g_free((char *)b->path);
    g_free((char *)b->snapshot);
    g_free(b);
}

int panda_record_begin(const char *path, const char *snapshot)
{
    Begin b = { .path = path, .snapshot = snapshot };
    int status;

    if (panda_in_vcpu_thread()) {
        Begin *later = g_new0(Begin, 1);

        later->path = g_strdup(path);
        later->snapshot = g_strdup(snapshot);
        panda_do_break_exec();
        return panda_call_in_main_loop(do_begin_later, later);
    }
    status = panda_run_in_main_loop(do_begin, &b, PANDA_PATIENCE_MS);
    return status == PANDA_OK && b.err ? panda_fail_error(b.kind, b.err)
                                       : status;
}

/* The machine stands still, and nothing of a slice is open. */
static bool finish(Error **errp)
{
    CPUState *cs = panda_vcpu.cs;
    bool complete = !failed;
    unsigned n;
    PandaRam *ram = panda_rams(&n);
    bool ok;

    panda_lines_log(&lines_before, false);
    put_slice();
    panda_rr_facts.instructions = begin_count;
    panda_rr_facts.ram_digest = panda_ram_digest(ram, n);
    panda_rr_facts.crossings = panda_border_crossings();
    end_chunk();
    if (complete) {
        add_end();
    }
    panda_rr_set_state(PANDA_RR_OFF);
    panda_gate_open(false);
    panda_count_switch(false);
    ok = panda_saver_end(complete, &panda_rr_facts.file_size, errp);
    if (!ok) {
        error_prepend(errp, "the recording is cut off: ");
        error_append_hint(errp, "What there is of it is %s.part.\n",
                          panda_rr_file);
    }
    return ok;
}

typedef struct End {
    Error *err;
    PandaStatus kind;
} End;

static void do_end(void *opaque)
{
    End *e = opaque;
    bool was_running = runstate_is_running();

    if (!panda_rr_recording()) {
        e->kind = PANDA_ERR_STATE;
        error_setg(&e->err, "nothing is being recorded");
        return;
    }
    if (was_running) {
        vm_stop(RUN_STATE_PAUSED);
    }
    e->kind = PANDA_ERR_RECORDING;
    finish(&e->err);
    if (was_running) {
        vm_start();
    }
}

/* The file cannot be written: the run ends with the reason. */
static void give_up(void *opaque)
{
    Error *err = NULL;

    if (panda_rr_recording()) {
        vm_stop(RUN_STATE_PAUSED);
        if (!finish(&err) && !failure) {
            failure = g_strdup(error_get_pretty(err));
        }
        error_free(err);
        panda_request_stop(PANDA_RUN_RECORDING_FAILED);
    }
}

void panda_recorder_fail(Error *err)
{
    if (!failed) {
        failed = true;
        g_free(failure);
        failure = err ? g_strdup(error_get_pretty(err)) : NULL;
        panda_call_in_main_loop(give_up, NULL);
    }
    error_free(err);
}

const char *panda_record_failure(void)
{
    return failure ?: "";
}

static void do_end_later(void *opaque)
{
    End e = {};

    do_end(&e);
    if (e.err) {
        error_reportf_err(e.err, "record: ");
    }
}

int panda_record_end(void)
{
    End e = {};
    int status;

    if (panda_in_vcpu_thread()) {
        panda_do_break_exec();
        return panda_call_in_main_loop(do_end_later, NULL);
    }
    status = panda_run_in_main_loop(do_end, &e, PANDA_PATIENCE_MS);
    return status == PANDA_OK && e.err ? panda_fail_error(e.kind, e.err)
                                       : status;
}

void panda_recorder_finish(void)
{
    Error *err = NULL;

    if (panda_rr_recording() && !finish(&err)) {
        error_report_err(err);
    }
}

/* ---- facts ---- */

int panda_rr_mode(void)
{
    return qatomic_read(&panda_rr_state);
}

const char *panda_rr_path(void)
{
    return panda_rr_on() ? panda_rr_file : NULL;
}

void panda_rr_report(PandaRrReport *report)
{
    *report = panda_rr_facts;
    report->crossings = panda_border_crossings();
}
