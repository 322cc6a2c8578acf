/*
 * The machine is reset while it is recorded or replays: the CPU gets a new
 * state at once. What the reset does to memory is recorded as it is made.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/reset.h"
#include "record/player.h"
#include "record/state.h"
#include "system/hw_accel.h"

/* The last thing of a reset. */
void __real_cpu_synchronize_all_post_reset(void);
void __wrap_cpu_synchronize_all_post_reset(void);
void __wrap_cpu_synchronize_all_post_reset(void)
{
    PandaBytes state = {};

    __real_cpu_synchronize_all_post_reset();
    if (panda_rr_recording()) {
        if (panda_cpu_save(&state)) {
            panda_log_entry(PANDA_ENTRY_RESET);
            panda_log_string(state.data, state.n);
        } else {
            Error *err = NULL;

            error_setg(&err, "the state of the CPU after a reset cannot be "
                       "saved");
            panda_recorder_fail(err);
        }
        g_free(state.data);
    }
}

void panda_reset_apply(PandaLogCursor *c)
{
    size_t n;
    const uint8_t *state = panda_log_get_string(c, &n);
    PandaLogCursor inner = { state, state + (state ? n : 0) };

    if (!state || !panda_cpu_load(&inner)) {
        panda_log_bad(c);
    }
}
