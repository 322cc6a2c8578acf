/*
 * Replaying a recording.
 *
 * Slice by slice: the CPU runs until it is at the place where the slice ended
 * in the recording; what it asks of devices is answered out of the slice.
 * Then the effects follow that devices had before the next one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/player.h"
#include "record/archive.h"
#include "record/border.h"
#include "record/checkpoint.h"
#include "record/effects.h"
#include "record/packets.h"
#include "record/recorder.h"
#include "record/state.h"
#include "core/machine.h"
#include "exec/exec-all.h"
#include "hw/boards.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/uuid.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "qobject/qjson.h"
#include "qobject/qstring.h"
#include "system/cpus.h"
#include "system/runstate.h"

/* More instructions than a block has. */
#define BLOCK_MAX 4096

PandaLogCursor panda_player_calls;
bool panda_player_failed;

static PandaArchive *archive;
static PandaRam *rams;
static unsigned n_rams, ram_parts;
/* Members that are chunks of the log, in order. */
static GArray *chunks;
/* Instructions since an epoch began, where the recording begins. */
static uint64_t epoch_base;
static uint64_t epoch;
static bool begun;
/* The replay stops when so many instructions are executed. */
static uint64_t stop_at = UINT64_MAX;
static bool frozen, finished;
static char *divergence;

/* The chunk that is played. */
static uint8_t *chunk_data;
static PandaLogCursor chunk;
static unsigned next_chunk;
static uint64_t chunk_end_count, chunk_end_steps;
static unsigned ram_check;
static uint64_t ram_digest;

/* The slice that is played. */
static bool have_slice, slice_ran, slice_entered, slice_checked;
/* It ended as an interrupt was delivered. */
static bool slice_interrupted;
static uint64_t slice_count, slice_steps;
static uint32_t slice_digest;
static PandaLogCursor pause_cursor;
/* Where its record begins, and where it began in the execution. */
static const uint8_t *slice_at;
static uint64_t slice_begin;

static uint64_t epoch_of(uint64_t count)
{
    return (count + epoch_base) >> PANDA_EPOCH_BITS;
}

/* ---- failure ---- */

const char *panda_rr_divergence(void)
{
    return divergence ?: "";
}

void panda_player_diverged(const char *fmt, ...)
{
    CPUState *cs = panda_vcpu.cs;
    va_list ap;

    if (panda_player_failed) {
        return;
    }
    va_start(ap, fmt);
    g_free(divergence);
    divergence = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    panda_rr_facts.diverged = true;
    panda_rr_facts.diverged_at = panda_count_raw();
    panda_rr_facts.diverged_pc = panda_arch_get_pc(cs);
    qatomic_set(&panda_player_failed, true);
    cpu_exit(cs);
}

void panda_player_stray_write(MemoryRegion *mr)
{
    panda_player_diverged("memory of %s was written from outside of the "
                          "recording", memory_region_name(mr));
}

PandaRam *panda_player_rams(unsigned *count)
{
    *count = n_rams;
    return rams;
}

/* ---- reading the log ---- */

/* A chunk's header: where it begins, its length, what RAM is compared with. */
typedef struct ChunkHead {
    uint64_t count, steps, n_count, n_steps;
    unsigned check;
    uint64_t digest;
} ChunkHead;

static ChunkHead read_head(PandaLogCursor *c)
{
    ChunkHead head = {};
    const uint8_t *digest;

    head.count = panda_log_get(c);
    head.steps = panda_log_get(c);
    head.n_count = panda_log_get(c);
    head.n_steps = panda_log_get(c);
    head.check = panda_log_get(c);
    if (head.check && (digest = panda_log_get_bytes(c, 8))) {
        memcpy(&head.digest, digest, 8);
    }
    return head;
}

/* Unpack a chunk and read its header: where it begins. */
static bool open_chunk(unsigned number, uint64_t *count, uint64_t *steps)
{
    Error *err = NULL;
    ChunkHead head;
    size_t size;

    g_free(chunk_data);
    chunk_data = panda_archive_read(
        archive, g_array_index(chunks, unsigned, number), &size, &err);
    if (!chunk_data) {
        panda_player_diverged("%s", error_get_pretty(err));
        error_free(err);
        return false;
    }
    chunk = (PandaLogCursor) { chunk_data, chunk_data + size };
    head = read_head(&chunk);
    *count = head.count;
    *steps = head.steps;
    chunk_end_count = head.count + head.n_count;
    chunk_end_steps = head.steps + head.n_steps;
    ram_check = head.check;
    ram_digest = head.digest;
    next_chunk = number + 1;
    return true;
}

static bool load_chunk(void)
{
    uint64_t count, steps;

    if (next_chunk >= chunks->len
        || !open_chunk(next_chunk, &count, &steps)) {
        return false;
    }
    if (chunk.bad || ram_check > ram_parts || count != panda_count_raw()
        || steps != panda_rr_steps) {
        panda_player_diverged("the recording is damaged: chunk %u of its log "
                              "does not follow the one before",
                              next_chunk - 1);
        return false;
    }
    panda_border_chunk();
    return true;
}

void panda_player_position(PandaPosition *p)
{
    *p = (PandaPosition) {
        .chunk = next_chunk - 1, .this_slice = slice_at - chunk_data,
        .next_slice = chunk.at - chunk_data,
        .calls = panda_player_calls.at - chunk_data,
        .calls_end = panda_player_calls.end - chunk_data,
        .pause = pause_cursor.at - chunk_data,
        .pause_end = pause_cursor.end - chunk_data,
        .slice_count = slice_count, .slice_steps = slice_steps,
        .slice_digest = slice_digest, .slice_ran = slice_ran,
        .slice_interrupted = slice_interrupted,
    };
}

void panda_player_go_to(const PandaPosition *p)
{
    uint64_t count, steps;

    panda_player_failed = false;
    g_clear_pointer(&divergence, g_free);
    panda_rr_facts.diverged = false;
    finished = false;
    have_slice = false;
    panda_packet_forget();
    if ((p->chunk != next_chunk - 1 || !chunk_data)
        && !open_chunk(p->chunk, &count, &steps)) {
        return;
    }
    chunk.bad = false;
    chunk.at = chunk_data + p->next_slice;
    slice_at = chunk_data + p->this_slice;
    slice_begin = panda_count_raw();
    panda_player_calls = (PandaLogCursor) {
        chunk_data + p->calls, chunk_data + p->calls_end,
    };
    pause_cursor = (PandaLogCursor) {
        chunk_data + p->pause, chunk_data + p->pause_end,
    };
    slice_count = p->slice_count;
    slice_steps = p->slice_steps;
    slice_digest = p->slice_digest;
    slice_ran = p->slice_ran;
    slice_interrupted = p->slice_interrupted;
    slice_entered = slice_checked = false;
    have_slice = true;
    epoch = epoch_of(panda_count_raw());
}

static bool check_chunk_end(void)
{
    if (panda_count_raw() != chunk_end_count
        || panda_rr_steps != chunk_end_steps) {
        panda_player_diverged("the recording is damaged: chunk %u of its log "
                              "ends at another place than it should",
                              next_chunk - 1);
        return false;
    }
    if (ram_check && panda_ram_part_digest(rams, n_rams, ram_check - 1,
                                           ram_parts) != ram_digest) {
        panda_player_diverged("part %u of %u of RAM is not what it was in the "
                              "recording", ram_check - 1, ram_parts);
        return false;
    }
    return true;
}

static bool read_slice(void)
{
    PandaLogCursor body;
    const uint8_t *bytes;
    unsigned flags;
    size_t n;

    slice_at = chunk.at;
    slice_begin = panda_count_raw();
    bytes = panda_log_get_string(&chunk, &n);
    body = (PandaLogCursor) { bytes, bytes + (bytes ? n : 0) };
    slice_count = panda_count_raw() + panda_log_get(&body);
    slice_steps = panda_rr_steps + panda_log_get(&body);
    flags = panda_log_get(&body);
    slice_ran = flags & PANDA_SLICE_RAN;
    slice_interrupted = flags & PANDA_SLICE_INTERRUPTED;
    if (slice_ran && (bytes = panda_log_get_bytes(&body, 4))) {
        memcpy(&slice_digest, bytes, 4);
    }
    bytes = panda_log_get_string(&body, &n);
    if (!bytes || body.bad) {
        panda_player_diverged("the recording is damaged: chunk %u of its log "
                              "is malformed", next_chunk - 1);
        return false;
    }
    panda_player_calls = (PandaLogCursor) { bytes, bytes + n };
    pause_cursor = body;
    panda_packet_forget();
    slice_entered = slice_checked = false;
    have_slice = true;
    panda_border_slice(panda_count_raw());
    return true;
}

/* Go to the next slice; false at the end of the recording. */
static bool next_slice(void)
{
    have_slice = false;
    while (panda_log_at_end(&chunk)) {
        if ((next_chunk && !check_chunk_end()) || !load_chunk()) {
            return false;
        }
    }
    return read_slice();
}

/* ---- playing ---- */

/* Exceptions that are yet to come in the slice. */
static bool exceptions_come(void)
{
    return panda_rr_steps + slice_interrupted < slice_steps;
}

void panda_player_step(CPUState *cs)
{
    if (have_slice && !exceptions_come()) {
        /* From here on the place is known by its instructions. */
        qatomic_set(&cs->exit_request, true);
        qatomic_set(&cs->neg.icount_decr.u16.high, -1);
    }
}

/*
 * The CPU looks for interrupts. In the recording it did so at other places
 * too, but one was delivered only at the end of a slice; and if looking asked
 * a device, the answer is next in the log.
 */
bool panda_player_interrupts(CPUState *cs)
{
    uint64_t count = panda_count_raw();
    PandaLogCursor next = panda_player_calls;
    const uint8_t *kind;

    if (panda_player_failed || !have_slice) {
        return false;
    }
    if (slice_interrupted && count == slice_count
        && panda_rr_steps + 1 == slice_steps) {
        return true;
    }
    while ((kind = panda_log_at_end(&next) ? NULL
                                           : panda_log_get_bytes(&next, 1))
           && (*kind == PANDA_ENTRY_LINES
               || *kind == PANDA_ENTRY_LINES_KICK)) {
        for (uint64_t n = ctpop64(panda_log_get(&next)); n; n--) {
            panda_log_get(&next);
        }
    }
    return kind && *kind == PANDA_ENTRY_VALUE
        && panda_border.count + panda_log_get(&next) == count;
}

static void apply_pause(CPUState *cs)
{
    const uint8_t *kind;

    bql_lock();
    panda_packet_forget();
    while (!panda_log_at_end(&pause_cursor)) {
        kind = panda_log_get_bytes(&pause_cursor, 1);
        if (!panda_effect_apply(cs, *kind, &pause_cursor)) {
            panda_log_bad(&pause_cursor);
        }
    }
    bql_unlock();
    if (pause_cursor.bad) {
        panda_player_diverged("the recording is damaged: chunk %u of its log "
                              "is malformed", next_chunk - 1);
    }
}

static bool arrived(CPUState *cs)
{
    uint64_t count = panda_count_raw();

    if (!slice_ran) {
        return true;
    }
    if (count > slice_count || panda_rr_steps > slice_steps) {
        panda_player_diverged("the CPU went on where in the recording it was "
                              "interrupted after %" PRIu64 " instructions",
                              slice_count);
        return false;
    }
    return slice_entered && count == slice_count
        && panda_rr_steps == slice_steps;
}

static bool check_slice(CPUState *cs)
{
    uint32_t digest;

    if (!slice_ran || slice_checked || panda_player_failed) {
        return !panda_player_failed;
    }
    slice_checked = true;
    if (!panda_log_at_end(&panda_player_calls)) {
        panda_player_diverged("in the recording devices were accessed once "
                              "more");
        return false;
    }
    digest = panda_arch_rr_digest(cs, true);
    if (digest != slice_digest) {
        panda_player_diverged("the CPU's registers are not what they were in "
                              "the recording");
        return false;
    }
    return true;
}

static void stop_at_end(void)
{
    panda_request_stop(panda_player_failed ? PANDA_RUN_REPLAY_DIVERGED
                                           : PANDA_RUN_REPLAY_END);
    cpu_stop_current();
}

static void end_replay(CPUState *cs)
{
    if (!panda_player_failed) {
        panda_rr_facts.ram_digest = panda_ram_digest(rams, n_rams);
        if (panda_rr_facts.recorded_ram_digest
            && panda_rr_facts.ram_digest
               != panda_rr_facts.recorded_ram_digest) {
            panda_player_diverged("RAM is not what it was at the end of the "
                                  "recording");
        }
    }
    finished = true;
    stop_at_end();
}

/* The TLB is emptied, and there may be a checkpoint. */
static void begin_epoch(CPUState *cs, uint64_t count)
{
    if (epoch_of(count) != epoch) {
        epoch = epoch_of(count);
        panda_tlb_forget(cs);
        if (panda_checkpoints_kept()) {
            panda_checkpoint_take(cs);
        }
    }
}

/* It has come to where it was to come. */
static void stop(CPUState *cs)
{
    panda_request_stop(PANDA_RUN_REPLAY_STOPPED);
    cpu_stop_current();
}

static void play(CPUState *cs)
{
    uint64_t count = panda_count_raw();
    int64_t budget = slice_count - count;

    if (exceptions_come()) {
        /*
         * It ends with one or after it: the block that leads to it must not be
         * cut short, as it was not in the recording.
         */
        budget += BLOCK_MAX;
    }
    if (!slice_entered) {
        begin_epoch(cs, count);
    }
    if (count >= stop_at) {
        stop(cs);
        return;
    }
    slice_entered = true;
    panda_count_exec(cs, MIN(budget, stop_at - count));
    qatomic_set(&panda_rr_facts.instructions, panda_count_raw());
}

int panda_player_exec(CPUState *cs)
{
    if (finished) {
        stop_at_end();
        return EXCP_INTERRUPT;
    }
    if (!have_slice && !next_slice()) {
        end_replay(cs);
        return EXCP_INTERRUPT;
    }
    if (panda_checkpoints_kept() && !begun) {
        /* RAM is what the file says; the first slice may change it. */
        panda_checkpoint_take(cs);
    }
    begun = true;
    while (!panda_player_failed && arrived(cs)) {
        if (!check_slice(cs)) {
            break;
        }
        apply_pause(cs);
        panda_rr_facts.slices++;
        if (panda_player_failed || !next_slice()) {
            end_replay(cs);
            return EXCP_INTERRUPT;
        }
        if (cs->stop || !QSIMPLEQ_EMPTY(&cs->work_list)) {
            return EXCP_INTERRUPT;
        }
    }
    if (!panda_player_failed) {
        play(cs);
        /* At once: work that was queued for the CPU may change it. */
        if (arrived(cs)) {
            check_slice(cs);
        }
    }
    if (panda_player_failed) {
        end_replay(cs);
    }
    return EXCP_INTERRUPT;
}

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

bool panda_player_frozen(void)
{
    return frozen;
}

/* A halted CPU does not sleep: what wakes it is in the log. */
bool __real_all_cpu_threads_idle(void);
bool __wrap_all_cpu_threads_idle(void);
bool __wrap_all_cpu_threads_idle(void)
{
    if (panda_rr_replaying() && !finished && runstate_is_running()
        && !first_cpu->stopped) {
        return false;
    }
    return __real_all_cpu_threads_idle();
}

/* ---- begin and end ---- */

static QDict *read_json(const char *name, Error **errp)
{
    int i = panda_archive_find(archive, name);
    g_autofree uint8_t *text = NULL;
    QObject *object;
    size_t n;

    if (i < 0) {
        error_setg(errp, "the recording has no %s", name);
        return NULL;
    }
    text = panda_archive_read(archive, i, &n, errp);
    if (!text) {
        return NULL;
    }
    object = qobject_from_json((char *)text, errp);
    if (object && !qobject_to(QDict, object)) {
        qobject_unref(object);
        object = NULL;
        error_setg(errp, "the recording's %s is malformed", name);
    }
    return qobject_to(QDict, object);
}

static bool same(QDict *d, const char *key, const char *ours, Error **errp)
{
    const char *theirs = qdict_get_try_str(d, key);

    if (!theirs || strcmp(theirs, ours)) {
        error_setg(errp, "the recording is of a machine with %s %s, this one "
                   "has %s", key, theirs ?: "unknown", ours);
        return false;
    }
    return true;
}

static bool check_version(QDict *d, Error **errp)
{
    QList *version = qobject_to(QList, qdict_get(d, "version"));
    QNum *major = version && qlist_first(version)
        ? qobject_to(QNum, qlist_entry_obj(qlist_first(version))) : NULL;
    int64_t number = 0;

    if (g_strcmp0(qdict_get_try_str(d, "format"), "pandalite-recording")
        || !major || !qnum_get_try_int(major, &number)) {
        error_setg(errp, "it is no recording of pandalite");
        return false;
    }
    if (number > PANDA_RECORDING_MAJOR) {
        error_setg(errp, "the recording has format %" PRId64 ", this version "
                   "of pandalite reads up to %d: a newer one is needed",
                   number, PANDA_RECORDING_MAJOR);
        return false;
    }
    panda_count_by_iteration(number < 2);
    return true;
}

/* Find the recording's blocks among the machine's. */
static bool match_blocks(QDict *d, Error **errp)
{
    QList *list = qobject_to(QList, qdict_get(d, "blocks"));
    const QListEntry *entry;
    unsigned n;
    PandaRam *ours = panda_rams(&n);

    n_rams = 0;
    rams = g_renew(PandaRam, rams, list ? qlist_size(list) : 1);
    if (!list) {
        error_setg(errp, "the recording's manifest is malformed");
        return false;
    }
    QLIST_FOREACH_ENTRY(list, entry) {
        QDict *block = qobject_to(QDict, qlist_entry_obj(entry));
        const char *name = block ? qdict_get_try_str(block, "name") : NULL;
        uint64_t size = block ? qdict_get_try_int(block, "size", 0) : 0;
        PandaRam *found = NULL;

        for (unsigned i = 0; name && i < n; i++) {
            if (!strcmp(ours[i].name, name)) {
                found = &ours[i];
            }
        }
        if (!found || found->size != size) {
            error_setg(errp, "the recording is of another machine: its memory "
                       "%s has %" PRIu64 " bytes, here it has %" PRIu64,
                       name ?: "?", size, found ? found->size : 0);
            return false;
        }
        rams[n_rams++] = *found;
    }
    return true;
}

static bool find_chunks(Error **errp)
{
    if (chunks) {
        g_array_unref(chunks);
    }
    chunks = g_array_new(false, false, sizeof(unsigned));
    for (unsigned i = 0; i < panda_archive_members(archive); i++) {
        const char *name = panda_archive_name(archive, i);

        if (g_str_has_prefix(name, "log/")) {
            g_autofree char *wanted = g_strdup_printf("log/%06u", chunks->len);

            if (strcmp(name, wanted)) {
                error_setg(errp, "the recording is damaged: its member %s is "
                           "where %s should be", name, wanted);
                return false;
            }
            g_array_append_val(chunks, i);
        }
    }
    return true;
}

static bool read_end(Error **errp)
{
    QDict *end;
    const char *digest;

    panda_rr_facts.cut_off = panda_archive_is_cut(archive)
        && panda_archive_find(archive, PANDA_ARCHIVE_LAST) < 0;
    if (panda_rr_facts.cut_off) {
        /* All of RAM is there if something follows it. */
        if (!chunks->len) {
            error_setg(errp, "the recording is cut off before it begins");
        }
        return chunks->len;
    }
    end = read_json(PANDA_ARCHIVE_LAST, errp);
    if (!end) {
        return false;
    }
    panda_rr_facts.total = qdict_get_try_int(end, "instructions", 0);
    digest = qdict_get_try_str(end, "ram_digest");
    panda_rr_facts.recorded_ram_digest =
        digest ? g_ascii_strtoull(digest, NULL, 16) : 0;
    if (qdict_get_try_int(end, "chunks", -1) != chunks->len) {
        error_setg(errp, "the recording is damaged: it has %u chunks where "
                   "%" PRId64 " were written", chunks->len,
                   qdict_get_try_int(end, "chunks", -1));
        qobject_unref(end);
        return false;
    }
    qobject_unref(end);
    return true;
}

static void close_recording(void)
{
    panda_archive_close(archive);
    archive = NULL;
    g_clear_pointer(&chunk_data, g_free);
    chunk = (PandaLogCursor) {};
}

/* All that can be refused before the machine is touched. */
static bool open_recording(const char *path, Error **errp)
{
    QDict *manifest = NULL;
    bool ok;

    archive = panda_archive_open(path, errp);
    if (!archive) {
        return false;
    }
    panda_rams_clear();
    manifest = read_json("manifest.json", errp);
    ok = manifest && check_version(manifest, errp)
        && same(manifest, "arch", PANDALITE_ARCH, errp)
        && same(manifest, "qemu_version", QEMU_VERSION, errp)
        && same(manifest, "machine",
                MACHINE_GET_CLASS(current_machine)->name, errp)
        && same(manifest, "cpu",
                object_get_typename(OBJECT(panda_vcpu.cs)), errp)
        && match_blocks(manifest, errp) && find_chunks(errp)
        && read_end(errp);
    if (ok) {
        ram_parts = qdict_get_try_int(manifest, "ram_parts", 0);
        epoch_base = qdict_get_try_int(manifest, "epoch_base", 0);
    }
    qobject_unref(manifest);
    return ok;
}

static bool load_state(Error **errp)
{
    int i = panda_archive_find(archive, "state");
    g_autofree uint8_t *data = NULL;
    size_t n;

    if (i < 0) {
        error_setg(errp, "the recording has no state");
        return false;
    }
    data = panda_archive_read(archive, i, &n, errp);
    return data && panda_ram_load(archive, rams, n_rams, errp)
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
    if (!open_recording(b->path, &b->err)) {
        close_recording();
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
        close_recording();
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
    g_clear_pointer(&divergence, g_free);
    panda_player_failed = finished = have_slice = false;
    next_chunk = 0;
    epoch = 0;
    begun = false;
    stop_at = UINT64_MAX;
    panda_rr_steps = 0;
    g_free(panda_rr_file);
    panda_rr_file = g_strdup(b->path);
    panda_rr_set_state(PANDA_RR_REPLAY);
}

#define PATIENCE_MS (600 * 1000)

int panda_replay_begin(const char *path, uint64_t checkpoint_bytes)
{
    Begin b = { .path = path, .budget = checkpoint_bytes };
    int status = panda_run_in_main_loop(do_begin, &b, PATIENCE_MS);

    if (status == PANDA_OK && b.err) {
        return panda_fail_error(b.kind, b.err);
    }
    if (status == PANDA_OK) {
        panda_start_on_next_run();
    }
    return status;
}

static void do_end(void *opaque)
{
    CPUState *cs = panda_vcpu.cs;

    if (runstate_is_running()) {
        vm_stop(RUN_STATE_PAUSED);
    }
    panda_topology_go_to(0);
    panda_checkpoints_end();
    panda_rr_set_state(PANDA_RR_OFF);
    panda_count_switch(false);
    freeze(false);
    close_recording();
    /* Its devices know nothing of what the CPU did. */
    qemu_system_reset(SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
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
        ? panda_run_in_main_loop(do_end, NULL, PATIENCE_MS) : status;
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
    stop_at = count;
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
        status = panda_run_in_main_loop(do_go_back, &count, PATIENCE_MS);
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
    return panda_rr_replaying() && have_slice ? slice_begin : panda_rr_count();
}

/* ---- cutting a part out ---- */

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
    QDict *d = read_json("manifest.json", &cut->err), *from;
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
    qdict_put_int(d, "epoch_base", (cut->first_count + epoch_base)
                  & ((1ULL << PANDA_EPOCH_BITS) - 1));
    return add_json(cut, "manifest.json", d);
}

/*
 * The state at the recording's start: devices look at RAM when they are loaded,
 * so both have to be of one moment.
 */
static bool cut_state(Cut *cut)
{
    for (unsigned i = 0; i < panda_archive_members(archive); i++) {
        const char *name = panda_archive_name(archive, i);
        g_autofree uint8_t *data = NULL;
        size_t n;

        if (strcmp(name, "state") && !g_str_has_prefix(name, "ram/")) {
            continue;
        }
        data = panda_archive_read(archive, i, &n, &cut->err);
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
    PandaBytes pause = {}, head = {}, cpu = {}, *log = panda_log;
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
    panda_bytes_number(&head, 0);
    panda_bytes_number(&head, 0);
    panda_bytes_number(&head, 0);
    panda_bytes_number(&head, 0);
    panda_bytes_number(body, head.n + pause.n);
    panda_bytes_put(body, head.data, head.n);
    panda_bytes_put(body, pause.data, pause.n);
    g_free(head.data);
    g_free(pause.data);
    g_free(cpu.data);
}

/* Slices of a chunk, up to the one in which the end is. */
static bool cut_slices(Cut *cut, PandaBytes *body, PandaLogCursor c)
{
    while (!panda_log_at_end(&c) && !cut->over) {
        const uint8_t *from = c.at, *bytes;
        PandaLogCursor slice;
        size_t n;

        bytes = panda_log_get_string(&c, &n);
        slice = (PandaLogCursor) { bytes, bytes + (bytes ? n : 0) };
        cut->count += panda_log_get(&slice);
        cut->steps += panda_log_get(&slice);
        cut->slices++;
        cut->over = cut->first_count + cut->count >= cut->end;
        panda_bytes_put(body, from, c.at - from);
    }
    return !c.bad;
}

static bool cut_chunk(Cut *cut, PandaBytes *body, uint64_t count,
                      uint64_t steps, unsigned check, uint64_t digest,
                      bool whole)
{
    g_autofree char *name = g_strdup_printf("log/%06u", cut->chunks++);
    PandaBytes out = {};
    bool ok;

    panda_bytes_number(&out, count);
    panda_bytes_number(&out, steps);
    panda_bytes_number(&out, cut->count - count);
    panda_bytes_number(&out, cut->steps - steps);
    panda_bytes_number(&out, whole ? check : 0);
    if (whole && check) {
        panda_bytes_put(&out, &digest, 8);
    }
    panda_bytes_put(&out, body->data, body->n);
    ok = panda_archive_add(cut->archive, name, out.data, out.n, &cut->err);
    g_free(out.data);
    body->n = 0;
    return ok;
}

static bool cut_log(Cut *cut)
{
    PandaBytes body = {};
    bool ok;

    cut_prologue(&body);
    cut->slices = 1;
    ok = cut_slices(cut, &body, (PandaLogCursor) { slice_at, chunk.end })
        && cut_chunk(cut, &body, 0, 0, ram_check, ram_digest, !cut->over);
    for (unsigned i = next_chunk; ok && i < chunks->len && !cut->over; i++) {
        uint64_t count = cut->count, steps = cut->steps;
        g_autofree uint8_t *data = NULL;
        PandaLogCursor c;
        ChunkHead head;
        size_t n;

        data = panda_archive_read(
            archive, g_array_index(chunks, unsigned, i), &n, &cut->err);
        if (!data) {
            ok = false;
            break;
        }
        c = (PandaLogCursor) { data, data + n };
        head = read_head(&c);
        ok = cut_slices(cut, &body, c)
            && cut_chunk(cut, &body, count, steps, head.check, head.digest,
                         !cut->over);
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

    if (status != PANDA_OK) {
        return status;
    }
    if (!panda_rr_replaying() || !have_slice || slice_entered
        || !panda_checkpoints_kept()) {
        return panda_fail(PANDA_ERR_STATE, "the replay is not at the "
                          "beginning of a slice");
    }
    status = panda_run_in_main_loop(do_cut, &cut, PATIENCE_MS);
    if (status == PANDA_OK && cut.err) {
        return panda_fail_error(PANDA_ERR_RECORDING, cut.err);
    }
    *length = cut.count;
    return status;
}
