/*
 * The calling conventions of ARM: of 32 bits, and of 64.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/abi.h"

#ifdef TARGET_AARCH64
#define word(cs) (is_a64(cpu_env(cs)) ? 8 : 4)
#else
#define word(cs) 4
#endif

static uint64_t get(CPUState *cs, unsigned n)
{
    CPUARMState *env = cpu_env(cs);

    return word(cs) == 8 ? env->xregs[n] : env->regs[n];
}

static void put(CPUState *cs, unsigned n, uint64_t value)
{
    CPUARMState *env = cpu_env(cs);

    if (word(cs) == 8) {
        env->xregs[n] = value;
    } else {
        env->regs[n] = value;
    }
}

static unsigned in_registers(CPUState *cs)
{
    return word(cs) == 8 ? 8 : 4;
}

static uint64_t stack(CPUState *cs, unsigned n)
{
    return panda_arch_get_sp(cs) + (n - in_registers(cs)) * word(cs);
}

unsigned panda_abi_word(CPUState *cs)
{
    return word(cs);
}

bool panda_abi_argument(CPUState *cs, unsigned n, uint64_t *value)
{
    if (n < in_registers(cs)) {
        *value = get(cs, n);
        return true;
    }
    return panda_abi_read(cs, stack(cs, n), word(cs), value);
}

bool panda_abi_set_argument(CPUState *cs, unsigned n, uint64_t value)
{
    if (n < in_registers(cs)) {
        put(cs, n, value);
        return true;
    }
    return panda_abi_write(cs, stack(cs, n), word(cs), value);
}

/* With bit 0 set if the caller is Thumb code. */
bool panda_abi_return_address(CPUState *cs, uint64_t *address)
{
    *address = get(cs, word(cs) == 8 ? 30 : 14);
    return true;
}

uint64_t panda_abi_returned_sp(CPUState *cs)
{
    return panda_arch_get_sp(cs);
}

uint64_t panda_abi_result(CPUState *cs)
{
    return get(cs, 0);
}

void panda_abi_set_result(CPUState *cs, uint64_t value)
{
    put(cs, 0, value);
}

void panda_abi_leave(CPUState *cs)
{
}

uint64_t panda_abi_hypercall_number(CPUState *cs)
{
    return get(cs, word(cs) == 8 ? 8 : 7);
}
