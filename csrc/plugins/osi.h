/*
 * PANDA's structures of processes, as the plugin osi's files share them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PLUGINS_OSI_INTERNAL_H
#define PANDA_PLUGINS_OSI_INTERNAL_H

#include "panda/os.h"
#include "panda/plugins/osi.h"
#include "plugins/ppp.h"

/* The process of a task; its name is to be freed. */
OsiProc panda_osi_process_of(const PandaTask *t);

static inline OsiProcHandle panda_osi_handle_of(const PandaTask *t)
{
    return (OsiProcHandle) { .taskd = t->task, .asid = t->asid };
}

/* ---- osi_providers.c: plugins that answer instead of the core ---- */

#define OSI_QUESTIONS(_)                                                      \
    _(on_get_processes)                                                       \
    _(on_get_process_handles)                                                 \
    _(on_get_current_process)                                                 \
    _(on_get_current_process_handle)                                          \
    _(on_get_process)                                                         \
    _(on_get_proc_mem)                                                        \
    _(on_get_modules)                                                         \
    _(on_get_mappings)                                                        \
    _(on_get_file_mappings)                                                   \
    _(on_get_heap_mappings)                                                   \
    _(on_get_stack_mappings)                                                  \
    _(on_get_unknown_mappings)                                                \
    _(on_get_mapping_by_addr)                                                 \
    _(on_get_mapping_base_address_by_name)                                    \
    _(on_has_mapping_prefix)                                                  \
    _(on_get_current_thread)                                                  \
    _(on_get_process_pid)                                                     \
    _(on_get_process_ppid)

#define OSI_DECLARE_POINT(name) extern PandaPppPoint panda_osi_##name;
OSI_QUESTIONS(OSI_DECLARE_POINT)

/* The core does not answer, whoever else does. */
extern bool panda_osi_core_is_silent;

#define OSI_IS_ASKED(name) panda_ppp_wanted(&panda_osi_##name)

/*
 * Ask those who answer instead of the core: true if there are any, and then
 * what they say is where the last argument points to. Nothing may be held.
 */
#define OSI_ASK(name, ...)                                                    \
    (OSI_IS_ASKED(name)                                                       \
     ? ({                                                                     \
            RCU_READ_LOCK_GUARD();                                            \
            PANDA_PPP_RUN(&panda_osi_##name, name##_t, __VA_ARGS__);          \
            true;                                                             \
        })                                                                    \
     : panda_osi_core_is_silent)

void panda_osi_define_questions(void);
void panda_osi_undefine_questions(void);

/* ---- osi_arrays.c ---- */

enum { OSI_UNKNOWN, OSI_PROCESSES, OSI_HANDLES, OSI_MODULES };

/* A list with room for n, of a kind. */
PandaArray *panda_osi_new_list(uint32_t kind, uint64_t n);

/* A list that somebody else has made, of a kind; it may be NULL. */
static inline PandaArray *panda_osi_given(PandaArray *list, uint32_t kind)
{
    if (list) {
        list->kind = kind;
    }
    return list;
}

/* Free the texts of a mapping or module. */
void panda_osi_empty_module(OsiModule *m);

#endif
