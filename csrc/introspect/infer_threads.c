/*
 * Threads without type information: kernel stacks, flags, credentials, thread
 * groups, the time a task began.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer.h"

#define STACK_END_MAGIC 0x57ac6e9du
/* Where it is: at the stack's end, or behind struct thread_info there (arm). */
#define MAGIC_REACH 1024
#define STACK_REACH 2048
#define PF_KTHREAD 0x00200000u

/* ---- stack, and the state and flags around it ---- */

static bool has_magic(uint64_t stack)
{
    uint8_t bytes[MAGIC_REACH];

    if (!os_read(stack, bytes, sizeof(bytes))) {
        return false;
    }
    for (unsigned i = 0; i < sizeof(bytes); i += 4) {
        if (os_u32_at(bytes + i) == STACK_END_MAGIC) {
            return true;
        }
    }
    return false;
}

static bool is_stack(const OsInference *in, int at)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(
        g_int64_hash, g_int64_equal, g_free, NULL);
    unsigned magic = 0;

    for (unsigned row = 0; row < in->n; row++) {
        uint64_t stack = os_cell(in, row, at);

        if (!os_is_kernel(stack) || stack % panda_arch_os_stack_size()
            || !g_hash_table_add(seen, g_memdup2(&stack, sizeof(stack)))) {
            return false;
        }
        magic += has_magic(stack);
    }
    return os_most(magic, in->n);
}

/* Small numbers; the first task runs or may, most others sleep. */
static bool is_state(const OsInference *in, int at)
{
    unsigned asleep = 0;

    for (unsigned row = 0; row < in->n; row++) {
        uint32_t state = os_cell_u32(in, row, at);

        if (state >= 0x10000 || (!row && state)) {
            return false;
        }
        asleep += state != 0;
    }
    return asleep * 2 > in->n;
}

/* What is a thread of the kernel by its parent is one by its flags. */
static bool is_flags(const OsInference *in, int at)
{
    unsigned good = 0;

    for (unsigned row = 0; row < in->n; row++) {
        good += !!(os_cell_u32(in, row, at) & PF_KTHREAD)
            == in->kernel_thread[row];
    }
    return os_most(good, in->n);
}

static void find_stack(const OsInference *in)
{
    int at = in->start;

    while (at < in->start + STACK_REACH && !is_stack(in, at)) {
        at += WORD;
    }
    if (at >= in->start + STACK_REACH) {
        return;
    }
    os_infer_task_field(in, OS_TASK_STACK, at,
                        "aligned as stacks are, of each task another; the end "
                        "is marked (STACK_END_MAGIC)");
    for (int by = 4; by <= 8; by += 4) {
        if (at - by >= in->start && (at - by) % WORD == at % WORD
            && is_state(in, at - by)) {
            os_infer_task_field(in, OS_TASK_STATE, at - by,
                                "in front of stack; 0 of the first task, set "
                                "of most others");
            break;
        }
    }
    if (is_flags(in, at + WORD + 4)) {
        os_infer_task_field(in, OS_TASK_FLAGS, at + WORD + 4,
                            "behind stack and usage; PF_KTHREAD is set of "
                            "kthreadd and its children only");
    }
}

/* ---- credentials ---- */

/*
 * Of the first task: eight ids that are 0, securebits, no inheritable
 * capabilities, and three equal sets of all capabilities.
 */
static bool is_first_uid(uint64_t cred, int uid)
{
    uint8_t b[96];

    if (!os_read(cred + uid, b, sizeof(b))) {
        return false;
    }
    for (int caps = 44; caps <= 48; caps += 4) {
        static const uint8_t zero[48];

        if (!memcmp(b, zero, caps)
            && os_u32_at(b + caps) + os_u32_at(b + caps + 4)
            && !memcmp(b + caps, b + caps + 8, 8)
            && !memcmp(b + caps, b + caps + 16, 8)) {
            return true;
        }
    }
    return false;
}

/* Of others: real and effective ids are mostly the same, and small. */
static bool is_uid(const OsInference *in, int at, int uid)
{
    unsigned good = 0;

    for (unsigned row = 0; row < in->n; row++) {
        uint32_t real, effective;

        good += os_read_u32(os_cell(in, row, at) + uid, &real)
            && os_read_u32(os_cell(in, row, at) + uid + 16, &effective)
            && real == effective;
    }
    return os_most(good, in->n);
}

static bool is_cred(const OsInference *in, int at)
{
    unsigned same = 0;

    for (unsigned row = 0; row < in->n; row++) {
        uint64_t cred = os_cell(in, row, at);

        if (!os_is_pointer(cred)) {
            return false;
        }
        same += cred == os_cell(in, row, at - WORD);
    }
    return os_most(same, in->n);
}

static void find_cred(const OsInference *in)
{
    static const char ids[] = "8 ids in a row, all 0 of the first task, which "
        "has all capabilities";

    for (int at = -WORD; at > -8 * WORD; at -= WORD) {
        if (!is_cred(in, at)) {
            continue;
        }
        for (int uid = WORD; uid >= 4; uid -= 4) {
            if (is_first_uid(os_cell(in, 0, at), uid)
                && is_uid(in, at, uid)) {
                os_infer_task_field(in, OS_TASK_CRED, at,
                                    "equal to the word before (real_cred), in "
                                    "front of comm; leads to ids");
                os_layout_set(OS_CRED_UID, uid, OS_INFERRED, ids);
                os_layout_set(OS_CRED_GID, uid + 4, OS_INFERRED, ids);
                os_layout_set(OS_CRED_EUID, uid + 16, OS_INFERRED, ids);
                os_layout_set(OS_CRED_EGID, uid + 20, OS_INFERRED, ids);
                return;
            }
        }
    }
}

/* ---- thread groups ---- */

/*
 * A process with one thread: the head of its list of threads, in its
 * signal_struct, points to a node in its task_struct, and that back. The node
 * is where it is in all of them.
 */
static bool is_signal(const OsInference *in, int at, int head, int *node)
{
    unsigned good = 0;

    *node = INT_MAX;
    for (unsigned row = 0; row < in->n; row++) {
        uint64_t signal = os_cell(in, row, at), next, back;
        int64_t distance;

        if (!os_is_kernel(signal) || !os_read_word(signal + head, &next)
            || !os_read_word(next, &back) || back != signal + head) {
            continue;
        }
        distance = next - in->comm[row];
        if (distance < in->start || distance > OS_BEHIND) {
            continue;
        }
        if (*node == INT_MAX) {
            *node = distance;
        }
        good += distance == *node;
    }
    /* Those with more threads point to another one's node. */
    return good * 2 > in->n;
}

static void find_signal(const OsInference *in, int files)
{
    int node;

    for (int at = files + WORD; at <= files + 5 * WORD; at += WORD) {
        for (int head = 2 * WORD; head <= 32; head += WORD) {
            if (!is_signal(in, at, head, &node)) {
                continue;
            }
            os_infer_task_field(in, OS_TASK_SIGNAL, at,
                                "behind files; has a list of threads");
            os_layout_set(OS_SIGNAL_THREAD_HEAD, head, OS_INFERRED,
                          "points into its only thread, and that back");
            os_infer_task_field(in, OS_TASK_THREAD_NODE, node,
                                "signal's list of threads leads there in all "
                                "processes with one thread");
            return;
        }
    }
}

/* ---- the time it began ---- */

/*
 * Rises along the list, and is nearly what is behind it: the same moment by a
 * clock that counts sleep too.
 */
static bool is_start_time(const OsInference *in, int at)
{
    unsigned rises = 0, twins = 0, pointers = 0;
    uint64_t last = 0;

    for (unsigned row = 0; row < in->n; row++) {
        uint64_t began = os_cell_u64(in, row, at);
        uint64_t twin = os_cell_u64(in, row, at + 8);

        /* On 32 bits two pairs of 0 and a pointer could look the same. */
        pointers += os_is_pointer(began) || os_is_pointer(twin);
        if (!row && (began || twin)) {
            return false;
        }
        rises += began >= last;
        twins += (began != 0) == (row != 0) && twin >= began
            && twin - began < 1000000000;
        last = began;
    }
    return os_most(rises, in->n) && os_most(twins, in->n)
        && pointers * 2 < in->n;
}

static void find_start_time(const OsInference *in)
{
    /* Behind the lists of threads, in all versions. */
    int from = os_knows(OS_TASK_THREAD_NODE)
        ? os_offset(OS_TASK_THREAD_NODE) + in->start : in->parent;

    for (int at = from; at < -16; at += 4) {
        if ((at - in->start) % 4 == 0 && is_start_time(in, at)) {
            os_infer_task_field(in, OS_TASK_START_TIME, at,
                                "rises along the list; the next number "
                                "(start_boottime) is the same moment");
            return;
        }
    }
}

/* ---- files, as far as the thread is concerned ---- */

/*
 * The first task's files_struct holds its own table: a pointer to the next
 * word, where the number of descriptors is, one per bit of a word, and then a
 * pointer to room in itself.
 */
static bool is_files(uint64_t files, int fdt)
{
    uint64_t table, fd;
    uint32_t max;

    return os_read_word(files + fdt, &table) && table == files + fdt + WORD
        && os_read_u32(table, &max) && max == 8 * os_memory.word
        && os_read_word(table + WORD, &fd) && fd > table
        && fd < table + 1024;
}

static unsigned count_pointers(const OsInference *in, int at)
{
    unsigned good = 0;

    for (unsigned row = 0; row < in->n; row++) {
        uint64_t value = os_cell(in, row, at);

        /* None: it is ending. */
        good += !value || os_is_pointer(value);
    }
    return good;
}

static bool find_files(const OsInference *in, int *files)
{
    for (int at = 16; at < OS_BEHIND - WORD; at += WORD) {
        uint64_t first = os_cell(in, 0, at);

        if (!os_is_pointer(first)) {
            continue;
        }
        for (int fdt = WORD; fdt <= 128; fdt += WORD) {
            if (!is_files(first, fdt)
                || count_pointers(in, at) != in->n
                || count_pointers(in, at - WORD) != in->n) {
                continue;
            }
            os_infer_task_field(in, OS_TASK_FILES, at,
                                "behind comm; the first task's holds a table "
                                "in itself, a pointer in all others");
            os_infer_task_field(in, OS_TASK_FS, at - WORD,
                                "in front of files; a pointer in all");
            os_layout_set(OS_FILES_FDT, fdt, OS_INFERRED,
                          "points to the table behind it");
            os_layout_set(OS_FDT_MAX, 0, OS_INFERRED,
                          "as many as a word has bits");
            os_layout_set(OS_FDT_FD, WORD, OS_INFERRED,
                          "points to room in the same files_struct");
            *files = at;
            return true;
        }
    }
    return false;
}

void os_infer_threads(OsInference *in)
{
    int files;

    find_stack(in);
    find_cred(in);
    if (find_files(in, &files)) {
        find_signal(in, files);
    }
    find_start_time(in);
}
