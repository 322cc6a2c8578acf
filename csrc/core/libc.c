/*
 * Functions of the C library that the compiler's own runtime library has too.
 *
 * That library is linked into ours, and its versions of these functions would
 * be taken: they are portable, and look at one byte after the other. glibc's
 * choose what the processor does best. So calls come here and go on to glibc.
 * Only such functions are here whose results are the same everywhere, as
 * recordings are replayed on other machines.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include <dlfcn.h>

/* Until the constructor has run, the compiler's are as good. */
#define FORWARD(type, name, params, args)                                     \
    type __real_##name params;                                                \
    type __wrap_##name params;                                                \
    static type (*best_##name) params = __real_##name;                        \
    type __wrap_##name params                                                 \
    {                                                                         \
        return best_##name args;                                              \
    }

FORWARD(void *, memcpy, (void *to, const void *from, size_t n), (to, from, n))
FORWARD(void *, memmove, (void *to, const void *from, size_t n), (to, from, n))
FORWARD(void *, memset, (void *to, int byte, size_t n), (to, byte, n))
FORWARD(int, memcmp, (const void *a, const void *b, size_t n), (a, b, n))
FORWARD(int, bcmp, (const void *a, const void *b, size_t n), (a, b, n))
FORWARD(size_t, strlen, (const char *text), (text))
FORWARD(double, fma, (double a, double b, double c), (a, b, c))
FORWARD(float, fmaf, (float a, float b, float c), (a, b, c))

#define FIND(name)                                                            \
    best_##name = (typeof(best_##name))dlsym(RTLD_NEXT, #name)                \
        ?: __real_##name

static void __attribute__((constructor)) find(void)
{
    FIND(memcpy);
    FIND(memmove);
    FIND(memset);
    FIND(memcmp);
    FIND(bcmp);
    FIND(strlen);
    FIND(fma);
    FIND(fmaf);
}
