/*
 * Lines: the few fields of the CPU that devices write, e.g. which interrupts
 * are pending. They are compared instead of intercepting who writes them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/record.h"
#include "record/log.h"
#include "system/cpus.h"

bool panda_lines_kicked;

static PandaLine table[PANDA_LINES_MAX];
static unsigned n_lines;

void panda_lines_setup(CPUState *cs)
{
    table[0] = (PandaLine) { "interrupt_request", &cs->interrupt_request, 4 };
    table[1] = (PandaLine) { "halted", &cs->halted, 4 };
    n_lines = 2 + panda_arch_lines(cs, table + 2);
    g_assert(n_lines <= PANDA_LINES_MAX);
}

static uint64_t get(const PandaLine *line)
{
    uint64_t value = 0;

    switch (line->size) {
    case 1:
        value = *(uint8_t *)line->field;
        break;
    case 2:
        value = *(uint16_t *)line->field;
        break;
    case 4:
        value = *(uint32_t *)line->field;
        break;
    case 8:
        value = *(uint64_t *)line->field;
        break;
    default:
        g_assert_not_reached();
    }
    return value;
}

static void set(CPUState *cs, const PandaLine *line, uint64_t value)
{
    if (line->apply) {
        line->apply(cs, value);
    } else {
        memcpy(line->field, &value, line->size);
    }
}

unsigned panda_lines_count(void)
{
    return n_lines;
}

uint64_t panda_line_get(unsigned i)
{
    return get(&table[i]);
}

void panda_line_set(CPUState *cs, unsigned i, uint64_t value)
{
    set(cs, &table[i], value);
}

void panda_lines_read(PandaLines *lines)
{
    for (unsigned i = 0; i < n_lines; i++) {
        lines->value[i] = get(&table[i]);
    }
}

void panda_lines_log(const PandaLines *before, bool kicked)
{
    uint64_t changed = 0;

    for (unsigned i = 0; i < n_lines; i++) {
        if (get(&table[i]) != before->value[i]) {
            changed |= BIT_ULL(i);
        }
    }
    if (!changed && !kicked) {
        return;
    }
    panda_log_entry(kicked ? PANDA_ENTRY_LINES_KICK : PANDA_ENTRY_LINES);
    panda_log_number(changed);
    for (unsigned i = 0; i < n_lines; i++) {
        if (changed & BIT_ULL(i)) {
            panda_log_number(get(&table[i]));
        }
    }
}

void panda_lines_apply(CPUState *cs, PandaLogCursor *cursor, bool kick)
{
    uint64_t changed = panda_log_get(cursor);

    if (changed >> n_lines) {
        panda_log_bad(cursor);
        return;
    }
    for (unsigned i = 0; i < n_lines; i++) {
        if (changed & BIT_ULL(i)) {
            set(cs, &table[i], panda_log_get(cursor));
        }
    }
    if (kick) {
        /* What cpu_interrupt() did: the next block is not entered. */
        qatomic_set(&cs->neg.icount_decr.u16.high, -1);
    }
}

/* ---- who raises and lowers them ---- */

void __real_cpu_interrupt(CPUState *cs, int mask);
void __wrap_cpu_interrupt(CPUState *cs, int mask);
void __wrap_cpu_interrupt(CPUState *cs, int mask)
{
    if (panda_rr_on() && !panda_rr_inside()) {
        if (panda_rr_replaying()) {
            return;
        }
        panda_lines_kicked = true;
    }
    __real_cpu_interrupt(cs, mask);
}

void __real_cpu_reset_interrupt(CPUState *cs, int mask);
void __wrap_cpu_reset_interrupt(CPUState *cs, int mask);
void __wrap_cpu_reset_interrupt(CPUState *cs, int mask)
{
    if (panda_rr_replaying() && !panda_rr_inside()) {
        return;
    }
    __real_cpu_reset_interrupt(cs, mask);
}
