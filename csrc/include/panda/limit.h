/*
 * Run to an address or for a number of instructions, on any machine.
 *
 * While a limit is set, code is translated with a call before each
 * instruction; without one there is nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_LIMIT_H
#define PANDA_LIMIT_H

#include "panda/types.h"

/** How many addresses a limit can have. */
#define PANDA_LIMIT_ADDRESSES 64

/**
 * Let the next panda_run() end before an instruction is executed.
 *
 * It returns PANDA_RUN_ADDRESS before one at one of the n addresses, but for
 * the first instruction of the run, and PANDA_RUN_COUNT when count have been
 * executed (all ones: no such limit). The counter begins at 0. An instruction
 * that faults and is executed again, as an operating system makes it, may
 * count each time. To be called while nothing runs, by the thread of
 * panda_run().
 *
 * PANDA_ERR_ARGUMENT for more than PANDA_LIMIT_ADDRESSES addresses.
 */
int panda_set_limit(uint64_t count, const target_ptr_t *addresses, uint32_t n);

/** Take the limit away. */
int panda_clear_limit(void);

/**
 * Instructions executed since the limit was set.
 *
 * Never blocks.
 */
uint64_t panda_limit_executed(void);

#endif
