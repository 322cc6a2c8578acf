/*
 * Paths: from a name up to the root, over mounts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"

#define DEEPEST 128
#define NAME_MAX_LEN 255

/* Names of what has no path: by its kind of file system. */
static bool special(uint64_t dentry, char *path, uint64_t size)
{
    uint64_t sb, type, name, inode, number = 0;
    char kind[32], text[64] = "";

    if (!os_get_word(dentry, OS_DENTRY_SB, &sb)
        || !os_get_word(sb, OS_SB_TYPE, &type)
        || !os_get_word(type, OS_FSTYPE_NAME, &name)
        || !os_read_string(name, kind, sizeof(kind))) {
        return false;
    }
    if (os_get_word(dentry, OS_DENTRY_INODE, &inode)) {
        os_get_word(inode, OS_INODE_INO, &number);
    }
    if (!strcmp(kind, "pipefs")) {
        snprintf(path, size, "pipe:[%" PRIu64 "]", number);
    } else if (!strcmp(kind, "sockfs")) {
        snprintf(path, size, "socket:[%" PRIu64 "]", number);
    } else if (!strcmp(kind, "anon_inodefs")) {
        if (os_get_word(dentry, OS_DENTRY_NAME, &name)) {
            os_read_string(name, text, sizeof(text));
        }
        snprintf(path, size, "anon_inode:%s", text);
    } else {
        return false;
    }
    return true;
}

/* A name that is no longer in its directory. */
static bool is_deleted(uint64_t dentry)
{
    uint64_t pprev, parent;

    return os_get_word(dentry, OS_DENTRY_PPREV, &pprev) && !pprev
        && os_get_word(dentry, OS_DENTRY_PARENT, &parent) && parent != dentry;
}

uint64_t os_path(uint64_t dentry, uint64_t mnt, char *path, uint64_t size)
{
    g_autofree char *buf = g_malloc(size + NAME_MAX_LEN + 2);
    uint64_t at = size;
    uint64_t first = dentry;

    if (special(dentry, path, size)) {
        return strlen(path);
    }
    buf[at] = 0;
    for (unsigned depth = 0; depth < DEEPEST; depth++) {
        uint64_t parent, root, name;
        char text[NAME_MAX_LEN + 1];
        size_t len;

        if (os_get_word(mnt, OS_VFSMOUNT_ROOT, &root) && root == dentry
            && os_knows(OS_MOUNT_MNT)) {
            uint64_t mount = mnt - os_offset(OS_MOUNT_MNT), above;

            if (!os_get_word(mount, OS_MOUNT_PARENT, &above)
                || above == mount
                || !os_get_word(mount, OS_MOUNT_POINT, &dentry)) {
                break;
            }
            mnt = above + os_offset(OS_MOUNT_MNT);
            continue;
        }
        if (!os_get_word(dentry, OS_DENTRY_PARENT, &parent)
            || parent == dentry || !os_is_kernel(parent)
            || !os_get_word(dentry, OS_DENTRY_NAME, &name)
            || !os_read_string(name, text, sizeof(text))) {
            break;
        }
        len = strlen(text);
        if (len + 1 > at) {
            break;
        }
        at -= len;
        memcpy(buf + at, text, len);
        buf[--at] = '/';
        dentry = parent;
    }
    snprintf(path, size, "%s%s", buf[at] ? buf + at : "/",
             is_deleted(first) ? " (deleted)" : "");
    return strlen(path);
}

bool os_file_path(uint64_t file, char *path, uint64_t size)
{
    uint64_t dentry, mnt;

    if (!os_get_word(file, OS_FILE_DENTRY, &dentry)
        || !os_get_word(file, OS_FILE_MNT, &mnt) || !os_is_kernel(dentry)) {
        return false;
    }
    os_path(dentry, mnt, path, size);
    return true;
}
