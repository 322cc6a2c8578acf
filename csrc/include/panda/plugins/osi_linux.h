/*
 * osi_linux: open files of Linux processes, and profiles of kernels.
 *
 * The functions' names are PANDA's, with the plugin's in front.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_OSI_LINUX_H
#define PANDA_PLUGINS_OSI_LINUX_H

#include "panda/plugins/osi.h"

/** Path of a file that a process has open, to be freed by free(); NULL. */
char *panda_osi_linux_osi_linux_fd_to_filename(PandaCPU *cpu, OsiProc *p,
                                               int32_t fd);

/** Where it is read or written next; all ones if it is not open. */
uint64_t panda_osi_linux_osi_linux_fd_to_pos(PandaCPU *cpu, OsiProc *p,
                                             int32_t fd);

/** Address of the struct file of a file a task has open; 0: none. */
target_ptr_t panda_osi_linux_ext_get_file_struct_ptr(PandaCPU *cpu,
                                                     target_ptr_t task,
                                                     int32_t fd);

#endif
