/*
 * The plugins that are built in.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "plugins/plugins.h"

#define PLUGINS(_)                                                            \
    _(asidstory)                                                              \
    _(callstack_instr)                                                        \
    _(callwitharg)                                                            \
    _(coverage)                                                               \
    _(dynamic_symbols)                                                        \
    _(hooks)                                                                  \
    _(hooks2)                                                                 \
    _(hw_proc_id)                                                             \
    _(hypercaller)                                                            \
    _(loaded)                                                                 \
    _(mem_hooks)                                                              \
    _(osi)                                                                    \
    _(proc_start_linux)                                                       \
    _(signal)                                                                 \
    _(stringsearch)                                                           \
    _(syscalls2)                                                              \
    _(osi_linux)

#define DECLARE(name) extern const PandaBuiltin panda_builtin_##name;
PLUGINS(DECLARE)

#define ROW(name) &panda_builtin_##name,
const PandaBuiltin *const panda_builtins[] = {
    PLUGINS(ROW)
    NULL
};
