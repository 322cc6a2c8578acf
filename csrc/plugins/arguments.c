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

/* Of the plugins that this thread loads, the innermost last. */
static __thread GPtrArray *errors;

void panda_arguments_begin(const char *plugin)
{
    if (!errors) {
        errors = g_ptr_array_new();
    }
    g_ptr_array_add(errors, NULL);
}

static char **current_error(void)
{
    return errors && errors->len
        ? (char **)&g_ptr_array_index(errors, errors->len - 1) : NULL;
}

bool panda_arguments_failed(void)
{
    char **error = current_error();

    return error && *error;
}

bool panda_arguments_end(void)
{
    g_autofree char *text = *current_error();

    g_ptr_array_set_size(errors, errors->len - 1);
    if (text) {
        panda_fail(PANDA_ERR_ARGUMENT, "%s", text);
        return false;
    }
    return true;
}

static void G_GNUC_PRINTF(1, 2) wrong(const char *fmt, ...)
{
    char **error = current_error();
    va_list ap;

    va_start(ap, fmt);
    if (error && !*error) {
        *error = g_strdup_vprintf(fmt, ap);
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

static const char *look_up(panda_arg_list *args, const char *name)
{
    for (int i = 0; args && i < args->nargs; i++) {
        if (!strcmp(args->list[i].key, name)) {
            return args->list[i].value;
        }
    }
    return NULL;
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
type panda_parse_##name_(panda_arg_list *args, const char *name, type defval) \
{                                                                             \
    return number(args, name, max, look_up(args, name), defval);              \
}                                                                             \
type panda_parse_##name_##_opt(panda_arg_list *args, const char *name,        \
                               type defval, const char *help)                 \
{                                                                             \
    return panda_parse_##name_(args, name, defval);                           \
}                                                                             \
type panda_parse_##name_##_req(panda_arg_list *args, const char *name,        \
                               const char *help)                              \
{                                                                             \
    return number(args, name, max, required(args, name, help), 0);            \
}

NUMBER(ulong, target_ptr_t, UINT64_MAX)
NUMBER(uint32, uint32_t, UINT32_MAX)
NUMBER(uint64, uint64_t, UINT64_MAX)

double panda_parse_double(panda_arg_list *args, const char *name,
                          double defval)
{
    return fraction(args, name, look_up(args, name), defval);
}

double panda_parse_double_opt(panda_arg_list *args, const char *name,
                              double defval, const char *help)
{
    return panda_parse_double(args, name, defval);
}

double panda_parse_double_req(panda_arg_list *args, const char *name,
                              const char *help)
{
    return fraction(args, name, required(args, name, help), 0);
}

bool panda_parse_bool(panda_arg_list *args, const char *name)
{
    return truth(args, name, look_up(args, name));
}

bool panda_parse_bool_opt(panda_arg_list *args, const char *name,
                          const char *help)
{
    return panda_parse_bool(args, name);
}

bool panda_parse_bool_req(panda_arg_list *args, const char *name,
                          const char *help)
{
    return truth(args, name, required(args, name, help));
}

const char *panda_parse_string(panda_arg_list *args, const char *name,
                               const char *defval)
{
    return look_up(args, name) ?: defval;
}

const char *panda_parse_string_opt(panda_arg_list *args, const char *name,
                                   const char *defval, const char *help)
{
    return panda_parse_string(args, name, defval);
}

const char *panda_parse_string_req(panda_arg_list *args, const char *name,
                                   const char *help)
{
    return required(args, name, help) ?: "";
}
