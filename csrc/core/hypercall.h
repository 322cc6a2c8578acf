/*
 * Hypercalls: what the architectures tell about them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_HYPERCALL_H
#define PANDA_CORE_HYPERCALL_H

#include "core/internal.h"
#include "exec/translator.h"

/*
 * Raise guest_hypercall. True if a callback has handled it: the instruction is
 * not to be executed. What callbacks ask for is not served before
 * panda_event_leave(), which is for the caller.
 */
bool panda_raise_hypercall(CPUState *cs, PandaPlace place, uint64_t pc,
                           uintptr_t ra);

/*
 * An instruction is about to be translated: if it is the hypercall, emit a call
 * in front of it.
 */
void panda_hypercall_insn_start(CPUState *cs, const DisasContextBase *db);

/* ---- csrc/arch/<family>_hypercall.c ---- */

/* The hypercall has four bytes; fetched in two steps, see hypercall.c. */
typedef struct PandaCode {
    uint8_t byte[4];
} PandaCode;

static inline uint32_t panda_code_le(const PandaCode *code)
{
    return ldl_le_p(code->byte);
}

static inline uint32_t panda_code_be(const PandaCode *code)
{
    return ldl_be_p(code->byte);
}

/*
 * May these be the first two bytes of a hypercall? The others are 0 and may be
 * on a page that is not mapped.
 */
bool panda_arch_hypercall_begins(const DisasContextBase *db,
                                 const PandaCode *code);

/* Are these four bytes a hypercall? */
bool panda_arch_is_hypercall(const DisasContextBase *db,
                             const PandaCode *code);

/*
 * Where the CPU goes on after the hypercall at pc. words: what the translator
 * has noted of the instruction. False: as things are, it is not a hypercall.
 */
bool panda_arch_hypercall_next(CPUState *cs, uint64_t pc,
                               const uint64_t *words, uint64_t *next);

#endif
