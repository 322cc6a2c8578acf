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
#include "introspect/os.h"
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
    /* The callee. */
    uint64_t func;
} Frame;

typedef struct CallStack {
    uint64_t asid;
    /* The thread it is of, by PANDA_STACK_THREADED. */
    uint64_t task;
    bool kernel;
    uint64_t last_sp;
    uint64_t used;
    GArray *frames;
} CallStack;

static PandaStackKind stack_kind = PANDA_STACK_HEURISTIC;

void (*panda_branch_taken)(CPUState *cs, bool returns, uint64_t func);

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

static bool is_of(const CallStack *stack, uint64_t asid, uint64_t task,
                  bool kernel, uint64_t sp)
{
    if (stack->kernel != kernel || stack->asid != asid
        || stack->task != task) {
        return false;
    }
    return task || stack_kind == PANDA_STACK_ASID
        || distance(stack, sp) < (kernel ? NEAR_KERNEL : NEAR_USER);
}

static CallStack *new_stack(uint64_t asid, uint64_t task, bool kernel)
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
    stack->task = task;
    stack->kernel = kernel;
    stack->frames = g_array_new(false, false, sizeof(Frame));
    g_ptr_array_add(stacks, stack);
    return stack;
}

/* The stack that is in use now, if it is known. */
static CallStack *look_up(CPUState *cs, bool kernel, uint64_t sp, bool make)
{
    uint64_t task = stack_kind == PANDA_STACK_THREADED
        ? panda_os_current_task(cs) : 0;
    /* All processes have the same kernel. */
    uint64_t asid = kernel && stack_kind != PANDA_STACK_ASID
        ? 0 : panda_arch_get_asid(cs);
    CallStack *found = current;

    if (!found || !is_of(found, asid, task, kernel, sp)) {
        found = NULL;
        stacks = stacks ?: g_ptr_array_new_with_free_func(free_stack);
        for (unsigned i = 0; i < stacks->len; i++) {
            CallStack *stack = g_ptr_array_index(stacks, i);

            if (is_of(stack, asid, task, kernel, sp)
                && (!found || distance(stack, sp) < distance(found, sp))) {
                found = stack;
            }
        }
        if (!found && make) {
            found = new_stack(asid, task, kernel);
        }
    }
    return found;
}

static CallStack *find_stack(CPUState *cs, bool kernel, uint64_t sp)
{
    CallStack *found = look_up(cs, kernel, sp, true);

    current = found;
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

static uint64_t enter(CallStack *stack, uint64_t sp, uint64_t next,
                      uint64_t func)
{
    Frame new = { .sp = sp, .next = next, .func = func };

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
static uint64_t leave(CallStack *stack, uint64_t sp, uint64_t target,
                      uint64_t *func)
{
    unsigned n = stack->frames->len;

    for (; n; n--) {
        const Frame *f = frame(stack, n - 1);

        if (f->sp > sp) {
            break;
        }
        if (f->next == target) {
            *func = f->func;
            g_array_set_size(stack->frames, n - 1);
            return n;
        }
    }
    drop_below(stack, sp);
    return 0;
}

/* ---- events ---- */

/* The function that was called or has returned; false: none is known. */
static bool led_to(CPUState *cs, uint64_t target, bool *returns,
                   uint64_t *func)
{
    const PandaBranch *b = pending;
    uint64_t sp = panda_arch_get_sp(cs), depth;
    CallStack *stack;

    pending = NULL;
    if (b->conditional && target == b->next) {
        return false;
    }
    stack = find_stack(cs, b->kernel, sp);
    *func = target;
    *returns = b->returns;
    depth = b->returns ? leave(stack, sp, target, func)
                       : enter(stack, sp, b->next, target);
    panda_stream_call(b->pc, b->kernel, target, sp, depth, b->returns);
    return depth;
}

void panda_branch_interrupted(CPUState *cs)
{
    if (pending) {
        uint64_t pc = panda_arch_get_pc(cs);

        if (pc >= pending->pc && pc < pending->next) {
            /* It has failed, or its delay slot has. */
            pending = NULL;
        } else {
            bool returns;
            uint64_t func;

            if (led_to(cs, pc, &returns, &func) && panda_branch_taken) {
                panda_event_enter(cs, PANDA_PLACE_HELPER, pc, 0);
                panda_branch_taken(cs, returns, func);
                panda_event_leave(cs);
            }
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

unsigned panda_branches_frames(CPUState *cs, uint64_t pc, unsigned max,
                               uint64_t *next, uint64_t *func)
{
    uint64_t sp = panda_arch_get_sp(cs);
    bool kernel = panda_arch_in_kernel(cs);
    const CallStack *stack = look_up(cs, kernel, sp, false);
    unsigned n = stack ? stack->frames->len : 0, found = 0;
    const PandaBranch *b = pending;

    /* The block that begins with this event is where it has led to. */
    if (b && ((b->conditional && pc == b->next)
              || (pc >= b->pc && pc < b->next))) {
        b = NULL;
    }
    if (b && !b->returns && found < max) {
        next[found] = b->next;
        func[found++] = pc;
    }
    while (n && found < max) {
        const Frame *f = frame(stack, --n);

        if (f->sp < sp || (b && b->returns && f->next == pc && !found)) {
            /* It was left. */
            continue;
        }
        next[found] = f->next;
        func[found++] = f->func;
    }
    return found;
}

void panda_branches_set_kind(PandaStackKind kind)
{
    stack_kind = kind;
    panda_branches_loaded();
}

static void branch_target(CPUArchState *env, uint64_t pc)
{
    bool returns;
    uint64_t func;

    if (pending) {
        led_to(env_cpu(env), pc, &returns, &func);
    }
}

/* The same, with an event. */
static void branch_event(CPUArchState *env, void *opaque)
{
    CPUState *cs = env_cpu(env);
    const PandaBlock *block = opaque;
    PandaVcpu *v = &panda_vcpu;
    uintptr_t ra = GETPC();
    bool returns;
    uint64_t func;

    if (pending && led_to(cs, block->pub.pc, &returns, &func)
        && panda_branch_taken) {
        v->tb = block->pub;
        panda_event_enter(cs, PANDA_PLACE_BLOCK_START, block->pub.pc, ra);
        panda_branch_taken(cs, returns, func);
        panda_event_leave(cs);
    }
}

/* Flags 0: registers are written to env before the call, read back after. */
static TCGHelperInfo branch_event_info = {
    .name = "panda_branch_event",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(ptr, 2),
};

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
    if (panda_branch_taken) {
        tcg_gen_call2(branch_event, &branch_event_info, NULL,
                      tcgv_ptr_temp(tcg_env),
                      tcgv_ptr_temp(tcg_constant_ptr((intptr_t)block)));
    } else {
        tcg_gen_call2(branch_target, &branch_target_info, NULL,
                      tcgv_ptr_temp(tcg_env),
                      tcgv_i64_temp(tcg_constant_i64(block->pub.pc)));
    }
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
