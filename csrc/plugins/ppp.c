/*
 * The registry of PPP callback points.
 *
 * As with callbacks, lists are replaced as a whole and freed by RCU, so that an
 * event can walk one while a listener changes it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/python.h"
#include "plugins/ppp.h"

typedef struct List {
    struct rcu_head rcu;
    PandaPppList pub;
    PandaPppListener *item[];
} List;

typedef struct Listener {
    struct rcu_head rcu;
    PandaPppListener pub;
    /* A Python function: pub.function is python_listens(), with this. */
    PandaCallback call;
    uint8_t kinds[PANDA_PPP_WORDS];
    uint32_t n_kinds;
} Listener;

/* "plugin\nname" -> PandaPppPoint. */
static GHashTable *points;

/* Whoever holds it waits for nothing. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static char *key_of(const char *plugin, const char *name)
{
    return g_strdup_printf("%s\n%s", plugin, name);
}

static PandaPppPoint *find(const char *plugin, const char *name)
{
    g_autofree char *key = key_of(plugin, name);

    return points ? g_hash_table_lookup(points, key) : NULL;
}

static int no_such_point(const char *plugin, const char *name)
{
    return panda_fail(PANDA_ERR_ARGUMENT, "there is no callback %s of plugin "
                      "%s, or the plugin is not loaded", name, plugin);
}

static void free_list(List *list)
{
    g_free(list);
}

static void free_listener(Listener *listener)
{
    g_free(listener);
}

static void retire(PandaPppListener *l)
{
    Listener *retired = container_of(l, Listener, pub);

    /* An event that walks the old list passes over it. */
    qatomic_set(&l->enabled, 0);
    qatomic_set(&retired->call.enabled, false);
    PANDA_FREE_LATER(retired, free_listener);
}

/* A list with room for n, which takes over the items that stay. */
static List *new_list(unsigned n)
{
    List *list = g_malloc0(sizeof(*list) + n * sizeof(list->item[0]));

    list->pub.item = list->item;
    return list;
}

static void publish(PandaPppPoint *point, List *list)
{
    const PandaPppList *old = point->list;

    qatomic_rcu_set(&point->list, list->pub.n ? &list->pub : NULL);
    qatomic_set(&point->n, list->pub.n);
    if (!list->pub.n) {
        g_free(list);
    }
    if (old) {
        List *retired = container_of(old, List, pub);

        PANDA_FREE_LATER(retired, free_list);
    }
}

typedef struct Match {
    void *owner;
    PandaPppFunction function;
    void *context;
    bool has_context;
} Match;

static bool matches(const PandaPppListener *l, const Match *match)
{
    if (!match->function) {
        return l->owner == match->owner;
    }
    return l->function == match->function
        && !!l->has_context == match->has_context
        && l->context == match->context;
}

/* Returns how many were removed; the lock is held. */
static unsigned drop(PandaPppPoint *point, const Match *match)
{
    const PandaPppList *old = point->list;
    List *list;
    unsigned kept = 0;

    for (unsigned i = 0; old && i < old->n; i++) {
        kept += !matches(old->item[i], match);
    }
    if (!old || kept == old->n) {
        return 0;
    }
    list = new_list(kept);
    for (unsigned i = 0; i < old->n; i++) {
        if (matches(old->item[i], match)) {
            retire(old->item[i]);
        } else {
            list->item[list->pub.n++] = old->item[i];
        }
    }
    kept = old->n - kept;
    publish(point, list);
    return kept;
}

int panda_ppp_define(PandaPppPoint *point)
{
    PandaPppPoint *known;
    int status = PANDA_OK;

    if (!point->plugin || !point->name) {
        return panda_fail(PANDA_ERR_ARGUMENT,
                          "a callback point needs a plugin and a name");
    }
    pthread_mutex_lock(&lock);
    if (!points) {
        points = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    }
    known = find(point->plugin, point->name);
    if (known && known != point) {
        status = panda_fail(PANDA_ERR_ARGUMENT, "another callback %s of "
                            "plugin %s is defined", point->name,
                            point->plugin);
    } else if (!known) {
        point->gate = &panda_gate_closed;
        point->defined = 1;
        g_hash_table_insert(points, key_of(point->plugin, point->name), point);
    }
    pthread_mutex_unlock(&lock);
    return status;
}

void panda_ppp_undefine(PandaPppPoint *point)
{
    pthread_mutex_lock(&lock);
    if (point->defined) {
        g_autofree char *key = key_of(point->plugin, point->name);
        const PandaPppList *list = point->list;

        for (unsigned i = 0; list && i < list->n; i++) {
            retire(list->item[i]);
        }
        publish(point, new_list(0));
        g_hash_table_remove(points, key);
        point->defined = 0;
    }
    pthread_mutex_unlock(&lock);
}

static void tell(void (*changed)(void))
{
    if (changed) {
        changed();
    }
}

/* new: as it is to be, but for what is the same for all. */
static int add(const char *plugin, const char *name, Listener *new)
{
    PandaPppListener wanted = new->pub;
    Match same = { .function = wanted.function, .context = wanted.context,
                   .has_context = wanted.has_context };
    void (*changed)(void) = NULL;
    PandaPppPoint *point;
    int status = PANDA_OK;

    if (!wanted.owner || !wanted.function) {
        return panda_fail(PANDA_ERR_ARGUMENT,
                          "a callback needs an owner and a function");
    }
    pthread_mutex_lock(&lock);
    point = find(plugin, name);
    if (!point) {
        status = no_such_point(plugin, name);
    } else {
        const PandaPppList *old = point->list;
        unsigned n = old ? old->n : 0;

        for (unsigned i = 0; i < n; i++) {
            if (matches(old->item[i], &same)) {
                status = panda_fail(PANDA_ERR_ARGUMENT, "this function is "
                                    "called for %s of plugin %s already",
                                    name, plugin);
            }
        }
        if (status == PANDA_OK) {
            List *list = new_list(n + 1);

            if (n) {
                memcpy(list->item, old->item, n * sizeof(list->item[0]));
            }
            new->pub.enabled = 1;
            list->item[n] = &new->pub;
            list->pub.n = n + 1;
            publish(point, list);
            changed = point->changed;
        }
    }
    pthread_mutex_unlock(&lock);
    if (status != PANDA_OK) {
        g_free(new);
    }
    tell(changed);
    return status;
}

static Listener *new_listener(void *owner, PandaPppFunction function)
{
    Listener *listener = g_new0(Listener, 1);

    listener->pub.owner = owner;
    listener->pub.function = function;
    return listener;
}

int panda_ppp_add(const char *plugin, const char *name, void *owner,
                  PandaPppFunction function)
{
    return add(plugin, name, new_listener(owner, function));
}

int panda_ppp_add_with_context(const char *plugin, const char *name,
                               void *owner, PandaPppFunction function,
                               void *context)
{
    Listener *listener = new_listener(owner, function);

    listener->pub.context = context;
    listener->pub.has_context = 1;
    return add(plugin, name, listener);
}

/*
 * Integers and pointers are passed one a register or a slot of the stack; so
 * this can be called with fewer arguments, and does not look at the rest.
 */
static int python_listens(void *opaque, uint64_t a0, uint64_t a1, uint64_t a2,
                          uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6,
                          uint64_t a7, uint64_t a8)
{
    Listener *l = opaque;
    const uint64_t words[] = { a0, a1, a2, a3, a4, a5, a6, a7, a8 };

    return panda_python_call_words(&l->call, l->n_kinds, words, l->kinds);
}

int panda_ppp_add_python(const char *plugin, const char *name, void *owner,
                         const PandaPythonCallback *callback,
                         const uint8_t *kinds, uint32_t n)
{
    Listener *listener;

    if (!panda_python_supports(PANDA_CB_START_BLOCK_EXEC)) {
        return panda_fail(PANDA_ERR_UNSUPPORTED, "the core cannot call this "
                          "Python's functions");
    }
    if (n >= PANDA_PPP_WORDS) {
        return panda_fail(PANDA_ERR_ARGUMENT, "%" PRIu32 " arguments: a "
                          "callback has %d at most", n, PANDA_PPP_WORDS - 1);
    }
    listener = new_listener(owner, (PandaPppFunction)python_listens);
    listener->pub.context = listener;
    listener->pub.has_context = 1;
    panda_python_prepare(&listener->call.python, PANDA_CB_START_BLOCK_EXEC,
                         callback);
    listener->call.enabled = true;
    memcpy(listener->kinds, kinds, n);
    listener->n_kinds = n;
    return add(plugin, name, listener);
}

static int remove_one(const char *plugin, const char *name,
                      const Match *match)
{
    void (*changed)(void) = NULL;
    int status = PANDA_OK;
    PandaPppPoint *point;

    pthread_mutex_lock(&lock);
    point = find(plugin, name);
    if (!point) {
        status = no_such_point(plugin, name);
    } else if (!match->function || !drop(point, match)) {
        status = panda_fail(PANDA_ERR_ARGUMENT, "this function is not called "
                            "for %s of plugin %s", name, plugin);
    } else {
        changed = point->changed;
    }
    pthread_mutex_unlock(&lock);
    tell(changed);
    return status;
}

int panda_ppp_remove(const char *plugin, const char *name,
                     PandaPppFunction function)
{
    return remove_one(plugin, name, &(Match) { .function = function });
}

int panda_ppp_remove_with_context(const char *plugin, const char *name,
                                  PandaPppFunction function, void *context)
{
    return remove_one(plugin, name, &(Match) { .function = function,
                                               .context = context,
                                               .has_context = true });
}

void panda_ppp_remove_all(void *owner)
{
    g_autoptr(GPtrArray) told = g_ptr_array_new();
    Match match = { .owner = owner };
    GHashTableIter iter;
    void *value;

    pthread_mutex_lock(&lock);
    if (points) {
        g_hash_table_iter_init(&iter, points);
        while (g_hash_table_iter_next(&iter, NULL, &value)) {
            PandaPppPoint *point = value;

            if (drop(point, &match) && point->changed
                && !g_ptr_array_find(told, point->changed, NULL)) {
                g_ptr_array_add(told, point->changed);
            }
        }
    }
    pthread_mutex_unlock(&lock);
    for (unsigned i = 0; i < told->len; i++) {
        ((void (*)(void))g_ptr_array_index(told, i))();
    }
}

int panda_ppp_count(const char *plugin, const char *name)
{
    PandaPppPoint *point;
    int n;

    pthread_mutex_lock(&lock);
    point = find(plugin, name);
    n = point ? (int)point->n : no_such_point(plugin, name);
    pthread_mutex_unlock(&lock);
    return n;
}

/*
 * Integers and pointers are passed one a register or a slot of the stack, and
 * a function that takes fewer does not look at the rest: so all are called
 * alike.
 */
void panda_ppp_run_words(const PandaPppPoint *point, const uint64_t *words,
                         uint32_t n)
{
    typedef void Any(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                     uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
    uint64_t w[PANDA_PPP_WORDS + 1] = { 0 };

    memcpy(w + 1, words, MIN(n, PANDA_PPP_WORDS) * sizeof(*words));
    PANDA_PPP_EACH(point, l, {
        const uint64_t *a = l->has_context ? w : w + 1;

        w[0] = (uintptr_t)l->context;
        ((Any *)l->function)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7],
                             a[8], a[9]);
    });
}
