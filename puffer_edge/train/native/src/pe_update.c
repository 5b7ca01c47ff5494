/* Several epochs of PPO on one rollout. Parameters and Adam's moments stay packed from the first minibatch to the last. */

typedef struct update {
    engine *e;
    pe_update *u;
    samples s;
    double part[SHARDS][4];              /* of the shards: sum of the advantages, then of their squared deviations; norm; unused */
    double statistics[SHARDS][STATISTICS];
    double sums[STATISTICS + 1];
    double epoch[STATISTICS];
    int64_t minibatches;
    int stop;
    atomic_int next; /* shard: whoever is free takes it, which changes no bit and helps where another process holds a core */
} update;

/* A permutation of 0 … n − 1 computed place by place: six rounds of a Feistel network over the next even power of two, walked until the
 * result lies below n (Black and Rogaway, 2002, "Ciphers with arbitrary finite domains"). */
static int32_t permuted(uint32_t i, uint32_t n, int half, const uint32_t *keys)
{
    uint32_t mask = ((uint32_t)1 << half) - 1;
    do {
        uint32_t left = i >> half, right = i & mask;
        for (int round = 0; round < 6; round++) {
            uint32_t f = (right ^ keys[round]) * 0x9E3779B1u;
            f = (f ^ (f >> 15)) * 0x85EBCA77u;
            f ^= f >> 13;
            uint32_t next = left ^ (f & mask);
            left = right;
            right = next;
        }
        i = (left << half) | right;
    } while (i >= n);
    return (int32_t)i;
}

static void shuffle(const update *w, int32_t epoch, int thread, int threads)
{
    int64_t n = w->u->samples;
    int half = 1;
    while (((int64_t)1 << (2 * half)) < n)
        half++;
    words a = philox(0, (uint32_t)epoch, (uint32_t)w->u->update, (uint32_t)(w->u->update >> 32), w->u->seed, STREAM_SHUFFLE);
    words b = philox(1, (uint32_t)epoch, (uint32_t)w->u->update, (uint32_t)(w->u->update >> 32), w->u->seed, STREAM_SHUFFLE);
    const uint32_t keys[6] = {a.w[0], a.w[1], a.w[2], a.w[3], b.w[0], b.w[1]};
    for (int64_t i = n * thread / threads; i < n * (thread + 1) / threads; i++)
        w->e->order[i] = permuted((uint32_t)i, (uint32_t)n, half, keys);
}

static void gradient_of_block(update *w, const int32_t *place, int rows, real mean, real scale, real count, int s, real *workspace)
{
    engine *e = w->e;
    int n = e->net.inputs;
    real *policy_room = workspace + e->net.workspace, *out = policy_room + policy_workspace(e->outputs), *x = out + (ptrdiff_t)BLOCK * e->row,
         *d = x + (ptrdiff_t)BLOCK * n, *gradient = e->gradient + s * e->packed;
    for (int i = 0; i < rows; i++)
        memcpy(x + i * n, w->u->inputs + (ptrdiff_t)place[i] * n, sizeof(real) * (size_t)n);
    network_forward(&e->net, e->parameters, rows, x, workspace, out);
    if (e->head.kind == NO_POLICY)
        critic_loss(&w->u->loss, &w->s, place, rows, out, count, d, w->statistics[s]);
    else
        policy_loss(&e->head, e->parameters + e->log_std, &w->u->loss, &w->s, place, rows, out, e->row, mean, scale, count, d,
                    gradient + e->log_std, w->statistics[s], policy_room);
    network_backward(&e->net, e->transposes, rows, x, workspace, d, gradient);
}

/* Mean of the minibatch's advantages, and one over their deviation: two passes over the shards' sums. */
static void spread(update *w, const int32_t *place, int64_t count, int thread, int threads, real *mean, real *scale)
{
    double moment[2] = {0, 0};
    for (int pass = 0; pass < 2; pass++) {
        for (int s = thread; s < SHARDS; s += threads) {
            int64_t from, to;
            double sum = 0;
            shard(count, s, &from, &to);
            for (int64_t i = from; i < to; i++) {
                double a = (double)w->u->advantage[place[i]] - moment[0];
                sum += pass ? a * a : a;
            }
            w->part[s][pass] = sum;
        }
        pool_barrier(w->e->pool);
        for (int s = 0; s < SHARDS; s++)
            moment[pass] += w->part[s][pass];
        moment[0] /= pass ? 1.0 : (double)count;
    }
    *mean = (real)moment[0];
    *scale = (real)(1 / (sqrt(moment[1] / (double)(count - 1)) + 1e-8));
}

/* Sum of the shards' gradients for a part of the parameters, and its squared norm. */
static void reduce(update *w, int part)
{
    engine *e = w->e;
    double norm = 0;
    for (ptrdiff_t i = e->packed * part / SHARDS; i < e->packed * (part + 1) / SHARDS; i++) {
        real sum = e->gradient[i];
        for (int s = 1; s < SHARDS; s++)
            sum += e->gradient[s * e->packed + i];
        e->gradient[i] = sum;
        norm += (double)sum * (double)sum;
    }
    w->part[part][2] = norm;
}

/* Adam (Kingma and Ba, 2015) with epsilon beside the corrected deviation, as in torch. */
static void adam(update *w, int part, double norm)
{
    engine *e = w->e;
    const pe_update *u = w->u;
    double steps = (double)*u->adam_steps;
    double shorter = u->max_grad_norm / (norm + 1e-6); /* as torch's clip_grad_norm_ */
    real clip = (real)(shorter < 1 ? shorter : 1);
    real rate = (real)(u->learning_rate / (1 - pow(u->beta1, steps))), correction = (real)(1 / sqrt(1 - pow(u->beta2, steps)));
    real keep1 = (real)u->beta1, take1 = (real)(1 - u->beta1), keep2 = (real)u->beta2, take2 = (real)(1 - u->beta2), epsilon = (real)u->epsilon;
    real *restrict parameters = e->parameters, *restrict first = e->first, *restrict second = e->second;
    const real *restrict gradient = e->gradient;
    for (ptrdiff_t i = e->packed * part / SHARDS; i < e->packed * (part + 1) / SHARDS; i++) {
        real g = gradient[i] * clip;
        first[i] = keep1 * first[i] + take1 * g;
        second[i] = keep2 * second[i] + take2 * (g * g);
        parameters[i] -= rate * first[i] / (pe_sqrt(second[i]) * correction + epsilon);
    }
}

static void minibatch(update *w, const int32_t *place, int64_t count, int thread, int threads)
{
    engine *e = w->e;
    real mean = 0, scale = 1, *workspace = e->workspace[thread];
    network_transpose(&e->net, e->parameters, e->transposes, thread, threads);
    if (w->u->normalize_advantage)
        spread(w, place, count, thread, threads, &mean, &scale);
    else
        pool_barrier(e->pool);
    for (int s = atomic_fetch_add(&w->next, 1); s < SHARDS; s = atomic_fetch_add(&w->next, 1)) {
        int64_t from, to;
        shard(count, s, &from, &to);
        memset(e->gradient + s * e->packed, 0, sizeof(real) * (size_t)e->packed);
        memset(w->statistics[s], 0, sizeof w->statistics[s]);
        for (int64_t b = from; b < to; b += BLOCK)
            gradient_of_block(w, place + b, to - b < BLOCK ? (int)(to - b) : BLOCK, mean, scale, (real)count, s, workspace);
    }
    pool_barrier(e->pool);
    for (int s = thread; s < SHARDS; s += threads)
        reduce(w, s);
    if (thread == 0)
        ++*w->u->adam_steps;
    pool_barrier(e->pool);
    double norm = 0;
    for (int s = 0; s < SHARDS; s++)
        norm += w->part[s][2];
    norm = sqrt(norm);
    for (int s = thread; s < SHARDS; s += threads)
        adam(w, s, norm);
    if (thread == 0) {
        double last = 0;
        for (int k = 0; k < STATISTICS; k++) {
            double sum = 0;
            for (int s = 0; s < SHARDS; s++)
                sum += w->statistics[s][k];
            w->sums[k] += sum / (double)count;
            w->epoch[k] += sum / (double)count;
            last = k == KL ? sum / (double)count : last;
        }
        w->sums[STATISTICS] += norm;
        w->minibatches++;
        w->stop = w->u->stop_kl > 0 && last > w->u->stop_kl;
        atomic_store(&w->next, 0);
    }
    pool_barrier(e->pool);
}

static void update_task(void *argument, int thread)
{
    update *w = argument;
    pe_update *u = w->u;
    int threads = pool_threads(w->e->pool);
    for (int32_t epoch = 0; epoch < u->epochs; epoch++) {
        shuffle(w, epoch, thread, threads);
        int64_t before = w->minibatches;
        if (thread == 0)
            memset(w->epoch, 0, sizeof w->epoch);
        pool_barrier(w->e->pool);
        for (int64_t from = 0; from < u->samples; from += u->minibatch) {
            int64_t count = u->samples - from < u->minibatch ? u->samples - from : u->minibatch;
            if (count >= 2 || !u->normalize_advantage) /* a lone sample has no standard deviation */
                minibatch(w, w->e->order + from, count, thread, threads);
        }
        if (thread == 0) {
            u->epoch_kl[epoch < 64 ? epoch : 63] = w->epoch[KL] / (double)(w->minibatches - before);
            u->epochs_done = epoch + 1;
        }
        if (w->stop)
            break;
    }
}

static int make_room(engine *e, int64_t samples)
{
    if (samples <= e->room)
        return 1;
    free(e->order);
    e->order = malloc(sizeof(int32_t) * (size_t)samples);
    e->room = e->order ? samples : 0;
    return e->order != NULL;
}

/* 1, or 0 where there is no memory. */
API int32_t pe_engine_update(engine *e, pe_update *u)
{
    if (!make_room(e, u->samples))
        return 0;
    update w = {.e = e, .u = u, .s = {u->log_prob, u->value, u->advantage, u->returns, u->choice, u->number, u->allowed}};
    pack(e, u->parameters, e->parameters);
    pack(e, u->first, e->first);
    pack(e, u->second, e->second);
    pool_run(e->pool, update_task, &w);
    unpack(e, e->parameters, u->parameters);
    unpack(e, e->first, u->first);
    unpack(e, e->second, u->second);
    for (int k = 0; k <= STATISTICS; k++)
        u->statistics[k] = w.sums[k] / (double)(w.minibatches ? w.minibatches : 1);
    return 1;
}

API int32_t pe_engine_order(engine *e, pe_update *u, int32_t epoch, int32_t *out)
{
    update w = {.e = e, .u = u};
    if (!make_room(e, u->samples))
        return 0;
    shuffle(&w, epoch, 0, 1);
    memcpy(out, e->order, sizeof(int32_t) * (size_t)u->samples);
    return 1;
}
