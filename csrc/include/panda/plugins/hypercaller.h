/*
 * hypercaller: hypercalls by their number.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_HYPERCALLER_H
#define PANDA_PLUGINS_HYPERCALLER_H

#include "panda/cpu.h"
#include "panda/types.h"

PANDA_C_BEGIN

/** Called when the guest makes a hypercall; it counts as handled. */
typedef void (*hypercall_t)(PandaCPU *cpu);

/**
 * Have a function called for the hypercalls of a number.
 *
 * PANDA_ERR_ARGUMENT if there is one for it already.
 */
int panda_hypercaller_register_hypercall(uint32_t magic, hypercall_t function);

/** Undo it; PANDA_ERR_ARGUMENT if there is none. */
int panda_hypercaller_unregister_hypercall(uint32_t magic);

PANDA_C_END

#endif
