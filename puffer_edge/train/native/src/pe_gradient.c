/* Forward and backward of many rows: what an autograd function calls. */

typedef struct pass {
    engine *e;
    int64_t rows;
    const real *x, *d;
    real *out;
} pass;

static void forward_task(void *argument, int thread)
{
    const pass *p = argument;
    engine *e = p->e;
    int threads = pool_threads(e->pool);
    for (int64_t b = (int64_t)thread * BLOCK; b < p->rows; b += (int64_t)threads * BLOCK) {
        int rows = p->rows - b < BLOCK ? (int)(p->rows - b) : BLOCK;
        network_forward(&e->net, e->parameters, rows, p->x + b * e->net.inputs, e->workspace[thread], p->out + b * e->row);
    }
}

/* x (rows, inputs) to out (rows, outputs of all networks). */
API void pe_engine_forward(engine *e, const real *flat, int64_t rows, const real *x, real *out)
{
    pass p = {e, rows, x, NULL, out};
    pack(e, flat, e->parameters);
    pool_run(e->pool, forward_task, &p);
}

/* Rows of a shard, the same for any number of threads; fours keep to the tiles of a product. */
static void shard(int64_t rows, int index, int64_t *from, int64_t *to)
{
    int64_t each = ROUND_UP((rows + SHARDS - 1) / SHARDS, 4);
    *from = index * each < rows ? index * each : rows;
    *to = *from + each < rows ? *from + each : rows;
}

static void backward_task(void *argument, int thread)
{
    const pass *p = argument;
    engine *e = p->e;
    int threads = pool_threads(e->pool);
    real *workspace = e->workspace[thread], *out = workspace + e->net.workspace;
    network_transpose(&e->net, e->parameters, e->transposes, thread, threads);
    pool_barrier(e->pool);
    for (int s = thread; s < SHARDS; s += threads) {
        int64_t from, to;
        real *gradient = e->gradient + s * e->packed;
        memset(gradient, 0, sizeof(real) * (size_t)e->packed);
        shard(p->rows, s, &from, &to);
        for (int64_t b = from; b < to; b += BLOCK) {
            int rows = to - b < BLOCK ? (int)(to - b) : BLOCK;
            network_forward(&e->net, e->parameters, rows, p->x + b * e->net.inputs, workspace, out);
            network_backward(&e->net, e->transposes, rows, p->x + b * e->net.inputs, workspace, p->d + b * e->row, gradient);
        }
    }
}

/* gradient (flat): the derivative by the networks' parameters of what has derivative d (rows, outputs of all networks) by their outputs;
 * that by log_std is not of the networks and stays 0. */
API void pe_engine_backward(engine *e, const real *flat, int64_t rows, const real *x, const real *d, real *gradient)
{
    pass p = {e, rows, x, d, NULL};
    pack(e, flat, e->parameters);
    pool_run(e->pool, backward_task, &p);
    for (int s = 1; s < SHARDS; s++)
        for (ptrdiff_t i = 0; i < e->packed; i++)
            e->gradient[i] += e->gradient[s * e->packed + i];
    unpack(e, e->gradient, gradient);
}
