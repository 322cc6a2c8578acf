/*
 * loaded: programs and libraries that are mapped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_LOADED_H
#define PANDA_PLUGINS_LOADED_H

#include "panda/cpu.h"
#include "panda/types.h"

PANDA_C_BEGIN

/**
 * The current process has mapped a part of a file.
 *
 * pc is that of the kernel's function which tells of it. filename is the path,
 * valid until the function returns; base and size are those of the mapping.
 */
typedef void (*on_library_load_t)(PandaCPU *cpu, target_ptr_t pc,
                                  char *filename, target_ptr_t base,
                                  target_ptr_t size);

PANDA_C_END

#endif
