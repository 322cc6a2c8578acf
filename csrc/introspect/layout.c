/*
 * Where the fields of the kernel's structures are.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/layout.h"

OsLayout os_layout;

static const struct {
    const char *structure;
    const char *field;
} names[] = {
#define OS_FIELD_NAME(symbol, structure, field) { structure, field },
    OS_FIELDS(OS_FIELD_NAME)
#undef OS_FIELD_NAME
};

void os_layout_clear(void)
{
    os_layout = (OsLayout) {};
}

void os_layout_set(OsField field, int32_t offset, OsSource source,
                   const char *evidence)
{
    os_layout.field[field] = (OsOffset) { offset, source, evidence };
}

const char *os_field_structure(OsField field)
{
    return names[field].structure;
}

const char *os_field_name(OsField field)
{
    return names[field].field;
}

bool os_get_word(uint64_t base, OsField field, uint64_t *value)
{
    *value = 0;
    return os_knows(field) && os_read_word(base + os_offset(field), value);
}

bool os_get_u32(uint64_t base, OsField field, uint32_t *value)
{
    *value = 0;
    return os_knows(field) && os_read_u32(base + os_offset(field), value);
}

bool os_get_u64(uint64_t base, OsField field, uint64_t *value)
{
    *value = 0;
    return os_knows(field) && os_read_u64(base + os_offset(field), value);
}
