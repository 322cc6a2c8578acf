/*
 * Where the fields of the CPU's register state are.
 *
 * Bindings know PandaCPU.env_ptr's layout from debug information
 * (tools/gen_env_layout.py); this table, made by the compiler, is what they
 * are checked against.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_LAYOUT_H
#define PANDA_LAYOUT_H

#include "panda/types.h"

/** Place of one field of the register state PandaCPU.env_ptr points to. */
typedef struct PandaLayoutEntry {
    /** Path of the field, e.g. "segs[1].base"; empty for the whole state. */
    const char *path;
    /** Bytes from the start of the state. */
    uint64_t offset;
    /** Size in bytes; of an array, all of it. */
    uint64_t size;
} PandaLayoutEntry;

/**
 * The fields of the register state that bindings know; *count is their number.
 *
 * Never blocks.
 */
const PandaLayoutEntry *panda_env_layout(size_t *count);

#endif
