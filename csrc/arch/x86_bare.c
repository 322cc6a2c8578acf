/*
 * The x86 CPU of a machine without devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/bare.h"
#include "qapi/error.h"

const char panda_arch_bare_cpu[] = X86_CPU_TYPE_NAME("max");

void panda_arch_bare_prepare(Object *cpu)
{
    X86CPU *x86 = X86_CPU(cpu);

    if (x86->apic_id == UNASSIGNED_APIC_ID) {
        object_property_set_uint(cpu, "apic-id", 0, &error_fatal);
    }
    object_property_set_bool(cpu, "apic", false, &error_fatal);
}

void panda_arch_bare_wire(CPUState *cs)
{
}

#define DATA_SEGMENT (DESC_P_MASK | DESC_S_MASK | DESC_W_MASK | DESC_A_MASK)
#define CODE_SEGMENT                                                          \
    (DESC_P_MASK | DESC_S_MASK | DESC_CS_MASK | DESC_R_MASK | DESC_A_MASK)

static void load_flat(CPUX86State *env, uint32_t code_size)
{
    cpu_x86_load_seg_cache(env, R_CS, 8, 0, 0xffffffff,
                           CODE_SEGMENT | DESC_G_MASK | code_size);
    for (int seg = R_ES; seg <= R_GS; seg++) {
        if (seg != R_CS) {
            cpu_x86_load_seg_cache(env, seg, 16, 0, 0xffffffff,
                                   DATA_SEGMENT | DESC_G_MASK | DESC_B_MASK);
        }
    }
}

static void load_real(CPUX86State *env)
{
    for (int seg = R_ES; seg <= R_GS; seg++) {
        cpu_x86_load_seg_cache(env, seg, 0, 0, 0xffff,
                               seg == R_CS ? CODE_SEGMENT : DATA_SEGMENT);
    }
}

/*
 * Segments are flat and paging is off. A real CPU has no 64-bit mode without
 * paging; QEMU's works, and spares the program page tables.
 */
bool panda_arch_bare_start(CPUState *cs, const char *mode)
{
    CPUX86State *env = cpu_env(cs);
    bool real, protected, wide = false;

    if (!mode) {
        mode = TARGET_LONG_BITS == 64 ? "long" : "protected";
    }
    real = !strcmp(mode, "real");
    protected = !strcmp(mode, "protected");
#ifdef TARGET_X86_64
    wide = !strcmp(mode, "long") && (env->features[FEAT_8000_0001_EDX]
                                     & CPUID_EXT2_LM);
#endif
    if (!real && !protected && !wide) {
        return false;
    }
    memset(env->regs, 0, sizeof(env->regs));
    env->eip = 0;
    /* Empty tables: no handler, no segment to load. */
    env->gdt.limit = 0;
    env->idt.limit = 0;
    /* The vector registers are of use at once. */
    cpu_x86_update_cr4(env, CR4_OSFXSR_MASK | CR4_OSXMMEXCPT_MASK
                       | (wide ? CR4_PAE_MASK : 0)
                       | (env->features[FEAT_1_ECX] & CPUID_EXT_XSAVE
                          ? CR4_OSXSAVE_MASK : 0));
    if (env->features[FEAT_1_ECX] & CPUID_EXT_AVX) {
        env->xcr0 = XSTATE_FP_MASK | XSTATE_SSE_MASK | XSTATE_YMM_MASK;
    }
    if (real) {
        load_real(env);
    } else {
        cpu_x86_update_cr0(env, CR0_PE_MASK | CR0_MP_MASK | CR0_ET_MASK
                           | CR0_NE_MASK);
        if (wide) {
            cpu_load_efer(env, MSR_EFER_LME | MSR_EFER_LMA);
        }
        load_flat(env, wide ? DESC_L_MASK : DESC_B_MASK);
    }
    cpu_sync_avx_hflag(env);
    return true;
}

bool panda_arch_bare_vector(CPUState *cs, int exception)
{
    CPUX86State *env = cpu_env(cs);
    unsigned size = env->hflags & HF_LMA_MASK ? 16
                  : env->cr[0] & CR0_PE_MASK ? 8 : 4;

    return exception * size + size - 1 <= env->idt.limit;
}

void panda_arch_bare_drop(CPUState *cs, int exception)
{
    /* Else the next one would count as a double fault. */
    cpu_env(cs)->old_exception = -1;
}

const char *panda_arch_exception_name(int exception)
{
    static const char *const names[] = {
        [EXCP00_DIVZ] = "divide error",
        [EXCP01_DB] = "debug exception",
        [EXCP03_INT3] = "breakpoint",
        [EXCP04_INTO] = "overflow",
        [EXCP05_BOUND] = "bound range exceeded",
        [EXCP06_ILLOP] = "invalid opcode",
        [EXCP07_PREX] = "no coprocessor",
        [EXCP08_DBLE] = "double fault",
        [EXCP0A_TSS] = "invalid TSS",
        [EXCP0B_NOSEG] = "segment not present",
        [EXCP0C_STACK] = "stack fault",
        [EXCP0D_GPF] = "general protection fault",
        [EXCP0E_PAGE] = "page fault",
        [EXCP10_COPR] = "floating point error",
        [EXCP11_ALGN] = "alignment check",
    };

    return PANDA_NAME_OF(names, exception);
}
