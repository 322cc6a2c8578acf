/*
 * Generated code that finds out whether an access is wanted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_ACCESS_GUARD_H
#define PANDA_CORE_ACCESS_GUARD_H

#include "core/internal.h"
#include "exec/memopidx.h"
#include "tcg/tcg.h"

/* May a label be emitted beside an access that listeners of mask may want? */
bool panda_access_can_guard(uint64_t mask);

/*
 * Emit: jump to the label returned unless one of them may want the access, which
 * is counted else. addr: its address, NULL after it was made.
 */
TCGLabel *panda_access_guard(uint64_t mask, TCGTemp *addr, MemOpIdx oi);

#endif
