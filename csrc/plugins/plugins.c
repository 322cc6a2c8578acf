/*
 * Loading and unloading plugins.
 *
 * A plugin from a file finds the API's functions in the ordinary way: as
 * undefined symbols. The core library was loaded for its user alone, so its
 * exported functions (and nothing else of it) are made visible to what is
 * loaded later, when the first such plugin comes. There is one machine in a
 * process, so there is one library that has them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "plugins/arguments.h"
#include "plugins/plugins.h"
#include "plugins/ppp.h"
#include <dlfcn.h>

struct PandaPlugin {
    char *name;
    const PandaBuiltin *builtin;
    /* Of dlopen(), if it is from a file. */
    void *library;
};

/* Loaded, in the order they were loaded in. */
static GPtrArray *loaded;
/* On their way, which is to find cycles. */
static GPtrArray *loading;

/* Recursive: a plugin loads what it needs. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

const char *panda_plugin_name_of(const PandaPlugin *self)
{
    return self->name;
}

void panda_plugin_misses(const char *reason, void *name)
{
    fprintf(stderr, "[pandalite] plugin %s: %s\n", (const char *)name, reason);
}

panda_arg_list *panda_plugin_args(PandaPlugin *self)
{
    return panda_get_args(self->name);
}

static PandaPlugin *find_in(const GPtrArray *plugins, const char *name)
{
    for (unsigned i = 0; plugins && i < plugins->len; i++) {
        PandaPlugin *p = g_ptr_array_index(plugins, i);

        if (!strcmp(p->name, name)) {
            return p;
        }
    }
    return NULL;
}

static const PandaBuiltin *find_builtin(const char *name)
{
    for (const PandaBuiltin *const *b = panda_builtins; *b; b++) {
        if (!strcmp((*b)->name, name)) {
            return *b;
        }
    }
    return NULL;
}

/* Make the library's exported functions visible to what is loaded later. */
static int share_api(void)
{
    static bool done;
    Dl_info info;

    if (done) {
        return PANDA_OK;
    }
    if (!dladdr(panda_plugin_load, &info)
        || !dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL)) {
        return panda_fail(PANDA_ERR_STATE, "the API cannot be made visible to "
                          "plugins: %s", dlerror() ?: "unknown library");
    }
    done = true;
    return PANDA_OK;
}

static int open_file(PandaPlugin *p, const char *path)
{
    g_autofree char *symbols = NULL;

    if (share_api() != PANDA_OK) {
        return PANDA_ERR_STATE;
    }
    p->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!p->library) {
        return panda_fail(PANDA_ERR_STATE, "plugin %s cannot be loaded: %s",
                          p->name, dlerror());
    }
    if (!dlsym(p->library, "init_plugin")) {
        dlclose(p->library);
        p->library = NULL;
        return panda_fail(PANDA_ERR_STATE, "%s is not a plugin: it has no "
                          "function init_plugin", path);
    }
    symbols = g_strdup_printf("PANDA_EXPORT_SYMBOLS_%s", p->name);
    if (dlsym(p->library, symbols)) {
        dlopen(path, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
    }
    return PANDA_OK;
}

/* What panda/plugin.h has compiled into it, to define its callback points. */
static int attach(PandaPlugin *p, bool define)
{
    int (*function)(void *self, const char *name, bool define) =
        dlsym(p->library, "panda_plugin_attach");

    /* The name is kept as long as the library, which stays. */
    return function ? function(p, g_intern_string(p->name), define)
                    : PANDA_OK;
}

static bool init(PandaPlugin *p)
{
    bool (*init_plugin)(void *);

    if (p->builtin) {
        return !p->builtin->init || p->builtin->init(p);
    }
    if (attach(p, true) != PANDA_OK) {
        return false;
    }
    init_plugin = dlsym(p->library, "init_plugin");
    if (!init_plugin(p)) {
        if (!panda_arguments_failed()) {
            panda_fail(PANDA_ERR_STATE, "plugin %s: init_plugin() has failed",
                       p->name);
        }
        return false;
    }
    return true;
}

static void uninit(PandaPlugin *p)
{
    void (*uninit_plugin)(void *) = p->library
        ? dlsym(p->library, "uninit_plugin") : NULL;

    if (p->builtin && p->builtin->uninit) {
        p->builtin->uninit(p);
    } else if (uninit_plugin) {
        uninit_plugin(p);
    }
}

static void free_plugin(PandaPlugin *p)
{
    /* Its code may be on some thread's stack: the library stays. */
    g_free(p->name);
    g_free(p);
}

/* It calls nobody and is called by nobody any more. */
static void detach(PandaPlugin *p)
{
    panda_unregister_callbacks(p);
    panda_ppp_remove_all(p);
    if (p->library) {
        attach(p, false);
    }
}

static int load(const char *name, const char *path)
{
    PandaPlugin *p;
    bool ok;

    if (find_in(loading, name)) {
        return panda_fail(PANDA_ERR_STATE, "plugin %s needs itself", name);
    }
    p = g_new0(PandaPlugin, 1);
    p->name = g_strdup(name);
    p->builtin = path ? NULL : find_builtin(name);
    if (path ? open_file(p, path) != PANDA_OK : !p->builtin) {
        if (!path) {
            panda_fail(PANDA_ERR_ARGUMENT, "there is no plugin %s", name);
        }
        free_plugin(p);
        return panda_last_status();
    }
    loaded = loaded ?: g_ptr_array_new();
    loading = loading ?: g_ptr_array_new();
    g_ptr_array_add(loading, p);
    panda_arguments_begin(name);
    ok = init(p);
    if (!panda_arguments_end() || !ok) {
        int status;

        g_ptr_array_remove(loading, p);
        status = panda_last_status();
        if (ok) {
            /* It has begun its work, with defaults. */
            g_autofree char *error = g_strdup(panda_last_error());

            uninit(p);
            panda_fail(status, "%s", error);
        }
        detach(p);
        free_plugin(p);
        return status ?: PANDA_ERR_STATE;
    }
    g_ptr_array_remove(loading, p);
    g_ptr_array_add(loaded, p);
    return PANDA_OK;
}

int panda_plugin_load(const char *name, const char *path,
                      const char *const *args, uint32_t n)
{
    int status = PANDA_OK;

    pthread_mutex_lock(&lock);
    if (!find_in(loaded, name)) {
        for (uint32_t i = 0; i < n; i++) {
            panda_add_arg(name, args[i]);
        }
        status = load(name, path);
        /* They are for this time: the next one gives its own. */
        panda_arguments_forget(name);
    }
    pthread_mutex_unlock(&lock);
    return status;
}

static void unload(PandaPlugin *p)
{
    g_ptr_array_remove(loaded, p);
    uninit(p);
    detach(p);
    free_plugin(p);
}

int panda_plugin_unload(const char *name)
{
    int status = PANDA_OK;
    PandaPlugin *p;

    pthread_mutex_lock(&lock);
    p = find_in(loaded, name);
    if (p) {
        unload(p);
    } else {
        status = panda_fail(PANDA_ERR_ARGUMENT, "plugin %s is not loaded",
                            name);
    }
    pthread_mutex_unlock(&lock);
    return status;
}

void panda_plugins_unload(void)
{
    pthread_mutex_lock(&lock);
    while (loaded && loaded->len) {
        unload(g_ptr_array_index(loaded, loaded->len - 1));
    }
    pthread_mutex_unlock(&lock);
}

bool panda_plugin_is_loaded(const char *name)
{
    return panda_get_plugin_by_name(name);
}

const char *panda_plugin_name(uint32_t number)
{
    const char *name = NULL;

    pthread_mutex_lock(&lock);
    if (loaded && number < loaded->len) {
        /* A constant: the plugin may be unloaded. */
        name = g_intern_string(
            ((PandaPlugin *)g_ptr_array_index(loaded, number))->name);
    }
    pthread_mutex_unlock(&lock);
    return name;
}

const char *panda_plugin_builtin(uint32_t number)
{
    for (const PandaBuiltin *const *b = panda_builtins; *b; b++) {
        if (!number--) {
            return (*b)->name;
        }
    }
    return NULL;
}

const char *panda_plugin_purpose(const char *name)
{
    const PandaBuiltin *builtin = find_builtin(name);

    return builtin ? builtin->purpose : NULL;
}

void *panda_get_plugin_by_name(const char *name)
{
    PandaPlugin *p;

    pthread_mutex_lock(&lock);
    p = find_in(loaded, name);
    pthread_mutex_unlock(&lock);
    return p;
}

void *panda_require(const char *name)
{
    return panda_plugin_load(name, NULL, NULL, 0) == PANDA_OK
        ? panda_get_plugin_by_name(name) : NULL;
}

void *panda_plugin_symbol(const char *plugin, const char *function)
{
    PandaPlugin *p = panda_get_plugin_by_name(plugin);
    g_autofree char *name = g_strdup_printf("panda_%s_%s", plugin, function);
    static void *self;
    Dl_info info;

    if (!p) {
        return NULL;
    }
    if (p->library) {
        return dlsym(p->library, function);
    }
    if (!self && dladdr(panda_plugin_load, &info)) {
        self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    }
    return self ? dlsym(self, name) : NULL;
}
