/*
 * What a hook does to the function it is in.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "arch/abi.h"
#include "panda/plugins/hooks.h"

static int check(bool write)
{
    int status = panda_check_usable();

    if (status == PANDA_OK && write) {
        status = panda_may_write_registers();
    }
    return status;
}

static int not_there(const char *what)
{
    return panda_fail(PANDA_ERR_MEMORY, "%s is on the stack, which is not "
                      "mapped", what);
}

int panda_hooks_get_argument(PandaCPU *cpu, uint32_t number,
                             target_ptr_t *value)
{
    int status = check(false);

    if (status == PANDA_OK
        && !panda_abi_argument(panda_vcpu.cs, number, value)) {
        status = not_there("the argument");
    }
    return status;
}

int panda_hooks_set_argument(PandaCPU *cpu, uint32_t number,
                             target_ptr_t value)
{
    int status = check(true);

    if (status == PANDA_OK
        && !panda_abi_set_argument(panda_vcpu.cs, number, value)) {
        status = not_there("the argument");
    }
    return status;
}

int panda_hooks_get_return_address(PandaCPU *cpu, target_ptr_t *address)
{
    int status = check(false);

    if (status == PANDA_OK
        && !panda_abi_return_address(panda_vcpu.cs, address)) {
        status = not_there("the return address");
    }
    return status;
}

target_ptr_t panda_hooks_get_returned_sp(PandaCPU *cpu)
{
    return check(false) == PANDA_OK ? panda_abi_returned_sp(panda_vcpu.cs) : 0;
}

target_ptr_t panda_hooks_get_result(PandaCPU *cpu)
{
    return check(false) == PANDA_OK ? panda_abi_result(panda_vcpu.cs) : 0;
}

int panda_hooks_set_result(PandaCPU *cpu, target_ptr_t value)
{
    int status = check(true);

    if (status == PANDA_OK) {
        panda_abi_set_result(panda_vcpu.cs, value);
    }
    return status;
}

int panda_hooks_skip_function(PandaCPU *cpu, target_ptr_t result)
{
    target_ptr_t address;
    int status = check(true);

    if (status == PANDA_OK) {
        status = panda_hooks_get_return_address(cpu, &address);
    }
    if (status == PANDA_OK) {
        panda_abi_set_result(panda_vcpu.cs, result);
        panda_abi_leave(panda_vcpu.cs);
        status = panda_set_pc(cpu, address);
    }
    return status;
}
