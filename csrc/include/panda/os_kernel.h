/*
 * More of the guest's kernel: what is mounted, what it has logged, how long it
 * runs. Linux.
 *
 * To be asked as panda/os.h is: in a callback on the CPU thread or while the
 * guest is stopped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_OS_KERNEL_H
#define PANDA_OS_KERNEL_H

#include "panda/os.h"

/** What is mounted at a place. */
typedef struct PandaMount {
    /** Address of its struct mount, for the functions below. */
    target_ptr_t mount;
    /** Address of the struct mount it is on; its own if it is on none. */
    target_ptr_t parent;
    /** The mount's flags (MNT_...): 1 nosuid, 2 nodev, 4 noexec, 64 ro. */
    uint32_t flags;
    /** The file system's flags (SB_...): 1 ro, 16 sync. */
    uint32_t sb_flags;
    /** Kind of file system, as /proc/mounts has it. */
    char type[64];
} PandaMount;

/**
 * What a process sees mounted, that is below its root; a mount comes behind the
 * one it is on. At most n are stored.
 *
 * Returns how many there are, which may be more; negative PandaStatus.
 */
int64_t panda_os_mounts(target_ptr_t task, PandaMount *mounts, uint64_t n);

/**
 * What is mounted, e.g. /dev/sda1, or a name.
 *
 * Returns the length of it without the NUL; negative PandaStatus.
 */
int64_t panda_os_mount_source(target_ptr_t mount, char *text, uint64_t size);

/** The path a process sees it at; likewise. */
int64_t panda_os_mount_path(target_ptr_t task, target_ptr_t mount, char *path,
                            uint64_t size);

/** A message in the kernel's log. */
typedef struct PandaLogMessage {
    /** Its number, from 0 on. */
    uint64_t sequence;
    /** When it was logged, in ns of the kernel's clock. */
    uint64_t time;
    /** Where its text is in the texts that are asked for with it. */
    uint64_t text;
    uint32_t length;
    /** How urgent it is: 0 (emergency) to 7 (debugging). */
    uint8_t level;
    /** Who logged it: 0 the kernel, else a program, as syslog() has it. */
    uint8_t facility;
    uint16_t reserved;
} PandaLogMessage;

/**
 * The kernel's log, the oldest message first: at most n of them, and at most
 * size bytes of their texts, one behind the other.
 *
 * Returns how many there are. Of those that are stored, text + length of the
 * last one is how many bytes of text they have, which may be more than size.
 */
int64_t panda_os_dmesg(PandaLogMessage *messages, uint64_t n, char *texts,
                       uint64_t size);

/**
 * How long the guest runs, in ns, as its kernel has it: as of its last tick.
 *
 * While the guest is idle its kernel stops ticking, and catches up with the
 * next interrupt.
 */
int panda_os_uptime(uint64_t *ns);

/** Families of operating systems. */
typedef enum PandaOsFamily {
    PANDA_FAMILY_UNKNOWN = 0,
    PANDA_FAMILY_WINDOWS = 1,
    PANDA_FAMILY_LINUX = 2,
    PANDA_FAMILY_FREEBSD = 3,
} PandaOsFamily;

/**
 * Name the guest's system as PANDA does: linux-64-debian:6.1.
 *
 * Family, bits and variant; the variant is the profile's group that is taken
 * if another is not named. Nothing else depends on it. NULL: it has no name.
 * PANDA_ERR_ARGUMENT if it is no such name.
 */
int panda_set_os_name(const char *name);

/** The name that was given, or the empty string. */
const char *panda_os_name(void);

/** Its last part, or the empty string. */
const char *panda_os_variant(void);

/** Its first part. */
PandaOsFamily panda_os_family(void);

/**
 * Take the kernel's layout from a profile, PANDA's kernelinfo.conf: a GLib key
 * file with a group for each kernel.
 *
 * Without a group it is the one that panda_set_os_name() names, if there is
 * such a group, else the one whose name is the guest's kernel's. The profile is
 * looked at when the kernel is looked for the next time, and checked against
 * memory; what does not fit is said by panda_os_attach(). What it does not have
 * is found as without one. NULL as path: no profile any more.
 * PANDA_ERR_ARGUMENT if the file or the group is not there, or is none.
 */
int panda_os_use_profile(const char *path, const char *group);

/**
 * What is known of the kernel's layout, as a profile; group is its name, or
 * NULL. NULL if the kernel is not found.
 */
const char *panda_os_profile(const char *group);

#endif
