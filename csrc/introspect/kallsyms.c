/*
 * The kernel's own symbol table (kallsyms), read from guest RAM.
 *
 * Names are sequences of tokens, addresses are encoded in one of four ways
 * that changed between versions; which one is decided by what makes sense,
 * never by the version.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/kallsyms.h"
#include "introspect/kallsyms_tables.h"

#define TOKENS 256
#define CHUNK 256
#define MAX_NAME 1024

typedef struct Symbol {
    uint64_t address;
    /* Offset in `names`; its type is the byte before. */
    uint32_t name;
} Symbol;

static Symbol *symbols;
static uint64_t n_symbols;
static GString *names;
static GHashTable *by_name;
static char how[96];

const char *os_kallsyms_how(void)
{
    return how;
}

uint64_t os_kallsyms_count(void)
{
    return n_symbols;
}

/* ---- names ---- */

/* Length of the entry at *at, which is moved behind it; 0: no entry. */
static unsigned entry_length(const uint8_t **at, const uint8_t *end,
                             bool uleb)
{
    unsigned len;

    if (*at >= end) {
        return 0;
    }
    len = *(*at)++;
    if (uleb && (len & 0x80)) {
        if (*at >= end) {
            return 0;
        }
        len = (len & 0x7f) | *(*at)++ << 7;
    }
    return len <= MAX_NAME && *at + len <= end ? len : 0;
}

/* The end of n entries, which hit the markers that are known; or NULL. */
static const uint8_t *walk_names(const OsKallsymsTables *t, bool uleb)
{
    const uint8_t *at = t->names;

    for (uint64_t i = 0; i < t->n; i++) {
        unsigned len;

        if (i % CHUNK == 0 && t->markers
            && os_kallsyms_marker(t, i / CHUNK) != at - t->names) {
            return NULL;
        }
        len = entry_length(&at, t->end, uleb);
        if (!len) {
            return NULL;
        }
        at += len;
    }
    return at;
}

static bool decode_names(const OsKallsymsTables *t, bool uleb)
{
    const char *token[TOKENS];
    const uint8_t *at = t->names;

    for (unsigned i = 0; i < TOKENS; i++) {
        token[i] = (const char *)t->token_table
            + os_u16_at(t->token_index + 2 * i);
        if ((const uint8_t *)token[i] >= t->end
            || !memchr(token[i], 0, MIN(MAX_NAME, t->end
                                        - (const uint8_t *)token[i]))) {
            return false;
        }
    }
    if (!walk_names(t, uleb)) {
        return false;
    }
    g_string_set_size(names, 0);
    for (uint64_t i = 0; i < t->n; i++) {
        unsigned len = entry_length(&at, t->end, uleb);

        symbols[i].name = names->len + 1;
        for (unsigned k = 0; k < len; k++) {
            g_string_append(names, token[at[k]]);
        }
        g_string_append_c(names, 0);
        at += len;
    }
    return true;
}

static bool name_is(uint64_t index, const char *name)
{
    return !strcmp(names->str + symbols[index].name, name);
}

static bool find_name(const char *name, uint64_t *index)
{
    for (*index = 0; *index < n_symbols; (*index)++) {
        if (name_is(*index, name)) {
            return true;
        }
    }
    return false;
}

/* ---- addresses ---- */

static uint64_t clip(uint64_t address)
{
    return os_memory.word == 8 ? address : (uint32_t)address;
}

static uint64_t address_of(const OsKallsymsTables *t, OsKallsymsEncoding e,
                           uint64_t i)
{
    int32_t offset;

    if (e == OS_KALLSYMS_ABSOLUTE) {
        return os_word_at(t->addresses + i * os_memory.word);
    }
    offset = os_u32_at(t->offsets + 4 * i);
    switch (e) {
    case OS_KALLSYMS_BASE_RELATIVE:
        return clip(t->relative_base + (uint32_t)offset);
    case OS_KALLSYMS_ABSOLUTE_PERCPU:
        return clip(offset >= 0 ? (uint64_t)offset
                                : t->relative_base - 1 - offset);
    default:
        return clip(t->offsets_va + 4 * i + (int64_t)offset);
    }
}

static bool has_table(const OsKallsymsTables *t, OsKallsymsEncoding e)
{
    if (e == OS_KALLSYMS_ABSOLUTE) {
        return t->addresses;
    }
    return t->offsets && (e == OS_KALLSYMS_PLACE_RELATIVE
                          ? t->offsets_va : t->relative_base);
}

/* Do the addresses of an encoding look like a kernel's? */
static bool is_plausible(const OsKallsymsTables *t, OsKallsymsEncoding e,
                         uint64_t stext_index, uint64_t stext)
{
    uint64_t last = 0, falls = 0, kernel = 0;

    if (!has_table(t, e)) {
        return false;
    }
    if (stext) {
        return address_of(t, e, stext_index) == stext;
    }
    for (uint64_t i = 0; i < t->n; i++) {
        uint64_t address = address_of(t, e, i);

        falls += address < last;
        kernel += os_is_kernel(address);
        last = address;
    }
    return falls <= 1 && kernel > t->n / 2;
}

static int compare(const void *a, const void *b)
{
    const Symbol *x = a, *y = b;

    if (x->address != y->address) {
        return x->address < y->address ? -1 : 1;
    }
    return x->name < y->name ? -1 : x->name > y->name;
}

static void make_index(void)
{
    for (uint64_t i = 1; i < n_symbols; i++) {
        if (symbols[i].address < symbols[i - 1].address) {
            qsort(symbols, n_symbols, sizeof(*symbols), compare);
            break;
        }
    }
    by_name = g_hash_table_new(g_str_hash, g_str_equal);
    for (uint64_t i = n_symbols; i-- > 0; ) {
        g_hash_table_insert(by_name, names->str + symbols[i].name,
                            GSIZE_TO_POINTER(i + 1));
    }
}

static void forget(void)
{
    if (by_name) {
        g_hash_table_destroy(by_name);
        by_name = NULL;
    }
    g_free(symbols);
    symbols = NULL;
    n_symbols = 0;
    if (!names) {
        names = g_string_new(NULL);
    }
    how[0] = 0;
}

static bool decode(const OsKallsymsTables *t)
{
    static const char *const name[] = {
        "base-relative", "absolute-percpu", "place-relative", "absolute",
    };
    uint64_t stext = 0, index = 0;
    bool has_stext;

    symbols = g_new0(Symbol, t->n);
    n_symbols = t->n;
    os_vmcoreinfo_hex("SYMBOL(_stext)", &stext);
    for (unsigned uleb = 2; uleb-- > 0; ) {
        if (!decode_names(t, uleb)) {
            continue;
        }
        has_stext = find_name("_stext", &index);
        if (!has_stext) {
            continue;
        }
        for (OsKallsymsEncoding e = 0; e < OS_KALLSYMS_ENCODINGS; e++) {
            if (!is_plausible(t, e, index, stext)) {
                continue;
            }
            for (uint64_t i = 0; i < t->n; i++) {
                symbols[i].address = address_of(t, e, i);
            }
            snprintf(how, sizeof(how), "%s, %s", t->how, name[e]);
            make_index();
            return true;
        }
    }
    forget();
    return false;
}

bool os_kallsyms_find(void)
{
    OsKallsymsTables t;

    forget();
    if (os_kallsyms_by_vmcoreinfo(&t) && decode(&t)) {
        return true;
    }
    return os_kallsyms_search(decode);
}

/* ---- use ---- */

bool os_symbol(const char *name, uint64_t *address)
{
    size_t index = by_name
        ? GPOINTER_TO_SIZE(g_hash_table_lookup(by_name, name)) : 0;

    if (!index) {
        return false;
    }
    *address = symbols[index - 1].address;
    return true;
}

const char *os_symbol_by_index(uint64_t index, uint64_t *address, char *type)
{
    if (index >= n_symbols) {
        return NULL;
    }
    *address = symbols[index].address;
    *type = names->str[symbols[index].name - 1];
    return names->str + symbols[index].name;
}

const char *os_symbol_at(uint64_t address, uint64_t *offset, char *type)
{
    uint64_t low = 0, high = n_symbols, at;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (symbols[middle].address <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (!low) {
        return NULL;
    }
    /* The first of those with the same address, as the kernel itself does. */
    for (low--; low && symbols[low - 1].address == symbols[low].address; ) {
        low--;
    }
    *offset = address - symbols[low].address;
    return os_symbol_by_index(low, &at, type);
}
