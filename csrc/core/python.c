/*
 * Calling Python functions, with CPython's API reached through pointers.
 *
 * All kinds supported here are raised on the CPU thread, which the host entered
 * through a Python frame: its thread state exists and is only taken up again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "core/python.h"

/* The callee may use the slot before the first argument (vectorcall). */
#define ARGUMENTS_OFFSET ((size_t)1 << (8 * sizeof(size_t) - 1))

typedef void PyObj;

static struct {
    void *(*save_thread)(void);
    void (*restore_thread)(void *state);
    PyObj *(*from_u64)(unsigned long long value);
    PyObj *(*vectorcall)(PyObj *callable, PyObj *const *args, size_t nargs,
                          PyObj *names);
    void (*fetch)(PyObj **type, PyObj **value, PyObj **traceback);
    void (*normalize)(PyObj **type, PyObj **value, PyObj **traceback);
    int (*set_traceback)(PyObj *exception, PyObj *traceback);
    void (*write_unraisable)(PyObj *object);
    void (*decref)(PyObj *object);
    void (*incref)(PyObj *object);
    PyObj *(*new_bytes)(const char *data, ssize_t size);
    PyObj *(*new_function)(void *definition, PyObj *self, PyObj *module);
    void (*clear_error)(void);
    PyObj *(*error)(void);
    unsigned long long (*as_u64)(PyObj *number);
    PyObj *(*from_s64)(long long value);
    PyObj *(*from_bool)(long value);
    int (*is_true)(PyObj *object);
    PyObj *none;
    PyObj *failed;
} py;

static void *vcpu_state;

void panda_python_set_api(const PandaPythonApi *api)
{
    py.save_thread = api->PyEval_SaveThread;
    py.restore_thread = api->PyEval_RestoreThread;
    py.from_u64 = api->PyLong_FromUnsignedLongLong;
    py.vectorcall = api->PyObject_Vectorcall;
    py.fetch = api->PyErr_Fetch;
    py.normalize = api->PyErr_NormalizeException;
    py.set_traceback = api->PyException_SetTraceback;
    py.write_unraisable = api->PyErr_WriteUnraisable;
    py.decref = api->Py_DecRef;
    py.incref = api->Py_IncRef;
    py.new_bytes = api->PyBytes_FromStringAndSize;
    py.new_function = api->PyCFunction_NewEx;
    py.clear_error = api->PyErr_Clear;
    py.error = api->PyErr_Occurred;
    py.as_u64 = api->PyLong_AsUnsignedLongLongMask;
    py.from_s64 = api->PyLong_FromLongLong;
    py.from_bool = api->PyBool_FromLong;
    py.is_true = api->PyObject_IsTrue;
    py.none = api->none;
    py.failed = api->failed;
}

void panda_python_attach_vcpu(void *thread_state)
{
    vcpu_state = thread_state;
}

/* Which objects a kind's function gets around its numbers. */
typedef struct Shape {
    bool supported;
    bool tb;
    bool buf;
} Shape;

static const Shape shapes[PANDA_CB_LAST] = {
    [PANDA_CB_BEFORE_BLOCK_EXEC] = { true, .tb = true },
    [PANDA_CB_AFTER_BLOCK_EXEC] = { true, .tb = true },
    [PANDA_CB_START_BLOCK_EXEC] = { true, .tb = true },
    [PANDA_CB_END_BLOCK_EXEC] = { true, .tb = true },
    [PANDA_CB_INSN_EXEC] = { true },
    [PANDA_CB_AFTER_INSN_EXEC] = { true },
    [PANDA_CB_VIRT_MEM_BEFORE_READ] = { true },
    [PANDA_CB_VIRT_MEM_BEFORE_WRITE] = { true, .buf = true },
    [PANDA_CB_PHYS_MEM_BEFORE_READ] = { true },
    [PANDA_CB_PHYS_MEM_BEFORE_WRITE] = { true, .buf = true },
    [PANDA_CB_VIRT_MEM_AFTER_READ] = { true, .buf = true },
    [PANDA_CB_VIRT_MEM_AFTER_WRITE] = { true, .buf = true },
    [PANDA_CB_PHYS_MEM_AFTER_READ] = { true, .buf = true },
    [PANDA_CB_PHYS_MEM_AFTER_WRITE] = { true, .buf = true },
};

bool panda_python_supports(panda_cb_type type)
{
    return (unsigned)type < PANDA_CB_LAST && shapes[type].supported
        && py.vectorcall;
}

void panda_python_prepare(PandaPythonTarget *target, panda_cb_type type,
                          const PandaPythonCallback *callback)
{
    *target = (PandaPythonTarget) {
        .callable = callback->callable,
        .before = { callback->cpu, callback->tb },
        .n_before = shapes[type].tb ? 2 : 1,
        .after = shapes[type].buf ? callback->buf : NULL,
    };
}

/* The function raised: hand the exception over. */
static void report(PyObj *callable)
{
    PyObj *type, *value, *traceback, *result;

    if (!py.failed) {
        py.write_unraisable(callable);
        return;
    }
    py.fetch(&type, &value, &traceback);
    py.normalize(&type, &value, &traceback);
    if (traceback) {
        py.set_traceback(value, traceback);
    }
    result = py.vectorcall(py.failed, &value, 1, NULL);
    if (result) {
        py.decref(result);
    } else {
        py.write_unraisable(py.failed);
    }
    py.decref(type);
    py.decref(value);
    if (traceback) {
        py.decref(traceback);
    }
}

void panda_python_call(const PandaCallback *callback, unsigned n,
                       const uint64_t *numbers)
{
    const PandaPythonTarget *target = &callback->python;
    PyObj *slots[8];
    PyObj **args = slots + 1;
    unsigned first = target->n_before, count = first + n;
    PyObj *result;

    py.restore_thread(vcpu_state);
    if (!qatomic_read(&callback->enabled)
        || qatomic_read(&panda_gate_closed)) {
        /* By the thread that held Python's lock until now. */
        vcpu_state = py.save_thread();
        return;
    }
    args[0] = target->before[0];
    args[1] = target->before[1];
    for (unsigned i = 0; i < n; i++) {
        args[first + i] = py.from_u64(numbers[i]);
    }
    args[count] = target->after;
    result = py.vectorcall(target->callable, args,
                           (count + !!target->after) | ARGUMENTS_OFFSET,
                           NULL);
    if (likely(result)) {
        py.decref(result);
    } else {
        report(target->callable);
    }
    for (unsigned i = 0; i < n; i++) {
        py.decref(args[first + i]);
    }
    vcpu_state = py.save_thread();
}

static PyObj *object_of(const PandaPythonTarget *target, uint64_t word,
                        PandaPppKind kind)
{
    switch (kind) {
    case PANDA_PPP_CPU:
    case PANDA_PPP_TB:
        py.incref(target->before[kind == PANDA_PPP_TB]);
        return target->before[kind == PANDA_PPP_TB];
    case PANDA_PPP_S64:
        return py.from_s64(word);
    case PANDA_PPP_U32:
        return py.from_u64((uint32_t)word);
    case PANDA_PPP_S32:
        return py.from_s64((int32_t)word);
    case PANDA_PPP_U16:
        return py.from_u64((uint16_t)word);
    case PANDA_PPP_S16:
        return py.from_s64((int16_t)word);
    case PANDA_PPP_U8:
        return py.from_u64((uint8_t)word);
    case PANDA_PPP_BOOL:
        return py.from_bool((uint8_t)word != 0);
    default:
        return py.from_u64(word);
    }
}

bool panda_python_call_words(const PandaCallback *callback, unsigned n,
                             const uint64_t *words, const uint8_t *kinds)
{
    const PandaPythonTarget *target = &callback->python;
    PyObj *slots[PANDA_PPP_WORDS + 1];
    PyObj **args = slots + 1;
    bool is_true = false;
    PyObj *result;

    py.restore_thread(vcpu_state);
    if (!qatomic_read(&callback->enabled)
        || qatomic_read(&panda_gate_closed)) {
        /* By the thread that held Python's lock until now. */
        vcpu_state = py.save_thread();
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        args[i] = object_of(target, words[i], kinds[i]);
    }
    result = py.vectorcall(target->callable, args, n | ARGUMENTS_OFFSET,
                           NULL);
    if (likely(result)) {
        is_true = result != py.none && py.is_true(result) == 1;
        py.clear_error();
        py.decref(result);
    } else {
        report(target->callable);
    }
    for (unsigned i = 0; i < n; i++) {
        py.decref(args[i]);
    }
    vcpu_state = py.save_thread();
    return is_true;
}

/* ---- reading memory without a foreign-function layer ---- */

/* More pages than this are not worth the trouble. */
#define PEEK_PAGES 2

/* New reference; NULL: the TLB does not lead to all of it. */
static PyObj *peek(uint64_t addr, uint64_t len)
{
    uint64_t first = -(addr | TARGET_PAGE_MASK);
    g_autofree char *both = NULL;
    char *host, *next;

    if (len > first + (PEEK_PAGES - 1) * TARGET_PAGE_SIZE) {
        return NULL;
    }
    host = panda_look_up_tlb(panda_vcpu.cs, addr);
    if (!host) {
        return NULL;
    }
    if (len <= first) {
        return py.new_bytes(host, len);
    }
    next = panda_look_up_tlb(panda_vcpu.cs, addr + first);
    if (!next) {
        return NULL;
    }
    both = g_malloc(len);
    memcpy(both, host, first);
    memcpy(both + first, next, len - first);
    return py.new_bytes(both, len);
}

static PyObj *peek_function(PyObj *self, PyObj *const *args, ssize_t nargs)
{
    PyObj *bytes = NULL;

    if (nargs == 2) {
        uint64_t addr = py.as_u64(args[0]);
        uint64_t len = py.as_u64(args[1]);

        /* All ones is what an argument that is no number looks like. */
        if ((addr == UINT64_MAX || len == UINT64_MAX) && py.error()) {
            py.clear_error();
        } else {
            bytes = peek(addr, len);
        }
    }
    if (!bytes) {
        py.incref(py.none);
        return py.none;
    }
    return bytes;
}

void *panda_python_make_peek(void)
{
    /* CPython's PyMethodDef; METH_FASTCALL. */
    static struct {
        const char *name;
        PyObj *(*function)(PyObj *, PyObj *const *, ssize_t);
        int flags;
        const char *doc;
    } definition = { "peek", peek_function, 0x80, NULL };

    return py.new_function(&definition, NULL, NULL);
}
