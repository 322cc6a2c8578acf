/*
 * Places in the guest's code where generated code calls out.
 *
 * A site is known by its address, in whatever address space. Once it is known
 * all code that is translated there calls out, until the code cache is
 * flushed; what was translated before is invalidated when a site becomes
 * known, and only that.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_HOOKS_SITES_H
#define PANDA_HOOKS_SITES_H

#include "core/internal.h"

struct PandaHookList;

typedef struct PandaSite {
    uint64_t pc;
    /* How many hooks act here: what generated code looks at. */
    uint32_t n;
    struct PandaHookList *list;
} PandaSite;

/* Protects sites and hooks; whoever holds it waits for nothing. */
extern pthread_mutex_t panda_sites_lock;

/* ---- with the lock held ---- */

/*
 * The site of an address, known from now on. asid: the only address space
 * that matters, or 0.
 */
PandaSite *panda_site(uint64_t pc, uint64_t asid);
PandaSite *panda_site_find(uint64_t pc);

#endif
