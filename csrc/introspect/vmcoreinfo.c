/*
 * VMCOREINFO: a page of text in which Linux tells crash dumps where it is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/kallsyms.h"

#define PAGE 4096ull
#define UTS_FIELD 65

static char text[PAGE + 1];
static bool found;

const char *os_vmcoreinfo(void)
{
    return found ? text : NULL;
}

static const char *value_of(const char *key)
{
    size_t len = strlen(key);

    for (const char *line = text; line; ) {
        if (!strncmp(line, key, len) && line[len] == '=') {
            return line + len + 1;
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return NULL;
}

bool os_vmcoreinfo_hex(const char *key, uint64_t *value)
{
    const char *at = found ? value_of(key) : NULL;
    char *end;

    if (!at) {
        return false;
    }
    *value = g_ascii_strtoull(at, &end, 16);
    return end != at;
}

bool os_vmcoreinfo_text(const char *key, char *buf, size_t size)
{
    const char *at = found ? value_of(key) : NULL;
    size_t len = at ? strcspn(at, "\n") : 0;

    if (!len || len >= size) {
        return false;
    }
    memcpy(buf, at, len);
    buf[len] = 0;
    return true;
}

bool os_vmcoreinfo_number(const char *key, uint64_t *value)
{
    char digits[24], *end;

    if (!os_vmcoreinfo_text(key, digits, sizeof(digits))) {
        return false;
    }
    *value = g_ascii_strtoull(digits, &end, 10);
    return !*end;
}

/*
 * init_uts_ns is in the kernel's image and holds its release: where it lies in
 * RAM says how the image is mapped. A counter of 4 or 8 bytes may be in front.
 */
static bool find_delta(uint64_t symbol, const char *want)
{
    size_t len = strlen(want) + 1;
    unsigned hits = 0;

    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        const OsSegment *s = &os_memory.segment[i];

        for (unsigned front = 0; front <= 8; front += 4) {
            for (uint64_t at = (symbol + front) % PAGE;
                 at + 3 * UTS_FIELD <= s->size; at += PAGE) {
                const uint8_t *host = s->host + at;

                if (memcmp(host, "Linux", 6)
                    || memcmp(host + 2 * UTS_FIELD, want, len)) {
                    continue;
                }
                if (!hits++) {
                    os_memory.image_delta = symbol + front - (s->pa + at);
                    os_memory.has_image_delta = true;
                }
            }
        }
    }
    return hits;
}

bool os_vmcoreinfo_find(CPUState *cs)
{
    char want[UTS_FIELD];
    uint64_t symbol;

    found = false;
    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        const OsSegment *s = &os_memory.segment[i];

        for (uint64_t at = 0; at + PAGE <= s->size; at += PAGE) {
            if (memcmp(s->host + at, "OSRELEASE=", 10)) {
                continue;
            }
            memcpy(text, s->host + at, PAGE);
            text[PAGE] = 0;
            found = true;
            if (os_vmcoreinfo_text("OSRELEASE", want, sizeof(want))
                && os_vmcoreinfo_hex("SYMBOL(init_uts_ns)", &symbol)
                && find_delta(symbol, want)) {
                return true;
            }
            found = false;
        }
    }
    return false;
}
