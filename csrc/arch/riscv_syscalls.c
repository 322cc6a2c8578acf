/*
 * System calls of RISC-V.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "syscalls/syscalls.h"
#include "core/branches.h"
#include "exec/helper-proto.h"

#define ECALL 0x00000073

enum { A0 = 10, A7 = 17 };

bool panda_arch_syscall(CPUState *cs, const DisasContextBase *db,
                        unsigned *next, unsigned *how)
{
    *next = 4;
    /* Not the second half of a short instruction: it may be elsewhere. */
    return panda_code_u16_le(cs, db, 0) == ECALL
        && panda_code_u32_le(cs, db) == ECALL;
}

bool panda_arch_syscall_before(const DisasContextBase *db,
                               const uint8_t *host, unsigned n)
{
    return n < 4 || ldl_le_p(host - 4) == ECALL;
}

bool panda_arch_syscall_number(CPUState *cs, unsigned how, unsigned *abi,
                               uint32_t *number)
{
    *abi = 0;
    *number = cpu_env(cs)->gpr[A7];
    return true;
}

void panda_arch_syscall_slots(CPUState *cs, unsigned abi, unsigned how,
                              uint64_t *slots)
{
    for (unsigned i = 0; i < PANDA_SYSCALL_SLOTS; i++) {
        slots[i] = i < 6 ? cpu_env(cs)->gpr[A0 + i] : 0;
    }
}

uint64_t panda_arch_syscall_thread(CPUState *cs)
{
    return 0;
}

int64_t panda_arch_syscall_result(CPUState *cs, unsigned abi, unsigned how)
{
    return cpu_env(cs)->gpr[A0];
}

/*
 * Back to a user program. It uses its own return address, which must stay the
 * generated code.
 */
target_ulong __real_helper_sret(CPURISCVState *env);
target_ulong __wrap_helper_sret(CPURISCVState *env);
target_ulong __wrap_helper_sret(CPURISCVState *env)
{
    panda_syscall_before_user(env_cpu(env));
    __attribute__((musttail)) return __real_helper_sret(env);
}
