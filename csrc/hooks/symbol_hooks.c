/*
 * Hooks of symbols: an ordinary hook in each process that has one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "panda/plugins.h"
#include "panda/plugins/dynamic_symbols.h"
#include "panda/plugins/hooks.h"

/* A hook in a process. */
typedef struct Placed {
    int number;
    target_ptr_t asid;
    hook *hook;
} Placed;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Number -> what was asked for. */
static GHashTable *wanted;
static GArray *placed;

static void found(hook_symbol_resolve *r, const symbol *sym, target_ptr_t asid)
{
    hook h = {
        .addr = sym->address,
        .asid = asid,
        .km = MODE_USER_ONLY,
        .enabled = true,
        .sym = *sym,
    };
    const symbol_hook *w;
    Placed p = { .number = r->id, .asid = asid };

    pthread_mutex_lock(&lock);
    w = g_hash_table_lookup(wanted, GINT_TO_POINTER(r->id));
    if (w) {
        h.type = w->type;
        h.cb = w->cb;
    }
    pthread_mutex_unlock(&lock);
    p.hook = w ? panda_hooks_add_hook(&h) : NULL;
    if (p.hook) {
        pthread_mutex_lock(&lock);
        g_array_append_val(placed, p);
        pthread_mutex_unlock(&lock);
    }
}

/* Remove those of a number: of an address space, or of all. */
static void take_out(int number, bool all, target_ptr_t asid)
{
    pthread_mutex_lock(&lock);
    for (unsigned i = placed->len; i-- > 0; ) {
        Placed p = g_array_index(placed, Placed, i);

        if (p.number == number && (all || p.asid == asid)) {
            g_array_remove_index_fast(placed, i);
            panda_hooks_remove_hook(p.hook);
        }
    }
    pthread_mutex_unlock(&lock);
}

static void gone(hook_symbol_resolve *r, target_ptr_t asid)
{
    take_out(r->id, false, asid);
}

static bool type_is_known(panda_cb_type type)
{
    return type == PANDA_CB_START_BLOCK_EXEC
        || type == PANDA_CB_BEFORE_BLOCK_EXEC;
}

int panda_hooks_add_symbol_hook(const symbol_hook *h)
{
    hook_symbol_resolve r = {
        .offset = h->offset,
        .hook_offset = h->hook_offset,
        .cb = found,
        .gone = gone,
        .enabled = true,
    };
    int number;

    if (!type_is_known(h->type) || !h->cb.cbaddr) {
        return panda_fail(PANDA_ERR_ARGUMENT, "a hook of a symbol needs a "
                          "function, and the type start_block_exec or "
                          "before_block_exec");
    }
    if (!panda_require("dynamic_symbols")) {
        return panda_last_status();
    }
    memcpy(r.name, h->name, sizeof(r.name));
    memcpy(r.section, h->section, sizeof(r.section));
    /* It may be found before its number is known here. */
    pthread_mutex_lock(&lock);
    if (!wanted) {
        wanted = g_hash_table_new_full(NULL, NULL, NULL, g_free);
        placed = g_array_new(FALSE, FALSE, sizeof(Placed));
    }
    number = panda_dynamic_symbols_hook_symbol_resolution(&r);
    if (number > 0) {
        g_hash_table_insert(wanted, GINT_TO_POINTER(number),
                            g_memdup2(h, sizeof(*h)));
    }
    pthread_mutex_unlock(&lock);
    return number;
}

int panda_hooks_remove_symbol_hook(int number)
{
    bool there;

    pthread_mutex_lock(&lock);
    there = wanted && g_hash_table_remove(wanted, GINT_TO_POINTER(number));
    pthread_mutex_unlock(&lock);
    if (!there) {
        return panda_fail(PANDA_ERR_ARGUMENT, "there is no hook of a symbol "
                          "with the number %d", number);
    }
    panda_dynamic_symbols_remove(number);
    take_out(number, true, 0);
    return PANDA_OK;
}
