/* Mean and sum of squared deviations of each column, in two passes over fixed shards. */

typedef struct moments {
    engine *e;
    int64_t rows;
    int n;
    const double *x;
    double *mean, *m2;
    double *part; /* (SHARDS, n) */
} moments;

static void moments_task(void *argument, int thread)
{
    const moments *m = argument;
    int threads = pool_threads(m->e->pool), n = m->n;
    for (int pass = 0; pass < 2; pass++) {
        for (int s = thread; s < SHARDS; s += threads) {
            int64_t from, to;
            double *sum = m->part + s * n;
            shard(m->rows, s, &from, &to);
            memset(sum, 0, sizeof(double) * (size_t)n);
            for (int64_t i = from; i < to; i++)
                for (int k = 0; k < n; k++) {
                    double x = m->x[i * n + k] - (pass ? m->mean[k] : 0.0);
                    sum[k] += pass ? x * x : x;
                }
        }
        pool_barrier(m->e->pool);
        if (thread == 0) {
            double *out = pass ? m->m2 : m->mean;
            memset(out, 0, sizeof(double) * (size_t)n);
            for (int s = 0; s < SHARDS; s++)
                for (int k = 0; k < n; k++)
                    out[k] += m->part[s * n + k];
            for (int k = 0; k < n && !pass; k++)
                out[k] /= (double)m->rows;
        }
        pool_barrier(m->e->pool);
    }
}

/* x (rows, n), n ≤ 4096; part: room for 8 · n numbers. */
API void pe_engine_moments(engine *e, int64_t rows, int32_t n, const double *x, double *mean, double *m2, double *part)
{
    moments m = {e, rows, n, x, mean, m2, part};
    pool_run(e->pool, moments_task, &m);
}
