/*
 * PPP: callbacks that plugins offer to each other ("plugin to plugin").
 *
 * A plugin that has something to tell defines a point and raises it; anybody
 * may listen there, in C or in Python. A point without listeners costs its
 * plugin a load and a test. panda_plugin.h has the macros C plugins use.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PPP_H
#define PANDA_PPP_H

#include "panda/python.h"
#include "panda/types.h"

/** A listening function, whatever its arguments. */
typedef void (*PandaPppFunction)(void);

/** Who listens at a point. */
typedef struct PandaPppListener {
    /** The function; its type is the point's. */
    PandaPppFunction function;
    /** Its first argument, if has_context is set. */
    void *context;
    /** Who has added it; see panda_ppp_remove_all(). */
    void *owner;
    uint32_t has_context;
    /** Cleared when it is removed while an event is on its way. */
    uint32_t enabled;
} PandaPppListener;

/** The listeners of a point, in the order they are called in. */
typedef struct PandaPppList {
    PandaPppListener *const *item;
    uint32_t n;
    uint32_t reserved;
} PandaPppList;

/** A callback point. Zeroed but for its names, it is ready to be defined. */
typedef struct PandaPppPoint {
    /** How many listen; all that a plugin need look at as long as it is 0. */
    uint32_t n;
    /** Set by panda_ppp_define(). */
    uint32_t defined;
    /** Replaced as a whole when listeners come and go; NULL if there are none. */
    const PandaPppList *list;
    /** While it is true nobody is called. */
    const bool *gate;
    const char *plugin;
    const char *name;
    /**
     * Called after listeners came or went, on any thread, or NULL. It may
     * register callbacks; n says how many listen now.
     */
    void (*changed)(void);
} PandaPppPoint;

/**
 * Make a point known by its names.
 *
 * It stays where it is until panda_ppp_undefine(). Listeners that it had are
 * kept if it is defined already; PANDA_ERR_ARGUMENT if another point has these
 * names.
 */
int panda_ppp_define(PandaPppPoint *point);

/** Forget a point and who listens there; no event may be on its way. */
void panda_ppp_undefine(PandaPppPoint *point);

/**
 * Listen at a point; functions are called in the order they came in.
 *
 * owner is any non-NULL pointer. From any thread; takes effect at the next
 * event. PANDA_ERR_ARGUMENT if there is no such point (is the plugin loaded?)
 * or if the function listens there already.
 */
int panda_ppp_add(const char *plugin, const char *name, void *owner,
                  PandaPppFunction function);

/** The same with a context that is passed before the other arguments. */
int panda_ppp_add_with_context(const char *plugin, const char *name,
                               void *owner, PandaPppFunction function,
                               void *context);

/** The most arguments a function has, with its context. */
#define PANDA_PPP_WORDS 10

/** What an argument of a Python function is. */
typedef enum PandaPppKind {
    /** The object given for a PandaCPU. */
    PANDA_PPP_CPU,
    /** That for a PandaTB. */
    PANDA_PPP_TB,
    PANDA_PPP_U64,
    PANDA_PPP_S64,
    PANDA_PPP_U32,
    PANDA_PPP_S32,
    PANDA_PPP_U16,
    PANDA_PPP_S16,
    PANDA_PPP_U8,
    PANDA_PPP_BOOL,
} PandaPppKind;

/**
 * Listen with a Python function, called without a foreign-function layer.
 *
 * kinds: a PandaPppKind for each of its n arguments, 9 at most. Its result is
 * true or false. PANDA_ERR_UNSUPPORTED if the core cannot call Python. The
 * host keeps the objects alive until the run has ended.
 */
int panda_ppp_add_python(const char *plugin, const char *name, void *owner,
                         const PandaPythonCallback *callback,
                         const uint8_t *kinds, uint32_t n);

/** Stop listening; PANDA_ERR_ARGUMENT if the function does not listen there. */
int panda_ppp_remove(const char *plugin, const char *name,
                     PandaPppFunction function);

/** The same for one that was added with a context. */
int panda_ppp_remove_with_context(const char *plugin, const char *name,
                                  PandaPppFunction function, void *context);

/** Stop all listening of an owner. */
void panda_ppp_remove_all(void *owner);

/** Number of those who listen at a point; PANDA_ERR_ARGUMENT if there is none. */
int panda_ppp_count(const char *plugin, const char *name);

/**
 * Raise a point whose arguments are integers and pointers, given as words.
 *
 * For plugins that make up their points when they run: syscalls2. Only on the
 * CPU thread. n is at most 10 with the context, if a listener has one.
 */
void panda_ppp_run_words(const PandaPppPoint *point, const uint64_t *words,
                         uint32_t n);

#endif
