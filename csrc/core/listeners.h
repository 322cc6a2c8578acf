/*
 * Who listens at which points of the generated code, and to what.
 *
 * A listener is a callback with a filter, a stream or a counter. Each has a
 * bit in panda_live, which is set while it is enabled, its flag is set and its
 * address space is the current one: generated code asks for no more than that
 * before it calls out. All that a filter says of the place of code is decided
 * at translation.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_LISTENERS_H
#define PANDA_CORE_LISTENERS_H

#include "core/internal.h"

/* Points where generated code may call out. */
typedef enum PandaPoint {
    PANDA_POINT_BLOCK,
    PANDA_POINT_BLOCK_END,
    PANDA_POINT_INSN,
    PANDA_POINT_AFTER_INSN,
    PANDA_POINT_BEFORE_LOAD,
    PANDA_POINT_AFTER_LOAD,
    PANDA_POINT_BEFORE_STORE,
    PANDA_POINT_AFTER_STORE,
    PANDA_POINTS,
} PandaPoint;

/*
 * Calls and returns are found whatever the filters say, to know the depth; so
 * nothing but their streams asks for it.
 */
#define PANDA_POINT_BRANCH 31

/* System calls; what is wanted of them is asked when they are made. */
#define PANDA_POINT_SYSCALL 30

#define PANDA_MEMORY_POINTS                                                   \
    (BIT(PANDA_POINT_BEFORE_LOAD) | BIT(PANDA_POINT_AFTER_LOAD)               \
     | BIT(PANDA_POINT_BEFORE_STORE) | BIT(PANDA_POINT_AFTER_STORE))

/* Bits of panda_live: callbacks without a filter share one per point. */
#define PANDA_SLOT_ASK PANDA_POINTS
#define PANDA_FIRST_SLOT (PANDA_POINTS + 1)
#define PANDA_SLOTS 64

/* The next start of a block is to call out, whoever listens. */
#define PANDA_ASK BIT_ULL(PANDA_SLOT_ASK)

typedef struct PandaListener PandaListener;
struct PandaEmittedAccess;

/* A filter at work: a copy of the user's and what it has counted. */
typedef struct PandaFilterState {
    PandaFilter spec;
    uint64_t taken;
    /* Start addresses of the blocks `once_per_block` is done with. */
    GHashTable *seen;
} PandaFilterState;

struct PandaListener {
    unsigned slot;
    /* Bits of PandaPoint. */
    uint32_t points;
    bool enabled;
    /* `first` was reached. */
    bool exhausted;
    /* Generated code counts its events down. */
    bool counts_inline;
    /* It counts instructions: it needs to know where a block was left. */
    bool counts_insns;
    /* It wants to know which block ran before. */
    bool tracks_blocks;
    /* Its addresses are physical ones. */
    bool physical;
    PandaFilterState filter;
    /* A stream or counter emits code of its own. */
    void (*emit)(PandaListener *listener, PandaPoint point,
                 const struct PandaBlock *block, uint64_t pc);
    /* The block is known as a whole. */
    void (*emit_end)(PandaListener *listener, struct PandaBlock *block);
    /* The same beside a memory access, and for one made by a helper. */
    void (*emit_access)(PandaListener *listener,
                        const struct PandaEmittedAccess *access);
    void (*access_made)(PandaListener *listener, uint64_t pc, uint64_t addr,
                        uint32_t oi, unsigned how, uint64_t lo, uint64_t hi);
    /* Freed when no generated code refers to it any more. */
    void (*free)(PandaListener *listener);
    PandaListener *next_retired;
};

/* Never changed once published; replaced as a whole, freed by RCU. */
typedef struct PandaListenerList {
    struct rcu_head rcu;
    unsigned n;
    PandaListener *item[];
} PandaListenerList;

extern PandaListenerList *panda_listeners;

/* Words generated code looks at; in one place, so that one register does. */
typedef struct PandaWords {
    /* Who listens now, a bit a slot. */
    uint64_t live;
    /* The same by slot: all ones or 0. */
    uint64_t on[PANDA_SLOTS];
    /* By slot: events until the next one of `every`. */
    int64_t left[PANDA_SLOTS];
} PandaWords;

extern PandaWords panda_words;
#define panda_live (panda_words.live)

#define PANDA_FOR_EACH_LISTENER(l)                                            \
    for (PandaListenerList *ll_ = qatomic_rcu_read(&panda_listeners);         \
         ll_; ll_ = NULL)                                                     \
        for (unsigned li_ = 0; li_ < ll_->n; li_++)                           \
            if ((l) = ll_->item[li_], true)

/*
 * The registry's lock: callbacks, listeners, flags. Whoever holds it waits for
 * nothing.
 */
extern pthread_mutex_t panda_registry_lock;

/* ---- for streams, counters and coverage ---- */

/*
 * May a filter by a process' name ever fit, as far as is known of the guest's
 * kernel? PANDA_ERR_OS with the reason. To be asked with nothing held.
 */
int panda_check_names(const PandaFilter *filter);

/* Give a listener a filter (NULL: all events) and publish it, enabled. */
int panda_listener_open(PandaListener *listener, const PandaFilter *filter);
void panda_listener_set_enabled(PandaListener *listener, bool enabled);
/* It is freed at the next flush of the code cache. */
void panda_listener_close(PandaListener *listener);

/* ---- to be called with the lock held ---- */

/* Copy a filter and check it; false with an error set if it is no good. */
bool panda_filter_init(PandaFilterState *state, const PandaFilter *spec);
void panda_filter_clear(PandaFilterState *state);

/*
 * Publish a listener; negative PandaStatus if there are too many, or if its
 * filter is not one for its events.
 */
int panda_listener_add(PandaListener *listener);
void panda_listener_remove(PandaListener *listener);
void panda_listener_enable(PandaListener *listener, bool enabled);

/* Callbacks without a filter, by point, that are enabled and registered. */
void panda_listeners_count_plain(PandaPoint point, unsigned registered,
                                 unsigned enabled);

/* Work panda_live out anew. */
void panda_live_update(void);

/* The points that enabled listeners look at; bits of PandaPoint. */
uint32_t panda_listeners_points(void);
/* Does a listener need code that is made for one address? */
bool panda_listeners_fix_pc(void);

/* ---- on the CPU thread ---- */

/* Set or clear PANDA_ASK. */
void panda_live_ask(bool ask);

/* The address space is another one: see who listens now. */
void panda_live_asid(uint64_t asid);
extern bool panda_asid_watched;

/* Another process runs, of which this is the short name. */
void panda_live_process(const char *name);
extern bool panda_names_watched;

/* Code of a point at pc is translated: who may want its events? */
uint64_t panda_point_mask(PandaPoint point, uint64_t pc, bool kernel);
/* Is there a callback of the ends of blocks, of whatever block? */
bool panda_ends_are_watched(void);
bool panda_listener_may_want(const PandaListener *listener, PandaPoint point,
                             uint64_t pc, bool kernel);
/* Does its filter let code at pc pass? */
bool panda_listener_fits(const PandaListener *listener, uint64_t pc,
                         bool kernel);
/* An event that passes all else: count it; does it want this one? */
bool panda_listener_counts(PandaListener *listener, uint64_t block_pc);

/*
 * Does a listener want the present event? Counts it if so. addr: of a memory
 * event; block_pc: start of the block it is in.
 */
bool panda_listener_wants(PandaListener *listener, uint64_t pc, uint64_t addr,
                          uint64_t block_pc);

/* Listeners that need no further event of the block that runs, by slot. */
static inline uint64_t panda_block_done(void)
{
    return panda_vcpu.done ? *panda_vcpu.done : 0;
}

/* Does a listener want one event of each block? */
bool panda_listeners_ask_once(void);

/*
 * What a memory access is asked first, by slot; what passes is looked at more
 * closely. For the one question that is asked most often.
 */
typedef struct PandaAccessFilter {
    /* Addresses that may pass: from first to first + span. */
    uint64_t first, span;
    /* Nothing else is to be asked: events are counted down here. */
    bool counts;
} PandaAccessFilter;

extern PandaAccessFilter panda_access_filters[PANDA_SLOTS];

/*
 * May a listener of a mask want an access? If not, it is counted. parted: it is
 * two events, of which each is asked about.
 */
static inline bool panda_access_may_pass(uint64_t mask, uint64_t addr,
                                         bool parted)
{
    uint64_t live = qatomic_read(&panda_live) & mask & ~panda_block_done();

    if (parted || (live & (BIT_ULL(PANDA_FIRST_SLOT) - 1))) {
        return live;
    }
    for (; live; live &= live - 1) {
        unsigned slot = ctz64(live);
        const PandaAccessFilter *f = &panda_access_filters[slot];

        if (addr - f->first > f->span) {
            continue;
        }
        if (f->counts && panda_words.left[slot] > 1) {
            panda_words.left[slot]--;
            continue;
        }
        return true;
    }
    return false;
}

/*
 * Which listeners of a mask want the present event, and count it for them.
 * physical: gives the physical address if one of them asks for it.
 */
uint64_t panda_take(uint64_t mask, uint64_t pc, uint64_t addr,
                    uint64_t block_pc, uint64_t (*physical)(void *opaque),
                    void *opaque);

/* The code cache was flushed: nothing refers to old listeners. */
void panda_listeners_flushed(void);

/* The listener with a slot; NULL if it is gone. */
PandaListener *panda_listener_of_slot(unsigned slot);

/* Is the filter's answer the same for all events of a translated place? */
static inline bool panda_filter_is_static(const PandaFilter *f)
{
    return !f || (!f->n_addr && f->every <= 1 && !f->first
                  && !f->once_per_block);
}

#endif
