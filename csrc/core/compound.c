/*
 * Several reads in one call.
 *
 * What a callback wants costs little to read and much to ask for one by one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/compound.h"
#include "exec/target_page.h"
#include "qemu/bswap.h"

bool panda_read_word(CPUState *cs, uint64_t addr, bool quick, uint64_t *value)
{
    unsigned size = panda_arch_word(cs);
    uint8_t buf[8];
    const void *from = NULL;

    if (size == 4) {
        addr = (uint32_t)addr;
    }
    if (!((addr ^ (addr + size - 1)) & TARGET_PAGE_MASK)) {
        from = panda_look_up_tlb(cs, addr);
    }
    if (!from) {
        if (quick
            || panda_virtual_memory_read(&panda_vcpu.pub, addr, buf, size)
               != PANDA_OK) {
            return false;
        }
        from = buf;
    }
    *value = panda_arch_big_endian(cs) ? ldn_be_p(from, size)
                                       : ldn_le_p(from, size);
    return true;
}

bool panda_read_value(CPUState *cs, unsigned what, bool quick,
                      uint64_t *value)
{
    if (what < PANDA_VALUE_PC) {
        return panda_arch_general(cs, what, value);
    }
    switch (what) {
    case PANDA_VALUE_PC:
        *value = panda_current_pc(&panda_vcpu.pub);
        return true;
    case PANDA_VALUE_SP:
        *value = panda_arch_get_sp(cs);
        return true;
    case PANDA_VALUE_ASID:
        *value = panda_arch_get_asid(cs);
        return true;
    case PANDA_VALUE_IN_KERNEL:
        *value = panda_arch_in_kernel(cs);
        return true;
    default:
        return what >= PANDA_VALUE_STACK
            && panda_read_word(cs, panda_arch_get_sp(cs)
                               + (what - PANDA_VALUE_STACK)
                                 * (uint64_t)panda_arch_word(cs),
                               quick, value);
    }
}

static int check_cpu(PandaCPU *cpu)
{
    int status = panda_check_usable();

    if (status == PANDA_OK && (cpu != &panda_vcpu.pub || !panda_vcpu.cs)) {
        return panda_fail(PANDA_ERR_ARGUMENT,
                          "not a CPU of the present machine");
    }
    return status;
}

int panda_read_values(PandaCPU *cpu, const uint16_t *what, uint32_t n,
                      uint64_t *out)
{
    int status = check_cpu(cpu);

    for (uint32_t i = 0; i < n && status == PANDA_OK; i++) {
        if (panda_read_value(panda_vcpu.cs, what[i], false, &out[i])) {
            continue;
        }
        if (what[i] >= PANDA_VALUE_STACK) {
            status = panda_fail(PANDA_ERR_MEMORY, "word %d of the stack "
                                "cannot be read",
                                what[i] - PANDA_VALUE_STACK);
        } else {
            status = panda_fail(PANDA_ERR_ARGUMENT, "there is no value of "
                                "the number %d", what[i]);
        }
    }
    return status;
}

int64_t panda_read_pointers(PandaCPU *cpu, target_ptr_t addr, uint32_t n,
                            bool until_null, uint64_t *out)
{
    int status = check_cpu(cpu);
    uint32_t i;

    if (status != PANDA_OK) {
        return status;
    }
    for (i = 0; i < n; i++) {
        uint64_t at = addr + i * (uint64_t)panda_arch_word(panda_vcpu.cs);

        if (!panda_read_word(panda_vcpu.cs, at, false, &out[i])) {
            /* What panda_virtual_memory_read() said stays. */
            return i ? (int64_t)i : PANDA_ERR_MEMORY;
        }
        if (until_null && !out[i]) {
            break;
        }
    }
    return i;
}

uint32_t panda_word_size(PandaCPU *cpu)
{
    return check_cpu(cpu) == PANDA_OK ? panda_arch_word(panda_vcpu.cs) : 0;
}
