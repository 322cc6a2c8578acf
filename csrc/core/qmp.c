/*
 * QMP commands that callbacks answer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/machine.h"
#include "record/commands.h"
#include "monitor/monitor-internal.h"
#include "qapi/error.h"
#include "qapi/qmp-registry.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qemu/error-report.h"

/*
 * The command that is being dispatched; the name belongs to its request. QEMU
 * dispatches one at a time in the main thread.
 */
static const char *name;

static void answer(QDict *arguments, QObject **ret, Error **errp)
{
    g_autoptr(GString) json = qobject_to_json(QOBJECT(arguments));
    g_autofree char *command = g_strdup(name);
    bool handled = false;
    PandaCallback *c;

    WITH_RCU_READ_LOCK_GUARD() {
        PANDA_FOR_EACH(c, PANDA_CB_QMP) {
            char *result = NULL;

            if (!PANDA_CALL(c, qmp, command, json->str, &result)) {
                continue;
            }
            handled = true;
            if (result && !*ret && !*errp) {
                /* It is the callback's and may go with its next call. */
                *ret = qobject_from_json(result, errp);
            }
        }
    }
    if (*errp) {
        error_prepend(errp, "what a callback answers to %s is not JSON: ",
                      command);
    } else if (!handled) {
        error_set(errp, ERROR_CLASS_COMMAND_NOT_FOUND,
                  "The command %s has not been found", command);
    } else if (!*ret) {
        warn_report("a callback has handled the QMP command %s and left its "
                    "result empty", command);
    }
}

/* No coroutine: QEMU runs it on the main thread's own stack. */
static const QmpCommand any_command = {
    .name = "pandalite",
    .fn = answer,
    .enabled = true,
};

const QmpCommand *__real_qmp_find_command(const QmpCommandList *cmds,
                                          const char *wanted);
const QmpCommand *__wrap_qmp_find_command(const QmpCommandList *cmds,
                                          const char *wanted);
const QmpCommand *__wrap_qmp_find_command(const QmpCommandList *cmds,
                                          const char *wanted)
{
    const QmpCommand *command = __real_qmp_find_command(cmds, wanted);

    if (!command && cmds == &qmp_commands && panda_in_main_thread()) {
        command = panda_record_qmp(wanted);
    }
    /* Not before the client has negotiated, nor out of band. */
    if (!command && cmds == &qmp_commands && panda_wanted(PANDA_CB_QMP)
        && panda_in_main_thread()) {
        name = wanted;
        return &any_command;
    }
    return command;
}
