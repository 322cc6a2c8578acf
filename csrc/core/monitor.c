/*
 * The human monitor, and the "plugin_cmd" command for callbacks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/machine.h"
#include "plugins/commands.h"
#include "record/commands.h"
#include "monitor/monitor-internal.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-misc.h"
#include "qapi/qapi-commands-char.h"
#include "qobject/qdict.h"

#define MAX_COMMANDS 400

/* How long another thread waits for the main thread to come to its call. */
#define PATIENCE_MS (60 * 1000)

extern HMPCommand __real_hmp_cmds[];
/* The linker gives QEMU this table for its own. */
HMPCommand __wrap_hmp_cmds[MAX_COMMANDS];

static void plugin_cmd(Monitor *mon, const QDict *qdict)
{
    const char *cmd = qdict_get_try_str(qdict, "cmd");
    PandaCallback *c;

    RCU_READ_LOCK_GUARD();
    PANDA_FOR_EACH(c, PANDA_CB_MONITOR) {
        PANDA_CALL(c, monitor, (PandaMonitor *)mon, cmd ? cmd : "");
    }
}

/* Before the constructor of QEMU's that sorts the table. */
static void __attribute__((constructor(101))) fill_commands(void)
{
    int n = 0;

    while (__real_hmp_cmds[n].name) {
        __wrap_hmp_cmds[n] = __real_hmp_cmds[n];
        n++;
    }
    __wrap_hmp_cmds[n] = (HMPCommand) {
        .name = "plugin_cmd",
        .args_type = "cmd:S?",
        .params = "text",
        .help = "give text to the callbacks of kind \"monitor\"",
        .cmd = plugin_cmd,
    };
    panda_plugins_hmp(panda_record_hmp(&__wrap_hmp_cmds[n + 1]));
}

void panda_monitor_print(PandaMonitor *mon, const char *text)
{
    monitor_puts((Monitor *)mon, text);
}

void panda_free(void *pointer)
{
    g_free(pointer);
}

typedef struct Command {
    const char *line;
    char *output;
    Error *err;
} Command;

static void run_command(void *opaque)
{
    Command *command = opaque;

    command->output = qmp_human_monitor_command(command->line, false, 0,
                                                &command->err);
}

int panda_monitor_run(const char *line, char **output)
{
    Command command = { .line = line };
    int status = panda_run_in_main_loop(run_command, &command, PATIENCE_MS);

    *output = NULL;
    if (status == PANDA_OK && command.err) {
        status = panda_fail_error(PANDA_ERR_ARGUMENT, command.err);
    }
    if (status == PANDA_OK) {
        *output = command.output;
    }
    return status;
}
