/*
 * The kernel's own symbol table (kallsyms), read from guest RAM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_KALLSYMS_H
#define PANDA_INTROSPECT_KALLSYMS_H

#include "introspect/guest_memory.h"

/* What the kernel says of itself for crash dumps; NULL if it is not there. */
const char *os_vmcoreinfo(void);

/* Find the text, and what it says of where the kernel is. */
bool os_vmcoreinfo_find(CPUState *cs);

/* What the text has for a key, all that is left of `=`; false: nothing. */
bool os_vmcoreinfo_text(const char *key, char *buf, size_t size);

/* The same, a whole number that is written in decimal digits. */
bool os_vmcoreinfo_number(const char *key, uint64_t *value);

/* The same, a number in hexadecimal ones. */
bool os_vmcoreinfo_hex(const char *key, uint64_t *value);

/*
 * Find and decode the table: by VMCOREINFO, else by what it looks like. False:
 * it is not there, or it does not make sense.
 */
bool os_kallsyms_find(void);

/* How it was found and which encoding it has, for reports. */
const char *os_kallsyms_how(void);
uint64_t os_kallsyms_count(void);

/* Address of a symbol; false if there is none of that name. */
bool os_symbol(const char *name, uint64_t *address);

/*
 * The symbol at or below an address, and how far below; NULL. The name is
 * valid until the next attach.
 */
const char *os_symbol_at(uint64_t address, uint64_t *offset, char *type);

/* All of them, in the order of their addresses. */
const char *os_symbol_by_index(uint64_t index, uint64_t *address,
                               char *type);

#endif
