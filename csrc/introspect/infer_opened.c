/*
 * How a file was opened, and its position, without type information.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer.h"

#define MAX_FDS 64
#define FILE_REACH 192
/* What a loader reads of a file to see what it is. */
#define MOST_READ 4096
/* Bits of f_mode; that behind FMODE_CAN_READ is FMODE_CAN_WRITE. */
#define FMODE_CAN_READ 0x20000u
#define FMODE_OPENED 0x80000u

/* Files that processes have open, behind those that are mapped. */
static void add_open(const OsInference *in, OsFiles *f)
{
    int files = os_offset(OS_TASK_FILES) + in->start;

    if (!os_knows(OS_TASK_FILES)) {
        return;
    }
    for (unsigned row = 1; row < in->n; row++) {
        uint64_t fdt = os_peek(os_cell(in, row, files),
                               os_offset(OS_FILES_FDT));
        uint64_t table = os_peek(fdt, os_offset(OS_FDT_FD));
        uint32_t max = 0;

        if (in->kernel_thread[row] || !os_is_pointer(table)
            || !os_read_u32(fdt + os_offset(OS_FDT_MAX), &max)) {
            continue;
        }
        for (int fd = 0; fd < MIN(max, MAX_FDS); fd++) {
            uint64_t file = os_peek(table, fd * WORD);

            if (os_is_pointer(file) && file % WORD == 0) {
                os_add_file(f, file);
            }
        }
    }
}

/* The kernel derives its mode from the flags: bits for reading and writing. */
static bool is_f_flags(const OsFiles *f, int at, int f_mode)
{
    unsigned kinds = 0;

    for (unsigned i = 0; i < f->n; i++) {
        uint32_t flags, mode;

        if (!os_read_u32(f->file[i] + at, &flags)
            || !os_read_u32(f->file[i] + f_mode, &mode)
            || flags >> 24 || ((flags + 1) & 3) != (mode & 3)
            || !(mode & 3)) {
            return false;
        }
        kinds |= 1 << (mode & 3);
    }
    /* One kind proves nothing. */
    return kinds & (kinds - 1);
}

/* It is open, and what its operations can do is what it may be used for. */
static bool is_f_mode(const OsFiles *f, int at)
{
    for (unsigned i = 0; i < f->n; i++) {
        uint32_t mode;

        if (!os_read_u32(f->file[i] + at, &mode) || !(mode & FMODE_OPENED)
            || !(mode & 3) || (mode / FMODE_CAN_READ & 3) != (mode & 3)) {
            return false;
        }
    }
    return f->n;
}

/*
 * Since Linux 6.12 they are apart, both in front of the path; there must be one
 * such number of each.
 */
static bool find_apart(const OsFiles *f, int *flags)
{
    int path = os_offset(OS_FILE_MNT), mode = 0;
    unsigned modes = 0, hits = 0;

    for (int at = 0; at < path; at += 4) {
        if (is_f_mode(f, at)) {
            mode = at;
            modes++;
        }
    }
    for (int at = 0; modes == 1 && at < path; at += 4) {
        if (at != mode && is_f_flags(f, at, mode)) {
            *flags = at;
            hits++;
        }
    }
    return hits == 1;
}

/* Behind a lock that nobody waits for: a list of waiters that is empty. */
static bool find_position(const OsFiles *f, int flags)
{
    for (int at = ROUND_UP(flags + 8, WORD); at < FILE_REACH; at += WORD) {
        unsigned good = 0, small = 0;
        int pos = at + 2 * WORD;

#ifndef TARGET_I386
        pos = ROUND_UP(pos, 8);
#endif
        pos = ROUND_UP(pos, WORD);
        for (unsigned i = 0; i < f->n; i++) {
            uint64_t value, here = f->file[i] + at;

            good += os_peek(here, 0) == here && os_peek(here, WORD) == here;
            small += os_read_u64(f->file[i] + pos, &value)
                && value < 1ull << 48;
        }
        if (os_most(good, f->n)) {
            if (small == f->n) {
                os_layout_set(OS_FILE_POS, pos, OS_INFERRED,
                              "behind the lock of the position, whose list "
                              "is empty; small");
            }
            return true;
        }
    }
    return false;
}

/* Most are at their start, but the loader has read a library's first bytes. */
static bool is_position(const OsInference *in, const OsFiles *f, int at)
{
    unsigned read = 0;

    for (unsigned i = 0; i < f->mapped; i++) {
        uint64_t value;

        if (!os_read_u64(f->file[i] + at, &value) || value >= MOST_READ) {
            return false;
        }
        read += value != 0;
    }
    /* The kernel reads a program itself, without a position. */
    for (unsigned i = 0; i < in->n_mms; i++) {
        uint64_t file = os_code_file(in, in->mm[i]), value;

        if (file && (!os_read_u64(file + at, &value) || value)) {
            return false;
        }
    }
    return read;
}

/*
 * Since Linux 7 the lock has no list: it is nothing at all if nobody has it.
 * Behind the path and the lock, then.
 */
static void find_behind_path(const OsInference *in, const OsFiles *f)
{
    int lock = os_offset(OS_FILE_MNT) + 2 * WORD;

    for (int at = lock + 3 * WORD; at <= lock + 5 * WORD; at += WORD) {
        unsigned unused = 0;

        for (unsigned i = 0; i < f->mapped; i++) {
            bool zero = true;

            for (int k = lock; k < at; k += WORD) {
                zero &= !os_peek(f->file[i], k);
            }
            unused += zero;
        }
        if (os_most(unused, f->mapped) && is_position(in, f, at)) {
            os_layout_set(OS_FILE_POS, at, OS_INFERRED,
                          "behind the path and a lock that is not held; 0 of "
                          "programs, which the kernel reads, but not of "
                          "libraries, of which the start was read");
            return;
        }
    }
}

void os_infer_opened(const OsInference *in, OsFiles *f)
{
    int flags;

    add_open(in, f);
    for (int at = 0; at < FILE_REACH; at += 4) {
        if (is_f_flags(f, at, at + 4)) {
            os_layout_set(OS_FILE_FLAGS, at, OS_INFERRED,
                          "whether it may be read or written agrees with the "
                          "next number (f_mode), in more than one kind");
            find_position(f, at);
            return;
        }
    }
    if (find_apart(f, &flags)) {
        os_layout_set(OS_FILE_FLAGS, flags, OS_INFERRED,
                      "whether it may be read or written agrees with the "
                      "number (f_mode) that says that it is open and can be "
                      "so used, in more than one kind");
        if (!find_position(f, flags)) {
            find_behind_path(in, f);
        }
    }
}
