/*
 * What the files of the ARM family share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_ARCH_ARM_H
#define PANDA_ARCH_ARM_H

#include "core/internal.h"

/* What names the address space of the page tables that a TTBR0 tells. */
uint64_t panda_arm_table_base(CPUARMState *env, uint64_t ttbr);

#endif
