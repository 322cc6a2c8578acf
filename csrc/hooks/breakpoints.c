/*
 * Breakpoints as gdb has them: the machine stops.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/machine.h"
#include "panda/breakpoint.h"
#include "hw/core/cpu.h"
#include "gdbstub/internals.h"

/* The CPU stands at a breakpoint: nobody need be there to be told. */
void __real_gdb_set_stop_cpu(CPUState *cpu);
void __wrap_gdb_set_stop_cpu(CPUState *cpu);
void __wrap_gdb_set_stop_cpu(CPUState *cpu)
{
    if (gdbserver_state.init) {
        __real_gdb_set_stop_cpu(cpu);
    }
}

static void insert(CPUState *cs, run_on_cpu_data data)
{
    /* One of each is enough. */
    cpu_breakpoint_remove(cs, data.target_ptr, BP_GDB);
    cpu_breakpoint_insert(cs, data.target_ptr, BP_GDB, NULL);
}

static void remove_one(CPUState *cs, run_on_cpu_data data)
{
    cpu_breakpoint_remove(cs, data.target_ptr, BP_GDB);
}

static int change(target_ptr_t pc, run_on_cpu_func function)
{
    int status = panda_check_usable();

    if (status == PANDA_OK) {
        async_safe_run_on_cpu(panda_vcpu.cs, function,
                              RUN_ON_CPU_TARGET_PTR(pc));
    }
    return status;
}

int panda_set_breakpoint(PandaCPU *cpu, target_ptr_t pc)
{
    return change(pc, insert);
}

int panda_clear_breakpoint(PandaCPU *cpu, target_ptr_t pc)
{
    return change(pc, remove_one);
}
