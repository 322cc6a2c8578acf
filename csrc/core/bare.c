/*
 * The machine without devices, -M configurable: one CPU, and the memory that
 * panda_map_memory() adds.
 *
 * Nothing is there that could report an error, so it is the run that does: it
 * ends at an access to where there is no memory, and at an exception whose
 * handler is not in memory. The CPU is left standing before that instruction.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/bare.h"
#include "core/block_events.h"
#include "core/limit.h"
#include "core/machine.h"
#include "exec/exec-all.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "system/cpus.h"
#include "system/reset.h"
#include "system/runstate-action.h"

#define TYPE_BARE_MACHINE MACHINE_TYPE_NAME("configurable")
OBJECT_DECLARE_SIMPLE_TYPE(BareMachine, BARE_MACHINE)

struct BareMachine {
    MachineState parent;
    char *mode;
};

bool panda_bare;
static PandaFault fault;

/* ---- faults ---- */

static void (*real_do_interrupt)(CPUState *cs);

/* While an exception is delivered: its number, and the state before. */
static int delivered = -1;
static CPUArchState before;

static void end_run(CPUState *cs, int reason)
{
    panda_request_stop(reason);
    cpu_stop_current();
}

static void note_access(uint32_t kind, uint64_t pc, uint64_t addr,
                        uint64_t physical, uint32_t size)
{
    fault = (PandaFault) {
        .kind = kind,
        .exception = -1,
        .pc = pc,
        .address = addr,
        .physical = physical,
        .size = size,
    };
}

static void end_at_exception(CPUState *cs, int exception, uint64_t handler)
{
    panda_arch_bare_drop(cs, exception);
    fault = (PandaFault) {
        .kind = PANDA_FAULT_EXCEPTION,
        .exception = exception,
        .pc = panda_arch_get_pc(cs),
        .address = handler,
    };
    panda_limit_retract();
    end_run(cs, PANDA_RUN_GUEST_FAULT);
}

static bool is_memory(uint64_t addr)
{
    uint8_t byte;

    return panda_virtual_memory_read(&panda_vcpu.pub, addr, &byte, 1)
           == PANDA_OK;
}

static void do_interrupt(CPUState *cs)
{
    int exception = cs->exception_index;
    uint64_t handler = 0;

    if (panda_arch_bare_vector(cs, exception)) {
        before = *cpu_env(cs);
        delivered = exception;
        real_do_interrupt(cs);
        delivered = -1;
        handler = panda_arch_get_pc(cs);
        if (is_memory(handler)) {
            return;
        }
        *cpu_env(cs) = before;
    }
    end_at_exception(cs, exception, handler);
}

static void do_transaction_failed(CPUState *cs, panda_hwaddr_t physical,
                                  vaddr addr, unsigned size,
                                  MMUAccessType type, int mmu_idx,
                                  MemTxAttrs attrs, MemTxResult response,
                                  uintptr_t ra)
{
    static const uint8_t kinds[] = {
        [MMU_DATA_LOAD] = PANDA_FAULT_READ,
        [MMU_DATA_STORE] = PANDA_FAULT_WRITE,
        [MMU_INST_FETCH] = PANDA_FAULT_FETCH,
    };
    uint64_t pc;
    int reason = 0;

    if (delivered >= 0) {
        /* The table of handlers, or the stack, is not there. */
        int exception = delivered;

        delivered = -1;
        *cpu_env(cs) = before;
        end_at_exception(cs, exception, addr);
        cpu_loop_exit_noexc(cs);
    }
    if (ra) {
        cpu_restore_state(cs, ra);
        panda_limit_retract();
    }
    pc = panda_arch_get_pc(cs);
    if (type == MMU_INST_FETCH) {
        /* What ends the run there need not be memory. */
        reason = panda_limit_reached(pc);
    }
    if (!reason) {
        reason = PANDA_RUN_GUEST_FAULT;
        note_access(kinds[type], pc, addr, physical, size);
    }
    if (bql_locked()) {
        /* No callback is called with it here. */
        bql_unlock();
    }
    panda_block_finish_early(cs);
    end_run(cs, reason);
    cpu_loop_exit_noexc(cs);
}

void panda_bare_install(TCGCPUOps *ops)
{
    if (panda_bare) {
        real_do_interrupt = ops->do_interrupt;
        ops->do_interrupt = do_interrupt;
        ops->do_transaction_failed = do_transaction_failed;
    }
}

/* Without devices nothing ends the wait for an interrupt. */
void panda_bare_cpu_left(CPUState *cs, int result)
{
    if (panda_bare && cs->halted
        && (result == EXCP_HLT || result == EXCP_HALTED)) {
        /* The next run goes on after the instruction. */
        cs->halted = 0;
        end_run(cs, PANDA_RUN_HALTED);
    }
}

bool panda_machine_is_bare(void)
{
    return panda_bare;
}

int panda_last_fault(PandaFault *out)
{
    *out = fault;
    return PANDA_OK;
}

void panda_bare_run_begins(void)
{
    fault = (PandaFault) { .exception = -1 };
}

const char *panda_exception_name(int number)
{
    return panda_arch_exception_name(number);
}

/* ---- the machine ---- */

static void start(void *opaque)
{
    CPUState *cs = opaque;

    cpu_reset(cs);
    cs->halted = 0;
    panda_arch_bare_start(cs, BARE_MACHINE(current_machine)->mode);
}

static void bare_init(MachineState *machine)
{
    BareMachine *self = BARE_MACHINE(machine);
    Object *cpu;

    if (machine->kernel_filename) {
        error_report("-M configurable does not take -kernel: map memory in "
                     "after_machine_init, and write the program to it");
        exit(1);
    }
    panda_bare = true;
    /* There is no reset button, and a program that resets has ended. */
    reboot_action = REBOOT_ACTION_SHUTDOWN;
    machine->ram_size = 0;
    cpu = object_new(machine->cpu_type);
    panda_arch_bare_prepare(cpu);
    qdev_realize(DEVICE(cpu), NULL, &error_fatal);
    object_unref(cpu);
    panda_arch_bare_wire(CPU(cpu));
    cpu_reset(CPU(cpu));
    if (!panda_arch_bare_start(CPU(cpu), self->mode)) {
        error_report("-M configurable,mode=%s: a CPU of %s has no such mode",
                     self->mode, PANDALITE_ARCH);
        exit(1);
    }
    qemu_register_reset(start, cpu);
}

static char *get_mode(Object *obj, Error **errp)
{
    return g_strdup(BARE_MACHINE(obj)->mode);
}

static void set_mode(Object *obj, const char *value, Error **errp)
{
    BareMachine *self = BARE_MACHINE(obj);

    g_free(self->mode);
    self->mode = g_strdup(value);
}

static void bare_class_init(ObjectClass *class, void *data)
{
    MachineClass *mc = MACHINE_CLASS(class);

    mc->desc = "one CPU, no devices, the memory that is mapped";
    mc->init = bare_init;
    mc->default_cpu_type = panda_arch_bare_cpu;
    mc->max_cpus = 1;
    mc->no_serial = 1;
    mc->no_parallel = 1;
    mc->no_floppy = 1;
    mc->no_cdrom = 1;
    object_class_property_add_str(class, "mode", get_mode, set_mode);
    object_class_property_set_description(class, "mode",
                                          "x86: real, protected or long");
}

static const TypeInfo bare_type = {
    .name = TYPE_BARE_MACHINE,
    .parent = TYPE_MACHINE,
    .instance_size = sizeof(BareMachine),
    .class_init = bare_class_init,
};

static void register_type(void)
{
    type_register_static(&bare_type);
}
type_init(register_type)
