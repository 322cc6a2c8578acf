/*
 * The calling thread's error message.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "qapi/error.h"

static __thread char message[4096];
static __thread int last_status;

int panda_fail(PandaStatus status, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    last_status = status;
    return status;
}

int panda_fail_error(PandaStatus status, Error *err)
{
    panda_fail(status, "%s", error_get_pretty(err));
    error_free(err);
    return status;
}

const char *panda_last_error(void)
{
    return message;
}

int panda_last_status(void)
{
    return last_status;
}
