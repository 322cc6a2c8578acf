/*
 * A recording is opened for a replay: is it one, whole, and of this machine?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/opening.h"
#include "record/recorder.h"
#include "core/machine.h"
#include "hw/boards.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "qobject/qjson.h"
#include "qobject/qstring.h"

PandaOpened panda_opened;

static PandaOpened *const o = &panda_opened;

QDict *panda_opened_json(const char *name, Error **errp)
{
    int i = panda_archive_find(o->archive, name);
    g_autofree uint8_t *text = NULL;
    QObject *object;
    size_t n;

    if (i < 0) {
        error_setg(errp, "the recording has no %s", name);
        return NULL;
    }
    text = panda_archive_read(o->archive, i, &n, errp);
    if (!text) {
        return NULL;
    }
    object = qobject_from_json((char *)text, errp);
    if (object && !qobject_to(QDict, object)) {
        qobject_unref(object);
        object = NULL;
        error_setg(errp, "the recording's %s is malformed", name);
    }
    return qobject_to(QDict, object);
}

static bool same(QDict *d, const char *key, const char *ours, Error **errp)
{
    const char *theirs = qdict_get_try_str(d, key);

    if (!theirs || strcmp(theirs, ours)) {
        error_setg(errp, "the recording is of a machine with %s %s, this one "
                   "has %s", key, theirs ?: "unknown", ours);
        return false;
    }
    return true;
}

static bool check_version(QDict *d, Error **errp)
{
    QList *version = qobject_to(QList, qdict_get(d, "version"));
    QNum *major = version && qlist_first(version)
        ? qobject_to(QNum, qlist_entry_obj(qlist_first(version))) : NULL;
    int64_t number = 0;

    if (g_strcmp0(qdict_get_try_str(d, "format"), "pandalite-recording")
        || !major || !qnum_get_try_int(major, &number)) {
        error_setg(errp, "it is no recording of pandalite");
        return false;
    }
    if (number > PANDA_RECORDING_MAJOR) {
        error_setg(errp, "the recording has format %" PRId64 ", this version "
                   "of pandalite reads up to %d: a newer one is needed",
                   number, PANDA_RECORDING_MAJOR);
        return false;
    }
    panda_count_as_in_format(number);
    return true;
}

/* Find the recording's blocks among the machine's. */
static bool match_blocks(QDict *d, Error **errp)
{
    QList *list = qobject_to(QList, qdict_get(d, "blocks"));
    const QListEntry *entry;
    unsigned n;
    PandaRam *ours = panda_rams(&n);

    o->n_rams = 0;
    o->rams = g_renew(PandaRam, o->rams, list ? qlist_size(list) : 1);
    if (!list) {
        error_setg(errp, "the recording's manifest is malformed");
        return false;
    }
    QLIST_FOREACH_ENTRY(list, entry) {
        QDict *block = qobject_to(QDict, qlist_entry_obj(entry));
        const char *name = block ? qdict_get_try_str(block, "name") : NULL;
        uint64_t size = block ? qdict_get_try_int(block, "size", 0) : 0;
        PandaRam *found = NULL;

        for (unsigned i = 0; name && i < n; i++) {
            if (!strcmp(ours[i].name, name)) {
                found = &ours[i];
            }
        }
        if (!found || found->size != size) {
            error_setg(errp, "the recording is of another machine: its memory "
                       "%s has %" PRIu64 " bytes, here it has %" PRIu64,
                       name ?: "?", size, found ? found->size : 0);
            return false;
        }
        o->rams[o->n_rams++] = *found;
    }
    return true;
}

static bool find_chunks(Error **errp)
{
    if (o->chunks) {
        g_array_unref(o->chunks);
    }
    o->chunks = g_array_new(false, false, sizeof(unsigned));
    for (unsigned i = 0; i < panda_archive_members(o->archive); i++) {
        const char *name = panda_archive_name(o->archive, i);

        if (g_str_has_prefix(name, "log/")) {
            g_autofree char *wanted = g_strdup_printf("log/%06u", o->chunks->len);

            if (strcmp(name, wanted)) {
                error_setg(errp, "the recording is damaged: its member %s is "
                           "where %s should be", name, wanted);
                return false;
            }
            g_array_append_val(o->chunks, i);
        }
    }
    return true;
}

static bool read_end(Error **errp)
{
    QDict *end;
    const char *digest;

    panda_rr_facts.cut_off = panda_archive_is_cut(o->archive)
        && panda_archive_find(o->archive, PANDA_ARCHIVE_LAST) < 0;
    if (panda_rr_facts.cut_off) {
        /* All of RAM is there if something follows it. */
        if (!o->chunks->len) {
            error_setg(errp, "the recording is cut off before it begins");
        }
        return o->chunks->len;
    }
    end = panda_opened_json(PANDA_ARCHIVE_LAST, errp);
    if (!end) {
        return false;
    }
    panda_rr_facts.total = qdict_get_try_int(end, "instructions", 0);
    digest = qdict_get_try_str(end, "ram_digest");
    panda_rr_facts.recorded_ram_digest =
        digest ? g_ascii_strtoull(digest, NULL, 16) : 0;
    if (qdict_get_try_int(end, "chunks", -1) != o->chunks->len) {
        error_setg(errp, "the recording is damaged: it has %u chunks where "
                   "%" PRId64 " were written", o->chunks->len,
                   qdict_get_try_int(end, "chunks", -1));
        qobject_unref(end);
        return false;
    }
    qobject_unref(end);
    return true;
}

void panda_opened_end(void)
{
    panda_archive_close(o->archive);
    o->archive = NULL;
}

bool panda_opened_begin(const char *path, Error **errp)
{
    QDict *manifest = NULL;
    bool ok;

    o->archive = panda_archive_open(path, errp);
    if (!o->archive) {
        return false;
    }
    panda_rams_clear();
    manifest = panda_opened_json("manifest.json", errp);
    ok = manifest && check_version(manifest, errp)
        && same(manifest, "arch", PANDALITE_ARCH, errp)
        && same(manifest, "qemu_version", QEMU_VERSION, errp)
        && same(manifest, "machine",
                MACHINE_GET_CLASS(current_machine)->name, errp)
        && same(manifest, "cpu",
                object_get_typename(OBJECT(panda_vcpu.cs)), errp)
        && match_blocks(manifest, errp) && find_chunks(errp)
        && read_end(errp);
    if (ok) {
        o->ram_parts = qdict_get_try_int(manifest, "ram_parts", 0);
        o->epoch_base = qdict_get_try_int(manifest, "epoch_base", 0);
    }
    qobject_unref(manifest);
    return ok;
}

uint8_t *panda_opened_chunk(unsigned number, size_t *size, Error **errp)
{
    return panda_archive_read(o->archive,
                              g_array_index(o->chunks, unsigned,
                                            number), size, errp);
}
