/*
 * Callbacks that are Python functions, called without a foreign-function layer.
 *
 * The library does not know Python at build time: the host gives it the
 * addresses of a few functions of CPython's stable API. For the kinds that are
 * raised most often this costs half of what a closure of ctypes does; the
 * others are registered as C functions.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PYTHON_H
#define PANDA_PYTHON_H

#include "panda/callbacks.h"
#include "panda/types.h"

/** Addresses of CPython's functions of the same names; all are needed. */
typedef struct PandaPythonApi {
    void *PyEval_SaveThread;
    void *PyEval_RestoreThread;
    void *PyLong_FromUnsignedLongLong;
    void *PyObject_Vectorcall;
    void *PyErr_Fetch;
    void *PyErr_NormalizeException;
    void *PyException_SetTraceback;
    void *PyErr_WriteUnraisable;
    void *Py_DecRef;
    void *Py_IncRef;
    void *PyBytes_FromStringAndSize;
    void *PyCFunction_NewEx;
    void *PyErr_Clear;
    void *PyErr_Occurred;
    void *PyLong_AsUnsignedLongLongMask;
    void *PyLong_FromLongLong;
    void *PyBool_FromLong;
    void *PyObject_IsTrue;
    /** The object None. */
    void *none;
    /** A callable that is given the exception a callback raised, or NULL. */
    void *failed;
} PandaPythonApi;

/** A Python callback; the host keeps the objects alive while it is registered. */
typedef struct PandaPythonCallback {
    /** The function; it is called with the arguments its kind has. */
    void *callable;
    /** Object handed over for a PandaCPU. */
    void *cpu;
    /** Object handed over for a PandaTB. */
    void *tb;
    /** Object handed over for a value buffer. */
    void *buf;
} PandaPythonCallback;

/** Give the library CPython's functions; they stay for good. */
void panda_python_set_api(const PandaPythonApi *api);

/**
 * Tell the thread state of the CPU thread; called on it, from Python.
 *
 * thread_state is what PyThreadState_Get() returns there.
 */
void panda_python_attach_vcpu(void *thread_state);

/** Whether callbacks of a kind can be registered as Python functions. */
bool panda_python_supports(panda_cb_type type);

/**
 * Append a Python function to the list of a kind, enabled.
 *
 * Enabled, disabled and removed by its owner: panda_enable_plugin(),
 * panda_disable_plugin(), panda_unregister_callbacks().
 * PANDA_ERR_UNSUPPORTED if panda_python_supports() says no.
 */
int panda_register_python_callback(void *plugin, panda_cb_type type,
                                   const PandaPythonCallback *callback);

/**
 * Make a Python function peek(address, length); a new reference.
 *
 * It reads guest memory that the running CPU's TLB leads to and returns a bytes
 * object; None if the TLB does not lead to all of it or the arguments are wrong,
 * in which case panda_virtual_memory_read() tells more. To be called on the CPU
 * thread, in a callback.
 *
 * Never blocks.
 */
void *panda_python_make_peek(void);

#endif
