/*
 * How calls of the pandalite C API fail.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_ERROR_H
#define PANDA_ERROR_H

#include "panda/types.h"

/** Result of API calls that can fail; the text is panda_last_error(). */
typedef enum PandaStatus {
    PANDA_OK = 0,
    /** An argument is wrong. */
    PANDA_ERR_ARGUMENT = -1,
    /** The call is not allowed in the present state or from this thread. */
    PANDA_ERR_STATE = -2,
    /** The machine could not be created: QEMU refused its command line. */
    PANDA_ERR_MACHINE = -3,
    /** QEMU called exit() or abort(): the machine cannot be used any more. */
    PANDA_ERR_FATAL = -4,
    /** Guest memory at that address cannot be accessed. */
    PANDA_ERR_MEMORY = -5,
    /** A snapshot could not be saved, loaded or deleted. */
    PANDA_ERR_SNAPSHOT = -6,
    /** The time given was not enough. */
    PANDA_ERR_TIMEOUT = -7,
    /** pandalite does not have this yet. */
    PANDA_ERR_UNSUPPORTED = -8,
    /** A recording cannot be made, written or replayed. */
    PANDA_ERR_RECORDING = -9,
    /** The guest's operating system does not show what was asked for. */
    PANDA_ERR_OS = -10,
} PandaStatus;

/**
 * The message of the calling thread's last failed call.
 *
 * Holds QEMU's own words where QEMU refused something. Valid until the next
 * API call of the same thread; the empty string if nothing failed.
 */
const char *panda_last_error(void);

/**
 * The PandaStatus of the calling thread's last failed call.
 *
 * For functions that return a pointer. PANDA_OK if nothing failed.
 */
int panda_last_status(void);

#endif
