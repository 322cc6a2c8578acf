/*
 * PPP in the source of a C plugin, with PANDA's macros; C and C++.
 *
 * The plugin that calls back, in a header and in one of its files:
 *
 *     PPP_CB_TYPEDEF(void, on_thing, CPUState *cpu, target_ulong value);
 *
 *     PPP_PROT_REG_CB(on_thing);
 *     PPP_CB_BOILERPLATE(on_thing)
 *     ... PPP_RUN_CB(on_thing, cpu, value);
 *
 * One that listens, of whatever plugin:
 *
 *     PPP_REG_CB("thing_plugin", on_thing, my_function);
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGIN_PLUGIN_H
#define PANDA_PLUGIN_PLUGIN_H

#include "panda/plugin.h"

#ifdef __cplusplus
#define PANDA_C_LINKAGE extern "C"
#else
#define PANDA_C_LINKAGE
#endif

/* The types of a callback's functions: name_t, and with a context first. */
#define PPP_CB_TYPEDEF(type, name, ...)                                       \
    typedef type (*name##_t)(__VA_ARGS__);                                    \
    typedef type (*name##_t_with_context)(void *context, __VA_ARGS__)

/* What other plugins may call, if they look for it by its name. */
#define PPP_PROT_REG_CB(name)                                                 \
    PANDA_C_LINKAGE PANDA_EXPORT void ppp_add_cb_##name(name##_t fn);         \
    PANDA_C_LINKAGE PANDA_EXPORT bool ppp_remove_cb_##name(name##_t fn);      \
    PANDA_C_LINKAGE PANDA_EXPORT void ppp_add_cb_##name##_with_context(       \
        name##_t_with_context fn, void *context);                             \
    PANDA_C_LINKAGE PANDA_EXPORT bool ppp_remove_cb_##name##_with_context(    \
        name##_t_with_context fn, void *context)

/* The callback itself; in one file of the plugin. */
#define PPP_CB_BOILERPLATE(name_)                                             \
    PandaPluginPoint panda_ppp_##name_;                                       \
    __attribute__((constructor))                                              \
    static void panda_ppp_note_##name_(void)                                  \
    {                                                                         \
        panda_ppp_##name_.point.name = #name_;                                \
        panda_ppp_##name_.next = panda_plugin_points;                         \
        panda_plugin_points = &panda_ppp_##name_;                             \
    }                                                                         \
    PANDA_C_LINKAGE PANDA_EXPORT void ppp_add_cb_##name_(name_##_t fn)        \
    {                                                                         \
        panda_ppp_add(panda_plugin_own_name, #name_, panda_plugin_self,       \
                      (PandaPppFunction)fn);                                  \
    }                                                                         \
    PANDA_C_LINKAGE PANDA_EXPORT bool ppp_remove_cb_##name_(name_##_t fn)     \
    {                                                                         \
        return panda_ppp_remove(panda_plugin_own_name, #name_,                \
                                (PandaPppFunction)fn) == 0;                   \
    }                                                                         \
    PANDA_C_LINKAGE PANDA_EXPORT void ppp_add_cb_##name_##_with_context(      \
        name_##_t_with_context fn, void *context)                             \
    {                                                                         \
        panda_ppp_add_with_context(panda_plugin_own_name, #name_,             \
                                   panda_plugin_self,                         \
                                   (PandaPppFunction)fn, context);            \
    }                                                                         \
    PANDA_C_LINKAGE PANDA_EXPORT bool ppp_remove_cb_##name_##_with_context(   \
        name_##_t_with_context fn, void *context)                             \
    {                                                                         \
        return panda_ppp_remove_with_context(panda_plugin_own_name, #name_,   \
                                             (PandaPppFunction)fn,            \
                                             context) == 0;                   \
    }

/* In the plugin's other files. */
#define PPP_CB_EXTERN(name) extern PandaPluginPoint panda_ppp_##name;

/* Does anybody listen? */
#define PPP_CHECK_CB(name)                                                    \
    (__atomic_load_n(&panda_ppp_##name.point.n, __ATOMIC_RELAXED) != 0)

/* Call who listens; in a callback of the core, on the CPU's thread. */
#define PPP_RUN_CB(name, ...)                                                 \
    PPP_EACH_(name,                                                           \
        if (l_->has_context) {                                                \
            ((name##_t_with_context)l_->function)(l_->context, __VA_ARGS__);  \
        } else {                                                              \
            ((name##_t)l_->function)(__VA_ARGS__);                            \
        })

/* The same for functions that return a bool: is one of the results true? */
#define PPP_RUN_BOOL_CB(name, ...)                                            \
    (__extension__({                                                          \
        bool any_ = false;                                                    \
        PPP_EACH_(name,                                                       \
            any_ |= l_->has_context                                           \
                ? ((name##_t_with_context)l_->function)(l_->context,          \
                                                        __VA_ARGS__)          \
                : ((name##_t)l_->function)(__VA_ARGS__););                    \
        any_;                                                                 \
    }))

#define PPP_EACH_(name, ...)                                                  \
    do {                                                                      \
        const PandaPppPoint *p_ = &panda_ppp_##name.point;                    \
        const PandaPppList *list_ =                                           \
            __atomic_load_n(&p_->list, __ATOMIC_ACQUIRE);                     \
                                                                              \
        for (uint32_t i_ = 0; list_ && i_ < list_->n; i_++) {                 \
            const PandaPppListener *l_ = list_->item[i_];                     \
                                                                              \
            if (__atomic_load_n(&l_->enabled, __ATOMIC_RELAXED)               \
                && !__atomic_load_n(p_->gate, __ATOMIC_RELAXED)) {            \
                __VA_ARGS__                                                   \
            }                                                                 \
        }                                                                     \
    } while (0)

/* Listen to another plugin, which is loaded: from init_plugin() on. */
#define PPP_REG_CB(plugin, name, fn)                                          \
    PPP_MUST_(panda_ppp_add(plugin, #name, panda_plugin_self,                 \
                            (PandaPppFunction)(fn)))
#define PPP_REG_CB_WITH_CONTEXT(plugin, name, fn, context)                    \
    PPP_MUST_(panda_ppp_add_with_context(plugin, #name, panda_plugin_self,    \
                                         (PandaPppFunction)(fn), context))
#define PPP_REMOVE_CB(plugin, name, fn)                                       \
    PPP_MUST_(panda_ppp_remove(plugin, #name, (PandaPppFunction)(fn)))
#define PPP_REMOVE_CB_WITH_CONTEXT(plugin, name, fn, context)                 \
    PPP_MUST_(panda_ppp_remove_with_context(plugin, #name,                    \
                                            (PandaPppFunction)(fn), context))

/* PANDA ends the process; a plugin sees it in the result. */
#define PPP_MUST_(call)                                                       \
    (__extension__({                                                          \
        int status_ = (call);                                                 \
        if (status_ < 0) {                                                    \
            fprintf(stderr, "plugin %s: %s\n", panda_plugin_own_name,         \
                    panda_last_error());                                      \
        }                                                                     \
        status_ == 0;                                                         \
    }))

#endif
