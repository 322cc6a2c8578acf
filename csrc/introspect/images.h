/*
 * Programs and libraries that a process has mapped, with their symbols.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_IMAGES_H
#define PANDA_INTROSPECT_IMAGES_H

#include "introspect/elf.h"
#include "panda/symbols.h"

typedef struct OsImage {
    char *path;
    /* Its struct file; 0: the vdso. */
    uint64_t file;
    uint64_t start;
    uint64_t end;
    uint64_t bias;
    const OsElfSymbols *symbols;
} OsImage;

/*
 * Call visit() for each of a process, by address, with os_lock held; stops if
 * it returns false. Only files with a part in their path, only the one at an
 * address; NULL and 0: all. Negative PandaStatus if the process has no map.
 */
int os_for_each_image(uint64_t task, const char *part, uint64_t address,
                      bool (*visit)(const OsImage *image, void *opaque),
                      void *opaque);

/* The symbol of an image at or below an address; NULL: there is none. */
const OsElfSymbol *os_image_symbol_at(const OsImage *image, uint64_t address);

/* One by name, a version may follow an @; *from is where to begin, and is
 * moved behind it. NULL: no more. */
const OsElfSymbol *os_image_symbol(const OsImage *image, const char *name,
                                   uint64_t *from);

void os_fill_symbol(const OsImage *image, const OsElfSymbol *s,
                    PandaSymbol *out);

/* Tables that were not complete are to be looked at again. */
void os_images_doubt(void);

#endif
