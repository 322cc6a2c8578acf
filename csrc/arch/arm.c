/*
 * Registers of the ARM family: arm and aarch64.
 *
 * A 64-bit CPU may run 32-bit code, so which of the two register files counts
 * is asked each time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/arm.h"
#include "arch/env_fields.h"
#include "core/compound.h"
#include "cpregs.h"
#include "internals.h"

uint64_t panda_arch_get_pc(CPUState *cs)
{
    CPUARMState *env = cpu_env(cs);

    return is_a64(env) ? env->pc : env->regs[15];
}

/* A 32-bit address with bit 0 set means Thumb code, as for BX. */
void panda_arch_set_pc(CPUState *cs, uint64_t pc)
{
    CPUARMState *env = cpu_env(cs);

    if (is_a64(env)) {
        env->pc = pc;
    } else if (pc & 1) {
        env->thumb = true;
        /* An IT block that was left does not go on there. */
        env->condexec_bits = 0;
        env->regs[15] = pc & ~1u;
    } else {
        env->regs[15] = pc;
    }
}

uint64_t panda_arch_get_sp(CPUState *cs)
{
    CPUARMState *env = cpu_env(cs);

    return is_a64(env) ? env->xregs[31] : env->regs[13];
}

/* In user mode: where the CPU will find its kernel stack. */
uint64_t panda_arch_get_ksp(CPUState *cs)
{
    CPUARMState *env = cpu_env(cs);

    if (panda_arch_in_kernel(cs)) {
        return panda_arch_get_sp(cs);
    }
    return is_a64(env) ? env->sp_el[1]
                       : env->banked_r13[bank_number(ARM_CPU_MODE_SVC)];
}

/*
 * The base of the page tables of the lower half, without attributes and
 * without the address-space number, which is reused.
 */
uint64_t panda_arm_table_base(CPUARMState *env, uint64_t ttbr)
{
    if (is_a64(env) || arm_el_is_aa64(env, 1)) {
        return ttbr & MAKE_64BIT_MASK(1, 47);
    }
    if (arm_feature(env, ARM_FEATURE_LPAE)
        && (env->cp15.tcr_el[arm_is_secure(env) ? 3 : 1] & TTBCR_EAE)) {
        return ttbr & MAKE_64BIT_MASK(4, 36);
    }
    return ttbr & 0xffffff80u;
}

uint64_t panda_arch_get_asid(CPUState *cs)
{
    CPUARMState *env = cpu_env(cs);

    return panda_arm_table_base(env, arm_el_is_aa64(env, 1)
                                ? env->cp15.ttbr0_el[1]
                                : A32_BANKED_CURRENT_REG_GET(env, ttbr0));
}

bool panda_arch_in_kernel(CPUState *cs)
{
    return arm_current_el(cpu_env(cs)) > 0;
}

bool panda_arch_general(CPUState *cs, unsigned n, uint64_t *value)
{
    CPUARMState *env = cpu_env(cs);

    if (n >= (is_a64(env) ? 32 : 16)) {
        return false;
    }
    *value = is_a64(env) ? env->xregs[n] : env->regs[n];
    return true;
}

unsigned panda_arch_word(CPUState *cs)
{
    return is_a64(cpu_env(cs)) ? 8 : 4;
}

bool panda_arch_big_endian(CPUState *cs)
{
    return TARGET_BIG_ENDIAN;
}

void panda_arch_apply_pending(CPUState *cs)
{
}

void panda_arch_after_loadvm(CPUState *cs)
{
}

/* ---- status registers ---- */

static void read_cpsr(CPUState *cs, unsigned index, uint8_t *buf)
{
    CPUARMState *env = cpu_env(cs);

    stl_le_p(buf, is_a64(env) ? pstate_read(env) : cpsr_read(env));
}

static void write_cpsr(CPUState *cs, unsigned index, const uint8_t *buf)
{
    CPUARMState *env = cpu_env(cs);
    uint32_t value = ldl_le_p(buf);

    if (is_a64(env)) {
        /* Only the flags and masks: the level decides which banks are live. */
        uint32_t mask = PSTATE_NZCV | PSTATE_DAIF;

        pstate_write(env, (pstate_read(env) & ~mask) | (value & mask));
    } else {
        cpsr_write(env, value, 0xffffffff, CPSRWriteByGDBStub);
    }
    arm_rebuild_hflags(env);
}

static void read_spsr(CPUState *cs, unsigned index, uint8_t *buf)
{
    CPUARMState *env = cpu_env(cs);
    uint32_t value = env->spsr;

    if (is_a64(env)) {
        unsigned el = MAX(arm_current_el(env), 1);

        value = env->banked_spsr[aarch64_banked_spsr_index(el)];
    }
    stl_le_p(buf, value);
}

static void write_spsr(CPUState *cs, unsigned index, const uint8_t *buf)
{
    CPUARMState *env = cpu_env(cs);
    uint32_t value = ldl_le_p(buf);

    if (is_a64(env)) {
        unsigned el = MAX(arm_current_el(env), 1);

        env->banked_spsr[aarch64_banked_spsr_index(el)] = value;
    } else {
        env->spsr = value;
    }
}

/* ---- system registers, whose writing changes what addresses mean ---- */

static void write_system(CPUState *cs, unsigned index, const uint8_t *buf)
{
    write_mmu_field(cs, index, buf);
    arm_rebuild_hflags(cpu_env(cs));
}

#define SYSTEM(name, size, field)                                             \
    { name, size, true, read_field, write_system,                             \
      (offsetof(CPUArchState, field) << 4) | (size) }
#define SYSTEM32(name, field) SYSTEM(name, 4, field)
#define SYSTEM64(name, field) SYSTEM(name, 8, field)

/* ---- vectors and floating point ---- */

#define FP_ENTRY(n, prefix, size, unit)                                       \
    { prefix #n, size, false, read_vector, write_vector,                      \
      ((unit) << 8) | (size) }

/* The index: number of the 64-bit unit it begins at, and its size. */
static uint64_t *vector_unit(CPUState *cs, unsigned index)
{
    return aa32_vfp_dreg(cpu_env(cs), index >> 8);
}

static void read_vector(CPUState *cs, unsigned index, uint8_t *buf)
{
    const uint64_t *unit = vector_unit(cs, index);
    unsigned size = index & 0xff;

    for (unsigned i = 0; i * 8 < size; i++) {
        stq_le_p(buf + i * 8, unit[i]);
    }
}

static void write_vector(CPUState *cs, unsigned index, const uint8_t *buf)
{
    uint64_t *unit = vector_unit(cs, index);
    unsigned size = index & 0xff;

    for (unsigned i = 0; i * 8 < size; i++) {
        unit[i] = ldq_le_p(buf + i * 8);
    }
}

static void read_fpscr(CPUState *cs, unsigned index, uint8_t *buf)
{
    CPUARMState *env = cpu_env(cs);

    stl_le_p(buf, index == 0 ? vfp_get_fpscr(env)
                : index == 1 ? vfp_get_fpcr(env) : vfp_get_fpsr(env));
}

static void write_fpscr(CPUState *cs, unsigned index, const uint8_t *buf)
{
    CPUARMState *env = cpu_env(cs);
    uint32_t value = ldl_le_p(buf);

    if (index == 0) {
        vfp_set_fpscr(env, value);
    } else if (index == 1) {
        vfp_set_fpcr(env, value);
    } else {
        vfp_set_fpsr(env, value);
    }
    arm_rebuild_hflags(env);
}

/* ---- the table ---- */

#define D_REG(n) FP_ENTRY(n, "D", 8, n)
#define V_REG(n) FP_ENTRY(n, "V", 16, (n) * 2)

static const PandaRegister registers[] = {
    { "CPSR", 4, true, read_cpsr, write_cpsr, 0 },
    { "SPSR", 4, false, read_spsr, write_spsr, 0 },
    { "FPSCR", 4, true, read_fpscr, write_fpscr, 0 },
    { "FPCR", 4, true, read_fpscr, write_fpscr, 1 },
    { "FPSR", 4, false, read_fpscr, write_fpscr, 2 },
    SYSTEM32("SCTLR", cp15.sctlr_el[1]),
    SYSTEM32("TTBCR", cp15.tcr_el[1]),
    SYSTEM32("CONTEXTIDR", cp15.contextidr_el[1]),
    SYSTEM32("VBAR", cp15.vbar_el[1]),
    SYSTEM64("TTBR0", cp15.ttbr0_el[1]),
    SYSTEM64("TTBR1", cp15.ttbr1_el[1]),
    PLAIN("DFSR", cp15.esr_el[1]),
    PLAIN("DFAR", cp15.dfar_ns),
    PLAIN("IFAR", cp15.ifar_ns),
    PLAIN("TPIDRURW", cp15.tpidr_el[0]),
    PLAIN("TPIDRURO", cp15.tpidruro_ns),
    PLAIN("TPIDRPRW", cp15.tpidr_el[1]),
#ifdef TARGET_AARCH64
    { "PSTATE", 4, true, read_cpsr, write_cpsr, 0 },
    SYSTEM64("SCTLR_EL1", cp15.sctlr_el[1]),
    SYSTEM64("TCR_EL1", cp15.tcr_el[1]),
    SYSTEM64("TTBR0_EL1", cp15.ttbr0_el[1]),
    SYSTEM64("TTBR1_EL1", cp15.ttbr1_el[1]),
    SYSTEM64("VBAR_EL1", cp15.vbar_el[1]),
    SYSTEM64("CONTEXTIDR_EL1", cp15.contextidr_el[1]),
    PLAIN("ESR_EL1", cp15.esr_el[1]),
    PLAIN("FAR_EL1", cp15.far_el[1]),
    PLAIN("ELR_EL1", elr_el[1]),
    PLAIN("SP_EL0", sp_el[0]),
    PLAIN("SP_EL1", sp_el[1]),
    PLAIN("TPIDR_EL0", cp15.tpidr_el[0]),
    PLAIN("TPIDRRO_EL0", cp15.tpidrro_el[0]),
    PLAIN("TPIDR_EL1", cp15.tpidr_el[1]),
    THIRTY_TWO(V_REG),
#endif
    THIRTY_TWO(D_REG),
};

const PandaRegister *panda_arch_registers(unsigned *count)
{
    *count = ARRAY_SIZE(registers);
    return registers;
}
