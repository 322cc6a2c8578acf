/*
 * Calling conventions with the first arguments and the return address in
 * registers, for the families that have them; included once each, after
 *
 *   reg(cs, n)         a general register, as an lvalue
 *   link(cs)           the return address's
 *   FIRST, RESULT      numbers of the first argument's and the result's
 *   in_registers(cs)   how many arguments are there
 *   stack_offset(cs)   where on the stack the next one is
 *   word(cs)           bytes of a word
 *   HYPERCALL          the number of a hypercall's
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

static uint64_t trim(CPUState *cs, uint64_t value)
{
    return word(cs) == 8 ? value : (uint32_t)value;
}

unsigned panda_abi_word(CPUState *cs)
{
    return word(cs);
}

static uint64_t stack(CPUState *cs, unsigned n)
{
    return trim(cs, panda_arch_get_sp(cs) + stack_offset(cs)
                    + (n - in_registers(cs)) * word(cs));
}

bool panda_abi_argument(CPUState *cs, unsigned n, uint64_t *value)
{
    if (n < in_registers(cs)) {
        *value = trim(cs, reg(cs, FIRST + n));
        return true;
    }
    return panda_abi_read(cs, stack(cs, n), word(cs), value);
}

/* A register of 64 bits has a value of 32 bits with its sign extended. */
static uint64_t extend(CPUState *cs, uint64_t value)
{
    return word(cs) == 8 ? value : (uint64_t)(int32_t)value;
}

bool panda_abi_set_argument(CPUState *cs, unsigned n, uint64_t value)
{
    if (n < in_registers(cs)) {
        reg(cs, FIRST + n) = extend(cs, value);
        return true;
    }
    return panda_abi_write(cs, stack(cs, n), word(cs), value);
}

bool panda_abi_return_address(CPUState *cs, uint64_t *address)
{
    *address = trim(cs, link(cs));
    return true;
}

uint64_t panda_abi_returned_sp(CPUState *cs)
{
    return panda_arch_get_sp(cs);
}

uint64_t panda_abi_result(CPUState *cs)
{
    return trim(cs, reg(cs, RESULT));
}

void panda_abi_set_result(CPUState *cs, uint64_t value)
{
    reg(cs, RESULT) = extend(cs, value);
}

void panda_abi_leave(CPUState *cs)
{
}

uint64_t panda_abi_hypercall_number(CPUState *cs)
{
    return trim(cs, reg(cs, HYPERCALL));
}
