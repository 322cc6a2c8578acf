/*
 * osi: plugins that answer instead of the core, by PPP.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "plugins/osi.h"

bool panda_osi_core_is_silent;
static bool provided;

static void providers_changed(void);

#define DEFINE_POINT(name)                                                    \
    PandaPppPoint panda_osi_##name =                                          \
        PANDA_PPP_POINT("osi", #name, providers_changed);
OSI_QUESTIONS(DEFINE_POINT)

#define ADDRESS(name) &panda_osi_##name,
static PandaPppPoint *const questions[] = { OSI_QUESTIONS(ADDRESS) };

static void providers_changed(void)
{
    bool any = panda_osi_core_is_silent;

    for (unsigned i = 0; i < ARRAY_SIZE(questions); i++) {
        any |= questions[i]->n != 0;
    }
    qatomic_set(&provided, any);
}

bool panda_osi_is_provided(void)
{
    return qatomic_read(&provided);
}

void panda_osi_define_questions(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(questions); i++) {
        panda_ppp_define(questions[i]);
    }
    providers_changed();
}

void panda_osi_undefine_questions(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(questions); i++) {
        panda_ppp_undefine(questions[i]);
    }
    panda_osi_core_is_silent = false;
    providers_changed();
}
