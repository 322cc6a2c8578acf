/*
 * Sockets without type information: a file's private data that leads back to
 * the file, its protocol's part, and what begins that.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer_sockets.h"

#define FILE_REACH 256
#define MAX_FDS 1024
#define SOCKET_REACH (8 * WORD)
#define SOCKET_ALLOC 2048
#define SOCK_REACH 1024
#define PROTO_REACH 1024
#define LARGEST_FAMILY 50
#define LARGEST_TYPE 10
#define LARGEST_STATE 13
#define SS_UNCONNECTED 1
/* Behind the state, which is a number of 4 bytes. */
#define TYPE 4
/* state, flags of it, bound_dev_if, a node of a list. */
#define FAMILY_TO_PROTO (8 + 2 * WORD)

/* ---- the sockets ---- */

static void add_files(uint64_t task, OsSockets *s)
{
    uint64_t table;
    uint32_t max;

    if (!os_file_table(task, &table, &max)) {
        return;
    }
    for (uint32_t fd = 0; fd < MIN(max, MAX_FDS); fd++) {
        uint64_t file = os_peek(table, fd * WORD) & -(uint64_t)WORD;
        bool seen = false;

        for (unsigned i = 0; i < s->n && !seen; i++) {
            seen = s->file[i] == file;
        }
        if (!seen && s->n < OS_MAX_SOCKETS && os_is_pointer(file)
            && os_is_socket(file)) {
            s->file[s->n++] = file;
        }
    }
}

static bool add_process(uint64_t task, void *opaque)
{
    OsSockets *s = opaque;

    add_files(task, s);
    return s->n < OS_MAX_SOCKETS;
}

/* ---- struct socket ---- */

/* The file's inode is made together with its socket, and is behind it. */
static bool is_with_inode(uint64_t file, uint64_t socket)
{
    uint64_t dentry, inode;

    return os_get_word(file, OS_FILE_DENTRY, &dentry)
        && os_get_word(dentry, OS_DENTRY_INODE, &inode)
        && inode > socket && inode - socket < SOCKET_ALLOC;
}

static bool is_private(const OsSockets *s, int private, int back)
{
    for (unsigned i = 0; i < s->n; i++) {
        uint64_t socket = os_peek(s->file[i], private);

        if (!os_is_pointer(socket) || os_peek(socket, back) != s->file[i]
            || !is_with_inode(s->file[i], socket)) {
            return false;
        }
    }
    return true;
}

static bool find_socket(OsSockets *s, int *back)
{
    for (int at = 0; at < FILE_REACH; at += WORD) {
        for (*back = WORD; *back < SOCKET_REACH; *back += WORD) {
            if (is_private(s, at, *back)) {
                os_layout_set(OS_FILE_PRIVATE, at, OS_INFERRED,
                              "of all files that are sockets, leads back to "
                              "the file; the inode is behind it");
                for (unsigned i = 0; i < s->n; i++) {
                    s->socket[i] = os_peek(s->file[i], at);
                }
                return true;
            }
        }
    }
    return false;
}

/* Behind the file: the protocol's part, which leads back too. */
static bool find_sock(OsSockets *s, int at)
{
    for (unsigned i = 0; i < s->n; i++) {
        s->sock[i] = os_peek(s->socket[i], at);
        if (!os_is_pointer(s->sock[i])) {
            return false;
        }
    }
    for (int back = 2 * WORD; back < SOCK_REACH; back += WORD) {
        unsigned good = 0;

        for (unsigned i = 0; i < s->n; i++) {
            good += os_peek(s->sock[i], back) == s->socket[i];
        }
        if (good == s->n) {
            os_layout_set(OS_SOCKET_SK, at, OS_INFERRED,
                          "behind the file; leads back to the socket");
            return true;
        }
    }
    return false;
}

/* The operations of a socket, behind its sock, begin with their family. */
static bool read_families(OsSockets *s, int ops)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (!os_read_u32(os_peek(s->socket[i], ops), &s->family[i])
            || !s->family[i] || s->family[i] > LARGEST_FAMILY) {
            return false;
        }
    }
    return true;
}

static bool read_types(OsSockets *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        uint32_t state;

        if (!os_read_u32(s->socket[i], &state) || state > 4
            || !os_read_u16(s->socket[i] + TYPE, &s->type[i])
            || !s->type[i] || s->type[i] > LARGEST_TYPE) {
            return false;
        }
    }
    return true;
}

/* ---- struct sock ---- */

/*
 * The name of a struct proto, of a family: the first that is there, as behind
 * it there may be another one.
 */
static bool is_proto(uint64_t proto, uint32_t family, char name[16])
{
    static const struct {
        const char *name;
        uint32_t family;
    } known[] = {
        { "TCP", OS_AF_INET }, { "UDP", OS_AF_INET }, { "RAW", OS_AF_INET },
        { "PING", OS_AF_INET }, { "UDP-Lite", OS_AF_INET },
        { "UDPLITE", OS_AF_INET }, { "MPTCP", OS_AF_INET },
        { "TCPv6", OS_AF_INET6 }, { "UDPv6", OS_AF_INET6 },
        { "RAWv6", OS_AF_INET6 }, { "PINGv6", OS_AF_INET6 },
        { "UDPLITEv6", OS_AF_INET6 }, { "MPTCPv6", OS_AF_INET6 },
        /* An IPv6 socket that is connected over IPv4 has the other's. */
        { "TCP", OS_AF_INET6 }, { "UDP", OS_AF_INET6 },
        { "UNIX", OS_AF_UNIX }, { "UNIX-STREAM", OS_AF_UNIX },
        { "UNIX-DGRAM", OS_AF_UNIX }, { "NETLINK", 16 }, { "PACKET", 17 },
    };
    uint8_t raw[PROTO_REACH];

    if (!os_read(proto, raw, sizeof(raw))) {
        return false;
    }
    for (unsigned at = 0; at + 32 <= sizeof(raw); at += 4) {
        for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
            if (known[i].family == family
                && !memcmp(raw + at, known[i].name,
                           strlen(known[i].name) + 1)) {
                g_strlcpy(name, known[i].name, 16);
                return true;
            }
        }
    }
    return false;
}

/* Where all have their family; behind it, a struct proto of that family. */
static bool is_family(OsSockets *s, int at)
{
    unsigned named = 0;

    for (unsigned i = 0; i < s->n; i++) {
        uint16_t family;

        if (!os_read_u16(s->sock[i] + at, &family)
            || family != s->family[i]) {
            return false;
        }
        s->proto[i][0] = 0;
        named += is_proto(os_peek(s->sock[i], at + FAMILY_TO_PROTO), family,
                          s->proto[i]);
    }
    return named;
}

static bool find_family(OsSockets *s, int *family)
{
    for (*family = 8; *family < 64; *family += 2) {
        if (is_family(s, *family)) {
            os_layout_set(OS_SOCK_FAMILY, *family, OS_INFERRED,
                          "the family of the socket's operations; behind it, "
                          "a protocol with a name of that family");
            return true;
        }
    }
    return false;
}

/* Of what listens or is connected, struct socket knows it as well. */
static bool is_state(const OsSockets *s, int at)
{
    for (unsigned i = 0; i < s->n; i++) {
        uint32_t known;
        uint8_t state;

        if (!os_read(s->sock[i] + at, &state, 1) || state >= LARGEST_STATE
            || !os_read_u32(s->socket[i], &known)
            || (s->type[i] == OS_SOCK_STREAM
                && ((state == OS_TCP_LISTEN && known != SS_UNCONNECTED)
                    || (state == OS_TCP_ESTABLISHED
                        && known == SS_UNCONNECTED)))) {
            return false;
        }
    }
    return true;
}

/* The number of a protocol by the name of its struct; -1: it may be any. */
static int protocol_of(const OsSockets *s, unsigned i)
{
    const char *name = s->proto[i];

    return !strcmp(name, "TCP") || !strcmp(name, "TCPv6") ? 6
        : !strcmp(name, "UDP") || !strcmp(name, "UDPv6") ? 17
        : g_str_has_prefix(name, "UNIX") ? 0 : -1;
}

/* The type as struct socket has it, the protocol next to it. */
static bool is_protocol(const OsSockets *s, int type, int protocol)
{
    unsigned named = 0;

    for (unsigned i = 0; i < s->n; i++) {
        int wanted = protocol_of(s, i);
        uint16_t value;

        if (!os_read_u16(s->sock[i] + type, &value) || value != s->type[i]
            || !os_read_u16(s->sock[i] + protocol, &value)
            || (wanted >= 0 ? value != wanted : value > 255)) {
            return false;
        }
        named += wanted > 0;
    }
    return named;
}

static void find_protocol(const OsSockets *s)
{
    int type = 0, protocol = 0;
    unsigned hits = 0;

    for (int at = 64; at < SOCK_REACH; at += 2) {
        for (int by = -2; by <= 2; by += 4) {
            if (is_protocol(s, at, at + by)) {
                type = at;
                protocol = at + by;
                hits++;
            }
        }
    }
    if (hits == 1) {
        os_layout_set(OS_SOCK_TYPE, type, OS_INFERRED,
                      "the type that the socket has");
        os_layout_set(OS_SOCK_PROTOCOL, protocol, OS_INFERRED,
                      "next to the type; of TCP and UDP, by their names, "
                      "theirs");
    }
}

void os_infer_sockets(void)
{
    g_autofree OsSockets *s = g_new0(OsSockets, 1);
    int file, family;

    os_for_each_process(add_process, s);
    if (!s->n || !find_socket(s, &file) || !find_sock(s, file + WORD)
        || !read_families(s, file + 2 * WORD) || !read_types(s)) {
        return;
    }
    os_layout_set(OS_SOCKET_TYPE, TYPE, OS_INFERRED,
                  "behind the state; a small number that is not 0, of all");
    if (!find_family(s, &family)) {
        return;
    }
    if (is_state(s, family + 2)) {
        os_layout_set(OS_SOCK_STATE, family + 2, OS_INFERRED,
                      "behind the family; agrees with the socket's own state");
    }
    find_protocol(s);
    os_infer_inet(s, family, family + FAMILY_TO_PROTO + WORD);
    os_infer_unix(s);
}
