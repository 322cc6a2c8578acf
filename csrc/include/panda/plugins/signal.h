/*
 * signal: signals of Linux guests that are not to reach their process.
 *
 * @panda.os.on("signal") shows them and can decide about each.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_SIGNAL_H
#define PANDA_PLUGINS_SIGNAL_H

#include "panda/types.h"

PANDA_C_BEGIN

/**
 * From now on, a signal of this number reaches no process.
 *
 * Whoever would get it gets SIGWINCH, which does nothing where nobody asks
 * for it. PANDA_ERR_ARGUMENT if there is no such signal.
 */
int panda_signal_block_sig(int32_t sig);

/** The same for processes of a short name only. */
int panda_signal_block_sig_by_proc(int32_t sig, char *procname);

PANDA_C_END

#endif
