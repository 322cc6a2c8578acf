/*
 * What the x86 files share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_ARCH_X86_H
#define PANDA_ARCH_X86_H

#include "core/internal.h"

/* cpu_get_pic_interrupt(), recorded or replayed (x86_record.c). */
int panda_rr_get_pic_interrupt(CPUX86State *env);

#endif
