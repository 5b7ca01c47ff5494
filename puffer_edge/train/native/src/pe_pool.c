#include "pe_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SPINS 1000 /* some 50 µs, at 140 cycles a pause */

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

struct pool {
    int threads;
    pthread_t *started;
    task run;
    void *argument;
    _Alignas(64) atomic_uint turn; /* counts functions that were given out */
    _Alignas(64) atomic_int running;
    _Alignas(64) atomic_int arrived;
    atomic_uint passed; /* counts barriers */
    atomic_int sleepers;
    atomic_int ending;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

typedef struct worker {
    pool *p;
    int index;
} worker;

static unsigned await_turn(pool *p, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        unsigned now = atomic_load_explicit(&p->turn, memory_order_acquire);
        if (now != seen)
            return now;
        PAUSE();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->turn) == seen)
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
    return atomic_load(&p->turn);
}

static void *work(void *argument)
{
    worker mine = *(worker *)argument;
    free(argument);
    unsigned seen = 0;
    for (;;) {
        seen = await_turn(mine.p, seen);
        if (atomic_load(&mine.p->ending))
            return NULL;
        mine.p->run(mine.p->argument, mine.index);
        atomic_fetch_sub_explicit(&mine.p->running, 1, memory_order_release);
    }
}

static void next_turn(pool *p)
{
    atomic_fetch_add(&p->turn, 1);
    if (atomic_load(&p->sleepers)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

pool *pool_new(int threads)
{
    pool *p = NULL;
    if (threads < 1 || posix_memalign((void **)&p, 64, sizeof *p))
        return NULL;
    *p = (pool){.threads = 1, .started = calloc((size_t)threads, sizeof(pthread_t))};
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (int k = 1; p->started && k < threads; k++) {
        worker *w = malloc(sizeof *w);
        if (!w)
            break;
        *w = (worker){p, k};
        if (pthread_create(&p->started[k], NULL, work, w)) {
            free(w);
            break;
        }
        p->threads++;
    }
    if (p->threads != threads) {
        pool_free(p);
        return NULL;
    }
    return p;
}

void pool_free(pool *p)
{
    if (!p)
        return;
    atomic_store(&p->ending, 1);
    next_turn(p);
    for (int k = 1; k < p->threads; k++)
        pthread_join(p->started[k], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->started);
    free(p);
}

int pool_threads(const pool *p) { return p->threads; }

void pool_run(pool *p, task run, void *argument)
{
    p->run = run;
    p->argument = argument;
    atomic_store_explicit(&p->running, p->threads - 1, memory_order_relaxed);
    if (p->threads > 1)
        next_turn(p);
    run(argument, 0);
    for (int i = 0; atomic_load_explicit(&p->running, memory_order_acquire) > 0; i++) {
        if (i < SPINS)
            PAUSE();
        else
            sched_yield();
    }
}

void pool_barrier(pool *p)
{
    if (p->threads == 1)
        return;
    unsigned round = atomic_load_explicit(&p->passed, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) == p->threads - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&p->passed, round + 1, memory_order_release);
        return;
    }
    for (int i = 0; atomic_load_explicit(&p->passed, memory_order_acquire) == round; i++) {
        if (i < SPINS)
            PAUSE();
        else
            sched_yield();
    }
}
