/*
 * hypercaller: hypercalls by their number.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/abi.h"
#include "plugins/plugins.h"
#include "panda/plugins/hypercaller.h"

/* Number -> function. */
static GHashTable *calls;
static PandaPlugin *me;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static hypercall_t find(uint32_t magic)
{
    hypercall_t found;

    pthread_mutex_lock(&lock);
    found = calls ? g_hash_table_lookup(calls, GUINT_TO_POINTER(magic)) : NULL;
    pthread_mutex_unlock(&lock);
    return found;
}

static bool guest_hypercall(PandaCPU *cpu)
{
    hypercall_t function =
        find(panda_abi_hypercall_number(panda_vcpu.cs));

    if (function) {
        function(cpu);
    }
    return function;
}

/* It costs something to look for hypercalls. */
static void update(void)
{
    panda_cb cb = { .guest_hypercall = guest_hypercall };

    if (!me) {
        return;
    }
    if (calls && g_hash_table_size(calls)) {
        panda_enable_callback(me, PANDA_CB_GUEST_HYPERCALL, cb);
    } else {
        panda_disable_callback(me, PANDA_CB_GUEST_HYPERCALL, cb);
    }
}

int panda_hypercaller_register_hypercall(uint32_t magic, hypercall_t function)
{
    int status = PANDA_OK;

    if (!me) {
        return panda_fail(PANDA_ERR_STATE, "plugin hypercaller is not loaded");
    }
    pthread_mutex_lock(&lock);
    calls = calls ?: g_hash_table_new(NULL, NULL);
    if (g_hash_table_contains(calls, GUINT_TO_POINTER(magic))) {
        status = panda_fail(PANDA_ERR_ARGUMENT, "there is a function for "
                            "hypercall 0x%" PRIx32 " already", magic);
    } else {
        g_hash_table_insert(calls, GUINT_TO_POINTER(magic), function);
    }
    pthread_mutex_unlock(&lock);
    update();
    return status;
}

int panda_hypercaller_unregister_hypercall(uint32_t magic)
{
    bool found;

    pthread_mutex_lock(&lock);
    found = calls && g_hash_table_remove(calls, GUINT_TO_POINTER(magic));
    pthread_mutex_unlock(&lock);
    update();
    return found ? PANDA_OK
        : panda_fail(PANDA_ERR_ARGUMENT, "there is no function for hypercall "
                     "0x%" PRIx32, magic);
}

static bool init(PandaPlugin *self)
{
    panda_cb cb = { .guest_hypercall = guest_hypercall };

    me = self;
    if (panda_register_callback(self, PANDA_CB_GUEST_HYPERCALL, cb)
        != PANDA_OK) {
        return false;
    }
    update();
    return true;
}

static void uninit(PandaPlugin *self)
{
    me = NULL;
    pthread_mutex_lock(&lock);
    if (calls) {
        g_hash_table_remove_all(calls);
    }
    pthread_mutex_unlock(&lock);
}

PANDA_PLUGIN(hypercaller, "hypercalls by their number", init, uninit);
