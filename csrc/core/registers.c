/*
 * Registers, privilege and address space: the part all architectures share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "record/record.h"
#include "core/machine.h"
#include "qemu/main-loop.h"

/* Is the calling code a callback of the virtual CPU? */
static bool in_event(void)
{
    return panda_vcpu.pub.in_callback && panda_in_vcpu_thread();
}

static bool is_readable(PandaCPU *cpu)
{
    return cpu == &panda_vcpu.pub && panda_vcpu.cs;
}

static int check_cpu(PandaCPU *cpu)
{
    int status = panda_check_usable();

    if (status != PANDA_OK) {
        return status;
    }
    if (!is_readable(cpu)) {
        return panda_fail(PANDA_ERR_ARGUMENT,
                          "not a CPU of the present machine");
    }
    return PANDA_OK;
}

/* To be called with the big lock held unless in_event(). */
static int check_no_event(const char *what)
{
    CPUState *cs = panda_vcpu.cs;

    /* The CPU thread between two turns, or a CPU that does not run. */
    if (panda_in_vcpu_thread() ? !cs->running : cs->stopped) {
        return PANDA_OK;
    }
    return panda_fail(PANDA_ERR_STATE, "%s cannot be written from this thread "
                      "while the guest runs; pause it first (vm_stop) or "
                      "write in a callback", what);
}

/* The CPU uses the new value when the block at hand has been left. */
static void request_retranslation(void)
{
    if (panda_place_is_between(panda_vcpu.place)
        || panda_vcpu.place == PANDA_PLACE_BLOCK_END) {
        panda_vcpu.requests |= PANDA_REQUEST_RETRANSLATE;
    }
}

/* ---- program counter ---- */

target_ptr_t panda_current_pc(PandaCPU *cpu)
{
    if (!is_readable(cpu)) {
        return 0;
    }
    return panda_vcpu.pub.in_callback ? panda_vcpu.pub.panda_guest_pc
                                      : panda_arch_get_pc(panda_vcpu.cs);
}

static int set_pc_in_event(uint64_t pc)
{
    switch (panda_vcpu.place) {
    case PANDA_PLACE_TRANSLATION:
        return panda_fail(PANDA_ERR_STATE, "the program counter cannot be set "
                          "while a block is being translated; do it in an "
                          "execution callback");
    case PANDA_PLACE_HELPER:
        return panda_fail(PANDA_ERR_STATE, "the program counter cannot be set "
                          "in this callback: the CPU is in the middle of an "
                          "instruction; do it in insn_exec or "
                          "before_block_exec");
    default:
        break;
    }
    panda_vcpu.requests |= PANDA_REQUEST_SET_PC;
    panda_vcpu.requested_pc = pc;
    /* So that whoever reads it now sees what was written. */
    panda_vcpu.pub.panda_guest_pc = pc;
    panda_arch_set_pc(panda_vcpu.cs, pc);
    return PANDA_OK;
}

int panda_set_pc(PandaCPU *cpu, target_ptr_t pc)
{
    int status = check_cpu(cpu);

    status = status ?: panda_rr_check_write(false);
    if (status != PANDA_OK) {
        return status;
    }
    if (pc != (target_ulong)pc) {
        return panda_fail(PANDA_ERR_ARGUMENT, "0x%" PRIx64 " is no address of "
                          "a %d-bit guest", pc, TARGET_LONG_BITS);
    }
    if (in_event()) {
        return set_pc_in_event(pc);
    }
    BQL_LOCK_GUARD();
    status = check_no_event("the program counter");
    if (status == PANDA_OK) {
        panda_arch_set_pc(panda_vcpu.cs, pc);
    }
    return status;
}

/* ---- other state every architecture has ---- */

target_ptr_t panda_current_sp(PandaCPU *cpu)
{
    return is_readable(cpu) ? panda_arch_get_sp(panda_vcpu.cs) : 0;
}

target_ptr_t panda_current_ksp(PandaCPU *cpu)
{
    return is_readable(cpu) ? panda_arch_get_ksp(panda_vcpu.cs) : 0;
}

target_ptr_t panda_current_asid(PandaCPU *cpu)
{
    return is_readable(cpu) ? panda_arch_get_asid(panda_vcpu.cs) : 0;
}

bool panda_in_kernel_mode(PandaCPU *cpu)
{
    return is_readable(cpu) && panda_arch_in_kernel(panda_vcpu.cs);
}

/* ---- registers by number ---- */

static const PandaRegister *find(int id)
{
    unsigned count;
    const PandaRegister *all = panda_arch_registers(&count);

    return id >= 0 && id < count ? &all[id] : NULL;
}

int panda_register_id(const char *name)
{
    unsigned count;
    const PandaRegister *all = panda_arch_registers(&count);

    for (unsigned i = 0; name && i < count; i++) {
        if (!strcmp(all[i].name, name)) {
            return i;
        }
    }
    return -1;
}

const char *panda_register_name(int id)
{
    const PandaRegister *reg = find(id);

    return reg ? reg->name : NULL;
}

uint32_t panda_register_size(int id)
{
    const PandaRegister *reg = find(id);

    return reg ? reg->size : 0;
}

static int check_access(PandaCPU *cpu, const PandaRegister *reg, int id,
                        uint32_t size)
{
    int status = check_cpu(cpu);

    if (status != PANDA_OK) {
        return status;
    }
    if (!reg) {
        return panda_fail(PANDA_ERR_ARGUMENT, "there is no register %d", id);
    }
    if (size != reg->size) {
        return panda_fail(PANDA_ERR_ARGUMENT, "%s has %" PRIu32 " bytes, not "
                          "%" PRIu32, reg->name, reg->size, size);
    }
    return PANDA_OK;
}

int panda_register_read(PandaCPU *cpu, int id, uint8_t *buf, uint32_t size)
{
    const PandaRegister *reg = find(id);
    int status = check_access(cpu, reg, id, size);

    if (status == PANDA_OK) {
        reg->read(panda_vcpu.cs, reg->index, buf);
    }
    return status;
}

static int write_in_event(const PandaRegister *reg, const uint8_t *buf)
{
    switch (panda_vcpu.place) {
    case PANDA_PLACE_TRANSLATION:
        return panda_fail(PANDA_ERR_STATE, "%s cannot be written while a "
                          "block is being translated; do it in an execution "
                          "callback", reg->name);
    case PANDA_PLACE_HELPER:
    case PANDA_PLACE_MEM:
        /*
         * The instruction cannot be left half done, and the rest of it was
         * translated for the old value.
         */
        if (reg->mode) {
            return panda_fail(PANDA_ERR_STATE, "%s cannot be written in the "
                              "middle of an instruction; do it in insn_exec "
                              "or before_block_exec", reg->name);
        }
        break;
    default:
        break;
    }
    reg->write(panda_vcpu.cs, reg->index, buf);
    if (reg->mode) {
        request_retranslation();
    }
    return PANDA_OK;
}

int panda_register_write(PandaCPU *cpu, int id, const uint8_t *buf,
                         uint32_t size)
{
    const PandaRegister *reg = find(id);
    int status = check_access(cpu, reg, id, size);

    status = status ?: panda_rr_check_write(false);
    if (status != PANDA_OK) {
        return status;
    }
    if (in_event()) {
        return write_in_event(reg, buf);
    }
    BQL_LOCK_GUARD();
    status = check_no_event(reg->name);
    if (status == PANDA_OK) {
        reg->write(panda_vcpu.cs, reg->index, buf);
    }
    return status;
}
