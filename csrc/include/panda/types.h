/*
 * Base types of the pandalite C API.
 *
 * Every header in this directory is plain C without dependencies on QEMU's
 * headers: tools/gen_ctypes.py turns it into pandalite/_bindings/, and C
 * plugins include it as it is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_TYPES_H
#define PANDA_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Around declarations that C++ sources include too. */
#ifdef __cplusplus
#define PANDA_C_BEGIN extern "C" {
#define PANDA_C_END }
#else
#define PANDA_C_BEGIN
#define PANDA_C_END
#endif

/**
 * A guest virtual address or register value.
 *
 * Always 64 bits wide in this ABI, zero-extended for 32-bit guests, so that
 * one set of bindings serves every guest architecture.
 */
typedef uint64_t target_ptr_t;

/** A guest physical address. */
typedef uint64_t hwaddr;

/** QEMU's MachineState, opaque to users. */
typedef struct MachineState MachineState;

/** QEMU's Monitor, opaque to users. */
typedef struct Monitor Monitor;

#endif
