/*
 * What streams need of the memory events.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_MEMORY_EVENTS_H
#define PANDA_CORE_MEMORY_EVENTS_H

#include "core/internal.h"
#include "exec/memopidx.h"
#include "tcg/tcg.h"

/* An access whose code is being emitted. */
typedef struct PandaEmittedAccess {
    uint64_t pc;
    MemOpIdx oi;
    bool store;
    bool kernel;
    TCGv_i64 lo, hi;
} PandaEmittedAccess;

/* How an access is made. */
#define PANDA_ACCESS_STORE 1u
#define PANDA_ACCESS_KERNEL 2u

/* At run time: the address of the access that is being made. */
uint64_t panda_access_address(void);

#endif
