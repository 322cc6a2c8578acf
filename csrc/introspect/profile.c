/*
 * Profiles of kernels: PANDA's kernelinfo.conf, read and written.
 *
 * A GLib key file with a group for each kernel. What PANDA has no key for is in
 * keys that begin with `pandalite.`, the structure and the field.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "introspect/btf.h"
#include "panda/os_kernel.h"

#define OWN "pandalite."
#define UTS_FIELD 65

/* A key of PANDA's that is a field of ours. */
static const struct {
    const char *key;
    OsField field;
} keys[] = {
    { "task.tasks_offset", OS_TASK_TASKS },
    { "task.pid_offset", OS_TASK_PID },
    { "task.tgid_offset", OS_TASK_TGID },
    { "task.group_leader_offset", OS_TASK_GROUP_LEADER },
    { "task.real_parent_offset", OS_TASK_REAL_PARENT },
    { "task.mm_offset", OS_TASK_MM },
    { "task.stack_offset", OS_TASK_STACK },
    { "task.cred_offset", OS_TASK_CRED },
    { "task.comm_offset", OS_TASK_COMM },
    { "task.files_offset", OS_TASK_FILES },
    { "task.start_time_offset", OS_TASK_START_TIME },
    { "cred.uid_offset", OS_CRED_UID },
    { "cred.gid_offset", OS_CRED_GID },
    { "cred.euid_offset", OS_CRED_EUID },
    { "cred.egid_offset", OS_CRED_EGID },
    { "mm.mmap_offset", OS_MM_MMAP },
    { "mm.pgd_offset", OS_MM_PGD },
    { "mm.arg_start_offset", OS_MM_ARG_START },
    { "mm.start_brk_offset", OS_MM_START_BRK },
    { "mm.brk_offset", OS_MM_BRK },
    { "mm.start_stack_offset", OS_MM_START_STACK },
    { "vma.vm_mm_offset", OS_VMA_MM },
    { "vma.vm_start_offset", OS_VMA_START },
    { "vma.vm_end_offset", OS_VMA_END },
    { "vma.vm_next_offset", OS_VMA_NEXT },
    { "vma.vm_flags_offset", OS_VMA_FLAGS },
    { "vma.vm_file_offset", OS_VMA_FILE },
    { "fs.f_path_dentry_offset", OS_FILE_DENTRY },
    { "fs.f_path_mnt_offset", OS_FILE_MNT },
    { "fs.f_pos_offset", OS_FILE_POS },
    { "fs.fdt_offset", OS_FILES_FDT },
    { "fs.fd_offset", OS_FDT_FD },
    { "path.d_parent_offset", OS_DENTRY_PARENT },
    { "path.mnt_root_offset", OS_VFSMOUNT_ROOT },
};

/* Keys that only PANDA needs, written where type information has them. */
static const struct {
    const char *key;
    const char *structure;
    const char *field;
} extra_keys[] = {
    { "task.thread_group_offset", "task_struct", "thread_group" },
    { "task.parent_offset", "task_struct", "parent" },
    { "task.real_cred_offset", "task_struct", "real_cred" },
    { "fs.fdtab_offset", "files_struct", "fdtab" },
    { "path.d_iname_offset", "dentry", "d_iname" },
    { "path.d_op_offset", "dentry", "d_op" },
    { "path.d_dname_offset", "dentry_operations", "d_dname" },
    { "task.size", "task_struct", NULL },
    { "mm.size", "mm_struct", NULL },
    { "vma.size", "vm_area_struct", NULL },
    { "qstr.size", "qstr", NULL },
};

static const struct {
    const char *key;
    uint32_t *value;
} own_numbers[] = {
    { OWN "module_memory_size", &os_layout.module_memory_size },
    { OWN "module_memory_count", &os_layout.module_memory_count },
};

static GKeyFile *file;
static char *path, *group;
static char message[512];

bool os_profile_given(void)
{
    return file;
}

bool os_uts_text(unsigned index, char *buf, size_t size)
{
    uint64_t uts;
    char name[6];

    if (!os_vmcoreinfo_hex("SYMBOL(init_uts_ns)", &uts)
        && !os_symbol("init_uts_ns", &uts)) {
        return false;
    }
    /* A counter of 4 or 8 bytes may be in front. */
    for (unsigned front = 0; front <= 8; front += 4) {
        if (os_read(uts + front, name, sizeof(name))
            && !memcmp(name, "Linux", 6)) {
            return os_read_string(uts + front + index * UTS_FIELD, buf,
                                  MIN(size, UTS_FIELD));
        }
    }
    return false;
}

/* ---- reading ---- */

/* The key of a field that PANDA has none for. */
static char *own_key(OsField field)
{
    const char *name = os_field_name(field);

    return g_strdup_printf(OWN "%s.%.*s", os_field_structure(field),
                           (int)strcspn(name, "|"), name);
}

/* A number; false: the key is not there, or (with an error) it is none. */
static bool number(const char *in, const char *key, int64_t *value,
                   bool *wrong)
{
    g_autofree char *text = g_key_file_get_string(file, in, key, NULL);
    char *end;

    if (!text) {
        return false;
    }
    g_strstrip(text);
    *value = g_str_has_prefix(text, "-") ? g_ascii_strtoll(text, &end, 0)
                                         : g_ascii_strtoull(text, &end, 0);
    if (end == text || *end) {
        snprintf(message, sizeof(message), "the kernel profile %s has no "
                 "number as %s in [%s], but '%.40s'", path, key, in, text);
        *wrong = true;
        return false;
    }
    return true;
}

static bool offset(const char *in, const char *key, int32_t *value,
                   bool *wrong)
{
    int64_t wide;

    if (!number(in, key, &wide, wrong)) {
        return false;
    }
    *value = wide;
    if (wide < -4096 || wide > 65536) {
        snprintf(message, sizeof(message), "the kernel profile %s has no "
                 "offset as %s in [%s], but %" PRId64, path, key, in, wide);
        *wrong = true;
        return false;
    }
    return true;
}

static void set(OsField field, int32_t value)
{
    os_layout_set(field, value, OS_PROFILE, NULL);
}

/* False: a value is none; the message says so. */
static bool read_group(const char *in)
{
    bool wrong = false;
    int32_t value, more;

    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        /* Those who write profiles by hand say -1 of what there is not. */
        if (offset(in, keys[i].key, &value, &wrong) && value >= 0) {
            set(keys[i].field, value);
        }
    }
    if (offset(in, "path.d_name_offset", &value, &wrong)
        && offset(in, "qstr.name_offset", &more, &wrong)) {
        set(OS_DENTRY_NAME, value + more);
    }
    /* From the part of struct mount that files refer to. */
    if (offset(in, "path.mnt_parent_offset", &value, &wrong)
        && offset(in, "path.mnt_mountpoint_offset", &more, &wrong)) {
        set(OS_MOUNT_MNT, 0);
        set(OS_MOUNT_PARENT, value);
        set(OS_MOUNT_POINT, more);
    }
    for (OsField f = 0; f < OS_FIELDS_COUNT; f++) {
        g_autofree char *key = own_key(f);

        if (offset(in, key, &value, &wrong) && value >= 0) {
            set(f, value);
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(own_numbers); i++) {
        if (offset(in, own_numbers[i].key, &value, &wrong)) {
            *own_numbers[i].value = value;
        }
    }
    if (offset(in, OWN "page_shift", &value, &wrong)) {
        os_layout.page_shift = value;
    }
    if (offset(in, OWN "pfn_shift", &value, &wrong)) {
        os_layout.pfn_shift = value;
    }
    os_layout.maple = os_knows(OS_MM_ROOT);
    return !wrong;
}

/*
 * The group for a kernel: that which the system's name names, or called as its
 * release, or with its name in `name`.
 */
static char *find_group(const char *release)
{
    g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);
    const char *variant = panda_os_variant();
    char version[UTS_FIELD] = "";

    if (variant[0] && g_key_file_has_group(file, variant)) {
        return g_strdup(variant);
    }
    os_uts_text(3, version, sizeof(version));
    for (unsigned exact = 2; exact-- > 0; ) {
        for (unsigned i = 0; groups[i]; i++) {
            g_autofree char *name =
                g_key_file_get_string(file, groups[i], "name", NULL);
            g_auto(GStrv) part = g_strsplit(name ?: "", "|", 3);
            bool same = part[0] && !strcmp(g_strstrip(part[0]), release);
            bool same_version = name && version[0] && strstr(name, version);

            if (exact ? same && same_version
                      : same || same_version || !strcmp(groups[i], release)) {
                return g_strdup(groups[i]);
            }
        }
    }
    return NULL;
}

/* What the profile does not have is found as without one. */
static void fill_gaps(CPUState *cs)
{
    OsLayout given = os_layout;
    bool list = os_knows(OS_MM_MMAP), tree = os_knows(OS_MM_ROOT);

    os_layout_clear();
    if (!os_layout_from_btf()) {
        os_layout_infer(cs);
    }
    if (list != tree) {
        /* Mappings are in one of them. */
        os_layout.field[list ? OS_MM_ROOT : OS_MM_MMAP] = (OsOffset) {};
        os_layout.maple = tree;
    }
    /* Relative to another place: all of them, or none. */
    if (given.field[OS_MOUNT_MNT].source != OS_UNKNOWN
        && !given.field[OS_MOUNT_MNT].offset) {
        for (OsField f = OS_MOUNT_MOUNTS; f <= OS_MOUNT_DEVNAME; f++) {
            int32_t real = os_layout.field[OS_MOUNT_MNT].offset;

            os_layout.field[f].offset -= real;
        }
    }
    for (OsField f = 0; f < OS_FIELDS_COUNT; f++) {
        if (given.field[f].source != OS_UNKNOWN) {
            os_layout.field[f] = given.field[f];
        }
    }
    if (given.module_memory_size) {
        os_layout.module_memory_size = given.module_memory_size;
        os_layout.module_memory_count = given.module_memory_count;
    }
    os_layout.page_shift = given.page_shift ?: os_layout.page_shift;
    os_layout.pfn_shift = given.pfn_shift ?: os_layout.pfn_shift;
}

const char *os_profile_apply(CPUState *cs, const char *release)
{
    static const OsField needed[] = {
        OS_TASK_TASKS, OS_TASK_PID, OS_TASK_TGID, OS_TASK_REAL_PARENT,
        OS_TASK_MM, OS_TASK_COMM,
    };
    g_autofree char *in = group ? g_strdup(group) : find_group(release);
    const char *why;

    if (!in) {
        snprintf(message, sizeof(message), "the kernel profile %s has no "
                 "group whose name says '%s': give one as kconf_group", path,
                 release);
        return message;
    }
    os_layout_clear();
    if (!read_group(in)) {
        return message;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++) {
        if (!os_knows(needed[i])) {
            snprintf(message, sizeof(message), "the kernel profile %s has no "
                     "task.%s_offset in [%s]", path, os_field_name(needed[i]),
                     in);
            return message;
        }
    }
    why = os_profile_check();
    if (why) {
        snprintf(message, sizeof(message), "the kernel profile [%s] of %s "
                 "does not fit the guest's kernel (%s): %s", in, path, release,
                 why);
        os_layout_clear();
        return message;
    }
    fill_gaps(cs);
    return NULL;
}

static void forget(void)
{
    if (file) {
        g_key_file_free(file);
        file = NULL;
    }
    g_free(path);
    g_free(group);
    path = group = NULL;
}

int panda_os_use_profile(const char *new_path, const char *new_group)
{
    OS_LOCK_GUARD();
    g_autoptr(GError) error = NULL;
    GKeyFile *new = NULL;

    if (new_path) {
        new = g_key_file_new();
        if (!g_key_file_load_from_file(new, new_path, G_KEY_FILE_NONE,
                                       &error)) {
            g_key_file_free(new);
            return panda_fail(PANDA_ERR_ARGUMENT, "the kernel profile %s "
                              "cannot be read: %s", new_path, error->message);
        }
        if (new_group && !g_key_file_has_group(new, new_group)) {
            g_auto(GStrv) groups = g_key_file_get_groups(new, NULL);
            g_autofree char *all = g_strjoinv(", ", groups);

            g_key_file_free(new);
            return panda_fail(PANDA_ERR_ARGUMENT, "the kernel profile %s has "
                              "no group '%s': it has %s", new_path, new_group,
                              all[0] ? all : "none");
        }
    }
    forget();
    file = new;
    path = g_strdup(new_path);
    group = g_strdup(new_group);
    os_detach();
    return PANDA_OK;
}

/* ---- writing ---- */

static void put(GKeyFile *out, const char *in, const char *key, int64_t value)
{
    g_key_file_set_int64(out, in, key, value);
}

static void put_symbol(GKeyFile *out, const char *in, const char *key,
                       const char *name)
{
    uint64_t address;

    if (os_symbol(name, &address)) {
        g_key_file_set_uint64(out, in, key, address);
    }
}

static void put_kernel(GKeyFile *out, const char *in, const char *release)
{
    char version[UTS_FIELD] = "", machine[UTS_FIELD] = "";
    g_autofree char *name = NULL;
    unsigned a = 0, b = 0, c = 0;
    uint64_t offsets, first;

    os_uts_text(3, version, sizeof(version));
    os_uts_text(4, machine, sizeof(machine));
    name = g_strdup_printf("%s|%s|%s", release, version, machine);
    g_key_file_set_string(out, in, "name", name);
    if (sscanf(release, "%u.%u.%u", &a, &b, &c) >= 2) {
        put(out, in, "version.a", a);
        put(out, in, "version.b", b);
        put(out, in, "version.c", c);
    }
    g_key_file_set_uint64(out, in, "task.init_addr", os_init_task);
    put_symbol(out, in, "task.per_cpu_offsets_addr", "__per_cpu_offset");
    if (os_symbol("__per_cpu_offset", &offsets)
        && os_read_word(offsets, &first)) {
        g_key_file_set_uint64(out, in, "task.per_cpu_offset_0_addr", first);
    }
    put_symbol(out, in, "task.current_task_addr", "current_task");
    put_symbol(out, in, "task.switch_task_hook_addr",
               "finish_task_switch.isra.0");
    put_symbol(out, in, "task.switch_task_hook_addr", "finish_task_switch");
    put(out, in, "task.comm_size", PANDA_OS_COMM);
}

static void put_layout(GKeyFile *out, const char *in)
{
    g_autofree bool *done = g_new0(bool, OS_FIELDS_COUNT);
    uint32_t at, size;

    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        done[keys[i].field] = true;
        if (os_knows(keys[i].field)) {
            put(out, in, keys[i].key, os_offset(keys[i].field));
        }
    }
    if (os_knows(OS_DENTRY_NAME)) {
        /* struct qstr is a hash and a length, and the name's address. */
        done[OS_DENTRY_NAME] = true;
        put(out, in, "path.d_name_offset", os_offset(OS_DENTRY_NAME) - 8);
        put(out, in, "qstr.name_offset", 8);
    }
    if (os_knows(OS_MOUNT_PARENT) && os_knows(OS_MOUNT_POINT)) {
        put(out, in, "path.mnt_parent_offset",
            os_offset(OS_MOUNT_PARENT) - os_offset(OS_MOUNT_MNT));
        put(out, in, "path.mnt_mountpoint_offset",
            os_offset(OS_MOUNT_POINT) - os_offset(OS_MOUNT_MNT));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(extra_keys); i++) {
        const char *structure = extra_keys[i].structure;

        if (!extra_keys[i].field ? os_btf_size(structure, &at)
            : os_btf_field(structure, extra_keys[i].field, &at, &size)) {
            put(out, in, extra_keys[i].key, at);
        }
    }
    for (OsField f = 0; f < OS_FIELDS_COUNT; f++) {
        if (os_knows(f) && !done[f] && os_offset(f) >= 0) {
            g_autofree char *key = own_key(f);

            put(out, in, key, os_offset(f));
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(own_numbers); i++) {
        if (*own_numbers[i].value) {
            put(out, in, own_numbers[i].key, *own_numbers[i].value);
        }
    }
    if (os_layout.page_shift) {
        put(out, in, OWN "page_shift", os_layout.page_shift);
    }
    if (os_layout.pfn_shift) {
        put(out, in, OWN "pfn_shift", os_layout.pfn_shift);
    }
}

const char *panda_os_profile(const char *name)
{
    static char *text;
    OS_LOCK_GUARD();
    const char *release = panda_os_release();
    GKeyFile *out;

    if (os_require() != PANDA_OK) {
        return NULL;
    }
    out = g_key_file_new();
    put_kernel(out, name ?: release, release);
    put_layout(out, name ?: release);
    g_free(text);
    text = g_key_file_to_data(out, NULL, NULL);
    g_key_file_free(out);
    return text;
}
