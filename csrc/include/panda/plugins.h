/*
 * Plugins: what is built in, and what is loaded from files.
 *
 * panda/plugin.h is what the source of a C plugin includes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_H
#define PANDA_PLUGINS_H

#include "panda/types.h"

/** An argument of a plugin. */
typedef struct panda_arg {
    /** The whole, "key=value". */
    char *argptr;
    char *key;
    /** The empty string if there is no "=". */
    char *value;
} panda_arg;

/** The arguments of a plugin. */
typedef struct panda_arg_list {
    int nargs;
    panda_arg *list;
    char *plugin_name;
} panda_arg_list;

/**
 * Load a plugin: a built-in one, or the file given.
 *
 * args are n texts "key=value" or "key". PANDA_OK too if it is loaded already;
 * then args are not looked at. PANDA_ERR_ARGUMENT if there is no such plugin,
 * or if an argument is missing or is none; PANDA_ERR_STATE if it could not be
 * loaded.
 */
int panda_plugin_load(const char *name, const char *path,
                      const char *const *args, uint32_t n);

/**
 * Unload a plugin: its uninit_plugin() is called, its callbacks are removed.
 *
 * The code of a file stays in memory. PANDA_ERR_ARGUMENT if it is not loaded.
 */
int panda_plugin_unload(const char *name);

/** Unload all, the last loaded first. */
void panda_plugins_unload(void);

/** Whether a plugin is loaded. */
bool panda_plugin_is_loaded(const char *name);

/** Name of the loaded plugin of that number, from 0 on; NULL: no more. */
const char *panda_plugin_name(uint32_t number);

/** Name of the built-in plugin of that number, from 0 on; NULL: no more. */
const char *panda_plugin_builtin(uint32_t number);

/** What a built-in plugin is for, in a line; NULL if there is none. */
const char *panda_plugin_purpose(const char *name);

/**
 * Load a plugin from within another; its handle, or NULL if it cannot be.
 *
 * The handle owns the plugin's callbacks; for a plugin from a file it is not
 * that of dlopen(): panda_plugin_symbol() finds its functions.
 */
void *panda_require(const char *name);

/** The handle of a loaded plugin, or NULL. */
void *panda_get_plugin_by_name(const char *name);

/** A function of a loaded plugin, built in or not; NULL if it has none. */
void *panda_plugin_symbol(const char *plugin, const char *function);

/** Give a plugin an argument, before it is loaded; the last of a key counts. */
bool panda_add_arg(const char *plugin, const char *arg);

/** The arguments of a plugin; to be freed by panda_free_args(). */
panda_arg_list *panda_get_args(const char *plugin);

/** Free what panda_get_args() has returned. */
void panda_free_args(panda_arg_list *args);

/** A number; defval if it is not given. */
target_ptr_t panda_parse_ulong(panda_arg_list *args, const char *name,
                               target_ptr_t defval);

/** The same; help says what it is for. */
target_ptr_t panda_parse_ulong_opt(panda_arg_list *args, const char *name,
                                   target_ptr_t defval, const char *help);

/** The same; if it is not given the plugin is not loaded. */
target_ptr_t panda_parse_ulong_req(panda_arg_list *args, const char *name,
                                   const char *help);

/** A number of 32 bits. */
uint32_t panda_parse_uint32(panda_arg_list *args, const char *name,
                            uint32_t defval);

/** The same; help says what it is for. */
uint32_t panda_parse_uint32_opt(panda_arg_list *args, const char *name,
                                uint32_t defval, const char *help);

/** The same; if it is not given the plugin is not loaded. */
uint32_t panda_parse_uint32_req(panda_arg_list *args, const char *name,
                                const char *help);

/** A number of 64 bits. */
uint64_t panda_parse_uint64(panda_arg_list *args, const char *name,
                            uint64_t defval);

/** The same; help says what it is for. */
uint64_t panda_parse_uint64_opt(panda_arg_list *args, const char *name,
                                uint64_t defval, const char *help);

/** The same; if it is not given the plugin is not loaded. */
uint64_t panda_parse_uint64_req(panda_arg_list *args, const char *name,
                                const char *help);

/** A number with a fraction. */
double panda_parse_double(panda_arg_list *args, const char *name,
                          double defval);

/** The same; help says what it is for. */
double panda_parse_double_opt(panda_arg_list *args, const char *name,
                              double defval, const char *help);

/** The same; if it is not given the plugin is not loaded. */
double panda_parse_double_req(panda_arg_list *args, const char *name,
                              const char *help);

/** Yes or no (y, yes, true, 1; n, no, false, 0); no if it is not given. */
bool panda_parse_bool(panda_arg_list *args, const char *name);

/** The same; help says what it is for. */
bool panda_parse_bool_opt(panda_arg_list *args, const char *name,
                          const char *help);

/** The same; if it is not given the plugin is not loaded. */
bool panda_parse_bool_req(panda_arg_list *args, const char *name,
                          const char *help);

/** A text, valid as long as args. */
const char *panda_parse_string(panda_arg_list *args, const char *name,
                               const char *defval);

/** The same; help says what it is for. */
const char *panda_parse_string_opt(panda_arg_list *args, const char *name,
                                   const char *defval, const char *help);

/** The same; if it is not given the plugin is not loaded. */
const char *panda_parse_string_req(panda_arg_list *args, const char *name,
                                   const char *help);

#endif
