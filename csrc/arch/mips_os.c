/*
 * What the introspection must know of MIPS, 32 and 64 bit.
 *
 * Linux keeps its page tables in a form of its own and fills the TLB from them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/guest_memory.h"
#include "introspect/kallsyms.h"
#include "introspect/layout.h"

#define WORD os_memory.word
/* Instructions of an exception handler that are looked at. */
#define HANDLER_WORDS 64
#define K0 26
#define K1 27

/* Where the kernel notes the running thread's stack; 0: unknown. */
static uint64_t kernelsp;

bool panda_arch_os_big_endian(CPUState *cs)
{
    return TARGET_BIG_ENDIAN;
}

uint64_t panda_arch_os_kernel_root(CPUState *cs)
{
    return OS_NOWHERE;
}

uint64_t panda_arch_os_kernel_start(uint64_t linear)
{
    return 0x80000000;
}

uint64_t panda_arch_os_linear(uint64_t va)
{
    uint64_t high = va >> 32;

    if (WORD == 4 || high == 0xffffffff) {
        uint32_t low = va;

        return low >= 0x80000000 && low < 0xc0000000 ? low & 0x1fffffff
                                                     : OS_NOWHERE;
    }
    return va >> 62 == 2 ? va & MAKE_64BIT_MASK(0, 59) : OS_NOWHERE;
}

static uint64_t table_at(uint64_t va)
{
    return panda_arch_os_linear(va);
}

/*
 * Linux' entry is the hardware's, with its own bits below: shifted by where the
 * "global" bit is. Two bits more are there if reads and executions can be
 * forbidden.
 */
static uint64_t page_of(uint64_t entry)
{
    unsigned shift = os_layout.pfn_shift ?: WORD == 8 ? 14 : 12;

    return (entry >> shift) << 12;
}

uint64_t panda_arch_os_walk(CPUState *cs, uint64_t root, uint64_t va,
                            bool kernel)
{
    uint64_t e;

    if (WORD == 4) {
        if (!os_physical_word(root + ((uint32_t)va >> 22) * 4, &e)
            || (root = table_at(e)) == OS_NOWHERE
            || !os_physical_word(root + ((va >> 12) & 1023) * 4, &e)) {
            return OS_NOWHERE;
        }
    } else if (!os_physical_word(root + ((va >> 30) & 1023) * 8, &e)
               || (root = table_at(e)) == OS_NOWHERE
               || !os_physical_word(root + ((va >> 21) & 511) * 8, &e)
               || (root = table_at(e)) == OS_NOWHERE
               || !os_physical_word(root + ((va >> 12) & 511) * 8, &e)) {
        return OS_NOWHERE;
    }
    return e & 1 ? page_of(e) | (va & 0xfff) : OS_NOWHERE;
}

uint64_t panda_arch_os_asid(CPUState *cs, uint64_t pgd_physical)
{
    return 0;
}

uint64_t panda_arch_os_stack_size(void)
{
    return WORD == 8 ? 16 * KiB : 8 * KiB;
}

/*
 * The handler of system calls loads it: lui k1, high; then an addition or not;
 * then a load into k1 or sp.
 */
void panda_arch_os_prepare(CPUState *cs, bool (*is_task)(uint64_t address))
{
    uint64_t handler, value = 0;
    bool has_high = false;

    kernelsp = 0;
    if (os_symbol("kernelsp", &kernelsp) || !os_symbol("handle_sys",
                                                        &handler)) {
        return;
    }
    for (unsigned i = 0; i < HANDLER_WORDS; i++) {
        uint32_t insn;
        unsigned op, rs, rt;

        if (!os_read_u32(handler + 4 * i, &insn)) {
            return;
        }
        op = insn >> 26;
        rs = (insn >> 21) & 31;
        rt = (insn >> 16) & 31;
        if (op == 0x0f && (rt == K1 || rt == K0)) {
            value = (int64_t)(int32_t)(insn << 16);
            has_high = true;
        } else if (has_high && (op == 0x23 || op == 0x37)
                   && (rs == K1 || rs == K0)) {
            kernelsp = value + (int16_t)insn;
            if (WORD == 4) {
                kernelsp = (uint32_t)kernelsp;
            }
            return;
        }
    }
}

OsClue panda_arch_os_current(CPUState *cs, uint64_t *value)
{
    if (!kernelsp || !os_read_word(kernelsp, value)) {
        return OS_CLUE_NONE;
    }
    *value -= 1;
    return os_is_kernel(*value) ? OS_CLUE_STACK : OS_CLUE_NONE;
}

const char *panda_arch_os_current_lacks(CPUState *cs, bool knows_stacks)
{
    if (!kernelsp) {
        return "where it keeps the stack of the thread that runs (kernelsp)";
    }
    return knows_stacks ? NULL : OS_LACKS_STACKS;
}
