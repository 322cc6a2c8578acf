/*
 * Where the fields of the kernel's structures are, and how that is known.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_LAYOUT_H
#define PANDA_INTROSPECT_LAYOUT_H

#include "introspect/guest_memory.h"

/*
 * Symbol, structure, field; names a field had in other versions follow it after
 * a bar. A dot leads into a structure that is a field.
 */
#define OS_FIELDS(_)                                                          \
    _(TASK_TASKS, "task_struct", "tasks")                                     \
    _(TASK_PID, "task_struct", "pid")                                         \
    _(TASK_TGID, "task_struct", "tgid")                                       \
    _(TASK_REAL_PARENT, "task_struct", "real_parent")                         \
    _(TASK_GROUP_LEADER, "task_struct", "group_leader")                       \
    _(TASK_MM, "task_struct", "mm")                                           \
    _(TASK_CRED, "task_struct", "cred")                                       \
    _(TASK_COMM, "task_struct", "comm")                                       \
    _(TASK_STACK, "task_struct", "stack")                                     \
    _(TASK_FS, "task_struct", "fs")                                           \
    _(TASK_FILES, "task_struct", "files")                                     \
    _(TASK_STATE, "task_struct", "__state|state")                             \
    _(TASK_EXIT_STATE, "task_struct", "exit_state")                           \
    _(TASK_FLAGS, "task_struct", "flags")                                     \
    _(TASK_START_TIME, "task_struct", "start_time")                           \
    _(TASK_SIGNAL, "task_struct", "signal")                                   \
    _(TASK_THREAD_NODE, "task_struct", "thread_node")                         \
    _(TASK_THREAD, "task_struct", "thread")                                   \
    _(TASK_EXIT_CODE, "task_struct", "exit_code")                             \
    _(SIGNAL_THREAD_HEAD, "signal_struct", "thread_head")                     \
    _(CRED_UID, "cred", "uid")                                                \
    _(CRED_GID, "cred", "gid")                                                \
    _(CRED_EUID, "cred", "euid")                                              \
    _(CRED_EGID, "cred", "egid")                                              \
    _(MM_PGD, "mm_struct", "pgd")                                             \
    _(MM_MMAP, "mm_struct", "mmap")                                           \
    _(MM_ROOT, "mm_struct", "mm_mt.ma_root")                                  \
    _(MM_ARG_START, "mm_struct", "arg_start")                                 \
    _(MM_ARG_END, "mm_struct", "arg_end")                                     \
    _(MM_ENV_START, "mm_struct", "env_start")                                 \
    _(MM_ENV_END, "mm_struct", "env_end")                                     \
    _(MM_START_BRK, "mm_struct", "start_brk")                                 \
    _(MM_BRK, "mm_struct", "brk")                                             \
    _(MM_START_STACK, "mm_struct", "start_stack")                             \
    _(MM_EXE_FILE, "mm_struct", "exe_file")                                   \
    _(VMA_START, "vm_area_struct", "vm_start")                                \
    _(VMA_END, "vm_area_struct", "vm_end")                                    \
    _(VMA_NEXT, "vm_area_struct", "vm_next")                                  \
    _(VMA_MM, "vm_area_struct", "vm_mm")                                      \
    _(VMA_FLAGS, "vm_area_struct", "vm_flags")                                \
    _(VMA_FILE, "vm_area_struct", "vm_file")                                  \
    _(VMA_PGOFF, "vm_area_struct", "vm_pgoff")                                \
    _(FILE_DENTRY, "file", "f_path.dentry")                                   \
    _(FILE_MNT, "file", "f_path.mnt")                                         \
    _(FILE_POS, "file", "f_pos")                                              \
    _(FILE_FLAGS, "file", "f_flags")                                          \
    _(FILE_INODE, "file", "f_inode")                                          \
    _(FILE_PRIVATE, "file", "private_data")                                   \
    _(FILES_FDT, "files_struct", "fdt")                                       \
    _(FDT_MAX, "fdtable", "max_fds")                                          \
    _(FDT_FD, "fdtable", "fd")                                                \
    _(FS_ROOT_DENTRY, "fs_struct", "root.dentry")                             \
    _(FS_ROOT_MNT, "fs_struct", "root.mnt")                                   \
    _(FS_PWD_DENTRY, "fs_struct", "pwd.dentry")                               \
    _(FS_PWD_MNT, "fs_struct", "pwd.mnt")                                     \
    _(DENTRY_PARENT, "dentry", "d_parent")                                    \
    _(DENTRY_NAME, "dentry", "d_name.name")                                   \
    _(DENTRY_INODE, "dentry", "d_inode")                                      \
    _(DENTRY_SB, "dentry", "d_sb")                                            \
    _(DENTRY_PPREV, "dentry", "d_hash.pprev")                                 \
    _(INODE_MODE, "inode", "i_mode")                                          \
    _(INODE_INO, "inode", "i_ino")                                            \
    _(SB_TYPE, "super_block", "s_type")                                       \
    _(FSTYPE_NAME, "file_system_type", "name")                                \
    _(MOUNT_PARENT, "mount", "mnt_parent")                                    \
    _(MOUNT_POINT, "mount", "mnt_mountpoint")                                 \
    _(MOUNT_MNT, "mount", "mnt")                                              \
    _(VFSMOUNT_ROOT, "vfsmount", "mnt_root")                                  \
    _(MODULE_LIST, "module", "list")                                          \
    _(MODULE_NAME, "module", "name")                                          \
    _(MODULE_CORE_BASE, "module", "core_layout.base|module_core")             \
    _(MODULE_CORE_SIZE, "module", "core_layout.size|core_size")               \
    _(MODULE_MEM, "module", "mem")                                            \
    _(MODULE_MEM_BASE, "module_memory", "base")                               \
    _(MODULE_MEM_SIZE, "module_memory", "size")                               \
    _(SOCKET_SK, "socket", "sk")                                              \
    _(SOCKET_TYPE, "socket", "type")                                          \
    _(SOCK_FAMILY, "sock", "__sk_common.skc_family")                          \
    _(SOCK_STATE, "sock", "__sk_common.skc_state")                            \
    _(SOCK_DADDR, "sock", "__sk_common.skc_daddr")                            \
    _(SOCK_RCV_SADDR, "sock", "__sk_common.skc_rcv_saddr")                    \
    _(SOCK_DPORT, "sock", "__sk_common.skc_dport")                            \
    _(SOCK_NUM, "sock", "__sk_common.skc_num")                                \
    _(SOCK_V6_DADDR, "sock", "__sk_common.skc_v6_daddr")                      \
    _(SOCK_V6_RCV_SADDR, "sock", "__sk_common.skc_v6_rcv_saddr")              \
    _(SOCK_PROTOCOL, "sock", "sk_protocol")                                   \
    _(SOCK_TYPE, "sock", "sk_type")                                           \
    _(UNIX_ADDR, "unix_sock", "addr")                                         \
    _(UNIX_ADDRESS_LEN, "unix_address", "len")                                \
    _(UNIX_ADDRESS_NAME, "unix_address", "name")                              \
    _(FILE_CACHE, "file", "f_mapping")                                        \
    _(CACHE_TREE, "address_space", "i_pages.xa_head")                         \
    _(MOUNT_MOUNTS, "mount", "mnt_mounts")                                    \
    _(MOUNT_CHILD, "mount", "mnt_child")                                      \
    _(MOUNT_DEVNAME, "mount", "mnt_devname")                                  \
    _(VFSMOUNT_SB, "vfsmount", "mnt_sb")                                      \
    _(VFSMOUNT_FLAGS, "vfsmount", "mnt_flags")                                \
    _(SB_FLAGS, "super_block", "s_flags")                                     \
    _(SB_SUBTYPE, "super_block", "s_subtype")                                 \
    _(TK_SECONDS, "timekeeper", "xtime_sec")                                  \
    _(TK_FRACTION, "timekeeper", "tkr_mono.xtime_nsec|tkr.xtime_nsec")        \
    _(TK_SHIFT, "timekeeper", "tkr_mono.shift|tkr.shift")                     \
    _(TK_TO_MONOTONIC, "timekeeper", "wall_to_monotonic")                     \
    _(TK_OFFS_BOOT, "timekeeper", "offs_boot")                                \
    _(TK_KTIME_SEC, "timekeeper", "ktime_sec")                                \
    _(MODULE_STATE, "module", "state")                                        \
    _(MODULE_KALLSYMS, "module", "kallsyms")                                  \
    _(KALLSYMS_SYMTAB, "mod_kallsyms", "symtab")                              \
    _(KALLSYMS_NUM, "mod_kallsyms", "num_symtab")                             \
    _(KALLSYMS_STRTAB, "mod_kallsyms", "strtab")

typedef enum OsField {
#define OS_FIELD_ENUM(symbol, structure, field) OS_##symbol,
    OS_FIELDS(OS_FIELD_ENUM)
#undef OS_FIELD_ENUM
    OS_FIELDS_COUNT
} OsField;

/* How an offset is known. */
typedef enum OsSource {
    OS_UNKNOWN,
    /* The kernel's type information says it. */
    OS_BTF,
    /* Worked out from memory, by two rules that agree. */
    OS_INFERRED,
    /* A profile that was given says it. */
    OS_PROFILE,
    /* The same in all kernels of the versions that are supported. */
    OS_CONSTANT,
} OsSource;

typedef struct OsOffset {
    int32_t offset;
    uint8_t source;
    /* What speaks for it, for the report; may be NULL. */
    const char *evidence;
} OsOffset;

typedef struct OsLayout {
    OsOffset field[OS_FIELDS_COUNT];
    /* Bytes of struct module_memory and how many a module has. */
    uint32_t module_memory_size;
    uint32_t module_memory_count;
    /* The memory map is a maple tree. */
    bool maple;
    /* log2 of the kernel's page size, worked out; 0: unknown. */
    uint8_t page_shift;
    /* Where the page's number begins in an entry of MIPS' tables; 0: usual. */
    uint8_t pfn_shift;
} OsLayout;

extern OsLayout os_layout;

static inline bool os_knows(OsField field)
{
    return os_layout.field[field].source != OS_UNKNOWN;
}

static inline int32_t os_offset(OsField field)
{
    return os_layout.field[field].offset;
}

void os_layout_clear(void);
void os_layout_set(OsField field, int32_t offset, OsSource source,
                   const char *evidence);
const char *os_field_structure(OsField field);
const char *os_field_name(OsField field);

/* A field of a structure at a kernel address; false: unknown or unreadable. */
bool os_get_word(uint64_t base, OsField field, uint64_t *value);
bool os_get_u32(uint64_t base, OsField field, uint32_t *value);
bool os_get_u64(uint64_t base, OsField field, uint64_t *value);

/* Take all fields from the kernel's BTF; false: it has none (btf.c). */
bool os_layout_from_btf(void);

/*
 * Work the layout out from memory, given the kernel's init_task is there
 * (infer.c). May be called again when more processes run; true if what
 * processes and their maps need is known.
 */
bool os_layout_infer(CPUState *cs);

#endif
