/*
 * Where the tables of kallsyms are.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_KALLSYMS_TABLES_H
#define PANDA_INTROSPECT_KALLSYMS_TABLES_H

#include "introspect/guest_memory.h"

/* How addresses are written down. */
typedef enum OsKallsymsEncoding {
    OS_KALLSYMS_BASE_RELATIVE,
    OS_KALLSYMS_ABSOLUTE_PERCPU,
    OS_KALLSYMS_PLACE_RELATIVE,
    OS_KALLSYMS_ABSOLUTE,
    OS_KALLSYMS_ENCODINGS
} OsKallsymsEncoding;

/* All in host memory; what is not there is NULL or 0. */
typedef struct OsKallsymsTables {
    const uint8_t *names;
    /* The end of the memory they are in. */
    const uint8_t *end;
    uint64_t n;
    const uint8_t *token_table;
    const uint8_t *token_index;
    /* Where each 256th name is, of numbers of so many bytes. */
    const uint8_t *markers;
    unsigned marker_size;
    const uint8_t *offsets;
    uint64_t offsets_va;
    uint64_t relative_base;
    const uint8_t *addresses;
    const char *how;
} OsKallsymsTables;

uint64_t os_kallsyms_marker(const OsKallsymsTables *t, uint64_t i);

/* VMCOREINFO says where they are (Linux 6.0 and later). */
bool os_kallsyms_by_vmcoreinfo(OsKallsymsTables *t);

/*
 * Look for what they look like, until accept() takes a find. Returns whether
 * it did.
 */
bool os_kallsyms_search(bool (*accept)(const OsKallsymsTables *t));

#endif
