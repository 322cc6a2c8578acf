/*
 * What the host program writes in a callback while a recording is made.
 *
 * A replay has to do it at the same instruction. So the block is left there and
 * the slice ends, before an interrupt is delivered; what was written comes
 * first in the pause that follows.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/host_writes.h"
#include "record/regions.h"
#include "record/state.h"
#include "qemu/main-loop.h"

/* Entries of the memory that was written. */
static PandaBytes memory;
static bool registers;

bool panda_host_writes_pending(void)
{
    return memory.n || registers;
}

void panda_host_writes_begin(void)
{
    memory.n = 0;
    registers = false;
}

bool panda_host_write(bool is_memory)
{
    CPUState *cs = panda_vcpu.cs;

    if (!panda_rr_inside() || !panda_vcpu.pub.in_callback
        || (panda_vcpu.place != PANDA_PLACE_BLOCK_START
            && panda_vcpu.place != PANDA_PLACE_INSN)) {
        return false;
    }
    registers |= !is_memory;
    /* At the event's end; it is not delivered again. */
    panda_vcpu.requests |= PANDA_REQUEST_RETRANSLATE;
    qatomic_set(&cs->exit_request, true);
    return true;
}

void panda_host_memory_written(MemoryRegion *mr, hwaddr addr, hwaddr length)
{
    PandaBytes *log = panda_log;
    uint64_t offset;
    int block = panda_ram_of(mr, addr, &offset);
    unsigned n;

    if (block >= 0) {
        panda_log = &memory;
        panda_log_entry(PANDA_ENTRY_MEMORY);
        panda_log_number(block);
        panda_log_number(offset);
        panda_log_string(panda_rams(&n)[block].host + offset, length);
        panda_log = log;
    }
}

bool panda_host_writes_log(CPUState *cs)
{
    PandaBytes state = {};
    bool written = registers;

    panda_log_bytes(memory.data, memory.n);
    if (registers) {
        bql_lock();
        panda_cpu_save(&state);
        bql_unlock();
        panda_log_entry(PANDA_ENTRY_RESET);
        panda_log_string(state.data, state.n);
        g_free(state.data);
        /* Loading it may empty the TLB, or not. */
        panda_tlb_forget(cs);
        panda_log_entry(PANDA_ENTRY_FLUSH);
        panda_log_number(PANDA_FLUSH_FORGET);
    }
    panda_host_writes_begin();
    return written;
}
