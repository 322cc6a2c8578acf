/*
 * Sockets: what a file that is one is connected to.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"

bool os_is_socket(uint64_t file)
{
    uint64_t dentry, sb, type, name;
    char kind[16];

    return os_get_word(file, OS_FILE_DENTRY, &dentry)
        && os_get_word(dentry, OS_DENTRY_SB, &sb)
        && os_get_word(sb, OS_SB_TYPE, &type)
        && os_get_word(type, OS_FSTYPE_NAME, &name)
        && os_read_string(name, kind, sizeof(kind))
        && !strcmp(kind, "sockfs");
}

static bool get_u16(uint64_t base, OsField field, uint32_t *value)
{
    uint16_t number = 0;
    bool good = os_knows(field)
        && os_read_u16(base + os_offset(field), &number);

    *value = number;
    return good;
}

static bool get_bytes(uint64_t base, OsField field, void *to, size_t n)
{
    return os_knows(field) && os_read(base + os_offset(field), to, n);
}

/* ---- a local socket's name ---- */

/* As /proc/net/unix has it: with @ for what is 0. */
static bool fill_name(uint64_t sock, PandaSocket *out)
{
    uint64_t address;
    uint32_t len;
    char *text = out->path;

    if (!os_knows(OS_UNIX_ADDR)) {
        return !os_unix_may_have_name(sock);
    }
    if (!os_get_word(sock, OS_UNIX_ADDR, &address)) {
        return false;
    }
    if (!address) {
        return true;
    }
    if (!os_get_u32(address, OS_UNIX_ADDRESS_LEN, &len)
        || !os_knows(OS_UNIX_ADDRESS_NAME) || len < 2
        || len - 2 >= sizeof(out->path)
        || !os_read(address + os_offset(OS_UNIX_ADDRESS_NAME) + 2, text,
                    len - 2)) {
        return false;
    }
    len -= 2;
    text[len] = 0;
    if (text[0]) {
        return true;
    }
    for (unsigned i = 0; i < len; i++) {
        text[i] = text[i] ?: '@';
    }
    return true;
}

/* ---- addresses and ports ---- */

static bool fill_ends(uint64_t sock, PandaSocket *out)
{
    bool v6 = out->family == OS_AF_INET6;
    size_t n = v6 ? 16 : 4;
    uint8_t port[2];

    if (!get_u16(sock, OS_SOCK_NUM, &out->local_port)
        || !get_bytes(sock, OS_SOCK_DPORT, port, sizeof(port))
        || !get_bytes(sock, v6 ? OS_SOCK_V6_RCV_SADDR : OS_SOCK_RCV_SADDR,
                      out->local_address, n)
        || !get_bytes(sock, v6 ? OS_SOCK_V6_DADDR : OS_SOCK_DADDR,
                      out->remote_address, n)) {
        return false;
    }
    out->remote_port = lduw_be_p(port);
    return true;
}

/* What is missing; NULL: all that its family has is there. */
static const char *fill(uint64_t file, PandaSocket *out)
{
    uint64_t socket, sock;
    uint8_t state;

    if (!os_get_word(file, OS_FILE_PRIVATE, &socket)
        || !os_get_word(socket, OS_SOCKET_SK, &sock) || !sock
        || !get_u16(socket, OS_SOCKET_TYPE, &out->type)
        || !get_u16(sock, OS_SOCK_FAMILY, &out->family)
        || !get_bytes(sock, OS_SOCK_STATE, &state, 1)) {
        return "what kind it is";
    }
    out->state = state;
    /* The same number for all guests. */
    out->type = out->type == OS_SOCK_STREAM ? 1
        : out->type == OS_SOCK_DGRAM ? 2 : out->type;
    /* Local ones have none. */
    if (!get_u16(sock, OS_SOCK_PROTOCOL, &out->protocol)
        && out->family != OS_AF_UNIX) {
        return "its protocol";
    }
    switch (out->family) {
    case OS_AF_UNIX:
        return fill_name(sock, out) ? NULL : "its name";
    case OS_AF_INET:
    case OS_AF_INET6:
        return fill_ends(sock, out) ? NULL : "its addresses";
    default:
        return NULL;
    }
}

int panda_os_socket(uint64_t file, PandaSocket *out)
{
    OS_LOCK_GUARD();
    int status = os_require();
    const char *missing;

    *out = (PandaSocket) {};
    if (status != PANDA_OK) {
        return status;
    }
    if (!os_is_socket(file)) {
        return panda_fail(PANDA_ERR_OS, "the file is no socket");
    }
    missing = fill(file, out);
    if (missing && os_layout.field[OS_FILE_PRIVATE].source != OS_BTF) {
        /* There may be more sockets than when it was last worked out. */
        os_infer_sockets();
        *out = (PandaSocket) {};
        missing = fill(file, out);
    }
    if (missing) {
        *out = (PandaSocket) {};
        return panda_fail(PANDA_ERR_OS, "the file is a socket, but %s cannot "
                          "be made out in this kernel's memory", missing);
    }
    return PANDA_OK;
}
