/*
 * Arguments of plugins: kept until they are loaded, and parsed by them.
 *
 * What is wrong with them is noted while the plugin goes on with a default, as
 * its code does not look for errors; who loads it sees it when it is done.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "plugins/arguments.h"
#include "panda/plugins.h"

/* Plugin -> GPtrArray of "key=value". */
static GHashTable *given;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* A plugin that is being loaded. */
typedef struct Loading {
    const char *plugin;
    char *error;
    /* What its arguments are, if that is all that is asked for. */
    GString *help;
} Loading;

/* Of this thread, the innermost last. */
static __thread GPtrArray *loading;

static Loading *current(void)
{
    return loading && loading->len
        ? g_ptr_array_index(loading, loading->len - 1) : NULL;
}

static const char *look_up(panda_arg_list *args, const char *name)
{
    for (int i = 0; args && i < args->nargs; i++) {
        if (!strcmp(args->list[i].key, name)) {
            return args->list[i].value;
        }
    }
    return NULL;
}

void panda_arguments_begin(const char *plugin)
{
    panda_arg_list *args = panda_get_args(plugin);
    Loading *new = g_new0(Loading, 1);

    new->plugin = plugin;
    if (look_up(args, "help")) {
        new->help = g_string_new(NULL);
    }
    panda_free_args(args);
    loading = loading ?: g_ptr_array_new();
    g_ptr_array_add(loading, new);
}

bool panda_arguments_failed(void)
{
    const Loading *now = current();

    return now && (now->error || now->help);
}

bool panda_arguments_end(void)
{
    Loading *now = current();
    bool ok = !panda_arguments_failed();

    if (now->help) {
        panda_fail(PANDA_ERR_ARGUMENT, "plugin %s has %s%s", now->plugin,
                   now->help->len ? "the arguments" : "no arguments",
                   now->help->str);
        g_string_free(now->help, true);
    } else if (now->error) {
        panda_fail(PANDA_ERR_ARGUMENT, "%s", now->error);
    }
    g_free(now->error);
    g_free(now);
    g_ptr_array_set_size(loading, loading->len - 1);
    return ok;
}

/* For who asks: a line for an argument. */
static void G_GNUC_PRINTF(3, 4) note(const char *name, const char *help,
                                     const char *fmt, ...)
{
    Loading *now = current();
    va_list ap;

    if (now && now->help) {
        va_start(ap, fmt);
        g_string_append_printf(now->help, "\n  %s (", name);
        g_string_append_vprintf(now->help, fmt, ap);
        g_string_append_printf(now->help, ")%s%s", help ? ": " : "",
                               help ?: "");
        va_end(ap);
    }
}

static void G_GNUC_PRINTF(1, 2) wrong(const char *fmt, ...)
{
    Loading *now = current();
    va_list ap;

    va_start(ap, fmt);
    if (now && !now->error) {
        now->error = g_strdup_vprintf(fmt, ap);
    }
    va_end(ap);
}

static bool same_key(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");

    return n == strcspn(b, "=") && !strncmp(a, b, n);
}

bool panda_add_arg(const char *plugin, const char *arg)
{
    GPtrArray *args;

    if (!plugin || !arg || !*arg) {
        return false;
    }
    pthread_mutex_lock(&lock);
    if (!given) {
        given = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                      (GDestroyNotify)g_ptr_array_unref);
    }
    args = g_hash_table_lookup(given, plugin);
    if (!args) {
        args = g_ptr_array_new_with_free_func(g_free);
        g_hash_table_insert(given, g_strdup(plugin), args);
    }
    for (unsigned i = 0; i < args->len; i++) {
        if (same_key(g_ptr_array_index(args, i), arg)) {
            g_ptr_array_remove_index(args, i);
            break;
        }
    }
    g_ptr_array_add(args, g_strdup(arg));
    pthread_mutex_unlock(&lock);
    return true;
}

void panda_arguments_forget(const char *plugin)
{
    pthread_mutex_lock(&lock);
    if (given) {
        g_hash_table_remove(given, plugin);
    }
    pthread_mutex_unlock(&lock);
}

panda_arg_list *panda_get_args(const char *plugin)
{
    panda_arg_list *list = g_new0(panda_arg_list, 1);
    GPtrArray *args;

    list->plugin_name = g_strdup(plugin);
    pthread_mutex_lock(&lock);
    args = given ? g_hash_table_lookup(given, plugin) : NULL;
    list->nargs = args ? args->len : 0;
    list->list = g_new0(panda_arg, list->nargs + 1);
    for (int i = 0; i < list->nargs; i++) {
        panda_arg *a = &list->list[i];
        char *equals;

        a->argptr = g_strdup(g_ptr_array_index(args, i));
        a->key = g_strdup(a->argptr);
        equals = strchr(a->key, '=');
        a->value = equals ? equals + 1 : a->key + strlen(a->key);
        if (equals) {
            *equals = '\0';
        }
    }
    pthread_mutex_unlock(&lock);
    return list;
}

void panda_free_args(panda_arg_list *args)
{
    if (!args) {
        return;
    }
    for (int i = 0; i < args->nargs; i++) {
        g_free(args->list[i].argptr);
        g_free(args->list[i].key);
    }
    g_free(args->list);
    g_free(args->plugin_name);
    g_free(args);
}

static void not_a(panda_arg_list *args, const char *name, const char *value,
                  const char *what)
{
    wrong("plugin %s: argument %s=%s is not %s", args->plugin_name, name,
          value, what);
}

static const char *required(panda_arg_list *args, const char *name,
                            const char *help)
{
    const char *value = look_up(args, name);

    if (!value) {
        wrong("plugin %s needs the argument %s%s%s",
              args ? args->plugin_name : "?", name, help ? ": " : "",
              help ?: "");
    }
    return value;
}

static uint64_t number(panda_arg_list *args, const char *name, uint64_t max,
                       const char *value, uint64_t defval)
{
    char *end;
    uint64_t n;

    if (!value) {
        return defval;
    }
    errno = 0;
    n = g_ascii_strtoull(value, &end, 0);
    if (end == value || *end || errno || n > max) {
        not_a(args, name, value, max == UINT32_MAX ? "a number of 32 bits"
                                                   : "a number");
        return defval;
    }
    return n;
}

static double fraction(panda_arg_list *args, const char *name,
                       const char *value, double defval)
{
    char *end;
    double d;

    if (!value) {
        return defval;
    }
    d = g_ascii_strtod(value, &end);
    if (end == value || *end) {
        not_a(args, name, value, "a number");
        return defval;
    }
    return d;
}

static bool truth(panda_arg_list *args, const char *name, const char *value)
{
    static const char *const yes[] = { "y", "yes", "true", "1" };
    static const char *const no[] = { "", "n", "no", "false", "0" };

    for (unsigned i = 0; value && i < ARRAY_SIZE(yes); i++) {
        if (!g_ascii_strcasecmp(value, yes[i])) {
            return true;
        }
    }
    for (unsigned i = 0; value && i < ARRAY_SIZE(no); i++) {
        if (!g_ascii_strcasecmp(value, no[i])) {
            return false;
        }
    }
    if (value) {
        not_a(args, name, value, "yes or no");
    }
    return false;
}

#define NUMBER(name_, type, max)                                              \
type panda_parse_##name_##_opt(panda_arg_list *args, const char *name,        \
                               type defval, const char *help)                 \
{                                                                             \
    note(name, help, "a number, %" PRIu64, (uint64_t)defval);                 \
    return number(args, name, max, look_up(args, name), defval);              \
}                                                                             \
type panda_parse_##name_(panda_arg_list *args, const char *name, type defval) \
{                                                                             \
    return panda_parse_##name_##_opt(args, name, defval, NULL);               \
}                                                                             \
type panda_parse_##name_##_req(panda_arg_list *args, const char *name,        \
                               const char *help)                              \
{                                                                             \
    note(name, help, "a number, required");                                   \
    return number(args, name, max, required(args, name, help), 0);            \
}

NUMBER(ulong, target_ptr_t, UINT64_MAX)
NUMBER(uint32, uint32_t, UINT32_MAX)
NUMBER(uint64, uint64_t, UINT64_MAX)

double panda_parse_double_opt(panda_arg_list *args, const char *name,
                              double defval, const char *help)
{
    note(name, help, "a number, %g", defval);
    return fraction(args, name, look_up(args, name), defval);
}

double panda_parse_double(panda_arg_list *args, const char *name,
                          double defval)
{
    return panda_parse_double_opt(args, name, defval, NULL);
}

double panda_parse_double_req(panda_arg_list *args, const char *name,
                              const char *help)
{
    note(name, help, "a number, required");
    return fraction(args, name, required(args, name, help), 0);
}

bool panda_parse_bool_opt(panda_arg_list *args, const char *name,
                          const char *help)
{
    note(name, help, "yes or no, no");
    return truth(args, name, look_up(args, name));
}

bool panda_parse_bool(panda_arg_list *args, const char *name)
{
    return panda_parse_bool_opt(args, name, NULL);
}

bool panda_parse_bool_req(panda_arg_list *args, const char *name,
                          const char *help)
{
    note(name, help, "yes or no, required");
    return truth(args, name, required(args, name, help));
}

const char *panda_parse_string_opt(panda_arg_list *args, const char *name,
                                   const char *defval, const char *help)
{
    note(name, help, "a text%s%s", defval && *defval ? ", " : "",
         defval ?: "");
    return look_up(args, name) ?: defval;
}

const char *panda_parse_string(panda_arg_list *args, const char *name,
                               const char *defval)
{
    return panda_parse_string_opt(args, name, defval, NULL);
}

const char *panda_parse_string_req(panda_arg_list *args, const char *name,
                                   const char *help)
{
    note(name, help, "a text, required");
    return required(args, name, help) ?: "";
}
