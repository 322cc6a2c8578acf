/*
 * osi_linux: open files of Linux processes, and profiles of kernels.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "plugins/plugins.h"
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

/* The profile goes with the plugin that has brought it. */
static bool has_profile;

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
    if (!panda_require("osi")) {
        return false;
    }
    if (group[0] && !file[0]) {
        panda_fail(PANDA_ERR_ARGUMENT, "kconf_group needs kconf_file");
        return false;
    }
    if (file[0]
        && panda_os_use_profile(file, group[0] ? group : NULL) != PANDA_OK) {
        return false;
    }
    has_profile = file[0];
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
