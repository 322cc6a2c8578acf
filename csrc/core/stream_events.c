/*
 * Records of streams, and the code that makes them.
 *
 * The calls are emitted so that generated code keeps its registers across them
 * (TCG_CALL_NO_RWG): what is kept in QEMU's registers is not looked at.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/block_events.h"
#include "core/emit.h"
#include "core/memory_events.h"
#include "core/stream.h"
#include "exec/cpu-common.h"
#include "exec/memopidx.h"
#include "panda/os_events.h"
#include "syscalls/syscalls.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"

uint32_t panda_streamed_kinds, panda_streamed_os;

static uint64_t asid_for(const PandaStream *s)
{
    return s->wants_asid ? panda_arch_get_asid(panda_vcpu.cs) : 0;
}

static bool wants(PandaStream *s, uint64_t pc, uint64_t addr)
{
    return (panda_live & BIT_ULL(s->listener.slot))
        && (s->filter_is_static
            || panda_listener_wants(&s->listener, pc, addr,
                                    panda_vcpu.block_pc));
}

/* ---- blocks and edges ---- */

static void stream_block(void *stream, void *opaque)
{
    const PandaBlock *block = opaque;
    PandaStream *s = stream;
    uint64_t pc = block->pub.pc;

    if (wants(s, pc, 0)) {
        uint64_t all[PANDA_STREAM_FIELDS];

        all[PANDA_FIELD_PC] = pc;
        all[PANDA_FIELD_ASID] = asid_for(s);
        all[PANDA_FIELD_KERNEL] = block->kernel;
        all[PANDA_FIELD_SIZE] = block->pub.size;
        all[PANDA_FIELD_ICOUNT] = block->pub.icount;
        all[PANDA_FIELD_SOURCE] = panda_vcpu.last_block_pc;
        panda_stream_put(s, all);
    }
}

static void stream_insn(void *stream, void *opaque, uint64_t pc)
{
    const PandaBlock *block = opaque;
    PandaStream *s = stream;

    if (wants(s, pc, 0)) {
        uint64_t all[PANDA_STREAM_FIELDS];

        all[PANDA_FIELD_PC] = pc;
        all[PANDA_FIELD_ASID] = asid_for(s);
        all[PANDA_FIELD_KERNEL] = block->kernel;
        all[PANDA_FIELD_BLOCK] = block->pub.pc;
        panda_stream_put(s, all);
    }
}

static TCGHelperInfo stream_block_info = {
    .name = "panda_stream_block", .flags = TCG_CALL_NO_RWG,
    .typemask = dh_typemask(void, 0) | dh_typemask(ptr, 1)
                | dh_typemask(ptr, 2),
};

static TCGHelperInfo stream_insn_info = {
    .name = "panda_stream_insn", .flags = TCG_CALL_NO_RWG,
    .typemask = dh_typemask(void, 0) | dh_typemask(ptr, 1)
                | dh_typemask(ptr, 2) | dh_typemask(i64, 3),
};

static TCGTemp *pointer(const void *p)
{
    return tcgv_ptr_temp(tcg_constant_ptr((intptr_t)p));
}

static void emit(PandaListener *listener, PandaPoint point,
                 const PandaBlock *block, uint64_t pc)
{
    PandaStream *s = container_of(listener, PandaStream, listener);

    if (point == PANDA_POINT_BLOCK) {
        tcg_gen_call2(stream_block, &stream_block_info, NULL, pointer(s),
                      pointer(block));
    } else {
        tcg_gen_call3(stream_insn, &stream_insn_info, NULL, pointer(s),
                      pointer(block), tcgv_i64_temp(tcg_constant_i64(pc)));
    }
}

/* ---- memory ---- */

static void put_access(PandaStream *s, uint64_t pc, uint64_t addr,
                       unsigned size, unsigned how, uint64_t value)
{
    if (wants(s, pc, addr)) {
        uint64_t all[PANDA_STREAM_FIELDS];

        all[PANDA_FIELD_PC] = pc;
        all[PANDA_FIELD_ASID] = asid_for(s);
        all[PANDA_FIELD_KERNEL] = !!(how & PANDA_ACCESS_KERNEL);
        all[PANDA_FIELD_ADDR] = addr;
        all[PANDA_FIELD_SIZE] = size;
        all[PANDA_FIELD_VALUE] = value;
        all[PANDA_FIELD_WRITE] = how & PANDA_ACCESS_STORE;
        panda_stream_put(s, all);
    }
}

static void access_made(PandaListener *listener, uint64_t pc, uint64_t addr,
                        uint32_t oi, unsigned how, uint64_t lo, uint64_t hi)
{
    PandaStream *s = container_of(listener, PandaStream, listener);
    PandaAccessParts parts = panda_access_parts(oi, lo, hi);

    for (unsigned i = 0; i < parts.n; i++) {
        /* A load may have been extended by its sign. */
        put_access(s, pc, addr + i * parts.size, parts.size, how,
                   parts.value[i] & MAKE_64BIT_MASK(0, parts.size * 8));
    }
}

/* what: MemOpIdx, and how the access is made in the two bits on top */
#define HOW_SHIFT 30

static void stream_access(void *stream, uint64_t pc, uint32_t what,
                          uint64_t lo, uint64_t hi)
{
    access_made(&((PandaStream *)stream)->listener, pc,
                panda_access_address(), extract32(what, 0, HOW_SHIFT),
                what >> HOW_SHIFT, lo, hi);
}

static TCGHelperInfo stream_access_info = {
    .name = "panda_stream_access", .flags = TCG_CALL_NO_RWG,
    .typemask = dh_typemask(void, 0) | dh_typemask(ptr, 1)
                | dh_typemask(i64, 2) | dh_typemask(i32, 3)
                | dh_typemask(i64, 4) | dh_typemask(i64, 5),
};

static void emit_access(PandaListener *listener,
                        const PandaEmittedAccess *access)
{
    PandaStream *s = container_of(listener, PandaStream, listener);
    uint32_t what = access->oi
        | (((access->store ? PANDA_ACCESS_STORE : 0)
            | (access->kernel ? PANDA_ACCESS_KERNEL : 0)) << HOW_SHIFT);

    tcg_gen_call5(stream_access, &stream_access_info, NULL, pointer(s),
                  tcgv_i64_temp(tcg_constant_i64(access->pc)),
                  tcgv_i32_temp(tcg_constant_i32(what)),
                  tcgv_i64_temp(access->lo), tcgv_i64_temp(access->hi));
}

void panda_stream_prepare(PandaStream *s, uint32_t accesses)
{
    switch (s->kind) {
    case PANDA_STREAM_EDGE:
        s->listener.tracks_blocks = true;
        /* fall through */
    case PANDA_STREAM_BLOCK:
        s->listener.points = BIT(PANDA_POINT_BLOCK);
        s->listener.emit = emit;
        break;
    case PANDA_STREAM_INSN:
        s->listener.points = BIT(PANDA_POINT_INSN);
        s->listener.emit = emit;
        break;
    case PANDA_STREAM_MEM:
        s->listener.points =
            (accesses & 1 ? BIT(PANDA_POINT_AFTER_LOAD) : 0)
            | (accesses & 2 ? BIT(PANDA_POINT_AFTER_STORE) : 0);
        s->listener.emit_access = emit_access;
        s->listener.access_made = access_made;
        break;
    case PANDA_STREAM_CALL:
        s->listener.points = BIT(PANDA_POINT_BRANCH);
        break;
    case PANDA_STREAM_SYSCALL:
        panda_syscall_tables();
        s->listener.points = BIT(PANDA_POINT_SYSCALL);
        break;
    case PANDA_STREAM_OS:
        s->os_events = accesses;
        break;
    default:
        break;
    }
}

/* ---- events that have no code of their own ---- */

/*
 * Nothing of the filter was decided by the code that was generated. os_events:
 * of those, one that the stream has to want.
 */
static void put_event_of(PandaStreamKind kind, uint32_t os_events, uint64_t pc,
                         bool kernel, uint64_t *all)
{
    PandaListener *l;

    RCU_READ_LOCK_GUARD();
    PANDA_FOR_EACH_LISTENER(l) {
        PandaStream *s = panda_stream_of(l);

        if (s && s->kind == kind && (s->os_events & os_events) == os_events
            && (qatomic_read(&panda_live) & BIT_ULL(l->slot))
            && panda_listener_fits(l, pc, kernel)
            && (s->filter_is_static || panda_listener_counts(l, pc))) {
            all[PANDA_FIELD_ASID] = asid_for(s);
            panda_stream_put(s, all);
        }
    }
}

static void put_event(PandaStreamKind kind, uint64_t pc, bool kernel,
                      uint64_t *all)
{
    put_event_of(kind, 0, pc, kernel, all);
}

void panda_stream_asid(uint64_t pc, uint64_t old_value, uint64_t new_value)
{
    uint64_t all[PANDA_STREAM_FIELDS] = {
        [PANDA_FIELD_PC] = pc,
        [PANDA_FIELD_OLD] = old_value,
        [PANDA_FIELD_NEW] = new_value,
    };

    put_event(PANDA_STREAM_ASID, pc, panda_arch_in_kernel(panda_vcpu.cs), all);
}

void panda_stream_exception(uint64_t pc, bool kernel, uint64_t number,
                            bool interrupt)
{
    uint64_t all[PANDA_STREAM_FIELDS] = {
        [PANDA_FIELD_PC] = pc,
        [PANDA_FIELD_KERNEL] = kernel,
        [PANDA_FIELD_NUMBER] = number,
        [PANDA_FIELD_INTERRUPT] = interrupt,
    };

    put_event(PANDA_STREAM_EXCEPTION, pc, kernel, all);
}

void panda_stream_io(uint64_t pc, bool port, uint64_t addr, unsigned size,
                     bool write, uint64_t value)
{
    bool kernel = panda_arch_in_kernel(panda_vcpu.cs);
    uint64_t all[PANDA_STREAM_FIELDS] = {
        [PANDA_FIELD_PC] = pc,
        [PANDA_FIELD_KERNEL] = kernel,
        [PANDA_FIELD_ADDR] = addr,
        [PANDA_FIELD_SIZE] = size,
        [PANDA_FIELD_VALUE] = value,
        [PANDA_FIELD_WRITE] = write,
        [PANDA_FIELD_PORT] = port,
    };

    put_event(PANDA_STREAM_IO, pc, kernel, all);
}

void panda_stream_syscall(const PandaSyscallCall *call, const uint64_t *args,
                          unsigned n, int64_t result, unsigned phase)
{
    uint64_t all[PANDA_STREAM_FIELDS] = {
        [PANDA_FIELD_PC] = call->pc,
        [PANDA_FIELD_NUMBER] = call->number,
        [PANDA_FIELD_THREAD] = call->thread,
        [PANDA_FIELD_RESULT] = result,
        [PANDA_FIELD_PHASE] = phase,
        [PANDA_FIELD_ABI] = call->abi,
    };

    for (unsigned i = 0; i < n && i < 6; i++) {
        all[PANDA_FIELD_ARG0 + i] = args[i];
    }
    put_event(PANDA_STREAM_SYSCALL, call->pc, false, all);
}

void panda_stream_call(uint64_t pc, bool kernel, uint64_t target, uint64_t sp,
                       uint64_t depth, bool returns)
{
    uint64_t all[PANDA_STREAM_FIELDS] = {
        [PANDA_FIELD_PC] = pc,
        [PANDA_FIELD_KERNEL] = kernel,
        [PANDA_FIELD_TARGET] = target,
        [PANDA_FIELD_SP] = sp,
        [PANDA_FIELD_DEPTH] = depth,
        [PANDA_FIELD_RETURNS] = returns,
    };

    put_event(PANDA_STREAM_CALL, pc, kernel, all);
}

void panda_stream_os(const PandaOsEvent *e)
{
    bool maps = e->kind == PANDA_OS_MMAP;
    uint64_t all[PANDA_STREAM_FIELDS] = {
        [PANDA_FIELD_EVENT] = e->kind,
        [PANDA_FIELD_COUNT] = e->count,
        [PANDA_FIELD_PID] = e->task.pid,
        [PANDA_FIELD_TID] = e->task.tid,
        [PANDA_FIELD_THREAD] = e->task.task,
        [PANDA_FIELD_VALUE] = maps ? e->flag : e->value,
        [PANDA_FIELD_OTHER] = e->other.tid,
        [PANDA_FIELD_ADDR] = maps ? e->mapping.start : e->file,
        [PANDA_FIELD_SIZE] = e->mapping.end - e->mapping.start,
    };

    memcpy(&all[PANDA_FIELD_NAME0], e->task.name, sizeof(e->task.name));
    put_event_of(PANDA_STREAM_OS, BIT(e->kind), panda_vcpu.pub.panda_guest_pc,
                 true, all);
}
