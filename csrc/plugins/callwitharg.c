/*
 * callwitharg: calls with a number or a text among their first arguments.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "arch/abi.h"
#include "plugins/plugins.h"
#include "plugins/ppp.h"
#include "panda/plugins/callstack_instr.h"
#include "panda/plugins/callwitharg.h"

#define MAX_ARGUMENTS 16
#define MAX_TEXT 256

static PandaPppPoint on_call_match_num =
    PANDA_PPP_POINT("callwitharg", "on_call_match_num", NULL);
static PandaPppPoint on_call_match_str =
    PANDA_PPP_POINT("callwitharg", "on_call_match_str", NULL);

/* Sets; texts are compared up to their own length. */
static GHashTable *numbers;
static GPtrArray *texts;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint32_t n_arguments;
static bool verbose;

static void make_sets(void)
{
    if (!numbers) {
        numbers = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                        NULL);
        texts = g_ptr_array_new_with_free_func(g_free);
    }
}

static int index_of(const char *target)
{
    for (unsigned i = 0; texts && i < texts->len; i++) {
        if (!strcmp(g_ptr_array_index(texts, i), target)) {
            return i;
        }
    }
    return -1;
}

void panda_callwitharg_add_target_string(const char *target)
{
    pthread_mutex_lock(&lock);
    make_sets();
    if (*target && index_of(target) < 0) {
        g_ptr_array_add(texts, g_strndup(target, MAX_TEXT - 1));
    }
    pthread_mutex_unlock(&lock);
}

bool panda_callwitharg_remove_target_string(const char *target)
{
    int i;

    pthread_mutex_lock(&lock);
    i = index_of(target);
    if (i >= 0) {
        g_ptr_array_remove_index(texts, i);
    }
    pthread_mutex_unlock(&lock);
    return i >= 0;
}

void panda_callwitharg_add_target_num(target_ptr_t target)
{
    pthread_mutex_lock(&lock);
    make_sets();
    g_hash_table_add(numbers, g_memdup2(&target, sizeof(target)));
    pthread_mutex_unlock(&lock);
}

bool panda_callwitharg_remove_target_num(target_ptr_t target)
{
    bool found;

    pthread_mutex_lock(&lock);
    found = numbers && g_hash_table_remove(numbers, &target);
    pthread_mutex_unlock(&lock);
    return found;
}

/* Copies the text that an argument points to into value. */
static bool points_to_text(uint64_t address, char *value)
{
    unsigned longest = 0;
    bool found = false;
    int64_t length;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < texts->len; i++) {
        longest = MAX(longest, strlen(g_ptr_array_index(texts, i)) + 1);
    }
    pthread_mutex_unlock(&lock);
    if (!longest) {
        return false;
    }
    length = panda_read_string(&panda_vcpu.pub, address, (uint8_t *)value,
                               longest);
    if (length <= 0 || length >= longest) {
        return false;
    }
    value[length] = '\0';
    pthread_mutex_lock(&lock);
    found = index_of(value) >= 0;
    pthread_mutex_unlock(&lock);
    return found;
}

static bool is_wanted_number(uint64_t value)
{
    bool found;

    pthread_mutex_lock(&lock);
    found = g_hash_table_contains(numbers, &value);
    pthread_mutex_unlock(&lock);
    return found;
}

static void called(PandaCPU *cpu, target_ptr_t func)
{
    target_ptr_t args[MAX_ARGUMENTS];
    char value[MAX_TEXT];
    uint32_t n;

    for (n = 0; n < n_arguments
         && panda_abi_argument(panda_vcpu.cs, n, &args[n]); n++) {
    }
    for (uint32_t i = 0; i < n; i++) {
        if (is_wanted_number(args[i])) {
            if (verbose) {
                printf("callwitharg: 0x%" PRIx64 " called with 0x%" PRIx64
                       " as argument %" PRIu32 "\n", func, args[i], i);
            }
            PANDA_PPP_RUN(&on_call_match_num, on_call_match_num_t, cpu, func,
                          args, i, n);
        }
        if (points_to_text(args[i], value)) {
            if (verbose) {
                printf("callwitharg: 0x%" PRIx64 " called with \"%s\" as "
                       "argument %" PRIu32 "\n", func, value, i);
            }
            PANDA_PPP_RUN(&on_call_match_str, on_call_match_str_t, cpu, func,
                          args, value, i, n);
        }
    }
}

/* A number as C has it, with 0x or without it in hexadecimal, else a text. */
static void add_target(const char *word)
{
    char *end;
    uint64_t number = g_ascii_strtoull(word, &end, 16);

    if (end != word && !*end) {
        panda_callwitharg_add_target_num(number);
    } else {
        panda_callwitharg_add_target_string(word);
    }
}

static bool init(PandaPlugin *self)
{
    g_autoptr(panda_arg_list) args = panda_plugin_args(self);
    const char *targets = panda_parse_string_opt(
        args, "targets", "", "numbers (in hexadecimal) and texts, with _");
    g_auto(GStrv) words = g_strsplit(targets, "_", -1);

    verbose = panda_parse_bool_opt(args, "verbose", "print the calls");
    n_arguments = panda_parse_uint32_opt(args, "N", 2, "arguments to look at");
    if (n_arguments < 1 || n_arguments > MAX_ARGUMENTS) {
        panda_fail(PANDA_ERR_ARGUMENT, "plugin callwitharg: N is a number of "
                   "1 to %d", MAX_ARGUMENTS);
        return false;
    }
    if (!panda_require("callstack_instr")) {
        return false;
    }
    make_sets();
    for (char **word = words; *word; word++) {
        if (**word) {
            add_target(*word);
        }
    }
    panda_ppp_define(&on_call_match_num);
    panda_ppp_define(&on_call_match_str);
    return panda_ppp_add("callstack_instr", "on_call", self,
                         (PandaPppFunction)called) == PANDA_OK;
}

static void uninit(PandaPlugin *self)
{
    panda_ppp_remove_all(self);
    panda_ppp_undefine(&on_call_match_num);
    panda_ppp_undefine(&on_call_match_str);
    pthread_mutex_lock(&lock);
    g_hash_table_remove_all(numbers);
    g_ptr_array_set_size(texts, 0);
    pthread_mutex_unlock(&lock);
}

PANDA_PLUGIN(callwitharg, "calls with a number or a text among their first "
             "arguments", init, uninit);
