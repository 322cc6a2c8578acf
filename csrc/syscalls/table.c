/*
 * Numbers and prototypes of the system calls, read from the generated text.
 *
 * They are text to keep the libraries small: a table of pointers is several
 * times as large, and the loader would have to relocate all of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "syscalls/syscalls.h"

#if defined(TARGET_X86_64)
#define NUMBERS_X86_64
#define NUMBERS_I386
#elif defined(TARGET_I386)
#define NUMBERS_I386
#elif defined(TARGET_AARCH64)
#define NUMBERS_AARCH64
#define NUMBERS_ARM
#elif defined(TARGET_ARM)
#define NUMBERS_ARM
#elif defined(TARGET_MIPS64)
#define NUMBERS_MIPS_N64
#define NUMBERS_MIPS_O32
#define NUMBERS_MIPS_N32
#elif defined(TARGET_MIPS)
#define NUMBERS_MIPS_O32
#elif defined(TARGET_PPC64)
#define NUMBERS_PPC64
#define NUMBERS_PPC
#elif defined(TARGET_PPC)
#define NUMBERS_PPC
#elif defined(TARGET_RISCV64)
#define NUMBERS_RISCV64
#endif

#include "syscalls/tables/prototypes.c.inc"
#include "syscalls/tables/numbers.c.inc"

/* Numbers that are so far from the others have a table of their own. */
#define FAR 4096

PandaSyscallAbi panda_syscall_abis[] = {
#ifdef NUMBERS_X86_64
    { "x86_64", 8 },
#endif
#ifdef NUMBERS_I386
    { "i386", 4, .pairs = true },
#endif
#ifdef NUMBERS_AARCH64
    { "aarch64", 8 },
#endif
#ifdef NUMBERS_ARM
    { "arm", 4, .pairs = true, .even_pairs = true },
#endif
#ifdef NUMBERS_MIPS_N64
    { "mips_n64", 8, .base = 5000 },
#endif
#ifdef NUMBERS_MIPS_O32
    { "mips_o32", 4, .pairs = true, .even_pairs = true, .base = 4000 },
#endif
#ifdef NUMBERS_MIPS_N32
    { "mips_n32", 4, .base = 6000 },
#endif
#ifdef NUMBERS_PPC64
    { "ppc64", 8 },
#endif
#ifdef NUMBERS_PPC
    { "ppc", 4, .pairs = true, .even_pairs = true },
#endif
#ifdef NUMBERS_RISCV64
    { "riscv64", 8 },
#endif
};

const unsigned panda_syscall_n_abis = ARRAY_SIZE(panda_syscall_abis);

/* In the order of the table above. */
static const char *const numbers[] = {
#ifdef NUMBERS_X86_64
    numbers_x86_64,
#endif
#ifdef NUMBERS_I386
    numbers_i386,
#endif
#ifdef NUMBERS_AARCH64
    numbers_aarch64,
#endif
#ifdef NUMBERS_ARM
    numbers_arm,
#endif
#ifdef NUMBERS_MIPS_N64
    numbers_mips_n64,
#endif
#ifdef NUMBERS_MIPS_O32
    numbers_mips_o32,
#endif
#ifdef NUMBERS_MIPS_N32
    numbers_mips_n32,
#endif
#ifdef NUMBERS_PPC64
    numbers_ppc64,
#endif
#ifdef NUMBERS_PPC
    numbers_ppc,
#endif
#ifdef NUMBERS_RISCV64
    numbers_riscv64,
#endif
};

PandaSyscallName *panda_syscall_names;
unsigned panda_syscall_n_names;

QEMU_BUILD_BUG_ON(ARRAY_SIZE(numbers) != ARRAY_SIZE(panda_syscall_abis));

static uint8_t trait_of(const char *name)
{
    static const struct {
        const char *name;
        uint8_t trait;
    } traits[] = {
        { "fork", PANDA_SYSCALL_FORKS }, { "vfork", PANDA_SYSCALL_FORKS },
        { "clone", PANDA_SYSCALL_FORKS }, { "clone3", PANDA_SYSCALL_FORKS },
        { "execve", PANDA_SYSCALL_EXECS }, { "execveat", PANDA_SYSCALL_EXECS },
        { "exit", PANDA_SYSCALL_EXITS }, { "exit_group", PANDA_SYSCALL_EXITS },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(traits); i++) {
        if (!strcmp(name, traits[i].name)) {
            return traits[i].trait;
        }
    }
    return PANDA_SYSCALL_PLAIN;
}

/* name!(kind:type:name, ...) */
static PandaSyscallEntry *read_prototype(char *line)
{
    PandaSyscallEntry *entry = g_new0(PandaSyscallEntry, 1);
    char *text = strchr(line, '(');

    *text++ = '\0';
    text[strlen(text) - 1] = '\0';
    if (text[-2] == '!') {
        text[-2] = '\0';
        entry->noreturn = true;
    }
    entry->name = line;
    entry->trait = trait_of(line);
    while (*text) {
        char *end = strstr(text, ", ");
        unsigned i = entry->nargs++;
        char *name;

        if (end) {
            *end = '\0';
        }
        name = strrchr(text, ':');
        *name = '\0';
        entry->kind[i] = text[0];
        entry->type[i] = text + 2;
        entry->arg[i] = name + 1;
        text = end ? end + 2 : name + 1 + strlen(name + 1);
    }
    return entry;
}

static GHashTable *read_prototypes(void)
{
    GHashTable *all = g_hash_table_new_full(g_str_hash, g_str_equal, NULL,
                                            g_free);
    /* The names are in it: it stays. */
    char *text = g_strdup(prototypes), *next;

    for (char *line = text; *line; line = next) {
        PandaSyscallEntry *entry;

        next = strchr(line, '\n');
        *next++ = '\0';
        entry = read_prototype(line);
        g_hash_table_insert(all, (void *)entry->name, entry);
    }
    return all;
}

/* A name counts when a call has it. */
static unsigned id_of(PandaSyscallEntry *prototype)
{
    if (!prototype->name_id) {
        PandaSyscallName *name = &panda_syscall_names[panda_syscall_n_names];

        name->name = prototype->name;
        name->full = g_str_has_prefix(name->name, "ARM_")
            ? g_strdup(name->name) : g_strconcat("sys_", name->name, NULL);
        prototype->name_id = ++panda_syscall_n_names;
    }
    return prototype->name_id - 1;
}

static void add(PandaSyscallAbi *abi, uint32_t number,
                PandaSyscallEntry *prototype)
{
    uint32_t index = number - abi->base;
    PandaSyscallEntry *entry;

    if (index >= abi->count + FAR) {
        abi->beyond = g_renew(PandaSyscallEntry, abi->beyond,
                              abi->n_beyond + 1);
        entry = &abi->beyond[abi->n_beyond++];
    } else {
        if (index >= abi->count) {
            abi->entries = g_renew(PandaSyscallEntry, abi->entries, index + 1);
            memset(&abi->entries[abi->count], 0,
                   (index + 1 - abi->count) * sizeof(*abi->entries));
            abi->count = index + 1;
        }
        entry = &abi->entries[index];
    }
    *entry = *prototype;
    entry->name_id = id_of(prototype);
    entry->number = number;
    entry->abi = abi - panda_syscall_abis;
}

/* Names in order; a number says which one the next name has. */
static void read_numbers(PandaSyscallAbi *abi, const char *text,
                         GHashTable *known)
{
    g_auto(GStrv) words = g_strsplit(text, " ", -1);
    uint32_t number = abi->base;

    for (char **word = words; *word; word++) {
        if (g_ascii_isdigit(**word)) {
            number = strtoul(*word, NULL, 10);
        } else if (**word) {
            add(abi, number++, g_hash_table_lookup(known, *word));
        }
    }
}

void panda_syscall_tables(void)
{
    static gsize done;

    if (g_once_init_enter(&done)) {
        GHashTable *known = read_prototypes();

        panda_syscall_names = g_new0(PandaSyscallName,
                                     g_hash_table_size(known));
        for (unsigned i = 0; i < panda_syscall_n_abis; i++) {
            read_numbers(&panda_syscall_abis[i], numbers[i], known);
        }
        g_hash_table_destroy(known);
        g_once_init_leave(&done, 1);
    }
}

PandaSyscallEntry *panda_syscall_entry(unsigned abi, uint32_t number)
{
    PandaSyscallAbi *a = &panda_syscall_abis[abi];
    uint32_t index = number - a->base;

    if (likely(index < a->count)) {
        return a->entries[index].name ? &a->entries[index] : NULL;
    }
    for (uint32_t i = 0; i < a->n_beyond; i++) {
        if (a->beyond[i].number == number) {
            return &a->beyond[i];
        }
    }
    return NULL;
}

static uint64_t pair(uint64_t first, uint64_t second)
{
#if TARGET_BIG_ENDIAN
    return first << 32 | (uint32_t)second;
#else
    return second << 32 | (uint32_t)first;
#endif
}

unsigned panda_syscall_arguments(const PandaSyscallEntry *entry,
                                 const uint64_t *slots, uint64_t *args)
{
    const PandaSyscallAbi *abi = &panda_syscall_abis[entry->abi];
    unsigned slot = 0;

    for (unsigned i = 0; i < entry->nargs; i++) {
        bool halves = entry->kind[i] == 'q' && abi->pairs;
        uint64_t value = 0;

        if (halves) {
            slot += abi->even_pairs && (slot & 1);
        }
        if (slot + halves < PANDA_SYSCALL_SLOTS) {
            value = halves ? pair(slots[slot], slots[slot + 1]) : slots[slot];
        }
        slot += 1 + halves;
        switch (entry->kind[i]) {
        case 'i':
            value = (int32_t)value;
            break;
        case 'u':
            value = (uint32_t)value;
            break;
        case 'q':
            break;
        default:
            value = abi->word == 4 ? (uint32_t)value : value;
        }
        args[i] = value;
    }
    return entry->nargs;
}
