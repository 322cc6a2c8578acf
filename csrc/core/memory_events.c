/*
 * Events of guest memory accesses.
 *
 * In blocks of the "memory" variant a call is emitted before and after each
 * access (patch 0001); if all who listen have filters, with code in front of it
 * that may skip it (access_guard.c). Accesses made by QEMU's helpers are
 * reported through the hook that QEMU has for plugins.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/access_guard.h"
#include "core/block_events.h"
#include "core/emit.h"
#include "core/listeners.h"
#include "core/memory_events.h"
#include "core/python.h"
#include "exec/exec-all.h"
#include "exec/memopidx.h"
#include "exec/plugin-gen.h"
#include "qemu/plugin.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"
#include "qemu/plugin-memory.h"
#include "tcg/tcg-internal.h"

/*
 * Translation-time pc of the instruction that runs; beside
 * PANDA_ACCESS_ADDR().
 */
#define INSN_PC(cs) ((cs)->neg.plugin_mem_value_low)
#define INSN_PC_OFFSET                                                        \
    (offsetof(CPUState, neg.plugin_mem_value_low) - sizeof(CPUState))

/* The access begins anew, as device memory needs an exact state. */
static bool access_retried;
/* The value before_store gave for the store that is being emitted. */
static TCGTemp *replaced;

/* Who may want the accesses of the instruction that is translated. */
static uint64_t masks[PANDA_POINTS];
/* Streams among them. */
static bool streamed[PANDA_POINTS];
static uint64_t translated_pc;
static bool translated_kernel;

static PandaPoint point_of(bool store, bool after)
{
    return store ? (after ? PANDA_POINT_AFTER_STORE
                          : PANDA_POINT_BEFORE_STORE)
                 : (after ? PANDA_POINT_AFTER_LOAD
                          : PANDA_POINT_BEFORE_LOAD);
}

/* Physical address of an access; false if there is none. */
static bool physical(CPUState *cs, uint64_t addr, MemOpIdx oi, bool store,
                     uint64_t *paddr)
{
    struct qemu_plugin_hwaddr found;

    if (tlb_plugin_lookup(cs, addr, get_mmuidx(oi), store, &found)) {
        *paddr = found.phys_addr;
    } else {
        *paddr = panda_virt_to_phys(&panda_vcpu.pub, addr);
    }
    return *paddr != UINT64_MAX;
}

#define CALL_WITHOUT_VALUE(c, member, at)                                     \
    PANDA_CALL_OFTEN(c, (pc, at, size), member, &v->pub, pc, at, size)

#define CALL_WITH_VALUE(c, member, at)                                        \
    PANDA_CALL_OFTEN(c, (pc, at, size), member, &v->pub, pc, at, size,        \
                     v->mem_buf)

/* One access of at most 8 bytes; its value is in mem_buf. */
static void deliver_before(CPUState *cs, uint64_t addr, size_t size,
                           MemOpIdx oi, bool store)
{
    PandaVcpu *v = &panda_vcpu;
    uint64_t pc = v->pub.panda_guest_pc;
    uint64_t paddr;
    PandaCallback *c;

    if (store) {
        PANDA_FOR_EACH(c, PANDA_CB_VIRT_MEM_BEFORE_WRITE) {
            CALL_WITH_VALUE(c, virt_mem_before_write, addr);
        }
        if (panda_wanted(PANDA_CB_PHYS_MEM_BEFORE_WRITE)
            && physical(cs, addr, oi, true, &paddr)) {
            PANDA_FOR_EACH(c, PANDA_CB_PHYS_MEM_BEFORE_WRITE) {
                CALL_WITH_VALUE(c, phys_mem_before_write, paddr);
            }
        }
    } else {
        PANDA_FOR_EACH(c, PANDA_CB_VIRT_MEM_BEFORE_READ) {
            CALL_WITHOUT_VALUE(c, virt_mem_before_read, addr);
        }
        if (panda_wanted(PANDA_CB_PHYS_MEM_BEFORE_READ)
            && physical(cs, addr, oi, false, &paddr)) {
            PANDA_FOR_EACH(c, PANDA_CB_PHYS_MEM_BEFORE_READ) {
                CALL_WITHOUT_VALUE(c, phys_mem_before_read, paddr);
            }
        }
    }
}

static void deliver_after(CPUState *cs, uint64_t addr, size_t size,
                          MemOpIdx oi, bool store)
{
    PandaVcpu *v = &panda_vcpu;
    uint64_t pc = v->pub.panda_guest_pc;
    uint64_t paddr;
    PandaCallback *c;

    if (store) {
        PANDA_FOR_EACH(c, PANDA_CB_VIRT_MEM_AFTER_WRITE) {
            CALL_WITH_VALUE(c, virt_mem_after_write, addr);
        }
        if (panda_wanted(PANDA_CB_PHYS_MEM_AFTER_WRITE)
            && physical(cs, addr, oi, true, &paddr)) {
            PANDA_FOR_EACH(c, PANDA_CB_PHYS_MEM_AFTER_WRITE) {
                CALL_WITH_VALUE(c, phys_mem_after_write, paddr);
            }
        }
    } else {
        PANDA_FOR_EACH(c, PANDA_CB_VIRT_MEM_AFTER_READ) {
            CALL_WITH_VALUE(c, virt_mem_after_read, addr);
        }
        if (panda_wanted(PANDA_CB_PHYS_MEM_AFTER_READ)
            && physical(cs, addr, oi, false, &paddr)) {
            PANDA_FOR_EACH(c, PANDA_CB_PHYS_MEM_AFTER_READ) {
                CALL_WITH_VALUE(c, phys_mem_after_read, paddr);
            }
        }
    }
}

typedef struct Access {
    CPUState *cs;
    PandaPlace place;
    uint64_t pc;
    uintptr_t ra;
    uint64_t addr;
    MemOpIdx oi;
    bool store;
} Access;

static uint64_t physical_of(void *opaque)
{
    Access *a = opaque;
    uint64_t paddr = UINT64_MAX;

    physical(a->cs, a->addr, a->oi, a->store, &paddr);
    return paddr;
}

/* Returns the value, which a callback may have changed. */
static uint64_t deliver_part(Access *a, uint64_t mask, bool after, size_t size,
                             uint64_t value)
{
    PandaVcpu *v = &panda_vcpu;

    v->pass = panda_take(mask, a->pc, a->addr, v->block_pc, physical_of, a);
    if (v->pass) {
        memcpy(v->mem_buf, &value, 8);
        panda_event_enter(a->cs, a->place, a->pc, a->ra);
        (after ? deliver_after : deliver_before)(a->cs, a->addr, size, a->oi,
                                                 a->store);
        memcpy(&value, v->mem_buf, 8);
        panda_event_leave(a->cs);
    }
    return value;
}

static uint64_t deliver(Access *a, uint64_t mask, bool after, uint64_t lo,
                        uint64_t hi)
{
    PandaAccessParts parts = panda_access_parts(a->oi, lo, hi);
    uint64_t value = lo;

    for (unsigned i = 0; i < parts.n; i++) {
        value = deliver_part(a, mask, after, parts.size, parts.value[i]);
        a->addr += parts.size;
    }
    /* Two parts cannot be changed. */
    return parts.n == 1 ? value : lo;
}

/* ---- call-outs from generated code ---- */

uint64_t panda_access_address(void)
{
    return PANDA_ACCESS_ADDR(panda_vcpu.cs);
}

/*
 * Beside what the access is: its block was made to make it anew. Others are not
 * asked about that, as the code in front of their calls may have skipped those
 * that would have found out.
 */
#define MADE_ANEW BIT(31)

static bool is_retry(CPUState *cs, uint64_t addr, uint32_t oi)
{
    bool retry = (oi & MADE_ANEW) && access_retried
        && PANDA_ACCESS_ADDR(cs) == addr;

    access_retried = false;
    PANDA_ACCESS_ADDR(cs) = addr;
    return retry;
}

/*
 * Apart from the functions generated code calls, which then need no frame to
 * find out that nobody wants the access.
 */
static __attribute__((noinline)) uint64_t
deliver_access(CPUArchState *env, uintptr_t ra, uint32_t oi, uint64_t mask,
               PandaPoint point, uint64_t lo, uint64_t hi)
{
    CPUState *cs = env_cpu(env);
    Access access = {
        .cs = cs, .place = PANDA_PLACE_MEM,
        .pc = panda_exact_pc(cs, INSN_PC(cs)), .ra = ra,
        .addr = PANDA_ACCESS_ADDR(cs), .oi = oi,
        .store = point == PANDA_POINT_BEFORE_STORE
            || point == PANDA_POINT_AFTER_STORE,
    };
    bool after = point == PANDA_POINT_AFTER_LOAD
        || point == PANDA_POINT_AFTER_STORE;

    return deliver(&access, mask, after, lo, hi);
}

static bool may_pass(uint64_t mask, uint64_t addr, uint32_t oi)
{
    return panda_access_may_pass(mask, addr,
                                 panda_access_is_parted(oi & ~MADE_ANEW));
}

static void before_load(CPUArchState *env, uint64_t addr, uint32_t oi,
                        uint64_t mask)
{
    if (!is_retry(env_cpu(env), addr, oi) && may_pass(mask, addr, oi)) {
        deliver_access(env, GETPC(), oi & ~MADE_ANEW, mask,
                       PANDA_POINT_BEFORE_LOAD, 0, 0);
    }
}

static uint64_t before_store(CPUArchState *env, uint64_t addr, uint32_t oi,
                             uint64_t lo, uint64_t hi, uint64_t mask)
{
    if (!is_retry(env_cpu(env), addr, oi) && may_pass(mask, addr, oi)) {
        return deliver_access(env, GETPC(), oi & ~MADE_ANEW, mask,
                              PANDA_POINT_BEFORE_STORE, lo, hi);
    }
    return lo;
}

static void after_load(CPUArchState *env, uint32_t oi, uint64_t lo,
                       uint64_t hi, uint64_t mask)
{
    if (may_pass(mask, PANDA_ACCESS_ADDR(env_cpu(env)), oi)) {
        deliver_access(env, GETPC(), oi, mask, PANDA_POINT_AFTER_LOAD, lo, hi);
    }
}

static void after_store(CPUArchState *env, uint32_t oi, uint64_t lo,
                        uint64_t hi, uint64_t mask)
{
    if (may_pass(mask, PANDA_ACCESS_ADDR(env_cpu(env)), oi)) {
        deliver_access(env, GETPC(), oi, mask, PANDA_POINT_AFTER_STORE, lo,
                       hi);
    }
}

static TCGHelperInfo before_load_info = {
    .name = "panda_before_load",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i64, 2) | dh_typemask(i32, 3)
                | dh_typemask(i64, 4),
};

static TCGHelperInfo before_store_info = {
    .name = "panda_before_store",
    .typemask = dh_typemask(i64, 0) | dh_typemask(env, 1)
                | dh_typemask(i64, 2) | dh_typemask(i32, 3)
                | dh_typemask(i64, 4) | dh_typemask(i64, 5)
                | dh_typemask(i64, 6),
};

static TCGHelperInfo after_load_info = {
    .name = "panda_after_load",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i32, 2) | dh_typemask(i64, 3)
                | dh_typemask(i64, 4) | dh_typemask(i64, 5),
};

static TCGHelperInfo after_store_info = {
    .name = "panda_after_store",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i32, 2) | dh_typemask(i64, 3)
                | dh_typemask(i64, 4) | dh_typemask(i64, 5),
};

/* Is this an access of a block with call-outs? */
static bool emitting(bool store)
{
    return tcg_ctx->gen_tb
        && (tcg_ctx->gen_tb->cflags & (store ? PANDA_CF_STORE
                                             : PANDA_CF_LOAD));
}

/* What the calls before an access are told of it. */
static TCGTemp *before_what(MemOpIdx oi)
{
    bool anew = tcg_ctx->gen_tb->cflags & CF_MEMI_ONLY;

    return tcgv_i32_temp(tcg_constant_i32(oi | (anew ? MADE_ANEW : 0)));
}

static TCGv_i64 addr_begin(TCGTemp *addr)
{
    if (tcg_ctx->addr_type == TCG_TYPE_I32) {
        TCGv_i64 wide = tcg_temp_ebb_new_i64();

        tcg_gen_extu_i32_i64(wide, temp_tcgv_i32(addr));
        return wide;
    }
    return temp_tcgv_i64(addr);
}

static void addr_end(TCGv_i64 wide)
{
    if (tcg_ctx->addr_type == TCG_TYPE_I32) {
        tcg_temp_free_i64(wide);
    }
}

static void store_address(TCGTemp *addr)
{
    TCGv_i64 wide = addr_begin(addr);

    tcg_gen_st_i64(wide, tcg_env, PANDA_ACCESS_ADDR_OFFSET);
    addr_end(wide);
}

/* The access may change the register its address is in. */
static void note_address(PandaPoint after, TCGTemp *addr)
{
    if (masks[after] || streamed[after]) {
        store_address(addr);
    }
}

/* addr: NULL after the access. Returns NULL if the call is unconditional. */
static TCGLabel *guard_begin(uint64_t mask, TCGTemp *addr, MemOpIdx oi)
{
    return panda_access_can_guard(mask) ? panda_access_guard(mask, addr, oi)
                                        : NULL;
}

/* What the call would have noted. */
static void guard_end_before(TCGLabel *skip, TCGTemp *addr)
{
    if (skip) {
        gen_set_label(skip);
        store_address(addr);
    }
}

/* The prototypes are in patch 0001. */
void panda_gen_before_load(TCGTemp *addr, MemOpIdx oi);
void panda_gen_before_load(TCGTemp *addr, MemOpIdx oi)
{
    uint64_t mask = masks[PANDA_POINT_BEFORE_LOAD];

    if (!emitting(false)) {
        return;
    }
    if (mask) {
        TCGLabel *skip = guard_begin(mask, addr, oi);
        TCGv_i64 wide = addr_begin(addr);

        tcg_gen_call4(before_load, &before_load_info, NULL,
                      tcgv_ptr_temp(tcg_env), tcgv_i64_temp(wide),
                      before_what(oi), tcgv_i64_temp(tcg_constant_i64(mask)));
        addr_end(wide);
        guard_end_before(skip, addr);
    } else {
        note_address(PANDA_POINT_AFTER_LOAD, addr);
    }
}

static void gen_before_store(TCGTemp *ret, TCGTemp *addr, MemOpIdx oi,
                             TCGv_i64 lo, TCGv_i64 hi)
{
    TCGv_i64 wide = addr_begin(addr);

    tcg_gen_call6(before_store, &before_store_info, ret,
                  tcgv_ptr_temp(tcg_env), tcgv_i64_temp(wide),
                  before_what(oi), tcgv_i64_temp(lo), tcgv_i64_temp(hi),
                  tcgv_i64_temp(tcg_constant_i64(
                      masks[PANDA_POINT_BEFORE_STORE])));
    addr_end(wide);
}

/* If not, what the code after the store needs is emitted. */
static bool calls_before_store(TCGTemp *addr)
{
    if (!emitting(true)) {
        return false;
    }
    if (!masks[PANDA_POINT_BEFORE_STORE]) {
        note_address(PANDA_POINT_AFTER_STORE, addr);
        return false;
    }
    return true;
}

TCGv_i32 panda_gen_before_store_i32(TCGv_i32 val, TCGTemp *addr, MemOpIdx oi);
TCGv_i32 panda_gen_before_store_i32(TCGv_i32 val, TCGTemp *addr, MemOpIdx oi)
{
    TCGv_i32 out;
    TCGv_i64 wide;
    TCGLabel *skip;

    if (!calls_before_store(addr)) {
        return val;
    }
    if (panda_access_can_guard(masks[PANDA_POINT_BEFORE_STORE])) {
        out = tcg_temp_new_i32();
        tcg_gen_mov_i32(out, val);
        skip = panda_access_guard(masks[PANDA_POINT_BEFORE_STORE], addr, oi);
    } else {
        out = tcg_temp_ebb_new_i32();
        skip = NULL;
    }
    wide = tcg_temp_ebb_new_i64();
    tcg_gen_extu_i32_i64(wide, val);
    gen_before_store(tcgv_i64_temp(wide), addr, oi, wide,
                     tcg_constant_i64(0));
    tcg_gen_extrl_i64_i32(out, wide);
    tcg_temp_free_i64(wide);
    guard_end_before(skip, addr);
    replaced = tcgv_i32_temp(out);
    return out;
}

TCGv_i64 panda_gen_before_store_i64(TCGv_i64 val, TCGTemp *addr, MemOpIdx oi);
TCGv_i64 panda_gen_before_store_i64(TCGv_i64 val, TCGTemp *addr, MemOpIdx oi)
{
    TCGv_i64 out;
    TCGLabel *skip;

    if (!calls_before_store(addr)) {
        return val;
    }
    if (panda_access_can_guard(masks[PANDA_POINT_BEFORE_STORE])) {
        out = tcg_temp_new_i64();
        tcg_gen_mov_i64(out, val);
        skip = panda_access_guard(masks[PANDA_POINT_BEFORE_STORE], addr, oi);
    } else {
        out = tcg_temp_ebb_new_i64();
        skip = NULL;
    }
    gen_before_store(tcgv_i64_temp(out), addr, oi, val, tcg_constant_i64(0));
    guard_end_before(skip, addr);
    replaced = tcgv_i64_temp(out);
    return out;
}

void panda_gen_before_store_i128(TCGv_i128 val, TCGTemp *addr, MemOpIdx oi);
void panda_gen_before_store_i128(TCGv_i128 val, TCGTemp *addr, MemOpIdx oi)
{
    if (calls_before_store(addr)) {
        TCGLabel *skip = guard_begin(masks[PANDA_POINT_BEFORE_STORE], addr,
                                     oi);
        TCGv_i64 unused = tcg_temp_ebb_new_i64();

        gen_before_store(tcgv_i64_temp(unused), addr, oi, TCGV128_LOW(val),
                         TCGV128_HIGH(val));
        tcg_temp_free_i64(unused);
        guard_end_before(skip, addr);
    }
}

/* The value of an access: 32 bits of it, or the two words. */
typedef struct Value {
    TCGv_i32 narrow;
    TCGv_i64 lo, hi;
} Value;

static TCGv_i64 value_begin(const Value *value)
{
    if (value->narrow) {
        TCGv_i64 wide = tcg_temp_ebb_new_i64();

        tcg_gen_extu_i32_i64(wide, value->narrow);
        return wide;
    }
    return value->lo;
}

static void value_end(const Value *value, TCGv_i64 wide)
{
    if (value->narrow) {
        tcg_temp_free_i64(wide);
    }
}

static void call_after(MemOpIdx oi, bool store, const Value *value)
{
    uint64_t mask = masks[point_of(store, true)];
    TCGLabel *skip = guard_begin(mask, NULL, oi);
    TCGv_i64 lo = value_begin(value);

    tcg_gen_call5(store ? after_store : after_load,
                  store ? &after_store_info : &after_load_info, NULL,
                  tcgv_ptr_temp(tcg_env), tcgv_i32_temp(tcg_constant_i32(oi)),
                  tcgv_i64_temp(lo), tcgv_i64_temp(value->hi),
                  tcgv_i64_temp(tcg_constant_i64(mask)));
    value_end(value, lo);
    if (skip) {
        gen_set_label(skip);
    }
}

static void emit_streams(MemOpIdx oi, bool store, const Value *value)
{
    PandaEmittedAccess access = {
        .pc = translated_pc, .oi = oi, .store = store,
        .kernel = translated_kernel, .lo = value_begin(value),
        .hi = value->hi,
    };
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        if (l->emit_access
            && panda_listener_may_want(l, point_of(store, true),
                                       translated_pc, translated_kernel)) {
            l->emit_access(l, &access);
        }
    }
    value_end(value, access.lo);
}

static void gen_after(MemOpIdx oi, bool store, Value value)
{
    PandaPoint point = point_of(store, true);

    if (emitting(store)) {
        if (masks[point]) {
            call_after(oi, store, &value);
        }
        if (streamed[point]) {
            emit_streams(oi, store, &value);
        }
    }
}

void panda_gen_after_i32(TCGv_i32 val, MemOpIdx oi, bool store);
void panda_gen_after_i32(TCGv_i32 val, MemOpIdx oi, bool store)
{
    gen_after(oi, store, (Value) { .narrow = val, .hi = tcg_constant_i64(0) });
    if (store && replaced && replaced == tcgv_i32_temp(val)) {
        tcg_temp_free_i32(val);
        replaced = NULL;
    }
}

void panda_gen_after_i64(TCGv_i64 val, MemOpIdx oi, bool store);
void panda_gen_after_i64(TCGv_i64 val, MemOpIdx oi, bool store)
{
    gen_after(oi, store, (Value) { .lo = val, .hi = tcg_constant_i64(0) });
    if (store && replaced && replaced == tcgv_i64_temp(val)) {
        tcg_temp_free_i64(val);
        replaced = NULL;
    }
}

void panda_gen_after_i128(TCGv_i128 val, MemOpIdx oi, bool store);
void panda_gen_after_i128(TCGv_i128 val, MemOpIdx oi, bool store)
{
    gen_after(oi, store, (Value) {
        .lo = TCGV128_LOW(val), .hi = TCGV128_HIGH(val),
    });
}

void panda_mem_insn_start(uint64_t pc, bool kernel)
{
    PandaListener *l;

    translated_pc = pc;
    translated_kernel = kernel;
    memset(streamed, 0, sizeof(streamed));
    for (int point = PANDA_POINT_BEFORE_LOAD; point < PANDA_POINTS; point++) {
        masks[point] = panda_point_mask(point, pc, kernel);
    }
    PANDA_FOR_EACH_LISTENER(l) {
        if (l->emit_access) {
            for (int point = PANDA_POINT_BEFORE_LOAD; point < PANDA_POINTS;
                 point++) {
                streamed[point] |= panda_listener_may_want(l, point, pc,
                                                           kernel);
            }
        }
    }
    /* Helpers report their accesses whatever the masks say. */
    tcg_gen_st_i64(tcg_constant_i64(pc), tcg_env, INSN_PC_OFFSET);
}

void panda_mem_flushed(void)
{
    access_retried = false;
}

/* ---- accesses made by helpers ---- */

void panda_mem_block_start(const DisasContextBase *db)
{
    /* Not NULL is what makes helpers report; nothing reads the array. */
    static GArray *none;

    if (!none) {
        none = g_array_new(false, false, 1);
    }
    tcg_gen_st_ptr(tcg_constant_ptr((intptr_t)none), tcg_env,
                   offsetof(CPUState, neg.plugin_mem_cbs)
                   - sizeof(CPUState));
}

/* Streams get it too. */
static void stream_access(const Access *a, bool kernel, uint64_t lo,
                          uint64_t hi)
{
    PandaListener *l;

    PANDA_FOR_EACH_LISTENER(l) {
        if (l->emit_access
            && panda_listener_may_want(l, point_of(a->store, true), a->pc,
                                       kernel)) {
            l->access_made(l, a->pc, a->addr, a->oi,
                           (a->store ? PANDA_ACCESS_STORE : 0)
                           | (kernel ? PANDA_ACCESS_KERNEL : 0), lo, hi);
        }
    }
}

void __wrap_qemu_plugin_vcpu_mem_cb(CPUState *cs, uint64_t addr, uint64_t lo,
                                    uint64_t hi, MemOpIdx oi,
                                    enum qemu_plugin_mem_rw rw);
void __wrap_qemu_plugin_vcpu_mem_cb(CPUState *cs, uint64_t addr, uint64_t lo,
                                    uint64_t hi, MemOpIdx oi,
                                    enum qemu_plugin_mem_rw rw)
{
    uint64_t pc = panda_exact_pc(cs, INSN_PC(cs));
    bool kernel = panda_arch_in_kernel(cs);

    for (int store = 0; store < 2; store++) {
        Access access = {
            .cs = cs, .place = PANDA_PLACE_HELPER, .pc = pc, .addr = addr,
            .oi = oi, .store = store,
        };

        if (!(rw & (store ? QEMU_PLUGIN_MEM_W : QEMU_PLUGIN_MEM_R))) {
            continue;
        }
        /* The access is made already: both of its events come now. */
        for (int after = 0; after < 2; after++) {
            Access copy = access;

            deliver(&copy,
                    panda_point_mask(point_of(store, after), pc, kernel)
                        & ~panda_block_done(),
                    after, lo, hi);
        }
        stream_access(&access, kernel, lo, hi);
    }
}

void __real_cpu_io_recompile(CPUState *cs, uintptr_t ra);
G_NORETURN void __wrap_cpu_io_recompile(CPUState *cs, uintptr_t ra);
void __wrap_cpu_io_recompile(CPUState *cs, uintptr_t ra)
{
    access_retried = true;
    __real_cpu_io_recompile(cs, ra);
    g_assert_not_reached();
}
