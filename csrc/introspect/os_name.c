/*
 * What the guest's system is called, by who starts it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "panda/os_kernel.h"

#define LONGEST 256

static char given[LONGEST];
static const char *variant = "";
static PandaOsFamily family;

static const struct {
    const char *name;
    PandaOsFamily family;
} families[] = {
    { "linux", PANDA_FAMILY_LINUX },
    { "freebsd", PANDA_FAMILY_FREEBSD },
    { "windows", PANDA_FAMILY_WINDOWS },
};

/* Behind a word and one of the two characters that may follow; NULL. */
static const char *behind(const char *text, const char *word)
{
    size_t n = strlen(word);

    return !strncmp(text, word, n) && (text[n] == '-' || text[n] == '_')
        ? text + n + 1 : NULL;
}

int panda_set_os_name(const char *name)
{
    const char *rest = NULL, *last = NULL;
    unsigned i = 0;

    if (!name || !name[0]) {
        given[0] = 0;
        variant = "";
        family = PANDA_FAMILY_UNKNOWN;
        return PANDA_OK;
    }
    while (i < ARRAY_SIZE(families)
           && !(rest = behind(name, families[i].name))) {
        i++;
    }
    if (rest) {
        last = behind(rest, "32") ?: behind(rest, "64");
    }
    if (!last || !last[0] || strlen(name) >= LONGEST) {
        return panda_fail(PANDA_ERR_ARGUMENT, "'%.64s' is no name of a "
                          "system: it is like linux-64-debian:6.1", name);
    }
    g_strlcpy(given, name, sizeof(given));
    variant = given + (last - name);
    family = families[i].family;
    return PANDA_OK;
}

const char *panda_os_name(void)
{
    return given;
}

const char *panda_os_variant(void)
{
    return variant;
}

PandaOsFamily panda_os_family(void)
{
    return family;
}
