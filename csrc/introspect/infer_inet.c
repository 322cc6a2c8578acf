/*
 * Addresses and ports of sockets without type information.
 *
 * struct sock begins with the addresses, a hash, the ports and the family, in
 * this order since they were put together for speed; struct inet_sock has what
 * was bound to once more.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer_sockets.h"

#define INET_FROM 128
#define INET_REACH 2048
#define BETWEEN 32
#define PINET6_REACH 4096
#define NP_REACH 64
#define NONE (-1)

/* From the family back: ports, hash, addresses. */
typedef struct Places {
    int daddr, saddr, dport, num;
} Places;

static Places places(int family)
{
    return (Places) { family - 16, family - 12, family - 4, family - 2 };
}

static bool is_inet(const OsSockets *s, unsigned i)
{
    return s->family[i] == OS_AF_INET || s->family[i] == OS_AF_INET6;
}

static uint32_t u32(uint64_t base, int at)
{
    uint32_t value;

    return os_read_u32(base + at, &value) ? value : 0;
}

static uint16_t u16(uint64_t base, int at)
{
    uint16_t value;

    return os_read_u16(base + at, &value) ? value : 0;
}

/* In the byte order of networks. */
static uint16_t be16(uint64_t base, int at)
{
    uint8_t two[2] = {};

    return os_read(base + at, two, sizeof(two)) ? lduw_be_p(two) : 0;
}

/*
 * inet_sport, and in front of it inet_saddr: the same once more. The addresses
 * of IPv4 in a socket of IPv6 may differ. How many there are that say so.
 */
static unsigned count_copies(const OsSockets *s, const Places *p, int saddr,
                             int sport, unsigned *v4)
{
    unsigned good = 0;

    *v4 = 0;
    for (unsigned i = 0; i < s->n; i++) {
        uint16_t num = is_inet(s, i) ? u16(s->sock[i], p->num) : 0;

        if (!num) {
            continue;
        }
        if (be16(s->sock[i], sport) != num) {
            return 0;
        }
        if (s->family[i] == OS_AF_INET) {
            if (u32(s->sock[i], saddr) != u32(s->sock[i], p->saddr)) {
                return 0;
            }
            ++*v4;
        }
        good++;
    }
    return good;
}

/*
 * Where inet_sport is, which what is local is confirmed by; NONE. Between it
 * and inet_saddr are other things in other versions.
 */
static int find_copy(const OsSockets *s, const Places *p, unsigned *v4)
{
    for (int sport = INET_FROM; sport < INET_REACH; sport += 2) {
        for (int saddr = (sport - 6) & ~3; saddr >= sport - BETWEEN;
             saddr -= 4) {
            if (count_copies(s, p, saddr, sport, v4)) {
                return sport;
            }
        }
    }
    return NONE;
}

/* What is at the other end: nothing if it listens, something if connected. */
static bool is_remote(const OsSockets *s, const Places *p)
{
    unsigned good = 0;

    for (unsigned i = 0; i < s->n; i++) {
        uint8_t state = 0;
        bool port, address;

        if (!is_inet(s, i)
            || !(g_str_has_prefix(s->proto[i], "TCP")
                 || g_str_has_prefix(s->proto[i], "UDP"))
            || !os_read(s->sock[i] + p->num + 4, &state, 1)) {
            continue;
        }
        port = be16(s->sock[i], p->dport);
        address = u32(s->sock[i], p->daddr);
        if (state == OS_TCP_LISTEN ? port || address
            : state == OS_TCP_ESTABLISHED
            && (!port || (!address && s->family[i] == OS_AF_INET))) {
            return false;
        }
        good += state == OS_TCP_LISTEN || state == OS_TCP_ESTABLISHED;
    }
    return good;
}

/* ---- IPv6 ---- */

/* ipv6_pinfo, behind the sock it belongs to, has the local address once more. */
static bool is_pinfo(const OsSockets *s, int pinet6, int at, int saddr)
{
    unsigned good = 0;

    for (unsigned i = 0; i < s->n; i++) {
        uint8_t one[16], other[16];
        uint64_t np;

        if (s->family[i] != OS_AF_INET6) {
            continue;
        }
        if (!os_read_word(s->sock[i] + pinet6, &np) || np <= s->sock[i]
            || np - s->sock[i] >= PINET6_REACH
            || !os_read(np + at, one, 16)
            || !os_read(s->sock[i] + saddr, other, 16)
            || memcmp(one, other, 16)) {
            return false;
        }
        good++;
    }
    return good;
}

/* Addresses of IPv4 in one of IPv6 are those that are there as such too. */
static bool is_mapped(const OsSockets *s, int v6, int v4)
{
    static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

    for (unsigned i = 0; i < s->n; i++) {
        uint8_t wide[16], narrow[4];

        if (s->family[i] == OS_AF_INET6
            && (!os_read(s->sock[i] + v6, wide, 16)
                || !os_read(s->sock[i] + v4, narrow, 4)
                || (!memcmp(wide, prefix, 12)
                    && memcmp(wide + 12, narrow, 4)))) {
            return false;
        }
    }
    return true;
}

/* All sockets that are in the same network have it: a pointer. */
static bool is_net(const OsSockets *s, int at)
{
    for (unsigned i = 0; i < s->n; i++) {
        uint64_t net;

        if (!os_read_word(s->sock[i] + at, &net) || !os_is_pointer(net)) {
            return false;
        }
    }
    return true;
}

static void find_v6(const OsSockets *s, const Places *p, int net,
                    int sport)
{
    int daddr = is_net(s, net) ? net + WORD : net, saddr = daddr + 16;

    if (!is_mapped(s, daddr, p->daddr) || !is_mapped(s, saddr, p->saddr)) {
        return;
    }
    /* pinet6 is in front of inet_saddr. */
    for (int pinet6 = ROUND_DOWN(sport, WORD) - WORD;
         pinet6 >= sport - BETWEEN - 2 * WORD; pinet6 -= WORD) {
        for (int at = 0; at < NP_REACH; at += 4) {
            if (is_pinfo(s, pinet6, at, saddr)) {
                os_layout_set(OS_SOCK_V6_RCV_SADDR, saddr, OS_INFERRED,
                              "behind the protocol and the network; equal to "
                              "that of IPv6's own part");
                os_layout_set(OS_SOCK_V6_DADDR, daddr, OS_INFERRED,
                              "in front of the local one; of connections over "
                              "IPv4, the address of IPv4");
                return;
            }
        }
    }
}

void os_infer_inet(const OsSockets *s, int family, int net)
{
    Places p = places(family);
    unsigned v4;
    int sport = p.daddr >= 0 ? find_copy(s, &p, &v4) : NONE;

    if (sport == NONE) {
        return;
    }
    if (v4) {
        os_layout_set(OS_SOCK_RCV_SADDR, p.saddr, OS_INFERRED,
                      "in front of the family; equal to inet_saddr");
    }
    os_layout_set(OS_SOCK_NUM, p.num, OS_INFERRED,
                  "in front of the family; equal to inet_sport");
    if (is_remote(s, &p)) {
        static const char why[] = "in front of what is local; set if "
            "connected, not if it listens";

        os_layout_set(OS_SOCK_DADDR, p.daddr, OS_INFERRED, why);
        os_layout_set(OS_SOCK_DPORT, p.dport, OS_INFERRED, why);
    }
    find_v6(s, &p, net, sport);
}
