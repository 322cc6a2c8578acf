/*
 * Registers of the x86 family: x86_64 and i386.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/env_fields.h"
#include "core/compound.h"
#include "core/machine.h"
#include "exec/cputlb.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"
#include "hw/i386/apic.h"
#include "qemu/main-loop.h"
#include "svm.h"
#include "tcg/helper-tcg.h"
#include "tcg/insn-start-words.h"

#define WORD sizeof(target_ulong)

/* Kept in cc_*, not in env->eflags, while guest code runs; df likewise. */
#define ARITHMETIC_FLAGS (CC_O | CC_S | CC_Z | CC_A | CC_P | CC_C)
#define LAZY_FLAGS (ARITHMETIC_FLAGS | DF_MASK)

#define ALL_FLAGS                                                             \
    (LAZY_FLAGS | TF_MASK | IF_MASK | IOPL_MASK | NT_MASK | RF_MASK           \
     | VM_MASK | AC_MASK | VIF_MASK | VIP_MASK | ID_MASK)

/* Flags to be loaded when the present block has been left. */
static struct {
    bool written;
    uint32_t flags;
} pending;

/* ---- pc, stack, address space, privilege ---- */

/* What has to be added to eip; the same rule as cpu_get_tb_cpu_state(). */
static target_ulong code_base(CPUX86State *env)
{
    return env->hflags & HF_CS64_MASK ? 0 : env->segs[R_CS].base;
}

static uint64_t linear_pc(CPUX86State *env, target_ulong eip)
{
    return env->hflags & HF_CS64_MASK ? eip
                                      : (uint32_t)(eip + code_base(env));
}

static target_ulong offset_pc(CPUX86State *env, uint64_t pc)
{
    return env->hflags & HF_CS64_MASK ? pc : (uint32_t)(pc - code_base(env));
}

uint64_t panda_arch_get_pc(CPUState *cs)
{
    CPUX86State *env = cpu_env(cs);

    return linear_pc(env, env->eip);
}

void panda_arch_set_pc(CPUState *cs, uint64_t pc)
{
    CPUX86State *env = cpu_env(cs);

    env->eip = offset_pc(env, pc);
}

uint64_t panda_arch_get_sp(CPUState *cs)
{
    return cpu_env(cs)->regs[R_ESP];
}

/* In user mode: where the CPU will find its kernel stack, in the TSS. */
uint64_t panda_arch_get_ksp(CPUState *cs)
{
    CPUX86State *env = cpu_env(cs);
    unsigned type = (env->tr.flags >> DESC_TYPE_SHIFT) & 0xf;
    unsigned offset = 4, size = 4;
    uint8_t buf[8];

    if (panda_arch_in_kernel(cs)) {
        return env->regs[R_ESP];
    }
    if (!(env->tr.flags & DESC_P_MASK) || (type & 7 & ~2) != 1) {
        return 0;
    }
    if (env->hflags & HF_LMA_MASK) {
        size = 8;
    } else if (!(type & 8)) {
        /* A 16-bit TSS. */
        offset = 2;
        size = 2;
    }
    if (offset + size - 1 > env->tr.limit
        || panda_virtual_memory_read(&panda_vcpu.pub, env->tr.base + offset,
                                     buf, size) != PANDA_OK) {
        return 0;
    }
    return ldn_le_p(buf, size);
}

/*
 * CR3 as it is. With page-table isolation Linux toggles its bit 12 at each
 * entry and exit of the kernel, and with PCIDs the low 12 bits change too:
 * callers that identify processes mask these.
 */
uint64_t panda_arch_get_asid(CPUState *cs)
{
    return cpu_env(cs)->cr[3];
}

bool panda_arch_in_kernel(CPUState *cs)
{
    return (cpu_env(cs)->hflags & HF_CPL_MASK) == 0;
}

/* ---- flags ---- */

/*
 * Is the CPU's state in the form it has inside cpu_exec()? There env->eflags
 * never has one of the lazy bits: cpu_exec_enter() moves them out.
 */
static bool flags_are_lazy(CPUState *cs)
{
    return qatomic_read(&cs->running) && !(cpu_env(cs)->eflags & LAZY_FLAGS);
}

static uint32_t get_flags(CPUState *cs)
{
    CPUX86State *env = cpu_env(cs);
    uint64_t data[TARGET_INSN_START_WORDS];
    int op = env->cc_op;

    if (!flags_are_lazy(cs)) {
        /* cc_* may be older than a snapshot that was loaded meanwhile. */
        return env->eflags;
    }
    if (panda_in_vcpu_thread()) {
        if (pending.written) {
            return pending.flags;
        }
        /*
         * Inside a block the translator knows which operation the flags stem
         * from, and does not keep env->cc_op up to date. After the last
         * instruction it has done so.
         */
        if (panda_place_in_block(panda_vcpu.place)
            && panda_vcpu.ra
            && cpu_unwind_state_data(cs, panda_vcpu.ra, data)
            && data[1] != CC_OP_DYNAMIC) {
            op = data[1];
        }
    }
    return env->eflags | (env->df & DF_MASK)
        | helper_cc_compute_all(env->cc_dst, env->cc_src, env->cc_src2, op);
}

static void load_flags(CPUState *cs, uint32_t flags)
{
    CPUX86State *env = cpu_env(cs);
    bool lazy = flags_are_lazy(cs);

    cpu_load_eflags(env, flags, ALL_FLAGS & ~LAZY_FLAGS);
    if (!lazy) {
        env->eflags = (env->eflags & ~LAZY_FLAGS) | (flags & LAZY_FLAGS);
    }
}

static void set_flags(CPUState *cs, uint32_t flags)
{
    CPUX86State *env = cpu_env(cs);

    flags = (env->eflags & ~ALL_FLAGS) | (flags & ALL_FLAGS);
    if (panda_in_vcpu_thread() && panda_vcpu.pub.in_callback
        && panda_place_is_between(panda_vcpu.place)) {
        /*
         * Leaving the block restores cc_op to what it is for the instruction
         * the event belongs to, so the flags are loaded after that.
         */
        pending.written = true;
        pending.flags = flags;
    } else {
        load_flags(cs, flags);
    }
}

bool panda_arch_general(CPUState *cs, unsigned n, uint64_t *value)
{
    if (n >= CPU_NB_REGS) {
        return false;
    }
    *value = cpu_env(cs)->regs[n];
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
    if (pending.written) {
        pending.written = false;
        load_flags(cs, pending.flags);
    }
}

/* The index is the size. */
static void read_flags(CPUState *cs, unsigned index, uint8_t *buf)
{
    stn_le_p(buf, index, get_flags(cs));
}

static void write_flags(CPUState *cs, unsigned index, const uint8_t *buf)
{
    set_flags(cs, ldl_le_p(buf));
}

void panda_arch_after_loadvm(CPUState *cs)
{
}

/* ---- pc as a register: the offset in the code segment ---- */

static void read_ip(CPUState *cs, unsigned index, uint8_t *buf)
{
    stn_le_p(buf, index,
             offset_pc(cpu_env(cs), panda_current_pc(&panda_vcpu.pub)));
}

static void write_ip(CPUState *cs, unsigned index, const uint8_t *buf)
{
    panda_set_pc(&panda_vcpu.pub,
                 linear_pc(cpu_env(cs), ldn_le_p(buf, index)));
}

/* ---- segments and descriptor tables ---- */

static void read_cache(const SegmentCache *cache, uint8_t *buf)
{
    PandaSegment out = {
        .selector = cache->selector,
        .limit = cache->limit,
        .base = cache->base,
        .flags = cache->flags,
    };

    memcpy(buf, &out, sizeof(out));
}

static void read_segment(CPUState *cs, unsigned index, uint8_t *buf)
{
    read_cache(&cpu_env(cs)->segs[index], buf);
}

static void write_segment(CPUState *cs, unsigned index, const uint8_t *buf)
{
    PandaSegment in;

    memcpy(&in, buf, sizeof(in));
    cpu_x86_load_seg_cache(cpu_env(cs), index, in.selector, in.base,
                           in.limit, in.flags);
}

/* The index is the offset in env. */
static SegmentCache *table_at(CPUState *cs, unsigned index)
{
    return (SegmentCache *)((uint8_t *)cpu_env(cs) + index);
}

static void read_table(CPUState *cs, unsigned index, uint8_t *buf)
{
    read_cache(table_at(cs, index), buf);
}

static void write_table(CPUState *cs, unsigned index, const uint8_t *buf)
{
    SegmentCache *cache = table_at(cs, index);
    PandaSegment in;

    memcpy(&in, buf, sizeof(in));
    cache->selector = in.selector;
    cache->limit = in.limit;
    cache->base = in.base;
    cache->flags = in.flags;
}

/* ---- control, debug and model specific registers ---- */

static void read_cr(CPUState *cs, unsigned index, uint8_t *buf)
{
    stn_le_p(buf, WORD, cpu_env(cs)->cr[index]);
}

static void write_cr(CPUState *cs, unsigned index, const uint8_t *buf)
{
    CPUX86State *env = cpu_env(cs);
    target_ulong value = ldn_le_p(buf, WORD);

    switch (index) {
    case 0:
        cpu_x86_update_cr0(env, value);
        break;
    case 3:
        /*
         * What cpu_x86_update_cr3() does; that one is wrapped and would raise
         * asid_changed for a change the guest did not make.
         */
        env->cr[3] = value;
        if (env->cr[0] & CR0_PG_MASK) {
            tlb_flush(cs);
        }
        break;
    case 4:
        cpu_x86_update_cr4(env, value);
        break;
    default:
        g_assert_not_reached();
    }
}

#ifdef TARGET_X86_64
/* The task priority lives in the interrupt controller. */
static void read_cr8(CPUState *cs, unsigned index, uint8_t *buf)
{
    CPUX86State *env = cpu_env(cs);
    uint64_t value;

    if (env->hflags2 & HF2_VINTR_MASK) {
        value = env->int_ctl & V_TPR_MASK;
    } else {
        value = cpu_get_apic_tpr(env_archcpu(env)->apic_state);
    }
    stn_le_p(buf, WORD, value);
}

static void write_cr8(CPUState *cs, unsigned index, const uint8_t *buf)
{
    CPUX86State *env = cpu_env(cs);
    uint8_t value = buf[0] & V_TPR_MASK;

    if (!(env->hflags2 & HF2_VINTR_MASK)) {
        BQL_LOCK_GUARD();
        cpu_set_apic_tpr(env_archcpu(env)->apic_state, value);
    }
    env->int_ctl = (env->int_ctl & ~V_TPR_MASK) | value;
}
#endif

static void read_dr(CPUState *cs, unsigned index, uint8_t *buf)
{
    stn_le_p(buf, WORD, cpu_env(cs)->dr[index]);
}

/* Not helper_set_dr(): that one can raise an exception in the guest. */
static void write_dr(CPUState *cs, unsigned index, const uint8_t *buf)
{
    CPUX86State *env = cpu_env(cs);
    target_ulong value = ldn_le_p(buf, WORD);
    uint32_t dr7 = env->dr[7];

    switch (index) {
    case 6:
        env->dr[6] = value | DR6_FIXED_1;
        break;
    case 7:
        cpu_x86_update_dr7(env, value);
        break;
    default:
        /* An enabled breakpoint moves: off and on again. */
        cpu_x86_update_dr7(env, dr7 & ~(3u << (index * 2)));
        env->dr[index] = value;
        cpu_x86_update_dr7(env, dr7);
        break;
    }
}

static void read_efer(CPUState *cs, unsigned index, uint8_t *buf)
{
    stq_le_p(buf, cpu_env(cs)->efer);
}

static void write_efer(CPUState *cs, unsigned index, const uint8_t *buf)
{
    cpu_load_efer(cpu_env(cs), ldq_le_p(buf));
}

/* ---- vectors ---- */

static void read_xmm(CPUState *cs, unsigned index, uint8_t *buf)
{
    const ZMMReg *reg = &cpu_env(cs)->xmm_regs[index];

    stq_le_p(buf, reg->ZMM_Q(0));
    stq_le_p(buf + 8, reg->ZMM_Q(1));
}

static void write_xmm(CPUState *cs, unsigned index, const uint8_t *buf)
{
    ZMMReg *reg = &cpu_env(cs)->xmm_regs[index];

    reg->ZMM_Q(0) = ldq_le_p(buf);
    reg->ZMM_Q(1) = ldq_le_p(buf + 8);
}

/* ---- the table ---- */

#define SEGMENT(name)                                                         \
    { #name, sizeof(PandaSegment), true, read_segment, write_segment,         \
      R_##name }
#define TABLE(name, field)                                                    \
    { name, sizeof(PandaSegment), false, read_table, write_table,             \
      offsetof(CPUX86State, field) }
#define CR(n) { "CR" #n, WORD, true, read_cr, write_cr, n }
#define DR(n) { "DR" #n, WORD, true, read_dr, write_dr, n }
#define XMM(n) { "XMM" #n, 16, false, read_xmm, write_xmm, n }

static const PandaRegister registers[] = {
    { "EFLAGS", 4, true, read_flags, write_flags, 4 },
    { "EIP", 4, true, read_ip, write_ip, 4 },
#ifdef TARGET_X86_64
    { "RFLAGS", 8, true, read_flags, write_flags, 8 },
    { "RIP", 8, true, read_ip, write_ip, 8 },
#endif
    SEGMENT(ES),
    SEGMENT(CS),
    SEGMENT(SS),
    SEGMENT(DS),
    SEGMENT(FS),
    SEGMENT(GS),
    TABLE("LDT", ldt),
    TABLE("TR", tr),
    TABLE("GDT", gdt),
    TABLE("IDT", idt),
    /* Where they are used the base is read from env: no mode registers. */
    PLAIN("FSBASE", segs[R_FS].base),
    PLAIN("GSBASE", segs[R_GS].base),
    CR(0),
    PLAIN("CR2", cr[2]),
    CR(3),
    CR(4),
#ifdef TARGET_X86_64
    { "CR8", WORD, false, read_cr8, write_cr8, 8 },
#endif
    DR(0),
    DR(1),
    DR(2),
    DR(3),
    DR(6),
    DR(7),
    { "EFER", 8, true, read_efer, write_efer, 0 },
    PLAIN("SYSENTER_CS", sysenter_cs),
    PLAIN("SYSENTER_ESP", sysenter_esp),
    PLAIN("SYSENTER_EIP", sysenter_eip),
    PLAIN("STAR", star),
#ifdef TARGET_X86_64
    PLAIN("LSTAR", lstar),
    PLAIN("CSTAR", cstar),
    PLAIN("FMASK", fmask),
    PLAIN("KERNELGSBASE", kernelgsbase),
#endif
    XMM(0),
    XMM(1),
    XMM(2),
    XMM(3),
    XMM(4),
    XMM(5),
    XMM(6),
    XMM(7),
#ifdef TARGET_X86_64
    XMM(8),
    XMM(9),
    XMM(10),
    XMM(11),
    XMM(12),
    XMM(13),
    XMM(14),
    XMM(15),
#endif
};

const PandaRegister *panda_arch_registers(unsigned *count)
{
    *count = ARRAY_SIZE(registers);
    return registers;
}
