/*
 * osi: which process and thread runs, in PANDA's structures.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/events.h"
#include "panda/os_events.h"
#include "plugins/osi.h"
#include "plugins/plugins.h"

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
        const char *reason = panda_os_event_reason(PANDA_OS_SWITCH);

        if (reason) {
            panda_plugin_misses(reason, (void *)"osi");
        }
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
    OsiProc *p = NULL;
    PandaTask t;

    if (OSI_ASK(on_get_current_process, cpu, &p)) {
        return p;
    }
    return panda_os_current(&t) == PANDA_OK ? process_of(&t) : NULL;
}

OsiProc *panda_osi_get_process(PandaCPU *cpu, const OsiProcHandle *h)
{
    OsiProc *p = NULL;
    PandaTask t;

    if (OSI_ASK(on_get_process, cpu, h, &p)) {
        return p;
    }
    return h && panda_os_task(h->taskd, &t) == PANDA_OK ? process_of(&t)
                                                        : NULL;
}

static OsiProcHandle *new_handle(OsiProcHandle h)
{
    return g_memdup2(&h, sizeof(h));
}

OsiProcHandle *panda_osi_get_current_process_handle(PandaCPU *cpu)
{
    OsiProcHandle *h = NULL;
    PandaTask t;

    if (OSI_ASK(on_get_current_process_handle, cpu, &h)) {
        return h;
    }
    if (OSI_IS_ASKED(on_get_current_process)) {
        OsiProc *p = panda_osi_get_current_process(cpu);

        h = p ? new_handle((OsiProcHandle) { p->taskd, p->asid }) : NULL;
        panda_osi_free_osiproc(p);
        return h;
    }
    return panda_os_current(&t) == PANDA_OK
        ? new_handle(panda_osi_handle_of(&t)) : NULL;
}

OsiThread *panda_osi_get_current_thread(PandaCPU *cpu)
{
    OsiThread *thread = NULL;
    PandaTask t;

    if (OSI_ASK(on_get_current_thread, cpu, &thread)) {
        return thread;
    }
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
    int32_t pid = -1;
    OsiProc *p;

    if (!OSI_ASK(on_get_process_pid, cpu, h, &pid)
        && (p = panda_osi_get_process(cpu, h))) {
        pid = p->pid;
        panda_osi_free_osiproc(p);
    }
    return pid;
}

int32_t panda_osi_get_process_ppid(PandaCPU *cpu, const OsiProcHandle *h)
{
    int32_t ppid = -1;
    OsiProc *p;

    if (!OSI_ASK(on_get_process_ppid, cpu, h, &ppid)
        && (p = panda_osi_get_process(cpu, h))) {
        ppid = p->ppid;
        panda_osi_free_osiproc(p);
    }
    return ppid;
}

void panda_osi_notify_task_change(PandaCPU *cpu)
{
    task_changed(panda_vcpu.cs, 0, 0);
}

static bool init(PandaPlugin *self)
{
    g_autoptr(panda_arg_list) args = panda_plugin_args(self);

    panda_osi_core_is_silent = panda_parse_bool_opt(
        args, "disable-autoload", "only other plugins answer, not the core");
    panda_ppp_define(&on_task_change);
    panda_osi_define_questions();
    return true;
}

static void uninit(PandaPlugin *self)
{
    panda_ppp_undefine(&on_task_change);
    listeners_changed();
    panda_osi_undefine_questions();
}

PANDA_PLUGIN(osi, "which process and thread runs", init, uninit);
