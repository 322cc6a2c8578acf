/*
 * loaded: programs and libraries that are mapped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "plugins/plugins.h"
#include "plugins/ppp.h"
#include "panda/os_events.h"
#include "panda/plugins/loaded.h"

static void listeners_changed(void);

static PandaPppPoint on_library_load =
    PANDA_PPP_POINT("loaded", "on_library_load", listeners_changed);

/* While somebody listens. */
static int64_t number;

static int mapped(PandaCPU *cpu, const PandaOsEvent *e, void *context)
{
    char path[4096];

    if (e->file && !e->flag
        && panda_os_file_path(e->file, path, sizeof(path)) > 0) {
        PANDA_PPP_RUN(&on_library_load, on_library_load_t, cpu,
                      cpu->panda_guest_pc, path, e->mapping.start,
                      e->mapping.end - e->mapping.start);
    }
    return 0;
}

static void listeners_changed(void)
{
    PandaOsListenerSpec spec = {
        .kind = PANDA_OS_MMAP, .function = mapped,
        .missing = panda_plugin_misses, .context = (void *)"loaded",
    };

    if (on_library_load.n && number <= 0) {
        number = panda_os_events_add(&spec);
    } else if (!on_library_load.n && number > 0) {
        panda_os_events_remove(number);
        number = 0;
    }
}

static bool init(PandaPlugin *self)
{
    const char *reason = panda_os_event_reason(PANDA_OS_MMAP);

    if (reason) {
        panda_fail(PANDA_ERR_OS, "plugin loaded: %s", reason);
        return false;
    }
    panda_ppp_define(&on_library_load);
    return true;
}

static void uninit(PandaPlugin *self)
{
    panda_ppp_undefine(&on_library_load);
    listeners_changed();
}

PANDA_PLUGIN(loaded, "programs and libraries that are mapped", init, uninit);
