/*
 * Registers of the PowerPC family: ppc and ppc64.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/env_fields.h"
#include "core/compound.h"
#include "helper_regs.h"
#include "mmu-hash64.h"

#define WORD sizeof(target_ulong)

uint64_t panda_arch_get_pc(CPUState *cs)
{
    return cpu_env(cs)->nip;
}

void panda_arch_set_pc(CPUState *cs, uint64_t pc)
{
    cpu_env(cs)->nip = pc & ~(target_ulong)3;
}

uint64_t panda_arch_get_sp(CPUState *cs)
{
    return cpu_env(cs)->gpr[1];
}

/* The architecture has no register for it: systems keep it in memory. */
uint64_t panda_arch_get_ksp(CPUState *cs)
{
    return panda_arch_in_kernel(cs) ? panda_arch_get_sp(cs) : 0;
}

#ifdef TARGET_PPC64
/* Hashed page tables: the virtual segment that effective segment 0 is in. */
static uint64_t first_segment(CPUPPCState *env)
{
    for (unsigned i = 0; i < MAX_SLB_ENTRIES; i++) {
        if ((env->slb[i].esid & SLB_ESID_V)
            && !(env->slb[i].esid & ~(uint64_t)0xfffffff)) {
            return env->slb[i].vsid >> SLB_VSID_SHIFT;
        }
    }
    return 0;
}
#endif

/* What names the address space differs with the kind of MMU. */
uint64_t panda_arch_get_asid(CPUState *cs)
{
    CPUPPCState *env = cpu_env(cs);

    if (env->mmu_model == POWERPC_MMU_BOOKE
        || env->mmu_model == POWERPC_MMU_BOOKE206) {
        return env->spr[SPR_BOOKE_PID];
    }
#ifdef TARGET_PPC64
    if (env->mmu_model == POWERPC_MMU_3_00) {
        return env->spr[SPR_BOOKS_PID];
    }
    if (mmu_is_64bit(env->mmu_model)) {
        return first_segment(env);
    }
#endif
    return env->sr[0];
}

bool panda_arch_in_kernel(CPUState *cs)
{
    return !FIELD_EX64(cpu_env(cs)->msr, MSR, PR);
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
    return !FIELD_EX64(cpu_env(cs)->msr, MSR, LE);
}

void panda_arch_apply_pending(CPUState *cs)
{
}

void panda_arch_after_loadvm(CPUState *cs)
{
}

/* ---- registers that are kept in parts ---- */

static void read_cr(CPUState *cs, unsigned index, uint8_t *buf)
{
    stl_le_p(buf, ppc_get_cr(cpu_env(cs)));
}

static void write_cr(CPUState *cs, unsigned index, const uint8_t *buf)
{
    ppc_set_cr(cpu_env(cs), ldl_le_p(buf));
}

static void read_xer(CPUState *cs, unsigned index, uint8_t *buf)
{
    stn_le_p(buf, WORD, cpu_read_xer(cpu_env(cs)));
}

static void write_xer(CPUState *cs, unsigned index, const uint8_t *buf)
{
    cpu_write_xer(cpu_env(cs), ldn_le_p(buf, WORD));
}

static void write_msr(CPUState *cs, unsigned index, const uint8_t *buf)
{
    /* Unlike what the guest's instruction does, this raises no exception. */
    ppc_store_msr(cpu_env(cs), ldn_le_p(buf, WORD));
    tlb_flush(cs);
}

static void write_fpscr(CPUState *cs, unsigned index, const uint8_t *buf)
{
    ppc_store_fpscr(cpu_env(cs), ldn_le_p(buf, WORD));
}

/* ---- floating point ---- */

static void read_fpr(CPUState *cs, unsigned index, uint8_t *buf)
{
    stq_le_p(buf, *cpu_fpr_ptr(cpu_env(cs), index));
}

static void write_fpr(CPUState *cs, unsigned index, const uint8_t *buf)
{
    *cpu_fpr_ptr(cpu_env(cs), index) = ldq_le_p(buf);
}

/* ---- the table ---- */

#define FPR(n) { "F" #n, 8, false, read_fpr, write_fpr, n }
#define CRF(n) PLAIN("CR" #n, crf[n])
#define SEGMENT(n) MMU("SR" #n, sr[n])

static const PandaRegister registers[] = {
    PLAIN("LR", lr),
    PLAIN("CTR", ctr),
    { "CR", 4, false, read_cr, write_cr, 0 },
    CRF(0), CRF(1), CRF(2), CRF(3), CRF(4), CRF(5), CRF(6), CRF(7),
    { "XER", WORD, false, read_xer, write_xer, 0 },
    { "MSR", WORD, true, read_field, write_msr, FIELD_INDEX(msr) },
    PLAIN("SRR0", spr[SPR_SRR0]),
    PLAIN("SRR1", spr[SPR_SRR1]),
    PLAIN("SPRG0", spr[SPR_SPRG0]),
    PLAIN("SPRG1", spr[SPR_SPRG1]),
    PLAIN("SPRG2", spr[SPR_SPRG2]),
    PLAIN("SPRG3", spr[SPR_SPRG3]),
    PLAIN("DAR", spr[SPR_DAR]),
    PLAIN("DSISR", spr[SPR_DSISR]),
    PLAIN("PVR", spr[SPR_PVR]),
    { "FPSCR", WORD, true, read_field, write_fpscr, FIELD_INDEX(fpscr) },
    SEGMENT(0), SEGMENT(1), SEGMENT(2), SEGMENT(3),
    SEGMENT(4), SEGMENT(5), SEGMENT(6), SEGMENT(7),
    SEGMENT(8), SEGMENT(9), SEGMENT(10), SEGMENT(11),
    SEGMENT(12), SEGMENT(13), SEGMENT(14), SEGMENT(15),
    THIRTY_TWO(FPR),
};

const PandaRegister *panda_arch_registers(unsigned *count)
{
    *count = ARRAY_SIZE(registers);
    return registers;
}
