/*
 * A library does not touch what belongs to the process: signal handlers,
 * resource limits, the buffering of stdout. QEMU's functions that do are
 * replaced by nothing (the linker's --wrap).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"

void __wrap_os_setup_signal_handling(void);
void __wrap_os_setup_signal_handling(void)
{
}

void __wrap_os_setup_early_signal_handling(void);
void __wrap_os_setup_early_signal_handling(void)
{
}

void __wrap_os_setup_limits(void);
void __wrap_os_setup_limits(void)
{
}

void __wrap_os_set_line_buffering(void);
void __wrap_os_set_line_buffering(void)
{
}

/*
 * QEMU's RCU recreates its thread in every forked child. A child of the host
 * program has no use for an emulator it cannot run.
 */
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void),
                          void (*child)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void),
                          void (*child)(void))
{
    return 0;
}
