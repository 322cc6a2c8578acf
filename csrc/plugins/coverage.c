/*
 * coverage: which blocks ran in which address space or thread, or which
 * followed each other, as a CSV file.
 *
 * panda.coverage() is quicker, but knows no address spaces.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/os.h"
#include "plugins/plugins.h"

typedef enum Mode { ASID_BLOCK, EDGE, OSI_BLOCK } Mode;

typedef struct Key {
    /* Address space or thread. */
    uint64_t asid;
    uint64_t pc;
    /* Of an edge: where it comes from. */
    uint64_t other;
} Key;

typedef struct Seen {
    Key key;
    uint64_t size;
    uint64_t count;
    bool kernel;
    PandaOsThread thread;
} Seen;

static Mode mode;
static bool full, summary, running;
static PandaRange excluded;
static bool excludes;
static FILE *file;
static GHashTable *seen;
static uint64_t last_pc, last_asid;
/* The file, and what is started and stopped by the monitor. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static guint hash_key(gconstpointer p)
{
    const Key *k = p;

    return (guint)((k->pc * 0x9e3779b97f4a7c15ull
                    + k->other * 0xc2b2ae3d27d4eb4full) >> 32
                   ^ k->asid >> 12);
}

static gboolean same_key(gconstpointer a, gconstpointer b)
{
    return !memcmp(a, b, sizeof(Key));
}

static void write_row(const Seen *s)
{
    if (mode == EDGE) {
        fprintf(file, "0x%" PRIx64 ",0x%" PRIx64 ",0x%" PRIx64 "\n",
                s->key.asid, s->key.other, s->key.pc);
    } else if (mode == OSI_BLOCK) {
        fputc('"', file);
        /* Names are the guest's. */
        for (const char *c = s->thread.comm; *c; c++) {
            fputc(*c == '"' || (uint8_t)*c < ' ' ? '?' : *c, file);
        }
        fprintf(file, "\",%d,%d,%d,0x%" PRIx64 ",%" PRIu64 "\n",
                s->thread.pid, s->thread.tid, s->kernel, s->key.pc, s->size);
    } else {
        fprintf(file, "0x%" PRIx64 ",%d,0x%" PRIx64 ",%" PRIu64 "\n",
                s->key.asid, s->kernel, s->key.pc, s->size);
    }
}

static void block(PandaCPU *cpu, PandaTB *tb)
{
    Key key = { panda_arch_get_asid(panda_vcpu.cs), tb->pc, 0 };
    bool kernel = panda_arch_in_kernel(panda_vcpu.cs);
    PandaOsThread thread;
    Seen *s;

    if (excludes && tb->pc >= excluded.first && tb->pc <= excluded.last) {
        return;
    }
    if (mode == OSI_BLOCK) {
        if (!panda_os_current_thread(panda_vcpu.cs, &thread)) {
            return;
        }
        /* The thread, not its number: numbers are used again. */
        key.asid = thread.task ^ (uint64_t)thread.tid << 40;
    }
    pthread_mutex_lock(&lock);
    if (running && mode == EDGE) {
        key.other = last_asid == key.asid ? last_pc : 0;
        last_pc = tb->pc;
        last_asid = key.asid;
    }
    if (running && (mode != EDGE || key.other)) {
        s = g_hash_table_lookup(seen, &key);
        if (!s) {
            s = g_new0(Seen, 1);
            s->key = key;
            s->size = tb->size;
            s->kernel = kernel;
            if (mode == OSI_BLOCK) {
                s->thread = thread;
            }
            g_hash_table_insert(seen, &s->key, s);
            if (!full && !summary) {
                write_row(s);
            }
        }
        s->count++;
        if (full) {
            write_row(s);
        }
    }
    pthread_mutex_unlock(&lock);
}

/* ---- the file; the lock is held ---- */

static bool start(const char *name)
{
    file = fopen(name, "w");
    if (!file) {
        panda_fail(PANDA_ERR_ARGUMENT, "plugin coverage: %s cannot be "
                   "written: %s", name, strerror(errno));
        return false;
    }
    g_hash_table_remove_all(seen);
    last_pc = last_asid = 0;
    fputs(mode == OSI_BLOCK
          ? (summary ? "process id,thread id,blocks\n"
             : "process name,process id,thread id,in kernel,block address,"
               "block size\n")
          : summary ? (mode == EDGE ? "asid,edges\n" : "asid,blocks\n")
          : mode == EDGE ? "asid,from pc,to pc\n"
          : "asid,in kernel,block address,block size\n", file);
    running = true;
    return true;
}

static void write_summary(void)
{
    /* One of each address space or thread -> how many. */
    g_autoptr(GHashTable) counts =
        g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, NULL);
    g_autoptr(GHashTable) example =
        g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, NULL);
    GHashTableIter iter;
    void *key, *value;

    g_hash_table_iter_init(&iter, seen);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Seen *s = value;
        uintptr_t n = (uintptr_t)g_hash_table_lookup(counts, &s->key.asid);

        g_hash_table_insert(counts, &s->key.asid, (void *)(n + 1));
        g_hash_table_insert(example, &s->key.asid, s);
    }
    g_hash_table_iter_init(&iter, counts);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        const Seen *s = g_hash_table_lookup(example, key);

        if (mode == OSI_BLOCK) {
            fprintf(file, "%d,%d,", s->thread.pid, s->thread.tid);
        } else {
            fprintf(file, "0x%" PRIx64 ",", s->key.asid);
        }
        fprintf(file, "%" PRIuPTR "\n", (uintptr_t)value);
    }
}

static void stop(void)
{
    if (file) {
        if (summary) {
            write_summary();
        }
        fclose(file);
        file = NULL;
    }
    running = false;
}

static int monitor(PandaMonitor *mon, const char *cmd)
{
    pthread_mutex_lock(&lock);
    if (g_str_has_prefix(cmd, "coverage_enable=")) {
        stop();
        start(cmd + strlen("coverage_enable="));
    } else if (!strcmp(cmd, "coverage_disable")) {
        stop();
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

/* "low-high", both included; false with an error set if it is not. */
static bool parse_range(const char *name, const char *text, PandaRange *range)
{
    char *end, *rest;

    range->first = g_ascii_strtoull(text, &end, 0);
    if (end != text && *end == '-') {
        range->last = g_ascii_strtoull(end + 1, &rest, 0);
        if (rest != end + 1 && !*rest && range->first <= range->last) {
            return true;
        }
    }
    panda_fail(PANDA_ERR_ARGUMENT, "plugin coverage: %s=%s is no range "
               "low-high", name, text);
    return false;
}

static bool parse_filter(panda_arg_list *args, PandaFilter *filter,
                         PandaRange *range)
{
    const char *privilege = panda_parse_string_opt(args, "privilege", "all",
                                                   "all, user or kernel");
    const char *pc = panda_parse_string_opt(args, "pc", "", "low-high");
    const char *not_pc = panda_parse_string_opt(args, "exclude_pc", "",
                                                "low-high");

    filter->procname = panda_parse_string_opt(args, "process_name", NULL,
                                              "of this process only");
    if (!strcmp(privilege, "user")) {
        filter->mode = PANDA_MODE_USER;
    } else if (!strcmp(privilege, "kernel")) {
        filter->mode = PANDA_MODE_KERNEL;
    } else if (strcmp(privilege, "all")) {
        panda_fail(PANDA_ERR_ARGUMENT, "plugin coverage: privilege=%s is none "
                   "of all, user, kernel", privilege);
        return false;
    }
    if (*pc) {
        if (!parse_range("pc", pc, range)) {
            return false;
        }
        filter->pc = range;
        filter->n_pc = 1;
    }
    excludes = *not_pc;
    return !excludes || parse_range("exclude_pc", not_pc, &excluded);
}

static bool parse_mode(panda_arg_list *args)
{
    static const char *const names[] = {
        [ASID_BLOCK] = "asid-block", [EDGE] = "edge",
        [OSI_BLOCK] = "osi-block",
    };
    const char *name = panda_parse_string_opt(
        args, "mode", "asid-block", "asid-block, osi-block or edge");

    if (*panda_parse_string_opt(args, "hook_filter", "", "not there yet")) {
        panda_fail(PANDA_ERR_UNSUPPORTED, "plugin coverage: hook_filter is "
                   "not there yet");
        return false;
    }
    for (mode = 0; mode < ARRAY_SIZE(names); mode++) {
        if (!strcmp(names[mode], name)) {
            return true;
        }
    }
    panda_fail(PANDA_ERR_ARGUMENT, "plugin coverage: mode=%s is none of "
               "asid-block, osi-block, edge", name);
    return false;
}

static bool init(PandaPlugin *self)
{
    g_autoptr(panda_arg_list) args = panda_plugin_args(self);
    const char *name = panda_parse_string_opt(args, "filename", "coverage.csv",
                                              "the file");
    bool disabled = panda_parse_bool_opt(args, "start_disabled",
                                         "begin by the monitor only");
    PandaFilter filter = { 0 };
    PandaRange range;
    panda_cb blocks = { .start_block_exec = block };
    panda_cb commands = { .monitor = monitor };
    bool ok;

    full = panda_parse_bool_opt(args, "full", "each time a block runs");
    summary = panda_parse_bool_opt(args, "summary", "numbers only");
    if (!parse_mode(args) || !parse_filter(args, &filter, &range)) {
        return false;
    }
    seen = seen ?: g_hash_table_new_full(hash_key, same_key, NULL, g_free);
    pthread_mutex_lock(&lock);
    ok = disabled || start(name);
    pthread_mutex_unlock(&lock);
    return ok
        && panda_register_callback(self, PANDA_CB_MONITOR, commands)
           == PANDA_OK
        && panda_set_filter(self, &filter) == PANDA_OK
        && panda_register_callback(self, PANDA_CB_START_BLOCK_EXEC, blocks)
           == PANDA_OK;
}

static void uninit(PandaPlugin *self)
{
    panda_unregister_callbacks(self);
    pthread_mutex_lock(&lock);
    stop();
    g_hash_table_remove_all(seen);
    pthread_mutex_unlock(&lock);
}

PANDA_PLUGIN(coverage, "which blocks ran, as a CSV file", init, uninit);
