/*
 * What the source of a C plugin includes; C and C++.
 *
 * Not part of the bindings: it is compiled into the plugin. The names are
 * PANDA's. docs/plugins.md has an example and its build line.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGIN_H
#define PANDA_PLUGIN_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "panda/panda.h"

typedef PandaCPU CPUState;
typedef PandaTB TranslationBlock;

/* 64 bits wide for all guests; those of 32 bits are zero-extended. */
typedef target_ptr_t target_ulong;
typedef int64_t target_long;
typedef int32_t target_pid_t;

#define TARGET_PTR_FMT "%" PRIx64
#define TARGET_FMT_lx "%016" PRIx64
#define TARGET_FMT_lu "%" PRIu64
#define TARGET_FMT_ld "%" PRId64
#define HWADDR_FMT_plx "%016" PRIx64
#define TARGET_FMT_plx HWADDR_FMT_plx

/*
 * Lists of the plugin osi, by the names GLib has for its own. If GLib's header
 * is included first they are its, of which osi takes none.
 */
#ifndef __G_LIB_H__
typedef struct PandaArray GArray;
#define g_array_index(a, t, i) (((t *)(void *)(a)->data)[i])
#define g_array_new(zero_terminated, clear, size) panda_osi_new_garray(size)
#define g_array_sized_new(zero_terminated, clear, size, room)                 \
    panda_osi_new_garray(size)
#define g_array_append_val(a, v) panda_osi_append(a, &(v))
#endif

#define PANDA_EXPORT __attribute__((visibility("default")))

/*
 * The plugin's two functions. self owns its callbacks; true: it is loaded. It
 * is called on any thread, the guest running or not.
 */
PANDA_EXPORT bool init_plugin(void *self);
PANDA_EXPORT void uninit_plugin(void *self);

/* ---- names of PANDA's that are called otherwise here ---- */

#define panda_in_kernel(cpu) panda_in_kernel_mode(cpu)
#define panda_os_familyno panda_os_family()
#define OS_UNKNOWN PANDA_FAMILY_UNKNOWN
#define OS_WINDOWS PANDA_FAMILY_WINDOWS
#define OS_LINUX PANDA_FAMILY_LINUX
#define OS_FREEBSD PANDA_FAMILY_FREEBSD
#define rr_get_guest_instr_count() panda_rr_count()
static inline void panda_enable_precise_pc(void) {}
static inline void panda_disable_precise_pc(void) {}
static inline bool rr_in_replay(void)
{
    return panda_rr_mode() == PANDA_RR_REPLAY;
}
static inline bool rr_in_record(void)
{
    return panda_rr_mode() == PANDA_RR_RECORD;
}

/* ---- between the plugin and its loader ---- */

/* One of each in a plugin, however many files it is made of. */
#define PANDA_PLUGIN_ONCE __attribute__((weak, visibility("hidden")))

typedef struct PandaPluginPoint {
    PandaPppPoint point;
    struct PandaPluginPoint *next;
} PandaPluginPoint;

PANDA_PLUGIN_ONCE void *panda_plugin_self;
PANDA_PLUGIN_ONCE const char *panda_plugin_own_name;
PANDA_PLUGIN_ONCE PandaPluginPoint *panda_plugin_points;

/* Called when it is loaded (define), and when it is unloaded (!define). */
__attribute__((weak)) PANDA_EXPORT
int panda_plugin_attach(void *self, const char *name, bool define);
__attribute__((weak)) PANDA_EXPORT
int panda_plugin_attach(void *self, const char *name, bool define)
{
    PandaPluginPoint *p;
    int status = 0;

    panda_plugin_self = self;
    panda_plugin_own_name = name;
    for (p = panda_plugin_points; p && status == 0; p = p->next) {
        p->point.plugin = name;
        if (define) {
            status = panda_ppp_define(&p->point);
        } else {
            panda_ppp_undefine(&p->point);
        }
    }
    return status;
}

#ifdef __cplusplus
}
#endif

#include "panda/plugin_plugin.h"

#endif
