/*
 * Numbers of memory regions and of RAM blocks in a recording.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_REGIONS_H
#define PANDA_RECORD_REGIONS_H

#include "record/log.h"
#include "exec/ramblock.h"

/* ---- memory regions ---- */

/* All regions of which there are many, or that come and go. */
#define PANDA_REGION_ANY 0

void panda_regions_clear(void);
/* The region's number; its definition is logged with the first use. */
unsigned panda_region_number(MemoryRegion *mr);
/* The same of a device; they are numbered together. */
unsigned panda_device_number(Object *device);
/* A region that did not exist before has this identity from now on. */
unsigned panda_region_new(MemoryRegion *mr);
/* Replay: the region of a number, NULL if it is unknown. */
MemoryRegion *panda_region_get(unsigned number);
/* Replay: read a definition. */
void panda_region_define(PandaLogCursor *c);
/* Replay: was the next number defined before? It is passed over then. */
bool panda_region_again(void);
/*
 * How many are defined at this place of the execution. A replay that goes back
 * sets it back; those that it meets again are the same.
 */
unsigned panda_regions(void);
void panda_regions_set(unsigned count);
const char *panda_region_path(unsigned number);

/* ---- RAM blocks ---- */

typedef struct PandaRam {
    char *name;
    uint8_t *host;
    uint64_t size;
    ram_addr_t offset;
    MemoryRegion *mr;
} PandaRam;

/* All blocks of the machine, those of ROMs and display memory included. */
PandaRam *panda_rams(unsigned *count);
/* Forget them, as the machine may have changed. */
void panda_rams_clear(void);
/* The block a region's memory is in, -1 if it has none. */
int panda_ram_of(MemoryRegion *mr, hwaddr addr, uint64_t *offset);
/* Digests of all of it, and of one of so many parts of each block. */
uint64_t panda_ram_digest(const PandaRam *ram, unsigned n);
uint64_t panda_ram_part_digest(const PandaRam *ram, unsigned n, unsigned part,
                               unsigned parts);

#endif
