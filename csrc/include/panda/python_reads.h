/*
 * Compound reads as Python functions, without a foreign-function layer.
 *
 * They do what the functions of compound.h and memory.h do, as far as that
 * needs no walk of page tables, and return None otherwise. To be called in a
 * callback on the CPU thread; those that read registers only, anywhere.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_PYTHON_READS_H
#define PANDA_PYTHON_READS_H

#include "panda/types.h"

/** Addresses of CPython's functions of the same names; all are needed. */
typedef struct PandaPythonReadApi {
    void *PyBytes_AsString;
    void *PyBytes_FromStringAndSize;
    void *PyBytes_Size;
    void *PyCFunction_NewEx;
    void *PyErr_Clear;
    void *PyErr_Occurred;
    void *PyList_New;
    void *PyList_SetItem;
    void *PyLong_AsUnsignedLongLongMask;
    void *PyLong_FromUnsignedLongLong;
    void *Py_DecRef;
    void *Py_IncRef;
    /** The object None. */
    void *none;
} PandaPythonReadApi;

/** Give the library CPython's functions; they stay for good. */
void panda_python_set_read_api(const PandaPythonReadApi *api);

/**
 * Make a Python function values(what), or values(what, n, max_length).
 *
 * what is a bytes object of 16-bit numbers, PandaValue, in host order; the
 * result a list of ints. With n the list has one element more: the bytes of
 * the string value n points to, at most max_length, or None.
 *
 * Never blocks.
 */
void *panda_python_make_values(void);

/**
 * Make a Python function pointers(address, n, until_null), a list of ints.
 *
 * Never blocks.
 */
void *panda_python_make_pointers(void);

/**
 * Make a Python function text(address, max_length).
 *
 * Returns the bytes before the first NUL, at most max_length.
 *
 * Never blocks.
 */
void *panda_python_make_text(void);

#endif
