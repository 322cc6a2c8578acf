/*
 * dynamic_symbols: who has which symbol, and who wants to know.
 *
 * A process is looked at when it has mapped something, and when it runs for the
 * first time after somebody has asked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/images.h"
#include "introspect/internal.h"
#include "plugins/plugins.h"
#include "panda/os_events.h"
#include "panda/plugins/dynamic_symbols.h"

#define STT_FUNCTION 2

/* Someone who waits; freed when the process ends, as it may be running. */
typedef struct Request {
    hook_symbol_resolve pub;
    bool removed;
} Request;

/* A file of a process that a request needs not look at again. */
typedef struct Done {
    uint64_t mm;
    uint64_t file;
    uint64_t start;
    int64_t id;
} Done;

/* Who was told of which process. */
typedef struct Told {
    Request *request;
    uint64_t mm;
    uint64_t asid;
} Told;

/* A symbol that was found and is to be told. */
typedef struct Hit {
    Request *request;
    symbol sym;
} Hit;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static GPtrArray *requests;
static int last_id;

/* Of the CPU thread. */
static GHashTable *done;
static GHashTable *looked_at;
static GArray *told;
static int looked_at_for;
static uint64_t last_mm;

static int64_t listener[PANDA_OS_EVENT_KINDS];
static bool listening;

static guint hash_done(gconstpointer key)
{
    const Done *d = key;

    return d->mm / 64 ^ d->file / 64 * 31 ^ d->start / 4096 ^ d->id * 7919;
}

static gboolean is_equal(gconstpointer a, gconstpointer b)
{
    return !memcmp(a, b, sizeof(Done));
}

static void fill(symbol *to, const PandaSymbol *s)
{
    *to = (symbol) {
        .address = s->address,
        .value = s->address - s->bias,
        .symtab_idx = s->number,
        .reloc_type = s->kind,
    };
    g_strlcpy(to->name, s->name, sizeof(to->name));
    g_strlcpy(to->section, s->path, sizeof(to->section));
}

/* ---- looking ---- */

typedef struct Look {
    uint64_t mm;
    GArray *hits;
} Look;

static void add_hit(Look *look, Request *r, const OsImage *image,
                    const OsElfSymbol *s)
{
    Hit hit = { .request = r };
    PandaSymbol found;

    os_fill_symbol(image, s, &found);
    fill(&hit.sym, &found);
    g_array_append_val(look->hits, hit);
}

/* Is there nothing more to be found for a request in a file? */
static bool look_for(Look *look, Request *r, const OsImage *image)
{
    const OsElfSymbols *s = image->symbols;
    const OsElfSymbol *one;
    uint64_t from = 0;

    if (r->pub.hook_offset) {
        Hit hit = { .request = r };

        hit.sym.address = image->start + r->pub.offset;
        hit.sym.value = r->pub.offset;
        hit.sym.symtab_idx = -1;
        g_strlcpy(hit.sym.section, image->path, sizeof(hit.sym.section));
        g_array_append_val(look->hits, hit);
        return true;
    }
    if (r->pub.name[0]) {
        one = os_image_symbol(image, r->pub.name, &from);
        if (one) {
            add_hit(look, r, image, one);
        }
        return one || s->complete;
    }
    for (uint64_t i = 0; s->dynamic_complete && i < s->n; i++) {
        if (s->symbol[i].kind == STT_FUNCTION) {
            add_hit(look, r, image, &s->symbol[i]);
        }
    }
    return s->dynamic_complete;
}

static bool look_at_image(const OsImage *image, void *opaque)
{
    Look *look = opaque;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < requests->len; i++) {
        Request *r = g_ptr_array_index(requests, i);
        Done key = { look->mm, image->file, image->start, r->pub.id };

        if (r->removed || !r->pub.enabled
            || (r->pub.section[0] && !strstr(image->path, r->pub.section))
            || g_hash_table_contains(done, &key)) {
            continue;
        }
        if (look_for(look, r, image)) {
            g_hash_table_add(done, g_memdup2(&key, sizeof(key)));
        }
    }
    pthread_mutex_unlock(&lock);
    return true;
}

static void remember(Request *r, uint64_t mm, uint64_t asid)
{
    Told one = { r, mm, asid };

    for (unsigned i = 0; i < told->len; i++) {
        const Told *t = &g_array_index(told, Told, i);

        if (t->request == r && t->mm == mm) {
            return;
        }
    }
    g_array_append_val(told, one);
}

/* Look at a process, or at what it has at an address. */
static void look(const PandaTask *task, uint64_t address)
{
    Look l = { .mm = task->mm };
    uint64_t asid = task->asid;

    if (!task->mm) {
        return;
    }
    l.hits = g_array_new(FALSE, FALSE, sizeof(Hit));
    WITH_QEMU_LOCK_GUARD(&os_lock) {
        if (address) {
            os_images_doubt();
        }
        os_for_each_image(task->task, NULL, address, look_at_image, &l);
    }
    asid = asid ?: panda_arch_get_asid(panda_vcpu.cs);
    for (unsigned i = 0; i < l.hits->len; i++) {
        Hit *hit = &g_array_index(l.hits, Hit, i);

        if (hit->request->pub.enabled && !hit->request->removed
            && !qatomic_read(&panda_gate_closed)) {
            remember(hit->request, l.mm, asid);
            hit->request->pub.cb(&hit->request->pub, &hit->sym, asid);
        }
    }
    g_array_free(l.hits, TRUE);
}

/* ---- when ---- */

static gboolean is_of(gpointer key, gpointer value, gpointer mm)
{
    return ((Done *)key)->mm == *(uint64_t *)mm;
}

static void forget(uint64_t mm)
{
    for (unsigned i = 0; i < told->len; ) {
        Told t = g_array_index(told, Told, i);

        if (t.mm != mm) {
            i++;
            continue;
        }
        g_array_remove_index_fast(told, i);
        if (t.request->pub.gone && !t.request->removed
            && !qatomic_read(&panda_gate_closed)) {
            t.request->pub.gone(&t.request->pub, t.asid);
        }
    }
    g_hash_table_foreach_remove(done, is_of, &mm);
    g_hash_table_remove(looked_at, &mm);
    last_mm = 0;
}

/* A process that was there before it was asked for. */
static void look_once(const PandaTask *task)
{
    if (!task->mm
        || (task->mm == last_mm && looked_at_for == qatomic_read(&last_id))) {
        return;
    }
    if (looked_at_for != qatomic_read(&last_id)) {
        looked_at_for = qatomic_read(&last_id);
        g_hash_table_remove_all(looked_at);
    }
    last_mm = task->mm;
    if (g_hash_table_contains(looked_at, &task->mm)) {
        return;
    }
    g_hash_table_add(looked_at, g_memdup2(&task->mm, sizeof(task->mm)));
    look(task, 0);
}

static int happened(PandaCPU *cpu, const PandaOsEvent *event, void *context)
{
    switch (event->kind) {
    case PANDA_OS_EXEC:
        forget(event->task.mm);
        look_once(&event->task);
        break;
    case PANDA_OS_FORK:
        /* Its memory map may be where that of one was that ran exec. */
        if (event->other.mm != event->task.mm) {
            forget(event->other.mm);
        }
        break;
    case PANDA_OS_EXIT:
        if (event->flag) {
            forget(event->task.mm);
        }
        break;
    case PANDA_OS_SWITCH:
        look_once(&event->task);
        break;
    case PANDA_OS_MMAP:
        if (event->file) {
            look(&event->task, event->mapping.start);
        }
        break;
    }
    return 0;
}

static void stop_listening(void)
{
    for (unsigned kind = 0; kind < PANDA_OS_EVENT_KINDS; kind++) {
        if (listener[kind] > 0) {
            panda_os_events_remove(listener[kind]);
        }
        listener[kind] = 0;
    }
    listening = false;
}

static int start_listening(void)
{
    static const uint8_t kinds[] = {
        PANDA_OS_EXEC, PANDA_OS_FORK, PANDA_OS_EXIT, PANDA_OS_SWITCH,
        PANDA_OS_MMAP,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(kinds) && !listening; i++) {
        PandaOsListenerSpec spec = {
            .kind = kinds[i], .function = happened,
            .missing = panda_plugin_misses,
            .context = (void *)"dynamic_symbols",
        };

        listener[kinds[i]] = panda_os_events_add(&spec);
        if (listener[kinds[i]] < 0) {
            int status = listener[kinds[i]];

            stop_listening();
            return status;
        }
    }
    listening = true;
    return PANDA_OK;
}

/* ---- the plugin's functions ---- */

static void make_tables(void)
{
    if (!requests) {
        requests = g_ptr_array_new();
        done = g_hash_table_new_full(hash_done, is_equal, g_free, NULL);
        looked_at = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                          NULL);
        told = g_array_new(FALSE, FALSE, sizeof(Told));
    }
}

int panda_dynamic_symbols_hook_symbol_resolution(const hook_symbol_resolve *h)
{
    Request *r;
    int status, id;

    if (!h->cb) {
        return panda_fail(PANDA_ERR_ARGUMENT, "a function is needed");
    }
    pthread_mutex_lock(&lock);
    make_tables();
    r = g_new0(Request, 1);
    r->pub = *h;
    r->pub.name[MAX_PATH_LEN - 1] = r->pub.section[MAX_PATH_LEN - 1] = 0;
    id = r->pub.id = last_id + 1;
    g_ptr_array_add(requests, r);
    qatomic_set(&last_id, id);
    pthread_mutex_unlock(&lock);
    status = start_listening();
    if (status != PANDA_OK) {
        panda_dynamic_symbols_remove(id);
        return status;
    }
    return id;
}

int panda_dynamic_symbols_remove(int id)
{
    bool found = false, more = false;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; requests && i < requests->len; i++) {
        Request *r = g_ptr_array_index(requests, i);

        if (r->pub.id == id && !r->removed) {
            r->removed = found = true;
        }
        more |= !r->removed;
    }
    pthread_mutex_unlock(&lock);
    if (found && !more) {
        stop_listening();
    }
    return found ? PANDA_OK
                 : panda_fail(PANDA_ERR_ARGUMENT, "nobody waits for a symbol "
                              "as %d", id);
}

/* The task of an address space; 0 with an error set. */
static uint64_t task_of(uint64_t asid)
{
    g_autofree PandaTask *tasks = NULL;
    PandaTask current;
    int64_t n;

    if (panda_os_current(&current) == PANDA_OK
        && (!asid || current.asid == asid)) {
        return current.task;
    }
    n = panda_os_processes(NULL, 0);
    if (n <= 0) {
        return 0;
    }
    tasks = g_new0(PandaTask, n);
    n = MIN(n, panda_os_processes(tasks, n));
    for (int64_t i = 0; i < n; i++) {
        if (asid && tasks[i].asid == asid) {
            return tasks[i].task;
        }
    }
    panda_fail(PANDA_ERR_OS, "no process has the address space 0x%" PRIx64,
               asid);
    return 0;
}

symbol panda_dynamic_symbols_resolve_symbol(PandaCPU *cpu, uint64_t asid,
                                            const char *section,
                                            const char *name)
{
    uint64_t task = task_of(asid);
    symbol result = {};
    PandaSymbol s;

    if (task && panda_os_user_symbol(task, section && *section ? section
                                     : NULL, name, &s) == PANDA_OK) {
        fill(&result, &s);
    }
    return result;
}

typedef struct Closest {
    uint64_t address;
    symbol sym;
} Closest;

static bool see_closest(const OsImage *image, void *opaque)
{
    Closest *c = opaque;
    const OsElfSymbol *s = os_image_symbol_at(image, c->address);
    PandaSymbol found;

    if (s) {
        os_fill_symbol(image, s, &found);
        fill(&c->sym, &found);
    }
    return false;
}

symbol panda_dynamic_symbols_get_best_matching_symbol(PandaCPU *cpu,
                                                      uint64_t address,
                                                      uint64_t asid)
{
    uint64_t task = task_of(asid);
    Closest c = { .address = address };

    if (task) {
        OS_LOCK_GUARD();
        os_for_each_image(task, NULL, address, see_closest, &c);
    }
    return c.sym;
}

static void uninit(PandaPlugin *self)
{
    stop_listening();
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; requests && i < requests->len; i++) {
        ((Request *)g_ptr_array_index(requests, i))->removed = true;
    }
    pthread_mutex_unlock(&lock);
}

PANDA_PLUGIN(dynamic_symbols, "symbols of programs and libraries", NULL,
             uninit);
