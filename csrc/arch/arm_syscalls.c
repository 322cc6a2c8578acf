/*
 * System calls of ARM: A64, A32 and T32 code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "syscalls/syscalls.h"
#include "core/branches.h"
#include "exec/helper-proto.h"
#include "tcg/translate.h"

/* What is noted: the state of the CPU, and the condition of an instruction. */
#define A64 0x10
#define ALWAYS 0xe

/* Numbers of 32-bit programs. */
#ifdef TARGET_AARCH64
#define ABI_ARM 1
#else
#define ABI_ARM 0
#endif

/* Those of the old ABI have their number in the instruction: they are none. */
static bool is_svc(uint32_t insn)
{
    return (insn & 0x0fffffff) == 0x0f000000 && insn >> 28 != 0xf;
}

static bool is_a64_svc(uint32_t insn)
{
    return (insn & 0xffe0001f) == 0xd4000001;
}

bool panda_arch_syscall(CPUState *cs, const DisasContextBase *db,
                        unsigned *next, unsigned *how)
{
    CPUARMTBFlags flags = arm_tbflags_from_tb(db->tb);
    uint32_t insn;

    *next = 4;
    if (EX_TBFLAG_ANY(flags, AARCH64_STATE)) {
        *how = A64;
        return is_a64_svc(panda_code_u32_le(cs, db));
    }
    if (EX_TBFLAG_AM32(flags, THUMB)) {
        *next = 2;
        *how = ALWAYS;
        return panda_code_u16_le(cs, db, 0) == 0xdf00;
    }
    insn = panda_code_u32_le(cs, db);
    *how = insn >> 28;
    return is_svc(insn);
}

bool panda_arch_syscall_before(const DisasContextBase *db,
                               const uint8_t *host, unsigned n)
{
    CPUARMTBFlags flags = arm_tbflags_from_tb(db->tb);

    if (EX_TBFLAG_ANY(flags, AARCH64_STATE)) {
        return n < 4 || is_a64_svc(ldl_le_p(host - 4));
    }
    if (EX_TBFLAG_AM32(flags, THUMB)) {
        return n < 2 || lduw_le_p(host - 2) == 0xdf00;
    }
    return n < 4 || is_svc(ldl_le_p(host - 4));
}

static bool holds(CPUARMState *env, unsigned condition)
{
    bool n = env->NF >> 31, z = !env->ZF, c = env->CF, v = env->VF >> 31;
    bool result;

    switch (condition >> 1) {
    case 0:
        result = z;
        break;
    case 1:
        result = c;
        break;
    case 2:
        result = n;
        break;
    case 3:
        result = v;
        break;
    case 4:
        result = c && !z;
        break;
    case 5:
        result = n == v;
        break;
    case 6:
        result = n == v && !z;
        break;
    default:
        return true;
    }
    return result != (condition & 1);
}

bool panda_arch_syscall_number(CPUState *cs, unsigned how, unsigned *abi,
                               uint32_t *number)
{
    CPUARMState *env = cpu_env(cs);

    if (how == A64) {
        *abi = 0;
        *number = env->xregs[8];
        return true;
    }
    *abi = ABI_ARM;
    *number = env->regs[7];
    return holds(env, how);
}

void panda_arch_syscall_slots(CPUState *cs, unsigned abi, unsigned how,
                              uint64_t *slots)
{
    CPUARMState *env = cpu_env(cs);

    for (unsigned i = 0; i < PANDA_SYSCALL_SLOTS; i++) {
        slots[i] = how == A64 ? (i < 6 ? env->xregs[i] : 0)
                              : (i < 7 ? env->regs[i] : 0);
    }
}

uint64_t panda_arch_syscall_thread(CPUState *cs)
{
    return 0;
}

int64_t panda_arch_syscall_result(CPUState *cs, unsigned abi, unsigned how)
{
    CPUARMState *env = cpu_env(cs);

    return how == A64 ? (int64_t)env->xregs[0] : (int32_t)env->regs[0];
}

/*
 * Back to a user program. These use their own return address, which must stay
 * the generated code.
 */
void __real_helper_cpsr_write_eret(CPUARMState *env, uint32_t value);
void __wrap_helper_cpsr_write_eret(CPUARMState *env, uint32_t value);
void __wrap_helper_cpsr_write_eret(CPUARMState *env, uint32_t value)
{
    panda_syscall_before_user(env_cpu(env));
    __attribute__((musttail)) return __real_helper_cpsr_write_eret(env, value);
}

#ifdef TARGET_AARCH64
void __real_helper_exception_return(CPUARMState *env, uint64_t pc);
void __wrap_helper_exception_return(CPUARMState *env, uint64_t pc);
void __wrap_helper_exception_return(CPUARMState *env, uint64_t pc)
{
    panda_syscall_before_user(env_cpu(env));
    __attribute__((musttail)) return __real_helper_exception_return(env, pc);
}
#endif
