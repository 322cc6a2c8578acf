/*
 * Memory maps without type information.
 *
 * What a user process has that a thread of the kernel does not leads to its
 * mm_struct; the bounds of its arguments, its page tables and its mappings
 * prove each other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer.h"

#define MM_REACH 2048
#define PGD_REACH 512
#define ROOT_REACH 256
#define LONGEST_ARGUMENTS (6 * MiB)
#define FEWEST_MAPPINGS 3
#define MAPLE_TYPES 0xe
/* VM_READ, WRITE, EXEC, SHARED; from VM_MAYREAD on what they may become. */
#define VM_ACCESS 7
#define VM_MAY 0x70

/* ---- which processes have one ---- */

static bool is_mm(const OsInference *in, int at)
{
    unsigned users = 0, good = 0, kernel = 0, bare = 0;

    for (unsigned row = 0; row < in->n; row++) {
        uint64_t mm = os_cell(in, row, at);

        if (in->kernel_thread[row]) {
            kernel++;
            bare += !mm;
        } else if (mm) {
            users++;
            good += os_is_pointer(mm) && mm % WORD == 0
                && mm == os_cell(in, row, at + WORD);
        } else if (row == 1) {
            return false;
        }
    }
    return os_most(good, users) && os_most(bare, kernel);
}

static bool has_mm(const OsInference *in, uint64_t mm)
{
    for (unsigned i = 0; i < in->n_mms; i++) {
        if (in->mm[i] == mm) {
            return true;
        }
    }
    return false;
}

static void take_mms(OsInference *in, int at)
{
    in->n_mms = 0;
    for (unsigned row = 0; row < in->n; row++) {
        uint64_t mm = os_cell(in, row, at);

        if (!in->kernel_thread[row] && os_is_pointer(mm)
            && !has_mm(in, mm)) {
            in->mm[in->n_mms++] = mm;
        }
    }
}

/* ---- arguments and page tables ---- */

/* Four bounds in a row: arguments, and right behind them the environment. */
static bool has_arguments(uint64_t mm, int at)
{
    uint64_t a = os_peek(mm, at), b = os_peek(mm, at + WORD);
    uint64_t c = os_peek(mm, at + 2 * WORD), d = os_peek(mm, at + 3 * WORD);
    uint64_t stack = os_peek(mm, at - WORD);

    return os_is_user(a) && a < b && b == c && c <= d && os_is_user(d)
        && d - a < LONGEST_ARGUMENTS && stack < a
        && a - stack < LONGEST_ARGUMENTS;
}

/* Can the arguments be read with these tables, and do they end with a NUL? */
static bool reads_arguments(uint64_t mm, int pgd, int arguments)
{
    uint64_t start = os_peek(mm, arguments);
    uint64_t end = os_peek(mm, arguments + WORD);
    uint64_t tables = os_peek(mm, pgd);
    char first, last;

    return os_is_pointer(tables) && tables % 32 == 0
        && os_read_user(tables, start, &first, 1) == 1 && first
        && os_read_user(tables, end - 1, &last, 1) == 1 && !last;
}

/*
 * Arguments can be paged out or overwritten by their process: half of the maps
 * must show them.
 */
static bool find_pgd_as_it_is(const OsInference *in, int arguments, int *pgd)
{
    for (*pgd = 0; *pgd < PGD_REACH; *pgd += WORD) {
        unsigned good = 0, wrong = 0;

        for (unsigned i = 0; i < in->n_mms; i++) {
            uint64_t tables = os_peek(in->mm[i], *pgd);

            wrong += !os_is_pointer(tables) || tables % 32;
            for (unsigned k = 0; k < i; k++) {
                wrong += tables == os_peek(in->mm[k], *pgd);
            }
            good += reads_arguments(in->mm[i], *pgd, arguments);
        }
        if (good * 2 > in->n_mms && os_most(in->n_mms - wrong, in->n_mms)
            && wrong < in->n_mms) {
            return true;
        }
    }
    return false;
}

static bool find_pgd(const OsInference *in, int arguments, int *pgd)
{
    if (find_pgd_as_it_is(in, arguments, pgd)) {
        return true;
    }
#ifdef TARGET_MIPS
    /* Which bits Linux keeps below the page's number depends on the CPU. */
    for (os_layout.pfn_shift = 15; os_layout.pfn_shift > 9;
         os_layout.pfn_shift--) {
        if (find_pgd_as_it_is(in, arguments, pgd)) {
            return true;
        }
    }
    os_layout.pfn_shift = 0;
#endif
    return false;
}

static bool find_arguments(const OsInference *in, int *at)
{
    for (*at = WORD; *at < MM_REACH; *at += WORD) {
        unsigned good = 0;

        for (unsigned i = 0; i < in->n_mms; i++) {
            good += has_arguments(in->mm[i], *at);
        }
        if (os_most(good, in->n_mms)) {
            return true;
        }
    }
    return false;
}

static void set_bounds(const OsInference *in, int arguments)
{
    static const char four[] = "four rising user addresses, the middle two "
        "equal; a NUL ends the arguments, read through pgd";
    unsigned good = 0;

    os_layout_set(OS_MM_ARG_START, arguments, OS_INFERRED, four);
    os_layout_set(OS_MM_ARG_END, arguments + WORD, OS_INFERRED, four);
    os_layout_set(OS_MM_ENV_START, arguments + 2 * WORD, OS_INFERRED, four);
    os_layout_set(OS_MM_ENV_END, arguments + 3 * WORD, OS_INFERRED, four);
    os_layout_set(OS_MM_START_STACK, arguments - WORD, OS_INFERRED,
                  "in front of arg_start, and below it in the same stack");
    for (unsigned i = 0; i < in->n_mms; i++) {
        uint64_t mm = in->mm[i];
        uint64_t brk = os_peek(mm, arguments - 2 * WORD);
        uint64_t start_brk = os_peek(mm, arguments - 3 * WORD);

        good += start_brk && start_brk <= brk && start_brk % 4096 < 4096
            && os_peek(mm, arguments - 7 * WORD)
               < os_peek(mm, arguments - 6 * WORD)
            && os_peek(mm, arguments - 5 * WORD)
            <= os_peek(mm, arguments - 4 * WORD);
    }
    if (os_most(good, in->n_mms)) {
        static const char before[] = "code, data, brk, stack, arguments: "
            "bounds in this order, each start below its end";

        os_layout_set(OS_MM_START_BRK, arguments - 3 * WORD, OS_INFERRED,
                      before);
        os_layout_set(OS_MM_BRK, arguments - 2 * WORD, OS_INFERRED, before);
    }
}

/* ---- mappings ---- */

typedef struct Check {
    OsInference *in;
    uint64_t mm, last, stack;
    unsigned n;
    bool wrong, has_stack;
} Check;

/* In order, whole pages, of a user; and the arguments are in one of them. */
static bool check_mapping(uint64_t vma, void *opaque)
{
    Check *c = opaque;
    uint64_t start, end;

    if (!os_read_word(vma, &start) || !os_read_word(vma + WORD, &end)
        || start < c->last || start >= end || (start | end) % 4096
        || !os_is_user(end - 1)) {
        c->wrong = true;
        return false;
    }
    c->last = end;
    c->n++;
    c->has_stack |= c->stack >= start && c->stack < end;
    return true;
}

static bool take_mapping(uint64_t vma, void *opaque)
{
    Check *c = opaque;
    OsInference *in = c->in;

    if (in->n_vmas == OS_SAMPLES) {
        return false;
    }
    in->vma[in->n_vmas++] = (OsSample) { vma, c->mm };
    return true;
}

/* Do the layout's way of walking the mappings and its arguments agree? */
static bool walks(OsInference *in, int arguments)
{
    unsigned good = 0;

    for (unsigned i = 0; i < in->n_mms; i++) {
        Check c = { .in = in, .mm = in->mm[i],
                    .stack = os_peek(in->mm[i], arguments) };

        os_for_each_mapping(in->mm[i], check_mapping, &c);
        good += !c.wrong && c.n >= FEWEST_MAPPINGS && c.has_stack;
        if (!good && i >= in->n_mms / 4 + 1) {
            return false;
        }
    }
    return os_most(good, in->n_mms);
}

static bool find_tree(OsInference *in, int arguments)
{
    os_layout.maple = true;
    for (int at = 0; at < ROOT_REACH; at += WORD) {
        uint64_t root = os_peek(in->mm[0], at);

        if ((root & 3) != 2 || !os_is_pointer(root)) {
            continue;
        }
        os_layout_set(OS_MM_ROOT, at, OS_INFERRED,
                      "a tree of whole pages in order, with the arguments in "
                      "one; each leads back to its mm_struct");
        if (walks(in, arguments)) {
            return true;
        }
    }
    os_layout.maple = false;
    os_layout_set(OS_MM_ROOT, 0, OS_UNKNOWN, NULL);
    return false;
}

static bool find_chain(OsInference *in, int arguments)
{
    for (int at = 0; at < ROOT_REACH; at += WORD) {
        if (!os_is_pointer(os_peek(in->mm[0], at))) {
            continue;
        }
        for (int next = 2 * WORD; next < 6 * WORD; next += WORD) {
            os_layout_set(OS_MM_MMAP, at, OS_INFERRED,
                          "a list of whole pages in order, with the arguments "
                          "in one; each leads back to its mm_struct");
            os_layout_set(OS_VMA_NEXT, next, OS_INFERRED,
                          "the next mapping is behind it");
            if (walks(in, arguments)) {
                return true;
            }
        }
    }
    os_layout_set(OS_MM_MMAP, 0, OS_UNKNOWN, NULL);
    os_layout_set(OS_VMA_NEXT, 0, OS_UNKNOWN, NULL);
    return false;
}

static bool find_vm_mm(const OsInference *in)
{
    for (int at = 2 * WORD; at < 20 * WORD; at += WORD) {
        unsigned good = 0;

        for (unsigned i = 0; i < in->n_vmas; i++) {
            good += os_peek(in->vma[i].vma, at) == in->vma[i].mm;
        }
        if (good == in->n_vmas) {
            os_layout_set(OS_VMA_MM, at, OS_INFERRED,
                          "leads back to the mm_struct of its list");
            return true;
        }
    }
    return false;
}

/*
 * Rights: each is one that the mapping may have. Arguments are in memory that
 * can be written, the program's code where it is executed.
 */
static void find_vm_flags(const OsInference *in, int arguments)
{
    for (int at = 2 * WORD; at < 24 * WORD; at += WORD) {
        unsigned good = 0, stacks = 0, writable = 0, executed = 0;

        for (unsigned i = 0; i < in->n_vmas; i++) {
            uint64_t vma = in->vma[i].vma, mm = in->vma[i].mm;
            uint64_t flags = os_peek(vma, at);
            uint64_t stack = os_peek(mm, arguments);

            good += flags < 1ull << 40 && flags & VM_MAY
                && !(flags & VM_ACCESS & ~(flags >> 4));
            executed += !!(flags & 4);
            if (stack >= os_peek(vma, 0) && stack < os_peek(vma, WORD)) {
                stacks++;
                writable += (flags & 3) == 3;
            }
        }
        if (good == in->n_vmas && executed && executed < good
            && writable == stacks) {
            os_layout_set(OS_VMA_FLAGS, at, OS_INFERRED,
                          "no right a mapping may not have; stacks can be "
                          "written");
            return;
        }
    }
}

static void forget_mm(void)
{
    static const OsField fields[] = {
        OS_TASK_MM, OS_MM_PGD, OS_MM_ROOT, OS_MM_MMAP, OS_VMA_NEXT,
        OS_VMA_START, OS_VMA_END, OS_VMA_MM,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        os_layout_set(fields[i], 0, OS_UNKNOWN, NULL);
    }
    os_layout.maple = false;
}

/* A column of mm_structs, if all that follows from it makes sense. */
static bool try_mm(OsInference *in, int at)
{
    int arguments, pgd;

    if (!is_mm(in, at)) {
        return false;
    }
    take_mms(in, at);
    in->n_vmas = 0;
    if (!in->n_mms || !find_arguments(in, &arguments)
        || !find_pgd(in, arguments, &pgd)) {
        return false;
    }
    os_infer_task_field(in, OS_TASK_MM, at,
                        "0 of the kernel's threads, a pointer and equal to "
                        "the next word (active_mm) of others; leads to "
                        "arguments and mappings");
    os_layout_set(OS_MM_PGD, pgd, OS_INFERRED,
                  "of each process another; the arguments are read through "
                  "it");
    os_layout_set(OS_VMA_START, 0, OS_INFERRED,
                  "whole pages, in order, without overlaps");
    os_layout_set(OS_VMA_END, WORD, OS_INFERRED,
                  "whole pages, above the start");
    if (!find_tree(in, arguments) && !find_chain(in, arguments)) {
        forget_mm();
        return false;
    }
    for (unsigned i = 0; i < in->n_mms; i++) {
        Check c = { .in = in, .mm = in->mm[i] };

        os_for_each_mapping(in->mm[i], take_mapping, &c);
    }
    if (!find_vm_mm(in)) {
        forget_mm();
        return false;
    }
    set_bounds(in, arguments);
    find_vm_flags(in, arguments);
    return true;
}

void os_infer_mm(OsInference *in)
{
    for (int at = in->tasks + 2 * WORD; at < in->pid; at += WORD) {
        if (try_mm(in, at)) {
            return;
        }
    }
}
