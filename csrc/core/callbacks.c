/*
 * The registry of callbacks.
 *
 * Lists are replaced as a whole and freed by RCU, so that an event can walk
 * one while a callback of it changes the registrations.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/listeners.h"
#include "core/python.h"

PandaCallbackList *panda_callback_lists[PANDA_CB_LAST];
uint32_t panda_enabled_count[PANDA_CB_LAST];
bool panda_gate_closed;

/* Filters of owners, for what they register: plugin -> PandaFilterState. */
static GHashTable *owner_filters;

/* Where in generated code a kind is raised, if that can be left out. */
static const uint32_t points[PANDA_CB_LAST] = {
    [PANDA_CB_BEFORE_BLOCK_EXEC_INVALIDATE_OPT] = BIT(PANDA_POINT_BLOCK),
    [PANDA_CB_BEFORE_BLOCK_EXEC] = BIT(PANDA_POINT_BLOCK),
    [PANDA_CB_AFTER_BLOCK_EXEC] = BIT(PANDA_POINT_BLOCK_END),
    [PANDA_CB_START_BLOCK_EXEC] = BIT(PANDA_POINT_BLOCK),
    [PANDA_CB_END_BLOCK_EXEC] = BIT(PANDA_POINT_BLOCK_END),
    [PANDA_CB_INSN_EXEC] = BIT(PANDA_POINT_INSN),
    [PANDA_CB_AFTER_INSN_EXEC] = BIT(PANDA_POINT_AFTER_INSN),
    [PANDA_CB_VIRT_MEM_BEFORE_READ] = BIT(PANDA_POINT_BEFORE_LOAD),
    [PANDA_CB_PHYS_MEM_BEFORE_READ] = BIT(PANDA_POINT_BEFORE_LOAD),
    [PANDA_CB_VIRT_MEM_AFTER_READ] = BIT(PANDA_POINT_AFTER_LOAD),
    [PANDA_CB_PHYS_MEM_AFTER_READ] = BIT(PANDA_POINT_AFTER_LOAD),
    [PANDA_CB_VIRT_MEM_BEFORE_WRITE] = BIT(PANDA_POINT_BEFORE_STORE),
    [PANDA_CB_PHYS_MEM_BEFORE_WRITE] = BIT(PANDA_POINT_BEFORE_STORE),
    [PANDA_CB_VIRT_MEM_AFTER_WRITE] = BIT(PANDA_POINT_AFTER_STORE),
    [PANDA_CB_PHYS_MEM_AFTER_WRITE] = BIT(PANDA_POINT_AFTER_STORE),
};

static bool is_physical(int kind)
{
    return kind == PANDA_CB_PHYS_MEM_BEFORE_READ
        || kind == PANDA_CB_PHYS_MEM_AFTER_READ
        || kind == PANDA_CB_PHYS_MEM_BEFORE_WRITE
        || kind == PANDA_CB_PHYS_MEM_AFTER_WRITE;
}

/* The number may come from a language without enums. */
static bool is_kind(int64_t type)
{
    return type >= 0 && type < PANDA_CB_LAST;
}

bool panda_callback_kind_raised(panda_cb_type type)
{
    return is_kind(type) && type != PANDA_CB_BEFORE_LOADVM;
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

void panda_callbacks_recount(void)
{
    unsigned plain[PANDA_POINTS] = { 0 }, plain_on[PANDA_POINTS] = { 0 };

    for (int kind = 0; kind < PANDA_CB_LAST; kind++) {
        PandaCallbackList *list = panda_callback_lists[kind];
        uint32_t enabled = 0;

        for (unsigned i = 0; list && i < list->n; i++) {
            PandaCallback *c = list->item[i];

            enabled += c->enabled && !(c->listener && c->listener->exhausted);
            if (!c->listener && points[kind]) {
                plain[ctz32(points[kind])]++;
                plain_on[ctz32(points[kind])] += c->enabled;
            }
        }
        qatomic_set(&panda_enabled_count[kind], enabled);
    }
    for (int point = 0; point < PANDA_POINTS; point++) {
        panda_listeners_count_plain(point, plain[point], plain_on[point]);
    }
    panda_live_update();
    panda_variants_update();
}

bool panda_callback_admits(const PandaCallback *c)
{
    PandaListener *l = c->listener;
    PandaVcpu *v = &panda_vcpu;

    if (l->points) {
        return v->pass & BIT_ULL(l->slot);
    }
    return panda_listener_wants(l, v->pub.panda_guest_pc, 0,
                                v->pub.panda_guest_pc);
}

/* ---- filters ---- */

static void free_state(PandaFilterState *state)
{
    panda_filter_clear(state);
    g_free(state);
}

int panda_set_filter(void *plugin, const PandaFilter *filter)
{
    PandaFilterState *state;
    int status = panda_check_names(filter);

    if (status != PANDA_OK) {
        return status;
    }
    pthread_mutex_lock(&panda_registry_lock);
    if (!owner_filters) {
        owner_filters = g_hash_table_new_full(NULL, NULL, NULL,
                                              (GDestroyNotify)free_state);
    }
    g_hash_table_remove(owner_filters, plugin);
    if (filter) {
        state = g_new0(PandaFilterState, 1);
        if (panda_filter_init(state, filter)) {
            g_hash_table_insert(owner_filters, plugin, state);
        } else {
            g_free(state);
            status = PANDA_ERR_ARGUMENT;
        }
    }
    pthread_mutex_unlock(&panda_registry_lock);
    return status;
}

static void free_callback_listener(PandaListener *listener)
{
    g_free(listener);
}

/* Give a new callback its owner's filter; the lock is held. */
static int make_listener(PandaCallback *callback, int kind)
{
    PandaFilterState *state = owner_filters
        ? g_hash_table_lookup(owner_filters, callback->plugin) : NULL;
    PandaListener *listener;
    int status;

    if (!state) {
        return PANDA_OK;
    }
    listener = g_new0(PandaListener, 1);
    panda_filter_init(&listener->filter, &state->spec);
    listener->points = points[kind];
    listener->physical = is_physical(kind);
    listener->free = free_callback_listener;
    status = panda_listener_add(listener);
    if (status != PANDA_OK) {
        panda_filter_clear(&listener->filter);
        g_free(listener);
        return status;
    }
    callback->listener = listener;
    return PANDA_OK;
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

static void free_list(PandaCallbackList *list)
{
    g_free(list);
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
    if (!callback.plugin || !function_of(&callback)) {
        return panda_fail(PANDA_ERR_ARGUMENT,
                          "a callback needs an owner and a function");
    }
    pthread_mutex_lock(&panda_registry_lock);
    old = panda_callback_lists[kind];
    for (unsigned i = 0; old && i < old->n; i++) {
        if (matches(old->item[i], kind, &same)) {
            status = panda_fail(PANDA_ERR_ARGUMENT, "this owner has "
                                "registered this function already");
        }
    }
    if (status == PANDA_OK) {
        callback.enabled = true;
        PandaCallback *added = g_memdup2(&callback, sizeof(callback));

        status = make_listener(added, kind);
        if (status != PANDA_OK) {
            g_free(added);
            pthread_mutex_unlock(&panda_registry_lock);
            return status;
        }
        list = copy_list(old, (old ? old->n : 0) + 1);
        list->item[list->n - 1] = added;
        qatomic_rcu_set(&panda_callback_lists[kind], list);
        if (old) {
            PANDA_FREE_LATER(old, free_list);
        }
        panda_callbacks_recount();
        reselect_instructions(kind);
    }
    pthread_mutex_unlock(&panda_registry_lock);
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

    pthread_mutex_lock(&panda_registry_lock);
    for (int kind = 0; kind < PANDA_CB_LAST; kind++) {
        PandaCallbackList *list = panda_callback_lists[kind];

        for (unsigned i = 0; list && i < list->n; i++) {
            if (matches(list->item[i], kind, match)) {
                bool changed = list->item[i]->enabled != enabled;

                if (list->item[i]->listener) {
                    panda_listener_enable(list->item[i]->listener, enabled);
                }
                qatomic_set(&list->item[i]->enabled, enabled);
                if (changed && enabled) {
                    reselect_instructions(kind);
                }
                n++;
            }
        }
    }
    if (n) {
        panda_callbacks_recount();
    }
    pthread_mutex_unlock(&panda_registry_lock);
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
    pthread_mutex_lock(&panda_registry_lock);
    PandaCallbackList *list = panda_callback_lists[type];
    for (unsigned i = 0; list && i < list->n; i++) {
        if (matches(list->item[i], type, &match)) {
            enabled = list->item[i]->enabled;
        }
    }
    pthread_mutex_unlock(&panda_registry_lock);
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

    pthread_mutex_lock(&panda_registry_lock);
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
                if (old->item[i]->listener) {
                    panda_listener_remove(old->item[i]->listener);
                }
                retired->callback = old->item[i];
                PANDA_FREE_LATER(retired, free_retired);
            }
        }
        qatomic_rcu_set(&panda_callback_lists[kind], list);
        PANDA_FREE_LATER(old, free_list);
    }
    if (owner_filters) {
        g_hash_table_remove(owner_filters, plugin);
    }
    panda_callbacks_recount();
    pthread_mutex_unlock(&panda_registry_lock);
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
