/*
 * Kernel modules without type information, where the kernel's symbols tell
 * where their list is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/infer.h"

#define WORD ((int)os_memory.word)
#define MODULE_REACH 1024
/* struct module begins with its state, its list node and its name. */
#define LIST WORD
#define NAME (3 * WORD)
#define LONGEST_NAME 56

static bool is_name(uint64_t module)
{
    char name[LONGEST_NAME];

    if (!os_read(module + NAME, name, sizeof(name))
        || !memchr(name, 0, sizeof(name)) || !name[0]) {
        return false;
    }
    for (const char *c = name; *c; c++) {
        if (!g_ascii_isalnum(*c) && *c != '_' && *c != '-') {
            return false;
        }
    }
    return true;
}

/*
 * Where a module is loaded: whole pages, and struct module is among them. The
 * parts of it that are counted from the start do not shrink.
 */
static bool is_layout(uint64_t module, int at)
{
    uint64_t base;
    uint32_t last = 0, part[4];

    if (!os_read_word(module + at, &base) || base % 4096 || base > module) {
        return false;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(part); i++) {
        if (!os_read_u32(module + at + WORD + 4 * i, &part[i])) {
            return false;
        }
    }
    for (unsigned i = 1; i < ARRAY_SIZE(part); i++) {
        if (part[i] < last || part[i] > part[0]) {
            return false;
        }
        last = part[i];
    }
    return part[0] && part[0] % 4096 == 0 && module < base + part[0];
}

void os_infer_modules(void)
{
    uint64_t head, at, module[OS_ROWS];
    unsigned n = 0;

    if (!os_symbol("modules", &head)) {
        return;
    }
    for (at = head; n < OS_ROWS; n++) {
        uint64_t next, back;

        if (!os_read_word(at, &next) || !os_is_kernel(next)
            || !os_read_word(next + WORD, &back) || back != at) {
            return;
        }
        if (next == head) {
            break;
        }
        module[n] = next - LIST;
        if (!is_name(module[n])) {
            return;
        }
        at = next;
    }
    if (!n) {
        return;
    }
    os_layout_set(OS_MODULE_LIST, LIST, OS_INFERRED,
                  "the list at the symbol `modules`, and back; all have names");
    os_layout_set(OS_MODULE_NAME, NAME, OS_INFERRED,
                  "behind the list; as names of modules are");
    for (int offset = NAME + LONGEST_NAME; offset < MODULE_REACH;
         offset += WORD) {
        unsigned good = 0;

        for (unsigned i = 0; i < n; i++) {
            good += is_layout(module[i], offset);
        }
        if (good == n) {
            os_layout_set(OS_MODULE_CORE_BASE, offset, OS_INFERRED,
                          "whole pages with the struct module itself in them");
            os_layout_set(OS_MODULE_CORE_SIZE, offset + WORD, OS_INFERRED,
                          "whole pages; no part of it is larger");
            return;
        }
    }
}
