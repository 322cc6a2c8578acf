/*
 * osi: which process and thread runs, in PANDA's structures.
 *
 * panda/os.h has more, and lists; what is here is what PANDA's plugins call.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_OSI_H
#define PANDA_PLUGINS_OSI_H

#include "panda/cpu.h"
#include "panda/types.h"

/** A process, by the addresses of its structures. */
typedef struct OsiProcHandle {
    target_ptr_t taskd;
    target_ptr_t asid;
} OsiProcHandle;

/** A thread. */
typedef struct OsiThread {
    /** Process it belongs to. */
    int32_t pid;
    int32_t tid;
} OsiThread;

/** A process; its name is freed with it. */
typedef struct OsiProc {
    /** Address of its task_struct. */
    target_ptr_t taskd;
    /** Its top page table; 0 for a kernel thread. */
    target_ptr_t pgd;
    target_ptr_t asid;
    int32_t pid;
    int32_t ppid;
    char *name;
    /** Always NULL. */
    void *pages;
    uint64_t create_time;
} OsiProc;

/** Another thread runs, or the running one has got a new program. */
typedef void (*on_task_change_t)(PandaCPU *cpu);

/** The process that runs, to be freed; NULL if it is not known. */
OsiProc *panda_osi_get_current_process(PandaCPU *cpu);

/** The process of a handle, to be freed; NULL if there is none. */
OsiProc *panda_osi_get_process(PandaCPU *cpu, const OsiProcHandle *h);

/** A handle of the process that runs, to be freed; NULL if it is not known. */
OsiProcHandle *panda_osi_get_current_process_handle(PandaCPU *cpu);

/** The thread that runs, to be freed; NULL if it is not known. */
OsiThread *panda_osi_get_current_thread(PandaCPU *cpu);

/** Number of a process; -1 if there is none. */
int32_t panda_osi_get_process_pid(PandaCPU *cpu, const OsiProcHandle *h);

/** Number of its parent; -1 if there is none. */
int32_t panda_osi_get_process_ppid(PandaCPU *cpu, const OsiProcHandle *h);

/** Free what get_current_process() and get_process() gave. */
void panda_osi_free_osiproc(OsiProc *p);

/** Free what get_current_process_handle() gave. */
void panda_osi_free_osiprochandle(OsiProcHandle *h);

/** Free what get_current_thread() gave. */
void panda_osi_free_osithread(OsiThread *t);

#endif
