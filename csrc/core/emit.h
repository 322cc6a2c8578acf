/*
 * Small pieces of generated code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_EMIT_H
#define PANDA_CORE_EMIT_H

#include "core/internal.h"
#include "core/listeners.h"
#include "tcg/tcg-op.h"

/*
 * Emit: jump to the label returned unless a listener of mask may want the
 * event. To be used where no temporary is live: a label ends their lives.
 * done: a word with bits of listeners that are done, or NULL.
 */
TCGLabel *panda_emit_guard(uint64_t mask, const uint64_t *done);

/* Emit: *where = value. */
void panda_emit_store_u64(uint64_t *where, uint64_t value);

TCGv_i64 panda_emit_load_u64(const uint64_t *where);

/* All ones while a listener is on, else 0. */
TCGv_i64 panda_emit_load_on(const PandaListener *l);

#endif
