/*
 * Commands of the human monitor for plugins.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "plugins/commands.h"
#include "monitor/monitor.h"
#include "qobject/qdict.h"

/* A path, or a name; a plugin from a file has the file's name. */
static int load(const char *what, char **args)
{
    g_autofree char *base = g_path_get_basename(what);
    bool is_file = strchr(what, '/') || g_str_has_suffix(what, ".so");
    char *name = base;

    if (is_file) {
        if (g_str_has_prefix(name, "panda_")) {
            name += strlen("panda_");
        }
        if (g_str_has_suffix(name, ".so")) {
            name[strlen(name) - strlen(".so")] = '\0';
        }
    }
    return panda_plugin_load(name, is_file ? what : NULL,
                             (const char *const *)args,
                             args ? g_strv_length(args) : 0);
}

static void hmp_load_plugin(Monitor *mon, const QDict *qdict)
{
    const char *given = qdict_get_try_str(qdict, "args");
    g_auto(GStrv) args = given ? g_strsplit(given, ",", -1) : NULL;

    if (load(qdict_get_str(qdict, "name"), args) != PANDA_OK) {
        monitor_printf(mon, "Error: %s\n", panda_last_error());
    }
}

static void hmp_unload_plugin(Monitor *mon, const QDict *qdict)
{
    int64_t number = qdict_get_int(qdict, "index");
    const char *name = number < 0 || number > UINT32_MAX
        ? NULL : panda_plugin_name(number);

    if (!name) {
        monitor_printf(mon, "Error: there is no plugin %" PRId64
                       "; list_plugins has their numbers\n", number);
    } else if (panda_plugin_unload(name) != PANDA_OK) {
        monitor_printf(mon, "Error: %s\n", panda_last_error());
    }
}

static void hmp_list_plugins(Monitor *mon, const QDict *qdict)
{
    const char *name;

    for (uint32_t i = 0; (name = panda_plugin_name(i)); i++) {
        monitor_printf(mon, "%" PRIu32 " %s\n", i, name);
    }
}

static const HMPCommand commands[] = {
    {
        .name = "load_plugin",
        .args_type = "name:F,args:S?",
        .params = "name|file [key=value,...]",
        .help = "load a plugin",
        .cmd = hmp_load_plugin,
    },
    {
        .name = "unload_plugin",
        .args_type = "index:i",
        .params = "index",
        .help = "unload the plugin of that number in list_plugins",
        .cmd = hmp_unload_plugin,
    },
    {
        .name = "list_plugins",
        .args_type = "",
        .params = "",
        .help = "list the loaded plugins",
        .cmd = hmp_list_plugins,
    },
};

HMPCommand *panda_plugins_hmp(HMPCommand *end)
{
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
        *end++ = commands[i];
    }
    return end;
}
