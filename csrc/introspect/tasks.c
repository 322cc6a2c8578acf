/*
 * The guest's processes and threads.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"

#define PF_KTHREAD 0x00200000
#define KTHREADD 2
/* How far the CPU's registers point into a task_struct at most. */
#define LARGEST_TASK 16384

uint64_t os_init_task;

/* ---- what is a task ---- */

/* Is there a list of which this is a part? */
static bool is_linked(uint64_t node)
{
    uint64_t next, back;

    return os_read_word(node, &next) && next != node && os_is_kernel(next)
        && os_read_word(next + os_memory.word, &back) && back == node;
}

static bool is_alone(uint64_t node)
{
    uint64_t next, previous;

    return os_read_word(node, &next) && next == node
        && os_read_word(node + os_memory.word, &previous) && previous == node;
}

bool os_is_task(uint64_t address)
{
    if (!os_is_kernel(address) || address % os_memory.word) {
        return false;
    }
    if (is_linked(address + os_offset(OS_TASK_TASKS))
        || (address == os_init_task
            && is_alone(address + os_offset(OS_TASK_TASKS)))) {
        return true;
    }
    return os_knows(OS_TASK_THREAD_NODE)
        && is_linked(address + os_offset(OS_TASK_THREAD_NODE));
}

/* A name of the first task, and nothing else of it may be set. */
bool os_is_init_task(uint64_t task)
{
    uint64_t mm, parent;
    uint32_t pid;
    char comm[PANDA_OS_COMM];

    return os_read(task + os_offset(OS_TASK_COMM), comm, sizeof(comm))
        && !strncmp(comm, "swapper", 7)
        && os_get_u32(task, OS_TASK_PID, &pid) && !pid
        && (!os_knows(OS_TASK_MM)
            || (os_get_word(task, OS_TASK_MM, &mm) && !mm))
        && os_get_word(task, OS_TASK_REAL_PARENT, &parent) && parent == task
        && os_is_task(task);
}

bool os_for_each_swapper(bool (*visit)(uint64_t task, void *opaque),
                         void *opaque)
{
    static const char name[] = "swapper";
    uint64_t task;

    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        const OsSegment *s = &os_memory.segment[i];
        const uint8_t *end = s->host + s->size;

        for (const uint8_t *hit = s->host;
             (hit = memmem(hit, end - hit, name, strlen(name))); hit++) {
            uint64_t pa = s->pa + (hit - s->host) - os_offset(OS_TASK_COMM);

            /* It is its own parent: that says its virtual address. */
            if (os_physical_word(pa + os_offset(OS_TASK_REAL_PARENT), &task)
                && os_is_kernel(task) && os_kernel_to_physical(task) == pa
                && !visit(task, opaque)) {
                return true;
            }
        }
    }
    return false;
}

static bool is_not_it(uint64_t task, void *opaque)
{
    os_init_task = task;
    if (os_is_init_task(task)) {
        return false;
    }
    os_init_task = 0;
    return true;
}

bool os_find_init_task(void)
{
    uint64_t task;

    os_init_task = 0;
    return (os_symbol("init_task", &task) && !is_not_it(task, NULL))
        || os_for_each_swapper(is_not_it, NULL);
}

/* ---- lists ---- */

/*
 * Does the node behind another one point back to it? While a node is put in or
 * taken out, it points to the one in front of both for a moment.
 */
static bool points_back(uint64_t next, uint64_t at)
{
    uint64_t back, ahead;

    return os_read_word(next + os_memory.word, &back)
        && (back == at || (os_read_word(back, &ahead) && ahead == at));
}

bool os_for_each_node(uint64_t head, uint64_t offset,
                      bool (*visit)(uint64_t structure, void *opaque),
                      void *opaque)
{
    uint64_t at = head, next;

    for (unsigned n = 0; n < OS_MAX_TASKS; n++) {
        if (!os_read_word(at, &next) || !os_is_kernel(next)
            || !points_back(next, at)) {
            return false;
        }
        if (next == head || !visit(next - offset, opaque)) {
            return true;
        }
        at = next;
    }
    return false;
}

bool os_for_each_process(bool (*visit)(uint64_t task, void *opaque),
                         void *opaque)
{
    return !visit(os_init_task, opaque)
        || os_for_each_node(os_init_task + os_offset(OS_TASK_TASKS),
                            os_offset(OS_TASK_TASKS), visit, opaque);
}

bool os_for_each_thread(uint64_t task,
                        bool (*visit)(uint64_t task, void *opaque),
                        void *opaque)
{
    uint64_t signal;

    if (os_knows(OS_TASK_THREAD_NODE) && os_knows(OS_SIGNAL_THREAD_HEAD)
        && os_get_word(task, OS_TASK_SIGNAL, &signal)) {
        return os_for_each_node(signal + os_offset(OS_SIGNAL_THREAD_HEAD),
                             os_offset(OS_TASK_THREAD_NODE), visit, opaque);
    }
    visit(task, opaque);
    return true;
}

/* ---- facts ---- */

static void fill_cred(uint64_t task, PandaTask *out)
{
    uint64_t cred;

    if (os_get_word(task, OS_TASK_CRED, &cred)) {
        os_get_u32(cred, OS_CRED_UID, &out->uid);
        os_get_u32(cred, OS_CRED_GID, &out->gid);
        os_get_u32(cred, OS_CRED_EUID, &out->euid);
        os_get_u32(cred, OS_CRED_EGID, &out->egid);
    }
}

bool os_fill_task(uint64_t task, PandaTask *out)
{
    uint64_t parent, physical;
    uint32_t flags, value;

    *out = (PandaTask) { .task = task };
    if (!os_read(task + os_offset(OS_TASK_COMM), out->name, 16)
        || !os_get_u32(task, OS_TASK_PID, &value)) {
        return false;
    }
    out->tid = value;
    out->name[15] = 0;
    os_get_u32(task, OS_TASK_TGID, &value);
    out->pid = value;
    if (os_get_word(task, OS_TASK_REAL_PARENT, &parent)
        && os_get_u32(parent, OS_TASK_TGID, &value)) {
        out->ppid = value;
    }
    os_get_word(task, OS_TASK_MM, &out->mm);
    if (out->mm && os_get_word(out->mm, OS_MM_PGD, &out->pgd)) {
        physical = os_kernel_to_physical(out->pgd);
        if (physical != OS_NOWHERE) {
            out->asid = panda_arch_os_asid(panda_vcpu.cs, physical);
        }
    }
    out->kernel_thread = os_get_u32(task, OS_TASK_FLAGS, &flags)
        ? !!(flags & PF_KTHREAD)
        : !out->pid || out->pid == KTHREADD || out->ppid == KTHREADD;
    os_get_u64(task, OS_TASK_START_TIME, &out->create_time);
    os_get_u32(task, OS_TASK_STATE, &out->state);
    fill_cred(task, out);
    return true;
}

/* ---- whose stack ---- */

static GHashTable *stacks;

void os_forget_stacks(void)
{
    if (stacks) {
        g_hash_table_remove_all(stacks);
    }
}

static bool has_stack(uint64_t task, uint64_t stack)
{
    uint64_t at;

    return os_get_word(task, OS_TASK_STACK, &at) && at == stack
        && os_is_task(task);
}

static bool note_stack(uint64_t task, void *opaque)
{
    uint64_t at;

    if (os_get_word(task, OS_TASK_STACK, &at)) {
        uint64_t *key = g_memdup2(&at, sizeof(at));

        g_hash_table_insert(stacks, key, (void *)(uintptr_t)task);
    }
    return true;
}

static bool note_stacks(uint64_t task, void *opaque)
{
    note_stack(task, opaque);
    os_for_each_thread(task, note_stack, opaque);
    return true;
}

uint64_t os_task_of_stack(uint64_t address)
{
    uint64_t stack = ROUND_DOWN(address, panda_arch_os_stack_size());
    uint64_t task;

    if (!stacks) {
        stacks = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                       NULL);
    }
    task = (uintptr_t)g_hash_table_lookup(stacks, &stack);
    if (task && has_stack(task, stack)) {
        return task;
    }
    g_hash_table_remove_all(stacks);
    os_for_each_process(note_stacks, NULL);
    task = (uintptr_t)g_hash_table_lookup(stacks, &stack);
    return task && has_stack(task, stack) ? task : 0;
}

/* ---- whose task_struct ---- */

/* How far behind a task's start the CPU's register points; 0: unknown. */
static uint64_t distance;

typedef struct Nearest {
    uint64_t address;
    uint64_t distance;
} Nearest;

static bool see_distance(uint64_t task, void *opaque)
{
    Nearest *nearest = opaque;

    if (task <= nearest->address
        && nearest->address - task < nearest->distance) {
        nearest->distance = nearest->address - task;
    }
    return true;
}

static bool see_distances(uint64_t task, void *opaque)
{
    see_distance(task, opaque);
    os_for_each_thread(task, see_distance, opaque);
    return true;
}

uint64_t os_task_around(uint64_t address)
{
    Nearest nearest = { address, LARGEST_TASK };

    if (distance && os_is_task(address - distance)) {
        return address - distance;
    }
    os_for_each_process(see_distances, &nearest);
    if (nearest.distance == LARGEST_TASK) {
        return 0;
    }
    distance = nearest.distance;
    return address - distance;
}
