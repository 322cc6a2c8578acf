/*
 * System calls that have not returned yet.
 *
 * A return is known by the address it comes back to, the stack pointer and the
 * thread. So calls of signal handlers, other threads and other processes in
 * between make no difference, and what never returns does no harm: there may
 * be so many, then the oldest is forgotten.
 *
 * All on the CPU thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "syscalls/syscalls.h"
#include "introspect/os.h"
#include "qemu/queue.h"

#define MAX_PENDING 4096
/* Calls whose child has not run yet. */
#define MAX_FORKS 64
#define BUCKETS 1024

typedef struct Pending {
    PandaSyscallCall call;
    /* The calling process; 0: not known. */
    uint64_t mm;
    /* It makes a child: the stack pointer that one begins with. */
    uint64_t child_sp;
    bool child_came, parent_came;
    struct Pending *next;
    QTAILQ_ENTRY(Pending) age;
    QTAILQ_ENTRY(Pending) fork;
} Pending;

unsigned panda_syscalls_pending, panda_syscalls_forks;
unsigned panda_syscalls_execs;

static Pending *buckets[BUCKETS];
static QTAILQ_HEAD(, Pending) by_age = QTAILQ_HEAD_INITIALIZER(by_age);
/* Those that wait for their child; not all of them are in a bucket. */
static QTAILQ_HEAD(, Pending) forks = QTAILQ_HEAD_INITIALIZER(forks);

static Pending **bucket(uint64_t return_pc, uint64_t sp)
{
    return &buckets[((return_pc >> 1) ^ (sp >> 3) ^ (sp >> 13)) % BUCKETS];
}

/* It has returned, or never will. */
static void unlink_call(Pending *p)
{
    Pending **at = bucket(p->call.return_pc, p->call.sp);

    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    QTAILQ_REMOVE(&by_age, p, age);
    panda_syscalls_pending--;
    if (p->call.entry && p->call.entry->trait == PANDA_SYSCALL_EXECS) {
        panda_syscalls_execs--;
    }
    p->parent_came = true;
}

static void unlink_fork(Pending *p)
{
    QTAILQ_REMOVE(&forks, p, fork);
    panda_syscalls_forks--;
    p->child_came = true;
}

static bool is_fork(const PandaSyscallCall *call)
{
    return call->entry && call->entry->trait == PANDA_SYSCALL_FORKS;
}

static void drop(Pending *p)
{
    if (!p->parent_came) {
        unlink_call(p);
    }
    if (is_fork(&p->call) && !p->child_came) {
        unlink_fork(p);
    }
    g_free(p);
}

int64_t panda_syscall_result(CPUState *cs, const PandaSyscallCall *call)
{
    int64_t result = panda_arch_syscall_result(cs, call->abi, call->how);

    return panda_syscall_abis[call->abi].word == 4 && result < -4095
        ? (uint32_t)result : result;
}

/* By either of its two returns; it goes with the second. */
static void came(Pending *p)
{
    if (!is_fork(&p->call) || (p->parent_came && p->child_came)) {
        drop(p);
    }
}

/* The running thread's? */
static bool is_mine(const Pending *p, uint64_t task, uint64_t asid)
{
    return task && p->call.task ? p->call.task == task
                                : p->call.asid == asid;
}

static Pending *find(uint64_t return_pc, uint64_t sp, uint64_t task,
                     uint64_t asid)
{
    Pending *p = *bucket(return_pc, sp);

    while (p && !(p->call.return_pc == return_pc && p->call.sp == sp
                  && is_mine(p, task, asid))) {
        p = p->next;
    }
    return p;
}

/* Where the child's stack pointer will be. */
static uint64_t sp_of_child(const PandaSyscallCall *call)
{
    const char *name = call->entry->name;
    uint64_t words[2];
    uint8_t buf[16];
    uint64_t sp = 0;

    if (!strcmp(name, "clone")) {
        sp = call->slots[1];
    } else if (!strcmp(name, "clone3")
               && panda_virtual_memory_read(&panda_vcpu.pub,
                                            call->slots[0] + 40, buf, 16)
                  == PANDA_OK) {
        for (unsigned i = 0; i < 2; i++) {
            words[i] = TARGET_BIG_ENDIAN ? ldq_be_p(buf + 8 * i)
                                         : ldq_le_p(buf + 8 * i);
        }
        sp = words[0] + words[1];
    }
    return sp ?: call->sp;
}

/*
 * All that threads of an address space, or one thread, were waiting for. Not
 * what a parent waits for: the child of vfork() has its address space.
 */
static void drop_all_of(const PandaSyscallCall *call, bool group)
{
    Pending *p, *next;

    QTAILQ_FOREACH_SAFE(p, &by_age, age, next) {
        if (group ? p->call.asid == call->asid && !is_fork(&p->call)
                  : call->task && p->call.task == call->task) {
            drop(p);
        }
    }
}

bool panda_syscall_push(const PandaSyscallCall *call)
{
    const PandaSyscallEntry *entry = call->entry;
    Pending *p;

    if (entry && entry->trait == PANDA_SYSCALL_EXITS) {
        drop_all_of(call, entry->name[4]);
        return true;
    }
    if (entry && entry->noreturn) {
        return true;
    }
    p = find(call->return_pc, call->sp, call->task, call->asid);
    if (p) {
        if (p->call.pc == call->pc
            && ((entry && !strcmp(entry->name, "restart_syscall"))
                || (p->call.number == call->number
                    && !memcmp(p->call.slots, call->slots,
                               sizeof(call->slots))))) {
            return false;
        }
        drop(p);
    }
    p = g_new0(Pending, 1);
    p->call = *call;
    p->next = *bucket(call->return_pc, call->sp);
    *bucket(call->return_pc, call->sp) = p;
    QTAILQ_INSERT_TAIL(&by_age, p, age);
    panda_syscalls_pending++;
    if (is_fork(call)) {
        p->child_sp = sp_of_child(call);
        QTAILQ_INSERT_TAIL(&forks, p, fork);
        if (++panda_syscalls_forks > MAX_FORKS) {
            Pending *oldest = QTAILQ_FIRST(&forks);

            unlink_fork(oldest);
            came(oldest);
        }
    } else if (entry && entry->trait == PANDA_SYSCALL_EXECS) {
        PandaOsThread thread;

        panda_syscalls_execs++;
        if (call->task && panda_os_current_thread(panda_vcpu.cs, &thread)) {
            p->mm = thread.mm;
        }
    }
    if (panda_syscalls_pending > MAX_PENDING) {
        drop(QTAILQ_FIRST(&by_age));
    }
    return true;
}

void panda_syscall_withdraw(const PandaSyscallCall *call)
{
    Pending *p = find(call->return_pc, call->sp, call->task, call->asid);

    if (p) {
        drop(p);
    }
}

/* The call that has made the running thread. */
static Pending *find_parent(uint64_t pc, uint64_t sp, uint64_t task)
{
    Pending *p;

    QTAILQ_FOREACH(p, &forks, fork) {
        if (p->call.return_pc == pc && p->child_sp == sp
            && !(task && p->call.task == task)) {
            return p;
        }
    }
    return NULL;
}

bool panda_syscall_pop(CPUState *cs, uint64_t pc, PandaSyscallCall *call,
                       PandaSyscallPhase *phase, int64_t *result)
{
    uint64_t sp = panda_arch_get_sp(cs), asid, task;
    Pending *p, *parent;

    if (!*bucket(pc, sp) && QTAILQ_EMPTY(&forks)) {
        return false;
    }
    asid = panda_arch_get_asid(cs);
    task = panda_os_current_task(cs);
    p = find(pc, sp, task, asid);
    /* The child of vfork() has all of its parent's but the result. */
    if (p && !(is_fork(&p->call) && !p->child_came && !task
               && !panda_syscall_result(cs, &p->call))) {
        *call = p->call;
        *result = panda_syscall_result(cs, &p->call);
        *phase = PANDA_SYSCALL_RETURN;
        unlink_call(p);
        if (is_fork(call) && *result < 0 && !p->child_came) {
            unlink_fork(p);
        }
        came(p);
        return true;
    }
    parent = find_parent(pc, sp, task);
    if (parent && !panda_syscall_result(cs, &parent->call)) {
        *call = parent->call;
        call->task = task;
        call->asid = asid;
        *result = 0;
        *phase = PANDA_SYSCALL_RETURN_IN_CHILD;
        unlink_fork(parent);
        came(parent);
        return true;
    }
    return false;
}

/*
 * What no kernel tells us: does the stack begin with the arguments of a new
 * program? Their number, as many addresses above, and NULL.
 */
static bool stack_is_new(CPUState *cs, unsigned word)
{
    uint64_t sp = panda_arch_get_sp(cs), n;
    uint8_t buf[8];
    uint64_t first, last;

    if (panda_virtual_memory_read(&panda_vcpu.pub, sp, buf, word)
        != PANDA_OK) {
        return false;
    }
#define VALUE (word == 4 ? (uint32_t)ldl_p(buf) : (uint64_t)ldq_p(buf))
    n = VALUE;
    if (n > 65536
        || panda_virtual_memory_read(&panda_vcpu.pub, sp + word, buf, word)
           != PANDA_OK) {
        return false;
    }
    first = VALUE;
    if (panda_virtual_memory_read(&panda_vcpu.pub, sp + (n + 1) * word, buf,
                                  word) != PANDA_OK) {
        return false;
    }
    last = VALUE;
#undef VALUE
    return !last && (!n || first > sp);
}

/* The execve() of the running thread that has replaced its memory. */
static Pending *find_exec(CPUState *cs, bool in_user)
{
    uint64_t task = panda_os_current_task(cs), asid = panda_arch_get_asid(cs);
    PandaOsThread thread = { 0 };
    Pending *p;

    QTAILQ_FOREACH(p, &by_age, age) {
        if (!p->call.entry || p->call.entry->trait != PANDA_SYSCALL_EXECS) {
            continue;
        }
        if (task && p->call.task) {
            if (p->call.task != task) {
                continue;
            }
            if (p->mm && panda_os_current_thread(cs, &thread)
                && thread.mm != p->mm) {
                return p;
            }
            if (!p->mm && asid != p->call.asid) {
                return p;
            }
        } else if (asid != p->call.asid
                   && (!in_user
                       || stack_is_new(cs,
                                       panda_syscall_abis[p->call.abi].word)
                       )) {
            return p;
        }
    }
    return NULL;
}

bool panda_syscall_exec_done(CPUState *cs)
{
    return find_exec(cs, false) != NULL;
}

bool panda_syscall_pop_exec(CPUState *cs, PandaSyscallCall *call)
{
    Pending *p = find_exec(cs, true);

    if (!p) {
        return false;
    }
    *call = p->call;
    call->asid = panda_arch_get_asid(cs);
    call->task = panda_os_current_task(cs);
    drop(p);
    return true;
}

void panda_syscalls_forget(void)
{
    while (!QTAILQ_EMPTY(&by_age)) {
        drop(QTAILQ_FIRST(&by_age));
    }
    while (!QTAILQ_EMPTY(&forks)) {
        drop(QTAILQ_FIRST(&forks));
    }
}
