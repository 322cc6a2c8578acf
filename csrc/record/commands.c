/*
 * The monitors' commands for recordings, with PANDA's names.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/commands.h"
#include "record/recorder.h"
#include "core/machine.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "system/runstate.h"

#define SUFFIX ".plrec"

static char *file_of(const char *name)
{
    return g_str_has_suffix(name, SUFFIX)
        || g_str_has_suffix(name, SUFFIX ".part")
        ? g_strdup(name) : g_strconcat(name, SUFFIX, NULL);
}

static int begin_record(const char *name, const char *snapshot)
{
    g_autofree char *path = file_of(name);

    return panda_record_begin(path, snapshot);
}

static int begin_replay(const char *name)
{
    g_autofree char *path = file_of(name);
    int status = panda_replay_begin(path, 0);

    if (status == PANDA_OK && panda_in_run()) {
        vm_start();
    }
    return status;
}

/* The machine is reset, and lives on. */
static int end_replay(void)
{
    int status = panda_replay_end();

    if (status == PANDA_OK && panda_in_run()) {
        vm_start();
    }
    return status;
}

/* ---- human ---- */

static void say(Monitor *mon, int status)
{
    if (status != PANDA_OK) {
        monitor_printf(mon, "Error: %s\n", panda_last_error());
    }
}

static void hmp_begin_record(Monitor *mon, const QDict *args)
{
    say(mon, begin_record(qdict_get_str(args, "file_name"), NULL));
}

static void hmp_begin_record_from(Monitor *mon, const QDict *args)
{
    say(mon, begin_record(qdict_get_str(args, "file_name"),
                          qdict_get_str(args, "snapshot")));
}

static void hmp_end_record(Monitor *mon, const QDict *args)
{
    say(mon, panda_record_end());
}

static void hmp_begin_replay(Monitor *mon, const QDict *args)
{
    say(mon, begin_replay(qdict_get_str(args, "file_name")));
}

static void hmp_end_replay(Monitor *mon, const QDict *args)
{
    say(mon, end_replay());
}

static const HMPCommand hmp_commands[] = {
    {
        .name = "begin_record", .args_type = "file_name:F",
        .params = "file_name", .help = "begin to record the guest to a file",
        .cmd = hmp_begin_record,
    }, {
        .name = "begin_record_from",
        .args_type = "snapshot:s,file_name:F",
        .params = "snapshot file_name",
        .help = "load a snapshot and begin to record the guest to a file",
        .cmd = hmp_begin_record_from,
    }, {
        .name = "end_record", .args_type = "", .params = "",
        .help = "end the recording", .cmd = hmp_end_record,
    }, {
        .name = "begin_replay", .args_type = "file_name:F",
        .params = "file_name", .help = "replay a recording",
        .cmd = hmp_begin_replay,
    }, {
        .name = "end_replay", .args_type = "", .params = "",
        .help = "give the replay up and reset the machine",
        .cmd = hmp_end_replay,
    },
};

HMPCommand *panda_record_hmp(HMPCommand *end)
{
    for (unsigned i = 0; i < ARRAY_SIZE(hmp_commands); i++) {
        *end++ = hmp_commands[i];
    }
    return end;
}

/* ---- QMP ---- */

static const char *text(QDict *args, const char *key, Error **errp)
{
    const char *value = qdict_get_try_str(args, key);

    if (!value) {
        error_setg(errp, "Parameter '%s' is missing", key);
    }
    return value;
}

static void answer(int status, QObject **ret, Error **errp)
{
    if (status != PANDA_OK) {
        error_setg(errp, "%s", panda_last_error());
    } else {
        *ret = QOBJECT(qdict_new());
    }
}

static void qmp_begin_record(QDict *args, QObject **ret, Error **errp)
{
    const char *name = text(args, "file_name", errp);

    if (name) {
        answer(begin_record(name, NULL), ret, errp);
    }
}

static void qmp_begin_record_from(QDict *args, QObject **ret, Error **errp)
{
    const char *name = text(args, "file_name", errp);
    const char *snapshot = name ? text(args, "snapshot", errp) : NULL;

    if (snapshot) {
        answer(begin_record(name, snapshot), ret, errp);
    }
}

static void qmp_end_record(QDict *args, QObject **ret, Error **errp)
{
    answer(panda_record_end(), ret, errp);
}

static void qmp_begin_replay(QDict *args, QObject **ret, Error **errp)
{
    const char *name = text(args, "file_name", errp);

    if (name) {
        answer(begin_replay(name), ret, errp);
    }
}

static void qmp_end_replay(QDict *args, QObject **ret, Error **errp)
{
    answer(end_replay(), ret, errp);
}

/* No coroutines: QEMU runs them on the main thread's own stack. */
static const QmpCommand qmp_record_commands[] = {
    { .name = "begin_record", .fn = qmp_begin_record, .enabled = true },
    { .name = "begin_record_from", .fn = qmp_begin_record_from,
      .enabled = true },
    { .name = "end_record", .fn = qmp_end_record, .enabled = true },
    { .name = "begin_replay", .fn = qmp_begin_replay, .enabled = true },
    { .name = "end_replay", .fn = qmp_end_replay, .enabled = true },
};

const QmpCommand *panda_record_qmp(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(qmp_record_commands); i++) {
        if (!strcmp(qmp_record_commands[i].name, name)) {
            return &qmp_record_commands[i];
        }
    }
    return NULL;
}
