/*
 * callstack_instr: a face of the stacks that the core keeps (core/branches.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/branches.h"
#include "core/listeners.h"
#include "introspect/images.h"
#include "introspect/internal.h"
#include "plugins/plugins.h"
#include "plugins/ppp.h"
#include "panda/plugins/callstack_instr.h"

static void changed(void);

static PandaPppPoint on_call = PANDA_PPP_POINT("callstack_instr", "on_call",
                                               changed);
static PandaPppPoint on_ret = PANDA_PPP_POINT("callstack_instr", "on_ret",
                                              changed);

static PandaListener *listener;
static stack_type kind;

static void taken(CPUState *cs, bool returns, uint64_t func)
{
    if (returns) {
        PANDA_PPP_RUN(&on_ret, on_ret_t, &panda_vcpu.pub, func);
    } else {
        PANDA_PPP_RUN(&on_call, on_call_t, &panda_vcpu.pub, func);
    }
}

/* Events cost more than keeping the stacks: only while somebody listens. */
static void changed(void)
{
    bool wanted = on_call.n || on_ret.n;

    if (wanted != !!panda_branch_taken) {
        qatomic_set(&panda_branch_taken, wanted ? taken : NULL);
        panda_do_flush_tb();
    }
}

/* Only in an event is it known where the CPU is. */
static bool is_known(void)
{
    return listener && panda_vcpu.cs && panda_vcpu.pub.in_callback;
}

uint32_t panda_callstack_instr_get_callers(target_ptr_t *callers, uint32_t n,
                                           PandaCPU *cpu)
{
    g_autofree uint64_t *functions = NULL;

    if (!is_known()) {
        return 0;
    }
    functions = g_new(uint64_t, n);
    return panda_branches_frames(panda_vcpu.cs, cpu->panda_guest_pc, n,
                                 callers, functions);
}

uint32_t panda_callstack_instr_get_functions(target_ptr_t *functions,
                                             uint32_t n, PandaCPU *cpu)
{
    g_autofree uint64_t *callers = NULL;

    if (!is_known()) {
        return 0;
    }
    callers = g_new(uint64_t, n);
    return panda_branches_frames(panda_vcpu.cs, cpu->panda_guest_pc, n,
                                 callers, functions);
}

/* What an address of the kernel is in. */
static char *kernel_binary(uint64_t address)
{
    uint64_t offset;
    const char *name = panda_os_symbol_at(address, &offset);
    const char *module = name ? strstr(name, " [") : NULL;

    return module ? g_strndup(module + 2, strcspn(module + 2, "]"))
                  : g_strdup(name ? "[kernel]" : "[???]");
}

static bool take_path(const OsImage *image, void *opaque)
{
    *(char **)opaque = g_strdup(image->path);
    return false;
}

/* What an address of a process is in. */
static char *user_binary(uint64_t task, uint64_t address)
{
    g_autofree char *path = g_malloc0(PATH_MAX);
    char *found = NULL;
    PandaMapping m;

    if (!task || panda_os_mapping_at(task, address, &m) != PANDA_OK) {
        return g_strdup("[???]");
    }
    if (m.file) {
        return g_strdup(panda_os_file_path(m.file, path, PATH_MAX) > 0
                        ? path : "[???]");
    }
    WITH_QEMU_LOCK_GUARD(&os_lock) {
        os_for_each_image(task, NULL, address, take_path, &found);
    }
    return found ?: g_strdup("[???]");
}

uint32_t panda_callstack_instr_get_binaries(char **libs, uint32_t n,
                                            PandaCPU *cpu)
{
    /* Of the last answer. */
    static __thread char **texts;
    g_autofree uint64_t *callers = g_new(uint64_t, n);
    uint64_t task;
    bool kernel;

    n = panda_callstack_instr_get_callers(callers, n, cpu);
    g_strfreev(texts);
    texts = g_new0(char *, n + 1);
    kernel = n && panda_arch_in_kernel(panda_vcpu.cs);
    task = n && !kernel ? panda_os_current_task(panda_vcpu.cs) : 0;
    for (uint32_t i = 0; i < n; i++) {
        libs[i] = texts[i] = kernel ? kernel_binary(callers[i])
                                    : user_binary(task, callers[i]);
    }
    return n;
}

void panda_callstack_instr_callstack_enable_binary_tracking(void)
{
}

void panda_callstack_instr_get_prog_point(PandaCPU *cpu, prog_point *point)
{
    CPUState *cs = panda_vcpu.cs;

    *point = (prog_point) { .stackKind = kind };
    if (!is_known()) {
        return;
    }
    point->pc = cpu->panda_guest_pc;
    point->isKernelMode = panda_arch_in_kernel(cs);
    point->sidFirst = panda_arch_get_asid(cs);
    point->sidSecond = kind == STACK_THREADED ? panda_os_current_task(cs) : 0;
    panda_callstack_instr_get_callers(&point->caller, 1, cpu);
}

static void free_listener(PandaListener *l)
{
    g_free(l);
}

static bool choose_kind(PandaPlugin *self)
{
    static const char *const names[] = { "asid", "heuristic", "threaded" };
    g_autoptr(panda_arg_list) args = panda_plugin_args(self);
    const char *name = panda_parse_string_opt(
        args, "stack_type", "threaded", "how stacks are told from each other");

    panda_parse_bool_opt(args, "verbose", "kept for PANDA's sake");
    for (kind = 0; kind < ARRAY_SIZE(names); kind++) {
        if (!strcmp(name, names[kind])) {
            panda_branches_set_kind((PandaStackKind)kind);
            return true;
        }
    }
    panda_fail(PANDA_ERR_ARGUMENT, "plugin callstack_instr: stack_type=%s is "
               "none of asid, heuristic, threaded", name);
    return false;
}

static bool init(PandaPlugin *self)
{
    if (!choose_kind(self)) {
        return false;
    }
    panda_ppp_define(&on_call);
    panda_ppp_define(&on_ret);
    listener = g_new0(PandaListener, 1);
    listener->points = BIT(PANDA_POINT_BRANCH);
    listener->free = free_listener;
    if (panda_listener_open(listener, NULL) != PANDA_OK) {
        g_free(listener);
        listener = NULL;
        return false;
    }
    return true;
}

static void uninit(PandaPlugin *self)
{
    panda_listener_close(listener);
    listener = NULL;
    panda_ppp_undefine(&on_call);
    panda_ppp_undefine(&on_ret);
    changed();
    panda_branches_set_kind(PANDA_STACK_HEURISTIC);
}

PANDA_PLUGIN(callstack_instr, "who has called what is running", init, uninit);
