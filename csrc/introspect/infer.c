/*
 * The layout of a kernel without type information, worked out from memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"

bool os_layout_infer(CPUState *cs)
{
    return false;
}
