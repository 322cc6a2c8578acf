/*
 * Events of guest memory accesses.
 *
 * In blocks of the "memory" variant a call is emitted before and after each
 * access (patch 0001). The calls are unconditional: a label beside an access
 * would end the life of temporaries that read-modify-write operations hold
 * across it. Accesses made by QEMU's helpers are reported through the hook
 * that QEMU has for plugins.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/block_events.h"
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

/* Translation-time pc of the instruction that runs. */
static uint64_t insn_pc;
/* Address of the access that is being made. */
static uint64_t access_addr;
/* The access begins anew, as device memory needs an exact state. */
static bool access_retried;
/* The value before_store gave for the store that is being emitted. */
static TCGTemp *replaced;

static bool wanted_before(bool store)
{
    return store ? panda_wanted(PANDA_CB_VIRT_MEM_BEFORE_WRITE)
                   || panda_wanted(PANDA_CB_PHYS_MEM_BEFORE_WRITE)
                 : panda_wanted(PANDA_CB_VIRT_MEM_BEFORE_READ)
                   || panda_wanted(PANDA_CB_PHYS_MEM_BEFORE_READ);
}

static bool wanted_after(bool store)
{
    return store ? panda_wanted(PANDA_CB_VIRT_MEM_AFTER_WRITE)
                   || panda_wanted(PANDA_CB_PHYS_MEM_AFTER_WRITE)
                 : panda_wanted(PANDA_CB_VIRT_MEM_AFTER_READ)
                   || panda_wanted(PANDA_CB_PHYS_MEM_AFTER_READ);
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

/* A 16-byte access is two of 8, in the guest's order of the halves. */
static void deliver(CPUState *cs, uint64_t addr, MemOpIdx oi, bool store,
                    bool after, uint64_t lo, uint64_t hi)
{
    void (*fn)(CPUState *, uint64_t, size_t, MemOpIdx, bool) =
        after ? deliver_after : deliver_before;
    MemOp op = get_memop(oi);
    size_t size = memop_size(op);
    uint64_t first = lo;

    if (size == 16) {
        bool big = (op & MO_BSWAP) == MO_BE;
        uint64_t second = big ? lo : hi;

        first = big ? hi : lo;
        memcpy(panda_vcpu.mem_buf, &first, 8);
        fn(cs, addr, 8, oi, store);
        memcpy(panda_vcpu.mem_buf, &second, 8);
        fn(cs, addr + 8, 8, oi, store);
    } else {
        memcpy(panda_vcpu.mem_buf, &first, 8);
        fn(cs, addr, size, oi, store);
    }
}

/* ---- call-outs from generated code ---- */

static bool is_retry(uint64_t addr)
{
    bool retry = access_retried && access_addr == addr;

    access_retried = false;
    access_addr = addr;
    return retry;
}

static void before_load(CPUArchState *env, uint64_t addr, uint32_t oi)
{
    CPUState *cs = env_cpu(env);

    if (!is_retry(addr) && wanted_before(false)) {
        panda_event_enter(cs, PANDA_PLACE_MEM, panda_exact_pc(cs, insn_pc),
                          GETPC());
        deliver(cs, addr, oi, false, false, 0, 0);
        panda_event_leave(cs);
    }
}

static uint64_t before_store(CPUArchState *env, uint64_t addr, uint32_t oi,
                             uint64_t lo, uint64_t hi)
{
    CPUState *cs = env_cpu(env);

    if (!is_retry(addr) && wanted_before(true)) {
        panda_event_enter(cs, PANDA_PLACE_MEM, panda_exact_pc(cs, insn_pc),
                          GETPC());
        deliver(cs, addr, oi, true, false, lo, hi);
        if (memop_size(get_memop(oi)) <= 8) {
            memcpy(&lo, panda_vcpu.mem_buf, 8);
        }
        panda_event_leave(cs);
    }
    return lo;
}

static void after_access(CPUArchState *env, uint32_t oi, uint32_t store,
                         uint64_t lo, uint64_t hi)
{
    CPUState *cs = env_cpu(env);

    if (wanted_after(store)) {
        panda_event_enter(cs, PANDA_PLACE_MEM, panda_exact_pc(cs, insn_pc),
                          GETPC());
        deliver(cs, access_addr, oi, store, true, lo, hi);
        panda_event_leave(cs);
    }
}

static TCGHelperInfo before_load_info = {
    .name = "panda_before_load",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i64, 2) | dh_typemask(i32, 3),
};

static TCGHelperInfo before_store_info = {
    .name = "panda_before_store",
    .typemask = dh_typemask(i64, 0) | dh_typemask(env, 1)
                | dh_typemask(i64, 2) | dh_typemask(i32, 3)
                | dh_typemask(i64, 4) | dh_typemask(i64, 5),
};

static TCGHelperInfo after_access_info = {
    .name = "panda_after_access",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i32, 2) | dh_typemask(i32, 3)
                | dh_typemask(i64, 4) | dh_typemask(i64, 5),
};

static bool emitting(bool store)
{
    return tcg_ctx->gen_tb
        && (tcg_ctx->gen_tb->cflags & (store ? PANDA_CF_STORE
                                             : PANDA_CF_LOAD));
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

/* The prototypes are in patch 0001. */
void panda_gen_before_load(TCGTemp *addr, MemOpIdx oi);
void panda_gen_before_load(TCGTemp *addr, MemOpIdx oi)
{
    if (emitting(false)) {
        TCGv_i64 wide = addr_begin(addr);

        tcg_gen_call3(before_load, &before_load_info, NULL,
                      tcgv_ptr_temp(tcg_env), tcgv_i64_temp(wide),
                      tcgv_i32_temp(tcg_constant_i32(oi)));
        addr_end(wide);
    }
}

static void gen_before_store(TCGTemp *ret, TCGTemp *addr, MemOpIdx oi,
                             TCGv_i64 lo, TCGv_i64 hi)
{
    TCGv_i64 wide = addr_begin(addr);

    tcg_gen_call5(before_store, &before_store_info, ret,
                  tcgv_ptr_temp(tcg_env), tcgv_i64_temp(wide),
                  tcgv_i32_temp(tcg_constant_i32(oi)),
                  tcgv_i64_temp(lo), tcgv_i64_temp(hi));
    addr_end(wide);
}

TCGv_i32 panda_gen_before_store_i32(TCGv_i32 val, TCGTemp *addr, MemOpIdx oi);
TCGv_i32 panda_gen_before_store_i32(TCGv_i32 val, TCGTemp *addr, MemOpIdx oi)
{
    if (!emitting(true)) {
        return val;
    }

    TCGv_i32 out = tcg_temp_ebb_new_i32();
    TCGv_i64 wide = tcg_temp_ebb_new_i64();

    tcg_gen_extu_i32_i64(wide, val);
    gen_before_store(tcgv_i64_temp(wide), addr, oi, wide,
                     tcg_constant_i64(0));
    tcg_gen_extrl_i64_i32(out, wide);
    tcg_temp_free_i64(wide);
    replaced = tcgv_i32_temp(out);
    return out;
}

TCGv_i64 panda_gen_before_store_i64(TCGv_i64 val, TCGTemp *addr, MemOpIdx oi);
TCGv_i64 panda_gen_before_store_i64(TCGv_i64 val, TCGTemp *addr, MemOpIdx oi)
{
    if (!emitting(true)) {
        return val;
    }

    TCGv_i64 out = tcg_temp_ebb_new_i64();

    gen_before_store(tcgv_i64_temp(out), addr, oi, val, tcg_constant_i64(0));
    replaced = tcgv_i64_temp(out);
    return out;
}

void panda_gen_before_store_i128(TCGv_i128 val, TCGTemp *addr, MemOpIdx oi);
void panda_gen_before_store_i128(TCGv_i128 val, TCGTemp *addr, MemOpIdx oi)
{
    if (emitting(true)) {
        TCGv_i64 unused = tcg_temp_ebb_new_i64();

        gen_before_store(tcgv_i64_temp(unused), addr, oi, TCGV128_LOW(val),
                         TCGV128_HIGH(val));
        tcg_temp_free_i64(unused);
    }
}

static void gen_after(MemOpIdx oi, bool store, TCGv_i64 lo, TCGv_i64 hi)
{
    tcg_gen_call5(after_access, &after_access_info, NULL,
                  tcgv_ptr_temp(tcg_env),
                  tcgv_i32_temp(tcg_constant_i32(oi)),
                  tcgv_i32_temp(tcg_constant_i32(store)),
                  tcgv_i64_temp(lo), tcgv_i64_temp(hi));
}

void panda_gen_after_i32(TCGv_i32 val, MemOpIdx oi, bool store);
void panda_gen_after_i32(TCGv_i32 val, MemOpIdx oi, bool store)
{
    if (emitting(store)) {
        TCGv_i64 wide = tcg_temp_ebb_new_i64();

        tcg_gen_extu_i32_i64(wide, val);
        gen_after(oi, store, wide, tcg_constant_i64(0));
        tcg_temp_free_i64(wide);
        if (store && replaced == tcgv_i32_temp(val)) {
            tcg_temp_free_i32(val);
            replaced = NULL;
        }
    }
}

void panda_gen_after_i64(TCGv_i64 val, MemOpIdx oi, bool store);
void panda_gen_after_i64(TCGv_i64 val, MemOpIdx oi, bool store)
{
    if (emitting(store)) {
        gen_after(oi, store, val, tcg_constant_i64(0));
        if (store && replaced == tcgv_i64_temp(val)) {
            tcg_temp_free_i64(val);
            replaced = NULL;
        }
    }
}

void panda_gen_after_i128(TCGv_i128 val, MemOpIdx oi, bool store);
void panda_gen_after_i128(TCGv_i128 val, MemOpIdx oi, bool store)
{
    if (emitting(store)) {
        gen_after(oi, store, TCGV128_LOW(val), TCGV128_HIGH(val));
    }
}

void panda_mem_insn_start(uint64_t pc)
{
    tcg_gen_st_i64(tcg_constant_i64(pc),
                   tcg_constant_ptr((intptr_t)&insn_pc), 0);
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

void __wrap_qemu_plugin_vcpu_mem_cb(CPUState *cs, uint64_t addr, uint64_t lo,
                                    uint64_t hi, MemOpIdx oi,
                                    enum qemu_plugin_mem_rw rw);
void __wrap_qemu_plugin_vcpu_mem_cb(CPUState *cs, uint64_t addr, uint64_t lo,
                                    uint64_t hi, MemOpIdx oi,
                                    enum qemu_plugin_mem_rw rw)
{
    for (int store = 0; store < 2; store++) {
        if (!(rw & (store ? QEMU_PLUGIN_MEM_W : QEMU_PLUGIN_MEM_R))
            || (!wanted_before(store) && !wanted_after(store))) {
            continue;
        }
        panda_event_enter(cs, PANDA_PLACE_HELPER,
                          panda_exact_pc(cs, insn_pc), 0);
        /* The access is made already: both of its events come now. */
        deliver(cs, addr, oi, store, false, lo, hi);
        deliver(cs, addr, oi, store, true, lo, hi);
        panda_event_leave(cs);
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
