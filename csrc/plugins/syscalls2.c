/*
 * syscalls2: PANDA's callbacks of system calls, on top of csrc/syscalls/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/listeners.h"
#include "plugins/plugins.h"
#include "plugins/ppp.h"
#include "syscalls/syscalls.h"
#include "panda/plugins/syscalls2.h"

#define PLUGIN "syscalls2"

/* One for each name there is: before and after. */
typedef struct Points {
    PandaPppPoint enter, leave;
} Points;

static Points *by_name;

static void changed(void);

static PandaPppPoint on_all_sys_enter =
    PANDA_PPP_POINT(PLUGIN, "on_all_sys_enter", changed);
static PandaPppPoint on_all_sys_return =
    PANDA_PPP_POINT(PLUGIN, "on_all_sys_return", changed);
static PandaPppPoint on_all_sys_enter2 =
    PANDA_PPP_POINT(PLUGIN, "on_all_sys_enter2", changed);
static PandaPppPoint on_all_sys_return2 =
    PANDA_PPP_POINT(PLUGIN, "on_all_sys_return2", changed);
static PandaPppPoint on_unknown_sys_enter =
    PANDA_PPP_POINT(PLUGIN, "on_unknown_sys_enter", changed);
static PandaPppPoint on_unknown_sys_return =
    PANDA_PPP_POINT(PLUGIN, "on_unknown_sys_return", changed);

static bool load_info;
/* The only ABI that is looked at; negative: all. */
static int only_abi = -1;

static syscall_meta_t meta;

static PandaListener *listener;
static bool listening;

/* ---- what is known of the calls ---- */

static uint32_t type_of(char kind, unsigned word)
{
    switch (kind) {
    case 'i':
        return SYSCALL_ARG_S32;
    case 'u':
        return SYSCALL_ARG_U32;
    case 'q':
        return SYSCALL_ARG_U64;
    case 's':
        return SYSCALL_ARG_STR_PTR;
    case 'b':
        return SYSCALL_ARG_BUF_PTR;
    case 'p':
        return SYSCALL_ARG_STRUCT_PTR;
    default:
        return word == 8 ? SYSCALL_ARG_U64 : SYSCALL_ARG_U32;
    }
}

/* Made when it is first asked for; it stays. */
static const syscall_info_t *info_of(const PandaSyscallEntry *entry)
{
    static GHashTable *made;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    unsigned word = panda_syscall_abis[entry->abi].word;
    syscall_info_t *info;

    pthread_mutex_lock(&lock);
    made = made ?: g_hash_table_new(NULL, NULL);
    info = g_hash_table_lookup(made, entry);
    if (!info) {
        uint32_t *types = g_new0(uint32_t, entry->nargs + 1);
        uint8_t *sizes = g_new0(uint8_t, entry->nargs + 1);

        for (unsigned i = 0; i < entry->nargs; i++) {
            types[i] = type_of(entry->kind[i], word);
            sizes[i] = entry->kind[i] == 'q' ? 8
                : strchr("iu", entry->kind[i]) ? 4 : word;
        }
        info = g_new(syscall_info_t, 1);
        *info = (syscall_info_t) {
            .no = entry->number,
            .name = panda_syscall_names[entry->name_id].full,
            .nargs = entry->nargs,
            .argt = types,
            .argsz = sizes,
            .argn = entry->arg,
            .argtn = entry->type,
            .noreturn = entry->noreturn,
        };
        g_hash_table_insert(made, (void *)entry, info);
    }
    pthread_mutex_unlock(&lock);
    return info;
}

/* Numbers of MIPS tell the ABI; of others it is the first. */
static const PandaSyscallEntry *find(uint32_t callno)
{
    for (unsigned i = 0; i < panda_syscall_n_abis; i++) {
        const PandaSyscallEntry *entry = panda_syscall_entry(i, callno);

        if (entry || !panda_syscall_abis[i].base) {
            return entry;
        }
    }
    return NULL;
}

const syscall_info_t *panda_syscalls2_get_syscall_info(uint32_t callno)
{
    const PandaSyscallEntry *entry;

    if (!load_info) {
        return NULL;
    }
    panda_syscall_tables();
    entry = find(callno);
    return entry ? info_of(entry) : NULL;
}

const syscall_meta_t *panda_syscalls2_get_syscall_meta(void)
{
    const PandaSyscallAbi *abi = &panda_syscall_abis[MAX(only_abi, 0)];

    if (!load_info) {
        return NULL;
    }
    panda_syscall_tables();
    meta.max_generic = abi->base + abi->count - 1;
    meta.max = abi->n_beyond ? abi->beyond[abi->n_beyond - 1].number
                             : meta.max_generic;
    meta.max_args = PANDA_SYSCALL_ARGS;
    return &meta;
}

int64_t panda_syscalls2_get_syscall_retval(PandaCPU *cpu)
{
    return panda_syscall_present_result(panda_vcpu.cs);
}

/* ---- events ---- */

static void raise_one(PandaPppPoint *point, const uint64_t *words, unsigned n)
{
    if (panda_ppp_wanted(point)) {
        panda_ppp_run_words(point, words, n);
    }
}

static void raise_second(PandaPppPoint *point, const PandaSyscallCall *call,
                         PandaSyscallPhase phase, int64_t result,
                         const uint64_t *args, unsigned n)
{
    syscall_ctx_t ctx = {
        .no = call->number,
        .asid = call->asid,
        .retaddr = call->return_pc,
        .double_return = call->entry
            && call->entry->trait == PANDA_SYSCALL_FORKS,
        .profile = call->abi,
        .result = result,
        .thread = call->thread,
        .caller = call->caller,
        .in_child = phase == PANDA_SYSCALL_RETURN_IN_CHILD,
    };
    uint64_t words[4] = {
        (uintptr_t)&panda_vcpu.pub, call->pc,
        load_info && call->entry ? (uintptr_t)info_of(call->entry) : 0,
        (uintptr_t)&ctx,
    };

    memcpy(ctx.args, args, n * 8);
    panda_ppp_run_words(point, words, 4);
}

/* The callbacks of one event, in PANDA's order. */
static void raise_event(const PandaSyscallCall *call, PandaSyscallPhase phase,
                        int64_t result, const uint64_t *args, unsigned n)
{
    bool enter = phase == PANDA_SYSCALL_ENTER;
    uint64_t words[2 + PANDA_SYSCALL_ARGS] = {
        (uintptr_t)&panda_vcpu.pub, call->pc,
    };
    PandaPppPoint *second = enter ? &on_all_sys_enter2 : &on_all_sys_return2;

    if (call->entry) {
        Points *points = &by_name[call->entry->name_id];

        memcpy(words + 2, args, n * 8);
        raise_one(enter ? &points->enter : &points->leave, words, 2 + n);
    }
    words[2] = call->number;
    if (!call->entry) {
        raise_one(enter ? &on_unknown_sys_enter : &on_unknown_sys_return,
                  words, 3);
    }
    raise_one(enter ? &on_all_sys_enter : &on_all_sys_return, words, 3);
    if (panda_ppp_wanted(second)) {
        raise_second(second, call, phase, result, args, n);
    }
}

/* ---- who wants what ---- */

static uint8_t wants(PandaPppPoint *enter, PandaPppPoint *leave)
{
    return (panda_ppp_wanted(enter) ? PANDA_WANT_ENTER : 0)
        | (panda_ppp_wanted(leave) ? PANDA_WANT_RETURN : 0);
}

static void free_listener(PandaListener *l)
{
    g_free(l);
}

/* The code that calls out is made while somebody wants it. */
static void set_listening(bool wanted)
{
    if (!listener && wanted) {
        PandaListener *made = g_new0(PandaListener, 1);

        made->points = BIT(PANDA_POINT_SYSCALL);
        made->free = free_listener;
        if (panda_listener_open(made, NULL) != PANDA_OK) {
            g_free(made);
            return;
        }
        listener = made;
        listening = true;
    } else if (listener && listening != wanted) {
        panda_listener_set_enabled(listener, wanted);
        listening = wanted;
    }
}

static void changed(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    uint8_t all = wants(&on_all_sys_enter, &on_all_sys_return)
        | wants(&on_all_sys_enter2, &on_all_sys_return2);
    uint8_t unknown = wants(&on_unknown_sys_enter, &on_unknown_sys_return);
    uint8_t any = all | unknown;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; by_name && i < panda_syscall_n_names; i++) {
        uint8_t want = wants(&by_name[i].enter, &by_name[i].leave);

        any |= want;
        panda_syscall_want(i, want, only_abi);
    }
    panda_syscall_sink_wants(all, unknown, only_abi);
    set_listening(any);
    pthread_mutex_unlock(&lock);
}

/* ---- the plugin ---- */

static bool set_abi(const char *name)
{
    only_abi = -1;
    if (!name || !*name) {
        return true;
    }
    for (unsigned i = 0; i < panda_syscall_n_abis; i++) {
        const char *known = panda_syscall_abis[i].name;

        if (!strcmp(known, name)
            || (g_str_has_prefix(known, "mips_") && !strcmp(known + 5, name))) {
            only_abi = i;
            return true;
        }
    }
    panda_fail(PANDA_ERR_ARGUMENT, "syscalls2: there is no ABI \"%s\" on this "
               "architecture", name);
    return false;
}

static bool init(PandaPlugin *self)
{
    g_autoptr(panda_arg_list) args = panda_plugin_args(self);

    load_info = panda_parse_bool(args, "load-info");
    panda_syscall_tables();
    if (!set_abi(panda_parse_string_opt(args, "abi", "",
                                        "the only set of numbers to look at: "
                                        "n64, n32, o32, ..."))) {
        return false;
    }
    panda_ppp_define(&on_all_sys_enter);
    panda_ppp_define(&on_all_sys_return);
    panda_ppp_define(&on_all_sys_enter2);
    panda_ppp_define(&on_all_sys_return2);
    panda_ppp_define(&on_unknown_sys_enter);
    panda_ppp_define(&on_unknown_sys_return);
    if (!by_name) {
        by_name = g_new0(Points, panda_syscall_n_names);
        for (unsigned i = 0; i < panda_syscall_n_names; i++) {
            const char *name = panda_syscall_names[i].full;

            by_name[i].enter = (PandaPppPoint) PANDA_PPP_POINT(
                PLUGIN, g_strdup_printf("on_%s_enter", name), changed);
            by_name[i].leave = (PandaPppPoint) PANDA_PPP_POINT(
                PLUGIN, g_strdup_printf("on_%s_return", name), changed);
        }
    }
    for (unsigned i = 0; i < panda_syscall_n_names; i++) {
        panda_ppp_define(&by_name[i].enter);
        panda_ppp_define(&by_name[i].leave);
    }
    panda_syscall_set_sink(raise_event);
    return true;
}

static void uninit(PandaPlugin *self)
{
    panda_syscall_set_sink(NULL);
    changed();
    if (listener) {
        panda_listener_close(listener);
        panda_do_flush_tb();
        listener = NULL;
    }
}

PANDA_PLUGIN(syscalls2, "system calls of Linux guests", init, uninit);
