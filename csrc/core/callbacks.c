/*
 * The registry of callbacks.
 *
 * Lists are replaced as a whole and freed by RCU, so that an event can walk
 * one while a callback of it changes the registrations.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/python.h"

PandaCallbackList *panda_callback_lists[PANDA_CB_LAST];
uint32_t panda_enabled_count[PANDA_CB_LAST];
bool panda_gate_closed;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Kinds that a hook in this directory raises. */
static const bool raised[PANDA_CB_LAST] = {
    [PANDA_CB_BEFORE_BLOCK_TRANSLATE] = true,
    [PANDA_CB_AFTER_BLOCK_TRANSLATE] = true,
    [PANDA_CB_BEFORE_BLOCK_EXEC_INVALIDATE_OPT] = true,
    [PANDA_CB_BEFORE_TCG_CODEGEN] = true,
    [PANDA_CB_BEFORE_BLOCK_EXEC] = true,
    [PANDA_CB_AFTER_BLOCK_EXEC] = true,
    [PANDA_CB_INSN_TRANSLATE] = true,
    [PANDA_CB_INSN_EXEC] = true,
    [PANDA_CB_AFTER_INSN_TRANSLATE] = true,
    [PANDA_CB_AFTER_INSN_EXEC] = true,
    [PANDA_CB_VIRT_MEM_BEFORE_READ] = true,
    [PANDA_CB_VIRT_MEM_BEFORE_WRITE] = true,
    [PANDA_CB_PHYS_MEM_BEFORE_READ] = true,
    [PANDA_CB_PHYS_MEM_BEFORE_WRITE] = true,
    [PANDA_CB_VIRT_MEM_AFTER_READ] = true,
    [PANDA_CB_VIRT_MEM_AFTER_WRITE] = true,
    [PANDA_CB_PHYS_MEM_AFTER_READ] = true,
    [PANDA_CB_PHYS_MEM_AFTER_WRITE] = true,
    /* Declared by PANDA and never raised there either. */
    [PANDA_CB_HD_READ] = true,
    [PANDA_CB_HD_WRITE] = true,
    [PANDA_CB_MONITOR] = true,
    [PANDA_CB_CPU_RESTORE_STATE] = true,
    [PANDA_CB_ASID_CHANGED] = true,
    [PANDA_CB_AFTER_MACHINE_INIT] = true,
    [PANDA_CB_AFTER_LOADVM] = true,
    [PANDA_CB_TOP_LOOP] = true,
    [PANDA_CB_DURING_MACHINE_INIT] = true,
    [PANDA_CB_MAIN_LOOP_WAIT] = true,
    [PANDA_CB_PRE_SHUTDOWN] = true,
    [PANDA_CB_START_BLOCK_EXEC] = true,
    [PANDA_CB_END_BLOCK_EXEC] = true,
};

/* The number may come from a language without enums. */
static bool is_kind(int64_t type)
{
    return type >= 0 && type < PANDA_CB_LAST;
}

bool panda_callback_kind_raised(panda_cb_type type)
{
    return is_kind(type) && raised[type];
}

/* A set of callbacks: those of a kind, an owner, a function. */
typedef struct Match {
    int kind;
    void *plugin;
    void (*function)(void);
} Match;

static void (*function_of(const PandaCallback *c))(void)
{
    if (c->is_python) {
        return (void (*)(void))c->python.callable;
    }
    return c->has_context ? c->with_context.cbaddr : c->plain.cbaddr;
}

static bool matches(const PandaCallback *c, int kind, const Match *match)
{
    return c->plugin == match->plugin
        && (match->kind < 0 || match->kind == kind)
        && (!match->function || match->function == function_of(c));
}

static void recount(void)
{
    for (int kind = 0; kind < PANDA_CB_LAST; kind++) {
        PandaCallbackList *list = panda_callback_lists[kind];
        uint32_t enabled = 0;

        for (unsigned i = 0; list && i < list->n; i++) {
            enabled += list->item[i]->enabled;
        }
        qatomic_set(&panda_enabled_count[kind], enabled);
    }
}

/*
 * Instructions are selected when they are translated, so what was translated
 * before a new listener came has to be translated again.
 */
static void reselect_instructions(int kind)
{
    if (kind == PANDA_CB_INSN_TRANSLATE
        || kind == PANDA_CB_AFTER_INSN_TRANSLATE) {
        panda_do_flush_tb();
    }
}

static PandaCallbackList *copy_list(const PandaCallbackList *old, unsigned n)
{
    PandaCallbackList *list =
        g_malloc0(sizeof(*list) + n * sizeof(list->item[0]));

    if (old) {
        memcpy(list->item, old->item,
               MIN(n, old->n) * sizeof(list->item[0]));
    }
    list->n = n;
    return list;
}

static int add(panda_cb_type kind, PandaCallback callback)
{
    Match same = { kind, callback.plugin, function_of(&callback) };
    PandaCallbackList *old, *list;
    int status = PANDA_OK;

    if (!is_kind(kind)) {
        return panda_fail(PANDA_ERR_ARGUMENT, "there is no callback kind %d",
                          kind);
    }
    if (kind == PANDA_CB_BEFORE_LOADVM) {
        return panda_fail(PANDA_ERR_ARGUMENT, "before_loadvm cannot be "
                          "registered; use after_loadvm");
    }
    if (!raised[kind]) {
        return panda_fail(PANDA_ERR_UNSUPPORTED,
                          "callback kind %d is not raised yet", kind);
    }
    if (!callback.plugin || !function_of(&callback)) {
        return panda_fail(PANDA_ERR_ARGUMENT,
                          "a callback needs an owner and a function");
    }
    pthread_mutex_lock(&lock);
    old = panda_callback_lists[kind];
    for (unsigned i = 0; old && i < old->n; i++) {
        if (matches(old->item[i], kind, &same)) {
            status = panda_fail(PANDA_ERR_ARGUMENT, "this owner has "
                                "registered this function already");
        }
    }
    if (status == PANDA_OK) {
        callback.enabled = true;
        list = copy_list(old, (old ? old->n : 0) + 1);
        list->item[list->n - 1] = g_memdup2(&callback, sizeof(callback));
        qatomic_rcu_set(&panda_callback_lists[kind], list);
        if (old) {
            g_free_rcu(old, rcu);
        }
        recount();
        panda_variants_update();
        reselect_instructions(kind);
    }
    pthread_mutex_unlock(&lock);
    return status;
}

int panda_register_callback(void *plugin, panda_cb_type type, panda_cb cb)
{
    return add(type, (PandaCallback) { .plugin = plugin, .plain = cb });
}

int panda_register_callback_helper(void *plugin, panda_cb_type type,
                                   panda_cb *cb)
{
    return panda_register_callback(plugin, type, *cb);
}

int panda_register_callback_with_context(void *plugin, panda_cb_type type,
                                         panda_cb_with_context cb,
                                         void *context)
{
    return add(type, (PandaCallback) {
        .plugin = plugin, .with_context = cb, .has_context = true,
        .context = context,
    });
}

int panda_register_python_callback(void *plugin, panda_cb_type type,
                                   const PandaPythonCallback *callback)
{
    PandaCallback c = { .plugin = plugin, .is_python = true };

    if (!panda_python_supports(type)) {
        return panda_fail(PANDA_ERR_UNSUPPORTED, "callbacks of kind %d are "
                          "registered as C functions only", type);
    }
    panda_python_prepare(&c.python, type, callback);
    return add(type, c);
}

/* Returns how many callbacks matched. */
static unsigned set_enabled(const Match *match, bool enabled)
{
    unsigned n = 0;

    pthread_mutex_lock(&lock);
    for (int kind = 0; kind < PANDA_CB_LAST; kind++) {
        PandaCallbackList *list = panda_callback_lists[kind];

        for (unsigned i = 0; list && i < list->n; i++) {
            if (matches(list->item[i], kind, match)) {
                bool changed = list->item[i]->enabled != enabled;

                qatomic_set(&list->item[i]->enabled, enabled);
                if (changed && enabled) {
                    reselect_instructions(kind);
                }
                n++;
            }
        }
    }
    if (n) {
        recount();
        panda_variants_update();
    }
    pthread_mutex_unlock(&lock);
    return n;
}

static int set_enabled_one(void *plugin, panda_cb_type type, panda_cb cb,
                           bool enabled)
{
    Match match = { type, plugin, cb.cbaddr };

    if (!is_kind(type) || !cb.cbaddr
        || !set_enabled(&match, enabled)) {
        return panda_fail(PANDA_ERR_ARGUMENT,
                          "this callback is not registered");
    }
    return PANDA_OK;
}

int panda_enable_callback(void *plugin, panda_cb_type type, panda_cb cb)
{
    return set_enabled_one(plugin, type, cb, true);
}

int panda_enable_callback_helper(void *plugin, panda_cb_type type,
                                 panda_cb *cb)
{
    return set_enabled_one(plugin, type, *cb, true);
}

int panda_disable_callback(void *plugin, panda_cb_type type, panda_cb cb)
{
    return set_enabled_one(plugin, type, cb, false);
}

int panda_disable_callback_helper(void *plugin, panda_cb_type type,
                                  panda_cb *cb)
{
    return set_enabled_one(plugin, type, *cb, false);
}

void panda_enable_plugin(void *plugin)
{
    set_enabled(&(Match) { -1, plugin, NULL }, true);
}

void panda_disable_plugin(void *plugin)
{
    set_enabled(&(Match) { -1, plugin, NULL }, false);
}

bool panda_is_callback_enabled(void *plugin, panda_cb_type type, panda_cb cb)
{
    Match match = { type, plugin, cb.cbaddr };
    bool enabled = false;

    if (!is_kind(type)) {
        return false;
    }
    pthread_mutex_lock(&lock);
    PandaCallbackList *list = panda_callback_lists[type];
    for (unsigned i = 0; list && i < list->n; i++) {
        if (matches(list->item[i], type, &match)) {
            enabled = list->item[i]->enabled;
        }
    }
    pthread_mutex_unlock(&lock);
    return enabled;
}

typedef struct Retired {
    struct rcu_head rcu;
    PandaCallback *callback;
} Retired;

static void free_retired(Retired *retired)
{
    g_free(retired->callback);
    g_free(retired);
}

void panda_unregister_callbacks(void *plugin)
{
    Match match = { -1, plugin, NULL };

    pthread_mutex_lock(&lock);
    for (int kind = 0; kind < PANDA_CB_LAST; kind++) {
        PandaCallbackList *old = panda_callback_lists[kind];
        PandaCallbackList *list;
        unsigned kept = 0;

        for (unsigned i = 0; old && i < old->n; i++) {
            kept += !matches(old->item[i], kind, &match);
        }
        if (!old || kept == old->n) {
            continue;
        }
        list = copy_list(NULL, kept);
        kept = 0;
        for (unsigned i = 0; i < old->n; i++) {
            if (!matches(old->item[i], kind, &match)) {
                list->item[kept++] = old->item[i];
            } else {
                Retired *retired = g_new0(Retired, 1);

                /* An event that walks the old list passes over it. */
                qatomic_set(&old->item[i]->enabled, false);
                retired->callback = old->item[i];
                call_rcu(retired, free_retired, rcu);
            }
        }
        qatomic_rcu_set(&panda_callback_lists[kind], list);
        g_free_rcu(old, rcu);
    }
    recount();
    panda_variants_update();
    pthread_mutex_unlock(&lock);
}

uint32_t panda_callback_count(panda_cb_type type)
{
    return is_kind(type)
        ? qatomic_read(&panda_enabled_count[type]) : 0;
}

void panda_set_callback_gate(bool closed)
{
    qatomic_set(&panda_gate_closed, closed);
}
