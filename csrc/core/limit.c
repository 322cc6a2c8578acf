/*
 * Run to an address or for a number of instructions.
 *
 * A variant of the translation (see variants.c) with a call before each
 * instruction. It counts what begins; who abandons an instruction that has
 * begun takes it back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/block_events.h"
#include "core/limit.h"
#include "core/machine.h"
#include "exec/exec-all.h"
#include "system/cpus.h"
#include "tcg/tcg.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"

static bool active;
static uint64_t executed;
static uint64_t max_count;
static uint64_t address[PANDA_LIMIT_ADDRESSES];
static uint32_t n_addresses;

bool panda_limit_active(void)
{
    return qatomic_read(&active);
}

int panda_limit_reached(uint64_t pc)
{
    if (!active) {
        return 0;
    }
    if (executed) {
        /* Else a run could not begin where the last one ended. */
        for (uint32_t i = 0; i < n_addresses; i++) {
            if (address[i] == pc) {
                return PANDA_RUN_ADDRESS;
            }
        }
    }
    return executed >= max_count ? PANDA_RUN_COUNT : 0;
}

void panda_limit_retract(void)
{
    if (active && executed) {
        executed--;
    }
}

static void limit_insn(CPUArchState *env, uint64_t translated_pc)
{
    CPUState *cs = env_cpu(env);
    uintptr_t ra = GETPC();
    int reason;

    if (!active) {
        return;
    }
    reason = panda_limit_reached(panda_exact_pc(cs, translated_pc));
    if (likely(!reason)) {
        qatomic_set(&executed, executed + 1);
        return;
    }
    panda_vcpu.unwinding = true;
    cpu_restore_state(cs, ra);
    panda_vcpu.unwinding = false;
    /* While callbacks are still called. */
    panda_block_finish_early(cs);
    panda_request_stop(reason);
    cpu_stop_current();
    cpu_loop_exit_noexc(cs);
}

static TCGHelperInfo limit_insn_info = {
    .name = "panda_limit_insn",
    .typemask = dh_typemask(void, 0) | dh_typemask(env, 1)
                | dh_typemask(i64, 2),
};

static void emit(const DisasContextBase *db, uint64_t pc)
{
    /*
     * Not in a block made to run one instruction again, for its I/O or
     * because it wrote to its own block: it was counted when it began.
     */
    if ((tb_cflags(db->tb) & (PANDA_CF_LIMIT | CF_MEMI_ONLY | CF_NOIRQ))
        == PANDA_CF_LIMIT) {
        tcg_gen_call2(limit_insn, &limit_insn_info, NULL,
                      tcgv_ptr_temp(tcg_env),
                      tcgv_i64_temp(tcg_constant_i64(pc)));
    }
}

/* The first one is met before the block's own events. */
void panda_limit_block_start(const DisasContextBase *db)
{
#ifdef TARGET_I386
    if (db->tb->flags & HF_RF_MASK) {
        /* A string instruction goes on: it has counted. */
        return;
    }
#endif
    emit(db, db->pc_first);
}

void panda_limit_insn_start(const DisasContextBase *db)
{
    if (db->num_insns > 1) {
        emit(db, db->pc_next);
    }
}

static int check_at_rest(void)
{
    int status = panda_check_usable();

    if (status == PANDA_OK && panda_in_run()) {
        return panda_fail(PANDA_ERR_STATE, "a limit cannot be changed while "
                          "the machine is run");
    }
    return status;
}

int panda_set_limit(uint64_t count, const target_ptr_t *addresses, uint32_t n)
{
    int status = check_at_rest();

    if (status != PANDA_OK) {
        return status;
    }
    if (n > PANDA_LIMIT_ADDRESSES) {
        return panda_fail(PANDA_ERR_ARGUMENT, "%" PRIu32 " addresses: a limit "
                          "has %d at most", n, PANDA_LIMIT_ADDRESSES);
    }
    for (uint32_t i = 0; i < n; i++) {
        address[i] = addresses[i];
    }
    n_addresses = n;
    max_count = count;
    executed = 0;
    qatomic_set(&active, true);
    panda_variants_update();
    return PANDA_OK;
}

int panda_clear_limit(void)
{
    int status = check_at_rest();

    if (status == PANDA_OK) {
        qatomic_set(&active, false);
        panda_variants_update();
    }
    return status;
}

uint64_t panda_limit_executed(void)
{
    return qatomic_read(&executed);
}
