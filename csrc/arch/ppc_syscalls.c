/*
 * System calls of PowerPC.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "syscalls/syscalls.h"
#include "core/branches.h"
#include "exec/helper-proto.h"

enum { SC, SCV };

#ifdef TARGET_PPC64
#define ABI_PPC 1
#else
#define ABI_PPC 0
#endif

static bool kind_of(const DisasContextBase *db, uint32_t insn, unsigned *how)
{
    if (!((db->tb->flags >> HFLAGS_LE) & 1)) {
        insn = bswap32(insn);
    }
    *how = insn == 0x44000001 ? SCV : SC;
    return insn == 0x44000002 || insn == 0x44000001;
}

bool panda_arch_syscall(CPUState *cs, const DisasContextBase *db,
                        unsigned *next, unsigned *how)
{
    *next = 4;
    return kind_of(db, panda_code_u32_le(cs, db), how);
}

bool panda_arch_syscall_before(const DisasContextBase *db,
                               const uint8_t *host, unsigned n)
{
    unsigned how;

    return n < 4 || kind_of(db, ldl_le_p(host - 4), &how);
}

bool panda_arch_syscall_number(CPUState *cs, unsigned how, unsigned *abi,
                               uint32_t *number)
{
    CPUPPCState *env = cpu_env(cs);

    *abi = msr_is_64bit(env, env->msr) ? 0 : ABI_PPC;
    *number = env->gpr[0];
    return true;
}

void panda_arch_syscall_slots(CPUState *cs, unsigned abi, unsigned how,
                              uint64_t *slots)
{
    CPUPPCState *env = cpu_env(cs);

    for (unsigned i = 0; i < PANDA_SYSCALL_SLOTS; i++) {
        slots[i] = i < 6 ? env->gpr[3 + i] : 0;
    }
}

uint64_t panda_arch_syscall_thread(CPUState *cs)
{
    return 0;
}

int64_t panda_arch_syscall_result(CPUState *cs, unsigned abi, unsigned how)
{
    CPUPPCState *env = cpu_env(cs);
    int64_t value = abi == ABI_PPC ? (int32_t)env->gpr[3]
                                   : (int64_t)env->gpr[3];

    return how == SC && (env->crf[0] & CRF_SO) ? -value : value;
}

/* Back to a user program. */
void __real_helper_rfi(CPUPPCState *env);
void __wrap_helper_rfi(CPUPPCState *env);
void __wrap_helper_rfi(CPUPPCState *env)
{
    panda_syscall_before_user(env_cpu(env));
    __real_helper_rfi(env);
}

#ifdef TARGET_PPC64
void __real_helper_rfid(CPUPPCState *env);
void __wrap_helper_rfid(CPUPPCState *env);
void __wrap_helper_rfid(CPUPPCState *env)
{
    panda_syscall_before_user(env_cpu(env));
    __real_helper_rfid(env);
}

void __real_helper_rfscv(CPUPPCState *env);
void __wrap_helper_rfscv(CPUPPCState *env);
void __wrap_helper_rfscv(CPUPPCState *env)
{
    panda_syscall_before_user(env_cpu(env));
    __real_helper_rfscv(env);
}
#endif
