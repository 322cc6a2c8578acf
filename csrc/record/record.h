/*
 * Record and replay: what its files share; see docs/record-replay.md.
 *
 * The border: guest code and QEMU's code for the CPU (target/, accel/) run in
 * a replay as they did in the recording; code of devices (hw/) does not run.
 * A call from this side to the other is recorded with its result and with its
 * effects on memory and CPU, and in a replay answered out of the recording.
 * What devices do on their own happens between slices: runs of cpu_exec().
 *
 * A place in the execution is a pair: instructions executed, and steps without
 * an instruction (interrupts and exceptions delivered).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_RECORD_H
#define PANDA_RECORD_RECORD_H

#include "core/internal.h"
#include "exec/memory.h"

extern PandaRrMode panda_rr_state;
void panda_rr_set_state(PandaRrMode state);

/* The CPU thread is in cpu_exec(). */
extern bool panda_rr_in_exec;
/* It is in code of a device, called from there. */
extern unsigned panda_rr_depth;
/* Interrupts and exceptions delivered since the start. */
extern uint64_t panda_rr_steps;

static inline bool panda_rr_on(void)
{
    return unlikely(qatomic_read(&panda_rr_state) != PANDA_RR_OFF);
}

static inline bool panda_rr_recording(void)
{
    return unlikely(qatomic_read(&panda_rr_state) == PANDA_RR_RECORD);
}

static inline bool panda_rr_replaying(void)
{
    return unlikely(qatomic_read(&panda_rr_state) == PANDA_RR_REPLAY);
}

/* Does code of this side run? */
static inline bool panda_rr_inside(void)
{
    return panda_rr_in_exec && !panda_rr_depth && panda_in_vcpu_thread();
}

/* Is a call from here to a device one that crosses the border? */
static inline bool panda_rr_crosses(void)
{
    return panda_rr_on() && panda_rr_inside() && !panda_vcpu.pub.in_callback;
}

/* ---- the log's entries ---- */

typedef enum PandaEntryKind {
    /* Calls across the border, in the order the CPU makes them. */
    PANDA_ENTRY_READ = 1,
    PANDA_ENTRY_WRITE,
    PANDA_ENTRY_VALUE,
    PANDA_ENTRY_BYTES,
    /* Effects: of the call that follows, or of devices between two slices. */
    PANDA_ENTRY_MEMORY,
    PANDA_ENTRY_LINES,
    PANDA_ENTRY_LINES_KICK,
    PANDA_ENTRY_REGION,
    PANDA_ENTRY_RESET,
    PANDA_ENTRY_TOPOLOGY,
    PANDA_ENTRY_NEW_REGION,
    PANDA_ENTRY_FLUSH,
    PANDA_ENTRY_ARCH,
    /* For who reads the recording; without effect. */
    PANDA_ENTRY_DISK,
    PANDA_ENTRY_PACKET,
    PANDA_ENTRY_SERIAL,
    /* What numbers that are logged as differences build on. */
    PANDA_ENTRY_BASE,
    /* Memory was written, the end of it with what is in the last packet. */
    PANDA_ENTRY_MEMORY_PACKET,
    /* Which device writes what is written to memory from here on. */
    PANDA_ENTRY_SOURCE,
    /* Of complete recordings: the devices' state; what is written to a disk. */
    PANDA_ENTRY_DEVICES,
    PANDA_ENTRY_DISK_DATA,
} PandaEntryKind;

/* Functions whose calls cross the border, by what they are called for. */
typedef enum PandaCrossing {
    PANDA_CROSS_IRQ,
    PANDA_CROSS_CLOCK,
    PANDA_CROSS_RANDOM,
    PANDA_CROSS_RESET_REQUEST,
    PANDA_CROSS_SHUTDOWN_REQUEST,
    /* The architectures' own begin here. */
    PANDA_CROSS_ARCH,
} PandaCrossing;

/* ---- the border (border.c) ---- */

/*
 * A call is about to cross. In a replay: true, *value is its result, and it
 * must not be made. In a recording: false, and panda_rr_crossed() follows it.
 */
bool panda_rr_answer(unsigned function, uint64_t argument, uint64_t *value);
void panda_rr_crossed(unsigned function, uint64_t argument, uint64_t value);

/* Define the wrap of a function with a result that crosses the border. */
#define PANDA_RR_VALUE(type, name, function, argument, params, args)          \
    type __real_##name params;                                                \
    type __wrap_##name params;                                                \
    type __wrap_##name params                                                 \
    {                                                                         \
        uint64_t value_;                                                      \
                                                                              \
        if (!panda_rr_crosses()) {                                            \
            return __real_##name args;                                        \
        }                                                                     \
        if (!panda_rr_answer(function, argument, &value_)) {                  \
            value_ = (uint64_t)__real_##name args;                            \
            panda_rr_crossed(function, argument, value_);                     \
        }                                                                     \
        return (type)value_;                                                  \
    }

/* The same of one without. */
#define PANDA_RR_VOID(name, function, argument, params, args)                 \
    void __real_##name params;                                                \
    void __wrap_##name params;                                                \
    void __wrap_##name params                                                 \
    {                                                                         \
        uint64_t value_;                                                      \
                                                                              \
        if (!panda_rr_crosses()) {                                            \
            __real_##name args;                                               \
        } else if (!panda_rr_answer(function, argument, &value_)) {           \
            __real_##name args;                                               \
            panda_rr_crossed(function, argument, 0);                          \
        }                                                                     \
    }

/* Accesses of the CPU to devices; device_events.c makes them through here. */
MemTxResult panda_rr_read(MemoryRegion *mr, hwaddr addr, uint64_t *value,
                          MemOp op, MemTxAttrs attrs);
MemTxResult panda_rr_write(MemoryRegion *mr, hwaddr addr, uint64_t value,
                           MemOp op, MemTxAttrs attrs);

/* Bytes instead of a number; returns the call's status. */
bool panda_rr_answer_bytes(unsigned function, void *bytes, size_t size);
void panda_rr_crossed_bytes(unsigned function, const void *bytes, size_t size);

/* ---- lines: fields of the CPU that devices write (lines.c) ---- */

typedef struct PandaLine {
    const char *name;
    void *field;
    unsigned size;
    /* NULL: it is just stored. */
    void (*apply)(CPUState *cs, uint64_t value);
} PandaLine;

#define PANDA_LINES_MAX 32

typedef struct PandaLines {
    uint64_t value[PANDA_LINES_MAX];
} PandaLines;

/* The table of the family (csrc/arch/<family>_record.c); returns its length. */
unsigned panda_arch_lines(CPUState *cs, PandaLine *table);

void panda_lines_setup(CPUState *cs);
void panda_lines_read(PandaLines *lines);
/* Append an entry if they differ from what they were, or a kick was given. */
void panda_lines_log(const PandaLines *before, bool kicked);
/* How many there are, and one of them. */
unsigned panda_lines_count(void);
uint64_t panda_line_get(unsigned i);
void panda_line_set(CPUState *cs, unsigned i, uint64_t value);
/* Something outside of this side called cpu_interrupt(). */
extern bool panda_lines_kicked;

/* An interrupt or exception was delivered (recorder.c). */
void panda_rr_step(CPUState *cs, bool interrupt);
/* May the CPU look for interrupts at this place of a replay (player.c)? */
bool panda_player_interrupts(CPUState *cs);

/* Has a device a part of RAM mapped, to write to it (maps.c)? */
bool panda_maps_active(void);

/* Why the machine cannot be recorded or replay; NULL if it can (refusal.c). */
const char *panda_rr_refusal(CPUState *cs);

/* May the host program change the guest's memory, or its registers? */
int panda_rr_check_write(bool memory);
/* May it in a replay? */
bool panda_replay_writes_allowed(void);

/* ---- the architectures' part (csrc/arch/<family>_record.c) ---- */

/* Digest of the registers that guest code sees; at rest: between slices. */
uint64_t panda_arch_rr_digest(CPUState *cs, bool at_rest);
/*
 * Why the machine cannot be recorded; NULL if it can. Called before the first
 * recording or replay.
 */
const char *panda_arch_rr_refusal(CPUState *cs);

static inline uint64_t panda_rr_mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ (h >> 29);
}

uint64_t panda_rr_mix_bytes(uint64_t h, const void *bytes, size_t size);

/* ---- places (count.c) ---- */

/* Begin to count, from 0, or end it; the machine stands still. */
void panda_count_switch(bool on);
/* Count, and look blocks up, as recordings of a format did (its major version). */
void panda_count_as_in_format(int64_t major);
/* The block's front end must not see that instructions are counted. */
void panda_count_hide(TranslationBlock *tb);
/* Executed since then, the block that runs included. */
uint64_t panda_count_raw(void);
/* Note the count for the callbacks of the event that begins. */
void panda_count_event(void);

/* Empty the TLB, and give it the size it has at first. */
void panda_tlb_forget(CPUState *cs);

/*
 * What the TLB holds shows in the accessed bits of page tables. So that a
 * replay can begin in the middle, at a checkpoint, it is emptied in recordings
 * and replays alike, with the first slice that begins in an epoch.
 */
#define PANDA_EPOCH_BITS 27

/* Run with a budget of instructions. */
int panda_count_exec(CPUState *cs, int64_t budget);

/* ---- the next block after an indirect jump (lookup.c) ---- */

/* Whether a second jump cache is used, as it is since format 3. */
void panda_lookup_use(bool second);
/* Code that is translated from now on uses it, or does not. */
void panda_lookup_switch(bool on);

/* ---- mutual exclusion (gate.c) ---- */

void panda_gate_open(bool in_use);
/* The main thread, which holds the big lock, enters its loop or leaves it. */
void panda_gate_enter_main(void);
void panda_gate_leave_main(void);
void panda_gate_enter_vcpu(void);
void panda_gate_leave_vcpu(void);

#endif
