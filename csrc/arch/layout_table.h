/*
 * Entries of the table that says where fields of the register state are.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_ARCH_LAYOUT_TABLE_H
#define PANDA_ARCH_LAYOUT_TABLE_H

#include "qemu/osdep.h"
#include "cpu.h"
#include "panda/layout.h"

#define ENTRY(path) \
    { #path, offsetof(CPUArchState, path), sizeof(((CPUArchState *)0)->path) }

#endif
