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
#include "record/border.h"
#include "record/checkpoint.h"
#include "record/chunks.h"
#include "record/effects.h"
#include "record/live.h"
#include "record/opening.h"
#include "record/packets.h"
#include "record/recorder.h"
#include "record/state.h"
#include "core/machine.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "system/cpus.h"

/* More instructions than a block has. */
#define BLOCK_MAX 4096
/* Runs in which a halted CPU does nothing; others may have interrupted it. */
#define IDLE_MAX 1000

PandaLogCursor panda_player_calls;
bool panda_player_failed;

static uint64_t epoch;
static bool begun;
/* The replay stops when so many instructions are executed. */
static uint64_t stop_at = UINT64_MAX;
static bool finished;
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
static bool slice_interrupted, slice_written;
static uint64_t slice_count, slice_steps;
static uint32_t slice_digest;
static PandaLogCursor pause_cursor;
/* Where its record begins, and where it began in the execution. */
static const uint8_t *slice_at;
static uint64_t slice_begin;

static uint64_t epoch_of(uint64_t count)
{
    return (count + panda_opened.epoch_base) >> PANDA_EPOCH_BITS;
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
    *count = panda_opened.n_rams;
    return panda_opened.rams;
}

/* ---- reading the log ---- */

/* Unpack a chunk and read its header: where it begins. */
static bool open_chunk(unsigned number, uint64_t *count, uint64_t *steps)
{
    Error *err = NULL;
    PandaChunkHead head;
    size_t size;

    g_free(chunk_data);
    chunk_data = panda_opened_chunk(number, &size, &err);
    if (!chunk_data) {
        panda_player_diverged("%s", error_get_pretty(err));
        error_free(err);
        return false;
    }
    chunk = (PandaLogCursor) { chunk_data, chunk_data + size };
    head = panda_chunk_get_head(&chunk);
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

    if (next_chunk >= panda_opened.chunks->len
        || !open_chunk(next_chunk, &count, &steps)) {
        return false;
    }
    if (chunk.bad || ram_check > panda_opened.ram_parts || count != panda_count_raw()
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
        .slice_written = slice_written,
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
    panda_live_forget();
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
    slice_written = p->slice_written;
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
    if (ram_check && panda_ram_part_digest(
            panda_opened.rams, panda_opened.n_rams, ram_check - 1,
            panda_opened.ram_parts) != ram_digest) {
        panda_player_diverged("part %u of %u of RAM is not what it was in the "
                              "recording", ram_check - 1,
                              panda_opened.ram_parts);
        return false;
    }
    return true;
}

static bool read_slice(void)
{
    PandaSlice slice;

    slice_at = chunk.at;
    slice_begin = panda_count_raw();
    /* One that is too long might never end. */
    if (!panda_slice_get(&chunk, &slice)
        || slice.n_count > chunk_end_count - slice_begin
        || slice.n_steps > chunk_end_steps - panda_rr_steps) {
        panda_player_diverged("the recording is damaged: chunk %u of its log "
                              "is malformed", next_chunk - 1);
        return false;
    }
    slice_count = slice_begin + slice.n_count;
    slice_steps = panda_rr_steps + slice.n_steps;
    slice_ran = slice.flags & PANDA_SLICE_RAN;
    slice_interrupted = slice.flags & PANDA_SLICE_INTERRUPTED;
    slice_written = slice.flags & PANDA_SLICE_WRITTEN;
    slice_digest = slice.digest;
    panda_player_calls = slice.calls;
    pause_cursor = slice.pause;
    panda_packet_forget();
    slice_entered = slice_checked = false;
    have_slice = true;
    panda_border_slice(slice_begin);
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

/*
 * The place of a call is counted with the whole block that makes it, and it may
 * be made in the middle (MIPS' tlbwr asks for a random number): a block that is
 * cut short to stop there has fewer instructions.
 */
bool panda_player_cuts_short(uint64_t count)
{
    uint64_t here = panda_count_raw();

    return count > here && count - here < BLOCK_MAX
        && (here == stop_at || panda_vcpu.cs->singlestep_enabled);
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
    if (!slice_written && digest != slice_digest) {
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
        panda_rr_facts.ram_digest = panda_ram_digest(panda_opened.rams,
                                                     panda_opened.n_rams);
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
    static unsigned idle;
    uint64_t count = panda_count_raw(), steps = panda_rr_steps;
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
    if (cs->halted && panda_count_raw() == count && panda_rr_steps == steps) {
        if (++idle > IDLE_MAX && !arrived(cs)) {
            panda_player_diverged("the CPU waits for an interrupt; in the "
                                  "recording it went on");
        }
    } else {
        idle = 0;
    }
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

/* ---- for who makes it play ---- */

void panda_player_begin(void)
{
    panda_live_forget();
    g_clear_pointer(&divergence, g_free);
    panda_player_failed = finished = have_slice = begun = false;
    next_chunk = 0;
    epoch = 0;
    stop_at = UINT64_MAX;
    panda_rr_steps = 0;
}

void panda_player_end(void)
{
    g_clear_pointer(&chunk_data, g_free);
    chunk = (PandaLogCursor) {};
    have_slice = false;
}

void panda_player_stop_at(uint64_t count)
{
    stop_at = count;
}

uint64_t panda_player_slice_begin(void)
{
    return have_slice ? slice_begin : panda_rr_count();
}

bool panda_player_rest(PandaPlayerRest *rest)
{
    *rest = (PandaPlayerRest) {
        .slices = { slice_at, chunk.end }, .check = ram_check,
        .digest = ram_digest, .next_chunk = next_chunk,
    };
    return have_slice && !slice_entered;
}
