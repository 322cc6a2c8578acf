/*
 * What the guest's kernel has in memory of a file: its page cache.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_PAGE_CACHE_H
#define PANDA_INTROSPECT_PAGE_CACHE_H

#include "introspect/guest_memory.h"

/* A page of a file that a process has: where in RAM, its number in the file. */
typedef struct OsFilePage {
    uint64_t pa;
    uint64_t number;
} OsFilePage;

/*
 * The pages of an open file (its address_space); 0: they cannot be found. A
 * page that a process has mapped of it helps kernels without type information;
 * NULL: none is known.
 */
uint64_t os_cache_of(uint64_t file, const OsFilePage *mapped);

/* Where in RAM a page of it is; OS_NOWHERE: it is not in memory. */
uint64_t os_cached_page(uint64_t cache, uint64_t number);

#endif
