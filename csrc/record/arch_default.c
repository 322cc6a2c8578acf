/*
 * What most architectures do not need.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/log.h"

void __attribute__((weak)) panda_arch_effect(PandaLogCursor *c)
{
    panda_log_bad(c);
}

void __attribute__((weak)) panda_arch_cpu_save(PandaBytes *out)
{
}

bool __attribute__((weak)) panda_arch_cpu_load(PandaLogCursor *c)
{
    return true;
}

void __attribute__((weak)) panda_arch_save(PandaBytes *out)
{
}

bool __attribute__((weak)) panda_arch_load(PandaLogCursor *c)
{
    return true;
}
