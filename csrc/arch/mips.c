/*
 * Registers of the MIPS family: mips, mipsel, mips64 and mips64el.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/env_fields.h"
#include "core/compound.h"
#include "internal.h"

uint64_t panda_arch_get_pc(CPUState *cs)
{
    return cpu_env(cs)->active_tc.PC;
}

/* Bit 0 chooses the compressed instruction set where the CPU has one. */
void panda_arch_set_pc(CPUState *cs, uint64_t pc)
{
    CPUMIPSState *env = cpu_env(cs);

    env->active_tc.PC = pc & ~(target_ulong)1;
    if (pc & 1) {
        env->hflags |= MIPS_HFLAG_M16;
    } else {
        env->hflags &= ~MIPS_HFLAG_M16;
    }
    /* What is in the delay slot of an abandoned branch is no more. */
    env->hflags &= ~MIPS_HFLAG_BMASK;
}

uint64_t panda_arch_get_sp(CPUState *cs)
{
    return cpu_env(cs)->active_tc.gpr[29];
}

/* The architecture has no register for it: systems keep it in memory. */
uint64_t panda_arch_get_ksp(CPUState *cs)
{
    return panda_arch_in_kernel(cs) ? panda_arch_get_sp(cs) : 0;
}

uint64_t panda_arch_get_asid(CPUState *cs)
{
    CPUMIPSState *env = cpu_env(cs);

    return env->CP0_EntryHi & env->CP0_EntryHi_ASID_mask;
}

bool panda_arch_in_kernel(CPUState *cs)
{
    return (cpu_env(cs)->hflags & MIPS_HFLAG_KSU) == MIPS_HFLAG_KM;
}

bool panda_arch_general(CPUState *cs, unsigned n, uint64_t *value)
{
    if (n >= 32) {
        return false;
    }
    *value = cpu_env(cs)->active_tc.gpr[n];
    return true;
}

unsigned panda_arch_word(CPUState *cs)
{
    return sizeof(target_ulong);
}

bool panda_arch_big_endian(CPUState *cs)
{
    return TARGET_BIG_ENDIAN;
}

void panda_arch_apply_pending(CPUState *cs)
{
}

/*
 * The timer of the system coprocessor is not part of a snapshot, and nothing
 * arms it: without this the guest gets no tick until the counter wraps.
 */
void panda_arch_after_loadvm(CPUState *cs)
{
    CPUMIPSState *env = cpu_env(cs);

    if (env->timer && !(env->CP0_Cause & (1 << CP0Ca_DC))) {
        cpu_mips_store_count(env, cpu_mips_get_count(env));
    }
}

/* ---- registers of the system coprocessor ---- */

static void write_status(CPUState *cs, unsigned index, const uint8_t *buf)
{
    CPUMIPSState *env = cpu_env(cs);

    env->CP0_Status = ldl_le_p(buf);
    compute_hflags(env);
    tlb_flush(cs);
}

/* ---- floating point ---- */

static void read_fpr(CPUState *cs, unsigned index, uint8_t *buf)
{
    stq_le_p(buf, cpu_env(cs)->active_fpu.fpr[index].d);
}

static void write_fpr(CPUState *cs, unsigned index, const uint8_t *buf)
{
    cpu_env(cs)->active_fpu.fpr[index].d = ldq_le_p(buf);
}

/* The condition codes: bits 23 and 25 to 31 of the FPU's status. */
static void read_fccr(CPUState *cs, unsigned index, uint8_t *buf)
{
    uint32_t fcsr = cpu_env(cs)->active_fpu.fcr31;

    stl_le_p(buf, (fcsr >> 24 & 0xfe) | (fcsr >> 23 & 1));
}

static void write_fccr(CPUState *cs, unsigned index, const uint8_t *buf)
{
    CPUMIPSState *env = cpu_env(cs);
    uint32_t value = ldl_le_p(buf);

    env->active_fpu.fcr31 = (env->active_fpu.fcr31 & 0x017fffff)
        | (value & 0xfe) << 24 | (value & 1) << 23;
}

/* ---- the table ---- */

#define FPR(n) { "F" #n, 8, false, read_fpr, write_fpr, n }

static const PandaRegister registers[] = {
    PLAIN("HI", active_tc.HI[0]),
    PLAIN("LO", active_tc.LO[0]),
    PLAIN("DSPCONTROL", active_tc.DSPControl),
    { "CP0_STATUS", 4, true, read_field, write_status,
      FIELD_INDEX(CP0_Status) },
    PLAIN("CP0_CAUSE", CP0_Cause),
    PLAIN("CP0_EPC", CP0_EPC),
    PLAIN("CP0_ERROREPC", CP0_ErrorEPC),
    PLAIN("CP0_BADVADDR", CP0_BadVAddr),
    MMU("CP0_ENTRYHI", CP0_EntryHi),
    PLAIN("CP0_ENTRYLO0", CP0_EntryLo0),
    PLAIN("CP0_ENTRYLO1", CP0_EntryLo1),
    PLAIN("CP0_CONTEXT", CP0_Context),
    PLAIN("CP0_PAGEMASK", CP0_PageMask),
    PLAIN("CP0_WIRED", CP0_Wired),
    PLAIN("CP0_INDEX", CP0_Index),
    PLAIN("CP0_COMPARE", CP0_Compare),
    PLAIN("CP0_PRID", CP0_PRid),
    PLAIN("CP0_EBASE", CP0_EBase),
    PLAIN("CP0_CONFIG", CP0_Config0),
    PLAIN("CP0_USERLOCAL", active_tc.CP0_UserLocal),
    { "FCCR", 4, false, read_fccr, write_fccr, 0 },
    PLAIN("FCSR", active_fpu.fcr31),
    PLAIN("FIR", active_fpu.fcr0),
    THIRTY_TWO(FPR),
};

const PandaRegister *panda_arch_registers(unsigned *count)
{
    *count = ARRAY_SIZE(registers);
    return registers;
}
