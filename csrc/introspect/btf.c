/*
 * BTF: the type information that Linux carries in memory.
 *
 * What is found may be a copy that the guest's user has read into the page
 * cache, whose pages are not in a row, or no BTF at all: everything is checked
 * before it is used.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/btf.h"
#include "introspect/kallsyms.h"
#include "introspect/layout.h"

#define MAGIC 0xeb9f
#define HEADER 24u
#define SMALLEST (1 * MiB)
#define LARGEST (64 * MiB)
#define DEEPEST 8

enum {
    KIND_INT = 1, KIND_PTR, KIND_ARRAY, KIND_STRUCT, KIND_UNION, KIND_ENUM,
    KIND_FWD, KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT,
    KIND_FUNC, KIND_FUNC_PROTO, KIND_VAR, KIND_DATASEC, KIND_FLOAT,
    KIND_DECL_TAG, KIND_TYPE_TAG, KIND_ENUM64, KINDS
};

typedef struct BtfType {
    uint32_t name;
    uint32_t info;
    /* Size, or the type it refers to. */
    uint32_t size;
    /* What follows, in `types`. */
    uint32_t more;
} BtfType;

typedef struct Btf {
    uint8_t *data;
    const uint8_t *types;
    uint32_t types_len;
    const char *strings;
    uint32_t strings_len;
    BtfType *type;
    uint32_t n;
    GHashTable *structures;
} Btf;

static Btf btf;

static unsigned kind_of(const BtfType *t)
{
    return (t->info >> 24) & 31;
}

static unsigned vlen_of(const BtfType *t)
{
    return t->info & 0xffff;
}

static const char *string_at(uint32_t offset)
{
    return offset < btf.strings_len ? btf.strings + offset : "";
}

static void forget(void)
{
    if (btf.structures) {
        g_hash_table_destroy(btf.structures);
    }
    g_free(btf.type);
    g_free(btf.data);
    btf = (Btf) {};
}

/* Bytes that follow a type's three words; UINT32_MAX: it is none. */
static uint32_t more_of(const BtfType *t)
{
    switch (kind_of(t)) {
    case KIND_INT:
    case KIND_VAR:
    case KIND_DECL_TAG:
        return 4;
    case KIND_ARRAY:
        return 12;
    case KIND_STRUCT:
    case KIND_UNION:
    case KIND_DATASEC:
    case KIND_ENUM64:
        return 12 * vlen_of(t);
    case KIND_ENUM:
    case KIND_FUNC_PROTO:
        return 8 * vlen_of(t);
    case 0:
        return UINT32_MAX;
    default:
        return kind_of(t) < KINDS ? 0 : UINT32_MAX;
    }
}

static bool parse(void)
{
    GArray *found = g_array_new(FALSE, FALSE, sizeof(BtfType));
    BtfType none = {};
    bool ok = true;

    g_array_append_val(found, none);
    for (uint32_t at = 0; at + 12 <= btf.types_len; ) {
        BtfType t = {
            .name = os_u32_at(btf.types + at),
            .info = os_u32_at(btf.types + at + 4),
            .size = os_u32_at(btf.types + at + 8),
            .more = at + 12,
        };
        uint32_t more = more_of(&t);

        if (more > btf.types_len - at - 12 || t.name >= btf.strings_len) {
            ok = false;
            break;
        }
        g_array_append_val(found, t);
        at += 12 + more;
    }
    btf.n = found->len;
    btf.type = (BtfType *)g_array_free(found, FALSE);
    btf.structures = g_hash_table_new(g_str_hash, g_str_equal);
    for (uint32_t i = 1; ok && i < btf.n; i++) {
        const BtfType *t = &btf.type[i];

        if ((kind_of(t) == KIND_STRUCT || kind_of(t) == KIND_UNION)
            && t->name) {
            g_hash_table_insert(btf.structures, (char *)string_at(t->name),
                                GUINT_TO_POINTER(i));
        }
    }
    return ok;
}

/* Types that only say something of another one are passed over. */
static uint32_t strip(uint32_t id)
{
    for (unsigned depth = 0; id && id < btf.n && depth < 32; depth++) {
        switch (kind_of(&btf.type[id])) {
        case KIND_TYPEDEF:
        case KIND_VOLATILE:
        case KIND_CONST:
        case KIND_RESTRICT:
        case KIND_TYPE_TAG:
            id = btf.type[id].size;
            continue;
        default:
            return id;
        }
    }
    return 0;
}

static uint32_t size_of(uint32_t id, unsigned depth)
{
    const BtfType *t;

    id = strip(id);
    if (!id || depth > DEEPEST) {
        return 0;
    }
    t = &btf.type[id];
    switch (kind_of(t)) {
    case KIND_PTR:
        return os_memory.word;
    case KIND_ARRAY:
        return size_of(os_u32_at(btf.types + t->more), depth + 1)
            * os_u32_at(btf.types + t->more + 8);
    case KIND_INT:
    case KIND_STRUCT:
    case KIND_UNION:
    case KIND_ENUM:
    case KIND_FLOAT:
    case KIND_ENUM64:
        return t->size;
    default:
        return 0;
    }
}

static bool find_member(uint32_t id, const char *path, uint32_t base,
                        uint32_t *offset, uint32_t *size, unsigned depth)
{
    const BtfType *t;
    size_t len = strcspn(path, ".");

    id = strip(id);
    if (!id || depth > DEEPEST) {
        return false;
    }
    t = &btf.type[id];
    if (kind_of(t) != KIND_STRUCT && kind_of(t) != KIND_UNION) {
        return false;
    }
    for (unsigned i = 0; i < vlen_of(t); i++) {
        const uint8_t *m = btf.types + t->more + 12 * i;
        const char *name = string_at(os_u32_at(m));
        uint32_t bits = os_u32_at(m + 8);
        uint32_t at = base + (t->info >> 31 ? bits & 0xffffff : bits) / 8;

        if (!*name) {
            if (find_member(os_u32_at(m + 4), path, at, offset, size,
                            depth + 1)) {
                return true;
            }
        } else if (strlen(name) == len && !strncmp(name, path, len)) {
            if (path[len] == '.') {
                return find_member(os_u32_at(m + 4), path + len + 1, at,
                                   offset, size, depth + 1);
            }
            *offset = at;
            *size = size_of(os_u32_at(m + 4), 0);
            return true;
        }
    }
    return false;
}

static uint32_t structure(const char *name)
{
    return btf.structures
        ? GPOINTER_TO_UINT(g_hash_table_lookup(btf.structures, name)) : 0;
}

bool os_btf_field(const char *name, const char *path, uint32_t *offset,
                  uint32_t *size)
{
    return find_member(structure(name), path, 0, offset, size, 0);
}

bool os_btf_size(const char *name, uint32_t *size)
{
    uint32_t id = structure(name);

    *size = id ? btf.type[id].size : 0;
    return id;
}

uint64_t os_btf_types(void)
{
    return btf.n;
}

/* Length of what begins with a header like BTF's; 0: nothing does. */
static uint64_t length_at(const uint8_t *at, uint64_t room)
{
    uint64_t types_at, types, strings_at, strings;

    if (room < HEADER || os_u16_at(at) != MAGIC || at[2] != 1
        || os_u32_at(at + 4) != HEADER) {
        return 0;
    }
    types_at = os_u32_at(at + 8);
    types = os_u32_at(at + 12);
    strings_at = os_u32_at(at + 16);
    strings = os_u32_at(at + 20);
    if (types_at || strings_at != types || types % 4 || !strings
        || HEADER + types + strings > MIN(room, LARGEST)) {
        return 0;
    }
    return HEADER + types + strings;
}

/* Is there the kernel's own BTF? It is copied, as the guest runs on. */
static bool take(const uint8_t *at, uint64_t room)
{
    uint64_t len = length_at(at, room);
    uint32_t offset, size;

    if (len < SMALLEST) {
        return false;
    }
    forget();
    btf.data = g_memdup2(at, len);
    btf.types_len = os_u32_at(btf.data + 12);
    btf.types = btf.data + HEADER;
    btf.strings = (const char *)btf.types + btf.types_len;
    btf.strings_len = os_u32_at(btf.data + 20);
    if (!btf.strings[0] && !btf.strings[btf.strings_len - 1] && parse()
        && os_btf_field("task_struct", "comm", &offset, &size) && size == 16
        && os_btf_field("task_struct", "tasks.next", &offset, &size)
        && os_btf_field("mm_struct", "pgd", &offset, &size)) {
        return true;
    }
    forget();
    return false;
}

bool os_btf_find(void)
{
    uint64_t va;

    forget();
    if (os_symbol("__start_BTF", &va)) {
        uint64_t pa = os_kernel_to_physical(va);
        const uint8_t *at = pa == OS_NOWHERE ? NULL : os_ram(pa, HEADER);

        const OsSegment *s = at ? os_segment_of(at) : NULL;

        if (s && take(at, s->host + s->size - at)) {
            return true;
        }
    }
    for (unsigned i = 0; i < os_memory.n_segments; i++) {
        const OsSegment *s = &os_memory.segment[i];
        uint32_t magic;
        uint8_t pattern[4] = { 0x9f, 0xeb, 1, 0 };

        if (os_memory.big_endian) {
            pattern[0] = 0xeb;
            pattern[1] = 0x9f;
        }
        memcpy(&magic, pattern, 4);
        for (uint64_t at = 0; at + HEADER <= s->size; at += 4) {
            if (*(const uint32_t *)(s->host + at) == magic
                && take(s->host + at, s->size - at)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- the layout ---- */

static bool find_any(const char *name, const char *paths, uint32_t *offset,
                     uint32_t *size)
{
    g_auto(GStrv) path = g_strsplit(paths, "|", -1);

    for (unsigned i = 0; path[i]; i++) {
        if (os_btf_field(name, path[i], offset, size)) {
            return true;
        }
    }
    return false;
}

bool os_layout_from_btf(void)
{
    uint32_t offset, size;

    if (!os_btf_find()) {
        return false;
    }
    for (OsField f = 0; f < OS_FIELDS_COUNT; f++) {
        if (find_any(os_field_structure(f), os_field_name(f), &offset,
                     &size)) {
            os_layout_set(f, offset, OS_BTF, NULL);
        }
    }
    os_layout.maple = os_knows(OS_MM_ROOT);
    if (os_btf_size("module_memory", &size) && size
        && os_btf_field("module", "mem", &offset, &os_layout
                        .module_memory_count)) {
        os_layout.module_memory_size = size;
        os_layout.module_memory_count /= size;
    }
    return true;
}
