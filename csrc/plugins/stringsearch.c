/*
 * stringsearch: texts that code reads or writes.
 *
 * What an instruction accesses from one time to the next, in one address space,
 * is taken for a stream of bytes, reads and writes apart; a text is looked for
 * in each.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "plugins/plugins.h"
#include "plugins/ppp.h"
#include "panda/plugins/callstack_instr.h"
#include "panda/plugins/stringsearch.h"

#define MAX_LENGTH 256
#define MAX_TEXTS 100
/* More streams than this are too many to keep apart; they begin anew. */
#define MAX_STREAMS 200000
#define MAX_CALLERS 64

static PandaPppPoint on_ssm = PANDA_PPP_POINT("stringsearch", "on_ssm", NULL);

typedef struct Text {
    uint8_t bytes[MAX_LENGTH];
    unsigned length;
    /* Where to go on if the next byte is another: Knuth, Morris, Pratt. */
    uint16_t fail[MAX_LENGTH + 1];
} Text;

typedef struct Key {
    uint64_t pc;
    uint64_t asid;
    uint64_t is_write;
} Key;

typedef struct Stream {
    Key key;
    /* For each text, how much of it has been met. */
    uint16_t met[MAX_TEXTS];
} Stream;

/* Where a text was met, for the file. */
typedef struct Match {
    Key key;
    uint64_t callers[MAX_CALLERS];
    uint32_t n_callers;
    uint64_t count[MAX_TEXTS];
} Match;

static Text *texts[MAX_TEXTS];
static unsigned n_texts;
static uint32_t first_bytes[8];
static GHashTable *streams;
static GHashTable *matches;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool verbose;
static uint32_t n_callers;
static char *prefix;

static guint hash_key(gconstpointer p)
{
    const Key *k = p;

    return (guint)((k->pc * 0x9e3779b97f4a7c15ull >> 32) ^ k->asid >> 12
                   ^ k->is_write);
}

static gboolean same_key(gconstpointer a, gconstpointer b)
{
    return !memcmp(a, b, sizeof(Key));
}

/* ---- texts; the lock is held ---- */

static bool parse(const char *s, Text *text)
{
    size_t n = strlen(s);
    bool hex = n >= 5 && n % 3 == 2;

    for (size_t i = 0; hex && i < n; i++) {
        hex = i % 3 == 2 ? s[i] == ':' : g_ascii_isxdigit(s[i]);
    }
    text->length = hex ? (n + 1) / 3 : n;
    if (!text->length || text->length > MAX_LENGTH) {
        return false;
    }
    for (unsigned i = 0; i < text->length; i++) {
        text->bytes[i] = hex ? g_ascii_xdigit_value(s[3 * i]) * 16
                               + g_ascii_xdigit_value(s[3 * i + 1]) : s[i];
    }
    for (unsigned i = 1, k = 0; i < text->length; i++) {
        while (k && text->bytes[i] != text->bytes[k]) {
            k = text->fail[k];
        }
        k += text->bytes[i] == text->bytes[k];
        text->fail[i + 1] = k;
    }
    return true;
}

static int find(const Text *wanted)
{
    for (unsigned i = 0; i < n_texts; i++) {
        if (texts[i]->length == wanted->length
            && !memcmp(texts[i]->bytes, wanted->bytes, wanted->length)) {
            return i;
        }
    }
    return -1;
}

/* Numbers of texts have changed: what was met and where is of no use. */
static void begin_anew(void)
{
    if (streams) {
        g_hash_table_remove_all(streams);
        g_hash_table_remove_all(matches);
    }
    memset(first_bytes, 0, sizeof(first_bytes));
    for (unsigned i = 0; i < n_texts; i++) {
        first_bytes[texts[i]->bytes[0] / 32] |= BIT(texts[i]->bytes[0] % 32);
    }
}

bool panda_stringsearch_add_string(const char *s)
{
    g_autofree Text *text = g_new0(Text, 1);
    bool added = false;

    pthread_mutex_lock(&lock);
    if (parse(s, text) && n_texts < MAX_TEXTS && find(text) < 0) {
        texts[n_texts++] = g_steal_pointer(&text);
        /* The others keep their numbers. */
        first_bytes[texts[n_texts - 1]->bytes[0] / 32] |=
            BIT(texts[n_texts - 1]->bytes[0] % 32);
        added = true;
    }
    pthread_mutex_unlock(&lock);
    return added;
}

bool panda_stringsearch_remove_string(const char *s)
{
    g_autofree Text *text = g_new0(Text, 1);
    int i = -1;

    pthread_mutex_lock(&lock);
    if (parse(s, text) && (i = find(text)) >= 0) {
        g_free(texts[i]);
        memmove(&texts[i], &texts[i + 1],
                (--n_texts - i) * sizeof(texts[0]));
        begin_anew();
    }
    pthread_mutex_unlock(&lock);
    return i >= 0;
}

void panda_stringsearch_reset_strings(void)
{
    pthread_mutex_lock(&lock);
    while (n_texts) {
        g_free(texts[--n_texts]);
    }
    begin_anew();
    pthread_mutex_unlock(&lock);
}

/* ---- accesses ---- */

typedef struct Hit {
    unsigned text;
    /* How many bytes of the access came after it. */
    unsigned after;
} Hit;

static void note_match(PandaCPU *cpu, const Key *key, unsigned text)
{
    uint64_t callers[MAX_CALLERS];
    uint32_t n = n_callers
        ? panda_callstack_instr_get_callers(callers, n_callers, cpu) : 0;
    Match *m;

    pthread_mutex_lock(&lock);
    m = g_hash_table_lookup(matches, key);
    if (!m) {
        m = g_new0(Match, 1);
        m->key = *key;
        memcpy(m->callers, callers, n * sizeof(callers[0]));
        m->n_callers = n;
        g_hash_table_insert(matches, &m->key, m);
    }
    m->count[text]++;
    pthread_mutex_unlock(&lock);
}

static bool is_in_memory(PandaCPU *cpu, uint64_t last, const Text *text)
{
    uint8_t buf[MAX_LENGTH];

    return panda_virtual_memory_read(cpu, last - (text->length - 1), buf,
                                     text->length) == PANDA_OK
        && !memcmp(buf, text->bytes, text->length);
}

/* The lock is held. */
static unsigned advance(const Key *key, const uint8_t *bytes, size_t size,
                        Hit *hits, unsigned max)
{
    Stream *s = g_hash_table_lookup(streams, key);
    unsigned n = 0;

    if (!s) {
        bool may_begin = false;

        for (size_t i = 0; i < size; i++) {
            may_begin |= first_bytes[bytes[i] / 32] & BIT(bytes[i] % 32);
        }
        if (!may_begin) {
            return 0;
        }
        if (g_hash_table_size(streams) >= MAX_STREAMS) {
            g_hash_table_remove_all(streams);
        }
        s = g_new0(Stream, 1);
        s->key = *key;
        g_hash_table_insert(streams, &s->key, s);
    }
    for (unsigned t = 0; t < n_texts; t++) {
        const Text *text = texts[t];
        unsigned met = s->met[t];

        for (size_t i = 0; i < size; i++) {
            while (met && text->bytes[met] != bytes[i]) {
                met = text->fail[met];
            }
            met += text->bytes[met] == bytes[i];
            if (met == text->length) {
                if (n < max) {
                    hits[n++] = (Hit) { t, size - 1 - i };
                }
                met = text->fail[met];
            }
        }
        s->met[t] = met;
    }
    return n;
}

static void accessed(PandaCPU *cpu, uint64_t pc, uint64_t addr, size_t size,
                     const uint8_t *buf, bool is_write)
{
    Key key = { pc, panda_arch_get_asid(panda_vcpu.cs), is_write };
    uint8_t bytes[sizeof(panda_vcpu.mem_buf)];
    Hit hits[MAX_TEXTS];
    g_autofree Text *found = NULL;
    unsigned n;

    if (!n_texts) {
        return;
    }
    /* The value is in the host's order; memory has the guest's. */
    for (size_t i = 0; i < size; i++) {
        bytes[i] = buf[TARGET_BIG_ENDIAN ? size - 1 - i : i];
    }
    pthread_mutex_lock(&lock);
    n = advance(&key, bytes, size, hits, ARRAY_SIZE(hits));
    /* Copies: a listener may change what is looked for. */
    found = n ? g_new(Text, n) : NULL;
    for (unsigned i = 0; i < n; i++) {
        found[i] = *texts[hits[i].text];
    }
    pthread_mutex_unlock(&lock);
    for (unsigned i = 0; i < n; i++) {
        Text *text = &found[i];
        uint64_t last = addr + size - 1 - hits[i].after;

        note_match(cpu, &key, hits[i].text);
        if (verbose) {
            printf("stringsearch: text %u %s at 0x%" PRIx64 " by 0x%" PRIx64
                   "\n", hits[i].text, is_write ? "written" : "read", addr,
                   pc);
        }
        PANDA_PPP_RUN(&on_ssm, on_ssm_t, cpu, pc, addr, text->bytes,
                      text->length, is_write, is_in_memory(cpu, last, text));
    }
}

static void after_read(PandaCPU *cpu, target_ptr_t pc, target_ptr_t addr,
                       size_t size, uint8_t *buf)
{
    accessed(cpu, pc, addr, size, buf, false);
}

static void after_write(PandaCPU *cpu, target_ptr_t pc, target_ptr_t addr,
                        size_t size, uint8_t *buf)
{
    accessed(cpu, pc, addr, size, buf, true);
}

/* ---- files ---- */

/* A text a line: in double quotes, or bytes like 0a:0b:0c. */
static void read_texts(void)
{
    g_autofree char *name = g_strdup_printf("%s_search_strings.txt", prefix);
    g_autofree char *all = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents(name, &all, NULL, NULL)) {
        return;
    }
    lines = g_strsplit(all, "\n", -1);
    for (char **line = lines; *line; line++) {
        char *s = g_strstrip(*line);
        size_t n = strlen(s);

        if (n > 2 && s[0] == '"' && s[n - 1] == '"') {
            s[n - 1] = '\0';
            s++;
        }
        if (*s) {
            panda_stringsearch_add_string(s);
        }
    }
}

/* Who has accessed texts: callers, pc, address space, how often each. */
static void write_matches(void)
{
    g_autofree char *name = g_strdup_printf("%s_string_matches.txt", prefix);
    FILE *file = fopen(name, "w");
    GHashTableIter iter;
    void *value;

    if (!file) {
        return;
    }
    g_hash_table_iter_init(&iter, matches);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const Match *m = value;

        for (unsigned i = m->n_callers; i--;) {
            fprintf(file, "%" PRIx64 " ", m->callers[i]);
        }
        fprintf(file, "%" PRIx64 " %" PRIx64 " %s", m->key.pc, m->key.asid,
                m->key.is_write ? "write" : "read");
        for (unsigned i = 0; i < n_texts; i++) {
            fprintf(file, " %" PRIu64, m->count[i]);
        }
        fputc('\n', file);
    }
    fclose(file);
}

static bool init(PandaPlugin *self)
{
    g_autoptr(panda_arg_list) args = panda_plugin_args(self);
    const char *text = panda_parse_string_opt(args, "str", "",
                                              "a text to look for");
    panda_cb reads = { .virt_mem_after_read = after_read };
    panda_cb writes = { .virt_mem_after_write = after_write };

    verbose = panda_parse_bool_opt(args, "verbose", "print what is found");
    n_callers = MIN(panda_parse_uint32_opt(args, "callers", 16,
                                           "callers to write down"),
                    MAX_CALLERS);
    g_free(prefix);
    prefix = g_strdup(panda_parse_string_opt(args, "name", "stringsearch",
                                             "what names of files begin with"));
    if (!streams) {
        streams = g_hash_table_new_full(hash_key, same_key, NULL, g_free);
        matches = g_hash_table_new_full(hash_key, same_key, NULL, g_free);
    }
    if (*text) {
        panda_stringsearch_add_string(text);
    }
    read_texts();
    panda_ppp_define(&on_ssm);
    return (!n_callers || panda_require("callstack_instr"))
        && panda_register_callback(self, PANDA_CB_VIRT_MEM_AFTER_READ, reads)
           == PANDA_OK
        && panda_register_callback(self, PANDA_CB_VIRT_MEM_AFTER_WRITE,
                                   writes) == PANDA_OK;
}

static void uninit(PandaPlugin *self)
{
    panda_unregister_callbacks(self);
    panda_ppp_undefine(&on_ssm);
    write_matches();
    panda_stringsearch_reset_strings();
}

PANDA_PLUGIN(stringsearch, "texts that code reads or writes", init, uninit);
