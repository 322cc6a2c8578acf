/*
 * Sites: which code calls out, and how translated code is made to.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "hooks/hooks.h"
#include "hooks/sites.h"
#include "exec/exec-all.h"
#include "exec/target_page.h"
#include "tcg/tcg.h"
#include "tb-internal.h"

pthread_mutex_t panda_sites_lock = PTHREAD_MUTEX_INITIALIZER;

/* Address -> PandaSite. */
static GHashTable *sites;
/*
 * Piece of code of this size -> how many sites are in it. Not QEMU's page,
 * whose size may not be known yet; no block is longer.
 */
#define PIECE 8192
static GHashTable *pieces;
/* Sites that need code made for one address. */
static unsigned n_fixed;
/* The same for a quick look. */
static unsigned n_sites;

/* What was translated there is to go: sorted when it is served. */
typedef struct Stale {
    uint64_t pc;
    uint64_t asid;
} Stale;

static GArray *stale;
static bool serving;

static uint64_t piece_of(uint64_t pc)
{
    return pc & ~(uint64_t)(PIECE - 1);
}

/*
 * Code of the kernel runs at one address. That of programs and libraries may
 * be mapped at several, and be translated for all of them alike.
 */
static bool is_kernels(uint64_t pc)
{
#if TARGET_LONG_BITS == 64
    return pc >> 63;
#else
    return pc >= 0xc0000000u;
#endif
}

bool panda_hooks_fix_pc(void)
{
    return qatomic_read(&n_fixed);
}

/* ---- invalidation ---- */

static int by_pc(const void *a, const void *b)
{
    const Stale *x = a, *y = b;

    return x->pc < y->pc ? -1 : x->pc > y->pc;
}

/* Only the address space of now has code of that address, and it is there. */
static bool invalidate_here(CPUState *cs, const Stale *s)
{
    uint64_t phys, offset;

    if (!is_kernels(s->pc) && s->asid != panda_arch_get_asid(cs)) {
        return false;
    }
    phys = panda_virt_to_phys(&panda_vcpu.pub, s->pc);
    if (phys == UINT64_MAX
        || panda_physical_to_ram_offset(phys, false, &offset) != PANDA_OK) {
        return false;
    }
    tb_invalidate_phys_range(offset, offset);
    return true;
}

typedef struct Walk {
    const GArray *wanted;
    GPtrArray *found;
} Walk;

/* The first address that is not below pc. */
static unsigned lower_bound(const GArray *a, uint64_t pc)
{
    unsigned lo = 0, hi = a->len;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (g_array_index(a, Stale, mid).pc < pc) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static gboolean look_at(void *key, void *value, void *opaque)
{
    TranslationBlock *tb = value;
    Walk *walk = opaque;
    unsigned i;

    if (qatomic_read(&tb->cflags) & CF_INVALID) {
        return false;
    }
    if (tb->cflags & CF_PCREL) {
        /* For whatever address; such code is not run while there are hooks. */
        return false;
    }
    i = lower_bound(walk->wanted, tb->pc);
    if (i < walk->wanted->len
        && g_array_index(walk->wanted, Stale, i).pc - tb->pc
           < MAX(tb->size, 1)) {
        g_ptr_array_add(walk->found, tb);
    }
    return false;
}

/* On the CPU thread, no block running. */
static void serve(CPUState *cs, run_on_cpu_data data)
{
    g_autoptr(GArray) all = NULL;
    g_autoptr(GArray) rest = g_array_new(false, false, sizeof(Stale));
    bool flush = false;

    pthread_mutex_lock(&panda_sites_lock);
    all = stale;
    stale = NULL;
    serving = false;
    pthread_mutex_unlock(&panda_sites_lock);
    for (unsigned i = 0; all && i < all->len; i++) {
        Stale *s = &g_array_index(all, Stale, i);

        if (!invalidate_here(cs, s)) {
            g_array_append_val(rest, *s);
            /* Not mapped now, and its blocks do not say where they are. */
            flush |= is_kernels(s->pc) && (cs->tcg_cflags & CF_PCREL);
        }
    }
    if (flush) {
        panda_do_flush_tb();
    } else if (rest->len) {
        Walk walk = { .wanted = rest, .found = g_ptr_array_new() };

        g_array_sort(rest, by_pc);
        tcg_tb_foreach(look_at, &walk);
        for (unsigned i = 0; i < walk.found->len; i++) {
            tb_phys_invalidate(g_ptr_array_index(walk.found, i), -1);
        }
        g_ptr_array_unref(walk.found);
    }
}

/* The lock is held. True if the CPU has to be told. */
static bool add_stale(uint64_t pc, uint64_t asid)
{
    Stale s = { pc, asid };

    if (!panda_vcpu.cs) {
        return false;
    }
    stale = stale ?: g_array_new(false, false, sizeof(Stale));
    g_array_append_val(stale, s);
    if (serving) {
        return false;
    }
    serving = true;
    return true;
}

static void tell_cpu(void)
{
    async_safe_run_on_cpu(panda_vcpu.cs, serve, RUN_ON_CPU_NULL);
}

/* ---- the table ---- */

PandaSite *panda_site_find(uint64_t pc)
{
    return sites ? g_hash_table_lookup(sites, &pc) : NULL;
}

static void count_piece(uint64_t piece, int more)
{
    uintptr_t n = (uintptr_t)g_hash_table_lookup(pieces, &piece) + more;

    if (n) {
        g_hash_table_insert(pieces, g_memdup2(&piece, sizeof(piece)), (void *)n);
    } else {
        g_hash_table_remove(pieces, &piece);
    }
}

PandaSite *panda_site(uint64_t pc, uint64_t asid)
{
    PandaSite *site = panda_site_find(pc);

    if (site) {
        return site;
    }
    if (!sites) {
        sites = g_hash_table_new(g_int64_hash, g_int64_equal);
        pieces = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                      NULL);
    }
    site = g_new0(PandaSite, 1);
    site->pc = pc;
    g_hash_table_insert(sites, &site->pc, site);
    count_piece(piece_of(pc), 1);
    qatomic_set(&n_sites, n_sites + 1);
    if (!is_kernels(pc)) {
        qatomic_set(&n_fixed, n_fixed + 1);
    }
    if (add_stale(pc, asid)) {
        tell_cpu();
    }
    return site;
}

/* No code refers to a site any more. */
static gboolean is_dead(void *key, void *value, void *opaque)
{
    PandaSite *site = value;

    if (site->list) {
        return false;
    }
    count_piece(piece_of(site->pc), -1);
    n_sites--;
    if (!is_kernels(site->pc)) {
        n_fixed--;
    }
    g_free(site);
    return true;
}

void panda_hooks_flushed(void)
{
    pthread_mutex_lock(&panda_sites_lock);
    if (sites) {
        g_hash_table_foreach_remove(sites, is_dead, NULL);
    }
    pthread_mutex_unlock(&panda_sites_lock);
}

bool panda_hooks_near(uint64_t pc)
{
    uint64_t piece = piece_of(pc), next = piece + PIECE;
    bool near;

    if (likely(!qatomic_read(&n_sites))) {
        return false;
    }
    pthread_mutex_lock(&panda_sites_lock);
    near = g_hash_table_contains(pieces, &piece)
        || g_hash_table_contains(pieces, &next);
    pthread_mutex_unlock(&panda_sites_lock);
    return near;
}
