/*
 * Compound reads that make Python's objects themselves.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/compound.h"
#include "exec/target_page.h"

typedef void PyObj;

static struct {
    char *(*bytes_data)(PyObj *bytes);
    PyObj *(*new_bytes)(const char *data, ssize_t size);
    ssize_t (*bytes_size)(PyObj *bytes);
    PyObj *(*new_function)(void *definition, PyObj *self, PyObj *module);
    void (*clear_error)(void);
    PyObj *(*error)(void);
    PyObj *(*new_list)(ssize_t size);
    int (*set_item)(PyObj *list, ssize_t index, PyObj *item);
    unsigned long long (*as_u64)(PyObj *number);
    PyObj *(*from_u64)(unsigned long long value);
    void (*decref)(PyObj *object);
    void (*incref)(PyObj *object);
    PyObj *none;
} py;

/* CPython's PyMethodDef, of a function with METH_FASTCALL. */
typedef struct Definition {
    const char *name;
    PyObj *(*function)(PyObj *self, PyObj *const *args, ssize_t nargs);
    int flags;
    const char *doc;
} Definition;

#define FASTCALL 0x80

void panda_python_set_read_api(const PandaPythonReadApi *api)
{
    py.bytes_data = api->PyBytes_AsString;
    py.new_bytes = api->PyBytes_FromStringAndSize;
    py.bytes_size = api->PyBytes_Size;
    py.new_function = api->PyCFunction_NewEx;
    py.clear_error = api->PyErr_Clear;
    py.error = api->PyErr_Occurred;
    py.new_list = api->PyList_New;
    py.set_item = api->PyList_SetItem;
    py.as_u64 = api->PyLong_AsUnsignedLongLongMask;
    py.from_u64 = api->PyLong_FromUnsignedLongLong;
    py.decref = api->Py_DecRef;
    py.incref = api->Py_IncRef;
    py.none = api->none;
}

static PyObj *nothing(void)
{
    py.clear_error();
    py.incref(py.none);
    return py.none;
}

/* The n arguments as numbers; false if one is none. */
static bool numbers(PyObj *const *args, ssize_t n, uint64_t *out)
{
    for (ssize_t i = 0; i < n; i++) {
        out[i] = py.as_u64(args[i]);
        /* All ones is what an argument that is no number looks like. */
        if (out[i] == UINT64_MAX && py.error()) {
            return false;
        }
    }
    return true;
}

static PyObj *list_of(const uint64_t *values, ssize_t n, ssize_t more)
{
    PyObj *list = py.new_list(n + more);

    for (ssize_t i = 0; list && i < n; i++) {
        py.set_item(list, i, py.from_u64(values[i]));
    }
    return list;
}

/* ---- text ---- */

/* More than this is not worth the trouble. */
#define TEXT_MAX 4096

/* A new bytes object; NULL: the TLB does not lead to its end. */
static PyObj *text_at(uint64_t addr, uint64_t max_length)
{
    char buf[TEXT_MAX];
    uint64_t done = 0;

    while (done < MIN(max_length, TEXT_MAX)) {
        uint64_t in_page = -((addr + done) | TARGET_PAGE_MASK);
        uint64_t run = MIN(MIN(max_length, TEXT_MAX) - done, in_page);
        const char *host = panda_look_up_tlb(panda_vcpu.cs, addr + done);
        const char *end;

        if (!host) {
            return NULL;
        }
        end = memchr(host, 0, run);
        if (end && !done) {
            return py.new_bytes(host, end - host);
        }
        memcpy(buf + done, host, end ? end - host : run);
        done += end ? end - host : run;
        if (end) {
            return py.new_bytes(buf, done);
        }
    }
    return done == max_length ? py.new_bytes(buf, done) : NULL;
}

static PyObj *text_function(PyObj *self, PyObj *const *args, ssize_t nargs)
{
    uint64_t number[2];
    PyObj *text = NULL;

    if (nargs == 2 && panda_vcpu.cs && numbers(args, 2, number)) {
        text = text_at(number[0], number[1]);
    }
    return text ? text : nothing();
}

void *panda_python_make_text(void)
{
    static Definition definition = { "text", text_function, FASTCALL, NULL };

    return py.new_function(&definition, NULL, NULL);
}

/* ---- values ---- */

#define VALUES_MAX 64

static PyObj *values_function(PyObj *self, PyObj *const *args, ssize_t nargs)
{
    bool with_text = nargs == 3;
    uint64_t value[VALUES_MAX];
    const uint16_t *what;
    uint64_t number[2];
    PyObj *list, *text;
    ssize_t n;

    if ((nargs != 1 && nargs != 3) || !panda_vcpu.cs) {
        return nothing();
    }
    what = (const uint16_t *)py.bytes_data(args[0]);
    if (!what || (with_text && !numbers(args + 1, 2, number))) {
        return nothing();
    }
    n = py.bytes_size(args[0]) / sizeof(*what);
    if (n > VALUES_MAX || (with_text && number[0] >= n)) {
        return nothing();
    }
    for (ssize_t i = 0; i < n; i++) {
        if (!panda_read_value(panda_vcpu.cs, what[i], true, &value[i])) {
            return nothing();
        }
    }
    list = list_of(value, n, with_text);
    if (list && with_text) {
        text = text_at(value[number[0]], number[1]);
        py.set_item(list, n, text ? text : nothing());
    }
    return list;
}

void *panda_python_make_values(void)
{
    static Definition definition = {
        "values", values_function, FASTCALL, NULL
    };

    return py.new_function(&definition, NULL, NULL);
}

/* ---- pointers ---- */

#define POINTERS_MAX 512

static PyObj *pointers_function(PyObj *self, PyObj *const *args,
                                ssize_t nargs)
{
    uint64_t value[POINTERS_MAX];
    uint64_t number[3];
    ssize_t n = 0;

    if (nargs != 3 || !panda_vcpu.cs || !numbers(args, 3, number)
        || number[1] > POINTERS_MAX) {
        return nothing();
    }
    while (n < number[1]) {
        uint64_t at = number[0] + n * (uint64_t)panda_arch_word(panda_vcpu.cs);

        if (!panda_read_word(panda_vcpu.cs, at, true, &value[n])) {
            return nothing();
        }
        if (number[2] && !value[n]) {
            break;
        }
        n++;
    }
    return list_of(value, n, 0);
}

void *panda_python_make_pointers(void)
{
    static Definition definition = {
        "pointers", pointers_function, FASTCALL, NULL
    };

    return py.new_function(&definition, NULL, NULL);
}
