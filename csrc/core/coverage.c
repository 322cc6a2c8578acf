/*
 * Coverage: which blocks and edges ran, and how often.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/counter.h"
#include "core/emit.h"
#include "qemu/xxhash.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"

typedef struct EdgeTable {
    PandaCoveredEdge *edges;
    /* A power of two; at most half of it is in use. */
    uint64_t size, used;
} EdgeTable;

struct PandaCoverage {
    PandaListener listener;
    uint32_t what;
    uint32_t map_bits;
    uint8_t *map;
    bool keeps_map;
    /* Half the place in the map of the block that ran before. */
    uint64_t map_before;
    /* What readers on other threads see too. */
    pthread_mutex_t lock;
    /* pc -> PandaCoveredBlock, and the same in order. */
    GHashTable *by_pc;
    GPtrArray *blocks;
    EdgeTable edges;
};

static PandaCoverage *coverage_of(PandaListener *listener)
{
    return container_of(listener, PandaCoverage, listener);
}

/* ---- edges ---- */

static PandaCoveredEdge *find_edge(EdgeTable *t, uint64_t source,
                                   uint64_t target)
{
    uint64_t i = qemu_xxhash4(source, target);

    for (;; i++) {
        PandaCoveredEdge *edge = &t->edges[i & (t->size - 1)];

        if (!edge->hits || (edge->source == source
                            && edge->target == target)) {
            return edge;
        }
    }
}

static void grow(EdgeTable *t)
{
    EdgeTable old = *t;

    t->size = old.size ? old.size * 2 : 4096;
    t->edges = g_new0(PandaCoveredEdge, t->size);
    for (uint64_t i = 0; i < old.size; i++) {
        PandaCoveredEdge *edge = &old.edges[i];

        if (edge->hits) {
            *find_edge(t, edge->source, edge->target) = *edge;
        }
    }
    g_free(old.edges);
}

static void count_edge(void *coverage, void *opaque)
{
    const PandaBlock *block = opaque;
    PandaCoverage *c = coverage;
    PandaCoveredEdge *edge;

    if (!panda_words.on[c->listener.slot]) {
        return;
    }
    edge = find_edge(&c->edges, panda_vcpu.last_block_pc, block->pub.pc);
    if (unlikely(!edge->hits)) {
        pthread_mutex_lock(&c->lock);
        if (c->edges.used * 2 >= c->edges.size) {
            grow(&c->edges);
            edge = find_edge(&c->edges, panda_vcpu.last_block_pc,
                             block->pub.pc);
        }
        c->edges.used++;
        edge->source = panda_vcpu.last_block_pc;
        edge->target = block->pub.pc;
        edge->hits = 1;
        pthread_mutex_unlock(&c->lock);
    } else {
        edge->hits++;
    }
}

static TCGHelperInfo count_edge_info = {
    .name = "panda_count_edge", .flags = TCG_CALL_NO_RWG,
    .typemask = dh_typemask(void, 0) | dh_typemask(ptr, 1)
                | dh_typemask(ptr, 2),
};

/* ---- code ---- */

static PandaCoveredBlock *covered(PandaCoverage *c, uint64_t pc)
{
    PandaCoveredBlock *block;

    pthread_mutex_lock(&c->lock);
    block = g_hash_table_lookup(c->by_pc, &pc);
    if (!block) {
        block = g_new0(PandaCoveredBlock, 1);
        block->pc = pc;
        g_hash_table_insert(c->by_pc, &block->pc, block);
        g_ptr_array_add(c->blocks, block);
    }
    pthread_mutex_unlock(&c->lock);
    return block;
}

/* map[before ^ here]++, up to 255; before = here >> 1 */
static void emit_map(PandaCoverage *c, uint64_t pc, TCGv_i64 on)
{
    uint64_t here = (pc * 0x9e3779b97f4a7c15ull) >> (64 - c->map_bits);
    TCGv_ptr before = tcg_constant_ptr((intptr_t)&c->map_before);
    TCGv_i64 index = tcg_temp_new_i64();
    TCGv_i64 count = tcg_temp_new_i64();
    TCGv_i64 over = tcg_temp_new_i64();
    TCGv_ptr at = tcg_temp_new_ptr();

    tcg_gen_ld_i64(index, before, 0);
    tcg_gen_xori_i64(index, index, here);
    tcg_gen_trunc_i64_ptr(at, index);
    tcg_gen_add_ptr(at, at, tcg_constant_ptr((intptr_t)c->map));
    tcg_gen_ld8u_i64(count, at, 0);
    tcg_gen_sub_i64(count, count, on);
    tcg_gen_shri_i64(over, count, 8);
    tcg_gen_sub_i64(count, count, over);
    tcg_gen_st8_i64(count, at, 0);
    tcg_gen_st_i64(tcg_constant_i64(here >> 1), before, 0);
}

static void emit(PandaListener *listener, PandaPoint point,
                 const PandaBlock *block, uint64_t pc)
{
    PandaCoverage *c = coverage_of(listener);

    if (c->what & PANDA_COVER_EDGES) {
        tcg_gen_call2(count_edge, &count_edge_info, NULL,
                      tcgv_ptr_temp(tcg_constant_ptr((intptr_t)c)),
                      tcgv_ptr_temp(tcg_constant_ptr((intptr_t)block)));
    }
    if (c->what & PANDA_COVER_EDGE_MAP) {
        emit_map(c, pc, panda_emit_load_on(listener));
    }
    if (c->what & PANDA_COVER_BLOCKS) {
        TCGv_i64 on = panda_emit_load_on(listener);

        tcg_gen_neg_i64(on, on);
        panda_emit_add(&covered(c, pc)->hits, on);
    }
}

static void emit_end(PandaListener *listener, PandaBlock *block)
{
    PandaCoverage *c = coverage_of(listener);

    if (c->what & PANDA_COVER_BLOCKS) {
        PandaCoveredBlock *b = covered(c, block->pub.pc);

        b->size = MAX(b->size, block->pub.size);
        b->icount = MAX(b->icount, block->pub.icount);
    }
}

/* ---- for everybody else ---- */

static void free_coverage(PandaListener *listener)
{
    PandaCoverage *c = coverage_of(listener);

    g_hash_table_destroy(c->by_pc);
    g_ptr_array_unref(c->blocks);
    g_free(c->edges.edges);
    if (!c->keeps_map) {
        g_free(c->map);
    }
    pthread_mutex_destroy(&c->lock);
    g_free(c);
}

PandaCoverage *panda_coverage_open(uint32_t what, uint32_t map_bits,
                                   const PandaFilter *filter)
{
    PandaCoverage *c;

    if (!what || what & ~(PANDA_COVER_BLOCKS | PANDA_COVER_EDGES
                          | PANDA_COVER_EDGE_MAP)) {
        panda_fail(PANDA_ERR_ARGUMENT, "there is no coverage of kind %u",
                   what);
        return NULL;
    }
    if ((what & PANDA_COVER_EDGE_MAP) && (map_bits < 8 || map_bits > 24)) {
        panda_fail(PANDA_ERR_ARGUMENT, "a map of edges has 256 bytes to "
                   "16 MiB: 8 to 24 bits, not %u", map_bits);
        return NULL;
    }
    if (!panda_counting_filter_is_good(filter)) {
        return NULL;
    }
    c = g_new0(PandaCoverage, 1);
    c->what = what;
    c->map_bits = map_bits;
    if (what & PANDA_COVER_EDGE_MAP) {
        c->map = g_malloc0((size_t)1 << map_bits);
    }
    pthread_mutex_init(&c->lock, NULL);
    c->by_pc = g_hash_table_new(g_int64_hash, g_int64_equal);
    c->blocks = g_ptr_array_new_with_free_func(g_free);
    grow(&c->edges);
    c->listener.points = BIT(PANDA_POINT_BLOCK);
    c->listener.tracks_blocks = what & PANDA_COVER_EDGES;
    c->listener.emit = emit;
    c->listener.emit_end = emit_end;
    c->listener.free = free_coverage;
    if (panda_listener_open(&c->listener, filter) != PANDA_OK) {
        free_coverage(&c->listener);
        return NULL;
    }
    return c;
}

void panda_coverage_enable(PandaCoverage *c, bool enabled)
{
    panda_listener_set_enabled(&c->listener, enabled);
}

uint64_t panda_coverage_blocks(PandaCoverage *c, PandaCoveredBlock *out,
                               uint64_t max)
{
    uint64_t n;

    pthread_mutex_lock(&c->lock);
    n = c->blocks->len;
    for (uint64_t i = 0; i < MIN(n, max); i++) {
        out[i] = *(PandaCoveredBlock *)g_ptr_array_index(c->blocks, i);
    }
    pthread_mutex_unlock(&c->lock);
    return n;
}

uint64_t panda_coverage_edges(PandaCoverage *c, PandaCoveredEdge *out,
                              uint64_t max)
{
    uint64_t n = 0;

    pthread_mutex_lock(&c->lock);
    for (uint64_t i = 0; i < c->edges.size; i++) {
        if (c->edges.edges[i].hits) {
            if (n < max) {
                out[n] = c->edges.edges[i];
            }
            n++;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return n;
}

uint8_t *panda_coverage_map(PandaCoverage *c)
{
    return c->map;
}

static void reset(CPUState *cs, run_on_cpu_data data)
{
    PandaCoverage *c = data.host_ptr;

    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->blocks->len; i++) {
        ((PandaCoveredBlock *)g_ptr_array_index(c->blocks, i))->hits = 0;
    }
    memset(c->edges.edges, 0, c->edges.size * sizeof(c->edges.edges[0]));
    c->edges.used = 0;
    if (c->map) {
        memset(c->map, 0, (size_t)1 << c->map_bits);
    }
    pthread_mutex_unlock(&c->lock);
}

void panda_coverage_reset(PandaCoverage *c)
{
    if (panda_vcpu.cs && !panda_dead()) {
        /* Generated code counts without a lock. */
        async_run_on_cpu(panda_vcpu.cs, reset, RUN_ON_CPU_HOST_PTR(c));
    } else {
        reset(NULL, RUN_ON_CPU_HOST_PTR(c));
    }
}

void panda_coverage_close(PandaCoverage *c, bool keep_map)
{
    c->keeps_map = keep_map;
    panda_listener_close(&c->listener);
    panda_do_flush_tb();
}
