/*
 * Does a layout that somebody has given fit the guest's memory?
 *
 * Each field is held against what it must be in all processes. The first that
 * is not ends it, with the keys of the profile that may be wrong.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"

#define MAX_CHECKED 256u

typedef struct Check {
    char why[256];
    uint64_t task[MAX_CHECKED];
    unsigned n;
} Check;

static bool fails(Check *c, const char *keys, const char *why)
{
    snprintf(c->why, sizeof(c->why), "%s: %s", keys, why);
    return false;
}

static bool collect(uint64_t task, void *opaque)
{
    Check *c = opaque;

    c->task[c->n] = task;
    return ++c->n < MAX_CHECKED;
}

/* ---- the first task ---- */

typedef struct Reason {
    const char *keys, *why;
} Reason;

/* Why is what looks like the first task none? */
static bool explain_one(uint64_t task, void *opaque)
{
    Reason *r = opaque;
    uint64_t mm;
    uint32_t pid;

    if (!os_get_u32(task, OS_TASK_PID, &pid) || pid) {
        *r = (Reason) { "task.pid_offset",
                        "the number of the first process is not 0" };
    } else if (!os_get_word(task, OS_TASK_MM, &mm) || mm) {
        *r = (Reason) { "task.mm_offset",
                        "the first process has no memory of its own" };
    } else {
        *r = (Reason) { "task.tasks_offset",
                        "no list leads to the first process and back" };
    }
    return true;
}

static bool explain(Check *c)
{
    Reason r = {
        "task.comm_offset, task.real_parent_offset",
        "no process called swapper is its own parent",
    };

    os_for_each_swapper(explain_one, &r);
    return fails(c, r.keys, r.why);
}

/* ---- all tasks ---- */

static bool is_name(const char *name)
{
    size_t len = strnlen(name, PANDA_OS_COMM);

    if (!len || len == PANDA_OS_COMM) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if ((uint8_t)name[i] < 32 || name[i] == 127) {
            return false;
        }
    }
    return true;
}

static bool check_task(Check *c, uint64_t task, GHashTable *pids)
{
    char comm[PANDA_OS_COMM];
    uint64_t parent, mm, value;
    uint32_t pid, tgid;

    if (!os_read(task + os_offset(OS_TASK_COMM), comm, sizeof(comm))
        || !is_name(comm)) {
        return fails(c, "task.tasks_offset, task.comm_offset",
                     "not all processes have names");
    }
    if (!os_get_u32(task, OS_TASK_PID, &pid) || pid > 1 << 22
        || !g_hash_table_add(pids, GUINT_TO_POINTER(pid + 1))) {
        return fails(c, "task.pid_offset",
                     "processes do not have different numbers");
    }
    if (!os_get_u32(task, OS_TASK_TGID, &tgid) || tgid != pid) {
        return fails(c, "task.tgid_offset", "the first thread of a process "
                     "has another number than the process");
    }
    if (!os_get_word(task, OS_TASK_REAL_PARENT, &parent)
        || !os_is_task(parent) || (parent == task) != (task == os_init_task)) {
        return fails(c, "task.real_parent_offset",
                     "the parent of a process is none, or itself");
    }
    if (os_knows(OS_TASK_GROUP_LEADER)
        && (!os_get_word(task, OS_TASK_GROUP_LEADER, &value)
            || value != task)) {
        return fails(c, "task.group_leader_offset",
                     "the first thread of a process is not its leader");
    }
    if (!os_get_word(task, OS_TASK_MM, &mm) || (mm && !os_is_kernel(mm))) {
        return fails(c, "task.mm_offset",
                     "the memory map of a process is no pointer");
    }
    if (os_knows(OS_TASK_STACK)
        && (!os_get_word(task, OS_TASK_STACK, &value) || !os_is_kernel(value)
            || value % 4096)) {
        return fails(c, "task.stack_offset",
                     "the kernel stack of a process is no page");
    }
    return true;
}

/* What the kernel's own first process may do is known: everything. */
static bool check_cred(Check *c)
{
    static const struct {
        OsField field;
        const char *key;
    } ids[] = {
        { OS_CRED_UID, "cred.uid_offset" },
        { OS_CRED_GID, "cred.gid_offset" },
        { OS_CRED_EUID, "cred.euid_offset" },
        { OS_CRED_EGID, "cred.egid_offset" },
    };
    uint64_t cred;
    uint32_t id;

    if (!os_knows(OS_TASK_CRED)) {
        return true;
    }
    for (unsigned i = 0; i < c->n; i++) {
        if (!os_get_word(c->task[i], OS_TASK_CRED, &cred)
            || !os_is_kernel(cred) || !os_read_u32(cred, &id)) {
            return fails(c, "task.cred_offset",
                         "the rights of a process are no pointer");
        }
        for (unsigned k = 0; !i && k < ARRAY_SIZE(ids); k++) {
            if (os_knows(ids[k].field)
                && (!os_get_u32(cred, ids[k].field, &id) || id)) {
                return fails(c, ids[k].key,
                             "the first process is not the super-user's");
            }
        }
    }
    return true;
}

/* ---- what processes have mapped and open ---- */

typedef struct Maps {
    uint64_t mm, last;
    unsigned n, files;
    bool ordered, named;
} Maps;

/* As long as the number in front of it says: of the two, the one for lengths. */
static bool has_name(uint64_t dentry)
{
    uint64_t at = dentry + os_offset(OS_DENTRY_NAME), name;
    char text[256];
    uint32_t len;

    return os_read_word(at, &name) && os_read_string(name, text, sizeof(text))
        && os_read_u32(at - (os_memory.big_endian ? 8 : 4), &len)
        && len && len == strlen(text);
}

static bool see_mapping(uint64_t vma, void *opaque)
{
    Maps *m = opaque;
    uint64_t start, end, mm, file, dentry;

    if (!os_get_word(vma, OS_VMA_START, &start)
        || !os_get_word(vma, OS_VMA_END, &end) || start >= end
        || start < m->last
        || (os_get_word(vma, OS_VMA_MM, &mm) && mm != m->mm)) {
        m->ordered = false;
        return false;
    }
    m->last = end;
    m->n++;
    if (os_knows(OS_VMA_FILE) && os_knows(OS_FILE_DENTRY)
        && os_knows(OS_DENTRY_NAME)
        && os_get_word(vma, OS_VMA_FILE, &file) && file) {
        m->files++;
        m->named &= os_get_word(file, OS_FILE_DENTRY, &dentry)
            && has_name(dentry);
    }
    return true;
}

static bool check_mm(Check *c, uint64_t mm)
{
    Maps maps = { .mm = mm, .ordered = true, .named = true };
    uint64_t pgd = 0, arg, arg_end, env, brk, start_brk, stack;
    bool has_args = os_get_word(mm, OS_MM_ARG_START, &arg);
    uint64_t at = mm + os_offset(OS_MM_ARG_START);
    char byte;

    if (os_knows(OS_MM_PGD)
        && (!os_get_word(mm, OS_MM_PGD, &pgd) || !os_is_kernel(pgd)
            || os_kernel_to_physical(pgd) == OS_NOWHERE)) {
        return fails(c, "mm.pgd_offset", "the page tables of a process are "
                     "not in memory");
    }
    /* The environment is behind the arguments, in the structure too. */
    if (has_args && (!arg || os_is_kernel(arg)
                     || !os_read_word(at + os_memory.word, &arg_end)
                     || !os_read_word(at + 2 * os_memory.word, &env)
                     || arg >= arg_end || arg_end != env
                     || (pgd && os_read_user(pgd, arg, &byte, 1) != 1))) {
        return fails(c, "mm.arg_start_offset, mm.pgd_offset",
                     "the arguments of a process cannot be read");
    }
    if (os_get_word(mm, OS_MM_START_BRK, &start_brk)
        && os_get_word(mm, OS_MM_BRK, &brk)
        && (brk < start_brk || os_is_kernel(brk))) {
        return fails(c, "mm.start_brk_offset, mm.brk_offset",
                     "the heap of a process ends before it begins");
    }
    if (os_get_word(mm, OS_MM_START_STACK, &stack) && has_args
        && (stack > arg || arg - stack > 1 << 21)) {
        return fails(c, "mm.start_stack_offset",
                     "the stack of a process is not below its arguments");
    }
    if (!os_knows(OS_VMA_START) || !os_knows(OS_VMA_END)
        || (!os_knows(OS_MM_ROOT)
            && !(os_knows(OS_MM_MMAP) && os_knows(OS_VMA_NEXT)))) {
        return true;
    }
    if (!os_for_each_mapping(mm, see_mapping, &maps) || !maps.ordered
        || !maps.n) {
        return fails(c, os_layout.maple
                     ? "pandalite.mm_struct.mm_mt.ma_root, "
                       "vma.vm_start_offset, vma.vm_end_offset, "
                       "vma.vm_mm_offset"
                     : "mm.mmap_offset, vma.vm_start_offset, "
                       "vma.vm_end_offset, vma.vm_next_offset, "
                       "vma.vm_mm_offset",
                     "the mappings of a process are not in order");
    }
    if (!maps.named || (!maps.files && os_knows(OS_VMA_FILE)
                        && os_knows(OS_FILE_DENTRY)
                        && os_knows(OS_DENTRY_NAME))) {
        return fails(c, "vma.vm_file_offset, fs.f_path_dentry_offset, "
                     "path.d_name_offset, qstr.name_offset",
                     "the files that a process has mapped have no names");
    }
    return true;
}

static bool check_files(Check *c, uint64_t task)
{
    uint64_t files, fdt, table, file, dentry;
    uint32_t max;

    if (!os_knows(OS_TASK_FILES) || !os_knows(OS_FILES_FDT)
        || !os_knows(OS_FDT_FD)) {
        return true;
    }
    /* How many fit is in front of them: bits of whole words. */
    if (!os_get_word(task, OS_TASK_FILES, &files)
        || !os_get_word(files, OS_FILES_FDT, &fdt) || !os_is_kernel(fdt)
        || !os_read_u32(fdt, &max) || !max || max % 32
        || !os_get_word(fdt, OS_FDT_FD, &table) || !os_is_kernel(table)
        || !os_read_word(table, &file)
        || (file && (!os_is_kernel(file)
                     || (os_get_word(file, OS_FILE_DENTRY, &dentry)
                         && !os_is_kernel(dentry))))) {
        return fails(c, "task.files_offset, fs.fdt_offset, fs.fd_offset",
                     "the open files of a process are no list of files");
    }
    return true;
}

static bool check(Check *c)
{
    g_autoptr(GHashTable) pids = g_hash_table_new(NULL, NULL);
    unsigned users = 0, bad = 0;

    if (!os_find_init_task()) {
        return explain(c);
    }
    if (!os_for_each_process(collect, c)) {
        return fails(c, "task.tasks_offset",
                     "the list of processes does not lead back");
    }
    if (c->n < 2) {
        return fails(c, "task.tasks_offset",
                     "there is no process but the first one");
    }
    for (unsigned i = 0; i < c->n; i++) {
        if (!check_task(c, c->task[i], pids)) {
            return false;
        }
    }
    if (!check_cred(c)) {
        return false;
    }
    for (unsigned i = 0; i < c->n; i++) {
        uint64_t mm;

        os_get_word(c->task[i], OS_TASK_MM, &mm);
        if (mm) {
            users++;
            bad += !check_mm(c, mm) || !check_files(c, c->task[i]);
        }
    }
    if (!users) {
        return fails(c, "task.mm_offset", "no process has memory of its own "
                     "(yet: let the guest boot to its first programs)");
    }
    /* One that is being made or is ending has not all of it. */
    return bad * 2 <= users;
}

const char *os_profile_check(void)
{
    static Check c;

    c = (Check) {};
    return check(&c) ? NULL : c.why;
}
