/*
 * Which device is at work: it is named beside what it writes to RAM.
 *
 * A device works when the CPU accesses it, when it gets a packet, when one of
 * its queues (virtio) is served, when a transfer of a disk is begun for it, or
 * when something goes through an address space that is its own (PCI). What it
 * has mapped is its own until it is unmapped (maps.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/source.h"
#include "record/regions.h"
#include "hw/virtio/virtio.h"
#include "exec/address-spaces.h"
#include "qom/object.h"

static __thread Object *source;
/* The number that was named last in this chunk. */
static unsigned named;

Object *panda_source_enter(Object *device)
{
    Object *outer = source;

    source = device ?: outer;
    return outer;
}

void panda_source_leave(Object *outer)
{
    source = outer;
}

Object *panda_source(void)
{
    return source;
}

void panda_source_chunk(void)
{
    named = 0;
}

void panda_source_log(MemoryRegion *mr)
{
    /* What writes to a display's memory or a flash chip is most likely it. */
    Object *device = source ?: memory_region_owner(mr);
    unsigned number = device ? panda_device_number(device) : 0;

    if (number != named) {
        named = number;
        panda_log_entry(PANDA_ENTRY_SOURCE);
        panda_log_number(number);
    }
}

/* ---- address spaces ---- */

MemTxResult __real_address_space_write(AddressSpace *as, hwaddr addr,
                                       MemTxAttrs attrs, const void *buf,
                                       hwaddr len);
MemTxResult __wrap_address_space_write(AddressSpace *as, hwaddr addr,
                                       MemTxAttrs attrs, const void *buf,
                                       hwaddr len);
MemTxResult __wrap_address_space_write(AddressSpace *as, hwaddr addr,
                                       MemTxAttrs attrs, const void *buf,
                                       hwaddr len)
{
    MemTxResult result;
    Object *outer;

    if (!panda_rr_recording() || as == &address_space_memory) {
        return __real_address_space_write(as, addr, attrs, buf, len);
    }
    outer = panda_source_enter(memory_region_owner(as->root));
    result = __real_address_space_write(as, addr, attrs, buf, len);
    panda_source_leave(outer);
    return result;
}

/* ---- queues of virtio devices ---- */

/* VirtQueue -> VirtIODevice. */
static GHashTable *queues;

VirtQueue *__real_virtio_add_queue(VirtIODevice *vdev, int size,
                                   VirtIOHandleOutput handle);
VirtQueue *__wrap_virtio_add_queue(VirtIODevice *vdev, int size,
                                   VirtIOHandleOutput handle);
VirtQueue *__wrap_virtio_add_queue(VirtIODevice *vdev, int size,
                                   VirtIOHandleOutput handle)
{
    VirtQueue *queue = __real_virtio_add_queue(vdev, size, handle);

    if (!queues) {
        queues = g_hash_table_new(NULL, NULL);
    }
    g_hash_table_insert(queues, queue, vdev);
    return queue;
}

static Object *serve(VirtQueue *queue)
{
    return panda_source_enter(
        panda_rr_recording() ? g_hash_table_lookup(queues, queue) : NULL);
}

#define QUEUE(name, params, args)                                             \
    void __real_##name params;                                                \
    void __wrap_##name params;                                                \
    void __wrap_##name params                                                 \
    {                                                                         \
        Object *outer = serve(vq);                                            \
                                                                              \
        __real_##name args;                                                   \
        panda_source_leave(outer);                                            \
    }

QUEUE(virtqueue_fill, (VirtQueue *vq, const VirtQueueElement *elem,
                       unsigned len, unsigned idx), (vq, elem, len, idx))
QUEUE(virtqueue_push, (VirtQueue *vq, const VirtQueueElement *elem,
                       unsigned len), (vq, elem, len))
QUEUE(virtqueue_flush, (VirtQueue *vq, unsigned count), (vq, count))
QUEUE(virtio_queue_set_notification, (VirtQueue *vq, int enable), (vq, enable))

void *__real_virtqueue_pop(VirtQueue *vq, size_t size);
void *__wrap_virtqueue_pop(VirtQueue *vq, size_t size);
void *__wrap_virtqueue_pop(VirtQueue *vq, size_t size)
{
    Object *outer = serve(vq);
    void *element = __real_virtqueue_pop(vq, size);

    panda_source_leave(outer);
    return element;
}
