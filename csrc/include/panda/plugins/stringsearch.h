/*
 * stringsearch: texts that code reads or writes, byte by byte or in larger pieces.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_STRINGSEARCH_H
#define PANDA_PLUGINS_STRINGSEARCH_H

#include "panda/cpu.h"
#include "panda/types.h"

PANDA_C_BEGIN

/**
 * An instruction has accessed the last byte of a text, and all before it in order.
 *
 * addr is the address of that access. in_memory: the text is there as a whole.
 */
typedef void (*on_ssm_t)(PandaCPU *cpu, target_ptr_t pc, target_ptr_t addr,
                         uint8_t *matched, uint32_t len, bool is_write,
                         bool in_memory);

/**
 * Look for a text; one like "0a:0b:0c" is the bytes with these values.
 *
 * False if it is empty, too long (256) or looked for already, or if there are
 * too many (100).
 */
bool panda_stringsearch_add_string(const char *text);

/** Look for it no more; false if it was not looked for. */
bool panda_stringsearch_remove_string(const char *text);

/** Look for nothing. */
void panda_stringsearch_reset_strings(void);

PANDA_C_END

#endif
