/*
 * Record and replay of pseries machines, whose hypervisor is a part of QEMU.
 *
 * A hypercall counts as a call of a device, which may change any register of
 * the CPU: what it changes is recorded. The hash table of pages is memory of
 * the hypervisor's; the MMU's own changes of it are made anew in a replay.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/ppc.h"
#include "record/log.h"
#include "exec/exec-all.h"
#include "hw/boards.h"

#ifndef TARGET_PPC64

unsigned panda_pseries_lines(CPUState *cs, PandaLine *table)
{
    return 0;
}

const char *panda_pseries_prepare(CPUState *cs)
{
    return NULL;
}

#else

#include "hw/ppc/spapr.h"

/* Effects that only these machines have. */
typedef enum Effect {
    EFFECT_REGISTERS,
    EFFECT_PTE,
    EFFECT_NO_TABLE,
    EFFECT_NEW_TABLE,
} Effect;

#define WORDS (sizeof(CPUPPCState) / 8)

static SpaprMachineState *pseries(void)
{
    return (SpaprMachineState *)
        object_dynamic_cast(OBJECT(current_machine), TYPE_SPAPR_MACHINE);
}

/* ---- hypercalls ---- */

static PPCVirtualHypervisorClass *patched;
static void (*real_hypercall)(PPCVirtualHypervisor *vhyp, PowerPCCPU *cpu);
static void (*real_enter)(PPCVirtualHypervisor *vhyp, PowerPCCPU *cpu);
static void (*real_exit)(PPCVirtualHypervisor *vhyp, PowerPCCPU *cpu);

static void log_registers(const uint64_t *before, const uint64_t *now)
{
    unsigned last = 0;

    panda_log_entry(PANDA_ENTRY_ARCH);
    panda_log_number(EFFECT_REGISTERS);
    for (unsigned i = 0; i < WORDS; i++) {
        if (before[i] != now[i]) {
            panda_log_number(i + 1 - last);
            panda_log_number(now[i]);
            last = i;
        }
    }
    panda_log_number(0);
}

static void hypercall(PPCVirtualHypervisor *vhyp, PowerPCCPU *cpu)
{
    static uint64_t before[WORDS];
    uint64_t number = cpu->env.gpr[3], unused;

    if (!panda_rr_crosses()) {
        real_hypercall(vhyp, cpu);
    } else if (!panda_rr_answer(PANDA_CROSS_HYPERCALL, number, &unused)) {
        memcpy(before, &cpu->env, sizeof(before));
        real_hypercall(vhyp, cpu);
        log_registers(before, (uint64_t *)&cpu->env);
        panda_rr_crossed(PANDA_CROSS_HYPERCALL, number, 0);
    }
}

/*
 * They count, in the guest's memory, how often the CPU was dispatched. That is
 * for guests with several; here it would depend on the host.
 */
static void enter(PPCVirtualHypervisor *vhyp, PowerPCCPU *cpu)
{
    if (!panda_rr_on()) {
        real_enter(vhyp, cpu);
    }
}

static void leave(PPCVirtualHypervisor *vhyp, PowerPCCPU *cpu)
{
    if (!panda_rr_on()) {
        real_exit(vhyp, cpu);
    }
}

const char *panda_pseries_prepare(CPUState *cs)
{
    PowerPCCPU *cpu = POWERPC_CPU(cs);

    if (!cpu->vhyp) {
        return NULL;
    }
    if (!pseries()) {
        return "its hypervisor is a part of QEMU and keeps state outside of "
               "the CPU and memory";
    }
    if (!patched) {
        patched = cpu->vhyp_class;
        real_hypercall = patched->hypercall;
        real_enter = patched->cpu_exec_enter;
        real_exit = patched->cpu_exec_exit;
        patched->hypercall = hypercall;
        patched->cpu_exec_enter = enter;
        patched->cpu_exec_exit = leave;
    }
    return NULL;
}

unsigned panda_pseries_lines(CPUState *cs, PandaLine *table)
{
    SpaprMachineState *spapr = POWERPC_CPU(cs)->vhyp ? pseries() : NULL;

    if (!spapr) {
        return 0;
    }
    table[0] = (PandaLine) { "patb_entry", &spapr->patb_entry, 8 };
    table[1] = (PandaLine) { "exception_index", &cs->exception_index, 4 };
    return 2;
}

/* ---- the hash table ---- */

static bool logs(void)
{
    return panda_rr_recording() && !panda_rr_inside();
}

void __real_spapr_store_hpte(PowerPCCPU *cpu, hwaddr ptex, uint64_t pte0,
                             uint64_t pte1);
void __wrap_spapr_store_hpte(PowerPCCPU *cpu, hwaddr ptex, uint64_t pte0,
                             uint64_t pte1);
void __wrap_spapr_store_hpte(PowerPCCPU *cpu, hwaddr ptex, uint64_t pte0,
                             uint64_t pte1)
{
    if (logs()) {
        panda_log_entry(PANDA_ENTRY_ARCH);
        panda_log_number(EFFECT_PTE);
        panda_log_number(ptex);
        panda_log_number(pte0);
        panda_log_number(pte1);
    }
    __real_spapr_store_hpte(cpu, ptex, pte0, pte1);
}

static bool nested;

void __real_spapr_free_hpt(SpaprMachineState *spapr);
void __wrap_spapr_free_hpt(SpaprMachineState *spapr);
void __wrap_spapr_free_hpt(SpaprMachineState *spapr)
{
    if (logs() && !nested) {
        panda_log_entry(PANDA_ENTRY_ARCH);
        panda_log_number(EFFECT_NO_TABLE);
    }
    __real_spapr_free_hpt(spapr);
}

int __real_spapr_reallocate_hpt(SpaprMachineState *spapr, int shift,
                                Error **errp);
int __wrap_spapr_reallocate_hpt(SpaprMachineState *spapr, int shift,
                                Error **errp);
int __wrap_spapr_reallocate_hpt(SpaprMachineState *spapr, int shift,
                                Error **errp)
{
    int result;

    if (logs()) {
        panda_log_entry(PANDA_ENTRY_ARCH);
        panda_log_number(EFFECT_NEW_TABLE);
        panda_log_number(shift);
    }
    nested = true;
    result = __real_spapr_reallocate_hpt(spapr, shift, errp);
    nested = false;
    return result;
}

static void apply_registers(PandaLogCursor *c)
{
    uint64_t *words = (uint64_t *)cpu_env(panda_vcpu.cs);
    uint64_t at = 0, step;

    while ((step = panda_log_get(c))) {
        at += step - 1;
        if (at >= WORDS) {
            panda_log_bad(c);
            return;
        }
        words[at] = panda_log_get(c);
    }
}

void panda_arch_effect(PandaLogCursor *c)
{
    SpaprMachineState *spapr = pseries();
    uint64_t ptex, pte0, pte1;
    int shift;

    if (!spapr) {
        panda_log_bad(c);
        return;
    }
    switch (panda_log_get(c)) {
    case EFFECT_REGISTERS:
        apply_registers(c);
        break;
    case EFFECT_PTE:
        ptex = panda_log_get(c);
        pte0 = panda_log_get(c);
        pte1 = panda_log_get(c);
        if (!spapr->htab_shift || ptex >= HTAB_SIZE(spapr) / 16) {
            panda_log_bad(c);
            return;
        }
        __real_spapr_store_hpte(POWERPC_CPU(panda_vcpu.cs), ptex, pte0, pte1);
        break;
    case EFFECT_NO_TABLE:
        __real_spapr_free_hpt(spapr);
        break;
    case EFFECT_NEW_TABLE:
        shift = panda_log_get(c);
        if (shift < 18 || shift > 46
            || __real_spapr_reallocate_hpt(spapr, shift, NULL) < 0) {
            panda_log_bad(c);
        }
        break;
    default:
        panda_log_bad(c);
    }
}

/* ---- as part of the state ---- */

void panda_arch_save(PandaBytes *out)
{
    SpaprMachineState *spapr = pseries();
    unsigned shift = spapr && spapr->htab ? spapr->htab_shift : 0;

    panda_bytes_number(out, shift);
    if (shift) {
        panda_bytes_put(out, spapr->htab, HTAB_SIZE(spapr));
    }
}

bool panda_arch_load(PandaLogCursor *c)
{
    SpaprMachineState *spapr = pseries();
    unsigned shift = panda_log_get(c);
    const uint8_t *table;

    if (!spapr) {
        return !shift;
    }
    if (!shift) {
        __real_spapr_free_hpt(spapr);
        return true;
    }
    if (shift < 18 || shift > 46
        || !(table = panda_log_get_bytes(c, 1ULL << shift))) {
        return false;
    }
    if ((!spapr->htab || spapr->htab_shift != shift)
        && __real_spapr_reallocate_hpt(spapr, shift, NULL) < 0) {
        return false;
    }
    memcpy(spapr->htab, table, 1ULL << shift);
    return true;
}

#endif
