/*
 * The guest's operating system: its processes, what they have mapped and open,
 * its modules and symbols. Linux; no profile is needed.
 *
 * What is asked for is read from guest memory at that moment, so it is to be
 * asked for in a callback on the CPU thread or while the guest is stopped.
 * Addresses of kernel structures that the guest itself holds are never trusted:
 * all walks are bounded.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_OS_H
#define PANDA_OS_H

#include "panda/cpu.h"
#include "panda/types.h"

/** A thread of the guest, and the process it belongs to. */
typedef struct PandaTask {
    /** Address of its task_struct. */
    target_ptr_t task;
    /** Address of its memory map (mm_struct); 0 for a kernel thread. */
    target_ptr_t mm;
    /** Its top page table, a kernel address; 0 for a kernel thread. */
    target_ptr_t pgd;
    /**
     * What panda_current_asid() says while it runs; 0 if that cannot be told
     * from its page tables, and for kernel threads.
     */
    target_ptr_t asid;
    /** When it began, in ns of the guest's clock; 0 if unknown. */
    uint64_t create_time;
    /** Process, as the guest's user sees it (thread group). */
    int32_t pid;
    int32_t tid;
    /** Process of the parent. */
    int32_t ppid;
    uint32_t uid;
    uint32_t gid;
    uint32_t euid;
    uint32_t egid;
    /** The kernel's state word; 0: it runs or may run. */
    uint32_t state;
    uint32_t kernel_thread;
    /** Its short name (comm), ended by a NUL. */
    char name[16];
} PandaTask;

/** A mapping in a process' address space. */
typedef struct PandaMapping {
    /** Address of its vm_area_struct. */
    target_ptr_t vma;
    target_ptr_t start;
    /** First address behind it. */
    target_ptr_t end;
    /** Where in its file it begins, in bytes. */
    uint64_t offset;
    /** The kernel's flags: 1 read, 2 write, 4 execute, 8 shared. */
    uint64_t flags;
    /** Address of its struct file; 0: it has none. For panda_os_file_path(). */
    target_ptr_t file;
} PandaMapping;

/** A file that a process has open. */
typedef struct PandaOpenFile {
    /** Address of its struct file, for panda_os_file_path(). */
    target_ptr_t file;
    /** Where the next read or write begins; 0 if unknown. */
    uint64_t pos;
    int32_t fd;
    /** Flags it was opened with; 0 if unknown. */
    uint32_t flags;
} PandaOpenFile;

/** A kernel module that is loaded. */
typedef struct PandaModule {
    /** Address of its struct module. */
    target_ptr_t module;
    target_ptr_t base;
    uint64_t size;
    char name[64];
} PandaModule;

/** A socket, as one end sees it. */
typedef struct PandaSocket {
    /** AF_...: 1 local, 2 IPv4, 10 IPv6, 16 netlink. */
    uint32_t family;
    /** SOCK_...: 1 stream, 2 datagram, 3 raw; of guests of MIPS too. */
    uint32_t type;
    uint32_t protocol;
    /** The protocol's state; TCP: 1 established, 10 listening. */
    uint32_t state;
    uint32_t local_port;
    uint32_t remote_port;
    /** Addresses: 4 bytes of IPv4 or 16 of IPv6, as on the wire. */
    uint8_t local_address[16];
    uint8_t remote_address[16];
    /**
     * Name of a local socket: a path, or what begins with `@` if it is of no
     * file, and has `@` for each byte that is 0. Empty: it has none.
     */
    char path[112];
} PandaSocket;

/** Bounds of a process' memory. */
typedef struct PandaProcessMemory {
    target_ptr_t start_brk;
    target_ptr_t brk;
    target_ptr_t start_stack;
    target_ptr_t arg_start;
    target_ptr_t arg_end;
    target_ptr_t env_start;
    target_ptr_t env_end;
} PandaProcessMemory;

/**
 * Find the kernel and its tables in guest memory.
 *
 * Everything else here does it when it is first needed. PANDA_ERR_OS with what
 * is missing if it cannot be done (yet): early in the boot, or if the guest is
 * no Linux.
 */
int panda_os_attach(void);

/** What is known of the guest's kernel and why, as text; never NULL. */
const char *panda_os_report(void);

/** The kernel's version line or release; the empty string if unknown. */
const char *panda_os_release(void);

/**
 * The thread that runs; PANDA_ERR_OS if it is not known.
 *
 * Never blocks.
 */
int panda_os_current(PandaTask *task);

/** Facts of the thread with a task_struct; PANDA_ERR_OS if there is none. */
int panda_os_task(target_ptr_t address, PandaTask *task);

/**
 * All processes, kernel threads included: at most n are stored.
 *
 * Returns how many there are, which may be more; negative PandaStatus.
 */
int64_t panda_os_processes(PandaTask *tasks, uint64_t n);

/** The threads of a process, its first one included; likewise. */
int64_t panda_os_threads(target_ptr_t task, PandaTask *tasks, uint64_t n);

/** The mappings of a process, by address; likewise. */
int64_t panda_os_mappings(target_ptr_t task, PandaMapping *mappings,
                          uint64_t n);

/** The mapping with an address in it; PANDA_ERR_OS if there is none. */
int panda_os_mapping_at(target_ptr_t task, target_ptr_t address,
                        PandaMapping *mapping);

/** The files a process has open, by descriptor; likewise. */
int64_t panda_os_files(target_ptr_t task, PandaOpenFile *files, uint64_t n);

/** The file a process has open as a descriptor; PANDA_ERR_OS: none. */
int panda_os_file(target_ptr_t task, int32_t fd, PandaOpenFile *file);

/**
 * Path of a struct file from the root, or `pipe:[number]` and the like.
 *
 * Returns the length of it without the NUL; negative PandaStatus.
 */
int64_t panda_os_file_path(target_ptr_t file, char *path, uint64_t size);

/**
 * The socket a struct file stands for; PANDA_ERR_OS if it is none, or if not
 * all of it can be made out.
 */
int panda_os_socket(target_ptr_t file, PandaSocket *socket);

/** Path of the program a process runs; likewise. */
int64_t panda_os_exe(target_ptr_t task, char *path, uint64_t size);

/** Bounds of a process' memory; PANDA_ERR_OS if it is a kernel thread. */
int panda_os_memory(target_ptr_t task, PandaProcessMemory *memory);

/**
 * Read memory of a process that need not be the current one.
 *
 * Returns how many bytes could be read: it ends at a page that is not there.
 */
int64_t panda_os_read(target_ptr_t task, target_ptr_t address, uint8_t *buf,
                      uint64_t len);

/** The kernel's modules, last loaded first; likewise. */
int64_t panda_os_modules(PandaModule *modules, uint64_t n);

/**
 * Address of a symbol of the kernel or else of its modules; PANDA_ERR_OS if
 * there is none. `module:name` is that of a module.
 */
int panda_os_symbol(const char *name, target_ptr_t *address);

/**
 * The kernel's symbol at or below an address, and how far below it is.
 *
 * Those of modules have the module's name behind them: `name [module]`. NULL if
 * there is none.
 */
const char *panda_os_symbol_at(target_ptr_t address, uint64_t *offset);

#endif
