/*
 * hooks, as a plugin: they are always there (csrc/hooks).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "plugins/plugins.h"

PANDA_PLUGIN(hooks, "functions called when the guest comes to an address",
             NULL, NULL);
