/* A pool of threads that run one function together. Between two functions and at barriers they spin for a bounded time, yield, then
 * sleep: a sleeping thread costs tens of microseconds to wake, and a spinning one costs others their core. */
#ifndef PE_POOL_H
#define PE_POOL_H

typedef struct pool pool;
typedef void (*task)(void *argument, int thread);

/* threads − 1 new ones; the caller is thread 0. NULL where the system gives none. */
pool *pool_new(int threads);
void pool_free(pool *p);
int pool_threads(const pool *p);
/* Run on every thread, and return when all have. */
void pool_run(pool *p, task run, void *argument);
/* Inside a task: wait for all threads. */
void pool_barrier(pool *p);

#endif
