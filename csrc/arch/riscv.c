/*
 * Registers of the RISC-V family: riscv64.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/env_fields.h"
#include "core/compound.h"

uint64_t panda_arch_get_pc(CPUState *cs)
{
    return cpu_env(cs)->pc;
}

void panda_arch_set_pc(CPUState *cs, uint64_t pc)
{
    cpu_env(cs)->pc = pc & ~(target_ulong)1;
}

uint64_t panda_arch_get_sp(CPUState *cs)
{
    return cpu_env(cs)->gpr[2];
}

/* The architecture has no register for it: systems keep it in memory. */
uint64_t panda_arch_get_ksp(CPUState *cs)
{
    return panda_arch_in_kernel(cs) ? panda_arch_get_sp(cs) : 0;
}

/* satp: page table, address-space number and kind of translation. */
uint64_t panda_arch_get_asid(CPUState *cs)
{
    return cpu_env(cs)->satp;
}

bool panda_arch_in_kernel(CPUState *cs)
{
    return cpu_env(cs)->priv != PRV_U;
}

bool panda_arch_general(CPUState *cs, unsigned n, uint64_t *value)
{
    if (n >= 32) {
        return false;
    }
    *value = cpu_env(cs)->gpr[n];
    return true;
}

unsigned panda_arch_word(CPUState *cs)
{
    return sizeof(target_ulong);
}

bool panda_arch_big_endian(CPUState *cs)
{
    return false;
}

void panda_arch_apply_pending(CPUState *cs)
{
}

void panda_arch_after_loadvm(CPUState *cs)
{
}

/* The flags the program's own accesses left are kept aside. */
static void read_fflags(CPUState *cs, unsigned index, uint8_t *buf)
{
    stl_le_p(buf, riscv_cpu_get_fflags(cpu_env(cs)));
}

static void write_fflags(CPUState *cs, unsigned index, const uint8_t *buf)
{
    riscv_cpu_set_fflags(cpu_env(cs), ldl_le_p(buf));
}

/* ---- the table ---- */

#define FPR(n) PLAIN("F" #n, fpr[n])

static const PandaRegister registers[] = {
    PLAIN("PRIV", priv),
    MMU("SATP", satp),
    MMU("MSTATUS", mstatus),
    PLAIN("STVEC", stvec),
    PLAIN("SEPC", sepc),
    PLAIN("SCAUSE", scause),
    PLAIN("STVAL", stval),
    PLAIN("SSCRATCH", sscratch),
    PLAIN("MTVEC", mtvec),
    PLAIN("MEPC", mepc),
    PLAIN("MCAUSE", mcause),
    PLAIN("MTVAL", mtval),
    PLAIN("MSCRATCH", mscratch),
    PLAIN("MIE", mie),
    PLAIN("MIP", mip),
    PLAIN("MIDELEG", mideleg),
    PLAIN("MEDELEG", medeleg),
    PLAIN("MHARTID", mhartid),
    PLAIN("FRM", frm),
    { "FFLAGS", 4, false, read_fflags, write_fflags, 0 },
    THIRTY_TWO(FPR),
};

const PandaRegister *panda_arch_registers(unsigned *count)
{
    *count = ARRAY_SIZE(registers);
    return registers;
}
