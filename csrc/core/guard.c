/*
 * QEMU calls exit() and abort() where it likes; the host program must not die
 * of it. Calls into QEMU run under a guard, and the functions below stand in
 * for libc's (the linker's --wrap): they go back to the innermost guard of the
 * thread. A thread without a guard is parked for good.
 *
 * What QEMU held at that moment (locks, half a machine) stays held, so the
 * machine is dead afterwards.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "monitor/monitor.h"
#include <setjmp.h>

typedef struct Guard {
    sigjmp_buf jump;
    struct Guard *outer;
} Guard;

static __thread Guard *innermost;
static __thread GString *capture;

/* Written by the first thread that fails. */
static char fatal_text[8192];
static bool fatal_set;

const char *panda_fatal_text(void)
{
    return fatal_text;
}

bool panda_guarded(void (*fn)(void *opaque), void *opaque)
{
    Guard guard = { .outer = innermost };

    if (sigsetjmp(guard.jump, 0)) {
        innermost = guard.outer;
        return false;
    }
    innermost = &guard;
    fn(opaque);
    innermost = guard.outer;
    return true;
}

static G_NORETURN void leave(const char *how)
{
    Guard *guard = innermost;
    g_autofree char *said = panda_capture_end();

    if (!qatomic_xchg(&fatal_set, true)) {
        if (said) {
            g_strchomp(said);
        }
        snprintf(fatal_text, sizeof(fatal_text), "%s%s%s%s",
                 said && *said ? said : "",
                 said && *said ? " (" : "", how,
                 said && *said ? ")" : "");
    }
    panda_set_dead();
    if (guard) {
        siglongjmp(guard->jump, 1);
    }
    /* A worker thread of QEMU's: there is nothing to go back to. */
    if (bql_locked()) {
        bql_unlock();
    }
    for (;;) {
        pause();
    }
}

G_NORETURN void __wrap_exit(int status);
void __wrap_exit(int status)
{
    g_autofree char *how = g_strdup_printf("QEMU called exit(%d)", status);

    leave(how);
}

G_NORETURN void __wrap__exit(int status);
void __wrap__exit(int status)
{
    __wrap_exit(status);
}

G_NORETURN void __wrap_abort(void);
void __wrap_abort(void)
{
    leave("QEMU called abort()");
}

G_NORETURN void __wrap___assert_fail(const char *expression, const char *file,
                                     unsigned line, const char *function);
void __wrap___assert_fail(const char *expression, const char *file,
                          unsigned line, const char *function)
{
    g_autofree char *how =
        g_strdup_printf("QEMU's assertion \"%s\" failed in %s, %s:%u",
                        expression, function, file, line);

    leave(how);
}

G_NORETURN void __wrap_g_assertion_message_expr(
    const char *domain, const char *file, int line, const char *function,
    const char *expression);
void __wrap_g_assertion_message_expr(const char *domain, const char *file,
                                     int line, const char *function,
                                     const char *expression)
{
    g_autofree char *how =
        g_strdup_printf("QEMU's assertion \"%s\" failed in %s, %s:%d",
                        expression ? expression : "code not reached",
                        function, file, line);

    leave(how);
}

/* ---- what QEMU would print ---- */

void panda_capture_begin(void)
{
    if (!capture) {
        capture = g_string_new(NULL);
    }
}

char *panda_capture_end(void)
{
    char *text = capture ? g_string_free(capture, false) : NULL;

    capture = NULL;
    return text;
}

int __real_error_vprintf(const char *fmt, va_list ap);
int __wrap_error_vprintf(const char *fmt, va_list ap) G_GNUC_PRINTF(1, 0);
int __wrap_error_vprintf(const char *fmt, va_list ap)
{
    if (capture && !monitor_cur()) {
        size_t before = capture->len;

        g_string_append_vprintf(capture, fmt, ap);
        return capture->len - before;
    }
    return __real_error_vprintf(fmt, ap);
}

/* A few boards print their errors with fprintf(stderr, ...). */
int __wrap_fprintf(FILE *stream, const char *fmt, ...)
    G_GNUC_PRINTF(2, 3);
int __wrap_fprintf(FILE *stream, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    if (capture && stream == stderr) {
        size_t before = capture->len;

        g_string_append_vprintf(capture, fmt, ap);
        n = capture->len - before;
    } else {
        n = vfprintf(stream, fmt, ap);
    }
    va_end(ap);
    return n;
}

/* ---- atexit ---- */

static GPtrArray *exit_functions;

/* C's atexit list runs when the interpreter is gone: keep our own. */
int __wrap_atexit(void (*fn)(void));
int __wrap_atexit(void (*fn)(void))
{
    if (!exit_functions) {
        exit_functions = g_ptr_array_new();
    }
    g_ptr_array_add(exit_functions, fn);
    return 0;
}

void panda_run_atexit(void)
{
    while (exit_functions && exit_functions->len) {
        void (*fn)(void) = g_ptr_array_remove_index(exit_functions,
                                                    exit_functions->len - 1);

        fn();
    }
}
