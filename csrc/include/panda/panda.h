/*
 * The pandalite C API, all of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PANDA_H
#define PANDA_PANDA_H

#include "panda/bare.h"
#include "panda/breakpoint.h"
#include "panda/callbacks.h"
#include "panda/counter.h"
#include "panda/compound.h"
#include "panda/cpu.h"
#include "panda/error.h"
#include "panda/filter.h"
#include "panda/layout.h"
#include "panda/limit.h"
#include "panda/machine.h"
#include "panda/memory.h"
#include "panda/monitor.h"
#include "panda/os.h"
#include "panda/os_kernel.h"
#include "panda/os_events.h"
#include "panda/plugins.h"
#include "panda/ppp.h"
#include "panda/python.h"
#include "panda/python_reads.h"
#include "panda/record.h"
#include "panda/registers.h"
#include "panda/stream.h"
#include "panda/symbols.h"
#include "panda/types.h"

#endif
