/*
 * The file of a recording: a zip archive that is written front to back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_RECORD_ARCHIVE_H
#define PANDA_RECORD_ARCHIVE_H

#include "qemu/osdep.h"
#include "qapi/error.h"

/* The member that is written last. */
#define PANDA_ARCHIVE_LAST "end.json"

typedef struct PandaArchiveWriter PandaArchiveWriter;
typedef struct PandaArchive PandaArchive;

/* Begin path.part; it becomes path when the archive is finished. */
PandaArchiveWriter *panda_archive_create(const char *path, Error **errp);
bool panda_archive_add(PandaArchiveWriter *w, const char *name,
                       const void *data, size_t size, Error **errp);
bool panda_archive_finish(PandaArchiveWriter *w, Error **errp);
/* Leave path.part as it is. */
void panda_archive_abandon(PandaArchiveWriter *w);
uint64_t panda_archive_size(const PandaArchiveWriter *w);

/*
 * Open an archive, or what there is of one that was cut off: then
 * panda_archive_is_cut() is true, and members that are not whole are missing.
 */
PandaArchive *panda_archive_open(const char *path, Error **errp);
void panda_archive_close(PandaArchive *a);
bool panda_archive_is_cut(const PandaArchive *a);
unsigned panda_archive_members(const PandaArchive *a);
const char *panda_archive_name(const PandaArchive *a, unsigned i);
/* The number of a member, -1 if there is none of that name. */
int panda_archive_find(const PandaArchive *a, const char *name);
/* Unpack and check a member; to be freed with g_free(). */
uint8_t *panda_archive_read(const PandaArchive *a, unsigned i, size_t *size,
                            Error **errp);

#endif
