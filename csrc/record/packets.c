/*
 * Packets to and from network cards: entries for who reads the recording, which
 * a replay only tells its callbacks of.
 *
 * A card writes a packet that it receives to RAM. Most of a download is that,
 * so an entry of such a write refers to the packet and does not have its bytes
 * once more.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/packets.h"
#include "record/player.h"
#include "record/source.h"
#include "record/transfers.h"
#include "net/net.h"
#include "net/queue.h"
#include "hw/qdev-core.h"
#include "qemu/iov.h"

/* Writes that are shorter are not looked at. */
#define SHARED_MIN  64
/* Of so many bytes, the next of the packet are looked for. */
#define PROBE       32
/* What a card may put before it: headers of virtio. */
#define BEFORE_MAX  32

typedef struct Packet {
    /* A recording: where its bytes are; NULL: there is none to refer to. */
    const PandaBytes *log;
    size_t at;
    /* A replay. */
    const uint8_t *bytes;
    size_t size;
    /* So much of it was written to RAM. */
    size_t used;
} Packet;

/* The last one since the slice, or the pause after it, began. */
static Packet last;

void panda_packet_forget(void)
{
    last = (Packet) {};
}

bool panda_packet_shares(const uint8_t *bytes, size_t n, size_t *before,
                         size_t *place)
{
    const uint8_t *next, *found;
    size_t left = last.size - last.used;

    if (last.log != panda_log || n < SHARED_MIN || left < PROBE) {
        return false;
    }
    next = last.log->data + last.at + last.used;
    found = memmem(bytes, MIN(n, PROBE + BEFORE_MAX), next, PROBE);
    if (!found) {
        return false;
    }
    n -= found - bytes;
    if (n > left || memcmp(found, next, n)) {
        return false;
    }
    *before = found - bytes;
    *place = last.used;
    last.used += n;
    return true;
}

const uint8_t *panda_packet_part(uint64_t at, uint64_t n)
{
    return last.bytes && at <= last.size && n <= last.size - at
        ? last.bytes + at : NULL;
}

/* ---- in a recording ---- */

static bool logs(void)
{
    return panda_rr_recording() && !panda_rr_inside();
}

/* The device of a network card; NULL for what is none. */
static Object *device_of(NetClientState *card)
{
    NICState *nic = card && card->info->type == NET_CLIENT_DRIVER_NIC
        ? qemu_get_nic(card) : NULL;

    return nic && nic->reentrancy_guard
        ? OBJECT(container_of(nic->reentrancy_guard, DeviceState,
                              mem_reentrancy_guard)) : NULL;
}

static void log_packet(NetClientState *sender, const struct iovec *iov,
                       int count)
{
    bool sent = sender->info->type == NET_CLIENT_DRIVER_NIC;
    NetClientState *card = sent ? sender : sender->peer;
    size_t size = iov_size(iov, count);

    if (!logs() || !card || card->info->type != NET_CLIENT_DRIVER_NIC) {
        return;
    }
    panda_log_entry(PANDA_ENTRY_PACKET);
    panda_log_number(sent);
    panda_log_string(card->name, strlen(card->name));
    panda_log_number(size);
    last = (Packet) { .log = panda_log, .at = panda_log->n, .size = size };
    for (int i = 0; i < count; i++) {
        panda_log_bytes(iov[i].iov_base, iov[i].iov_len);
    }
}

ssize_t __real_qemu_net_queue_send(NetQueue *queue, NetClientState *sender,
                                   unsigned flags, const uint8_t *data,
                                   size_t size, NetPacketSent *sent_cb);
ssize_t __wrap_qemu_net_queue_send(NetQueue *queue, NetClientState *sender,
                                   unsigned flags, const uint8_t *data,
                                   size_t size, NetPacketSent *sent_cb);
ssize_t __wrap_qemu_net_queue_send(NetQueue *queue, NetClientState *sender,
                                   unsigned flags, const uint8_t *data,
                                   size_t size, NetPacketSent *sent_cb)
{
    struct iovec iov = { (void *)data, size };
    ssize_t result;
    Object *outer;

    if (panda_player_frozen()) {
        /* In a replay packets go nowhere. */
        return size;
    }
    log_packet(sender, &iov, 1);
    outer = panda_source_enter(device_of(sender->peer));
    result = __real_qemu_net_queue_send(queue, sender, flags, data, size,
                                        sent_cb);
    panda_source_leave(outer);
    return result;
}

ssize_t __real_qemu_net_queue_send_iov(NetQueue *queue, NetClientState *sender,
                                       unsigned flags, const struct iovec *iov,
                                       int count, NetPacketSent *sent_cb);
ssize_t __wrap_qemu_net_queue_send_iov(NetQueue *queue, NetClientState *sender,
                                       unsigned flags, const struct iovec *iov,
                                       int count, NetPacketSent *sent_cb);
ssize_t __wrap_qemu_net_queue_send_iov(NetQueue *queue, NetClientState *sender,
                                       unsigned flags, const struct iovec *iov,
                                       int count, NetPacketSent *sent_cb)
{
    ssize_t result;
    Object *outer;

    if (panda_player_frozen()) {
        return iov_size(iov, count);
    }
    log_packet(sender, iov, count);
    outer = panda_source_enter(device_of(sender->peer));
    result = __real_qemu_net_queue_send_iov(queue, sender, flags, iov, count,
                                            sent_cb);
    panda_source_leave(outer);
    return result;
}

/* ---- in a replay ---- */

void panda_packet_replay(PandaLogCursor *c)
{
    unsigned sent = panda_log_get(c);
    PandaCallback *callback;
    const uint8_t *bytes;
    size_t n;

    panda_log_get_string(c, &n);
    bytes = panda_log_get_string(c, &n);
    last = (Packet) { .bytes = bytes, .size = bytes ? n : 0 };
    if (bytes && panda_wanted(PANDA_CB_REPLAY_HANDLE_PACKET)) {
        g_autofree uint8_t *copy = g_memdup2(bytes, n);
        bool locked = panda_transfer_enter();

        PANDA_FOR_EACH(callback, PANDA_CB_REPLAY_HANDLE_PACKET) {
            PANDA_CALL(callback, replay_handle_packet, &panda_vcpu.pub, copy,
                       n, sent, 0);
        }
        panda_transfer_leave(locked);
    }
}
