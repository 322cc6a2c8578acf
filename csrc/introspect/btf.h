/*
 * BTF: the type information that Linux carries in memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_BTF_H
#define PANDA_INTROSPECT_BTF_H

#include "introspect/guest_memory.h"

/*
 * Find it and check it: by symbols, else by looking for it. Its text is valid
 * until the next call.
 */
bool os_btf_find(void);
uint64_t os_btf_types(void);

/*
 * Offset in bytes and size of a field; a dot leads into a structure that is a
 * field, anonymous structures are seen through. False: there is none.
 */
bool os_btf_field(const char *structure, const char *path, uint32_t *offset,
                  uint32_t *size);
bool os_btf_size(const char *structure, uint32_t *size);

#endif
