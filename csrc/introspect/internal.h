/*
 * What the introspection's files share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_INTERNAL_H
#define PANDA_INTROSPECT_INTERNAL_H

#include "introspect/guest_memory.h"
#include "introspect/kallsyms.h"
#include "introspect/layout.h"
#include "introspect/os.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"

/* No list of a guest is longer than what is walked of it. */
#define OS_MAX_TASKS 65536u
#define OS_MAX_MAPPINGS 65536u
#define OS_MAX_FILES 65536u
#define OS_MAX_MODULES 4096u

/*
 * What is known of the guest may be asked for by any thread. Whoever holds it
 * waits for nothing and calls nobody outside of the core.
 */
extern QemuRecMutex os_lock;
#define OS_LOCK_GUARD() QEMU_LOCK_GUARD(&os_lock)

/*
 * The start of each public call: the kernel is found, and what was remembered
 * of its memory is forgotten. Negative PandaStatus with the reason.
 */
int os_require(void);

/* Address of the first task; valid once the kernel is found. */
extern uint64_t os_init_task;

/* Bytes of a page of the guest's kernel. */
uint64_t os_page_size(void);

/* ---- tasks.c ---- */

/* Find the first task; needs the layout. */
bool os_find_init_task(void);

/* Is there a live task_struct at an address? */
bool os_is_task(uint64_t address);
/* Is it that of the first task? */
bool os_is_init_task(uint64_t address);
/*
 * Call visit() for what looks like the first task: it has its name, and is its
 * own parent; stops if it returns false. True if it was stopped.
 */
bool os_for_each_swapper(bool (*visit)(uint64_t task, void *opaque),
                         void *opaque);

/*
 * Call visit() for each structure in a list of the kernel's, given where they
 * have its nodes; stops if it returns false. The result: false if the list does
 * not lead back to its head.
 */
bool os_for_each_node(uint64_t head, uint64_t offset,
                      bool (*visit)(uint64_t structure, void *opaque),
                      void *opaque);

/*
 * Call visit() for each process; stops if it returns false. The result: false
 * if the list is broken.
 */
bool os_for_each_process(bool (*visit)(uint64_t task, void *opaque),
                         void *opaque);
bool os_for_each_thread(uint64_t task,
                        bool (*visit)(uint64_t task, void *opaque),
                        void *opaque);

bool os_fill_task(uint64_t task, PandaTask *out);

/* The task of an address in its kernel stack or in itself; 0: none. */
uint64_t os_task_of_stack(uint64_t address);
uint64_t os_task_around(uint64_t address);
/* Forget which stack is whose. */
void os_forget_stacks(void);

/* ---- maps.c ---- */

/* The same for each mapping, by address. */
bool os_for_each_mapping(uint64_t mm, bool (*visit)(uint64_t vma, void *),
                         void *opaque);

/* ---- sockets.c ---- */

/* Families of sockets, of all Linux guests the same. */
#define OS_AF_UNIX 1
#define OS_AF_INET 2
#define OS_AF_INET6 10
/* Kinds of sockets, of which MIPS numbers two the other way round. */
#ifdef TARGET_MIPS
#define OS_SOCK_STREAM 2
#define OS_SOCK_DGRAM 1
#else
#define OS_SOCK_STREAM 1
#define OS_SOCK_DGRAM 2
#endif

/* Is a struct file that of a socket? */
bool os_is_socket(uint64_t file);

/* ---- infer.c, infer_modules.c, infer_sockets.c, infer_unix.c ---- */

/* More runs than when the layout was worked out: perhaps it shows more. */
void os_infer_again(void);

/* The layout of modules, of which there must be some in the list. */
bool os_infer_modules(uint64_t head);
/* Where the list of modules begins, found by what is in it. */
bool os_find_modules(uint64_t *head);

/*
 * The layout of sockets, by those that processes have open. What is known stays
 * known; more of them may show more.
 */
void os_infer_sockets(void);
/* Has a local socket anything that may be its name? */
bool os_unix_may_have_name(uint64_t sock);

/* ---- modules.c ---- */

/*
 * Where the list of modules begins; false: that is not known. If no symbol says
 * it, it is looked for, not too often unless the caller insists.
 */
bool os_modules_head(uint64_t *head, bool insist);

/* Is an address in a module's memory? */
bool os_module_holds(uint64_t module, uint64_t address);

/* Address of a symbol of a module's; `module:name` is one of that module. */
bool os_module_symbol(const char *name, uint64_t *address);

/*
 * The symbol of the module that an address is in, at or below it, as
 * `name [module]`; false: it is in none.
 */
bool os_module_symbol_at(uint64_t address, uint64_t *offset, char *text,
                         size_t size);

/* Another kernel is looked at: what was remembered of modules is not true. */
void os_forget_modules(void);

/* ---- uptime.c ---- */

/* Another kernel is looked at: its clock is elsewhere. */
void os_forget_clock(void);

/* ---- profile.c, profile_check.c ---- */

/* Is a profile to be used? */
bool os_profile_given(void);

/* Lay the kernel out by it; NULL, or what does not fit. */
const char *os_profile_apply(CPUState *cs, const char *release);

/*
 * Does the layout agree with memory? NULL, or the keys that do not fit and why,
 * valid until the next call.
 */
const char *os_profile_check(void);

/* A text of the kernel's utsname: 2 release, 3 version, 4 machine. */
bool os_uts_text(unsigned index, char *buf, size_t size);

/* Forget the kernel that was found: it is looked for anew. */
void os_detach(void);

/* ---- processes.c ---- */

/*
 * The memory map of a process; 0 with a status and an error set if it has none,
 * or there is no such process.
 */
uint64_t os_mm_of(uint64_t task, int *status);
/* The table of open files of a task, and how many fit; false: there is none. */
bool os_file_table(uint64_t task, uint64_t *table, uint32_t *n);

/* ---- paths.c ---- */

/* Path of a dentry on a mount; returns its length. */
uint64_t os_path(uint64_t dentry, uint64_t mnt, char *path, uint64_t size);
/* Path of a struct file; false: it is none. */
bool os_file_path(uint64_t file, char *path, uint64_t size);

#endif
