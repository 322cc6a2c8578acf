/*
 * Snapshots of the machine inside its disk image.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/machine.h"
#include "block/aio-wait.h"
#include "block/snapshot.h"
#include "migration/snapshot.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "system/runstate.h"

typedef struct Snapshot {
    const char *name;
    /* QEMU's report, and what it printed besides. */
    Error *err;
    char *said;
    GString *names;
} Snapshot;

static int console_fd = -1;

void panda_set_console_fd(int fd)
{
    console_fd = fd;
}

static void drop_console_input(void)
{
    char dropped[4096];

    while (console_fd >= 0
           && recv(console_fd, dropped, sizeof(dropped), MSG_DONTWAIT) > 0) {
        continue;
    }
}

static void do_load(void *opaque)
{
    Snapshot *s = opaque;
    RunState state = runstate_get();
    bool found;

    found = bdrv_all_has_snapshot(s->name, false, NULL, &s->err) > 0;
    if (!found) {
        if (!s->err) {
            error_setg(&s->err, "the images do not have the requested "
                       "snapshot '%s'", s->name);
        }
        return;
    }
    panda_capture_begin();
    vm_stop(RUN_STATE_RESTORE_VM);
    if (load_snapshot(s->name, NULL, false, NULL, &s->err)) {
        drop_console_input();
        load_snapshot_resume(state);
    }
    s->said = panda_capture_end();
}

static void do_save(void *opaque)
{
    Snapshot *s = opaque;

    panda_capture_begin();
    save_snapshot(s->name, true, NULL, false, NULL, &s->err);
    s->said = panda_capture_end();
}

static void do_delete(void *opaque)
{
    Snapshot *s = opaque;

    if (bdrv_all_has_snapshot(s->name, false, NULL, &s->err) == 0) {
        error_setg(&s->err, "the images do not have the requested "
                   "snapshot '%s'", s->name);
    } else if (!s->err) {
        delete_snapshot(s->name, false, NULL, &s->err);
    }
}

static void do_list(void *opaque)
{
    Snapshot *s = opaque;
    BlockDriverState *bs;
    QEMUSnapshotInfo *table;
    int n;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    bs = bdrv_all_find_vmstate_bs(NULL, false, NULL, NULL);
    n = bs ? bdrv_snapshot_list(bs, &table) : 0;
    for (int i = 0; i < n; i++) {
        g_string_append_printf(s->names, "%s\n", table[i].name);
    }
    if (n > 0) {
        g_free(table);
    }
}

static int run(void (*fn)(void *opaque), Snapshot *s)
{
    int status;

    if (fn != do_list && panda_rr_mode() != PANDA_RR_OFF) {
        return panda_fail(PANDA_ERR_STATE, "snapshots cannot be loaded, saved "
                          "or deleted while the machine is %s",
                          panda_rr_mode() == PANDA_RR_RECORD ? "recorded"
                                                             : "replaying");
    }
    status = panda_run_in_main_loop(fn, s, PANDA_PATIENCE_MS);

    if (status == PANDA_OK && s->err) {
        status = panda_fail(PANDA_ERR_SNAPSHOT, "%s%s%s%s",
                            error_get_pretty(s->err),
                            s->said && *s->said ? " (" : "",
                            s->said && *s->said ? g_strchomp(s->said) : "",
                            s->said && *s->said ? ")" : "");
    }
    error_free(s->err);
    g_free(s->said);
    return status;
}

int panda_snapshot_load(const char *name)
{
    return run(do_load, &(Snapshot) { .name = name });
}

int panda_snapshot_save(const char *name)
{
    return run(do_save, &(Snapshot) { .name = name });
}

int panda_snapshot_delete(const char *name)
{
    return run(do_delete, &(Snapshot) { .name = name });
}

int panda_snapshot_list(char **names)
{
    Snapshot s = { .names = g_string_new(NULL) };
    int status = run(do_list, &s);

    *names = g_string_free(s.names, false);
    return status;
}
