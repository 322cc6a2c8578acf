/*
 * signal: signals that are not to reach their process.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "plugins/plugins.h"
#include "panda/os_events.h"
#include "panda/plugins/signal.h"

#define LAST 64

/* Numbers under which it listens. */
static GArray *numbers;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int sent(PandaCPU *cpu, const PandaOsEvent *e, void *context)
{
    return e->value == (intptr_t)context;
}

static void misses(const char *reason, void *context)
{
    panda_plugin_misses(reason, (void *)"signal");
}

static int block(int32_t sig, const char *procname)
{
    PandaOsListenerSpec spec = {
        .kind = PANDA_OS_SIGNAL, .procname = procname, .function = sent,
        .missing = misses, .context = (void *)(intptr_t)sig,
    };
    int64_t number;

    if (sig < 1 || sig > LAST) {
        return panda_fail(PANDA_ERR_ARGUMENT, "there is no signal %d: they "
                          "are 1 to %d", sig, LAST);
    }
    number = panda_os_events_add(&spec);
    if (number < 0) {
        return number;
    }
    pthread_mutex_lock(&lock);
    if (numbers) {
        g_array_append_val(numbers, number);
        pthread_mutex_unlock(&lock);
        return PANDA_OK;
    }
    pthread_mutex_unlock(&lock);
    panda_os_events_remove(number);
    return panda_fail(PANDA_ERR_STATE, "the plugin signal is not loaded");
}

int panda_signal_block_sig(int32_t sig)
{
    return block(sig, NULL);
}

int panda_signal_block_sig_by_proc(int32_t sig, char *procname)
{
    return procname ? block(sig, procname)
        : panda_fail(PANDA_ERR_ARGUMENT, "a process has a name");
}

static bool init(PandaPlugin *self)
{
    const char *reason = panda_os_event_reason(PANDA_OS_SIGNAL);

    if (reason) {
        panda_fail(PANDA_ERR_OS, "plugin signal: %s", reason);
        return false;
    }
    numbers = g_array_new(false, false, sizeof(int64_t));
    return true;
}

static void uninit(PandaPlugin *self)
{
    GArray *all;

    pthread_mutex_lock(&lock);
    all = numbers;
    numbers = NULL;
    pthread_mutex_unlock(&lock);
    for (unsigned i = 0; i < all->len; i++) {
        panda_os_events_remove(g_array_index(all, int64_t, i));
    }
    g_array_free(all, true);
}

PANDA_PLUGIN(signal, "signals that are not to reach their process", init,
             uninit);
