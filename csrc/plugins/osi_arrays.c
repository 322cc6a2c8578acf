/*
 * osi: lists and what is in them.
 *
 * They look like GLib's to who reads them, and are freed with their elements.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "plugins/osi.h"

static const uint32_t sizes[] = {
    [OSI_PROCESSES] = sizeof(OsiProc),
    [OSI_HANDLES] = sizeof(OsiProcHandle),
    [OSI_MODULES] = sizeof(OsiModule),
};

PandaArray *panda_osi_new_garray(uint32_t element)
{
    PandaArray *list = g_new0(PandaArray, 1);

    list->element = MAX(element, 1);
    return list;
}

PandaArray *panda_osi_new_list(uint32_t kind, uint64_t n)
{
    PandaArray *list = panda_osi_new_garray(sizes[kind]);

    list->kind = kind;
    list->room = n;
    list->data = g_malloc0_n(n + 1, list->element);
    return list;
}

void panda_osi_append(PandaArray *list, const void *element)
{
    if (list->len == list->room) {
        list->room = MAX(2 * list->room, 16);
        list->data = g_realloc_n(list->data, list->room + 1, list->element);
    }
    memcpy(list->data + (size_t)list->len++ * list->element, element,
           list->element);
}

static OsiModule copy_of(const OsiModule *m)
{
    OsiModule copy = *m;

    copy.file = g_strdup(m->file);
    copy.name = g_strdup(m->name);
    return copy;
}

void panda_osi_append_proc(PandaArray *list, const OsiProc *p)
{
    OsiProc copy = *p;

    copy.name = g_strdup(p->name);
    copy.pages = NULL;
    panda_osi_append(list, &copy);
}

void panda_osi_append_module(PandaArray *list, const OsiModule *m)
{
    OsiModule copy = copy_of(m);

    panda_osi_append(list, &copy);
}

OsiProc *panda_osi_copy_osiproc(const OsiProc *p)
{
    OsiProc *copy = g_memdup2(p, sizeof(*p));

    copy->name = g_strdup(p->name);
    copy->pages = NULL;
    return copy;
}

OsiModule *panda_osi_copy_osimodule(const OsiModule *m)
{
    OsiModule *copy = g_new(OsiModule, 1);

    *copy = copy_of(m);
    return copy;
}

OsiModule *panda_osi_get_one_module(PandaArray *list, uint32_t index)
{
    return list && list->kind == OSI_MODULES && index < list->len
        ? &((OsiModule *)list->data)[index] : NULL;
}

OsiProc *panda_osi_get_one_proc(PandaArray *list, uint32_t index)
{
    return list && list->kind == OSI_PROCESSES && index < list->len
        ? &((OsiProc *)list->data)[index] : NULL;
}

uint32_t panda_osi_garray_len(PandaArray *list)
{
    return list ? list->len : 0;
}

void panda_osi_empty_module(OsiModule *m)
{
    g_free(m->file);
    g_free(m->name);
}

void panda_osi_cleanup_garray(PandaArray *list)
{
    if (!list) {
        return;
    }
    for (uint32_t i = 0; i < list->len; i++) {
        if (list->kind == OSI_PROCESSES) {
            g_free(((OsiProc *)list->data)[i].name);
            g_free(((OsiProc *)list->data)[i].pages);
        } else if (list->kind == OSI_MODULES) {
            panda_osi_empty_module(&((OsiModule *)list->data)[i]);
        }
    }
    g_free(list->data);
    g_free(list);
}

void panda_osi_free_osimodule(OsiModule *m)
{
    if (m) {
        panda_osi_empty_module(m);
        g_free(m);
    }
}

void panda_osi_free_osiprocmem(OsiProcMem *m)
{
    g_free(m);
}

void panda_osi_free_osiproc(OsiProc *p)
{
    if (p) {
        g_free(p->name);
        g_free(p->pages);
        g_free(p);
    }
}

void panda_osi_free_osiprochandle(OsiProcHandle *h)
{
    g_free(h);
}

void panda_osi_free_osithread(OsiThread *t)
{
    g_free(t);
}
