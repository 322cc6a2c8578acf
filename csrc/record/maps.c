/*
 * Parts of RAM that devices have mapped to write to: worker threads may be
 * writing them at any moment.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "record/source.h"
#include "qemu/main-loop.h"
#include "exec/address-spaces.h"
#include "qom/object.h"

static unsigned active;

/* Who has mapped what: its address -> the device. Under the big lock. */
static GHashTable *mapped;

static void note(void *host, Object *device)
{
    if (!mapped) {
        mapped = g_hash_table_new_full(NULL, NULL, NULL, object_unref);
    }
    g_hash_table_insert(mapped, host, object_ref(device));
}

bool panda_maps_active(void)
{
    return qatomic_read(&active);
}

void *__real_address_space_map(AddressSpace *as, hwaddr addr, hwaddr *plen,
                               bool is_write, MemTxAttrs attrs);
void *__wrap_address_space_map(AddressSpace *as, hwaddr addr, hwaddr *plen,
                               bool is_write, MemTxAttrs attrs);
void *__wrap_address_space_map(AddressSpace *as, hwaddr addr, hwaddr *plen,
                               bool is_write, MemTxAttrs attrs)
{
    void *host = __real_address_space_map(as, addr, plen, is_write, attrs);

    if (host && is_write) {
        Object *device = as == &address_space_memory ? NULL
            : memory_region_owner(as->root);

        qatomic_inc(&active);
        device = device ?: panda_source();
        if (device && panda_rr_recording() && bql_locked()) {
            note(host, device);
        }
    }
    return host;
}

void __real_address_space_unmap(AddressSpace *as, void *buffer, hwaddr len,
                                bool is_write, hwaddr access_len);
void __wrap_address_space_unmap(AddressSpace *as, void *buffer, hwaddr len,
                                bool is_write, hwaddr access_len);
void __wrap_address_space_unmap(AddressSpace *as, void *buffer, hwaddr len,
                                bool is_write, hwaddr access_len)
{
    bool known = is_write && mapped && bql_locked();
    Object *device = known ? g_hash_table_lookup(mapped, buffer) : NULL;
    Object *outer = panda_source_enter(device);

    __real_address_space_unmap(as, buffer, len, is_write, access_len);
    panda_source_leave(outer);
    if (is_write) {
        qatomic_dec(&active);
    }
    if (device) {
        g_hash_table_remove(mapped, buffer);
    }
}
