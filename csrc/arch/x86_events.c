/*
 * Events that only x86's helpers know of.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/hypercall.h"
#include "arch/x86.h"
#include "core/internal.h"
#include "core/stream.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"
#include "qemu/main-loop.h"
#include "tcg/helper-tcg.h"

/* Where a mov to CR3 was called from, for the exact pc. */
static uintptr_t helper_ra;

void __real_helper_write_crN(CPUX86State *env, int reg, target_ulong value);
void __wrap_helper_write_crN(CPUX86State *env, int reg, target_ulong value);
void __wrap_helper_write_crN(CPUX86State *env, int reg, target_ulong value)
{
    if (reg == 3) {
        helper_ra = GETPC();
    }
    /* It uses its own return address, which must stay the generated code. */
    __attribute__((musttail)) return __real_helper_write_crN(env, reg, value);
}

void __real_cpu_x86_update_cr3(CPUX86State *env, target_ulong value);
void __wrap_cpu_x86_update_cr3(CPUX86State *env, target_ulong value);
void __wrap_cpu_x86_update_cr3(CPUX86State *env, target_ulong value)
{
    uintptr_t ra = helper_ra;

    helper_ra = 0;
    if (!panda_raise_asid_changed(env_cpu(env), env->cr[3], value, ra)) {
        __real_cpu_x86_update_cr3(env, value);
    }
}

/* ---- hypercalls ---- */

/* The translator has brought eip up to date. */
void __real_helper_cpuid(CPUX86State *env);
void __wrap_helper_cpuid(CPUX86State *env);
void __wrap_helper_cpuid(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);

    if (panda_wanted(PANDA_CB_GUEST_HYPERCALL)) {
        bool handled = panda_raise_hypercall(cs, PANDA_PLACE_HELPER,
                                             panda_arch_get_pc(cs), GETPC());

        panda_event_leave(cs);
        if (handled) {
            return;
        }
    }
    /* It uses its own return address, which must stay the generated code. */
    __attribute__((musttail)) return __real_helper_cpuid(env);
}

/* ---- interrupts ---- */

/* The interrupt that was taken from the controller is not to be delivered. */
static bool interrupt_dropped;

static int ask(CPUState *cs, int number)
{
    int wanted = number;
    PandaCallback *c;

    /* A callback that takes its time must not stop the main thread. */
    bql_unlock();
    panda_event_enter(cs, PANDA_PLACE_OUTSIDE, panda_arch_get_pc(cs), 0);
    PANDA_FOR_EACH(c, PANDA_CB_BEFORE_HANDLE_INTERRUPT) {
        int result = PANDA_CALL(c, before_handle_interrupt, &panda_vcpu.pub,
                                number);

        /* One that has failed closed the gate, and its result means nothing. */
        if (wanted == number && !qatomic_read(&panda_gate_closed)) {
            wanted = result;
        }
    }
    panda_event_leave(cs);
    bql_lock();
    return wanted;
}

/* The big lock is held, no block is running. */
int __wrap_cpu_get_pic_interrupt(CPUX86State *env);
int __wrap_cpu_get_pic_interrupt(CPUX86State *env)
{
    int number = panda_rr_get_pic_interrupt(env);

    if (number >= 0 && panda_wanted(PANDA_CB_BEFORE_HANDLE_INTERRUPT)
        && panda_in_vcpu_thread()) {
        int wanted = ask(env_cpu(env), number);

        /* There are 256 vectors. */
        interrupt_dropped = wanted != (uint8_t)wanted;
        if (!interrupt_dropped) {
            number = wanted;
        }
    }
    return number;
}

void __real_do_interrupt_x86_hardirq(CPUX86State *env, int number, int is_hw);
void __wrap_do_interrupt_x86_hardirq(CPUX86State *env, int number, int is_hw);
void __wrap_do_interrupt_x86_hardirq(CPUX86State *env, int number, int is_hw)
{
    if (interrupt_dropped) {
        interrupt_dropped = false;
        return;
    }
    __real_do_interrupt_x86_hardirq(env, number, is_hw);
}

/* ---- ports ---- */

static void stream_port(CPUX86State *env, uint32_t port, unsigned size,
                        bool write, uint64_t value, uintptr_t ra)
{
    if (panda_streamed_kinds & BIT(PANDA_STREAM_IO)) {
        panda_stream_io(panda_helper_pc(env_cpu(env), ra), true, port, size,
                        write, value);
    }
}

#define OUT(real, wrap, bytes, type)                                          \
void real(CPUX86State *env, uint32_t port, uint32_t data);                    \
void wrap(CPUX86State *env, uint32_t port, uint32_t data);                    \
void wrap(CPUX86State *env, uint32_t port, uint32_t data)                     \
{                                                                             \
    stream_port(env, port, bytes, true, (type)data, GETPC());                 \
    real(env, port, data);                                                    \
}

#define IN(real, wrap, bytes, type)                                           \
target_ulong real(CPUX86State *env, uint32_t port);                           \
target_ulong wrap(CPUX86State *env, uint32_t port);                           \
target_ulong wrap(CPUX86State *env, uint32_t port)                            \
{                                                                             \
    target_ulong data = real(env, port);                                      \
                                                                              \
    stream_port(env, port, bytes, false, (type)data, GETPC());                \
    return data;                                                              \
}

OUT(__real_helper_outb, __wrap_helper_outb, 1, uint8_t)
OUT(__real_helper_outw, __wrap_helper_outw, 2, uint16_t)
OUT(__real_helper_outl, __wrap_helper_outl, 4, uint32_t)
IN(__real_helper_inb, __wrap_helper_inb, 1, uint8_t)
IN(__real_helper_inw, __wrap_helper_inw, 2, uint16_t)
IN(__real_helper_inl, __wrap_helper_inl, 4, uint32_t)
