/*
 * proc_start_linux: what a program of a Linux guest is given at its start.
 *
 * The kernel has put it on the program's stack: a count, arguments, variables,
 * and pairs of numbers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/events.h"
#include "introspect/internal.h"
#include "plugins/plugins.h"
#include "plugins/ppp.h"
#include "panda/os.h"
#include "panda/os_events.h"
#include "panda/plugins/proc_start_linux.h"

#define MOST_WORDS 65536
#define MOST_PAIRS 64

/* Names of numbers, as the kernel has them (AT_...). */
enum {
    AT_NULL_ = 0, AT_PHDR_ = 3, AT_PHENT_, AT_PHNUM_, AT_PAGESZ_, AT_BASE_,
    AT_FLAGS_, AT_ENTRY_, AT_UID_ = 11, AT_EUID_, AT_GID_, AT_EGID_,
    AT_PLATFORM_, AT_HWCAP_, AT_CLKTCK_, AT_SECURE_ = 23, AT_RANDOM_ = 25,
    AT_HWCAP2_, AT_EXECFN_ = 31, AT_SYSINFO_EHDR_ = 33, AT_MINSIGSTKSZ_ = 51,
};

static void listeners_changed(void);

static PandaPppPoint on_rec_auxv =
    PANDA_PPP_POINT("proc_start_linux", "on_rec_auxv", listeners_changed);

static bool subscribed;

/* A walk over the words of a stack; 32-bit programs have small ones. */
typedef struct Stack {
    uint64_t pgd;
    uint64_t at;
    unsigned word;
} Stack;

static bool next_word(Stack *s, uint64_t *value)
{
    uint8_t buf[8];

    if (os_read_user(s->pgd, s->at, buf, s->word) != s->word) {
        return false;
    }
    s->at += s->word;
    *value = s->word == 4 ? os_u32_at(buf) : os_word_at(buf);
    return true;
}

static void read_text(const Stack *s, uint64_t at, char *text)
{
    uint64_t n = os_read_user(s->pgd, at, text, MAX_AUXV_STRING - 1);

    text[MIN(n, MAX_AUXV_STRING - 1)] = 0;
}

/* Pointers up to a NULL, and what they point to. */
static bool read_texts(Stack *s, int *count, uint64_t *pointer,
                       char (*text)[MAX_AUXV_STRING], unsigned room)
{
    uint64_t value;

    for (*count = 0; *count < MOST_WORDS; ++*count) {
        if (!next_word(s, &value)) {
            return false;
        }
        if (!value) {
            return true;
        }
        if (*count < room) {
            pointer[*count] = value;
            read_text(s, value, text[*count]);
        }
    }
    return false;
}

static void take_pair(const Stack *s, auxv_values *av, uint64_t name,
                      uint64_t value)
{
    switch (name) {
    case AT_PHDR_:
        av->phdr = value;
        av->program_header = value & ~0xfffull;
        break;
    case AT_PHENT_:
        av->phent = value;
        break;
    case AT_PHNUM_:
        av->phnum = value;
        break;
    case AT_PAGESZ_:
        av->pagesz = value;
        break;
    case AT_BASE_:
        av->base = value;
        break;
    case AT_FLAGS_:
        av->flags = value;
        break;
    case AT_ENTRY_:
        av->entry = value;
        break;
    case AT_UID_:
        av->uid = value;
        break;
    case AT_EUID_:
        av->euid = value;
        break;
    case AT_GID_:
        av->gid = value;
        break;
    case AT_EGID_:
        av->egid = value;
        break;
    case AT_PLATFORM_:
        av->platform = value;
        break;
    case AT_HWCAP_:
        av->hwcap = value;
        break;
    case AT_HWCAP2_:
        av->hwcap2 = value;
        break;
    case AT_CLKTCK_:
        av->clktck = value;
        break;
    case AT_SECURE_:
        av->secure = value;
        break;
    case AT_RANDOM_:
        av->random = value;
        break;
    case AT_EXECFN_:
        av->execfn_ptr = value;
        read_text(s, value, av->execfn);
        break;
    case AT_SYSINFO_EHDR_:
        av->ehdr = value;
        break;
    case AT_MINSIGSTKSZ_:
        av->minsigstksz = value;
        break;
    }
}

static bool read_stack(Stack *s, auxv_values *av)
{
    uint64_t argc, name, value;

    if (!next_word(s, &argc)) {
        return false;
    }
    if (argc > MOST_WORDS && s->word == 8) {
        s->at -= s->word;
        s->word = 4;
        return read_stack(s, av);
    }
    av->argv_ptr_ptr = s->at;
    if (!read_texts(s, &av->argc, av->arg_ptr, av->argv, MAX_NUM_ARGS)) {
        return false;
    }
    av->env_ptr_ptr = s->at;
    if (!read_texts(s, &av->envc, av->env_ptr, av->envp, MAX_NUM_ENV)) {
        return false;
    }
    for (unsigned i = 0; i < MOST_PAIRS && next_word(s, &name)
         && name != AT_NULL_ && next_word(s, &value); i++) {
        take_pair(s, av, name, value);
    }
    return true;
}

static bool read_program(uint64_t task, auxv_values *av)
{
    OS_LOCK_GUARD();
    PandaProcessMemory memory;
    Stack s = { .word = os_memory.word };
    uint64_t mm;

    if (panda_os_memory(task, &memory) != PANDA_OK
        || !os_get_word(task, OS_TASK_MM, &mm)
        || !os_get_word(mm, OS_MM_PGD, &s.pgd)) {
        return false;
    }
    s.at = memory.start_stack;
    return read_stack(&s, av);
}

static void program_starts(CPUState *cs, uint64_t task, uint64_t argument)
{
    g_autofree auxv_values *av = g_new0(auxv_values, 1);

    if (read_program(task, av)) {
        PANDA_PPP_RUN(&on_rec_auxv, on_rec_auxv_t, &panda_vcpu.pub,
                      &panda_vcpu.tb, av);
    }
}

static void listeners_changed(void)
{
    bool wanted = on_rec_auxv.n;

    if (wanted == subscribed) {
        return;
    }
    subscribed = wanted;
    if (wanted) {
        panda_os_subscribe(OS_EVENT_EXEC, program_starts);
    } else {
        panda_os_unsubscribe(OS_EVENT_EXEC, program_starts);
    }
}

static bool init(PandaPlugin *self)
{
    const char *reason = panda_os_event_reason(PANDA_OS_START);

    if (reason) {
        panda_fail(PANDA_ERR_OS, "plugin proc_start_linux: %s", reason);
        return false;
    }
    panda_ppp_define(&on_rec_auxv);
    return true;
}

PANDA_PLUGIN(proc_start_linux, "what a program is given at its start", init,
             NULL);
