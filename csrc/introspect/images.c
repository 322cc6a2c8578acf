/*
 * Programs and libraries that a process has mapped, and their symbols.
 *
 * A file's symbols are read once and kept by what its first page has, which is
 * its header: processes share them, wherever they have the file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"
#include "introspect/images.h"
#include "introspect/page_cache.h"
#include "panda/os.h"
#include "qemu/timer.h"

#define FIRST_PAGE 4096
#define LONGEST_PATH 4096
#define MOST_FILES 4096
/* Between looks at a table that is not all in memory. */
#define PAUSE_NS (200 * SCALE_MS)
/* Pages that are looked at to find one that is there. */
#define MOST_LOOKS 4096
#define VM_WRITE 2
#define VM_ACCESS 7
#define VM_CODE 5

/* Symbols by first page. */
typedef struct Known {
    OsElfSymbols *symbols;
    int64_t again;
} Known;

static GHashTable *known;

/*
 * A file whose header was read once: a process that has just mapped it may not
 * have its first page yet, and not all kernels show what they have of a file.
 */
typedef struct Seen {
    OsElf header;
    /* That of its symbols. */
    char *key;
} Seen;

/* By the file's dentry and path. */
static GHashTable *seen;
static char *directory;
static bool doubtful;

static void free_known(gpointer data)
{
    Known *k = data;

    os_elf_symbols_free(k->symbols);
    g_free(k);
}

void os_images_doubt(void)
{
    doubtful = true;
}

static void free_seen(gpointer data)
{
    Seen *one = data;

    g_free(one->key);
    g_free(one);
}

static char *name_of(uint64_t file, const char *path)
{
    uint64_t dentry = 0;

    os_get_word(file, OS_FILE_DENTRY, &dentry);
    return g_strdup_printf("%" PRIx64 " %s", dentry, path);
}

static void remember(const OsElf *elf, uint64_t file, const char *path,
                     const char *key)
{
    Seen *one = g_new0(Seen, 1);

    if (!seen) {
        seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                     free_seen);
    }
    if (g_hash_table_size(seen) >= MOST_FILES) {
        g_hash_table_remove_all(seen);
    }
    one->header = *elf;
    one->key = g_strdup(key);
    g_hash_table_replace(seen, name_of(file, path), one);
}

/* What was read of a file by way of another process. */
static const OsElfSymbols *recall(OsElf *elf, uint64_t file, const char *path)
{
    g_autofree char *name = name_of(file, path);
    Seen *one = seen ? g_hash_table_lookup(seen, name) : NULL;
    Known *k = one ? g_hash_table_lookup(known, one->key) : NULL;
    OsElf before = *elf;

    if (!k) {
        return NULL;
    }
    *elf = one->header;
    elf->pgd = before.pgd;
    elf->cache = before.cache;
    elf->n_windows = before.n_windows;
    memcpy(elf->window, before.window, sizeof(elf->window));
    return os_elf_find_bias(elf) ? k->symbols : NULL;
}

/* A copy on the host, if it is one. */
static GMappedFile *find_copy(OsElf *elf, const char *path)
{
    g_autofree char *name = NULL;
    uint8_t page[FIRST_PAGE];
    GMappedFile *copy;

    if (!directory || path[0] != '/') {
        return NULL;
    }
    name = g_build_filename(directory, path, NULL);
    copy = g_mapped_file_new(name, FALSE, NULL);
    if (!copy) {
        return NULL;
    }
    elf->gaps = 0;
    os_elf_read(elf, 0, page, sizeof(page));
    if (elf->gaps || g_mapped_file_get_length(copy) < sizeof(page)
        || memcmp(page, g_mapped_file_get_contents(copy), sizeof(page))) {
        g_mapped_file_unref(copy);
        return NULL;
    }
    return copy;
}

static const OsElfSymbols *symbols_of(OsElf *elf, uint64_t file,
                                      const char *path)
{
    uint8_t page[FIRST_PAGE];
    g_autofree char *key = NULL;
    Known *k;

    if (!known) {
        known = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                      free_known);
    }
    os_elf_read(elf, 0, page, sizeof(page));
    key = g_compute_checksum_for_data(G_CHECKSUM_SHA256, page, sizeof(page));
    if (file) {
        remember(elf, file, path, key);
    }
    k = g_hash_table_lookup(known, key);
    if (k && (k->symbols->complete
              || (!doubtful && get_clock() < k->again))) {
        return k->symbols;
    }
    if (g_hash_table_size(known) >= MOST_FILES) {
        g_hash_table_remove_all(known);
    }
    elf->copy = find_copy(elf, path);
    k = g_new0(Known, 1);
    k->symbols = os_elf_symbols(elf);
    k->again = get_clock() + PAUSE_NS;
    g_clear_pointer(&elf->copy, g_mapped_file_unref);
    g_hash_table_replace(known, g_steal_pointer(&key), k);
    return k->symbols;
}

/* ---- a process' files ---- */

typedef struct File {
    OsElf elf;
    OsImage image;
} File;

typedef struct Files {
    /* By the address of their first part. */
    GPtrArray *file;
    /* struct file -> File. */
    GHashTable *by_file;
    uint64_t pgd;
    uint64_t address;
    /*
     * The file that the address is in, or the last one in front of it: what
     * follows a file's data has no file.
     */
    File *at;
} Files;

static File *new_file(Files *files, uint64_t file, uint64_t start)
{
    File *f = g_new0(File, 1);

    f->elf.pgd = files->pgd;
    f->image.file = file;
    f->image.start = start;
    g_ptr_array_add(files->file, f);
    if (file) {
        g_hash_table_insert(files->by_file, GSIZE_TO_POINTER(file), f);
    }
    return f;
}

static bool add_part(uint64_t vma, void *opaque)
{
    Files *files = opaque;
    uint64_t file = 0, flags = 0, pages = 0;
    OsWindow w = {};
    File *f = NULL;

    if (!os_get_word(vma, OS_VMA_START, &w.start)
        || !os_get_word(vma, OS_VMA_END, &w.end) || w.start >= w.end) {
        return false;
    }
    os_get_word(vma, OS_VMA_FILE, &file);
    os_get_word(vma, OS_VMA_FLAGS, &flags);
    os_get_word(vma, OS_VMA_PGOFF, &pages);
    w.offset = file ? pages * os_page_size() : 0;
    w.writable = flags & VM_WRITE;
    if (file) {
        f = g_hash_table_lookup(files->by_file, GSIZE_TO_POINTER(file));
    } else if ((flags & VM_ACCESS) != VM_CODE) {
        /* Without a file it may be the vdso, which is code that stays. */
        return true;
    }
    f = f ?: new_file(files, file, w.start);
    if (f->elf.n_windows < OS_WINDOWS) {
        f->elf.window[f->elf.n_windows++] = w;
        f->image.end = w.end;
    }
    if (w.start <= files->address) {
        files->at = f;
    }
    return files->file->len < MOST_FILES;
}

/* A page of the file that the process has: any that was not written to. */
static bool find_mapped(const OsElf *elf, OsFilePage *page)
{
    uint64_t size = os_page_size();
    unsigned looks = 0;

    for (unsigned i = 0; i < elf->n_windows; i++) {
        const OsWindow *w = &elf->window[i];

        for (uint64_t at = w->start; !w->writable && at < w->end;
             at += size) {
            /* It may be huge, and empty. */
            if (++looks > MOST_LOOKS) {
                return false;
            }
            page->pa = os_user_to_physical(elf->pgd, at);
            if (page->pa != OS_NOWHERE) {
                page->number = (w->offset + (at - w->start)) / size;
                return true;
            }
        }
    }
    return false;
}

static bool path_of(uint64_t file, char *path)
{
    if (!file) {
        g_strlcpy(path, "[vdso]", LONGEST_PATH);
        return true;
    }
    return os_file_path(file, path, LONGEST_PATH);
}

/* Open a file, whose path is known, and find its symbols. */
static bool open_image(File *f, const char *path)
{
    OsFilePage mapped;

    if (f->image.file) {
        f->elf.cache = os_cache_of(f->image.file, find_mapped(&f->elf, &mapped)
                                   ? &mapped : NULL);
    }
    if (os_elf_open(&f->elf)) {
        f->image.symbols = symbols_of(&f->elf, f->image.file, path);
    } else if (f->image.file && f->elf.gaps) {
        f->image.symbols = recall(&f->elf, f->image.file, path);
    }
    f->image.bias = f->elf.bias;
    return f->image.symbols;
}

int os_for_each_image(uint64_t task, const char *part, uint64_t address,
                      bool (*visit)(const OsImage *image, void *opaque),
                      void *opaque)
{
    g_autofree char *path = NULL;
    g_autoptr(GPtrArray) array = NULL;
    g_autoptr(GHashTable) by_file = NULL;
    Files files = { .address = address };
    int status;
    uint64_t mm = os_mm_of(task, &status);
    bool more = true;

    if (!mm) {
        return status;
    }
    path = g_malloc(LONGEST_PATH);
    files.file = array = g_ptr_array_new_with_free_func(g_free);
    files.by_file = by_file = g_hash_table_new(NULL, NULL);
    os_get_word(mm, OS_MM_PGD, &files.pgd);
    os_for_each_mapping(mm, add_part, &files);
    for (unsigned i = 0; i < array->len && more; i++) {
        File *f = g_ptr_array_index(array, i);

        if ((!address || f == files.at) && path_of(f->image.file, path)
            && (!part || strstr(path, part)) && open_image(f, path)
            && (!address || address - f->elf.bias < f->elf.end)) {
            f->image.path = path;
            more = visit(&f->image, opaque);
        }
    }
    doubtful = false;
    return PANDA_OK;
}

/* ---- look-ups ---- */

const OsElfSymbol *os_image_symbol_at(const OsImage *image, uint64_t address)
{
    const OsElfSymbols *s = image->symbols;
    uint64_t value = address - image->bias, low = 0, high = s->n;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (s->symbol[middle].value <= value) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low ? &s->symbol[low - 1] : NULL;
}

const OsElfSymbol *os_image_symbol(const OsImage *image, const char *name,
                                   uint64_t *from)
{
    const OsElfSymbols *s = image->symbols;
    const char *at = strchr(name, '@');
    size_t len = at ? (size_t)(at - name) : strlen(name);
    const char *version = at ? at + 1 + (at[1] == '@') : NULL;

    for (; *from < s->n; ++*from) {
        const OsElfSymbol *one = &s->symbol[*from];
        const char *text = s->text + one->name;

        if (!strncmp(text, name, len) && !text[len]
            && (!version || !strcmp(s->text + one->version, version))) {
            ++*from;
            return one;
        }
    }
    return NULL;
}

/* The end of a path says more than its beginning. */
static void copy_path(char *to, size_t size, const char *path)
{
    size_t len = strlen(path);

    g_strlcpy(to, len < size ? path : path + len - size + 1, size);
}

void os_fill_symbol(const OsImage *image, const OsElfSymbol *s,
                    PandaSymbol *out)
{
    const char *text = image->symbols->text;
    uint64_t mask = os_memory.word == 4 ? UINT32_MAX : UINT64_MAX;

    *out = (PandaSymbol) {
        .address = (s->value + image->bias) & mask,
        .size = s->size,
        .bias = image->bias & mask,
        .kind = s->kind,
        .binding = s->binding,
        .number = s->dynamic ? (int32_t)s->number : -1,
    };
    g_strlcpy(out->name, text + s->name, sizeof(out->name));
    g_strlcpy(out->version, text + s->version, sizeof(out->version));
    copy_path(out->path, sizeof(out->path), image->path);
}

/* ---- the public functions ---- */

typedef struct Wanted {
    const char *name;
    uint64_t address;
    PandaSymbol *out;
    uint64_t room, n;
    bool found, seen;
} Wanted;

static bool see_address(const OsImage *image, void *opaque)
{
    Wanted *w = opaque;
    const OsElfSymbol *s = os_image_symbol_at(image, w->address);
    uint64_t offset = s ? w->address - image->bias - s->value : 0;

    if (s && (!s->size || offset < s->size)) {
        os_fill_symbol(image, s, w->out);
        w->out->offset = offset;
        w->found = true;
    }
    return false;
}

int panda_os_user_symbol_at(uint64_t task, uint64_t address,
                            PandaSymbol *symbol)
{
    OS_LOCK_GUARD();
    Wanted w = { .address = address, .out = symbol };
    int status = os_for_each_image(task, NULL, address, see_address, &w);

    if (status != PANDA_OK || w.found) {
        return status;
    }
    return panda_fail(PANDA_ERR_OS, "0x%" PRIx64 " is in no symbol that is "
                      "known", address);
}

static bool see_name(const OsImage *image, void *opaque)
{
    Wanted *w = opaque;
    const OsElfSymbol *best = NULL, *s;
    uint64_t from = 0;

    w->seen = true;
    /* Others are asked for by a program that was linked long ago. */
    while ((s = os_image_symbol(image, w->name, &from))) {
        if (!best || s->binding > best->binding
            || (s->binding == best->binding && s->dynamic > best->dynamic)) {
            best = s;
        }
    }
    if (best) {
        os_fill_symbol(image, best, w->out);
        w->found = true;
    }
    return !w->found;
}

int panda_os_user_symbol(uint64_t task, const char *library,
                         const char *name, PandaSymbol *symbol)
{
    OS_LOCK_GUARD();
    Wanted w = { .name = name, .out = symbol };
    int status = os_for_each_image(task, library, 0, see_name, &w);

    if (status != PANDA_OK || w.found) {
        return status;
    }
    if (!w.seen && library) {
        return panda_fail(PANDA_ERR_OS, "the process has no program or "
                          "library with '%s' in its path", library);
    }
    return panda_fail(PANDA_ERR_OS, "there is no symbol '%s' in %s%s", name,
                      library ? library : "the process",
                      library ? "" : "'s program and libraries");
}

static bool list_symbols(const OsImage *image, void *opaque)
{
    Wanted *w = opaque;

    w->seen = true;
    w->n = image->symbols->n;
    for (uint64_t i = 0; i < MIN(w->n, w->room); i++) {
        os_fill_symbol(image, &image->symbols->symbol[i], &w->out[i]);
    }
    return false;
}

int64_t panda_os_user_symbols(uint64_t task, const char *library,
                              PandaSymbol *symbols, uint64_t n)
{
    OS_LOCK_GUARD();
    Wanted w = { .out = symbols, .room = n };
    int status = os_for_each_image(task, library, 0, list_symbols, &w);

    if (status != PANDA_OK || w.seen) {
        return status == PANDA_OK ? (int64_t)w.n : status;
    }
    return panda_fail(PANDA_ERR_OS, "the process has no program or library "
                      "with '%s' in its path", library ?: "");
}

typedef struct Libraries {
    PandaLibrary *out;
    uint64_t room, n;
} Libraries;

static bool list_library(const OsImage *image, void *opaque)
{
    Libraries *l = opaque;

    if (l->n < l->room) {
        PandaLibrary *one = &l->out[l->n];

        *one = (PandaLibrary) {
            .start = image->start,
            .end = image->end,
            .bias = image->bias & (os_memory.word == 4 ? UINT32_MAX
                                                       : UINT64_MAX),
            .symbols = image->symbols->n,
            .complete = image->symbols->complete,
        };
        copy_path(one->path, sizeof(one->path), image->path);
    }
    l->n++;
    return true;
}

int64_t panda_os_libraries(uint64_t task, PandaLibrary *libraries, uint64_t n)
{
    OS_LOCK_GUARD();
    Libraries l = { libraries, n };
    int status = os_for_each_image(task, NULL, 0, list_library, &l);

    return status == PANDA_OK ? (int64_t)l.n : status;
}

int panda_os_set_symbol_directory(const char *path)
{
    OS_LOCK_GUARD();

    if (path && !g_file_test(path, G_FILE_TEST_IS_DIR)) {
        return panda_fail(PANDA_ERR_ARGUMENT, "there is no directory '%s'",
                          path);
    }
    g_free(directory);
    directory = g_strdup(path);
    if (known) {
        g_hash_table_remove_all(known);
    }
    return PANDA_OK;
}
