/*
 * What the files that work out the layout of sockets share: those that the
 * guest's processes have open.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_INTROSPECT_INFER_SOCKETS_H
#define PANDA_INTROSPECT_INFER_SOCKETS_H

#include "introspect/infer.h"

#define OS_MAX_SOCKETS 64
#define OS_TCP_ESTABLISHED 1
#define OS_TCP_LISTEN 10

typedef struct OsSockets {
    unsigned n;
    /* struct file, struct socket, struct sock of each. */
    uint64_t file[OS_MAX_SOCKETS];
    uint64_t socket[OS_MAX_SOCKETS];
    uint64_t sock[OS_MAX_SOCKETS];
    /* What its operations say it is. */
    uint32_t family[OS_MAX_SOCKETS];
    /* SOCK_STREAM and so on; what its struct proto is named. */
    uint16_t type[OS_MAX_SOCKETS];
    char proto[OS_MAX_SOCKETS][16];
} OsSockets;

/* infer_inet.c: addresses and ports; where the family is, and skc_net. */
void os_infer_inet(const OsSockets *s, int family, int net);
/* infer_unix.c: names of local sockets. */
void os_infer_unix(const OsSockets *s);

#endif
