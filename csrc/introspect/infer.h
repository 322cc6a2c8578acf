/*
 * What the files that work a layout out from memory share.
 *
 * The guest's tasks are rows of a table whose columns are what is at the same
 * distance from their names. A column is a field if it looks like it in all
 * rows, and a second rule that has nothing to do with the first agrees.
 *
 * All numbers are the guest's and may be hostile: rows, steps and depths are
 * bounded, and every read is checked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_INFER_H
#define PANDA_INTROSPECT_INFER_H

#include "introspect/internal.h"

#define WORD ((int)os_memory.word)
#define OS_ROWS 256
/* How much in front of a task's name, and behind it, is looked at. */
#define OS_BEFORE 4096
#define OS_BEHIND 1024
#define OS_SAMPLES 1024

typedef struct OsSample {
    uint64_t vma;
    uint64_t mm;
} OsSample;

typedef struct OsInference {
    /* Tasks, the first one first. */
    unsigned n;
    uint64_t comm[OS_ROWS];
    uint8_t (*window)[OS_BEFORE + OS_BEHIND];
    /* Distances from the name: of the list, the start, pids, the parent. */
    int tasks, start, pid, parent;
    bool kernel_thread[OS_ROWS];
    /* Memory maps of user processes, each once. */
    unsigned n_mms;
    uint64_t mm[OS_ROWS];
    /* Mappings of these. */
    unsigned n_vmas;
    OsSample vma[OS_SAMPLES];
} OsInference;

/* Most of n: all but a process that is being made or is ending. */
static inline bool os_most(unsigned good, unsigned n)
{
    return n && good && (good == n || (n >= 3 && good >= n - MAX(1, n / 8)));
}

/* The word at a distance from an address; 0 if it cannot be read. */
static inline uint64_t os_peek(uint64_t base, int offset)
{
    uint64_t value;

    return os_read_word(base + offset, &value) ? value : 0;
}

/* What a row has at a distance from its name. */
uint64_t os_cell(const OsInference *in, unsigned row, int at);
uint32_t os_cell_u32(const OsInference *in, unsigned row, int at);
uint64_t os_cell_u64(const OsInference *in, unsigned row, int at);

/* A field of task_struct is at a distance from the name. */
void os_infer_task_field(const OsInference *in, OsField field, int at,
                         const char *evidence);

/* A kernel pointer that can be followed. */
bool os_is_pointer(uint64_t va);
/* An address of a user program. */
bool os_is_user(uint64_t va);

/* infer_tasks.c: the rows, and who is who. False: no list of tasks. */
bool os_infer_tasks(OsInference *in);

/* infer_threads.c: stack, flags, credentials, threads, start. */
void os_infer_threads(OsInference *in);

/* infer_mm.c: memory maps and mappings. */
void os_infer_mm(OsInference *in);

/* Files that are looked at; the first `mapped` of them are mapped somewhere. */
#define OS_MAX_LOOKED_AT 128
typedef struct OsFiles {
    unsigned n, mapped;
    uint64_t file[OS_MAX_LOOKED_AT];
    /* Of the mapped ones. */
    uint64_t dentry[OS_MAX_LOOKED_AT], mnt[OS_MAX_LOOKED_AT];
    uint64_t inode[OS_MAX_LOOKED_AT];
} OsFiles;

/* infer_files.c: files, their names, tables and mounts. */
void os_infer_files(OsInference *in);
void os_add_file(OsFiles *f, uint64_t file);
/* The file of a process' program; 0: it is not known. */
uint64_t os_code_file(const OsInference *in, uint64_t mm);

/* infer_opened.c: how a file was opened, and its position. */
void os_infer_opened(const OsInference *in, OsFiles *f);

/*
 * infer_module_memory.c: where these modules are, if in parts; where in struct
 * module what follows begins; 0: they are not.
 */
int os_infer_module_memory(const uint64_t *module, unsigned n);

/* infer_mounts.c: the tree of mounts, from the root of processes on. */
void os_infer_mounts(const OsInference *in);

#endif
