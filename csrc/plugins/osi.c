/*
 * osi: which process and thread runs, in PANDA's structures.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/events.h"
#include "plugins/osi.h"
#include "plugins/plugins.h"
#include "plugins/ppp.h"

static void listeners_changed(void);

static PandaPppPoint on_task_change =
    PANDA_PPP_POINT("osi", "on_task_change", listeners_changed);

static bool subscribed;

static void task_changed(CPUState *cs, uint64_t task, uint64_t argument)
{
    PANDA_PPP_RUN(&on_task_change, on_task_change_t, &panda_vcpu.pub);
}

static void listeners_changed(void)
{
    bool wanted = on_task_change.n;

    if (wanted == subscribed) {
        return;
    }
    subscribed = wanted;
    if (wanted) {
        panda_os_subscribe(OS_EVENT_SWITCH, task_changed);
        panda_os_subscribe(OS_EVENT_EXEC, task_changed);
    } else {
        panda_os_unsubscribe(OS_EVENT_SWITCH, task_changed);
        panda_os_unsubscribe(OS_EVENT_EXEC, task_changed);
    }
}

OsiProc panda_osi_process_of(const PandaTask *t)
{
    return (OsiProc) {
        .taskd = t->task,
        .pgd = t->pgd,
        .asid = t->asid,
        .pid = t->pid,
        .ppid = t->ppid,
        .name = g_strdup(t->name),
        .create_time = t->create_time,
    };
}

static OsiProc *process_of(const PandaTask *t)
{
    OsiProc *p = g_new(OsiProc, 1);

    *p = panda_osi_process_of(t);
    return p;
}

OsiProc *panda_osi_get_current_process(PandaCPU *cpu)
{
    PandaTask t;

    return panda_os_current(&t) == PANDA_OK ? process_of(&t) : NULL;
}

OsiProc *panda_osi_get_process(PandaCPU *cpu, const OsiProcHandle *h)
{
    PandaTask t;

    return h && panda_os_task(h->taskd, &t) == PANDA_OK ? process_of(&t)
                                                        : NULL;
}

OsiProcHandle *panda_osi_get_current_process_handle(PandaCPU *cpu)
{
    OsiProcHandle *h;
    PandaTask t;

    if (panda_os_current(&t) != PANDA_OK) {
        return NULL;
    }
    h = g_new(OsiProcHandle, 1);
    *h = panda_osi_handle_of(&t);
    return h;
}

OsiThread *panda_osi_get_current_thread(PandaCPU *cpu)
{
    OsiThread *thread;
    PandaTask t;

    if (panda_os_current(&t) != PANDA_OK) {
        return NULL;
    }
    thread = g_new0(OsiThread, 1);
    thread->pid = t.pid;
    thread->tid = t.tid;
    return thread;
}

int32_t panda_osi_get_process_pid(PandaCPU *cpu, const OsiProcHandle *h)
{
    PandaTask t;

    return h && panda_os_task(h->taskd, &t) == PANDA_OK ? t.pid : -1;
}

int32_t panda_osi_get_process_ppid(PandaCPU *cpu, const OsiProcHandle *h)
{
    PandaTask t;

    return h && panda_os_task(h->taskd, &t) == PANDA_OK ? t.ppid : -1;
}

void panda_osi_free_osiproc(OsiProc *p)
{
    if (p) {
        g_free(p->name);
        g_free(p);
    }
}

void panda_osi_free_osiprochandle(OsiProcHandle *h)
{
    g_free(h);
}

void panda_osi_free_osithread(OsiThread *t)
{
    g_free(t);
}

void panda_osi_notify_task_change(PandaCPU *cpu)
{
    task_changed(panda_vcpu.cs, 0, 0);
}

static bool init(PandaPlugin *self)
{
    panda_ppp_define(&on_task_change);
    return true;
}

PANDA_PLUGIN(osi, "which process and thread runs", init, NULL);
