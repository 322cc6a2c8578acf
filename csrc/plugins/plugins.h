/*
 * Plugins that are compiled in. To add one: a C file with its two functions,
 * a header csrc/include/panda/plugins/<name>.h with what it offers, and a row
 * in table.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_PLUGINS_H
#define PANDA_PLUGINS_PLUGINS_H

#include "core/internal.h"
#include "panda/plugins.h"

/* A loaded plugin; its address owns the callbacks it registers. */
typedef struct PandaPlugin PandaPlugin;

typedef struct PandaBuiltin {
    const char *name;
    /* What it is for, in a line. */
    const char *purpose;
    /*
     * Called once each time it is loaded, on any thread; false with an error
     * set (panda_fail()) if it cannot be. NULL: there is nothing to do.
     */
    bool (*init)(PandaPlugin *self);
    /* What it registered for self is removed by itself after this. */
    void (*uninit)(PandaPlugin *self);
} PandaBuiltin;

/* In the plugin's file. */
#define PANDA_PLUGIN(name_, purpose_, init_, uninit_)                         \
    extern const PandaBuiltin panda_builtin_##name_;                          \
    const PandaBuiltin panda_builtin_##name_ = {                              \
        #name_, purpose_, init_, uninit_                                      \
    }

/* Ends with NULL. */
extern const PandaBuiltin *const panda_builtins[];

/* The arguments it is loaded with; freed by the caller. */
panda_arg_list *panda_plugin_args(PandaPlugin *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(panda_arg_list, panda_free_args)

const char *panda_plugin_name_of(const PandaPlugin *self);

/*
 * Say on stderr why a plugin, by its name, does not get the events it listens
 * to: a PandaOsMissingFunction, for those that cannot refuse to be loaded.
 */
void panda_plugin_misses(const char *reason, void *name);

#endif
