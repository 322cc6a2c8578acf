/*
 * The thread that compresses and writes a recording, so that the guest does
 * not wait for either.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "record/saver.h"
#include <signal.h>

/* The guest waits when this much is not written yet. */
#define BACKLOG_MAX (256u << 20)

typedef struct Job {
    char *name;
    uint8_t *data;
    size_t size;
    PandaRamCopy *ram;
    struct Job *next;
} Job;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_t thread;
static PandaArchiveWriter *archive;
static Job *first, **last = &first;
static size_t backlog;
static bool closing;
static Error *failure;

static void free_job(Job *job)
{
    g_free(job->name);
    g_free(job->data);
    g_free(job);
}

static void save(Job *job)
{
    if (qatomic_read(&failure)) {
        panda_ram_copy_free(job->ram);
    } else {
        Error *err = NULL;
        bool ok = job->ram
            ? panda_ram_copy_write(job->ram, archive, &err)
            : panda_archive_add(archive, job->name, job->data, job->size,
                                &err);

        if (!ok) {
            qatomic_set(&failure, err);
        }
    }
}

static void *work(void *opaque)
{
    pthread_mutex_lock(&lock);
    for (;;) {
        Job *job = first;

        if (!job) {
            if (closing) {
                break;
            }
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        first = job->next;
        if (!first) {
            last = &first;
        }
        pthread_mutex_unlock(&lock);
        save(job);
        pthread_mutex_lock(&lock);
        backlog -= job->size;
        pthread_cond_broadcast(&changed);
        free_job(job);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

void panda_saver_begin(PandaArchiveWriter *w)
{
    sigset_t all, old;

    archive = w;
    closing = false;
    failure = NULL;
    backlog = 0;
    /* Signals are for the host program's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_create(&thread, NULL, work, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void queue(Job *job)
{
    pthread_mutex_lock(&lock);
    while (backlog && backlog + job->size > BACKLOG_MAX) {
        pthread_cond_wait(&changed, &lock);
    }
    backlog += job->size;
    *last = job;
    last = &job->next;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

void panda_saver_add(const char *name, uint8_t *data, size_t size)
{
    Job *job = g_new0(Job, 1);

    job->name = g_strdup(name);
    job->data = data;
    job->size = size;
    queue(job);
}

void panda_saver_add_ram(PandaRamCopy *copy)
{
    Job *job = g_new0(Job, 1);

    job->ram = copy;
    queue(job);
}

bool panda_saver_failed(void)
{
    return qatomic_read(&failure);
}

bool panda_saver_end(bool finish, uint64_t *size, Error **errp)
{
    bool ok;

    pthread_mutex_lock(&lock);
    closing = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    *size = panda_archive_size(archive);
    if (failure) {
        panda_archive_abandon(archive);
        error_propagate(errp, g_steal_pointer(&failure));
        ok = false;
    } else if (finish) {
        ok = panda_archive_finish(archive, errp);
    } else {
        panda_archive_abandon(archive);
        ok = true;
    }
    archive = NULL;
    return ok;
}
