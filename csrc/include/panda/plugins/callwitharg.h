/*
 * callwitharg: calls with a number or a text among their first arguments.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_CALLWITHARG_H
#define PANDA_PLUGINS_CALLWITHARG_H

#include "panda/cpu.h"
#include "panda/types.h"

PANDA_C_BEGIN

/** A function was called whose argument of that index is one of the numbers. */
typedef void (*on_call_match_num_t)(PandaCPU *cpu, target_ptr_t func,
                                    target_ptr_t *args, uint32_t matching_idx,
                                    uint32_t args_read);

/** A function was called whose argument of that index points to one of the texts. */
typedef void (*on_call_match_str_t)(PandaCPU *cpu, target_ptr_t func,
                                    target_ptr_t *args, char *value,
                                    uint32_t matching_idx, uint32_t args_read);

/** Look for a text. */
void panda_callwitharg_add_target_string(const char *target);

/** Look for a text no more; false if it was not looked for. */
bool panda_callwitharg_remove_target_string(const char *target);

/** Look for a number. */
void panda_callwitharg_add_target_num(target_ptr_t target);

/** Look for a number no more; false if it was not looked for. */
bool panda_callwitharg_remove_target_num(target_ptr_t target);

PANDA_C_END

#endif
