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

PANDA_C_BEGIN

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

/** A part of a process' memory; nothing uses it. */
typedef struct OsiPage {
    target_ptr_t start;
    target_ptr_t len;
} OsiPage;

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
    OsiPage *pages;
    uint64_t create_time;
} OsiProc;

/** Bounds of a process' heap. */
typedef struct OsiProcMem {
    target_ptr_t start_brk;
    target_ptr_t brk;
} OsiProcMem;

/** A mapping of a process, or a module of the kernel. */
typedef struct OsiModule {
    /** Address of its vm_area_struct, or struct module. */
    target_ptr_t modd;
    target_ptr_t base;
    target_ptr_t size;
    /** Path of the file that is mapped; NULL without one. */
    char *file;
    /** Last part of it, [heap], [stack] or [???]; of a module its name. */
    char *name;
    /** Where in the file it begins, in bytes. */
    target_ptr_t offset;
    /** The kernel's flags of the mapping: 1 read, 2 write, 4 execute. */
    target_ptr_t flags;
} OsiModule;

/** A list; its first two fields are those of GLib's GArray. */
typedef struct PandaArray {
    /** The elements, one behind the other. */
    char *data;
    /** How many there are. */
    uint32_t len;
    /** What they are; for cleanup_garray(). */
    uint32_t kind;
    /** Bytes of an element, and for how many there is room. */
    uint32_t element;
    uint32_t room;
} PandaArray;

/** Another thread runs, or the running one has got a new program. */
typedef void (*on_task_change_t)(PandaCPU *cpu);

/*
 * Whoever listens to one of these answers instead of the core: the function of
 * the same name gives what was put into `out`, nothing if nothing was. What is
 * given is freed as that of the core is: structures and texts are malloc()'s,
 * lists are made by new_garray().
 */

/** Answers get_processes(). */
typedef void (*on_get_processes_t)(PandaCPU *cpu, PandaArray **out);

/** Answers get_process_handles(). */
typedef void (*on_get_process_handles_t)(PandaCPU *cpu, PandaArray **out);

/** Answers get_current_process(). */
typedef void (*on_get_current_process_t)(PandaCPU *cpu, OsiProc **out);

/** Answers get_current_process_handle(). */
typedef void (*on_get_current_process_handle_t)(PandaCPU *cpu,
                                                OsiProcHandle **out);

/** Answers get_process(). */
typedef void (*on_get_process_t)(PandaCPU *cpu, const OsiProcHandle *h,
                                 OsiProc **out);

/** Answers get_proc_mem(). */
typedef void (*on_get_proc_mem_t)(PandaCPU *cpu, const OsiProc *p,
                                  OsiProcMem **out);

/** Answers get_modules(). */
typedef void (*on_get_modules_t)(PandaCPU *cpu, PandaArray **out);

/** Answers get_mappings(), and what is asked of mappings and not answered. */
typedef void (*on_get_mappings_t)(PandaCPU *cpu, OsiProc *p, PandaArray **out);

/** Answers get_file_mappings(). */
typedef void (*on_get_file_mappings_t)(PandaCPU *cpu, OsiProc *p,
                                       PandaArray **out);

/** Answers get_heap_mappings(). */
typedef void (*on_get_heap_mappings_t)(PandaCPU *cpu, OsiProc *p,
                                       PandaArray **out);

/** Answers get_stack_mappings(). */
typedef void (*on_get_stack_mappings_t)(PandaCPU *cpu, OsiProc *p,
                                        PandaArray **out);

/** Answers get_unknown_mappings(). */
typedef void (*on_get_unknown_mappings_t)(PandaCPU *cpu, OsiProc *p,
                                          PandaArray **out);

/** Answers get_mapping_by_addr(). */
typedef void (*on_get_mapping_by_addr_t)(PandaCPU *cpu, OsiProc *p,
                                         target_ptr_t addr, OsiModule **out);

/** Answers get_mapping_base_address_by_name(). */
typedef void (*on_get_mapping_base_address_by_name_t)(PandaCPU *cpu,
                                                      OsiProc *p,
                                                      const char *name,
                                                      target_ptr_t *out);

/** Answers has_mapping_prefix(). */
typedef void (*on_has_mapping_prefix_t)(PandaCPU *cpu, OsiProc *p,
                                        const char *prefix, bool *out);

/** Answers get_current_thread(). */
typedef void (*on_get_current_thread_t)(PandaCPU *cpu, OsiThread **out);

/** Answers get_process_pid(). */
typedef void (*on_get_process_pid_t)(PandaCPU *cpu, const OsiProcHandle *h,
                                     int32_t *out);

/** Answers get_process_ppid(). */
typedef void (*on_get_process_ppid_t)(PandaCPU *cpu, const OsiProcHandle *h,
                                      int32_t *out);

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

/** All processes, as OsiProc; NULL if the guest's kernel is not found. */
PandaArray *panda_osi_get_processes(PandaCPU *cpu);

/** All processes, as OsiProcHandle; likewise. */
PandaArray *panda_osi_get_process_handles(PandaCPU *cpu);

/** The kernel's modules, as OsiModule; NULL if they are not shown. */
PandaArray *panda_osi_get_modules(PandaCPU *cpu);

/**
 * What a process has mapped, as OsiModule, by address.
 *
 * NULL if it has no memory of its own. Lists are to be freed by
 * cleanup_garray().
 */
PandaArray *panda_osi_get_mappings(PandaCPU *cpu, OsiProc *p);

/** Those of files; likewise. */
PandaArray *panda_osi_get_file_mappings(PandaCPU *cpu, OsiProc *p);

/** Those of its heap; likewise. */
PandaArray *panda_osi_get_heap_mappings(PandaCPU *cpu, OsiProc *p);

/** Those of its stack; likewise. */
PandaArray *panda_osi_get_stack_mappings(PandaCPU *cpu, OsiProc *p);

/** Those that are none of these; likewise. */
PandaArray *panda_osi_get_unknown_mappings(PandaCPU *cpu, OsiProc *p);

/** Bounds of its heap, to be freed by free_osiprocmem(); NULL: it has none. */
OsiProcMem *panda_osi_get_proc_mem(PandaCPU *cpu, const OsiProc *p);

/** The mapping an address is in, to be freed by free_osimodule(); NULL. */
OsiModule *panda_osi_get_mapping_by_addr(PandaCPU *cpu, OsiProc *p,
                                         target_ptr_t addr);

/** Where the first mapping of a name begins; 0 if there is none. */
target_ptr_t panda_osi_get_mapping_base_address_by_name(PandaCPU *cpu,
                                                        OsiProc *p,
                                                        const char *name);

/** Has it a mapping whose name begins so? */
bool panda_osi_has_mapping_prefix(PandaCPU *cpu, OsiProc *p,
                                  const char *prefix);

/** Does a process that runs execute a shared library (.so in its name)? */
bool panda_osi_in_shared_object(PandaCPU *cpu, OsiProc *p);

/** An element of a list of OsiModule, which keeps it; NULL: no more. */
OsiModule *panda_osi_get_one_module(PandaArray *list, uint32_t index);

/** An element of a list of OsiProc; likewise. */
OsiProc *panda_osi_get_one_proc(PandaArray *list, uint32_t index);

/** How many elements a list has; 0 if it is NULL. */
uint32_t panda_osi_garray_len(PandaArray *list);

/**
 * An empty list for elements of a size, for those who answer.
 *
 * What is in it is known when it was given to osi; only then is that freed too.
 */
PandaArray *panda_osi_new_garray(uint32_t element);

/** Append a copy of an element; the list has the texts it points to. */
void panda_osi_append(PandaArray *list, const void *element);

/** Append a process, with copies of its texts. */
void panda_osi_append_proc(PandaArray *list, const OsiProc *p);

/** Append a mapping or module, likewise. */
void panda_osi_append_module(PandaArray *list, const OsiModule *m);

/** A copy of a process with its name, to be freed by free_osiproc(). */
OsiProc *panda_osi_copy_osiproc(const OsiProc *p);

/** A copy of a mapping with its texts, to be freed by free_osimodule(). */
OsiModule *panda_osi_copy_osimodule(const OsiModule *m);

/**
 * Does anybody answer instead of the core?
 *
 * Never blocks.
 */
bool panda_osi_is_provided(void);

/** Free a list and what is in it. */
void panda_osi_cleanup_garray(PandaArray *list);

/** Raise on_task_change. */
void panda_osi_notify_task_change(PandaCPU *cpu);

/** Free what get_mapping_by_addr() gave. */
void panda_osi_free_osimodule(OsiModule *m);

/** Free what get_proc_mem() gave. */
void panda_osi_free_osiprocmem(OsiProcMem *m);

/** Free what get_current_process() and get_process() gave. */
void panda_osi_free_osiproc(OsiProc *p);

/** Free what get_current_process_handle() gave. */
void panda_osi_free_osiprochandle(OsiProcHandle *h);

/** Free what get_current_thread() gave. */
void panda_osi_free_osithread(OsiThread *t);

PANDA_C_END

#endif
