/*
 * Calling conventions of x86: System V's of 64 bits, cdecl of 32.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/abi.h"

static bool is_64(CPUState *cs)
{
    return cpu_env(cs)->hflags & HF_CS64_MASK;
}

static uint64_t trim(CPUState *cs, uint64_t value)
{
    return is_64(cs) ? value : (uint32_t)value;
}

unsigned panda_abi_word(CPUState *cs)
{
    return is_64(cs) ? 8 : 4;
}

static uint64_t stack(CPUState *cs, unsigned slot)
{
    CPUX86State *env = cpu_env(cs);
    uint64_t base = is_64(cs) ? 0 : env->segs[R_SS].base;

    return trim(cs, base + env->regs[R_ESP] + slot * panda_abi_word(cs));
}

#ifdef TARGET_X86_64
static const uint8_t registers[] = { R_EDI, R_ESI, R_EDX, R_ECX, 8, 9 };
#endif

/* The register that has an argument; NULL: it is on the stack, in *slot. */
static target_ulong *place(CPUState *cs, unsigned n, unsigned *slot)
{
#ifdef TARGET_X86_64
    if (is_64(cs)) {
        *slot = n - ARRAY_SIZE(registers) + 1;
        return n < ARRAY_SIZE(registers)
            ? &cpu_env(cs)->regs[registers[n]] : NULL;
    }
#endif
    *slot = n + 1;
    return NULL;
}

bool panda_abi_argument(CPUState *cs, unsigned n, uint64_t *value)
{
    unsigned slot;
    target_ulong *reg = place(cs, n, &slot);

    if (reg) {
        *value = *reg;
        return true;
    }
    return panda_abi_read(cs, stack(cs, slot), panda_abi_word(cs), value);
}

bool panda_abi_set_argument(CPUState *cs, unsigned n, uint64_t value)
{
    unsigned slot;
    target_ulong *reg = place(cs, n, &slot);

    if (reg) {
        *reg = value;
        return true;
    }
    return panda_abi_write(cs, stack(cs, slot), panda_abi_word(cs), value);
}

bool panda_abi_return_address(CPUState *cs, uint64_t *address)
{
    return panda_abi_read(cs, stack(cs, 0), panda_abi_word(cs), address);
}

uint64_t panda_abi_returned_sp(CPUState *cs)
{
    return trim(cs, cpu_env(cs)->regs[R_ESP] + panda_abi_word(cs));
}

uint64_t panda_abi_result(CPUState *cs)
{
    return trim(cs, cpu_env(cs)->regs[R_EAX]);
}

void panda_abi_set_result(CPUState *cs, uint64_t value)
{
    cpu_env(cs)->regs[R_EAX] = trim(cs, value);
}

void panda_abi_leave(CPUState *cs)
{
    cpu_env(cs)->regs[R_ESP] = panda_abi_returned_sp(cs);
}

uint64_t panda_abi_hypercall_number(CPUState *cs)
{
    return trim(cs, cpu_env(cs)->regs[R_EAX]);
}
