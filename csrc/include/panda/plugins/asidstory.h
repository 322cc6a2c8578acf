/*
 * asidstory: which processes ran when, as a chart in a file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_ASIDSTORY_H
#define PANDA_PLUGINS_ASIDSTORY_H

#include "panda/cpu.h"
#include "panda/plugins/osi.h"
#include "panda/types.h"

PANDA_C_BEGIN

/** Another process runs, or the one that runs has got another program. */
typedef void (*on_proc_change_t)(PandaCPU *cpu, target_ptr_t asid,
                                 OsiProc *proc);

PANDA_C_END

#endif
