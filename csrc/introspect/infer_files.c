/*
 * Files without type information: what is mapped has a file, that a name, that
 * a directory, a file system and a mount.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer.h"

#define MAX_NAME 255
#define DEEPEST 64
#define FILE_REACH 192
#define INODE_REACH 160
#define DENTRY_REACH 256
#define VM_EXEC 4
#define S_TYPE 0170000
#define S_REGULAR 0100000
#define STRUCT_MOUNT_PARENT (2 * WORD)
#define STRUCT_MOUNT_POINT (3 * WORD)
#define STRUCT_MOUNT_MNT (4 * WORD)

void os_add_file(OsFiles *f, uint64_t file)
{
    for (unsigned i = 0; i < f->n; i++) {
        if (f->file[i] == file) {
            return;
        }
    }
    if (f->n < OS_MAX_LOOKED_AT) {
        f->file[f->n++] = file;
    }
}

/* ---- names ---- */

/* A name at an offset of a dentry: as long as is noted in front of it. */
static bool is_named(uint64_t dentry, int name, bool *inside)
{
    uint64_t at = os_peek(dentry, name);
    char text[MAX_NAME + 1];
    uint32_t len;

    *inside = at > dentry && at < dentry + DENTRY_REACH;
    return os_is_kernel(at)
        && os_read_u32(dentry + name - (os_memory.big_endian ? 8 : 4), &len)
        && len && len <= MAX_NAME && os_read_string(at, text, sizeof(text))
        && strlen(text) == len;
}

static bool is_path(const OsFiles *f, int path, int name)
{
    unsigned within = 0;

    for (unsigned i = 0; i < f->mapped; i++) {
        uint64_t mnt = os_peek(f->file[i], path);
        uint64_t dentry = os_peek(f->file[i], path + WORD);
        bool inside, other;

        if (!os_is_pointer(mnt) || !os_is_pointer(dentry)
            || !is_named(dentry, name, &inside)
            || !is_named(os_peek(mnt, 0), name, &other)) {
            return false;
        }
        within += inside;
    }
    return within * 2 > f->mapped;
}

static bool find_path(const OsFiles *f, int *path, int *name)
{
    for (*path = 0; *path < FILE_REACH; *path += WORD) {
        for (*name = 2 * WORD; *name < 16 * WORD; *name += WORD) {
            if (is_path(f, *path, *name)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- a mapping's file ---- */

static bool holds(uint64_t vma, uint64_t address)
{
    return address >= os_peek(vma, 0) && address < os_peek(vma, WORD);
}

/*
 * No file behind the stack, one behind the program's code. Where there is none,
 * the offset in front of it counts pages from address 0.
 */
static bool is_vm_file(const OsInference *in, int at, unsigned shift,
                       OsFiles *f)
{
    int arguments = os_offset(OS_MM_ARG_START);
    unsigned bare = 0, anchored = 0, code = 0;

    f->n = 0;
    for (unsigned i = 0; i < in->n_vmas; i++) {
        uint64_t vma = in->vma[i].vma, mm = in->vma[i].mm;
        uint64_t file = os_peek(vma, at), offset = os_peek(vma, at - WORD);

        if (!file) {
            bare++;
            anchored += offset && offset << shift == os_peek(vma, 0);
        } else if (!os_is_pointer(file) || file % WORD
                   || holds(vma, os_peek(mm, arguments))) {
            return false;
        } else {
            /* What can be executed is a regular file with a name. */
            if (os_peek(vma, os_offset(OS_VMA_FLAGS)) & VM_EXEC) {
                os_add_file(f, file);
            }
            code += holds(vma, os_peek(mm, arguments - 7 * WORD));
        }
    }
    f->mapped = f->n;
    /* Stack and vDSO are bare, but the kernel moved or made them otherwise. */
    return f->n && os_most(code, in->n_mms) && anchored
        && anchored + 4 * in->n_mms >= bare;
}

static bool find_vm_file(const OsInference *in, OsFiles *f, int *path,
                         int *name)
{
    /* Larger pages than 4 KB: the same numbers count more. */
    for (int i = 0; i < 48 * 5; i++) {
        int at = (3 + i % 48) * WORD;
        unsigned shift = 12 + i / 48;

        if (is_vm_file(in, at, shift, f) && find_path(f, path, name)) {
            os_layout.page_shift = shift;
            os_layout_set(OS_VMA_FILE, at, OS_INFERRED,
                          "none behind the stack, one behind the code; leads "
                          "to a name");
            os_layout_set(OS_VMA_PGOFF, at - WORD, OS_INFERRED,
                          "in front of vm_file; where there is no file, the "
                          "page number of the start");
            return true;
        }
    }
    return false;
}

/* ---- what is around a name ---- */

/* Up to a name that is its own parent, "/"; all on the way are names. */
static bool leads_to_root(uint64_t dentry, int parent, int name)
{
    for (unsigned depth = 0; depth < DEEPEST; depth++) {
        uint64_t above = os_peek(dentry, parent);
        bool inside;

        if (!os_is_pointer(above) || !is_named(dentry, name, &inside)) {
            return false;
        }
        if (above == dentry) {
            char text[2];

            return depth && os_read(os_peek(dentry, name), text, 2)
                && text[0] == '/' && !text[1];
        }
        dentry = above;
    }
    return false;
}

static bool find_parent(const OsFiles *f, int name, int *parent)
{
    /* struct qstr begins 8 bytes in front, perhaps aligned to 8. */
    for (*parent = name - 8 - WORD; *parent >= name - 16; *parent -= WORD) {
        unsigned good = 0;

        for (unsigned i = 0; i < f->mapped; i++) {
            good += leads_to_root(f->dentry[i], *parent, name);
        }
        if (good == f->mapped) {
            return true;
        }
    }
    return false;
}

/* Names in directories are hashed: what points to them is known. */
static void find_hash(const OsFiles *f, int parent)
{
    int at = parent - WORD;
    unsigned good = 0;

    for (unsigned i = 0; i < f->mapped; i++) {
        uint64_t pprev = os_peek(f->dentry[i], at);

        good += os_is_pointer(pprev)
            && (os_peek(pprev, 0) & ~1ull) == f->dentry[i] + at - WORD;
    }
    if (os_most(good, f->mapped)) {
        os_layout_set(OS_DENTRY_PPREV, at, OS_INFERRED,
                      "in front of d_parent; what it points to points back");
    }
}

/* What can be executed is a regular file: its inode begins with its mode. */
static bool is_d_inode(OsFiles *f, int at)
{
    for (unsigned i = 0; i < f->mapped; i++) {
        uint8_t mode[2];

        f->inode[i] = os_peek(f->dentry[i], at);
        if (!os_is_pointer(f->inode[i]) || !os_read(f->inode[i], mode, 2)
            || (os_u16_at(mode) & S_TYPE) != S_REGULAR) {
            return false;
        }
    }
    return true;
}

static bool find_inode(OsFiles *f, int name)
{
    /* struct qstr may end with padding to 8 bytes. */
    int inode = name + WORD;

    if (!is_d_inode(f, inode)) {
        inode += WORD;
        if (WORD == 8 || !is_d_inode(f, inode)) {
            return false;
        }
    }
    os_layout_set(OS_DENTRY_INODE, inode, OS_INFERRED,
                  "behind the name; of what is mapped, begins with the mode "
                  "of a regular file");
    os_layout_set(OS_INODE_MODE, 0, OS_INFERRED,
                  "a regular file, of all that is mapped");
    for (int at = 0; at < FILE_REACH; at += WORD) {
        unsigned good = 0;

        for (unsigned i = 0; i < f->mapped; i++) {
            good += os_peek(f->file[i], at) == f->inode[i];
        }
        if (good == f->mapped) {
            os_layout_set(OS_FILE_INODE, at, OS_INFERRED,
                          "the inode that the file's name has");
            break;
        }
    }
    return true;
}

/* A number per inode, no pointer. */
static bool is_ino(const OsFiles *f, int at)
{
    for (unsigned i = 0; i < f->mapped; i++) {
        uint64_t number = os_peek(f->inode[i], at);

        if (!number || os_is_kernel(number)) {
            return false;
        }
        for (unsigned k = 0; k < i; k++) {
            if (f->inode[k] != f->inode[i]
                && os_peek(f->inode[k], at) == number) {
                return false;
            }
        }
    }
    return true;
}

/* The file system, then a pointer into the inode itself (i_mapping). */
static bool is_i_sb(const OsFiles *f, int at)
{
    for (unsigned i = 0; i < f->mapped; i++) {
        uint64_t mapping = os_peek(f->inode[i], at + WORD);

        if (!os_is_pointer(os_peek(f->inode[i], at)) || mapping <= f->inode[i]
            || mapping > f->inode[i] + 2048) {
            return false;
        }
    }
    return true;
}

static bool is_sb_name(uint64_t sb, int type)
{
    static const char *const known[] = {
        "rootfs", "ramfs", "tmpfs", "devtmpfs", "proc", "sysfs", "ext2",
        "ext3", "ext4", "xfs", "btrfs", "squashfs", "overlay", "nfs", "jffs2",
        "ubifs", "vfat", "f2fs", "cramfs", "yaffs", "iso9660", "9p",
    };
    char name[16];

    if (!os_read_string(os_peek(os_peek(sb, type), 0), name, sizeof(name))) {
        return false;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        if (!strcmp(name, known[i])) {
            return true;
        }
    }
    return false;
}

static void find_sb(const OsFiles *f, int name)
{
    int i_sb = 16, d_sb = name + 2 * WORD;

    while (i_sb < INODE_REACH && !is_i_sb(f, i_sb)) {
        i_sb += WORD;
    }
    if (i_sb >= INODE_REACH) {
        return;
    }
    for (int at = i_sb + 2 * WORD; at <= i_sb + 3 * WORD; at += WORD) {
        if (is_ino(f, at)) {
            os_layout_set(OS_INODE_INO, at, OS_INFERRED,
                          "behind i_mapping; of each inode another, no "
                          "pointer");
            break;
        }
    }
    for (; d_sb < DENTRY_REACH; d_sb += WORD) {
        unsigned good = 0;

        for (unsigned i = 0; i < f->mapped; i++) {
            good += os_peek(f->dentry[i], d_sb) == os_peek(f->inode[i], i_sb);
        }
        if (good == f->mapped) {
            break;
        }
    }
    if (d_sb >= DENTRY_REACH) {
        return;
    }
    os_layout_set(OS_DENTRY_SB, d_sb, OS_INFERRED,
                  "equal to the inode's, which stands in front of i_mapping");
    for (int at = 4 * WORD; at < 12 * WORD; at += WORD) {
        unsigned good = 0;

        for (unsigned i = 0; i < f->mapped; i++) {
            good += is_sb_name(os_peek(f->dentry[i], d_sb), at);
        }
        if (good == f->mapped) {
            os_layout_set(OS_SB_TYPE, at, OS_INFERRED,
                          "leads to the name of a file system that is known");
            os_layout_set(OS_FSTYPE_NAME, 0, OS_INFERRED,
                          "the name of a file system that is known");
            return;
        }
    }
}

/* ---- mounts ---- */

static bool is_mounted(uint64_t mnt, int name)
{
    uint64_t mount = mnt - STRUCT_MOUNT_MNT;

    for (unsigned depth = 0; depth < DEEPEST; depth++) {
        uint64_t above = os_peek(mount, STRUCT_MOUNT_PARENT);
        bool inside;

        if (!os_is_pointer(above)
            || !is_named(os_peek(mount, STRUCT_MOUNT_POINT), name, &inside)
            || !is_named(os_peek(mount, STRUCT_MOUNT_MNT), name, &inside)) {
            return false;
        }
        if (above == mount) {
            return true;
        }
        mount = above;
    }
    return false;
}

static void find_mounts(const OsFiles *f, int name)
{
    static const char why[] = "never changed; up to a mount that is its own "
        "parent, each on a name";

    for (unsigned i = 0; i < f->mapped; i++) {
        if (!is_mounted(f->mnt[i], name)) {
            return;
        }
    }
    os_layout_set(OS_VFSMOUNT_ROOT, 0, OS_CONSTANT, why);
    os_layout_set(OS_MOUNT_PARENT, STRUCT_MOUNT_PARENT, OS_CONSTANT, why);
    os_layout_set(OS_MOUNT_POINT, STRUCT_MOUNT_POINT, OS_CONSTANT, why);
    os_layout_set(OS_MOUNT_MNT, STRUCT_MOUNT_MNT, OS_CONSTANT, why);
}

/* ---- a process' program ---- */

uint64_t os_code_file(const OsInference *in, uint64_t mm)
{
    uint64_t code = os_peek(mm, os_offset(OS_MM_ARG_START) - 7 * WORD);

    for (unsigned i = 0; i < in->n_vmas; i++) {
        if (in->vma[i].mm == mm && holds(in->vma[i].vma, code)) {
            return os_peek(in->vma[i].vma, os_offset(OS_VMA_FILE));
        }
    }
    return 0;
}

static void find_exe(const OsInference *in)
{
    for (int at = os_offset(OS_MM_ARG_START) + 4 * WORD; at < 2048;
         at += WORD) {
        unsigned good = 0;

        for (unsigned i = 0; i < in->n_mms; i++) {
            uint64_t file = os_peek(in->mm[i], at);

            good += os_is_pointer(file) && file == os_code_file(in, in->mm[i]);
        }
        if (os_most(good, in->n_mms)) {
            os_layout_set(OS_MM_EXE_FILE, at, OS_INFERRED,
                          "the file that is mapped where the code starts, in "
                          "all processes");
            return;
        }
    }
}

void os_infer_files(OsInference *in)
{
    g_autofree OsFiles *f = g_new0(OsFiles, 1);
    int path, name, parent;

    if (!in->n_vmas || !os_knows(OS_VMA_FLAGS)
        || !find_vm_file(in, f, &path, &name)) {
        return;
    }
    for (unsigned i = 0; i < f->mapped; i++) {
        f->mnt[i] = os_peek(f->file[i], path);
        f->dentry[i] = os_peek(f->file[i], path + WORD);
    }
    os_layout_set(OS_FILE_MNT, path, OS_INFERRED,
                  "in front of the file's name; leads to one too");
    os_layout_set(OS_FILE_DENTRY, path + WORD, OS_INFERRED,
                  "of all files that are mapped, has a name");
    os_layout_set(OS_DENTRY_NAME, name, OS_INFERRED,
                  "a string, mostly in the dentry itself, as long as the "
                  "number in front of it says");
    find_exe(in);
    if (!find_parent(f, name, &parent)) {
        return;
    }
    os_layout_set(OS_DENTRY_PARENT, parent, OS_INFERRED,
                  "in front of the name; up to one named / that is its own "
                  "parent");
    find_hash(f, parent);
    find_mounts(f, name);
    if (find_inode(f, name)) {
        find_sb(f, name);
    }
    os_infer_opened(in, f);
}
