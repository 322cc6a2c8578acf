/*
 * Arguments of plugins, for those who load them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_ARGUMENTS_H
#define PANDA_PLUGINS_ARGUMENTS_H

#include "core/internal.h"

/* A plugin is being loaded, and looks at its arguments. */
void panda_arguments_begin(const char *plugin);
/* Has it found one that is missing or makes no sense? */
bool panda_arguments_failed(void);
/* It has been; false with an error set if they are no good. */
bool panda_arguments_end(void);

/* Take a plugin's arguments away. */
void panda_arguments_forget(const char *plugin);

#endif
