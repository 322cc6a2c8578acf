/*
 * A plugin in C: counts the blocks that run in the kernel and in programs, and
 * tells whoever listens each time `every` more of them have run.
 *
 *     gcc $(python -m pandalite.config --cflags) -o panda_callcount.so callcount.c
 *
 *     panda.load_plugin("./panda_callcount.so", {"every": 100000})
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "panda/plugin.h"

/* What it calls back with: how many have run so far, in the mode of this one. */
PPP_CB_TYPEDEF(void, on_blocks, CPUState *cpu, uint64_t count, bool kernel);

PPP_PROT_REG_CB(on_blocks);
PPP_CB_BOILERPLATE(on_blocks)

static uint64_t counts[2], every;
static bool verbose;

static void block(CPUState *cpu, TranslationBlock *tb)
{
    bool kernel = panda_in_kernel(cpu);

    if (++counts[kernel] % every == 0) {
        PPP_RUN_CB(on_blocks, cpu, counts[kernel], kernel);
    }
}

/* Other plugins and Python may call it: panda.plugins["callcount"].get_count */
PANDA_EXPORT uint64_t get_count(bool kernel);
uint64_t get_count(bool kernel)
{
    return counts[kernel];
}

bool init_plugin(void *self)
{
    panda_cb pcb = { .start_block_exec = block };
    panda_arg_list *args = panda_get_args("callcount");

    every = panda_parse_uint64_opt(args, "every", 1000000, "blocks between callbacks");
    verbose = panda_parse_bool_opt(args, "verbose", "print the counts at the end");
    panda_free_args(args);
    if (!every) {
        return false;
    }
    counts[0] = counts[1] = 0;
    return panda_register_callback(self, PANDA_CB_START_BLOCK_EXEC, pcb) == 0;
}

void uninit_plugin(void *self)
{
    if (verbose) {
        printf("callcount: %" PRIu64 " blocks in programs, %" PRIu64 " in the kernel\n",
               counts[0], counts[1]);
        fflush(stdout);
    }
}
