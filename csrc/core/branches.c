/*
 * Calls and returns: recognised when they are translated, known to have been
 * taken when the next block begins.
 *
 * What was called is kept in shadow stacks, one for each stack of the guest. A
 * stack is told from another by its address: there is no other sign of a
 * switch that all kernels and libraries have in common.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/branches.h"
#include "core/emit.h"
#include "core/stream.h"
#include "exec/exec-all.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"

/* A stack pointer so far from the last one is that of another stack. */
#define NEAR_KERNEL 4096
#define NEAR_USER 65536

#define MAX_STACKS 1024
#define MAX_DEPTH 16384

/* The call or return that ran, and whose target did not yet. */
static const PandaBranch *pending;

static PandaBranch *branches;
/* What is pending, beyond a flush. */
static PandaBranch kept;

/* ---- shadow stacks ---- */

typedef struct Frame {
    /* As it is where the callee begins. */
    uint64_t sp;
    /* Where the callee is to return to. */
    uint64_t next;
} Frame;

typedef struct CallStack {
    uint64_t asid;
    bool kernel;
    uint64_t last_sp;
    uint64_t used;
    GArray *frames;
} CallStack;

static GPtrArray *stacks;
static CallStack *current;
static uint64_t uses;

static void free_stack(void *opaque)
{
    CallStack *stack = opaque;

    g_array_unref(stack->frames);
    g_free(stack);
}

static uint64_t distance(const CallStack *stack, uint64_t sp)
{
    return sp > stack->last_sp ? sp - stack->last_sp : stack->last_sp - sp;
}

static bool is_of(const CallStack *stack, uint64_t asid, bool kernel,
                  uint64_t sp)
{
    return stack->kernel == kernel && stack->asid == asid
        && distance(stack, sp) < (kernel ? NEAR_KERNEL : NEAR_USER);
}

static CallStack *new_stack(uint64_t asid, bool kernel)
{
    CallStack *stack = g_new0(CallStack, 1);

    if (stacks->len == MAX_STACKS) {
        unsigned oldest = 0;

        for (unsigned i = 1; i < stacks->len; i++) {
            CallStack *a = g_ptr_array_index(stacks, i);
            CallStack *b = g_ptr_array_index(stacks, oldest);

            oldest = a->used < b->used ? i : oldest;
        }
        g_ptr_array_remove_index_fast(stacks, oldest);
    }
    stack->asid = asid;
    stack->kernel = kernel;
    stack->frames = g_array_new(false, false, sizeof(Frame));
    g_ptr_array_add(stacks, stack);
    return stack;
}

static CallStack *find_stack(uint64_t asid, bool kernel, uint64_t sp)
{
    CallStack *found = current;

    if (!found || !is_of(found, asid, kernel, sp)) {
        found = NULL;
        stacks = stacks ?: g_ptr_array_new_with_free_func(free_stack);
        for (unsigned i = 0; i < stacks->len; i++) {
            CallStack *stack = g_ptr_array_index(stacks, i);

            if (is_of(stack, asid, kernel, sp)
                && (!found || distance(stack, sp) < distance(found, sp))) {
                found = stack;
            }
        }
        current = found = found ?: new_stack(asid, kernel);
    }
    found->last_sp = sp;
    found->used = ++uses;
    return found;
}

static Frame *frame(const CallStack *stack, unsigned index)
{
    return &g_array_index(stack->frames, Frame, index);
}

/* What was left without a return, by longjmp() for one, has frames below. */
static void drop_below(CallStack *stack, uint64_t sp)
{
    unsigned n = stack->frames->len;

    while (n && frame(stack, n - 1)->sp < sp) {
        n--;
    }
    g_array_set_size(stack->frames, n);
}

static uint64_t enter(CallStack *stack, uint64_t sp, uint64_t next)
{
    Frame new = { .sp = sp, .next = next };

#ifdef TARGET_I386
    /* This call's return address is where one of the same sp had its own. */
    drop_below(stack, sp + 1);
#else
    drop_below(stack, sp);
#endif
    if (stack->frames->len == MAX_DEPTH) {
        g_array_remove_range(stack->frames, 0, MAX_DEPTH / 2);
    }
    g_array_append_val(stack->frames, new);
    return stack->frames->len;
}

/* The depth of what is left; 0 if its call was not seen. */
static uint64_t leave(CallStack *stack, uint64_t sp, uint64_t target)
{
    unsigned n = stack->frames->len;

    for (; n; n--) {
        const Frame *f = frame(stack, n - 1);

        if (f->sp > sp) {
            break;
        }
        if (f->next == target) {
            g_array_set_size(stack->frames, n - 1);
            return n;
        }
    }
    drop_below(stack, sp);
    return 0;
}

/* ---- events ---- */

static void led_to(CPUState *cs, uint64_t target)
{
    const PandaBranch *b = pending;
    uint64_t sp = panda_arch_get_sp(cs), depth;
    CallStack *stack;

    pending = NULL;
    if (b->conditional && target == b->next) {
        return;
    }
    /* All processes have the same kernel. */
    stack = find_stack(b->kernel ? 0 : panda_arch_get_asid(cs), b->kernel, sp);
    depth = b->returns ? leave(stack, sp, target) : enter(stack, sp, b->next);
    panda_stream_call(b->pc, b->kernel, target, sp, depth, b->returns);
}

void panda_branch_interrupted(CPUState *cs)
{
    if (pending) {
        uint64_t pc = panda_arch_get_pc(cs);

        if (pc >= pending->pc && pc < pending->next) {
            /* It has failed, or its delay slot has. */
            pending = NULL;
        } else {
            led_to(cs, pc);
        }
    }
}

void panda_branch_forget(void)
{
    pending = NULL;
}

void panda_branches_loaded(void)
{
    pending = NULL;
    current = NULL;
    if (stacks) {
        g_ptr_array_set_size(stacks, 0);
    }
}

static void branch_target(CPUArchState *env, uint64_t pc)
{
    if (pending) {
        led_to(env_cpu(env), pc);
    }
}

/* It looks at the stack pointer. */
static TCGHelperInfo branch_target_info = {
    .name = "panda_branch_target", .flags = TCG_CALL_NO_WG,
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i64, 2),
};

/* ---- at translation ---- */

static bool is_wanted(void)
{
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        if (l->points & BIT(PANDA_POINT_BRANCH)) {
            return true;
        }
    }
    return false;
}

void panda_branch_insn_start(CPUState *cs, const DisasContextBase *db,
                             const PandaBlock *block)
{
    PandaBranch found = { .pc = db->pc_next, .kernel = block->kernel };
    PandaBranch *branch;

    /* Device memory must be read once only: by the decoder. */
    if (!is_wanted() || tb_page_addr0(db->tb) == -1
        || !panda_arch_branch(cs, db, &found)) {
        return;
    }
    branch = g_memdup2(&found, sizeof(found));
    branch->link = branches;
    branches = branch;
    tcg_gen_st_ptr(tcg_constant_ptr((intptr_t)branch),
                   tcg_constant_ptr((intptr_t)&pending), 0);
}

void panda_branch_block_start(const PandaBlock *block)
{
    TCGLabel *skip;
    TCGv_ptr noted;

    if (!is_wanted()) {
        return;
    }
    skip = gen_new_label();
    noted = tcg_temp_new_ptr();
    tcg_gen_ld_ptr(noted, tcg_constant_ptr((intptr_t)&pending), 0);
    tcg_gen_brcondi_ptr(TCG_COND_EQ, noted, 0, skip);
    tcg_gen_call2(branch_target, &branch_target_info, NULL,
                  tcgv_ptr_temp(tcg_env),
                  tcgv_i64_temp(tcg_constant_i64(block->pub.pc)));
    gen_set_label(skip);
}

void panda_branches_flushed(void)
{
    if (pending) {
        kept = *pending;
        pending = &kept;
    }
    while (branches) {
        PandaBranch *next = branches->link;

        g_free(branches);
        branches = next;
    }
}
