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

PANDA_C_BEGIN

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

/** Address of the struct dentry of a struct file; 0: there is none. */
target_ptr_t panda_osi_linux_ext_get_file_dentry(PandaCPU *cpu,
                                                 target_ptr_t file);

/**
 * Physical address of an address of the kernel's or the process' that runs, by
 * the tables that the kernel has for it; all ones if there is none.
 *
 * The CPU's own translation shows less: while a program runs, no kernel.
 */
target_ptr_t panda_osi_linux_walk_page_table(PandaCPU *cpu, target_ptr_t va);

/** The same, by the CPU's own translation if that leads somewhere. */
target_ptr_t panda_osi_linux_osi_linux_virt_to_phys(PandaCPU *cpu,
                                                    target_ptr_t va);

/** Read memory by that translation; negative PandaStatus if it cannot be. */
int panda_osi_linux_osi_linux_virtual_memory_read(PandaCPU *cpu,
                                                  target_ptr_t addr,
                                                  uint8_t *buf, int len);

/** Write memory, likewise. */
int panda_osi_linux_osi_linux_virtual_memory_write(PandaCPU *cpu,
                                                   target_ptr_t addr,
                                                   uint8_t *buf, int len);

PANDA_C_END

#endif
