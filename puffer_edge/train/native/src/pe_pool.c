#include "pe_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SPINS 2000  /* with PAUSE, some 80 µs */
#define YIELDS 200  /* of a core that somebody else may want, before sleeping */

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

/* A number that only grows, and those who wait for it to change. */
typedef struct gate {
    _Alignas(64) atomic_uint passed;
    atomic_int sleepers;
    pthread_mutex_t lock;
    pthread_cond_t wake;
} gate;

struct pool {
    int threads;
    pthread_t *started;
    task run;
    void *argument;
    gate begin, end, barrier; /* a function was given out, was done by all; all have arrived */
    _Alignas(64) atomic_int running;
    _Alignas(64) atomic_int arrived;
    atomic_int ending;
};

typedef struct worker {
    pool *p;
    int index;
} worker;

static unsigned gate_now(gate *g) { return atomic_load_explicit(&g->passed, memory_order_acquire); }

/* A sleeper counts itself before it looks again, the opener looks for sleepers after it has opened: one of them sees the other. */
static void gate_open(gate *g)
{
    atomic_fetch_add(&g->passed, 1);
    if (atomic_load(&g->sleepers)) {
        pthread_mutex_lock(&g->lock);
        pthread_cond_broadcast(&g->wake);
        pthread_mutex_unlock(&g->lock);
    }
}

static void gate_await(gate *g, unsigned seen)
{
    for (int i = 0; i < SPINS + YIELDS; i++) {
        if (gate_now(g) != seen)
            return;
        if (i < SPINS)
            PAUSE();
        else
            sched_yield();
    }
    pthread_mutex_lock(&g->lock);
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->passed) == seen)
        pthread_cond_wait(&g->wake, &g->lock);
    atomic_fetch_sub(&g->sleepers, 1);
    pthread_mutex_unlock(&g->lock);
}

static void *work(void *argument)
{
    worker mine = *(worker *)argument;
    pool *p = mine.p;
    free(argument);
    for (unsigned seen = 0;; seen++) {
        gate_await(&p->begin, seen);
        if (atomic_load(&p->ending))
            return NULL;
        p->run(p->argument, mine.index);
        if (atomic_fetch_sub_explicit(&p->running, 1, memory_order_acq_rel) == 1)
            gate_open(&p->end);
    }
}

static void gate_make(gate *g)
{
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, NULL);
}

static void gate_free(gate *g)
{
    pthread_cond_destroy(&g->wake);
    pthread_mutex_destroy(&g->lock);
}

pool *pool_new(int threads)
{
    pool *p = NULL;
    if (threads < 1 || posix_memalign((void **)&p, 64, sizeof *p))
        return NULL;
    *p = (pool){.threads = 1, .started = calloc((size_t)threads, sizeof(pthread_t))};
    gate_make(&p->begin);
    gate_make(&p->end);
    gate_make(&p->barrier);
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
    gate_open(&p->begin);
    for (int k = 1; k < p->threads; k++)
        pthread_join(p->started[k], NULL);
    gate_free(&p->begin);
    gate_free(&p->end);
    gate_free(&p->barrier);
    free(p->started);
    free(p);
}

int pool_threads(const pool *p) { return p->threads; }

void pool_run(pool *p, task run, void *argument)
{
    if (p->threads == 1) {
        run(argument, 0);
        return;
    }
    unsigned seen = gate_now(&p->end);
    p->run = run;
    p->argument = argument;
    atomic_store_explicit(&p->running, p->threads - 1, memory_order_relaxed);
    gate_open(&p->begin);
    run(argument, 0);
    gate_await(&p->end, seen);
}

void pool_barrier(pool *p)
{
    if (p->threads == 1)
        return;
    unsigned seen = gate_now(&p->barrier); /* cannot change before this thread has arrived */
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) == p->threads - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        gate_open(&p->barrier);
    } else
        gate_await(&p->barrier, seen);
}
