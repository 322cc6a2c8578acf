/*
 * Devices of the MIPS boards that the library does without.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "chardev/char.h"

/*
 * Malta's display of eight letters opens a virtual console, of which there are
 * none here: QEMU would print an error at each start and go on without.
 */
Chardev *__real_qemu_chr_new(const char *label, const char *filename,
                             GMainContext *context);
Chardev *__wrap_qemu_chr_new(const char *label, const char *filename,
                             GMainContext *context);
Chardev *__wrap_qemu_chr_new(const char *label, const char *filename,
                             GMainContext *context)
{
    if (g_str_has_prefix(filename, "vc:")) {
        filename = "null";
    }
    return __real_qemu_chr_new(label, filename, context);
}
