/*
 * mem_hooks: ranges of addresses, by the core's filters.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "plugins/plugins.h"
#include "core/listeners.h"
#include "panda/plugins/mem_hooks.h"

/* The longest access is one of the largest buffer there is. */
#define LONGEST sizeof(panda_vcpu.mem_buf)

typedef struct Region {
    struct rcu_head rcu;
    memory_hooks_region pub;
} Region;

/* memory_hooks_region -> Region; each owns its callbacks. */
static GHashTable *regions;
static bool disabled;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void accessed(Region *r, PandaCPU *cpu, memory_access_desc access)
{
    const memory_hooks_region *pub = &r->pub;

    if (!pub->enabled || qatomic_read(&disabled)
        || access.addr > pub->stop_address
        || access.addr + (access.size - 1) < pub->start_address) {
        return;
    }
    access.hook = &r->pub;
    pub->cb(cpu, &access);
}

#define BEFORE_READ(name, space)                                              \
static void name(void *context, PandaCPU *cpu, target_ptr_t pc,               \
                 target_ptr_t addr, size_t size)                              \
{                                                                             \
    accessed(context, cpu, (memory_access_desc) {                             \
        .pc = pc, .addr = addr, .size = size, .on_before = true,              \
        .on_read = true, .space = true,                                       \
    });                                                                       \
}

#define OTHER(name, space, when, what)                                        \
static void name(void *context, PandaCPU *cpu, target_ptr_t pc,               \
                 target_ptr_t addr, size_t size, uint8_t *buf)                \
{                                                                             \
    accessed(context, cpu, (memory_access_desc) {                             \
        .pc = pc, .addr = addr, .size = size, .buf = buf, .when = true,       \
        .what = true, .space = true,                                          \
    });                                                                       \
}

BEFORE_READ(virt_before_read, on_virtual)
BEFORE_READ(phys_before_read, on_physical)
OTHER(virt_after_read, on_virtual, on_after, on_read)
OTHER(phys_after_read, on_physical, on_after, on_read)
OTHER(virt_before_write, on_virtual, on_before, on_write)
OTHER(phys_before_write, on_physical, on_before, on_write)
OTHER(virt_after_write, on_virtual, on_after, on_write)
OTHER(phys_after_write, on_physical, on_after, on_write)

static int watch(Region *r)
{
    const memory_hooks_region *p = &r->pub;
    PandaRange range = {
        p->start_address < LONGEST ? 0 : p->start_address - LONGEST + 1,
        p->stop_address,
    };
    PandaFilter filter = { .addr = &range, .n_addr = 1 };
    const struct {
        bool wanted;
        panda_cb_type type;
        panda_cb_with_context cb;
    } kinds[] = {
        { p->on_virtual && p->on_before && p->on_read,
          PANDA_CB_VIRT_MEM_BEFORE_READ,
          { .virt_mem_before_read = virt_before_read } },
        { p->on_virtual && p->on_after && p->on_read,
          PANDA_CB_VIRT_MEM_AFTER_READ,
          { .virt_mem_after_read = virt_after_read } },
        { p->on_virtual && p->on_before && p->on_write,
          PANDA_CB_VIRT_MEM_BEFORE_WRITE,
          { .virt_mem_before_write = virt_before_write } },
        { p->on_virtual && p->on_after && p->on_write,
          PANDA_CB_VIRT_MEM_AFTER_WRITE,
          { .virt_mem_after_write = virt_after_write } },
        { p->on_physical && p->on_before && p->on_read,
          PANDA_CB_PHYS_MEM_BEFORE_READ,
          { .phys_mem_before_read = phys_before_read } },
        { p->on_physical && p->on_after && p->on_read,
          PANDA_CB_PHYS_MEM_AFTER_READ,
          { .phys_mem_after_read = phys_after_read } },
        { p->on_physical && p->on_before && p->on_write,
          PANDA_CB_PHYS_MEM_BEFORE_WRITE,
          { .phys_mem_before_write = phys_before_write } },
        { p->on_physical && p->on_after && p->on_write,
          PANDA_CB_PHYS_MEM_AFTER_WRITE,
          { .phys_mem_after_write = phys_after_write } },
    };
    int status = panda_set_filter(r, &filter);
    bool any = false;

    for (unsigned i = 0; i < ARRAY_SIZE(kinds) && status == PANDA_OK; i++) {
        if (kinds[i].wanted) {
            any = true;
            status = panda_register_callback_with_context(
                r, kinds[i].type, kinds[i].cb, r);
        }
    }
    if (status == PANDA_OK && !any) {
        status = panda_fail(PANDA_ERR_ARGUMENT, "a memory hook needs before "
                            "or after, reads or writes, virtual or physical "
                            "addresses");
    }
    if (status != PANDA_OK) {
        panda_unregister_callbacks(r);
    }
    return status;
}

memory_hooks_region *panda_mem_hooks_add_mem_hook(
    const memory_hooks_region *region)
{
    Region *r;

    if (!region->cb || region->start_address > region->stop_address) {
        panda_fail(PANDA_ERR_ARGUMENT, region->cb
                   ? "a memory hook ends before it begins"
                   : "a memory hook needs a function");
        return NULL;
    }
    r = g_new0(Region, 1);
    r->pub = *region;
    if (watch(r) != PANDA_OK) {
        g_free(r);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    regions = regions ?: g_hash_table_new(NULL, NULL);
    g_hash_table_insert(regions, &r->pub, r);
    pthread_mutex_unlock(&lock);
    return &r->pub;
}

static void free_region(Region *r)
{
    g_free(r);
}

static void drop(Region *r)
{
    r->pub.enabled = false;
    panda_unregister_callbacks(r);
    PANDA_FREE_LATER(r, free_region);
}

int panda_mem_hooks_remove_mem_hook(memory_hooks_region *region)
{
    Region *r;

    pthread_mutex_lock(&lock);
    r = regions ? g_hash_table_lookup(regions, region) : NULL;
    if (r) {
        g_hash_table_remove(regions, region);
    }
    pthread_mutex_unlock(&lock);
    if (!r) {
        return panda_fail(PANDA_ERR_ARGUMENT, "there is no such memory hook");
    }
    drop(r);
    return PANDA_OK;
}

void panda_mem_hooks_enable_mem_hooking(void)
{
    qatomic_set(&disabled, false);
}

void panda_mem_hooks_disable_mem_hooking(void)
{
    qatomic_set(&disabled, true);
}

static void uninit(PandaPlugin *self)
{
    GHashTable *all;
    GHashTableIter iter;
    void *value;

    pthread_mutex_lock(&lock);
    all = regions;
    regions = NULL;
    pthread_mutex_unlock(&lock);
    if (all) {
        g_hash_table_iter_init(&iter, all);
        while (g_hash_table_iter_next(&iter, NULL, &value)) {
            drop(value);
        }
        g_hash_table_destroy(all);
    }
    disabled = false;
}

PANDA_PLUGIN(mem_hooks, "functions called when addresses in a range are "
             "accessed", NULL, uninit);
