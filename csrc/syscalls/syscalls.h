/*
 * System calls of Linux guests: what the files of this directory share, and
 * what the architectures tell them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_SYSCALLS_SYSCALLS_H
#define PANDA_SYSCALLS_SYSCALLS_H

#include "core/internal.h"
#include "core/block_events.h"

/* Words that hold arguments; one more than any call has, for syscall(). */
#define PANDA_SYSCALL_SLOTS 8
#define PANDA_SYSCALL_ARGS 7

/* ---- tables (table.c) ---- */

/* A calling convention with numbers of its own. */
typedef struct PandaSyscallAbi {
    const char *name;
    /* Bytes in a long. */
    uint8_t word;
    /* An argument of 64 bits takes two registers; if so, of an even number? */
    bool pairs, even_pairs;
    /* Numbers are base to base + count - 1, and a few beyond. */
    uint32_t base, count;
    struct PandaSyscallEntry *entries;
    struct PandaSyscallEntry *beyond;
    uint32_t n_beyond;
} PandaSyscallAbi;

typedef enum PandaSyscallTrait {
    PANDA_SYSCALL_PLAIN,
    /* Returns in the child too. */
    PANDA_SYSCALL_FORKS,
    PANDA_SYSCALL_EXECS,
    PANDA_SYSCALL_EXITS,
} PandaSyscallTrait;

/* A call of an ABI; name is NULL where there is none. */
typedef struct PandaSyscallEntry {
    const char *name;
    uint32_t number;
    /* Index into panda_syscall_names. */
    uint16_t name_id;
    uint8_t abi;
    uint8_t nargs;
    bool noreturn;
    uint8_t trait;
    /* Who wants it: bits of PandaSyscallWant. */
    uint8_t want;
    /* Letters of tools/gen_syscalls.py. */
    char kind[PANDA_SYSCALL_ARGS];
    const char *type[PANDA_SYSCALL_ARGS];
    const char *arg[PANDA_SYSCALL_ARGS];
} PandaSyscallEntry;

typedef enum PandaSyscallWant {
    PANDA_WANT_ENTER = 1,
    PANDA_WANT_RETURN = 2,
} PandaSyscallWant;

/* The ABIs of this architecture; the first is its own. */
extern PandaSyscallAbi panda_syscall_abis[];
extern const unsigned panda_syscall_n_abis;

/* A name some ABI of this architecture has: as the tables and as C has it. */
typedef struct PandaSyscallName {
    const char *name;
    /* "sys_open", "ARM_cacheflush" */
    char *full;
} PandaSyscallName;

extern PandaSyscallName *panda_syscall_names;
extern unsigned panda_syscall_n_names;

/* Read the tables; once is enough. */
void panda_syscall_tables(void);

/* The call with a number; NULL if it is not known. After the tables. */
PandaSyscallEntry *panda_syscall_entry(unsigned abi, uint32_t number);

/*
 * The arguments out of the words that hold them: of int ones the sign is
 * extended. Returns how many there are.
 */
unsigned panda_syscall_arguments(const PandaSyscallEntry *entry,
                                 const uint64_t *slots, uint64_t *args);

/* ---- events (events.c) ---- */

typedef enum PandaSyscallPhase {
    PANDA_SYSCALL_ENTER = 0,
    PANDA_SYSCALL_RETURN = 1,
    /* In the child of a call that made one. */
    PANDA_SYSCALL_RETURN_IN_CHILD = 2,
} PandaSyscallPhase;

/* A call that was made, as it was made. */
typedef struct PandaSyscallCall {
    const PandaSyscallEntry *entry;
    uint32_t number;
    uint8_t abi;
    /* What the architecture noted of the instruction. */
    uint8_t how;
    uint64_t pc, return_pc, sp;
    /* As they are at the event. */
    uint64_t asid, task;
    /* What tells the thread from others: see panda_syscall_thread(). */
    uint64_t thread;
    /* The same of the one that made it. */
    uint64_t caller;
    uint64_t slots[PANDA_SYSCALL_SLOTS];
} PandaSyscallCall;

/* Streams, or callbacks, have come or gone. */
void panda_syscalls_recount(void);

/* All calls are wanted, all unknown ones: bits of PandaSyscallWant. */
extern uint8_t panda_syscalls_all, panda_syscalls_unknown;

/* Who gets the events besides streams. There is one: the plugin. */
typedef void PandaSyscallSink(const PandaSyscallCall *call,
                              PandaSyscallPhase phase, int64_t result,
                              const uint64_t *args, unsigned n);
void panda_syscall_set_sink(PandaSyscallSink *sink);

/*
 * What it wants: calls of a name, all calls, unknown ones; bits of
 * PandaSyscallWant. abi: of this ABI only; negative: of all.
 */
void panda_syscall_want(unsigned name_id, uint8_t want, int abi);
void panda_syscall_sink_wants(uint8_t all, uint8_t unknown, int abi);

/* What the call of the present event has returned, as things are now. */
int64_t panda_syscall_present_result(CPUState *cs);

/*
 * Deliver an event of a call; place, pc, ra: as of panda_event_enter(). True:
 * callbacks were called, and the caller is to panda_event_leave().
 */
bool panda_syscall_deliver(CPUState *cs, const PandaSyscallCall *call,
                           PandaSyscallPhase phase, int64_t result,
                           PandaPlace place, uint64_t pc, uintptr_t ra);

/* ---- detection (detect.c) ---- */

/* An instruction begins: if it makes a system call, call out before it. */
void panda_syscall_insn_start(CPUState *cs, const DisasContextBase *db,
                              const PandaBlock *block);
/* A block begins: if a system call may have returned to it, call out. */
void panda_syscall_block_start(const DisasContextBase *db,
                               const PandaBlock *block);
/* The execution loop was left. */
void panda_syscall_loop_left(CPUState *cs);
/* A snapshot was loaded: no call is pending. */
void panda_syscalls_loaded(void);

/* The CPU is about to return to a user program. */
extern unsigned panda_syscalls_execs;
void panda_syscall_user_next(CPUState *cs);

static inline void panda_syscall_before_user(CPUState *cs)
{
    if (unlikely(panda_syscalls_execs)) {
        panda_syscall_user_next(cs);
    }
}

/* ---- calls that have not returned (pending.c) ---- */

/* How many there are; and how many that wait for their child. */
extern unsigned panda_syscalls_pending, panda_syscalls_forks;

/*
 * Note a call. False: it was noted before, and is made again as a signal has
 * interrupted it.
 */
bool panda_syscall_push(const PandaSyscallCall *call);

/* It is not made after all. */
void panda_syscall_withdraw(const PandaSyscallCall *call);

/* A block at pc begins: has a call returned there? Fills call if so. */
bool panda_syscall_pop(CPUState *cs, uint64_t pc, PandaSyscallCall *call,
                       PandaSyscallPhase *phase, int64_t *result);

/* Has the execve() of the running thread replaced its memory? */
bool panda_syscall_exec_done(CPUState *cs);
/* The same, in user mode; fills call if so. */
bool panda_syscall_pop_exec(CPUState *cs, PandaSyscallCall *call);

/* The running thread's task, or what stands for it; 0: not known. */
uint64_t panda_syscall_task(CPUState *cs);

/*
 * What tells the running thread from others: its task. While that is not known,
 * its address space; and as the child of vfork() has its parent's, and only one
 * of them runs, one more than that for the child.
 */
uint64_t panda_syscall_thread(CPUState *cs, uint64_t task);

/* What the call has returned: an address is not negative, an error is. */
int64_t panda_syscall_result(CPUState *cs, const PandaSyscallCall *call);

void panda_syscalls_forget(void);

/* ---- csrc/arch/<family>_syscalls.c ---- */

/*
 * Does the instruction at db->pc_next make a system call? *next: to where it
 * returns to, from there. *how: what the architecture wants to know of it later.
 */
bool panda_arch_syscall(CPUState *cs, const DisasContextBase *db,
                        unsigned *next, unsigned *how);

/*
 * May a system call return to the block at host? n bytes before it are on the
 * same page.
 */
bool panda_arch_syscall_before(const DisasContextBase *db,
                               const uint8_t *host, unsigned n);

/*
 * Which call would the instruction make now? False: none, its condition does
 * not hold. *abi: index into panda_syscall_abis.
 */
bool panda_arch_syscall_number(CPUState *cs, unsigned how, unsigned *abi,
                               uint32_t *number);

/* The words of its arguments. */
void panda_arch_syscall_slots(CPUState *cs, unsigned abi, unsigned how,
                              uint64_t *slots);

/*
 * What tells the running thread from others by what the CPU knows; 0: nothing
 * but its address space.
 */
uint64_t panda_arch_syscall_thread(CPUState *cs);

/*
 * What a call has returned, with its sign extended: errors are negative, as
 * the kernel has them.
 */
int64_t panda_arch_syscall_result(CPUState *cs, unsigned abi, unsigned how);

#endif
