/*
 * Mounts without type information: from the root of processes on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer.h"

#define MAX_TREE 64
#define MAX_RING 256
#define FS_REACH 64
#define MOUNT_REACH (20 * WORD)
#define SB_REACH 1024
#define SB_SIZE 4096
/* SB_BORN and SB_ACTIVE: of every file system that is mounted. */
#define SB_ALIVE 0x60000000u
#define MNT_FLAGS 0x1fffffffu

static uint64_t sb_of(uint64_t dentry)
{
    uint64_t sb;

    return os_get_word(dentry, OS_DENTRY_SB, &sb) && os_is_pointer(sb) ? sb
                                                                       : 0;
}

/* ---- the root of a process ---- */

/* A vfsmount: its top, and behind it the file system that the top is in. */
static bool is_vfsmount(uint64_t mnt)
{
    uint64_t sb = os_is_pointer(mnt) ? sb_of(os_peek(mnt, 0)) : 0;

    return sb && os_peek(mnt, WORD) == sb;
}

/* A mount, and a name in its file system. */
static bool is_place(uint64_t fs, int at)
{
    uint64_t mnt = os_peek(fs, at), dentry = os_peek(fs, at + WORD);

    return is_vfsmount(mnt) && os_is_pointer(dentry)
        && sb_of(dentry) == os_peek(mnt, WORD);
}

/* Two places, the root and the working directory; a user process' root mount. */
static uint64_t find_root(const OsInference *in)
{
    for (int at = 4; at < FS_REACH; at += 4) {
        unsigned good = 0, n = 0;
        uint64_t root = 0;

        if (at % WORD) {
            continue;
        }
        for (unsigned row = 0; row < in->n; row++) {
            uint64_t fs;

            if (in->kernel_thread[row]
                || !os_get_word(in->comm[row] + in->start, OS_TASK_FS, &fs)
                || !os_is_pointer(fs)) {
                continue;
            }
            n++;
            if (is_place(fs, at) && is_place(fs, at + 2 * WORD)) {
                good++;
                root = root ?: os_peek(fs, at);
            }
        }
        if (n && good == n) {
            static const char why[] = "two mounts with names in their file "
                "systems in a row, in all user processes";

            os_layout_set(OS_FS_ROOT_MNT, at, OS_INFERRED, why);
            os_layout_set(OS_FS_ROOT_DENTRY, at + WORD, OS_INFERRED, why);
            os_layout_set(OS_FS_PWD_MNT, at + 2 * WORD, OS_INFERRED, why);
            os_layout_set(OS_FS_PWD_DENTRY, at + 3 * WORD, OS_INFERRED, why);
            return root;
        }
    }
    return 0;
}

/* ---- the tree ---- */

typedef struct Tree {
    unsigned n;
    uint64_t mount[MAX_TREE];
} Tree;

/* The nodes of a list that leads back, each at an offset of a mount. */
static bool add_children(Tree *tree, uint64_t mount, int head, int node)
{
    uint64_t at = mount + head;

    for (unsigned i = 0; i < MAX_RING; i++) {
        uint64_t next = os_peek(at, 0), child = next - node, parent;

        if (!os_is_pointer(next) || os_peek(next, WORD) != at) {
            return false;
        }
        if (next == mount + head) {
            return true;
        }
        if (!os_get_word(child, OS_MOUNT_PARENT, &parent) || parent != mount
            || !is_vfsmount(child + os_offset(OS_MOUNT_MNT))) {
            return false;
        }
        if (tree->n < MAX_TREE) {
            tree->mount[tree->n++] = child;
        }
        at = next;
    }
    return false;
}

static bool fill_tree(Tree *tree, uint64_t root, int head)
{
    tree->n = 1;
    tree->mount[0] = root;
    for (unsigned i = 0; i < tree->n; i++) {
        if (!add_children(tree, tree->mount[i], head, head + 2 * WORD)) {
            return false;
        }
    }
    return tree->n > 1;
}

/* The list of all mounts of a file system: it goes through the file system. */
static bool is_instance(uint64_t mount, int node, uint64_t sb)
{
    uint64_t start = mount + node, at = start;
    bool through = false;

    for (unsigned i = 0; i < MAX_RING; i++) {
        uint64_t next = os_peek(at, 0);

        if (!os_is_pointer(next) || os_peek(next, WORD) != at) {
            return false;
        }
        through |= next > sb && next < sb + SB_SIZE;
        if (next == start) {
            return through;
        }
        at = next;
    }
    return false;
}

/*
 * Since Linux 6.18: the next one, and back to where the pointer to this one is,
 * whose lowest bit is a flag; that of the first is in the file system.
 */
static bool is_chained(uint64_t mount, int node, uint64_t sb)
{
    for (unsigned i = 0; i < MAX_RING; i++) {
        uint64_t back = os_peek(mount, node + WORD) & ~1ull;
        uint64_t next = os_peek(mount, node);

        if (!os_is_pointer(back) || os_peek(back, 0) != mount
            || (next && (!os_is_pointer(next)
                         || (os_peek(next, node + WORD) & ~1ull)
                         != mount + node))) {
            return false;
        }
        if (back > sb && back < sb + SB_SIZE) {
            return true;
        }
        mount = back - node;
    }
    return false;
}

static bool is_source(uint64_t mount, int at)
{
    uint64_t name = os_peek(mount, at);
    char text[128];

    if (!name) {
        return true;
    }
    if (!os_is_pointer(name) || !os_read_string(name, text, sizeof(text))
        || !text[0]) {
        return false;
    }
    for (const char *c = text; *c; c++) {
        if ((uint8_t)*c < 32 || *c == 127) {
            return false;
        }
    }
    return true;
}

static bool find_tree(Tree *tree, uint64_t root)
{
    for (int head = os_offset(OS_MOUNT_MNT) + 3 * WORD; head < MOUNT_REACH;
         head += WORD) {
        int node = head + 2 * WORD, source = head + 6 * WORD;
        bool good = fill_tree(tree, root, head);

        for (unsigned i = 0; good && i < tree->n; i++) {
            uint64_t sb = os_peek(tree->mount[i],
                               os_offset(OS_MOUNT_MNT) + WORD);

            good = (is_instance(tree->mount[i], head + 4 * WORD, sb)
                    || is_chained(tree->mount[i], head + 4 * WORD, sb))
                && is_source(tree->mount[i], source);
        }
        if (good) {
            os_layout_set(OS_MOUNT_MOUNTS, head, OS_INFERRED,
                          "a list that leads back; all in it have this mount "
                          "as their parent");
            os_layout_set(OS_MOUNT_CHILD, node, OS_INFERRED,
                          "in the list of the parent");
            os_layout_set(OS_MOUNT_DEVNAME, source, OS_INFERRED,
                          "a text, behind a list that goes through the file "
                          "system");
            return true;
        }
    }
    return false;
}

/* ---- the file system ---- */

/* What kinds of file systems have as their number; 0: it is not known. */
static uint32_t magic_of(const char *kind)
{
    static const struct {
        const char *kind;
        uint32_t magic;
    } known[] = {
        { "proc", 0x9fa0 }, { "sysfs", 0x62656572 },
        { "tmpfs", 0x01021994 }, { "devtmpfs", 0x01021994 },
        { "ext2", 0xef53 }, { "ext3", 0xef53 }, { "ext4", 0xef53 },
        { "squashfs", 0x73717368 }, { "ramfs", 0x858458f6 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        if (!strcmp(known[i].kind, kind)) {
            return known[i].magic;
        }
    }
    return 0;
}

/* The top of it, in front of which its number is, and two words before, flags. */
static bool is_top(const Tree *tree, int at)
{
    unsigned known = 0;

    for (unsigned i = 0; i < tree->n; i++) {
        uint64_t sb = os_peek(tree->mount[i], os_offset(OS_MOUNT_MNT) + WORD);
        uint64_t top = os_peek(sb, at), name;
        uint32_t magic = os_peek(sb, at - WORD);
        char kind[16];

        if (!os_is_pointer(top) || sb_of(top) != sb
            || os_peek(top, os_offset(OS_DENTRY_PARENT)) != top
            || (os_peek(sb, at - 3 * WORD) & SB_ALIVE) != SB_ALIVE
            || !os_get_word(os_peek(sb, os_offset(OS_SB_TYPE)), OS_FSTYPE_NAME,
                            &name)
            || !os_read_string(name, kind, sizeof(kind))) {
            return false;
        }
        if (magic_of(kind)) {
            if (magic != magic_of(kind)) {
                return false;
            }
            known++;
        }
    }
    return known;
}

static void find_flags(const Tree *tree)
{
    for (unsigned i = 0; i < tree->n; i++) {
        uint32_t flags;

        if (!os_read_u32(tree->mount[i] + os_offset(OS_MOUNT_MNT) + 2 * WORD,
                         &flags)
            || flags & ~MNT_FLAGS) {
            return;
        }
    }
    for (int at = os_offset(OS_SB_TYPE) + WORD; at < SB_REACH; at += WORD) {
        if (is_top(tree, at)) {
            os_layout_set(OS_SB_FLAGS, at - 3 * WORD, OS_INFERRED,
                          "in front of the number of its kind and its top; "
                          "all are in use");
            os_layout_set(OS_VFSMOUNT_FLAGS, 2 * WORD, OS_INFERRED,
                          "behind the file system; no bits but flags");
            return;
        }
    }
}

void os_infer_mounts(const OsInference *in)
{
    g_autofree Tree *tree = g_new0(Tree, 1);
    uint64_t root;

    if (!os_knows(OS_TASK_FS) || !os_knows(OS_MOUNT_MNT)
        || !os_knows(OS_DENTRY_SB) || !os_knows(OS_SB_TYPE)) {
        return;
    }
    root = find_root(in);
    if (!root) {
        return;
    }
    os_layout_set(OS_VFSMOUNT_SB, WORD, OS_INFERRED,
                  "the file system that the mount's top is in");
    if (find_tree(tree, root - os_offset(OS_MOUNT_MNT))) {
        find_flags(tree);
    }
}
