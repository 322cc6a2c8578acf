/*
 * Arguments of functions inside of the guest's kernel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/events.h"
#include "arch/abi.h"

#ifdef TARGET_I386

/* Linux for i386 is compiled with -mregparm=3. */
static target_ulong *in_register(CPUState *cs, unsigned n)
{
    static const uint8_t registers[] = { R_EAX, R_EDX, R_ECX };
    CPUX86State *env = cpu_env(cs);

    return panda_abi_word(cs) == 4 && n < ARRAY_SIZE(registers)
        ? &env->regs[registers[n]] : NULL;
}

/* What is on the stack begins behind the return address. */
static unsigned on_stack(CPUState *cs, unsigned n)
{
    return panda_abi_word(cs) == 4 ? n - 3 : n;
}

#else

static target_ulong *in_register(CPUState *cs, unsigned n)
{
    return NULL;
}

static unsigned on_stack(CPUState *cs, unsigned n)
{
    return n;
}

#endif

bool panda_os_get_argument(CPUState *cs, unsigned n, uint64_t *value)
{
    const target_ulong *reg = in_register(cs, n);

    if (reg) {
        *value = (uint32_t)*reg;
        return true;
    }
    return panda_abi_argument(cs, on_stack(cs, n), value);
}

bool panda_os_set_argument(CPUState *cs, unsigned n, uint64_t value)
{
    target_ulong *reg = in_register(cs, n);

    if (reg) {
        *reg = (uint32_t)value;
        return true;
    }
    return panda_abi_set_argument(cs, on_stack(cs, n), value);
}
