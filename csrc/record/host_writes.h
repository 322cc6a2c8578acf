/*
 * What the host program writes in a callback while a recording is made.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_HOST_WRITES_H
#define PANDA_RECORD_HOST_WRITES_H

#include "record/log.h"

/* Of an entry of a flush: the TLB also gets the size it has at first. */
#define PANDA_FLUSH_FORGET 2

/* A recording begins. */
void panda_host_writes_begin(void);
/* A callback is about to write memory, or a register; false: not here. */
bool panda_host_write(bool is_memory);
void panda_host_memory_written(MemoryRegion *mr, hwaddr addr, hwaddr length);
/* Something is written: the slice has to end. */
bool panda_host_writes_pending(void);
/* The slice has ended: log it; were registers written? */
bool panda_host_writes_log(CPUState *cs);

#endif
