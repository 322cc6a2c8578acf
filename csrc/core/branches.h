/*
 * Calls and returns, for the stream "call".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_BRANCHES_H
#define PANDA_CORE_BRANCHES_H

#include "core/internal.h"
#include "core/block_events.h"

/* A call or return that was translated. */
typedef struct PandaBranch {
    uint64_t pc;
    /* The instruction that follows it; behind a delay slot, if it has one. */
    uint64_t next;
    bool returns;
    /* If it leads to next it was not taken. */
    bool conditional;
    bool kernel;
    struct PandaBranch *link;
} PandaBranch;

/* ---- at translation ---- */

/* An instruction begins: if it is a call or return, note that it was met. */
void panda_branch_insn_start(CPUState *cs, const DisasContextBase *db,
                             const PandaBlock *block);
/* A block begins, which may be where a call or return has led to. */
void panda_branch_block_start(const PandaBlock *block);
void panda_branches_flushed(void);

/* ---- on the CPU thread ---- */

/* An exception or interrupt is delivered: where did the branch before lead? */
void panda_branch_interrupted(CPUState *cs);
/* The CPU goes on somewhere else. */
void panda_branch_forget(void);
/* And with other stacks. */
void panda_branches_loaded(void);

/* How stacks are told from each other; the numbers are the API's. */
typedef enum PandaStackKind {
    PANDA_STACK_ASID,
    PANDA_STACK_HEURISTIC,
    PANDA_STACK_THREADED,
} PandaStackKind;

/* What was on the stacks is forgotten. */
void panda_branches_set_kind(PandaStackKind kind);

/*
 * What has been called and did not return, the last one first: where it is to
 * return to, and where it begins. pc: the present instruction.
 */
unsigned panda_branches_frames(CPUState *cs, uint64_t pc, unsigned max,
                               uint64_t *next, uint64_t *func);

/*
 * If it is set, it is called in an event for each call, and each return of a
 * function whose call was seen. Code that was translated while it was not set
 * does not look at it.
 */
extern void (*panda_branch_taken)(CPUState *cs, bool returns, uint64_t func);

/* ---- csrc/arch/<family>_branches.c ---- */

/*
 * Is the instruction at db->pc_next a call or return? Sets next, returns and
 * conditional if so.
 */
bool panda_arch_branch(CPUState *cs, const DisasContextBase *db,
                       PandaBranch *branch);

/*
 * A byte of the instruction. No more may be asked for than it has: the next
 * page need not be there.
 */
static inline uint8_t panda_code_byte(CPUState *cs, const DisasContextBase *db,
                                      unsigned offset)
{
    /* It notes pages it has come to, as it will for QEMU's decoder. */
    return translator_ldub(cpu_env(cs), (DisasContextBase *)db,
                           db->pc_next + offset);
}

static inline uint16_t panda_code_u16_le(CPUState *cs,
                                         const DisasContextBase *db,
                                         unsigned offset)
{
    return panda_code_byte(cs, db, offset)
        | panda_code_byte(cs, db, offset + 1) << 8;
}

static inline uint32_t panda_code_u32_le(CPUState *cs,
                                         const DisasContextBase *db)
{
    return panda_code_u16_le(cs, db, 0)
        | (uint32_t)panda_code_u16_le(cs, db, 2) << 16;
}

#endif
