/*
 * osi_linux: open files of Linux processes, memory by the kernel's own tables,
 * and profiles of kernels.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "plugins/plugins.h"
#include "panda/memory.h"
#include "panda/os.h"
#include "panda/os_kernel.h"
#include "panda/plugins/osi_linux.h"

#define LONGEST_PATH 4096

char *panda_osi_linux_osi_linux_fd_to_filename(PandaCPU *cpu, OsiProc *p,
                                               int32_t fd)
{
    g_autofree char *path = g_malloc0(LONGEST_PATH);
    PandaOpenFile file;

    return p && panda_os_file(p->taskd, fd, &file) == PANDA_OK
        && panda_os_file_path(file.file, path, LONGEST_PATH) >= 0
        ? strdup(path) : NULL;
}

uint64_t panda_osi_linux_osi_linux_fd_to_pos(PandaCPU *cpu, OsiProc *p,
                                             int32_t fd)
{
    PandaOpenFile file;

    return p && panda_os_file(p->taskd, fd, &file) == PANDA_OK ? file.pos
                                                               : UINT64_MAX;
}

uint64_t panda_osi_linux_ext_get_file_struct_ptr(PandaCPU *cpu, uint64_t task,
                                                 int32_t fd)
{
    PandaOpenFile file;

    return panda_os_file(task, fd, &file) == PANDA_OK ? file.file : 0;
}

uint64_t panda_osi_linux_ext_get_file_dentry(PandaCPU *cpu, uint64_t file)
{
    OS_LOCK_GUARD();
    uint64_t dentry;

    return os_require() == PANDA_OK
        && os_get_word(file, OS_FILE_DENTRY, &dentry) ? dentry : 0;
}

/* ---- memory ---- */

uint64_t panda_osi_linux_walk_page_table(PandaCPU *cpu, uint64_t va)
{
    OS_LOCK_GUARD();
    uint64_t task, mm, pgd;

    if (os_require() != PANDA_OK) {
        return OS_NOWHERE;
    }
    if (os_is_kernel(va)) {
        return os_kernel_to_physical(va);
    }
    task = panda_os_current_task(panda_vcpu.cs);
    return task && os_get_word(task, OS_TASK_MM, &mm) && mm
        && os_get_word(mm, OS_MM_PGD, &pgd) ? os_user_to_physical(pgd, va)
                                            : OS_NOWHERE;
}

uint64_t panda_osi_linux_osi_linux_virt_to_phys(PandaCPU *cpu, uint64_t va)
{
    uint64_t pa = panda_virt_to_phys(cpu, va);

    return pa != OS_NOWHERE ? pa : panda_osi_linux_walk_page_table(cpu, va);
}

static int access_memory(PandaCPU *cpu, uint64_t addr, uint8_t *buf, int len,
                         bool write)
{
    if (len < 0) {
        return panda_fail(PANDA_ERR_ARGUMENT, "a length of %d", len);
    }
    while (len) {
        /* A part of a page, of whatever size pages are. */
        int run = MIN(len, 4096 - (int)(addr & 4095));
        uint64_t pa = panda_osi_linux_osi_linux_virt_to_phys(cpu, addr);
        int status;

        if (pa == OS_NOWHERE) {
            return panda_fail(PANDA_ERR_MEMORY, "virtual address 0x%" PRIx64
                              " is not mapped, nor has the kernel a page for "
                              "it", addr);
        }
        status = write ? panda_physical_memory_write(pa, buf, run)
                       : panda_physical_memory_read(pa, buf, run);
        if (status != PANDA_OK) {
            return status;
        }
        addr += run;
        buf += run;
        len -= run;
    }
    return PANDA_OK;
}

int panda_osi_linux_osi_linux_virtual_memory_read(PandaCPU *cpu, uint64_t addr,
                                                  uint8_t *buf, int len)
{
    return access_memory(cpu, addr, buf, len, false);
}

int panda_osi_linux_osi_linux_virtual_memory_write(PandaCPU *cpu,
                                                   uint64_t addr, uint8_t *buf,
                                                   int len)
{
    return access_memory(cpu, addr, buf, len, true);
}

/* ---- the plugin ---- */

/* Where a profile is if a group is named and no file. */
#define PROFILES "kernelinfo.conf"

/* The profile goes with the plugin that has brought it. */
static bool has_profile;

/*
 * A group that is named is looked for in a file of PANDA's name where the
 * process is; one that the guest's name names need not be there.
 */
static int use_profile(const char *file, const char *group)
{
    const char *variant = panda_os_variant();
    bool is_there = g_file_test(PROFILES, G_FILE_TEST_IS_REGULAR);

    if (!file[0] && !group[0]) {
        if (!variant[0] || !is_there
            || panda_os_use_profile(PROFILES, variant) != PANDA_OK) {
            return PANDA_OK;
        }
    } else if (!file[0] && !is_there) {
        return panda_fail(PANDA_ERR_ARGUMENT, "kconf_group needs kconf_file: "
                          "there is no " PROFILES " here");
    } else if (panda_os_use_profile(file[0] ? file : PROFILES,
                                    group[0] ? group : NULL) != PANDA_OK) {
        return PANDA_ERR_ARGUMENT;
    }
    has_profile = true;
    return PANDA_OK;
}

static bool init(PandaPlugin *self)
{
    g_autoptr(panda_arg_list) args = panda_plugin_args(self);
    const char *file = panda_parse_string_opt(
        args, "kconf_file", "", "profiles of kernels; not needed");
    const char *group = panda_parse_string_opt(
        args, "kconf_group", "", "the kernel's group in it");
    bool now = panda_parse_bool_opt(args, "load_now",
                                    "fail if the kernel is not found yet");

    /* Memory is always read through the process' own page tables. */
    panda_parse_bool_opt(args, "pagewalk", "accepted: it is always so");
    if (!panda_require("osi") || use_profile(file, group) != PANDA_OK) {
        return false;
    }
    return !now || panda_os_attach() == PANDA_OK;
}

static void uninit(PandaPlugin *self)
{
    if (has_profile) {
        has_profile = false;
        panda_os_use_profile(NULL, NULL);
    }
}

PANDA_PLUGIN(osi_linux, "open files, and profiles of kernels", init, uninit);
