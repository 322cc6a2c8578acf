/*
 * Hooks: what happens at a site.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/block_events.h"
#include "core/listeners.h"
#include "core/python.h"
#include "hooks/hooks.h"
#include "hooks/sites.h"
#include "panda/plugins/hooks.h"
#include "exec/exec-all.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"

/* A hook that was added. */
typedef struct Entry {
    struct rcu_head rcu;
    /* What its function is given: own, or the host's. */
    hook *pub;
    hook own;
    PandaSite *site;
    /* Its function, for a host of the core's own. */
    PandaCallback call;
} Entry;

/* Never changed once published; replaced as a whole, freed by RCU. */
typedef struct PandaHookList {
    struct rcu_head rcu;
    unsigned n;
    Entry *item[];
} PandaHookList;

/* hook -> Entry. */
static GHashTable *entries;
static bool disabled;

/*
 * The block was left before the instruction, and it is met again: its hooks
 * have acted.
 */
static bool skip;
static uint64_t skip_pc;

/* ---- the registry ---- */

static void free_list(PandaHookList *list)
{
    g_free(list);
}

static void free_entry(Entry *e)
{
    g_free(e);
}

/* Put an entry at the end, or take one out. */
static void publish(PandaSite *site, Entry *in, const Entry *out)
{
    PandaHookList *old = site->list;
    unsigned n = old ? old->n : 0;
    PandaHookList *list =
        g_malloc0(sizeof(*list) + (n + 1) * sizeof(list->item[0]));

    for (unsigned i = 0; i < n; i++) {
        if (old->item[i] != out) {
            list->item[list->n++] = old->item[i];
        }
    }
    if (in) {
        list->item[list->n++] = in;
    }
    n = list->n;
    if (!n) {
        g_free(list);
        list = NULL;
    }
    qatomic_rcu_set(&site->list, list);
    qatomic_set(&site->n, n);
    if (old) {
        PANDA_FREE_LATER(old, free_list);
    }
}

static bool is_same(const hook *a, const hook *b)
{
    return a->asid == b->asid && a->type == b->type
        && a->cb.cbaddr == b->cb.cbaddr && a->km == b->km
        && a->context == b->context;
}

static int check(const hook *h)
{
    switch (h->type) {
    case PANDA_CB_BEFORE_BLOCK_EXEC:
    case PANDA_CB_START_BLOCK_EXEC:
        break;
    default:
        return panda_fail(PANDA_ERR_UNSUPPORTED, "a hook of this type is not "
                          "there yet: use start_block_exec");
    }
    if (h->km > MODE_USER_ONLY) {
        return panda_fail(PANDA_ERR_ARGUMENT, "there is no mode %u", h->km);
    }
    return PANDA_OK;
}

static Entry *add(Entry *new, bool copied)
{
    hook *h = new->pub;
    bool fixed = panda_hooks_fix_pc();
    PandaSite *site;
    Entry *found;

    pthread_mutex_lock(&panda_sites_lock);
    if (!entries) {
        entries = g_hash_table_new(NULL, NULL);
    }
    /* The host's may be there: its function has cleared and set it. */
    found = g_hash_table_lookup(entries, h);
    site = panda_site(h->addr, h->asid);
    for (unsigned i = 0; copied && site->list && i < site->list->n; i++) {
        if (is_same(site->list->item[i]->pub, h)) {
            found = site->list->item[i];
        }
    }
    if (!found) {
        new->site = site;
        g_hash_table_insert(entries, h, new);
        publish(site, new, NULL);
    }
    pthread_mutex_unlock(&panda_sites_lock);
    if (fixed != panda_hooks_fix_pc()) {
        pthread_mutex_lock(&panda_registry_lock);
        panda_variants_update();
        pthread_mutex_unlock(&panda_registry_lock);
    }
    return found ?: new;
}

hook *panda_hooks_add_hook(const hook *h)
{
    Entry *e, *added;

    if (check(h) != PANDA_OK) {
        return NULL;
    }
    if (!h->cb.cbaddr) {
        panda_fail(PANDA_ERR_ARGUMENT, "a hook needs a function");
        return NULL;
    }
    e = g_new0(Entry, 1);
    e->own = *h;
    e->pub = &e->own;
    added = add(e, true);
    if (added != e) {
        g_free(e);
    }
    return added->pub;
}

int panda_hooks_add_python(hook *h, const PandaPythonCallback *callback)
{
    int status = check(h);
    Entry *e;

    if (status != PANDA_OK) {
        return status;
    }
    if (!panda_python_supports(h->type)) {
        return panda_fail(PANDA_ERR_UNSUPPORTED, "hooks are C functions only");
    }
    e = g_new0(Entry, 1);
    e->pub = h;
    panda_python_prepare(&e->call.python, h->type, callback);
    e->call.python.after = callback->buf;
    e->call.is_python = true;
    e->call.enabled = true;
    if (add(e, false) != e) {
        g_free(e);
    }
    return PANDA_OK;
}

int panda_hooks_remove_hook(hook *h)
{
    Entry *e;

    pthread_mutex_lock(&panda_sites_lock);
    e = entries ? g_hash_table_lookup(entries, h) : NULL;
    if (e) {
        g_hash_table_remove(entries, h);
        qatomic_set(&e->call.enabled, false);
        publish(e->site, NULL, e);
        PANDA_FREE_LATER(e, free_entry);
    }
    pthread_mutex_unlock(&panda_sites_lock);
    return e ? PANDA_OK
             : panda_fail(PANDA_ERR_ARGUMENT, "there is no such hook");
}

uint32_t panda_hooks_count(void)
{
    uint32_t n;

    pthread_mutex_lock(&panda_sites_lock);
    n = entries ? g_hash_table_size(entries) : 0;
    pthread_mutex_unlock(&panda_sites_lock);
    return n;
}

void panda_hooks_enable_hooking(void)
{
    qatomic_set(&disabled, false);
}

void panda_hooks_disable_hooking(void)
{
    qatomic_set(&disabled, true);
}

/* ---- on the CPU thread ---- */

static bool acts(const hook *h, bool any_asid, uint64_t asid, bool kernel)
{
    return h->enabled && (any_asid ? !h->asid : h->asid == asid && h->asid)
        && (h->km == MODE_ANY || (h->km == MODE_KERNEL_ONLY) == kernel);
}

static void call(Entry *e)
{
    PandaVcpu *v = &panda_vcpu;

    if (e->call.is_python) {
        panda_python_call(&e->call, 0, NULL);
    } else {
        e->pub->cb.start_block_exec(&v->pub, &v->tb, e->pub);
    }
    if (!e->pub->enabled) {
        panda_hooks_remove_hook(e->pub);
    }
}

static void hook_insn(CPUArchState *env, void *where, void *opaque)
{
    CPUState *cs = env_cpu(env);
    PandaSite *site = where;
    const PandaBlock *block = opaque;
    PandaVcpu *v = &panda_vcpu;
    PandaHookList *list = qatomic_rcu_read(&site->list);
    uintptr_t ra = GETPC();
    uint64_t asid;
    unsigned due = 0;

    if (skip) {
        skip = false;
        if (skip_pc == site->pc) {
            return;
        }
    }
    if (!list || qatomic_read(&disabled)) {
        return;
    }
    asid = panda_arch_get_asid(cs);
    for (unsigned i = 0; i < list->n; i++) {
        const hook *h = list->item[i]->pub;

        due += acts(h, !h->asid, asid, block->kernel);
    }
    if (!due || panda_exact_pc(cs, site->pc) != site->pc) {
        return;
    }
    v->tb = block->pub;
    panda_event_enter(cs, PANDA_PLACE_INSN, site->pc, ra);
    for (int any = 0; any < 2; any++) {
        for (unsigned i = 0; i < list->n; i++) {
            Entry *e = list->item[i];

            if (acts(e->pub, any, asid, block->kernel)
                && !qatomic_read(&panda_gate_closed)) {
                call(e);
            }
        }
    }
    skip = v->requests && !(v->requests & PANDA_REQUEST_SET_PC)
        && panda_arch_get_pc(cs) == site->pc;
    skip_pc = site->pc;
    panda_event_leave(cs);
}

/* Flags 0: registers are written to env before the call, read back after. */
static TCGHelperInfo hook_insn_info = {
    .name = "panda_hook_insn",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(ptr, 2) | dh_typemask(ptr, 3),
};

void panda_hooks_insn_start(const DisasContextBase *db, PandaBlock *block)
{
    uint64_t pc = db->pc_next;
    TCGv_i32 n;
    TCGLabel *none;
    PandaSite *site;

    /*
     * One instruction is run again, for its I/O or as it wrote to its own
     * block: its hooks have acted.
     */
    if (tb_cflags(db->tb) & (CF_MEMI_ONLY | CF_NOIRQ)) {
        return;
    }
    pthread_mutex_lock(&panda_sites_lock);
    site = panda_site_find(pc);
    pthread_mutex_unlock(&panda_sites_lock);
    if (!site) {
        return;
    }
    none = gen_new_label();
    n = tcg_temp_new_i32();
    tcg_gen_ld_i32(n, tcg_constant_ptr((intptr_t)&site->n), 0);
    tcg_gen_brcondi_i32(TCG_COND_EQ, n, 0, none);
    tcg_gen_call3(hook_insn, &hook_insn_info, NULL, tcgv_ptr_temp(tcg_env),
                  tcgv_ptr_temp(tcg_constant_ptr((intptr_t)site)),
                  tcgv_ptr_temp(tcg_constant_ptr((intptr_t)block)));
    gen_set_label(none);
}
