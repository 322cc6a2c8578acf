/*
 * Raising PPP callbacks in the core's own plugins.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_PPP_H
#define PANDA_PLUGINS_PPP_H

#include "core/internal.h"
#include "panda/ppp.h"

/* static PandaPppPoint on_x = PANDA_PPP_POINT("plugin", "on_x", changed); */
#define PANDA_PPP_POINT(plugin_, name_, changed_)                             \
    { .plugin = (plugin_), .name = (name_), .changed = (changed_) }

/* Does anybody listen? */
static inline bool panda_ppp_wanted(const PandaPppPoint *point)
{
    return unlikely(qatomic_read(&point->n));
}

/*
 * Call who listens at a point, functions of a type, without results. To be
 * used as PANDA_FOR_EACH() is: on the CPU thread, in an event, with nothing
 * held. A listener with a context is called with words after it, which is the
 * same for integers and pointers on the hosts there are.
 */
#define PANDA_PPP_RUN(point, type, ...)                                       \
    PANDA_PPP_EACH(point, l_,                                                 \
        l_->has_context                                                       \
        ? (void)((PandaPppWords *)l_->function)(                              \
              (uintptr_t)l_->context, PANDA_PPP_PASS(__VA_ARGS__))            \
        : ((type)l_->function)(__VA_ARGS__))

/* The same for functions that return a bool: are the results or-ed true? */
#define PANDA_PPP_ANY(point, type, ...)                                       \
    ({                                                                        \
        bool any_ = false;                                                    \
        PANDA_PPP_EACH(point, l_,                                             \
            any_ |= l_->has_context                                           \
            ? (uint8_t)((PandaPppWords *)l_->function)(                       \
                  (uintptr_t)l_->context, PANDA_PPP_PASS(__VA_ARGS__)) != 0   \
            : ((type)l_->function)(__VA_ARGS__));                             \
        any_;                                                                 \
    })

typedef int PandaPppWords(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                          uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

/* Nine words out of one to nine arguments. */
#define PANDA_PPP_PASS(...)                                                   \
    PANDA_PPP_PASS_(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0, 0, 0)
#define PANDA_PPP_PASS_(a, b, c, d, e, f, g, h, i, ...)                       \
    (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d),               \
    (uint64_t)(e), (uint64_t)(f), (uint64_t)(g), (uint64_t)(h), (uint64_t)(i)

#define PANDA_PPP_EACH(point, l, ...)                                         \
    do {                                                                      \
        const PandaPppList *list_ = panda_ppp_wanted(point)                   \
            ? qatomic_rcu_read(&(point)->list) : NULL;                        \
                                                                              \
        for (unsigned i_ = 0; list_ && i_ < list_->n; i_++) {                 \
            const PandaPppListener *l = list_->item[i_];                      \
                                                                              \
            if (qatomic_read(&l->enabled)                                     \
                && !qatomic_read(&panda_gate_closed)) {                       \
                __VA_ARGS__;                                                  \
            }                                                                 \
        }                                                                     \
    } while (0)

#endif
