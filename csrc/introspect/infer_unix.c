/*
 * Names of local sockets without type information.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer_sockets.h"

#define UNIX_FROM 128
#define UNIX_REACH 2048
#define MOST_USERS 10000
#define LONGEST_ADDRESS 110
/* Behind the number of users: the length, in old kernels a hash, the name. */
#define LEN 4

/* An address at a place: how many use it, its length, its family, its path. */
static bool is_address(uint64_t address, int name)
{
    uint32_t users, len;
    uint16_t family;
    char path[LONGEST_ADDRESS - 1];

    if (!os_is_pointer(address) || !os_read_u32(address, &users)
        || !users || users > MOST_USERS || !os_read_u32(address + LEN, &len)
        || len < 2 || len > LONGEST_ADDRESS
        || !os_read_u16(address + name, &family) || family != OS_AF_UNIX) {
        return false;
    }
    return len == 2 || (os_read(address + name + 2, path, len - 2)
                        && (!path[0] || strnlen(path, len - 2) + 3 >= len));
}

/* The path behind it is that of the file that it is bound to. */
static bool is_bound(uint64_t address, int name, uint64_t dentry)
{
    char path[LONGEST_ADDRESS], last[LONGEST_ADDRESS], *slash;
    uint64_t at;

    if (!os_read_string(address + name + 2, path, sizeof(path))
        || !os_is_pointer(dentry)
        || !os_get_word(dentry, OS_DENTRY_NAME, &at)
        || !os_read_string(at, last, sizeof(last))) {
        return false;
    }
    slash = strrchr(path, '/');
    return !strcmp(slash ? slash + 1 : path, last);
}

static bool is_addr(const OsSockets *s, int at, int name)
{
    unsigned bound = 0;

    for (unsigned i = 0; i < s->n; i++) {
        uint64_t address, dentry;
        uint8_t first = 0;

        if (s->family[i] != OS_AF_UNIX) {
            continue;
        }
        if (!os_read_word(s->sock[i] + at, &address)
            || !os_read_word(s->sock[i] + at + 2 * WORD, &dentry)) {
            return false;
        }
        if (!address) {
            if (dentry) {
                return false;
            }
            continue;
        }
        if (!is_address(address, name)
            || !os_read(address + name + 2, &first, 1)) {
            return false;
        }
        /* A name that begins with 0 is of no file. */
        if (first && dentry) {
            if (!is_bound(address, name, dentry)) {
                return false;
            }
            bound++;
        }
    }
    return bound;
}

void os_infer_unix(const OsSockets *s)
{
    for (int at = UNIX_FROM; at < UNIX_REACH; at += WORD) {
        for (int name = 8; name <= 12; name += 4) {
            if (is_addr(s, at, name)) {
                os_layout_set(OS_UNIX_ADDR, at, OS_INFERRED,
                              "leads to an address of its family; behind it, "
                              "a file with that name");
                os_layout_set(OS_UNIX_ADDRESS_LEN, LEN, OS_INFERRED,
                              "the length of the address");
                os_layout_set(OS_UNIX_ADDRESS_NAME, name, OS_INFERRED,
                              "begins with its family; as long as is noted "
                              "in front of it");
                return;
            }
        }
    }
}

bool os_unix_may_have_name(uint64_t sock)
{
    for (int at = UNIX_FROM; at < UNIX_REACH; at += WORD) {
        uint64_t address;

        if (os_read_word(sock + at, &address)
            && (is_address(address, 8) || is_address(address, 12))) {
            return true;
        }
    }
    return false;
}
