/*
 * hw_proc_id: what tells processes apart, as the hardware has it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "plugins/plugins.h"
#include "panda/plugins/hw_proc_id.h"

#ifdef TARGET_MIPS

/* Linux keeps its pointer to the thread's data in register 28. */
#define THREAD_REGISTER 28
/* A kernel's stack of 64 bits has them at its base. */
#define STACK_MASK (~(uint64_t)0x1fff)

static uint64_t id;
static bool known;

static void block(PandaCPU *cpu, PandaTB *tb)
{
    CPUMIPSState *env = cpu_env(panda_vcpu.cs);

#ifdef TARGET_MIPS64
    id = env->active_tc.gpr[THREAD_REGISTER] & STACK_MASK;
#else
    id = env->active_tc.gpr[THREAD_REGISTER];
#endif
    known = true;
}

target_ptr_t panda_hw_proc_id_get_id(PandaCPU *cpu)
{
    return id;
}

bool panda_hw_proc_id_id_is_initialized(void)
{
    return known;
}

static bool init(PandaPlugin *self)
{
    PandaFilter kernel = { .mode = PANDA_MODE_KERNEL };
    panda_cb cb = { .start_block_exec = block };

    known = false;
    return panda_set_filter(self, &kernel) == PANDA_OK
        && panda_register_callback(self, PANDA_CB_START_BLOCK_EXEC, cb)
           == PANDA_OK;
}

#else

target_ptr_t panda_hw_proc_id_get_id(PandaCPU *cpu)
{
    return panda_current_asid(cpu);
}

bool panda_hw_proc_id_id_is_initialized(void)
{
    return panda_vcpu.cs;
}

static bool init(PandaPlugin *self)
{
    return true;
}

#endif

PANDA_PLUGIN(hw_proc_id, "a number of the process that runs, as the hardware "
             "has it", init, NULL);
