/*
 * Symbols of the kernel's modules, from the tables that each keeps in memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "qemu/timer.h"

#define MAX_SYMBOLS (1u << 18)
#define LONGEST_NAME 512
#define MODULE_PARTS 16
#define UNFORMED 3
#define STT_FUNC 2

typedef struct Symbol {
    uint64_t address;
    /* Offset in `names`. */
    uint32_t name;
} Symbol;

/* What is remembered of a module; its tables do not change once it is loaded. */
typedef struct Table {
    char module[64];
    uint64_t symtab, strtab;
    uint32_t n_raw;
    /* By address. */
    GArray *symbols;
    GString *names;
} Table;

/* By the address of struct module. */
static GHashTable *tables;

/* Where the list was found that no symbol leads to; 0: it was not. */
static uint64_t found_head;

/* All that is asked of a list is seen to when it is walked. */
static bool is_list(uint64_t head)
{
    uint64_t next, back;

    return os_read_word(head, &next) && os_is_kernel(next)
        && os_read_word(next + os_memory.word, &back) && back == head;
}

/* After looking for it in vain: it costs a look at all of RAM. */
#define PAUSE_NS (2000 * SCALE_MS)
static int64_t next_look;

bool os_modules_head(uint64_t *head, bool insist)
{
    if (!os_symbol("modules", head)) {
        if (found_head && !is_list(found_head)) {
            found_head = 0;
        }
        if (!found_head && (insist || get_clock() >= next_look)) {
            found_head = os_find_modules(head) ? *head : 0;
            next_look = get_clock() + PAUSE_NS;
        }
        *head = found_head;
    }
    return *head && (os_knows(OS_MODULE_LIST) || os_infer_modules(*head));
}

/* ---- tables ---- */

static void free_table(gpointer data)
{
    Table *t = data;

    g_array_free(t->symbols, TRUE);
    g_string_free(t->names, TRUE);
    g_free(t);
}

void os_forget_modules(void)
{
    if (tables) {
        g_hash_table_destroy(tables);
        tables = NULL;
    }
    found_head = 0;
    next_look = 0;
}

static int compare(const void *a, const void *b)
{
    const Symbol *x = a, *y = b;

    if (x->address != y->address) {
        return x->address < y->address ? -1 : 1;
    }
    return x->name < y->name ? -1 : x->name > y->name;
}

/* ELF's structure of a symbol: the order of its fields depends on the word. */
static bool read_symbol(uint64_t at, uint32_t *name, uint64_t *value,
                        bool *defined)
{
    bool wide = os_memory.word == 8;
    uint8_t raw[24];
    unsigned info = wide ? 4 : 12;

    if (!os_read(at, raw, wide ? 24 : 16)) {
        return false;
    }
    *name = os_u32_at(raw);
    *value = os_word_at(raw + (wide ? 8 : 4));
    *defined = os_u16_at(raw + info + 2);
#if defined(TARGET_ARM) && !defined(TARGET_AARCH64)
    /* The lowest bit of a function's address says that it is in Thumb. */
    if ((raw[info] & 15) == STT_FUNC) {
        *value &= ~1ull;
    }
#endif
    return true;
}

/* The assembler's marks are no symbols. */
static bool is_mark(const char *name)
{
    return (name[0] == '$' && name[1]
            && (!name[2] || name[2] == '.'))
        || (name[0] == '.' && name[1] == 'L');
}

static void fill_table(Table *t)
{
    unsigned size = os_memory.word == 8 ? 24 : 16;

    for (uint32_t i = 0; i < t->n_raw; i++) {
        char text[LONGEST_NAME];
        Symbol one = { .name = t->names->len };
        uint32_t name;
        bool defined;

        if (!read_symbol(t->symtab + (uint64_t)i * size, &name, &one.address,
                         &defined)) {
            break;
        }
        if (!name || !defined
            || !os_read_string(t->strtab + name, text, sizeof(text))
            || !text[0]) {
            continue;
        }
        g_string_append_len(t->names, text, strlen(text) + 1);
        g_array_append_val(t->symbols, one);
    }
    qsort(t->symbols->data, t->symbols->len, sizeof(Symbol), compare);
}

/* The symbols of a module; NULL if it has none. */
static const Table *table_of(uint64_t module)
{
    uint64_t kallsyms, symtab, strtab;
    uint32_t n, state = 0;
    char name[64];
    Table *t;

    if (!os_get_word(module, OS_MODULE_KALLSYMS, &kallsyms)
        || !os_is_kernel(kallsyms)
        || !os_get_word(kallsyms, OS_KALLSYMS_SYMTAB, &symtab)
        || !os_get_u32(kallsyms, OS_KALLSYMS_NUM, &n)
        || !os_get_word(kallsyms, OS_KALLSYMS_STRTAB, &strtab)
        || !os_is_kernel(symtab) || !os_is_kernel(strtab) || n > MAX_SYMBOLS
        || (os_get_u32(module, OS_MODULE_STATE, &state) && state == UNFORMED)
        || !os_read_string(module + os_offset(OS_MODULE_NAME), name,
                           sizeof(name))) {
        return NULL;
    }
    if (!tables) {
        tables = g_hash_table_new_full(NULL, NULL, NULL, free_table);
    }
    t = g_hash_table_lookup(tables, GSIZE_TO_POINTER(module));
    if (t && t->symtab == symtab && t->strtab == strtab && t->n_raw == n
        && !strcmp(t->module, name)) {
        return t;
    }
    t = g_new0(Table, 1);
    g_strlcpy(t->module, name, sizeof(t->module));
    t->symtab = symtab;
    t->strtab = strtab;
    t->n_raw = n;
    t->symbols = g_array_new(FALSE, FALSE, sizeof(Symbol));
    t->names = g_string_new(NULL);
    fill_table(t);
    if (g_hash_table_size(tables) >= OS_MAX_MODULES) {
        g_hash_table_remove_all(tables);
    }
    g_hash_table_replace(tables, GSIZE_TO_POINTER(module), t);
    return t;
}

/* ---- by name ---- */

typedef struct Search {
    const char *name;
    /* Length of the module's name in front of a colon; 0: any. */
    size_t module;
    uint64_t address, offset;
    char *text;
    size_t size;
    unsigned steps;
    bool hit;
} Search;

static bool find_name(uint64_t module, void *opaque)
{
    Search *s = opaque;
    const Table *t = table_of(module);
    const char *name = s->name + (s->module ? s->module + 1 : 0);

    if (t && (!s->module || (strlen(t->module) == s->module
                             && !strncmp(t->module, s->name, s->module)))) {
        for (unsigned i = 0; i < t->symbols->len && !s->hit; i++) {
            const Symbol *one = &g_array_index(t->symbols, Symbol, i);

            if (!strcmp(t->names->str + one->name, name)) {
                s->address = one->address;
                s->hit = true;
            }
        }
    }
    return !s->hit && ++s->steps < OS_MAX_MODULES;
}

bool os_module_symbol(const char *name, uint64_t *address)
{
    const char *colon = strchr(name, ':');
    Search s = { .name = name, .module = colon ? colon - name : 0 };
    uint64_t head;

    if (os_modules_head(&head, false)) {
        os_for_each_node(head, os_offset(OS_MODULE_LIST), find_name, &s);
    }
    *address = s.address;
    return s.hit;
}

/* ---- by address ---- */

static bool is_in_part(uint64_t at, OsField base_field, OsField size_field,
                       uint64_t address)
{
    uint64_t base;
    uint32_t size;

    return os_get_word(at, base_field, &base)
        && os_get_u32(at, size_field, &size)
        && address >= base && address - base < size;
}

bool os_module_holds(uint64_t module, uint64_t address)
{
    if (!os_knows(OS_MODULE_MEM)) {
        return is_in_part(module, OS_MODULE_CORE_BASE, OS_MODULE_CORE_SIZE,
                          address);
    }
    for (unsigned i = 0;
         i < MIN(os_layout.module_memory_count, MODULE_PARTS); i++) {
        if (is_in_part(module + os_offset(OS_MODULE_MEM)
                       + i * os_layout.module_memory_size,
                       OS_MODULE_MEM_BASE, OS_MODULE_MEM_SIZE, address)) {
            return true;
        }
    }
    return false;
}

/* The last symbol at or below an address that is no mark; the first of equal. */
static const Symbol *symbol_below(const Table *t, uint64_t address)
{
    const Symbol *best = NULL;

    for (unsigned i = 0; i < t->symbols->len; i++) {
        const Symbol *one = &g_array_index(t->symbols, Symbol, i);

        if (one->address > address) {
            break;
        }
        if ((!best || one->address > best->address)
            && !is_mark(t->names->str + one->name)) {
            best = one;
        }
    }
    return best;
}

static bool find_address(uint64_t module, void *opaque)
{
    Search *s = opaque;
    const Table *t;
    const Symbol *one;

    if (!os_module_holds(module, s->address)) {
        return ++s->steps < OS_MAX_MODULES;
    }
    t = table_of(module);
    one = t ? symbol_below(t, s->address) : NULL;
    if (one && os_module_holds(module, one->address)) {
        snprintf(s->text, s->size, "%s [%s]", t->names->str + one->name,
                 t->module);
        s->offset = s->address - one->address;
        s->hit = true;
    }
    return false;
}

bool os_module_symbol_at(uint64_t address, uint64_t *offset, char *text,
                         size_t size)
{
    Search s = { .address = address, .text = text, .size = size };
    uint64_t head;

    if (os_modules_head(&head, false)) {
        os_for_each_node(head, os_offset(OS_MODULE_LIST), find_address, &s);
    }
    if (s.hit) {
        *offset = s.offset;
    }
    return s.hit;
}
