/*
 * Symbols of ELF files: the dynamic table, which every program that is linked
 * dynamically has in memory, and the full one if the file has it and it can be
 * read.
 *
 * All numbers are the guest's: sizes are bounded, every index is checked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "introspect/elf.h"
#include "introspect/elf_layout.h"

#define MOST_SYMBOLS (1u << 20)
#define MOST_TEXT (64u << 20)
#define MOST_SECTIONS 65536u
#define MOST_TAGS 512u
#define MOST_VERSIONS 4096u
#define MOST_CHAINS (1u << 22)
#define LONGEST_CHAIN 65536u

#define GNU_HASH 0x6ffffef5
#define GNU_VERSYM 0x6ffffff0
#define GNU_VERDEF 0x6ffffffc
#define GNU_VERDEFNUM 0x6ffffffd
#define IS_FUNCTION(kind) ((kind) == STT_FUNC || (kind) == 10)

typedef struct Table {
    OsElf *elf;
    GArray *out;
    /* Texts of all symbols, one after the other. */
    GByteArray *text;
} Table;

/* What the dynamic section says, addresses without bias. */
typedef struct Dynamic {
    uint64_t hash, gnu_hash, strtab, symtab, strsz, syment;
    uint64_t versym, verdef, verdefnum;
} Dynamic;

/* ---- names ---- */

static uint32_t add_text(Table *t, const char *text, size_t len)
{
    uint32_t at = t->text->len;

    g_byte_array_append(t->text, (const uint8_t *)text, len);
    g_byte_array_append(t->text, (const uint8_t *)"", 1);
    return at;
}

/* A text out of a table of them; false: it is not in it, or not ended. */
static bool text_at(const char *texts, uint64_t size, uint64_t at,
                    const char **text, size_t *len)
{
    const char *end;

    if (at >= size) {
        return false;
    }
    *text = texts + at;
    end = memchr(*text, 0, size - at);
    *len = end ? end - *text : 0;
    return *len;
}

/* ---- tables ---- */

/* Marks of what is code and what data are no symbols. */
static bool is_mark(const OsElf *elf, const char *name)
{
    return name[0] == '$'
        && (elf->machine == EM_ARM || elf->machine == EM_AARCH64
            || elf->machine == EM_RISCV);
}

/*
 * Of PowerPC's first 64-bit convention: a function's symbol leads to a triple
 * whose first word is where its code is.
 */
static bool follow_descriptor(OsElf *elf, uint64_t *value)
{
    uint8_t entry[8];
    uint64_t offset, address;

    if (os_read_user(elf->pgd, elf->bias + *value, entry, 8) == 8) {
        address = os_elf_number(elf, entry, 8);
        /* Until it is relocated it has no bias. */
        if (address - elf->bias < address && address >= elf->bias) {
            address -= elf->bias;
        }
    } else if (os_elf_offset(elf, *value, &offset)) {
        os_elf_read(elf, offset, entry, 8);
        address = os_elf_number(elf, entry, 8);
    } else {
        return false;
    }
    if (!os_elf_offset(elf, address, &offset)) {
        return false;
    }
    *value = address;
    return true;
}

static void take_symbol(Table *t, const uint8_t *entry, const char *texts,
                        uint64_t texts_size, bool dynamic, uint32_t number,
                        uint32_t version)
{
    OsElf *elf = t->elf;
    const ElfFields *f = os_elf_fields(elf);
    uint8_t info = ELF_GET(elf, entry, f->st_info);
    OsElfSymbol s = {
        .value = ELF_GET(elf, entry, f->st_value),
        .size = ELF_GET(elf, entry, f->st_size),
        .kind = info & 15,
        .binding = info >> 4,
        .dynamic = dynamic,
        .number = number,
        .version = version,
    };
    const char *name;
    size_t len;

    /* Defined, with an address, and neither section, file nor thread-local. */
    if (!ELF_GET(elf, entry, f->st_shndx) || !s.value
        || ELF_GET(elf, entry, f->st_shndx) == SHN_ABS
        || s.kind == STT_SECTION || s.kind == STT_FILE || s.kind == STT_TLS
        || !text_at(texts, texts_size, ELF_GET(elf, entry, f->st_name), &name,
                    &len) || is_mark(elf, name)) {
        return;
    }
    if (elf->machine == EM_ARM && IS_FUNCTION(s.kind)) {
        s.value &= ~1ull;
    }
    if (elf->machine == EM_PPC64 && (elf->flags & 3) < 2
        && s.kind == STT_FUNC && !follow_descriptor(elf, &s.value)) {
        return;
    }
    s.name = add_text(t, name, len);
    g_array_append_val(t->out, s);
}

/* Symbols and texts that lie in the file. */
static void take_table(Table *t, uint64_t offset, uint64_t n,
                       uint64_t texts_offset, uint64_t texts_size,
                       bool dynamic, const uint32_t *version)
{
    const ElfFields *f = os_elf_fields(t->elf);
    g_autofree uint8_t *entries = NULL;
    g_autofree char *texts = NULL;

    if (!n || n > MOST_SYMBOLS || !texts_size || texts_size > MOST_TEXT) {
        return;
    }
    entries = g_try_malloc(n * f->sym_size);
    texts = g_try_malloc(texts_size);
    if (!entries || !texts) {
        return;
    }
    os_elf_read(t->elf, offset, entries, n * f->sym_size);
    os_elf_read(t->elf, texts_offset, texts, texts_size);
    for (uint64_t i = 1; i < n; i++) {
        take_symbol(t, entries + i * f->sym_size, texts, texts_size, dynamic,
                    i, version ? version[i] : 0);
    }
}

/* ---- the full table ---- */

static void take_full_table(Table *t)
{
    OsElf *elf = t->elf;
    const ElfFields *f = os_elf_fields(elf);
    g_autofree uint8_t *header = NULL;
    uint64_t size = elf->section_size, n = elf->section_count;
    unsigned gaps = elf->gaps;

    if (size != f->shdr_size || !n || n > MOST_SECTIONS) {
        return;
    }
    header = g_malloc(n * size);
    os_elf_read(elf, elf->sections, header, n * size);
    if (elf->gaps != gaps) {
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *h = header + i * size, *texts;
        uint64_t link = ELF_GET(elf, h, f->sh_link);

        if (ELF_GET(elf, h, f->sh_type) != SHT_SYMTAB || link >= n
            || ELF_GET(elf, h, f->sh_entsize) != f->sym_size) {
            continue;
        }
        texts = header + link * size;
        take_table(t, ELF_GET(elf, h, f->sh_offset),
                   ELF_GET(elf, h, f->sh_size) / f->sym_size,
                   ELF_GET(elf, texts, f->sh_offset),
                   ELF_GET(elf, texts, f->sh_size), false, NULL);
    }
}

/* ---- the dynamic table ---- */

/* In memory addresses may have been relocated, or not. */
static uint64_t without_bias(const OsElf *elf, uint64_t address, bool relocated)
{
    if (relocated) {
        address -= elf->bias;
    }
    return elf->word == 4 ? (uint32_t)address : address;
}

/* The first symbol is nothing, and so is the first text. */
static bool tables_fit(OsElf *elf, const Dynamic *d, bool relocated)
{
    static const uint8_t nothing[32];
    uint64_t symtab, strtab;
    uint8_t first[32], text[2];

    if (!os_elf_offset(elf, without_bias(elf, d->symtab, relocated), &symtab)
        || !os_elf_offset(elf, without_bias(elf, d->strtab, relocated),
                          &strtab)) {
        return false;
    }
    os_elf_read(elf, symtab, first, os_elf_fields(elf)->sym_size);
    os_elf_read(elf, strtab, text, sizeof(text));
    return !memcmp(first, nothing, os_elf_fields(elf)->sym_size)
        && !text[0] && text[1];
}

static void take_bias_off(OsElf *elf, Dynamic *d)
{
    uint64_t offset;
    /* Those that glibc relocates; where versions are defined it leaves alone. */
    uint64_t *const address[] = {
        &d->hash, &d->gnu_hash, &d->strtab, &d->symtab, &d->versym,
    };
    bool relocated = tables_fit(elf, d, true) && !tables_fit(elf, d, false);

    for (unsigned i = 0; i < ARRAY_SIZE(address); i++) {
        if (*address[i]) {
            *address[i] = without_bias(elf, *address[i], relocated);
        }
    }
    if (d->verdef && !os_elf_offset(elf, d->verdef, &offset)) {
        d->verdef = without_bias(elf, d->verdef, relocated);
    }
}

static bool read_dynamic(OsElf *elf, Dynamic *d)
{
    unsigned pair = 2 * elf->word;
    uint64_t n = MIN(elf->dynamic_size / pair, MOST_TAGS), offset;
    uint8_t entry[16];

    *d = (Dynamic) {};
    if (!elf->dynamic || !os_elf_offset(elf, elf->dynamic, &offset)) {
        return false;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t tag, value;

        os_elf_read(elf, offset + i * pair, entry, pair);
        tag = os_elf_number(elf, entry, elf->word);
        value = os_elf_number(elf, entry + elf->word, elf->word);
        switch (tag) {
        case DT_HASH:
            d->hash = value;
            break;
        case GNU_HASH:
            d->gnu_hash = value;
            break;
        case DT_STRTAB:
            d->strtab = value;
            break;
        case DT_SYMTAB:
            d->symtab = value;
            break;
        case DT_STRSZ:
            d->strsz = value;
            break;
        case DT_SYMENT:
            d->syment = value;
            break;
        case GNU_VERSYM:
            d->versym = value;
            break;
        case GNU_VERDEF:
            d->verdef = value;
            break;
        case GNU_VERDEFNUM:
            d->verdefnum = value;
            break;
        }
    }
    take_bias_off(elf, d);
    return d->symtab && d->strtab;
}

static uint32_t u32_in(OsElf *elf, uint64_t offset)
{
    uint8_t four[4];

    os_elf_read(elf, offset, four, 4);
    return os_elf_number(elf, four, 4);
}

/* The last symbol of GNU's table ends the chain of the highest bucket. */
static uint64_t count_by_gnu_hash(OsElf *elf, uint64_t offset)
{
    uint64_t buckets = u32_in(elf, offset);
    uint64_t first = u32_in(elf, offset + 4);
    uint64_t bloom = u32_in(elf, offset + 8);
    uint64_t at = offset + 16 + bloom * elf->word, last = 0;
    g_autofree uint8_t *bucket = NULL;

    if (!buckets || buckets > MOST_CHAINS || bloom > MOST_CHAINS) {
        return 0;
    }
    bucket = g_malloc(buckets * 4);
    os_elf_read(elf, at, bucket, buckets * 4);
    for (uint64_t i = 0; i < buckets; i++) {
        last = MAX(last, os_elf_number(elf, bucket + 4 * i, 4));
    }
    at += buckets * 4;
    if (last < first) {
        return first;
    }
    for (unsigned i = 0; i < LONGEST_CHAIN; i++, last++) {
        if (u32_in(elf, at + (last - first) * 4) & 1) {
            return last + 1;
        }
    }
    return 0;
}

static uint64_t count_symbols(OsElf *elf, const Dynamic *d)
{
    const ElfFields *f = os_elf_fields(elf);
    uint64_t offset, n = 0;

    if (d->hash && os_elf_offset(elf, d->hash, &offset)) {
        n = u32_in(elf, offset + 4);
    }
    if ((!n || n > MOST_SYMBOLS) && d->gnu_hash
        && os_elf_offset(elf, d->gnu_hash, &offset)) {
        n = count_by_gnu_hash(elf, offset);
    }
    /* Linkers put the texts behind the table. */
    if ((!n || n > MOST_SYMBOLS) && d->strtab > d->symtab) {
        n = (d->strtab - d->symtab) / f->sym_size;
    }
    return n > MOST_SYMBOLS ? 0 : n;
}

/* Names of the versions a file defines, by number: places in the text. */
static void read_versions(Table *t, const Dynamic *d, const char *texts,
                          uint32_t *name)
{
    OsElf *elf = t->elf;
    uint64_t offset;
    uint8_t def[20], aux[8];

    if (!d->verdef || !os_elf_offset(elf, d->verdef, &offset)) {
        return;
    }
    for (uint64_t i = 0; i < MIN(d->verdefnum, MOST_VERSIONS); i++) {
        uint64_t number, next;
        const char *text;
        size_t len;

        os_elf_read(elf, offset, def, sizeof(def));
        number = os_elf_number(elf, def + 4, 2) & 0x7fff;
        os_elf_read(elf, offset + os_elf_number(elf, def + 12, 4), aux,
                    sizeof(aux));
        /* The first one is the file's own name. */
        if (number > 1 && number < MOST_VERSIONS
            && text_at(texts, d->strsz, os_elf_number(elf, aux, 4), &text,
                       &len)) {
            name[number] = add_text(t, text, len);
        }
        next = os_elf_number(elf, def + 16, 4);
        if (!next) {
            break;
        }
        offset += next;
    }
}

static void take_dynamic_table(Table *t)
{
    OsElf *elf = t->elf;
    g_autofree uint32_t *version = NULL, *names = NULL;
    g_autofree uint8_t *versym = NULL;
    g_autofree char *texts = NULL;
    uint64_t n, symtab, strtab, offset;
    Dynamic d;

    if (!read_dynamic(elf, &d) || !d.strsz || d.strsz > MOST_TEXT
        || !os_elf_offset(elf, d.symtab, &symtab)
        || !os_elf_offset(elf, d.strtab, &strtab)) {
        return;
    }
    n = count_symbols(elf, &d);
    if (n && d.versym && os_elf_offset(elf, d.versym, &offset)) {
        texts = g_malloc(d.strsz);
        os_elf_read(elf, strtab, texts, d.strsz);
        names = g_new0(uint32_t, MOST_VERSIONS);
        read_versions(t, &d, texts, names);
        versym = g_malloc(n * 2);
        version = g_new0(uint32_t, n);
        os_elf_read(elf, offset, versym, n * 2);
        for (uint64_t i = 0; i < n; i++) {
            version[i] = names[os_elf_number(elf, versym + 2 * i, 2)
                               & (MOST_VERSIONS - 1)];
        }
    }
    take_table(t, symtab, n, strtab, d.strsz, true, version);
}

/* ---- all of them ---- */

/* Which of the names of an address is to be shown. */
static int rank(const OsElfSymbol *s)
{
    return IS_FUNCTION(s->kind) * 8 + (s->kind == STT_OBJECT) * 4
        + (s->binding == STB_GLOBAL) * 2 + (s->binding == STB_WEAK)
        + (s->size ? 16 : 0);
}

static gint compare(gconstpointer a, gconstpointer b, gpointer text)
{
    const OsElfSymbol *x = a, *y = b;
    int d;

    if (x->value != y->value) {
        return x->value < y->value ? -1 : 1;
    }
    d = rank(x) - rank(y);
    /* A table that has grown has its older sizes too. */
    d = d ?: (x->size > y->size) - (x->size < y->size);
    /* The plain name: read, not __read. */
    d = d ?: (int)(strspn((char *)text + y->name, "_")
                   - strspn((char *)text + x->name, "_"));
    d = d ?: strcmp((char *)text + y->name, (char *)text + x->name);
    /* Of two that are the same the dynamic one comes last. */
    return d ?: x->dynamic - y->dynamic;
}

static uint64_t drop_doubles(OsElfSymbol *symbol, uint64_t n,
                             const char *text)
{
    uint64_t kept = 0;

    for (uint64_t i = 0; i < n; i++) {
        if (i + 1 < n && symbol[i].value == symbol[i + 1].value
            && !symbol[i].dynamic
            && !strcmp(text + symbol[i].name, text + symbol[i + 1].name)) {
            continue;
        }
        symbol[kept++] = symbol[i];
    }
    return kept;
}

OsElfSymbols *os_elf_symbols(OsElf *elf)
{
    OsElfSymbols *s = g_new0(OsElfSymbols, 1);
    Table t = {
        .elf = elf,
        .out = g_array_new(FALSE, FALSE, sizeof(OsElfSymbol)),
        .text = g_byte_array_new(),
    };

    add_text(&t, "", 0);
    elf->gaps = 0;
    take_dynamic_table(&t);
    s->dynamic_complete = !elf->gaps;
    take_full_table(&t);
    s->complete = !elf->gaps;
    s->n = t.out->len;
    s->symbol = (OsElfSymbol *)g_array_free(t.out, FALSE);
    s->text_size = t.text->len;
    s->text = (char *)g_byte_array_free(t.text, FALSE);
    if (s->n) {
        g_qsort_with_data(s->symbol, s->n, sizeof(*s->symbol), compare,
                          s->text);
        s->n = drop_doubles(s->symbol, s->n, s->text);
    }
    return s;
}

void os_elf_symbols_free(OsElfSymbols *s)
{
    if (s) {
        g_free(s->symbol);
        g_free(s->text);
        g_free(s);
    }
}
