/*
 * Parts of RAM that devices have mapped to write to: worker threads may be
 * writing them at any moment.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"

static unsigned active;

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
        qatomic_inc(&active);
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
    __real_address_space_unmap(as, buffer, len, is_write, access_len);
    if (is_write) {
        qatomic_dec(&active);
    }
}
