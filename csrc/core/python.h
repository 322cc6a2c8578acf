/*
 * Python functions as callbacks, for the files that raise events.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CORE_PYTHON_H
#define PANDA_CORE_PYTHON_H

#include "core/internal.h"

/* Fill in what panda_python_call() needs for a kind. */
void panda_python_prepare(PandaPythonTarget *target, panda_cb_type type,
                          const PandaPythonCallback *callback);

/* Call a Python callback with the numbers that its kind passes. */
void panda_python_call(const PandaCallback *callback, unsigned n,
                       const uint64_t *numbers);

/*
 * Call one with words of given kinds (PandaPppKind); is its result true?
 */
bool panda_python_call_words(const PandaCallback *callback, unsigned n,
                             const uint64_t *words, const uint8_t *kinds);

/*
 * Call a callback of a kind that is raised often: PANDA_CALL() for C functions.
 * numbers: a parenthesised list of those arguments that are numbers.
 */
#define PANDA_CALL_OFTEN(c, numbers, member, ...)                             \
    do {                                                                      \
        if ((c)->is_python) {                                                 \
            const uint64_t n_[] = { PANDA_UNPACK numbers };                   \
            panda_python_call(c, ARRAY_SIZE(n_), n_);                                  \
        } else {                                                              \
            PANDA_CALL(c, member, ##__VA_ARGS__);                             \
        }                                                                     \
    } while (0)

#define PANDA_UNPACK(...) __VA_ARGS__

#endif
