/*
 * Holds the debug information of the guest CPU's state, and nothing else.
 *
 * tools/build_core.py compiles it once per architecture with the flags of
 * QEMU's target objects plus "-g -gdwarf-4 -fstandalone-debug" (gcc: the first
 * two); tools/gen_env_layout.py reads the object. It is never linked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "cpu.h"

/*
 * An object and not a pointer: a compiler describes a type in full only where
 * it needs to know its size.
 */
extern CPUArchState panda_layout_probe;
CPUArchState panda_layout_probe;
