/*
 * System calls of x86.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "syscalls/syscalls.h"
#include "core/branches.h"
#include "exec/helper-proto.h"

typedef enum How {
    /* Of 64-bit code. */
    SYSCALL,
    /* Of both: the numbers are those of 32-bit code. */
    INT_80,
    /* Of 32-bit code: what the kernel maps into each program. */
    SYSENTER,
    SYSCALL_32,
} How;

/* The kernel's numbers for 32-bit programs. */
#ifdef TARGET_X86_64
#define ABI_I386 1
#else
#define ABI_I386 0
#endif

/* Is "int $0x80" so many bytes on, and on the same page? */
static bool int_80_at(const DisasContextBase *db, unsigned offset)
{
    uint64_t pc = db->pc_next + offset;
    const uint8_t *host = db->host_addr[0];

    if (!host || ((pc + 1) ^ db->pc_first) & TARGET_PAGE_MASK) {
        return false;
    }
    host += pc - db->pc_first;
    return host[0] == 0xcd && host[1] == 0x80;
}

bool panda_arch_syscall(CPUState *cs, const DisasContextBase *db,
                        unsigned *next, unsigned *how)
{
    bool code_64 = db->tb->flags & HF_CS64_MASK;
    uint8_t first = panda_code_byte(cs, db, 0), second;

    if (first != 0x0f && first != 0xcd) {
        return false;
    }
    second = panda_code_byte(cs, db, 1);
    *next = 2;
    if (first == 0xcd) {
        *how = INT_80;
        return second == 0x80;
    }
    if (second == 0x05) {
        *how = code_64 ? SYSCALL : SYSCALL_32;
    } else if (second == 0x34 && !code_64) {
        *how = SYSENTER;
    } else {
        return false;
    }
    if (!code_64 && int_80_at(db, 2)) {
        /* Where that one is left out the kernel returns behind it. */
        *next = 4;
    }
    return true;
}

bool panda_arch_syscall_before(const DisasContextBase *db,
                               const uint8_t *host, unsigned n)
{
    return n < 2 || (host[-2] == 0xcd && host[-1] == 0x80)
        || (host[-2] == 0x0f && (host[-1] == 0x05 || host[-1] == 0x34));
}

bool panda_arch_syscall_number(CPUState *cs, unsigned how, unsigned *abi,
                               uint32_t *number)
{
    *abi = how == SYSCALL ? 0 : ABI_I386;
    *number = cpu_env(cs)->regs[R_EAX];
    return true;
}

void panda_arch_syscall_slots(CPUState *cs, unsigned abi, unsigned how,
                              uint64_t *slots)
{
    static const uint8_t order_32[] = {
        R_EBX, R_ECX, R_EDX, R_ESI, R_EDI, R_EBP,
    };
    CPUX86State *env = cpu_env(cs);
    uint8_t buf[4];

    memset(slots, 0, PANDA_SYSCALL_SLOTS * sizeof(*slots));
#ifdef TARGET_X86_64
    static const uint8_t order[] = { R_EDI, R_ESI, R_EDX, 10, 8, 9 };

    if (how == SYSCALL) {
        for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
            slots[i] = env->regs[order[i]];
        }
        return;
    }
#endif
    for (unsigned i = 0; i < ARRAY_SIZE(order_32); i++) {
        slots[i] = (uint32_t)env->regs[order_32[i]];
    }
    if (how == SYSCALL_32) {
        slots[1] = slots[5];
    }
    if (how != INT_80
        && panda_virtual_memory_read(&panda_vcpu.pub, panda_arch_get_sp(cs),
                                     buf, 4) == PANDA_OK) {
        slots[5] = ldl_le_p(buf);
    }
}

uint64_t panda_arch_syscall_thread(CPUState *cs)
{
    return 0;
}

int64_t panda_arch_syscall_result(CPUState *cs, unsigned abi, unsigned how)
{
    target_ulong value = cpu_env(cs)->regs[R_EAX];

    return abi == ABI_I386 ? (int32_t)value : (int64_t)value;
}

/*
 * Back to a user program. These use their own return address, which must stay
 * the generated code.
 */
void __real_helper_sysret(CPUX86State *env, int dflag);
void __wrap_helper_sysret(CPUX86State *env, int dflag);
void __wrap_helper_sysret(CPUX86State *env, int dflag)
{
    panda_syscall_before_user(env_cpu(env));
    __attribute__((musttail)) return __real_helper_sysret(env, dflag);
}

void __real_helper_sysexit(CPUX86State *env, int dflag);
void __wrap_helper_sysexit(CPUX86State *env, int dflag);
void __wrap_helper_sysexit(CPUX86State *env, int dflag)
{
    panda_syscall_before_user(env_cpu(env));
    __attribute__((musttail)) return __real_helper_sysexit(env, dflag);
}

void __real_helper_iret_protected(CPUX86State *env, int shift, int next);
void __wrap_helper_iret_protected(CPUX86State *env, int shift, int next);
void __wrap_helper_iret_protected(CPUX86State *env, int shift, int next)
{
    panda_syscall_before_user(env_cpu(env));
    __attribute__((musttail)) return __real_helper_iret_protected(env, shift,
                                                                  next);
}
