/*
 * Guest memory, read and written from the host's side.
 *
 * RAM and ROM only: a read must never reach a device. Addresses are translated
 * with the debug walker, which raises no guest exception and leaves the TLB
 * and the accessed and dirty bits alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "record/record.h"
#include "core/machine.h"
#include "exec/address-spaces.h"
#include "exec/exec-all.h"
#include "exec/memory.h"
#include "exec/ram_addr.h"
#include "exec/target_page.h"
#include "exec/tlb-common.h"
#include "hw/boards.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"

/* Copy within one run of contiguous memory; returns its length, 0: not RAM. */
static uint64_t access_run(AddressSpace *as, uint64_t addr, uint8_t *buf,
                           uint64_t len, bool write, MemTxAttrs attrs)
{
    panda_hwaddr_t xlat, run = len;
    MemoryRegion *mr;

    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(as, addr, &xlat, &run, write, attrs);
    if (!memory_region_is_ram(mr) && !memory_region_is_romd(mr)) {
        return 0;
    }
    if (!write) {
        memcpy(buf, (uint8_t *)memory_region_get_ram_ptr(mr) + xlat, run);
    } else if (address_space_write_rom(as, addr, attrs, buf, run)
               != MEMTX_OK) {
        return 0;
    }
    return run;
}

static int access_physical(AddressSpace *as, uint64_t addr, uint8_t *buf,
                           uint64_t len, bool write, MemTxAttrs attrs)
{
    while (len) {
        uint64_t run = access_run(as, addr, buf, len, write, attrs);

        if (!run) {
            return panda_fail(PANDA_ERR_MEMORY,
                              "physical address 0x%" PRIx64 " is not RAM",
                              addr);
        }
        addr += run;
        buf += run;
        len -= run;
    }
    return PANDA_OK;
}

static bool translate(CPUState *cs, uint64_t addr, AddressSpace **as,
                      uint64_t *paddr, MemTxAttrs *attrs)
{
    panda_hwaddr_t page =
        cpu_get_phys_page_attrs_debug(cs, addr & TARGET_PAGE_MASK, attrs);

    if (page == (panda_hwaddr_t)-1) {
        return false;
    }
    *as = cpu_get_address_space(cs, cpu_asidx_from_attrs(cs, *attrs));
    *paddr = page | (addr & ~TARGET_PAGE_MASK);
    return true;
}

void *panda_look_up_tlb(CPUState *cs, uint64_t addr)
{
    CPUTLBDescFast *tlb;
    CPUTLBEntry *entry;
    uintptr_t index;

    if (!panda_in_vcpu_thread()
        || panda_vcpu.place == PANDA_PLACE_OUTSIDE) {
        return NULL;
    }
    tlb = &cs->neg.tlb.f[cs->cc->mmu_index(cs, false)];
    index = (addr >> TARGET_PAGE_BITS) & (tlb->mask >> CPU_TLB_ENTRY_BITS);
    entry = &tlb->table[index];
    /* Flags in the low bits (device, watchpoint) make it differ. */
    if (entry->addr_idx[MMU_DATA_LOAD] != (addr & TARGET_PAGE_MASK)) {
        return NULL;
    }
    return (void *)((uintptr_t)addr + entry->addend);
}

static int access_virtual(uint64_t addr, uint8_t *buf, uint64_t len,
                          bool write)
{
    CPUState *cs = panda_vcpu.cs;

    while (len) {
        uint64_t in_page = -(addr | TARGET_PAGE_MASK);
        uint64_t run = MIN(len, in_page);
        MemTxAttrs attrs;
        AddressSpace *as;
        uint64_t paddr;
        void *host = write ? NULL : panda_look_up_tlb(cs, addr);

        if (host) {
            memcpy(buf, host, run);
        } else if (!translate(cs, addr, &as, &paddr, &attrs)) {
            return panda_fail(PANDA_ERR_MEMORY,
                              "virtual address 0x%" PRIx64 " is not mapped",
                              addr);
        } else if (access_physical(as, paddr, buf, run, write, attrs)
                   != PANDA_OK) {
            return panda_fail(PANDA_ERR_MEMORY, "virtual address 0x%" PRIx64
                              " (physical 0x%" PRIx64 ") is not RAM",
                              addr, paddr);
        }
        addr += run;
        buf += run;
        len -= run;
    }
    return PANDA_OK;
}

/* The translator holds page locks that a write takes too. */
static int check_write(void)
{
    if (panda_vcpu.place == PANDA_PLACE_TRANSLATION
        && panda_in_vcpu_thread()) {
        return panda_fail(PANDA_ERR_STATE, "guest memory cannot be written "
                          "while a block is being translated; do it in an "
                          "execution callback");
    }
    return panda_check_usable() ?: panda_rr_check_write(true);
}

int panda_virtual_memory_read(PandaCPU *cpu, target_ptr_t addr, uint8_t *buf,
                              uint64_t len)
{
    int status = panda_check_usable();

    return status == PANDA_OK ? access_virtual(addr, buf, len, false) : status;
}

int panda_virtual_memory_write(PandaCPU *cpu, target_ptr_t addr,
                               const uint8_t *buf, uint64_t len)
{
    int status = check_write();

    return status == PANDA_OK
        ? access_virtual(addr, (uint8_t *)buf, len, true) : status;
}

int panda_physical_memory_read(uint64_t addr, uint8_t *buf, uint64_t len)
{
    int status = panda_check_usable();

    return status == PANDA_OK
        ? access_physical(&address_space_memory, addr, buf, len, false,
                          MEMTXATTRS_UNSPECIFIED)
        : status;
}

int panda_physical_memory_write(uint64_t addr, const uint8_t *buf,
                                uint64_t len)
{
    int status = check_write();

    return status == PANDA_OK
        ? access_physical(&address_space_memory, addr, (uint8_t *)buf, len,
                          true, MEMTXATTRS_UNSPECIFIED)
        : status;
}

int64_t panda_read_string(PandaCPU *cpu, target_ptr_t addr, uint8_t *buf,
                          uint64_t max_len)
{
    uint64_t done = 0;
    int status = panda_check_usable();

    if (status != PANDA_OK) {
        return status;
    }
    while (done < max_len) {
        uint64_t in_page = -((addr + done) | TARGET_PAGE_MASK);
        uint64_t run = MIN(max_len - done, in_page);
        uint8_t *nul;

        status = access_virtual(addr + done, buf + done, run, false);
        if (status != PANDA_OK) {
            return done ? (int64_t)done : status;
        }
        nul = memchr(buf + done, 0, run);
        if (nul) {
            return nul - buf;
        }
        done += run;
    }
    return done;
}

uint64_t panda_virt_to_phys(PandaCPU *cpu, target_ptr_t addr)
{
    MemTxAttrs attrs;
    AddressSpace *as;
    uint64_t paddr;

    if (panda_check_usable() != PANDA_OK
        || !translate(panda_vcpu.cs, addr, &as, &paddr, &attrs)) {
        return UINT64_MAX;
    }
    return paddr;
}

int panda_physical_to_ram_offset(uint64_t addr, bool is_write,
                                 uint64_t *offset)
{
    panda_hwaddr_t xlat, run = 1;
    MemoryRegion *mr;
    int status = panda_check_usable();

    if (status != PANDA_OK) {
        return status;
    }
    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(&address_space_memory, addr, &xlat, &run,
                                 is_write, MEMTXATTRS_UNSPECIFIED);
    if (!memory_region_is_ram(mr) || (is_write && mr->readonly)) {
        return panda_fail(PANDA_ERR_MEMORY,
                          "physical address 0x%" PRIx64 " is not RAM", addr);
    }
    *offset = memory_region_get_ram_addr(mr) + xlat;
    return PANDA_OK;
}

uint64_t panda_ram_size(void)
{
    return current_machine ? current_machine->ram_size : 0;
}

int panda_map_memory(const char *name, uint64_t size, uint64_t addr)
{
    bool locked = bql_locked();
    Error *err = NULL;
    MemoryRegion *mr;
    int status = check_write();

    if (status != PANDA_OK) {
        return status;
    }
    if (!size || addr + size < addr) {
        return panda_fail(PANDA_ERR_ARGUMENT, "a region of %" PRIu64
                          " bytes cannot be mapped at 0x%" PRIx64, size, addr);
    }
    size = ROUND_UP(size, MAX(qemu_real_host_page_size(), TARGET_PAGE_SIZE));
    if (!locked) {
        bql_lock();
    }
    for (uint64_t at = addr; at - addr < size && status == PANDA_OK;
         at += TARGET_PAGE_SIZE) {
        if (memory_region_present(get_system_memory(), at)) {
            status = panda_fail(PANDA_ERR_ARGUMENT, "there is memory or a "
                                "device at 0x%" PRIx64 " already", at);
        }
    }
    if (status == PANDA_OK) {
        mr = g_new0(MemoryRegion, 1);
        if (memory_region_init_ram(mr, NULL, name, size, &err)) {
            memory_region_add_subregion(get_system_memory(), addr, mr);
        } else {
            g_free(mr);
            status = panda_fail_error(PANDA_ERR_ARGUMENT, err);
        }
    }
    if (!locked) {
        bql_unlock();
    }
    return status;
}
