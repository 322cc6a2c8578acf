/*
 * What the core's files share; not part of the public API.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_INTERNAL_H
#define PANDA_CORE_INTERNAL_H

#include "qemu/osdep.h"
#include "qemu/rcu.h"
#include "cpu.h"
#include "exec/translation-block.h"
#include "hw/core/cpu.h"

/* QEMU has these names too, with the same meaning. */
#define hwaddr panda_hwaddr_t
#define MachineState PandaMachine
#define Monitor PandaMonitor
#include "panda/panda.h"
#undef hwaddr
#undef MachineState
#undef Monitor

/* ---- errors (error.c) ---- */

/* Set the calling thread's message and return status. */
int panda_fail(PandaStatus status, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* The same with QEMU's Error, which is freed. */
int panda_fail_error(PandaStatus status, Error *err);

/* ---- exit and abort (guard.c) ---- */

/*
 * Run fn(opaque) so that QEMU's exit(), abort() and failed assertions come
 * back here. Returns true if fn returned; else panda_fatal_text() says why.
 */
bool panda_guarded(void (*fn)(void *opaque), void *opaque);

/* What QEMU said when it gave up. */
const char *panda_fatal_text(void);

/* Collect error_report() and friends of this thread instead of printing. */
void panda_capture_begin(void);
/* Returns what was collected; to be freed with g_free(). */
char *panda_capture_end(void);

/* Run what QEMU registered with atexit(), last first. */
void panda_run_atexit(void);

/* ---- life cycle (machine.c, thread.c) ---- */

bool panda_dead(void);
/* QEMU gave up on some thread: no further use of the machine. */
void panda_set_dead(void);
/* Called by the loop wraps: leave the CPU thread if the machine is finished. */
void panda_vcpu_thread_check_end(void);
/* Stop the CPU thread for good; false if it did not end in time. */
bool panda_vcpu_thread_end(unsigned timeout_ms);
/* QEMU has given up in it: it does nothing any more. */
bool panda_vcpu_thread_died(void);
/* Is a machine there that can be used? Fails with PANDA_ERR_STATE if not. */
int panda_check_usable(void);

/* The first event of the machine is near. */
extern bool panda_events_possible;

/*
 * Free what an event may be walking over. Before there can be events it is
 * freed at once: RCU's thread would take a lock that QEMU has not made yet.
 */
#define PANDA_FREE_LATER(thing, function)                                     \
    do {                                                                      \
        if (qatomic_read(&panda_events_possible)) {                           \
            call_rcu(thing, function, rcu);                                   \
        } else {                                                              \
            function(thing);                                                  \
        }                                                                     \
    } while (0)

/* ---- callbacks (callbacks.c) ---- */

/* A Python function: what it is called with around an event's numbers. */
typedef struct PandaPythonTarget {
    void *callable;
    void *before[2];
    void *after;
    unsigned n_before;
} PandaPythonTarget;

struct PandaListener;
struct PandaBlock;

typedef struct PandaCallback {
    void *plugin;
    /* Its filter; NULL: it gets all events. */
    struct PandaListener *listener;
    void *context;
    bool has_context;
    bool enabled;
    bool is_python;
    PandaPythonTarget python;
    panda_cb plain;
    panda_cb_with_context with_context;
} PandaCallback;

/* Never changed once published; replaced as a whole, freed by RCU. */
typedef struct PandaCallbackList {
    struct rcu_head rcu;
    unsigned n;
    PandaCallback *item[];
} PandaCallbackList;

extern PandaCallbackList *panda_callback_lists[PANDA_CB_LAST];
extern bool panda_gate_closed;

/* Count again who is enabled; the registry's lock is held. */
void panda_callbacks_recount(void);

/* Is the present event one that a callback with a filter wants? */
bool panda_callback_admits(const PandaCallback *callback);

/* How many callbacks of a kind are enabled; for cheap tests. */
extern uint32_t panda_enabled_count[PANDA_CB_LAST];

static inline bool panda_wanted(panda_cb_type kind)
{
    return unlikely(qatomic_read(&panda_enabled_count[kind]));
}

/*
 * Loop over the enabled callbacks of a kind, in order of registration. To be
 * used under the RCU read lock (the CPU thread holds it while guest code
 * runs).
 */
#define PANDA_FOR_EACH(c, kind)                                               \
    for (PandaCallbackList *list_ =                                           \
             qatomic_rcu_read(&panda_callback_lists[kind]);                   \
         list_; list_ = NULL)                                                 \
        for (unsigned i_ = 0; i_ < list_->n; i_++)                            \
            if ((c) = list_->item[i_], qatomic_read(&(c)->enabled)            \
                && !qatomic_read(&panda_gate_closed)                          \
                && (!(c)->listener || panda_callback_admits(c)))

/* Call one callback, with its context if it has one. */
#define PANDA_CALL(c, member, ...)                                            \
    ((c)->has_context                                                         \
     ? (c)->with_context.member((c)->context, ##__VA_ARGS__)                  \
     : (c)->plain.member(__VA_ARGS__))

/* ---- the CPU, as events see it (vcpu.c) ---- */

/* Where in a block an event is delivered: decides how the block is left. */
typedef enum PandaPlace {
    /* No block is running. */
    PANDA_PLACE_OUTSIDE,
    /* While guest code is being translated: guest state must not change. */
    PANDA_PLACE_TRANSLATION,
    /* Before the first instruction of a block; pc in env is exact. */
    PANDA_PLACE_BLOCK_START,
    /* As BLOCK_START, before it is decided that the block will run. */
    PANDA_PLACE_BLOCK_ASKED,
    /* Before an instruction; pc and flags in env may be stale. */
    PANDA_PLACE_INSN,
    /* After an instruction, which is before the next one of the block. */
    PANDA_PLACE_AFTER_INSN,
    /* Inside an instruction, beside a memory access; likewise. */
    PANDA_PLACE_MEM,
    /* After the last instruction of a block. */
    PANDA_PLACE_BLOCK_END,
    /* Inside a helper of unknown position. */
    PANDA_PLACE_HELPER,
} PandaPlace;

typedef enum PandaRequest {
    PANDA_REQUEST_SET_PC = 1,
    PANDA_REQUEST_BREAK = 2,
    PANDA_REQUEST_EXIT_LOOP = 4,
    /* Registers that decide the translation were written. */
    PANDA_REQUEST_RETRANSLATE = 8,
} PandaRequest;

typedef struct PandaVcpu {
    PandaCPU pub;
    PandaTB tb;
    uint8_t mem_buf[16];
    CPUState *cs;
    PandaPlace place;
    /* Return address into generated code, 0 if there is none. */
    uintptr_t ra;
    /* Listeners that want the present event, by slot (listeners.h). */
    uint64_t pass;
    /* Start of the block that runs, for listeners inside of it. */
    uint64_t block_pc;
    /*
     * Who needs no further event of it, by slot; NULL unless a listener asks
     * for one event of each block.
     */
    uint64_t *done;
    /* Start of the block that ran before it, if a listener asks for it. */
    uint64_t last_block_pc;
    /* The block is left before it was counted. */
    bool uncounted;
    /* Requests of the callbacks of the present event. */
    uint32_t requests;
    uint64_t requested_pc;
    /* pc as env showed it before it was made exact for the callbacks. */
    uint64_t env_pc;
    /* The event of this instruction, or of the next block, was delivered. */
    uint64_t skip_insn_pc;
    bool skip_insn;
    bool skip_block;
    /* The core itself restores state: no business of cpu_restore_state. */
    bool unwinding;
    /* It unwinds to learn something, and restores nothing. */
    bool probing;
} PandaVcpu;

/* There is one vCPU (more are refused). */
extern PandaVcpu panda_vcpu;

/* Does the event show an exact pc that differs from what env holds? */
static inline bool panda_place_is_exact(PandaPlace place)
{
    return place >= PANDA_PLACE_BLOCK_START && place <= PANDA_PLACE_MEM;
}

/* Is the event between two instructions of a block? */
static inline bool panda_place_is_between(PandaPlace place)
{
    return place >= PANDA_PLACE_BLOCK_START && place <= PANDA_PLACE_AFTER_INSN;
}

/* May state that the translator keeps lazily be stale in env? */
static inline bool panda_place_in_block(PandaPlace place)
{
    return (place >= PANDA_PLACE_INSN && place <= PANDA_PLACE_MEM)
        || place == PANDA_PLACE_HELPER;
}

/* The CPU delivers an interrupt to the guest (cpu_events.c). */
extern bool panda_delivering_interrupt;

/* Begin and end the delivery of an event on the CPU thread. */
void panda_event_enter(CPUState *cs, PandaPlace place, uint64_t pc,
                       uintptr_t ra);
/*
 * Serves the requests made in callbacks; leaves the block by longjmp if one
 * asks for it, so nothing may be held.
 */
void panda_event_leave(CPUState *cs);

/* Exact pc of the instruction at offset in the page the block runs on. */
static inline uint64_t panda_exact_pc(CPUState *cs, uint64_t translated_pc)
{
    if (cs->tcg_cflags & CF_PCREL) {
        uint64_t pc = cs->cc->get_pc(cs);
        return (pc & TARGET_PAGE_MASK) | (translated_pc & ~TARGET_PAGE_MASK);
    }
    return translated_pc;
}

/*
 * Exact pc of an instruction that runs in a helper called from the generated
 * code at ra (cpu_events.c).
 */
uint64_t panda_helper_pc(CPUState *cs, uintptr_t ra);

/*
 * Where the host keeps a readable guest byte, as the running CPU's TLB has it;
 * NULL if it does not. Spares a walk of the page tables in most callbacks
 * (memory.c).
 */
void *panda_look_up_tlb(CPUState *cs, uint64_t addr);

/* ---- block variants (variants.c) ---- */

/* Free bits of cflags (checked by a static assertion in variants.c). */
#define PANDA_CF_BLOCK 0x00080000u
#define PANDA_CF_LOAD  0x00100000u
#define PANDA_CF_INSN  0x00200000u
#define PANDA_CF_STORE 0x00400000u
#define PANDA_CF_LIMIT 0x00800000u
#define PANDA_CF_MEM   (PANDA_CF_LOAD | PANDA_CF_STORE)
#define PANDA_CF_ALL                                                          \
    (PANDA_CF_BLOCK | PANDA_CF_MEM | PANDA_CF_INSN | PANDA_CF_LIMIT)

/* Make the CPU use the variants the enabled callbacks need. */
void panda_variants_update(void);

/* ---- architecture (csrc/arch/<family>.c) ---- */

/* Linear pc out of env, and into it. */
uint64_t panda_arch_get_pc(CPUState *cs);
void panda_arch_set_pc(CPUState *cs, uint64_t pc);
uint64_t panda_arch_get_sp(CPUState *cs);
uint64_t panda_arch_get_ksp(CPUState *cs);
uint64_t panda_arch_get_asid(CPUState *cs);
bool panda_arch_in_kernel(CPUState *cs);

/*
 * Registers written in the present event whose value cpu_restore_state() would
 * undo; called after it when a block is left.
 */
void panda_arch_apply_pending(CPUState *cs);

/* A snapshot was loaded: put right what QEMU leaves undone (big lock held). */
void panda_arch_after_loadvm(CPUState *cs);

/* A register that is not a plain field of the general register file. */
typedef struct PandaRegister {
    const char *name;
    uint32_t size;
    /* Writing it changes what blocks are translated for. */
    bool mode;
    void (*read)(CPUState *cs, unsigned index, uint8_t *buf);
    void (*write)(CPUState *cs, unsigned index, const uint8_t *buf);
    unsigned index;
} PandaRegister;

/* The table of the family; *count gets its length. */
const PandaRegister *panda_arch_registers(unsigned *count);

/* Raise asid_changed; true if a callback vetoes the change (cpu_events.c). */
bool panda_raise_asid_changed(CPUState *cs, uint64_t old_value,
                              uint64_t new_value, uintptr_t ra);

#endif
