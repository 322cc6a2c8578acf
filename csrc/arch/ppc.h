/*
 * What the PowerPC files share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_ARCH_PPC_H
#define PANDA_ARCH_PPC_H

#include "record/record.h"

/* The last number a crossing may have (border.h). */
#define PANDA_CROSS_HYPERCALL 47

/* ---- pseries, whose hypervisor is a part of QEMU (ppc_pseries.c) ---- */

unsigned panda_pseries_lines(CPUState *cs, PandaLine *table);
/* Why such a machine cannot be recorded; NULL if it can. */
const char *panda_pseries_prepare(CPUState *cs);

#endif
