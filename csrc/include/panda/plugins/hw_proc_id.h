/*
 * hw_proc_id: what tells processes apart, as the hardware has it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_HW_PROC_ID_H
#define PANDA_PLUGINS_HW_PROC_ID_H

#include "panda/cpu.h"
#include "panda/types.h"

PANDA_C_BEGIN

/**
 * A number of the process that runs.
 *
 * panda_current_asid(); on MIPS, whose address space numbers are reused, the
 * kernel's pointer to the thread that runs, as it was last seen.
 *
 * Never blocks.
 */
target_ptr_t panda_hw_proc_id_get_id(PandaCPU *cpu);

/**
 * Whether it is known: on MIPS not before the kernel has run.
 *
 * Never blocks.
 */
bool panda_hw_proc_id_id_is_initialized(void);

PANDA_C_END

#endif
