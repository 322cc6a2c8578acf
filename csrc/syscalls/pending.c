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
#include "core/compound.h"
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
    /* Its caller waits until the child has let go of its memory. */
    bool waits;
    bool child_came, parent_came;
    /* It is execve(): what its file and arguments are known by. */
    uint32_t file, arguments;
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

static void look_at_program(Pending *p);

static uint64_t guest_u64(const uint8_t *buf)
{
    return panda_arch_big_endian(panda_vcpu.cs) ? ldq_be_p(buf) : ldq_le_p(buf);
}

static uint32_t guest_u32(const uint8_t *buf)
{
    return panda_arch_big_endian(panda_vcpu.cs) ? ldl_be_p(buf) : ldl_le_p(buf);
}

/* How many wait for a child that runs. */
static unsigned n_waiting;

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
    n_waiting -= p->waits && p->child_came;
    if (p->call.entry && p->call.entry->trait == PANDA_SYSCALL_EXECS) {
        panda_syscalls_execs--;
    }
    p->parent_came = true;
}

static void unlink_fork(Pending *p)
{
    QTAILQ_REMOVE(&forks, p, fork);
    panda_syscalls_forks--;
    n_waiting += p->waits && !p->parent_came;
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

uint64_t panda_syscall_task(CPUState *cs)
{
    return panda_os_current_task(cs) ?: panda_arch_syscall_thread(cs);
}

uint64_t panda_syscall_thread(CPUState *cs, uint64_t task)
{
    uint64_t thread = task ?: panda_arch_get_asid(cs);
    Pending *p;

    if (!task && n_waiting) {
        uint64_t asid = thread;

        QTAILQ_FOREACH(p, &by_age, age) {
            thread += p->waits && p->child_came && p->call.asid == asid;
        }
    }
    return thread;
}

static Pending *find(uint64_t return_pc, uint64_t sp, uint64_t thread)
{
    Pending *p = *bucket(return_pc, sp);

    while (p && !(p->call.return_pc == return_pc && p->call.sp == sp
                  && p->call.thread == thread)) {
        p = p->next;
    }
    return p;
}

/* CLONE_VFORK */
#define WAITS 0x4000

/* Where the child's stack pointer will be, and whether its parent waits. */
static void look_at_child(Pending *p)
{
    const PandaSyscallCall *call = &p->call;
    const char *name = call->entry->name;
    uint64_t flags = 0, sp = 0;
    uint8_t buf[56];

    if (!strcmp(name, "clone")) {
        flags = call->slots[0];
        sp = call->slots[1];
    } else if (!strcmp(name, "vfork")) {
        flags = WAITS;
    } else if (!strcmp(name, "clone3")
               && panda_virtual_memory_read(&panda_vcpu.pub, call->slots[0],
                                            buf, sizeof(buf)) == PANDA_OK) {
        /* struct clone_args: flags, ..., stack, stack_size */
        flags = guest_u64(buf);
        sp = guest_u64(buf + 40) + guest_u64(buf + 48);
    }
    p->waits = flags & WAITS;
    p->child_sp = sp ?: call->sp;
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

/*
 * The same call once more: the kernel has it made again after a signal, maybe
 * by another instruction (of i386's vdso), with what else is in registers.
 */
static bool is_same_call(const PandaSyscallCall *a, const PandaSyscallCall *b)
{
    uint64_t of_a[PANDA_SYSCALL_SLOTS], of_b[PANDA_SYSCALL_SLOTS];
    unsigned n;

    if (a->number != b->number || a->entry != b->entry) {
        return false;
    }
    if (!a->entry) {
        return a->pc == b->pc && !memcmp(a->slots, b->slots, sizeof(a->slots));
    }
    n = panda_syscall_arguments(a->entry, a->slots, of_a);
    panda_syscall_arguments(b->entry, b->slots, of_b);
    return !memcmp(of_a, of_b, n * sizeof(*of_a));
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
    p = find(call->return_pc, call->sp, call->thread);
    /*
     * One that is being replaced may have left its address space to another,
     * which is about to be replaced too.
     */
    if (p && !(entry && entry->trait == PANDA_SYSCALL_EXECS && !call->task)) {
        if ((entry && !strcmp(entry->name, "restart_syscall"))
            || is_same_call(&p->call, call)) {
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
        look_at_child(p);
        QTAILQ_INSERT_TAIL(&forks, p, fork);
        if (++panda_syscalls_forks > MAX_FORKS) {
            Pending *oldest = QTAILQ_FIRST(&forks);

            unlink_fork(oldest);
            came(oldest);
        }
    } else if (entry && entry->trait == PANDA_SYSCALL_EXECS) {
        PandaOsThread thread;

        panda_syscalls_execs++;
        look_at_program(p);
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
    Pending *p = find(call->return_pc, call->sp, call->thread);

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
    uint64_t sp = panda_arch_get_sp(cs), task, thread;
    Pending *p, *parent;

    if (!*bucket(pc, sp) && QTAILQ_EMPTY(&forks)) {
        return false;
    }
    task = panda_syscall_task(cs);
    thread = panda_syscall_thread(cs, task);
    p = find(pc, sp, thread);
    if (!p && !task && n_waiting) {
        /* It may be the parent, whose wait is over. */
        Pending *waiting = find(pc, sp, thread - 1);

        if (waiting && waiting->waits && waiting->child_came
            && panda_syscall_result(cs, &waiting->call)) {
            p = waiting;
        }
    }
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
        *result = 0;
        *phase = PANDA_SYSCALL_RETURN_IN_CHILD;
        unlink_fork(parent);
        call->task = task;
        call->asid = panda_arch_get_asid(cs);
        call->thread = panda_syscall_thread(cs, task);
        came(parent);
        return true;
    }
    return false;
}

/* ---- execve() ---- */

/* Of the arguments of a program, to tell it from others. */
#define ARGUMENTS 8
#define ARGUMENT_SIZE 64
#define FIRST_SUM 5381

static bool read_word(uint64_t addr, unsigned word, uint64_t *value)
{
    uint8_t buf[8];

    if (panda_virtual_memory_read(&panda_vcpu.pub, addr, buf, word)
        != PANDA_OK) {
        return false;
    }
    *value = word == 8 ? guest_u64(buf) : guest_u32(buf);
    return true;
}

/* A number for a string, going on from another; 0: it is not there. */
static uint32_t sum_string(uint32_t sum, uint64_t at)
{
    uint8_t text[ARGUMENT_SIZE];
    int64_t length =
        panda_read_string(&panda_vcpu.pub, at, text, sizeof(text));

    if (length < 0) {
        return 0;
    }
    for (int64_t i = 0; i < length; i++) {
        sum = sum * 33 + text[i];
    }
    return sum * 33 ?: 1;
}

/* The same for the strings of an array that ends with NULL. */
static uint32_t sum_strings(uint64_t array, unsigned word)
{
    uint32_t sum = FIRST_SUM;
    uint64_t at;

    for (unsigned i = 0; i < ARGUMENTS && sum; i++) {
        if (!read_word(array + i * word, word, &at)) {
            return 0;
        }
        if (!at) {
            break;
        }
        sum = sum_string(sum, at);
    }
    return sum;
}

static void look_at_program(Pending *p)
{
    const PandaSyscallCall *call = &p->call;
    unsigned first = !strcmp(call->entry->name, "execveat");

    p->file = sum_string(FIRST_SUM, call->slots[first]);
    p->arguments = sum_strings(call->slots[first + 1],
                               panda_syscall_abis[call->abi].word);
}

/* A script is an argument of its interpreter, the first or second. */
static bool is_script_of(const Pending *p, uint64_t array, unsigned word)
{
    for (unsigned i = 1; i <= 2; i++) {
        uint64_t at;

        if (!read_word(array + i * word, word, &at) || !at) {
            return false;
        }
        if (sum_string(FIRST_SUM, at) == p->file) {
            return true;
        }
    }
    return false;
}

/*
 * What no kernel tells us: does the stack begin with the arguments of this new
 * program? Their number, as many addresses of the stack, and NULL.
 */
static bool is_program_of(CPUState *cs, const Pending *p, unsigned word)
{
    uint64_t sp = panda_arch_get_sp(cs), n, first, last;

    if (!read_word(sp, word, &n) || n > 65536
        || !read_word(sp + word, word, &first)
        || !read_word(sp + (n + 1) * word, word, &last)
        || last || (n && first < sp)) {
        return false;
    }
    return p->call.task || !p->arguments
        || p->arguments == sum_strings(sp + word, word)
        || is_script_of(p, sp + word, word);
}

static bool is_new_program(CPUState *cs, const Pending *p)
{
    return is_program_of(cs, p, sizeof(target_ulong))
        || is_program_of(cs, p, 4);
}

/* The execve() of the running thread that has replaced its memory. */
static Pending *find_exec(CPUState *cs, bool in_user)
{
    uint64_t task = panda_syscall_task(cs), asid = panda_arch_get_asid(cs);
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
            if (!p->mm && asid != p->call.asid
                && (!in_user || is_new_program(cs, p))) {
                return p;
            }
        } else if (asid != p->call.asid
                   && (!in_user || is_new_program(cs, p))) {
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
    call->task = panda_syscall_task(cs);
    drop(p);
    call->thread = panda_syscall_thread(cs, call->task);
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
