/*
 * System calls of MIPS; not those of compressed code (MIPS16, microMIPS).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "syscalls/syscalls.h"
#include "core/branches.h"
#include "exec/helper-proto.h"

#ifdef TARGET_MIPS64
enum { N64, O32, N32 };
#else
enum { O32 };
#endif

/* syscall() of o32: the call's number is its first argument. */
#define INDIRECT 4000

enum { V0 = 2, A0 = 4, A3 = 7, GP = 28 };

static bool is_syscall(uint32_t insn)
{
    return (insn & 0xfc00003f) == 0x0000000c;
}

bool panda_arch_syscall(CPUState *cs, const DisasContextBase *db,
                        unsigned *next, unsigned *how)
{
    uint32_t insn;

    if (db->tb->flags & MIPS_HFLAG_M16) {
        return false;
    }
    insn = panda_code_u32_le(cs, db);
    *next = 4;
    return is_syscall(TARGET_BIG_ENDIAN ? bswap32(insn) : insn);
}

bool panda_arch_syscall_before(const DisasContextBase *db,
                               const uint8_t *host, unsigned n)
{
    return !(db->tb->flags & MIPS_HFLAG_M16)
        && (n < 4 || is_syscall(TARGET_BIG_ENDIAN ? ldl_be_p(host - 4)
                                                  : ldl_le_p(host - 4)));
}

static bool is_indirect(CPUMIPSState *env)
{
    return (uint32_t)env->active_tc.gpr[V0] == INDIRECT;
}

bool panda_arch_syscall_number(CPUState *cs, unsigned how, unsigned *abi,
                               uint32_t *number)
{
    CPUMIPSState *env = cpu_env(cs);

    *number = env->active_tc.gpr[is_indirect(env) ? A0 : V0];
    *abi = 0;
#ifdef TARGET_MIPS64
    if (*number / 1000 == 4) {
        *abi = O32;
    } else if (*number / 1000 == 6) {
        *abi = N32;
    }
#endif
    return true;
}

void panda_arch_syscall_slots(CPUState *cs, unsigned abi, unsigned how,
                              uint64_t *slots)
{
    CPUMIPSState *env = cpu_env(cs);
    unsigned in_registers = abi == O32 ? 4 : 6;

    for (unsigned i = 0; i < PANDA_SYSCALL_SLOTS; i++) {
        uint8_t buf[4];

        slots[i] = 0;
        if (i < in_registers) {
            slots[i] = env->active_tc.gpr[A0 + i];
        } else if (abi == O32
                   && panda_virtual_memory_read(&panda_vcpu.pub,
                                                panda_arch_get_sp(cs) + 4 * i,
                                                buf, 4) == PANDA_OK) {
            slots[i] = TARGET_BIG_ENDIAN ? ldl_be_p(buf) : ldl_le_p(buf);
        }
        if (abi == O32) {
            slots[i] = (uint32_t)slots[i];
        }
    }
    if (is_indirect(env)) {
        memmove(slots, slots + 1,
                (PANDA_SYSCALL_SLOTS - 1) * sizeof(*slots));
    }
}

/*
 * The kernel gives a process a new number of an address space now and then, at
 * each fork() for one. But when it goes back to a program it writes the status
 * while its global pointer still is the thread's thread_info.
 */
static uint64_t thread;

void __real_helper_mtc0_status(CPUMIPSState *env, target_ulong value);
void __wrap_helper_mtc0_status(CPUMIPSState *env, target_ulong value);
void __wrap_helper_mtc0_status(CPUMIPSState *env, target_ulong value)
{
    thread = (target_ulong)env->active_tc.gpr[GP];
    __attribute__((musttail)) return __real_helper_mtc0_status(env, value);
}

uint64_t panda_arch_syscall_thread(CPUState *cs)
{
    return thread;
}

int64_t panda_arch_syscall_result(CPUState *cs, unsigned abi, unsigned how)
{
    CPUMIPSState *env = cpu_env(cs);
    int64_t value = (target_long)env->active_tc.gpr[V0];

    return env->active_tc.gpr[A3] ? -value : value;
}

/*
 * Back to a user program. These use their own return address, which must stay
 * the generated code.
 */
void __real_helper_eret(CPUMIPSState *env);
void __wrap_helper_eret(CPUMIPSState *env);
void __wrap_helper_eret(CPUMIPSState *env)
{
    panda_syscall_before_user(env_cpu(env));
    __attribute__((musttail)) return __real_helper_eret(env);
}
