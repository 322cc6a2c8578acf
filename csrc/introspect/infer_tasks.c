/*
 * Tasks without type information: their list, names, numbers and parents.
 *
 * The first task's name is known. A list that leads from near it over
 * structures with a name at the same distance, and back, is that of the tasks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer.h"

#define FIRST_NAME "swapper"
#define SECOND_THREAD "kthreadd"
#define COMM 16
/* Of all lists together: hostile memory may have many long ones. */
#define MOST_STEPS 2000000u
#define FEWEST_TASKS 5
#define LARGEST_PID (1u << 22)
/* Words behind the pids in which the parent is. */
#define PARENT_REACH 8
/* real_parent, parent, children, sibling, group_leader. */
#define TO_LEADER 6

static unsigned steps;

/* A name, all of it printable; or with other bytes, which prctl() allows. */
static bool is_name(const char *comm, bool *printable)
{
    size_t len = strnlen(comm, COMM);

    *printable = true;
    for (size_t i = 0; i < len; i++) {
        *printable &= comm[i] >= 0x20 && comm[i] < 0x7f;
    }
    return len && len < COMM;
}

/*
 * Tasks of the list through `node`, at `distance` from the names; `first` is
 * where the first task's node is in RAM. 0: it is no such list. Their nodes are
 * stored as far as there is room.
 */
static unsigned follow(uint64_t first, int distance, uint64_t nodes[OS_ROWS])
{
    unsigned n = 0, odd = 0;
    uint64_t at, next;

    /* Linked both ways from the start, it cannot but come back. */
    if (!os_physical_word(first, &at) || !os_is_pointer(at)
        || !os_read_word(at + os_memory.word, &next)
        || os_kernel_to_physical(next) != first) {
        return 0;
    }
    for (; steps < MOST_STEPS; steps++) {
        char comm[COMM];
        bool printable;
        uint64_t back;

        if (at % os_memory.word
            || !os_read(at - distance, comm, COMM)
            || !is_name(comm, &printable) || !os_read_word(at, &next)
            || !os_read_word(next + os_memory.word, &back) || back != at) {
            return 0;
        }
        odd += !printable;
        if (odd > 4 + n / 4) {
            return 0;
        }
        if (n < OS_ROWS) {
            nodes[n] = at;
        }
        if (++n > OS_MAX_TASKS) {
            return 0;
        }
        if (os_kernel_to_physical(at) == first) {
            nodes[MIN(n, OS_ROWS) - 1] = at;
            return odd <= n / 4 ? n : 0;
        }
        at = next;
    }
    return 0;
}

static void take(OsInference *in, const uint64_t nodes[OS_ROWS], unsigned n,
                 int distance, uint64_t first)
{
    /* The list is followed from the second task to the first one. */
    in->tasks = distance;
    in->n = 1;
    for (unsigned i = 0; i < MIN(n, OS_ROWS); i++) {
        if (os_kernel_to_physical(nodes[i]) == first) {
            in->comm[0] = nodes[i] - distance;
        } else if (in->n < OS_ROWS) {
            in->comm[in->n++] = nodes[i] - distance;
        }
    }
}

static bool find_list(OsInference *in)
{
    uint64_t nodes[OS_ROWS];
    unsigned best = FEWEST_TASKS - 1;

    steps = 0;
    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        const OsSegment *s = &os_memory.segment[i];
        const uint8_t *end = s->host + s->size;

        for (const uint8_t *hit = s->host;
             (hit = memmem(hit, end - hit, FIRST_NAME, strlen(FIRST_NAME)));
             hit++) {
            uint64_t pa = s->pa + (hit - s->host);
            const char *tail = (const char *)hit + strlen(FIRST_NAME);

            if (pa % 4 || end - hit < COMM
                || (strncmp(tail, "", 1) && strncmp(tail, "/0", 3))) {
                continue;
            }
            for (int at = -OS_BEFORE; at < OS_BEHIND; at += 4) {
                unsigned n;

                if ((pa + at) % os_memory.word || pa + at < s->pa) {
                    continue;
                }
                n = follow(pa + at, at, nodes);
                if (n > best) {
                    best = n;
                    take(in, nodes, n, at, pa + at);
                }
            }
        }
    }
    return in->n;
}

static void copy_rows(OsInference *in)
{
    in->window = g_malloc0(in->n * sizeof(*in->window));
    for (unsigned row = 0; row < in->n; row++) {
        for (int at = 0; at < OS_BEFORE + OS_BEHIND; at += 64) {
            os_read(in->comm[row] - OS_BEFORE + at, in->window[row] + at, 64);
        }
    }
}

/* Two equal columns: 0, 1, ..., no number twice; and kthreadd is the second. */
static bool is_pid(const OsInference *in, int at)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    bool named = false;

    for (unsigned row = 0; row < in->n; row++) {
        uint32_t pid = os_cell_u32(in, row, at);

        if (pid != os_cell_u32(in, row, at + 4) || pid >= LARGEST_PID
            || (row < 2 && pid != row)
            || !g_hash_table_add(seen, GUINT_TO_POINTER(pid + 1))) {
            return false;
        }
        named |= pid == 2 && !strcmp((const char *)in->window[row] + OS_BEFORE,
                                     SECOND_THREAD);
    }
    return named;
}

static bool find_pid(OsInference *in)
{
    for (int at = -OS_BEFORE; at < 0; at += 4) {
        if (is_pid(in, at)) {
            in->pid = at;
            return true;
        }
    }
    return false;
}

/*
 * The first tasks have the first one as their parent, which tells where a
 * task_struct starts; all others have a task, and in the next column the same
 * unless they are traced.
 */
static bool is_parent(const OsInference *in, int at, GHashTable *tasks,
                      int64_t *start)
{
    uint64_t first = os_cell(in, 0, at);
    unsigned same = 0;

    *start = first - in->comm[0];
    if (!os_is_kernel(first) || *start > 0 || *start < -OS_BEFORE) {
        return false;
    }
    for (unsigned row = 0; row < in->n; row++) {
        uint64_t parent = os_cell(in, row, at) - *start;

        if ((row < 3 && parent != in->comm[0])
            || !g_hash_table_contains(tasks, &parent)) {
            return false;
        }
        same += os_cell(in, row, at)
            == os_cell(in, row, at + (int)os_memory.word);
    }
    return os_most(same, in->n);
}

static bool find_parent(OsInference *in)
{
    g_autoptr(GHashTable) tasks = g_hash_table_new(g_int64_hash,
                                                   g_int64_equal);
    int word = os_memory.word;
    int64_t start;

    for (unsigned row = 0; row < in->n; row++) {
        g_hash_table_add(tasks, &in->comm[row]);
    }
    for (int i = 0; i < PARENT_REACH; i++) {
        int at = ROUND_UP(in->pid + 8 + OS_BEFORE, word) - OS_BEFORE
            + i * word;

        if (is_parent(in, at, tasks, &start)) {
            in->parent = at;
            in->start = start;
            return true;
        }
    }
    return false;
}

static void find_leader(const OsInference *in)
{
    int at = in->parent + TO_LEADER * (int)os_memory.word;

    for (unsigned row = 0; row < in->n; row++) {
        if (os_cell(in, row, at) != in->comm[row] + in->start) {
            return;
        }
    }
    os_infer_task_field(in, OS_TASK_GROUP_LEADER, at,
                        "behind children and sibling; each process' first "
                        "thread points to itself");
}

static void sort_out(OsInference *in)
{
    for (unsigned row = 0; row < in->n; row++) {
        uint64_t parent = os_cell(in, row, in->parent) - in->start;
        unsigned of = 0;

        while (of < in->n && in->comm[of] != parent) {
            of++;
        }
        in->kernel_thread[row] = !row || os_cell_u32(in, row, in->pid) == 2
            || (of < in->n && os_cell_u32(in, of, in->pid) == 2);
    }
}

bool os_infer_tasks(OsInference *in)
{
    if (!find_list(in)) {
        return false;
    }
    copy_rows(in);
    if (!find_pid(in) || !find_parent(in)) {
        return false;
    }
    os_infer_task_field(in, OS_TASK_TASKS, in->tasks,
                        "a list from swapper over named structures and back");
    os_infer_task_field(in, OS_TASK_COMM, 0,
                        "names of all tasks; the first is swapper");
    os_infer_task_field(in, OS_TASK_PID, in->pid,
                        "0, 1, ..., no number twice; kthreadd is 2");
    os_infer_task_field(in, OS_TASK_TGID, in->pid + 4,
                        "equal to pid in each process' first thread");
    os_infer_task_field(in, OS_TASK_REAL_PARENT, in->parent,
                        "always a task, of the first three the first; the "
                        "next word (parent) agrees");
    find_leader(in);
    sort_out(in);
    return true;
}
