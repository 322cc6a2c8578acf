/*
 * PANDA's structures of processes, as the plugin osi's files share them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_OSI_INTERNAL_H
#define PANDA_PLUGINS_OSI_INTERNAL_H

#include "panda/os.h"
#include "panda/plugins/osi.h"

/* The process of a task; its name is to be freed. */
OsiProc panda_osi_process_of(const PandaTask *t);

static inline OsiProcHandle panda_osi_handle_of(const PandaTask *t)
{
    return (OsiProcHandle) { .taskd = t->task, .asid = t->asid };
}

#endif
