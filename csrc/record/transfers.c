/*
 * Transfers of disks and serial ports: entries for who reads the recording,
 * which a replay only tells its callbacks of. Those of networks: packets.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "record/live.h"
#include "record/log.h"
#include "record/packets.h"
#include "record/player.h"
#include "record/source.h"
#include "record/transfers.h"
#include "chardev/char.h"
#include "chardev/char-fe.h"
#include "exec/memory.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qom/object.h"
#include "system/block-backend.h"
#include "system/dma.h"

/* PANDA's numbers of the kinds of disk transfers. */
enum {
    HD_TO_RAM = 4,
    RAM_TO_HD = 5,
};

static bool logs(void)
{
    return panda_rr_recording() && !panda_rr_inside();
}

static void log_text(const char *text)
{
    panda_log_string(text ?: "", strlen(text ?: ""));
}

/* ---- disks ---- */

/* Where in RAM the transfer that is being started begins. */
static uint64_t ram_address;

BlockAIOCB *__real_dma_blk_io(QEMUSGList *sg, uint64_t offset, uint32_t align,
                              DMAIOFunc *io_func, void *io_func_opaque,
                              BlockCompletionFunc *cb, void *opaque,
                              DMADirection dir);
BlockAIOCB *__wrap_dma_blk_io(QEMUSGList *sg, uint64_t offset, uint32_t align,
                              DMAIOFunc *io_func, void *io_func_opaque,
                              BlockCompletionFunc *cb, void *opaque,
                              DMADirection dir);
BlockAIOCB *__wrap_dma_blk_io(QEMUSGList *sg, uint64_t offset, uint32_t align,
                              DMAIOFunc *io_func, void *io_func_opaque,
                              BlockCompletionFunc *cb, void *opaque,
                              DMADirection dir)
{
    BlockAIOCB *result;
    Object *outer = panda_source_enter(sg->dev ? OBJECT(sg->dev) : NULL);

    ram_address = sg->nsg ? sg->sg[0].base : 0;
    result = __real_dma_blk_io(sg, offset, align, io_func, io_func_opaque, cb,
                               opaque, dir);
    ram_address = 0;
    panda_source_leave(outer);
    return result;
}

/* qiov: what is written; NULL if it is read, or zeros are written. */
static void log_disk(BlockBackend *blk, unsigned type, uint64_t offset,
                     uint64_t size, QEMUIOVector *qiov)
{
    g_autofree char *device = NULL;
    const char *name;

    if (logs()) {
        device = blk_get_attached_dev_id(blk);
        name = device && *device ? device : blk_name(blk);
        panda_log_entry(PANDA_ENTRY_DISK);
        panda_log_number(type);
        log_text(name);
        panda_log_number(offset);
        panda_log_number(ram_address);
        panda_log_number(size);
        if (type == RAM_TO_HD) {
            panda_live_disk(name ?: "", offset, size, qiov);
        }
    }
}

BlockAIOCB *__real_blk_aio_preadv(BlockBackend *blk, int64_t offset,
                                  QEMUIOVector *qiov, BdrvRequestFlags flags,
                                  BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *__wrap_blk_aio_preadv(BlockBackend *blk, int64_t offset,
                                  QEMUIOVector *qiov, BdrvRequestFlags flags,
                                  BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *__wrap_blk_aio_preadv(BlockBackend *blk, int64_t offset,
                                  QEMUIOVector *qiov, BdrvRequestFlags flags,
                                  BlockCompletionFunc *cb, void *opaque)
{
    log_disk(blk, HD_TO_RAM, offset, qiov->size, NULL);
    panda_live_request(&cb, &opaque);
    return __real_blk_aio_preadv(blk, offset, qiov, flags, cb, opaque);
}

BlockAIOCB *__real_blk_aio_pwritev(BlockBackend *blk, int64_t offset,
                                   QEMUIOVector *qiov, BdrvRequestFlags flags,
                                   BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *__wrap_blk_aio_pwritev(BlockBackend *blk, int64_t offset,
                                   QEMUIOVector *qiov, BdrvRequestFlags flags,
                                   BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *__wrap_blk_aio_pwritev(BlockBackend *blk, int64_t offset,
                                   QEMUIOVector *qiov, BdrvRequestFlags flags,
                                   BlockCompletionFunc *cb, void *opaque)
{
    log_disk(blk, RAM_TO_HD, offset, qiov->size, qiov);
    panda_live_request(&cb, &opaque);
    return __real_blk_aio_pwritev(blk, offset, qiov, flags, cb, opaque);
}

BlockAIOCB *__real_blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset,
                                         int64_t bytes, BdrvRequestFlags flags,
                                         BlockCompletionFunc *cb,
                                         void *opaque);
BlockAIOCB *__wrap_blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset,
                                         int64_t bytes, BdrvRequestFlags flags,
                                         BlockCompletionFunc *cb,
                                         void *opaque);
BlockAIOCB *__wrap_blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset,
                                         int64_t bytes, BdrvRequestFlags flags,
                                         BlockCompletionFunc *cb,
                                         void *opaque)
{
    log_disk(blk, RAM_TO_HD, offset, bytes, NULL);
    panda_live_request(&cb, &opaque);
    return __real_blk_aio_pwrite_zeroes(blk, offset, bytes, flags, cb, opaque);
}

/* SD cards and flash chips do not wait for their images. */
int __real_blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes,
                     void *buf, BdrvRequestFlags flags);
int __wrap_blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes,
                     void *buf, BdrvRequestFlags flags);
int __wrap_blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes,
                     void *buf, BdrvRequestFlags flags)
{
    log_disk(blk, HD_TO_RAM, offset, bytes, NULL);
    return __real_blk_pread(blk, offset, bytes, buf, flags);
}

int __real_blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes,
                      const void *buf, BdrvRequestFlags flags);
int __wrap_blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes,
                      const void *buf, BdrvRequestFlags flags);
int __wrap_blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes,
                      const void *buf, BdrvRequestFlags flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, (void *)buf, bytes);
    log_disk(blk, RAM_TO_HD, offset, bytes, &qiov);
    return __real_blk_pwrite(blk, offset, bytes, buf, flags);
}

/* ---- serial ports ---- */

static bool is_serial(Chardev *chardev)
{
    return chardev && chardev->label && strstr(chardev->label, "serial");
}

static void log_serial(bool sent, Chardev *chardev, const uint8_t *bytes,
                       size_t n)
{
    if (logs() && is_serial(chardev)) {
        panda_log_entry(PANDA_ENTRY_SERIAL);
        panda_log_number(sent);
        log_text(chardev->label);
        panda_log_string(bytes, n);
    }
}

int __real_qemu_chr_fe_write(CharBackend *be, const uint8_t *buf, int len);
int __wrap_qemu_chr_fe_write(CharBackend *be, const uint8_t *buf, int len);
int __wrap_qemu_chr_fe_write(CharBackend *be, const uint8_t *buf, int len)
{
    log_serial(true, be->chr, buf, len);
    return __real_qemu_chr_fe_write(be, buf, len);
}

void __real_qemu_chr_be_write(Chardev *chardev, const uint8_t *buf, int len);
void __wrap_qemu_chr_be_write(Chardev *chardev, const uint8_t *buf, int len);
void __wrap_qemu_chr_be_write(Chardev *chardev, const uint8_t *buf, int len)
{
    log_serial(false, chardev, buf, len);
    __real_qemu_chr_be_write(chardev, buf, len);
}

/* ---- in a replay ---- */

/* Callbacks are called without the big lock, which the CPU may hold. */
bool panda_transfer_enter(void)
{
    CPUState *cs = panda_vcpu.cs;
    bool locked = bql_locked();

    if (locked) {
        bql_unlock();
    }
    panda_event_enter(cs, PANDA_PLACE_OUTSIDE, panda_arch_get_pc(cs), 0);
    return locked;
}

void panda_transfer_leave(bool locked)
{
    panda_event_leave(panda_vcpu.cs);
    if (locked) {
        bql_lock();
    }
}

static void replay_disk(PandaLogCursor *c)
{
    unsigned type = panda_log_get(c);
    uint64_t offset, address, size;
    PandaCallback *callback;
    size_t n;

    panda_log_get_string(c, &n);
    offset = panda_log_get(c);
    address = panda_log_get(c);
    size = panda_log_get(c);
    if (!c->bad && panda_wanted(PANDA_CB_REPLAY_HD_TRANSFER)) {
        bool locked = panda_transfer_enter();

        PANDA_FOR_EACH(callback, PANDA_CB_REPLAY_HD_TRANSFER) {
            PANDA_CALL(callback, replay_hd_transfer, &panda_vcpu.pub, type,
                       type == HD_TO_RAM ? offset : address,
                       type == HD_TO_RAM ? address : offset, size);
        }
        panda_transfer_leave(locked);
    }
}

static void replay_serial(PandaLogCursor *c)
{
    unsigned sent = panda_log_get(c);
    panda_cb_type kind = sent ? PANDA_CB_REPLAY_SERIAL_SEND
                              : PANDA_CB_REPLAY_SERIAL_RECEIVE;
    PandaCallback *callback;
    const uint8_t *bytes;
    bool locked;
    size_t n;

    panda_log_get_string(c, &n);
    bytes = panda_log_get_string(c, &n);
    if (!bytes || !panda_wanted(kind)) {
        return;
    }
    locked = panda_transfer_enter();
    for (size_t i = 0; i < n; i++) {
        PANDA_FOR_EACH(callback, kind) {
            if (sent) {
                PANDA_CALL(callback, replay_serial_send, &panda_vcpu.pub, 0,
                           bytes[i]);
            } else {
                PANDA_CALL(callback, replay_serial_receive, &panda_vcpu.pub,
                           0, bytes[i]);
            }
        }
    }
    panda_transfer_leave(locked);
}

bool panda_transfer_replay(PandaEntryKind kind, PandaLogCursor *c)
{
    switch (kind) {
    case PANDA_ENTRY_DISK:
        replay_disk(c);
        return true;
    case PANDA_ENTRY_PACKET:
        panda_packet_replay(c);
        return true;
    case PANDA_ENTRY_SERIAL:
        replay_serial(c);
        return true;
    default:
        return panda_live_apply(kind, c);
    }
}

void panda_transfer_register(MemoryRegion *mr, hwaddr offset, uint64_t value,
                             bool is_write)
{
    panda_cb_type kind = is_write ? PANDA_CB_REPLAY_SERIAL_WRITE
                                  : PANDA_CB_REPLAY_SERIAL_READ;
    PandaCallback *callback;
    bool locked;

    /* The data register of a 16550. */
    if (!panda_wanted(kind) || offset
        || g_strcmp0(memory_region_name(mr), "serial")) {
        return;
    }
    locked = panda_transfer_enter();
    PANDA_FOR_EACH(callback, kind) {
        if (is_write) {
            PANDA_CALL(callback, replay_serial_write, &panda_vcpu.pub, 0,
                       mr->addr, value);
        } else {
            PANDA_CALL(callback, replay_serial_read, &panda_vcpu.pub, 0,
                       mr->addr, value);
        }
    }
    panda_transfer_leave(locked);
}

/* ---- memory that devices write ---- */

typedef struct Search {
    MemoryRegion *mr;
    uint64_t offset, found;
} Search;

static bool look_at(Int128 start, Int128 size, const MemoryRegion *mr,
                    hwaddr offset_in_region, void *opaque)
{
    Search *s = opaque;

    if (mr == s->mr && s->offset >= offset_in_region
        && s->offset - offset_in_region < int128_get64(size)) {
        s->found = int128_get64(start) + s->offset - offset_in_region;
        return true;
    }
    return false;
}

void panda_player_memory(unsigned block, uint64_t offset, const uint8_t *bytes,
                         size_t n, bool done)
{
    panda_cb_type kind = done ? PANDA_CB_REPLAY_AFTER_DMA
                              : PANDA_CB_REPLAY_BEFORE_DMA;
    PandaCallback *callback;
    unsigned blocks;
    Search s = { .offset = offset, .found = UINT64_MAX };
    bool locked;

    if (!panda_wanted(kind)) {
        return;
    }
    s.mr = panda_player_rams(&blocks)[block].mr;
    WITH_RCU_READ_LOCK_GUARD() {
        flatview_for_each_range(address_space_to_flatview(
                                    &address_space_memory), look_at, &s);
    }
    locked = panda_transfer_enter();
    PANDA_FOR_EACH(callback, kind) {
        if (done) {
            PANDA_CALL(callback, replay_after_dma, &panda_vcpu.pub, bytes,
                       s.found, n, true);
        } else {
            PANDA_CALL(callback, replay_before_dma, &panda_vcpu.pub, bytes,
                       s.found, n, true);
        }
    }
    panda_transfer_leave(locked);
}
