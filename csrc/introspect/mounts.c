/*
 * What is mounted: the tree of mounts below a process' root.
 *
 * The tree is the same in all versions, unlike the lists and trees of a
 * namespace, and what cannot be reached from the root is not shown by the
 * kernel either.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "panda/os_kernel.h"

#define MAX_MOUNTS 4096u
#define DEEPEST 128

typedef struct Tree {
    /* Addresses of struct mount, in the order they are found in. */
    GArray *found;
    GHashTable *seen;
    uint64_t above;
    bool broken;
} Tree;

static bool knows_mounts(void)
{
    static const OsField needed[] = {
        OS_TASK_FS, OS_FS_ROOT_MNT, OS_FS_ROOT_DENTRY, OS_MOUNT_PARENT,
        OS_MOUNT_POINT, OS_MOUNT_MNT, OS_MOUNT_MOUNTS, OS_MOUNT_CHILD,
        OS_MOUNT_DEVNAME, OS_VFSMOUNT_ROOT, OS_VFSMOUNT_SB,
        OS_VFSMOUNT_FLAGS, OS_SB_TYPE, OS_SB_FLAGS, OS_FSTYPE_NAME,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++) {
        if (!os_knows(needed[i])) {
            return false;
        }
    }
    return true;
}

/* The root of a task; a negative PandaStatus with the reason. */
static int root_of(uint64_t task, uint64_t *mount, uint64_t *dentry)
{
    uint64_t fs, mnt;
    int status = os_require();

    if (status != PANDA_OK) {
        return status;
    }
    if (!knows_mounts()) {
        os_infer_again();
    }
    if (!knows_mounts()) {
        return panda_fail(PANDA_ERR_OS, "where this kernel has its mounts is "
                          "not known: it has no type information (BTF), and "
                          "they cannot be made out");
    }
    if (!os_is_task(task) || !os_get_word(task, OS_TASK_FS, &fs)
        || !os_is_kernel(fs) || !os_get_word(fs, OS_FS_ROOT_MNT, &mnt)
        || !os_is_kernel(mnt) || !os_get_word(fs, OS_FS_ROOT_DENTRY, dentry)) {
        return panda_fail(PANDA_ERR_OS, "there is no process with a root at "
                          "0x%" PRIx64 ": it may have ended", task);
    }
    *mount = mnt - os_offset(OS_MOUNT_MNT);
    return PANDA_OK;
}

/* Is a name the root's own, or below it in the same file system? */
static bool is_inside(uint64_t dentry, uint64_t root)
{
    for (unsigned depth = 0; depth < DEEPEST; depth++) {
        uint64_t parent;

        if (dentry == root) {
            return true;
        }
        if (!os_get_word(dentry, OS_DENTRY_PARENT, &parent)
            || parent == dentry || !os_is_kernel(parent)) {
            return false;
        }
        dentry = parent;
    }
    return false;
}

static bool add_mount(uint64_t mount, void *opaque)
{
    Tree *tree = opaque;
    uint64_t parent;

    if (!os_get_word(mount, OS_MOUNT_PARENT, &parent)
        || parent != tree->above
        || g_hash_table_contains(tree->seen, GSIZE_TO_POINTER(mount))
        || tree->found->len >= MAX_MOUNTS) {
        tree->broken = true;
        return false;
    }
    g_hash_table_add(tree->seen, GSIZE_TO_POINTER(mount));
    g_array_append_val(tree->found, mount);
    return true;
}

/* All below a mount, and the mount itself; NULL: the tree is broken. */
static GArray *tree_below(uint64_t root)
{
    Tree tree = {
        .found = g_array_new(FALSE, FALSE, sizeof(uint64_t)),
        .seen = g_hash_table_new(NULL, NULL),
    };

    g_array_append_val(tree.found, root);
    g_hash_table_add(tree.seen, GSIZE_TO_POINTER(root));
    for (unsigned i = 0; i < tree.found->len && !tree.broken; i++) {
        tree.above = g_array_index(tree.found, uint64_t, i);
        if (!os_for_each_node(tree.above + os_offset(OS_MOUNT_MOUNTS),
                              os_offset(OS_MOUNT_CHILD), add_mount, &tree)) {
            tree.broken = true;
        }
    }
    g_hash_table_destroy(tree.seen);
    if (tree.broken) {
        g_array_free(tree.found, TRUE);
        return NULL;
    }
    return tree.found;
}

static bool fill_mount(uint64_t mount, PandaMount *out)
{
    uint64_t mnt = mount + os_offset(OS_MOUNT_MNT), sb, type, name, flags;
    char subtype[32];
    size_t len;

    *out = (PandaMount) { .mount = mount };
    if (!os_get_word(mount, OS_MOUNT_PARENT, &out->parent)
        || !os_get_u32(mnt, OS_VFSMOUNT_FLAGS, &out->flags)
        || !os_get_word(mnt, OS_VFSMOUNT_SB, &sb)
        || !os_get_word(sb, OS_SB_FLAGS, &flags)
        || !os_get_word(sb, OS_SB_TYPE, &type)
        || !os_get_word(type, OS_FSTYPE_NAME, &name)
        || !os_read_string(name, out->type, sizeof(out->type))) {
        return false;
    }
    out->sb_flags = flags;
    if (os_get_word(sb, OS_SB_SUBTYPE, &name) && name
        && os_read_string(name, subtype, sizeof(subtype)) && subtype[0]) {
        len = strlen(out->type);
        snprintf(out->type + len, sizeof(out->type) - len, ".%s", subtype);
    }
    return true;
}

static bool is_top(uint64_t mount, uint64_t dentry)
{
    uint64_t top;

    return os_get_word(mount + os_offset(OS_MOUNT_MNT), OS_VFSMOUNT_ROOT,
                       &top) && top == dentry;
}

/* Can it not be reached from the root, a name on a mount? */
static bool is_beside(const PandaMount *one, uint64_t root, uint64_t dentry,
                      GHashTable *beside)
{
    uint64_t point;

    if (one->mount == root) {
        return false;
    }
    if (one->parent == root) {
        return !os_get_word(one->mount, OS_MOUNT_POINT, &point)
            || !is_inside(point, dentry);
    }
    return g_hash_table_contains(beside, GSIZE_TO_POINTER(one->parent));
}

int64_t panda_os_mounts(uint64_t task, PandaMount *mounts, uint64_t n)
{
    OS_LOCK_GUARD();
    uint64_t root, dentry, count = 0;
    int status = root_of(task, &root, &dentry);
    /* Those that are beside the root, and what is on them. */
    g_autoptr(GHashTable) beside = NULL;
    GArray *found;

    if (status != PANDA_OK) {
        return status;
    }
    found = tree_below(root);
    if (!found) {
        return panda_fail(PANDA_ERR_OS, "the guest's tree of mounts is "
                          "broken");
    }
    beside = g_hash_table_new(NULL, NULL);
    for (unsigned i = 0; i < found->len; i++) {
        uint64_t mount = g_array_index(found, uint64_t, i);
        PandaMount one;

        if (!fill_mount(mount, &one)) {
            continue;
        }
        if (is_beside(&one, root, dentry, beside)) {
            g_hash_table_add(beside, GSIZE_TO_POINTER(mount));
            continue;
        }
        /* The root's own mount is seen if the root is its top. */
        if (mount == root && !is_top(mount, dentry)) {
            continue;
        }
        if (count < n) {
            mounts[count] = one;
        }
        count++;
    }
    g_array_free(found, TRUE);
    return count;
}

/* Is it a struct mount? It may be none any more. */
static int check_mount(uint64_t mount)
{
    int status = os_require();
    PandaMount one;

    if (status != PANDA_OK) {
        return status;
    }
    return knows_mounts() && os_is_kernel(mount) && fill_mount(mount, &one)
        ? PANDA_OK
        : panda_fail(PANDA_ERR_OS, "nothing is mounted with a struct mount "
                     "at 0x%" PRIx64, mount);
}

int64_t panda_os_mount_source(uint64_t mount, char *text, uint64_t size)
{
    OS_LOCK_GUARD();
    int status = check_mount(mount);
    uint64_t name;

    if (status != PANDA_OK) {
        return status;
    }
    if (!size || !os_get_word(mount, OS_MOUNT_DEVNAME, &name) || !name
        || !os_read_string(name, text, size)) {
        return size ? snprintf(text, size, "none") : 0;
    }
    return strlen(text);
}

int64_t panda_os_mount_path(uint64_t task, uint64_t mount, char *path,
                            uint64_t size)
{
    OS_LOCK_GUARD();
    uint64_t root, dentry, top, mnt = mount + os_offset(OS_MOUNT_MNT), len;
    g_autofree char *prefix = g_malloc0(size + 1);
    int status = root_of(task, &root, &dentry);

    if (status == PANDA_OK) {
        status = check_mount(mount);
    }
    if (status != PANDA_OK || !size) {
        return status;
    }
    if (mount == root) {
        return snprintf(path, size, "/");
    }
    if (!os_get_word(mnt, OS_VFSMOUNT_ROOT, &top)) {
        return panda_fail(PANDA_ERR_OS, "the mount cannot be read");
    }
    os_path(top, mnt, path, size);
    /* Paths are those from the root of all; the process' may be below it. */
    os_path(dentry, root + os_offset(OS_MOUNT_MNT), prefix, size);
    len = strlen(prefix);
    if (len > 1 && !strncmp(path, prefix, len)
        && (path[len] == '/' || !path[len])) {
        memmove(path, path + len, strlen(path + len) + 1);
        if (!path[0]) {
            g_strlcpy(path, "/", size);
        }
    }
    return strlen(path);
}
